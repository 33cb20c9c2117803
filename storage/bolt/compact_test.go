package bolt_test

import (
	"encoding/binary"
	"path/filepath"
	"testing"
	"time"

	"bulwark/storage/bolt"
	"bulwark/storage/entry"
)

// TestCompact makes the file anew while a snapshot is open and writes go on; the state stays what it was, and doing it
// again finds nothing to do.
func TestCompact(t *testing.T) {
	t.Parallel()
	o := options(filepath.Join(t.TempDir(), "state.db"))
	o.FlushInterval = time.Millisecond
	db, err := bolt.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	apply := func(from, to uint64) {
		for i := from; i <= to; i++ {
			e := &entry.Entry{Tenant: tenants[1], Writes: []entry.Write{{
				Space: entry.Space{Table: "a"}, Key: []byte{byte(i >> 8), byte(i)}, Value: make([]byte, 10_000), Delete: i > 2000}}}
			if i > 2000 {
				e.Writes[0].Key, e.Writes[0].Value = []byte{byte((i - 2000) >> 8), byte(i - 2000)}, nil
			}
			binary.BigEndian.PutUint64(e.ID[:], i)
			if db.Apply(i, []*entry.Entry{e}) == nil {
				t.Fatal(db.Failed())
			}
		}
	}
	apply(1, 2000)
	s, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	apply(2001, 3900)
	done := make(chan bool)
	go func() {
		defer close(done)
		apply(3901, 3950)
	}()
	before, after, err := db.Compact(t.Context())
	<-done
	if err != nil || after >= before/2 {
		t.Errorf("%d bytes before, %d after, %v", before, after, err)
	}
	if _, version, ok, err := s.Get(tenants[1], entry.Space{Table: "a"}, []byte{0, 1}); !ok || version != 1 || err != nil {
		t.Errorf("the snapshot of before reads version %d, %v, %v", version, ok, err)
	}
	s.Release()
	// What was deleted meanwhile has left free pages in the new file.
	if _, _, err := db.Compact(t.Context()); err != nil {
		t.Error(err)
	}
	if before, after, err = db.Compact(t.Context()); err != nil || before != after {
		t.Errorf("again: %d bytes before, %d after, %v", before, after, err)
	}
	if err := db.Check(); err != nil {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, o.Path)
	defer db.Close()
	if index, revision := db.Applied(); index != 3950 || revision != 3950 {
		t.Errorf("opened again it is at index %d, revision %d", index, revision)
	}
}
