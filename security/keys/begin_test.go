package keys

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	"bulwark/storage"
)

// TestInitAfterACut holds that making a cluster can be cut off at any step and begun again, and that a key file which is
// another cluster's is never taken for a leftover.
func TestInitAfterACut(t *testing.T) {
	t.Parallel()
	cluster := storage.ID{1, 2, 3}
	whole := encodeKeyFile(cluster, make([]byte, RootLen))
	other := encodeKeyFile(storage.ID{9}, make([]byte, RootLen))
	for name, c := range map[string]struct {
		begun   bool
		key     []byte // nil: no file
		temp    bool   // a header that was not renamed
		refused bool
	}{
		"nothing":                              {},
		"the mark":                             {begun: true},
		"an empty key file":                    {begun: true, key: []byte{}},
		"a torn key file":                      {begun: true, key: whole[:20]},
		"a whole key file":                     {begun: true, key: whole},
		"a header without its name":            {begun: true, key: whole, temp: true},
		"another cluster's key file":           {begun: true, key: other, refused: true},
		"a key file and no mark":               {key: whole, refused: true},
		"a key file that is none, and no mark": {key: []byte("notes"), refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, key := t.TempDir(), filepath.Join(t.TempDir(), "key")
			if c.begun {
				if err := begin(dir, cluster); err != nil {
					t.Fatal(err)
				}
			}
			if c.key != nil {
				if err := os.WriteFile(key, c.key, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if c.temp {
				if err := os.WriteFile(filepath.Join(dir, leftoverPrefix+"123"), []byte("{"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			seal, err := NewFileSeal(dir, key)
			if err != nil {
				t.Fatal(err)
			}
			h, root, err := Init(dir, seal, rand.Reader)
			if c.refused {
				if storage.FaultOf(err) != storage.Exists {
					t.Errorf("it was not refused: %v", err)
				}
				if b, err := os.ReadFile(key); err != nil || string(b) != string(c.key) {
					t.Errorf("the key file was changed: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := h.Verify(root); err != nil {
				t.Error(err)
			}
			if again, err := h.Open(seal); err != nil || string(again) != string(root) {
				t.Errorf("the key file does not open the cluster: %v", err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 1 {
				t.Errorf("the folder holds %v, %v", entries, err)
			}
		})
	}
}
