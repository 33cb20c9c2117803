package bolt

import (
	"encoding/binary"
	"fmt"
	"maps"
	"runtime/debug"

	bbolt "go.etcd.io/bbolt"

	"bulwark/storage/entry"
)

// Apply applies the entries of the log's index, in order, each as a whole or not at all, and returns what became of
// each. Only one goroutine may call it. An index may be skipped (it held no entries); one that was applied before changes
// nothing, and its outcomes are those that are still remembered. No entries is fine: the index moves on.
//
// What it applied is visible at once, and in the file after the next flush. When the committer lags, Apply waits for it.
// Apply returns nil when nothing was applied and nothing will be: the DB is closed, its file cannot be read, or it cannot
// be written and memory is full of what waits. Failed then says why.
func (db *DB) Apply(index uint64, entries []*entry.Entry) (outcomes []entry.Outcome) {
	db.mu.Lock()
	defer db.mu.Unlock()
	for db.heldBytes() > db.maxOverlay && db.failed == nil && !db.closed {
		signal(db.full)
		db.room.Wait()
	}
	if db.closed || db.broken || db.heldBytes() > db.maxOverlay {
		return nil
	}
	outcomes = make([]entry.Outcome, len(entries))
	if index <= db.active.index {
		for i, e := range entries {
			outcomes[i] = db.recent.outcomes[e.ID]
		}
		return outcomes
	}

	a := applier{db: db, revision: db.active.revision}
	a.init()
	a.layers = [2]*layer{db.active, db.flushing}
	a.begin = func() (*bbolt.Tx, error) { return db.bolt.Begin(false) }
	// A page that cannot be read, or is damaged, shows as a fault or panic here. The batch may then be half in the overlay,
	// which must never reach the file or a snapshot.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		err := a.err
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
		a.end()
		if err != nil {
			db.broken = true
			db.fail(fmt.Errorf("applying the entries of index %d: %w", index, err))
			outcomes = nil
		}
	}()
	for i, e := range entries {
		if outcomes[i] = a.apply(e); a.err != nil {
			return nil
		}
	}
	db.active.index, db.active.revision = index, a.revision
	db.recent.remember(db.active, index, a.ids)
	db.publish()
	signal(db.dirty)
	if db.active.bytes >= db.flushBytes {
		signal(db.full)
	}
	return outcomes
}

// heldBytes is the memory that waits for the committer.
func (db *DB) heldBytes() int {
	n := db.active.bytes
	if db.flushing != nil {
		n += db.flushing.bytes
	}
	return n
}

// An applier applies the entries of one index to the active layer.
type applier struct {
	reader
	db       *DB
	revision uint64
	ids      []entry.ID // the entries whose outcomes are new
	err      error      // from reading; it ends everything
}

func (a *applier) end() {
	if a.tx != nil {
		// It was only read from: there is nothing that a failure could lose.
		_ = a.tx.Rollback()
	}
}

func (a *applier) apply(e *entry.Entry) entry.Outcome {
	if o, ok := a.db.recent.outcomes[e.ID]; ok {
		return o
	}
	o := entry.Outcome{Revision: a.revision}
	switch {
	case e.Validate() != nil:
		o.Status = entry.Invalid
	case !a.holds(e):
		o.Status = entry.Conflict
	default:
		if a.write(e); a.err == nil {
			o = entry.Outcome{Status: entry.Applied, Revision: a.revision}
		}
	}
	if a.err == nil && !e.ID.IsZero() {
		a.db.recent.outcomes[e.ID] = o
		a.ids = append(a.ids, e.ID)
	}
	return o
}

// holds reports whether every precondition of e holds.
func (a *applier) holds(e *entry.Entry) bool {
	for i := range e.Scopes {
		s := &e.Scopes[i]
		var revision uint64
		if k, ok := a.db.keys.Get(ringKey(s.Tenant, s.Project)); ok {
			revision = k.revision
		}
		if revision != s.Revision {
			return false
		}
	}
	for i := range e.Points {
		p := &e.Points[i]
		stored, err := a.row(e.Tenant, p.Space, p.Key)
		if err != nil {
			a.err = err
			return false
		}
		var version uint64
		if stored != nil {
			version = binary.BigEndian.Uint64(stored)
		}
		if version != p.Version {
			return false
		}
	}
	for i := range e.Ranges {
		r := &e.Ranges[i]
		var n uint64
		err := a.rows(e.Tenant, r.Space, r.From, r.To, false, func(_, stored []byte) bool {
			if n++; binary.BigEndian.Uint64(stored) > e.Revision {
				n = r.Count + 1
			}
			return n <= r.Count
		})
		if err != nil {
			a.err = err
			return false
		}
		if n != r.Count {
			return false
		}
	}
	return true
}

// write puts what e says into the active layer. It has nothing to refuse; a.err means that the state could not be read.
func (a *applier) write(e *entry.Entry) {
	var tree frontier
	if len(e.Leaves) > 0 {
		if tree, a.err = a.frontier(e.Tenant); a.err != nil {
			return
		}
	}
	a.revision++
	l := a.db.active
	for i := range e.Writes {
		w := &e.Writes[i]
		a.key = append(rowPrefix(a.key[:0], e.Tenant, w.Space), w.Key...)
		if w.Delete {
			l.set(a.key, nil)
		} else {
			l.set(a.key, a.stored(w.Value))
		}
	}
	if len(e.Leaves) > 0 {
		for i := range e.Leaves {
			leaf := &e.Leaves[i]
			stored := make([]byte, 0, len(leaf.Hash)+len(leaf.Sealed))
			l.set(leafKey(e.Tenant, tree.size), append(append(stored, leaf.Hash[:]...), leaf.Sealed...))
			tree.add(leaf.Hash)
		}
		l.set(tenantKey(treeCell, e.Tenant), tree.encode())
	}
	for i, m := range e.Messages {
		a.key = rowPrefix(a.key[:0], e.Tenant, entry.Space{Table: entry.Outbox})
		a.key = binary.BigEndian.AppendUint64(a.key, a.revision)
		a.key = binary.BigEndian.AppendUint32(a.key, uint32(i))
		l.set(a.key, a.stored(m))
	}
	for i := range e.Keys {
		a.change(&e.Keys[i])
	}
}

