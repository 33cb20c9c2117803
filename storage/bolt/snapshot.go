package bolt

import (
	"encoding/binary"
	"errors"
	"runtime/debug"

	bbolt "go.etcd.io/bbolt"

	"bulwark/storage"
	"bulwark/storage/entry"
)

// A snapshot is one view laid over one bbolt transaction.
//
// What it reads of the file may not be there any more, or make no sense: its methods return that as an error (Unavailable),
// and the DB fails.
type snapshot struct {
	reader
	view *view
	db   *DB
}

var _ storage.Snapshot = (*snapshot)(nil)

// Snapshot returns the state after the last Apply. It takes no lock that Apply or the committer holds while they work.
//
// Why the view and the transaction fit: bbolt has one writer, the committer, whose transactions have consecutive ids,
// and transaction n+1 moves exactly one layer, the flushing one, into the file. A view says in maxTx the newest
// transaction that holds nothing above the view's own layers: the last one committed, or where a layer was flushing, the
// one that commits that layer. The transaction here begins after the view was loaded, and a view is published only
// after the transaction that it builds on, so it is never too old. If it is not newer than maxTx, it holds what is below
// the layers, perhaps with the flushing layer in it already: laying a layer over a state that has it changes nothing. If
// it is newer, a layer that came after the view may be in it: load the view again, which by then is a newer one.
func (db *DB) Snapshot() (storage.Snapshot, error) {
	for {
		s, err := db.lay(db.view.Load())
		if err != nil {
			return nil, err
		}
		if s != nil {
			return s, nil
		}
	}
}

// lay lays a view over a new transaction. It returns nil where the transaction is too new for the view, or the view's file
// was replaced.
func (db *DB) lay(v *view) (*snapshot, error) {
	if !v.file.acquire() {
		if db.view.Load() == v {
			return nil, storage.Errorf(storage.Unavailable, "stopping", "the node is stopping")
		}
		return nil, nil // the file was replaced
	}
	tx, err := v.file.Begin(false)
	if err != nil {
		v.file.release()
		return nil, err
	}
	if tx.ID() > v.maxTx {
		// It was only read from.
		_ = tx.Rollback()
		v.file.release()
		return nil, nil
	}
	s := &snapshot{view: v, db: db}
	s.init()
	s.tx = tx
	s.layers = [2]*layer{v.active, v.flushing}
	return s, nil
}

func (s *snapshot) Revision() uint64 { return s.view.revision }

func (s *snapshot) Get(tenant storage.ID, sp entry.Space, key []byte) (value []byte, version uint64, ok bool, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer s.recovered(&err)
	stored, err := s.row(tenant, sp, key)
	if stored == nil {
		return nil, 0, false, err
	}
	s.touch(stored)
	return stored[8:], binary.BigEndian.Uint64(stored), true, nil
}

func (s *snapshot) Scan(tenant storage.ID, sp entry.Space, from, to []byte, reverse bool,
	fn func(key, value []byte, version uint64) bool,
) (err error) {
	v := visit{db: s.db}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer v.recovered(&err)
	return s.rows(tenant, sp, from, to, reverse, func(key, stored []byte) bool {
		s.touch(stored)
		v.outside = true
		more := fn(key, stored[8:], binary.BigEndian.Uint64(stored))
		v.outside = false
		return more
	})
}

// Wrapped returns a map that the DB goes on using: it must not be changed.
func (s *snapshot) Wrapped(tenant, project storage.ID) (map[uint32][]byte, uint64, error) {
	k, ok := s.view.keys.Get(ringKey(tenant, project))
	if !ok {
		return nil, 0, nil
	}
	return k.versions, k.revision, nil
}

func (s *snapshot) Tree(tenant storage.ID) (size uint64, edge [][32]byte, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer s.recovered(&err)
	f, err := s.frontier(tenant)
	return f.size, f.edge, err
}

var errLeaf = errors.New("a stored audit leaf is damaged: it is shorter than its hash")

func (s *snapshot) Leaves(tenant storage.ID, first uint64, fn func(position uint64, leaf entry.Leaf) bool) (err error) {
	v := visit{db: s.db}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer v.recovered(&err)
	var damaged error
	err = s.leaves(tenant, first, func(key, stored []byte) bool {
		var leaf entry.Leaf
		if len(key) != 8 || len(stored) < len(leaf.Hash) {
			damaged = errLeaf
			return false
		}
		s.touch(stored)
		leaf.Sealed = stored[copy(leaf.Hash[:], stored):]
		v.outside = true
		more := fn(binary.BigEndian.Uint64(key), leaf)
		v.outside = false
		return more
	})
	if err == nil {
		err = damaged
	}
	return err
}

func (s *snapshot) Tenants() ([]storage.ID, error) {
	var ids []storage.ID
	s.view.keys.Scan(func(at string, _ *scopeKeys) bool {
		if id := storage.ID([]byte(at[:idSize])); len(ids) == 0 || ids[len(ids)-1] != id {
			ids = append(ids, id)
		}
		return true
	})
	return ids, nil
}

func (s *snapshot) Projects(tenant storage.ID) ([]storage.ID, error) {
	var ids []storage.ID
	s.view.keys.Ascend(ringKey(tenant, storage.ID{}), func(at string, _ *scopeKeys) bool {
		if at[:idSize] != string(tenant[:]) {
			return false
		}
		if id := storage.ID([]byte(at[idSize:])); !id.IsZero() {
			ids = append(ids, id)
		}
		return true
	})
	return ids, nil
}

func (s *snapshot) Spaces(tenant, project storage.ID) (found []string, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer s.recovered(&err)
	names := map[string]bool{}
	hidden := false
	prefix := string(append(tenantKey(rowCell, tenant), project[:]...))
	for _, l := range s.layers {
		if hidden {
			break
		}
		l.tables(prefix, names)
		hidden = l.hides(tenant, project)
	}
	if !hidden {
		b, err := s.project(tenant, project)
		if err != nil {
			return nil, err
		}
		if b != nil {
			err := b.ForEachBucket(func(name []byte) error {
				names[string(name)] = true
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return s.withRows(tenant, project, names)
}

// Release ends the snapshot; nothing that it returned may be used afterwards. It may be called again.
func (s *snapshot) Release() {
	if s.tx != nil {
		// It was only read from.
		_ = s.tx.Rollback()
		s.view.file.release()
		s.tx, s.tables, s.above = nil, nil, openProject{}
		s.begin = func() (*bbolt.Tx, error) { return nil, errReleased }
	}
}

var errReleased = errors.New("the snapshot was released")
