package bolt_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bulwark/storage"
	"bulwark/storage/bolt"
	"bulwark/storage/entry"
)

// damagedUnder returns a snapshot of an open DB with rows and leaves, whose file was changed by damage behind it.
func damagedUnder(t *testing.T, damage func(t *testing.T, path string)) (*bolt.DB, storage.Snapshot) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, path)
	for n := range uint64(400) {
		if db.Apply(n+1, []*entry.Entry{entryAt(n + 1)}) == nil {
			t.Fatal(db.Failed())
		}
	}
	big := &entry.Entry{ID: entry.ID{0xb}, Tenant: tenants[1], Writes: []entry.Write{
		{Space: entry.Space{Table: "big"}, Key: []byte("k"), Value: []byte(strings.Repeat("big ", 1<<16))}}}
	if db.Apply(401, []*entry.Entry{big}) == nil {
		t.Fatal(db.Failed())
	}
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	damage(t, path)
	s, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return db, s
}

func cutShort(t *testing.T, path string) {
	t.Helper()
	if err := os.Truncate(path, 2*4096); err != nil {
		t.Fatal(err)
	}
}

// TestPagesThatAreNotThere reads, in every way, from a file that was cut short, or overwritten, under an open DB: an
// error that says so, and a DB that has failed, but no end of the process.
func TestPagesThatAreNotThere(t *testing.T) {
	t.Parallel()
	table := entry.Space{Table: "big"}
	reads := map[string]func(storage.Snapshot) error{
		"get":  func(s storage.Snapshot) error { _, _, _, err := s.Get(tenants[1], table, []byte("k")); return err },
		"scan": func(s storage.Snapshot) error { return s.Scan(tenants[1], table, nil, nil, false, readAll) },
		"back": func(s storage.Snapshot) error { return s.Scan(tenants[1], table, nil, nil, true, readAll) },
		"tree": func(s storage.Snapshot) error { _, _, err := s.Tree(tenants[1]); return err },
		"leaves": func(s storage.Snapshot) error {
			return s.Leaves(tenants[1], 0, func(uint64, entry.Leaf) bool { return true })
		},
		"spaces": func(s storage.Snapshot) error { _, err := s.Spaces(tenants[1], entry.ID{}); return err },
	}
	damages := map[string]func(*testing.T, string){
		"cut": cutShort,
		"noise": func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i := range b {
				b[i] = byte(i*7 + i>>8)
			}
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(b[2*4096:], 2*4096); err != nil {
				t.Fatal(err)
			}
		},
	}
	for how, damage := range damages {
		for name, read := range reads {
			t.Run(how+", "+name, func(t *testing.T) {
				t.Parallel()
				db, s := damagedUnder(t, damage)
				err := read(s)
				if storage.FaultOf(err) != storage.Unavailable {
					t.Errorf("reading gives %v", err)
				}
				s.Release()
				if db.Failed() == nil {
					t.Error("the DB has not failed")
				}
				if err := db.Close(); err == nil || !strings.Contains(err.Error(), "reading the database") {
					t.Errorf("closing gives %v", err)
				}
			})
		}
	}
}

func readAll(_, value []byte, _ uint64) bool {
	sum := byte(0)
	for _, b := range value {
		sum += b
	}
	return fmt.Sprint(sum) != ""
}

// TestPageLostWhileItIsUsed cuts the file short while a visited value is in use.
func TestPageLostWhileItIsUsed(t *testing.T) {
	t.Parallel()
	var at string
	db, s := damagedUnder(t, func(_ *testing.T, path string) { at = path })
	err := s.Scan(tenants[1], entry.Space{Table: "big"}, nil, nil, false, func(k, v []byte, version uint64) bool {
		cutShort(t, at)
		return readAll(k, v, version)
	})
	if storage.FaultOf(err) != storage.Unavailable || db.Failed() == nil {
		t.Errorf("reading gives %v, and the DB says %v", err, db.Failed())
	}
	s.Release()
	if db.Close() == nil {
		t.Error("closing says nothing")
	}
}

// TestPanicsOfOthersPass panics in the functions that a snapshot calls.
func TestPanicsOfOthersPass(t *testing.T) {
	t.Parallel()
	db, s := damagedUnder(t, func(*testing.T, string) {})
	for name, read := range map[string]func() error{
		"scan": func() error {
			return s.Scan(tenants[1], entry.Space{Table: "big"}, nil, nil, false, func(_, _ []byte, _ uint64) bool { panic("mine") })
		},
		"leaves": func() error { return s.Leaves(tenants[1], 0, func(uint64, entry.Leaf) bool { panic("mine") }) },
	} {
		func() {
			defer func() {
				if p := recover(); p != "mine" {
					t.Errorf("%s: the panic became %v", name, p)
				}
			}()
			t.Errorf("%s: it returned %v", name, read())
		}()
	}
	s.Release()
	if db.Failed() != nil {
		t.Errorf("the DB failed: %v", db.Failed())
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
