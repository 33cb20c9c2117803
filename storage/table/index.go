package table

import (
	"encoding/binary"
	"slices"
	"sync"

	"bulwark/storage"
)

// indexes are the ordered indexes of a node: sorted lists of (key, row id), in memory only, because the order of what is
// sealed cannot be on disk.
//
// Why a read through one answers as a scan would: every entry of the log that writes a row of a table also writes that
// table's stamp, a value that is never drawn twice (touch). An index carries the stamp of the snapshot that it was built
// from and is used only where the reader's own snapshot has the same stamp. Both snapshots are states after a prefix of
// one log, and the entry that wrote the stamp last is the same one, so no entry in between wrote a row: the table is the
// same in both, row for row. This holds for snapshots that are older than the index, for a transaction that has written
// rows (its own stamp is not the index's), and after a restore. Row ids would not do instead: they are drawn before an
// entry commits, on any node, so that a lower one may appear after a higher one.
//
// An index is built when the same question is asked a second time of an unchanged table. The first time a scan answers,
// which costs no more than building would; so a table that is written between reads is never indexed in vain.
type indexes struct {
	limit int64

	mu    sync.Mutex
	bytes int64
	clock uint64 // grows with each use
	known map[indexName]*index
}

// maxIndexes bounds the list itself.
const maxIndexes = 4096

type indexName struct {
	project
	space string
	terms string
}

// An index is what is known for one name. entries is never changed once it is set.
type index struct {
	stamp    string // of the table, and of its schema
	entries  []sortedRow
	built    bool
	building bool
	refused  bool // larger than the budget
	bytes    int64
	used     uint64
}

func newIndexes(limit int64) *indexes { return &indexes{limit: limit, known: map[indexName]*index{}} }

func (x *indexes) forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	clear(x.known)
	x.bytes = 0
}

// get returns the entries of the index over terms that holds for the selection's snapshot, if there is one.
func (x *indexes) get(s *selection, terms []term) ([]sortedRow, bool, error) {
	stamp, err := s.r.Get(s.t.ix, []byte{tagStamp})
	if err != nil && !storage.IsNotFound(err) {
		return nil, false, err
	}
	name := indexName{project: project{s.by.Tenant(), s.by.Project()}, space: s.t.Space, terms: termsName(terms)}
	full := string(stamp) + s.schema
	i, build := x.find(name, full)
	if i != nil {
		return i.entries, true, nil
	}
	if !build {
		return nil, false, nil
	}
	entries, bytes, err := s.buildIndex(terms, x.limit)
	x.store(name, &index{stamp: full, entries: entries, built: err == nil && entries != nil, refused: err == nil && entries == nil, bytes: bytes})
	if err != nil || entries == nil {
		return nil, false, err
	}
	return entries, true, nil
}

// find returns a usable index, or whether the caller should build it.
func (x *indexes) find(name indexName, stamp string) (usable *index, build bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.clock++
	i := x.known[name]
	if i == nil || i.stamp != stamp {
		if i != nil {
			x.bytes -= i.bytes
		} else if len(x.known) >= maxIndexes {
			x.dropLeastUsed()
		}
		x.known[name] = &index{stamp: stamp, used: x.clock}
		return nil, false
	}
	i.used = x.clock
	if i.built {
		return i, false
	}
	if i.building || i.refused {
		return nil, false
	}
	i.building = true
	return nil, true
}

func (x *indexes) store(name indexName, i *index) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if old := x.known[name]; old != nil {
		x.bytes -= old.bytes
	}
	i.used = x.clock
	x.known[name] = i
	x.bytes += i.bytes
	for x.bytes > x.limit || len(x.known) > maxIndexes {
		x.dropLeastUsed()
	}
}

func (x *indexes) dropLeastUsed() {
	var least indexName
	var found *index
	for name, i := range x.known {
		if found == nil || i.used < found.used {
			least, found = name, i
		}
	}
	if found != nil {
		x.bytes -= found.bytes
		delete(x.known, least)
	}
}

func termsName(terms []term) string {
	b := make([]byte, 0, len(terms)*4)
	for _, t := range terms {
		b = binary.BigEndian.AppendUint16(b, uint16(t.column))
		b = append(b, byte(boolean(t.desc).i), byte(boolean(t.nullsFirst).i))
	}
	return string(b)
}

// buildIndex reads the whole table. It returns nil entries where they would take more than limit bytes.
func (s *selection) buildIndex(terms []term, limit int64) (entries []sortedRow, bytes int64, err error) {
	entries = []sortedRow{}
	err = everything{}.each(s, func(id uint64, data []byte) (bool, error) {
		if s.visits++; s.visits%128 == 0 {
			if err := late(s.ctx); err != nil {
				return false, err
			}
		}
		if err := s.row.set(data); err != nil {
			return false, err
		}
		key, err := s.orderKey(nil, terms)
		if err != nil {
			return false, err
		}
		entries = append(entries, sortedRow{string(key), id})
		if bytes += int64(len(key)) + sortedRowBytes; bytes > limit {
			entries, bytes = nil, 0
			return false, nil
		}
		return true, nil
	})
	if err != nil {
		return nil, 0, err
	}
	slices.SortFunc(entries, sortedRow.compare)
	return entries, bytes, nil
}

// touch gives the table a new stamp. Every write of rows calls it.
func touch(tx storage.Tx, t *tableInfo) error {
	id := tx.NewID()
	return tx.Put(t.ix, []byte{tagStamp}, id[:])
}