// stored returns a copy of value behind the version that it gets.
func (a *applier) stored(value []byte) []byte {
	b := make([]byte, 8, 8+len(value))
	binary.BigEndian.PutUint64(b, a.revision)
	return append(b, value...)
}

func (a *applier) change(k *entry.KeyChange) {
	ring := a.db.keys
	at := ringKey(k.Tenant, k.Project)
	had, ok := ring.Get(at)
	if !ok {
		had = &scopeKeys{}
	}
	switch k.Kind {
	case entry.PutKey:
		versions := maps.Clone(had.versions)
		if versions == nil {
			versions = map[uint32][]byte{}
		}
		wrapped := append([]byte(nil), k.Wrapped...)
		versions[k.Version] = wrapped
		ring.Set(at, &scopeKeys{versions, a.revision})
		a.keyCells(k, wrapped, a.revision)
	case entry.DropKey:
		if _, ok := had.versions[k.Version]; !ok {
			return
		}
		if len(had.versions) == 1 {
			ring.Delete(at)
			a.keyCells(k, nil, 0)
			return
		}
		versions := maps.Clone(had.versions)
		delete(versions, k.Version)
		ring.Set(at, &scopeKeys{versions, a.revision})
		a.keyCells(k, nil, a.revision)
	case entry.DestroyScope:
		whole := k.Project.IsZero()
		a.dropKeys(k.Tenant, k.Project, whole)
		a.db.active.destroy(mask{k.Tenant, k.Project, whole})
	}
}

// keyCells writes one version of a scope's keys, and the scope's revision (0 where no key is left).
func (a *applier) keyCells(k *entry.KeyChange, wrapped []byte, revision uint64) {
	scope := wrappedKey(k.Tenant, k.Project)
	a.db.active.set(binary.BigEndian.AppendUint32(scope[:len(scope):len(scope)], k.Version), wrapped)
	if revision == 0 {
		a.db.active.set(scope, nil)
	} else {
		a.db.active.set(scope, binary.BigEndian.AppendUint64(nil, revision))
	}
}

// dropKeys removes the keys of one scope, or of every scope of the tenant.
func (a *applier) dropKeys(tenant, project entry.ID, whole bool) {
	prefix := ringKey(tenant, project)
	if whole {
		prefix = string(tenant[:])
	}
	type found struct {
		at   string
		keys *scopeKeys
	}
	var gone []found
	a.db.keys.Ascend(prefix, func(at string, k *scopeKeys) bool {
		if at[:len(prefix)] != prefix {
			return false
		}
		gone = append(gone, found{at, k})
		return true
	})
	for _, g := range gone {
		scope := append([]byte{wrappedCell}, g.at...)
		for version := range g.keys.versions {
			a.db.active.set(binary.BigEndian.AppendUint32(scope[:len(scope):len(scope)], version), nil)
		}
		a.db.active.set(scope, nil)
		a.db.keys.Delete(g.at)
	}
}

// A memory remembers the outcomes of recent entries. It is part of the replicated state.
type memory struct {
	outcomes map[entry.ID]entry.Outcome
	batches  []batch // the oldest first
	count    int     // of outcomes in batches
}

type batch struct {
	index uint64
	ids   []entry.ID
}

const outcomeSize = 16 + 1 + 8

// remember notes the outcomes of ids, which are in m.outcomes already, and forgets those that are too old.
func (m *memory) remember(l *layer, index uint64, ids []entry.ID) {
	if len(ids) > 0 {
		m.batches = append(m.batches, batch{index, ids})
		m.count += len(ids)
		stored := make([]byte, 0, len(ids)*outcomeSize)
		for _, id := range ids {
			o := m.outcomes[id]
			stored = append(append(stored, id[:]...), byte(o.Status))
			stored = binary.BigEndian.AppendUint64(stored, o.Revision)
		}
		l.set(recentKey(index), stored)
	}
	for len(m.batches) > 0 {
		oldest := &m.batches[0]
		if oldest.index+entry.RecentIndexes > index && m.count <= entry.RecentOutcomes {
			return
		}
		for _, id := range oldest.ids {
			delete(m.outcomes, id)
		}
		m.count -= len(oldest.ids)
		l.set(recentKey(oldest.index), nil)
		m.batches = m.batches[1:]
	}
}

// load reads back what remember stored.
func (m *memory) load(index uint64, stored []byte) error {
	if len(stored)%outcomeSize != 0 {
		return fmt.Errorf("the remembered outcomes of index %d are damaged", index)
	}
	b := batch{index: index}
	for ; len(stored) > 0; stored = stored[outcomeSize:] {
		id := entry.ID(stored[:16])
		m.outcomes[id] = entry.Outcome{Status: entry.Status(stored[16]), Revision: binary.BigEndian.Uint64(stored[17:])}
		b.ids = append(b.ids, id)
	}
	m.batches = append(m.batches, b)
	m.count += len(b.ids)
	return nil
}
