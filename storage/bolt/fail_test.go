package bolt_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"bulwark/storage"
	"bulwark/storage/bolt"
	"bulwark/storage/entry"
	"bulwark/storage/storagetest"
)

// TestBackPressure lets Apply run ahead of a committer that would rest for an hour: the bound makes it flush.
func TestBackPressure(t *testing.T) {
	t.Parallel()
	o := options(filepath.Join(t.TempDir(), "state.db"))
	o.FlushInterval, o.FlushBytes, o.MaxOverlay = time.Hour, 1<<30, 100_000
	db, err := bolt.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	for index := range uint64(400) {
		e := &entry.Entry{Tenant: tenants[1], Writes: []entry.Write{
			{Space: entry.Space{Table: "a"}, Key: []byte{byte(index)}, Value: make([]byte, 10_000)}}}
		binary.BigEndian.PutUint64(e.ID[:], index+1)
		if db.Apply(index+1, []*entry.Entry{e}) == nil {
			t.Fatal(db.Failed())
		}
		if held := db.Stats().OverlayBytes; held > 200_000 {
			t.Fatalf("%d bytes wait for the committer", held)
		}
	}
	if db.Persisted() == 0 {
		t.Fatal("nothing was flushed")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db.Apply(1000, nil) != nil {
		t.Fatal("a closed DB applied something")
	}
	if _, err := db.Snapshot(); storage.FaultOf(err) != storage.Unavailable {
		t.Fatalf("a snapshot of a closed DB gives %v", err)
	}
}

// TestLongSnapshot holds a snapshot while the file grows to many times its size.
func TestLongSnapshot(t *testing.T) {
	t.Parallel()
	e := newEngine(t, 0)
	apply := func(first uint64) {
		for n := range uint64(200) {
			if e.Apply(first+n, []*entry.Entry{entryAt(first + n)}) == nil {
				t.Fatal(e.Failed())
			}
		}
		if err := e.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	apply(1)
	s, err := e.Local()
	if err != nil {
		t.Fatal(err)
	}
	before := world(t, s)
	for round := range uint64(20) {
		apply(201 + 200*round)
	}
	if world(t, s) != before {
		t.Fatal("a snapshot changed")
	}
	s.Release()
	s.Release()
	if _, _, _, err := s.Get(tenants[1], entry.Space{Table: "a"}, []byte("k")); err == nil {
		t.Fatal("a released snapshot can be read")
	}
}

// TestForgets holds how long outcomes are remembered: the same after a restart, and on every node.
func TestForgets(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, path)
	proposal := func() []*entry.Entry {
		return []*entry.Entry{{ID: entry.ID{1}, Tenant: tenants[1], Leaves: []entry.Leaf{{}}}}
	}
	applied := func(index uint64) bool {
		_, before := db.Applied()
		if db.Apply(index, proposal()) == nil {
			t.Fatal(db.Failed())
		}
		_, after := db.Applied()
		return after > before
	}
	reopen := func() {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, path)
	}
	if !applied(5) {
		t.Fatal("a new entry was not applied")
	}
	db.Apply(4, []*entry.Entry{{ID: entry.ID{2}, Tenant: tenants[1]}})
	if index, revision := db.Applied(); index != 5 || revision != 1 {
		t.Fatalf("an older index moved the state to %d, revision %d", index, revision)
	}
	reopen()
	if applied(5 + entry.RecentIndexes) {
		t.Fatal("an entry was applied twice within the window")
	}
	reopen()
	if !applied(6 + entry.RecentIndexes) {
		t.Fatal("an entry was still remembered after the window")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestUnreadablePage takes the file's pages away from under a DB: what reads them fails, and nothing else.
func TestUnreadablePage(t *testing.T) {
	t.Parallel()
	path := written(t)
	db := open(t, path)
	defer db.Close()
	if err := os.Truncate(path, 2*4096); err != nil {
		t.Fatal(err)
	}
	index, revision := db.Applied()
	e := entryAt(index + 1)
	e.ID, e.Points = entry.ID{0xff}, []entry.Point{{Space: entry.Space{Table: "nowhere"}, Key: []byte("k")}}
	if outcomes := db.Apply(index+1, []*entry.Entry{e}); outcomes != nil || db.Failed() == nil {
		t.Fatalf("an entry was applied to a state that cannot be read: %v", outcomes)
	}
	if i, r := db.Applied(); i != index || r != revision {
		t.Fatal("a batch that was not applied shows")
	}
	if err := db.Flush(); err == nil {
		t.Fatal("a DB that cannot be read was flushed")
	}
	if db.Apply(index+2, nil) != nil {
		t.Fatal("a failed DB applied something")
	}
}

// TestFailedCommitter makes the committer meet a damaged page: it says so, reads go on, and Apply ends when memory is full.
func TestFailedCommitter(t *testing.T) {
	t.Parallel()
	path := written(t)
	o := options(path)
	o.FlushInterval, o.MaxOverlay = time.Hour, 1_000_000
	db, err := bolt.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	index, _ := db.Applied()
	if err := os.Truncate(path, 2*4096); err != nil {
		t.Fatal(err)
	}
	put := func(index uint64) []entry.Outcome {
		e := &entry.Entry{Tenant: tenants[1], Writes: []entry.Write{
			{Space: entry.Space{Table: "a"}, Key: []byte{1, byte(index)}, Value: make([]byte, 100_000)}}}
		binary.BigEndian.PutUint64(e.ID[4:], index)
		return db.Apply(index, []*entry.Entry{e})
	}
	if put(index+1) == nil {
		t.Fatal(db.Failed())
	}
	flushing := db.Flush()
	if flushing == nil || !errors.Is(db.Failed(), flushing) {
		t.Fatalf("a flush into a damaged file gives %v, and then %v", flushing, db.Failed())
	}
	s, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if v, _, ok, err := s.Get(tenants[1], entry.Space{Table: "a"}, []byte{1, byte(index + 1)}); !ok || err != nil || len(v) != 100_000 {
		t.Fatalf("after a failed flush a row is there: %v (%v)", ok, err)
	}
	s.Release()
	n := uint64(2)
	for put(index+n) != nil {
		if n++; n > 100 {
			t.Fatal("Apply goes on for ever")
		}
	}
	if n < 5 {
		t.Fatalf("Apply ended after %d entries, with room for ten", n)
	}
	if err := db.Close(); !errors.Is(err, flushing) {
		t.Fatalf("closing gives %v", err)
	}
}

// TestImage copies the file while writes go on, and opens the copy.
func TestImage(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	db := open(t, filepath.Join(folder, "state.db"))
	model := storagetest.NewEngine()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for index := uint64(1); ; index++ {
			select {
			case <-stop:
				return
			default:
				db.Apply(index, []*entry.Entry{entryAt(index)})
			}
		}
	})
	<-db.Changed(300)
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	image, err := db.Image()
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(folder, "copy.db")
	f, err := os.Create(copied)
	if err != nil {
		t.Fatal(err)
	}
	n, err := image.WriteTo(f)
	if err := errors.Join(err, f.Close(), image.Close(), image.Close()); err != nil || n != image.Size {
		t.Fatalf("%d of %d bytes were written: %v", n, image.Size, err)
	}
	close(stop)
	wg.Wait()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	info, err := bolt.Inspect(copied)
	if err != nil || info.Index != image.Index || info.Revision != image.Revision || info.ClusterID != cluster {
		t.Fatalf("the copy says %+v (%v), want %+v", info, err, image.Info)
	}
	twin := open(t, copied)
	if err := twin.Check(); err != nil {
		t.Fatal(err)
	}
	for index := range info.Index {
		if _, err := model.Propose(context.Background(), entryAt(index+1)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := twin.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	want, _ := model.Local()
	if world(t, got) != world(t, want) {
		t.Fatal("the copy is not the state that it was made of")
	}
	got.Release()
	if err := twin.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCheckFindsADamagedLeaf changes one byte of an audit leaf's hash, which bbolt itself cannot notice.
func TestCheckFindsADamagedLeaf(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, path)
	hash := [32]byte([]byte("a leaf hash that nothing else is"))
	db.Apply(1, []*entry.Entry{{ID: entry.ID{1}, Tenant: tenants[1], Leaves: []entry.Leaf{{}, {Hash: hash}, {}, {}}}})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, path, func(b []byte) []byte {
		for at := range len(b) - 32 {
			if [32]byte(b[at:]) == hash {
				b[at] ^= 1
			}
		}
		return b
	})
	db = open(t, path)
	defer db.Close()
	if err := db.Check(); err == nil {
		t.Fatal("a changed leaf was not found")
	}
}
