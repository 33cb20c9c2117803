package bolt_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"bulwark/storage/entry"
)

// TestUntouched opens and closes a database, as a node does that then finds something else wrong: not one byte may change,
// whether the database was closed before or its process was killed.
func TestUntouched(t *testing.T) {
	t.Parallel()
	for _, killed := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "state.db")
		db := open(t, path)
		if db.Apply(1, []*entry.Entry{entryAt(1)}) == nil {
			t.Fatal(db.Failed())
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
		if killed {
			other := filepath.Join(t.TempDir(), "state.db")
			copyFile(t, path, other)
			path = other
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := open(t, path).Close(); err != nil {
			t.Fatal(err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
			t.Errorf("killed %v: opening and closing changed the file (%v)", killed, err)
		}
	}
}
