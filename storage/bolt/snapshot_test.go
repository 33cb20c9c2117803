package bolt

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"bulwark/storage/entry"
)

// TestViewMeetsTheFile lays views over files that are older and newer than they are.
func TestViewMeetsTheFile(t *testing.T) {
	t.Parallel()
	db, err := Open(Options{Path: filepath.Join(t.TempDir(), "state.db"), ClusterID: entry.ID{1},
		FlushInterval: time.Hour, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	write := func(index uint64) *view {
		db.Apply(index, []*entry.Entry{{ID: entry.ID{byte(index)}, Tenant: entry.ID{2},
			Writes: []entry.Write{{Space: entry.Space{Table: "a"}, Key: []byte{byte(index)}}}}})
		return db.view.Load()
	}
	fits := func(v *view) bool {
		t.Helper()
		s, err := db.lay(v)
		if err != nil {
			t.Fatal(err)
		}
		if s != nil {
			s.Release()
		}
		return s != nil
	}
	first := write(1)
	second := write(2)
	if !fits(first) || !fits(second) {
		t.Fatal("a view is refused over the file that it builds on")
	}
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	if fits(first) || fits(second) {
		t.Fatal("a view is laid over a file that may hold what came after it")
	}
	if !fits(db.view.Load()) {
		t.Fatal("the newest view is refused")
	}
}
