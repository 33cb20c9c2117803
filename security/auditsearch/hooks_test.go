package auditsearch

import (
	"bytes"
	"path/filepath"
	"testing"
)

func TestHooksSealEverything(t *testing.T) {
	t.Parallel()
	r := registry{byPath: map[string]*folder{}}
	r.install.Do(func() {}) // the process's own hooks stay as they are
	dir := t.TempDir()
	key := bytes.Repeat([]byte{7}, 32)
	if _, err := r.add(dir, "", key); err == nil {
		t.Error("a key without an id")
	}
	if _, err := r.add(dir, "k", key[:16]); err == nil {
		t.Error("a short key")
	}
	f, err := r.add(dir, "k", key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.add(dir, "k", key); err == nil {
		t.Error("a folder was opened twice")
	}
	one, two := filepath.Join(dir, "1.zap"), filepath.Join(dir, "2.zap")
	for _, path := range []string{"", filepath.Join(t.TempDir(), "1.zap"), filepath.Join(dir, "deeper", "1.zap")} {
		if _, _, err := r.writer([]byte(path)); err == nil {
			t.Errorf("%q is written in a folder that is not open", path)
		}
		if _, err := r.reader("k", []byte(path)); err == nil {
			t.Errorf("%q is read in a folder that is not open", path)
		}
	}
	for _, id := range []string{"", "other"} {
		if _, err := r.reader(id, []byte(one)); err == nil {
			t.Errorf("a file with the key id %q is read", id)
		}
	}
	if open, err := r.reader("", nil); err != nil || open != nil {
		t.Errorf("what was never in a file does not pass: %v", err)
	}
	id, seal, err := r.writer([]byte(one))
	if err != nil || id != "k" {
		t.Fatalf("%q, %v", id, err)
	}
	sealed := seal([]byte("canary"))
	if bytes.Contains(sealed, []byte("canary")) || bytes.Equal(sealed, seal([]byte("canary"))) || len(seal(nil)) != 0 {
		t.Error("a value is not sealed as it should be")
	}
	open, err := r.reader("k", []byte(one))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := open(sealed); err != nil || string(plain) != "canary" {
		t.Errorf("opened %q, %v", plain, err)
	}
	elsewhere, err := r.reader("k", []byte(two))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := elsewhere(sealed); err == nil || f.failed.Load() == nil {
		t.Error("a value was opened in another file, or its failing was not kept")
	}
	r.remove(dir)
	if _, err := r.reader("k", []byte(one)); err == nil {
		t.Error("a closed folder is read")
	}
}

func FuzzManifest(f *testing.F) {
	key := bytes.Repeat([]byte{7}, 32)
	m := manifest{"000000000001.zap": {1}, "000000000002.zap": {2}}
	b, err := m.encode(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, changed []byte) {
		got, err := decodeManifest(changed, key)
		if err == nil && !bytes.Equal(changed, b) && len(got) > 0 {
			t.Error("a manifest that was never written was read")
		}
	})
}
