package keys

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"bulwark/storage"
)

// folders are a data folder and a place for keys beside it.
func folders(t testing.TB) (data, vault string) {
	t.Helper()
	base := t.TempDir()
	data, vault = filepath.Join(base, "data"), filepath.Join(base, "vault")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	return data, vault
}

// contents is every file under dir with its mode and bytes.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = fmt.Sprint(info.Mode(), info.ModTime(), string(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// unchanged fails the test if fn changes a file beside the data folder or in it.
func unchanged(t testing.TB, data string, fn func()) {
	t.Helper()
	before := contents(t, filepath.Dir(data))
	fn()
	after := contents(t, filepath.Dir(data))
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Error("files were changed")
	}
}

func fileSeal(t testing.TB, data, path string) *FileSeal {
	t.Helper()
	s, err := NewFileSeal(data, path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func header(t testing.TB, data string) *Header {
	t.Helper()
	h, err := ReadHeader(data)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestFileSeal(t *testing.T) {
	t.Parallel()
	data, vault := folders(t)
	key := filepath.Join(vault, "deep", "root.key")
	h, root, err := Init(data, fileSeal(t, data, key), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if read := header(t, data); read.Cluster != h.Cluster || read.Kind != File || h.Cluster.IsZero() {
		t.Errorf("read %+v, wrote %+v", read, h)
	}
	for _, path := range []string{key, ""} {
		got, err := header(t, data).Open(fileSeal(t, data, path))
		if err != nil || !bytes.Equal(got, root) {
			t.Fatalf("opening with %q: %v", path, err)
		}
	}
	for path, file := range contents(t, filepath.Dir(data)) {
		if runtime.GOOS != "windows" && !strings.HasPrefix(file, "-rw-------") {
			t.Errorf("%s has mode %.10s", path, file)
		}
		if strings.HasPrefix(path, data) && (strings.Contains(file, string(root)) || strings.Contains(file, fmt.Sprintf("%x", root))) {
			t.Errorf("%s holds the root key", path)
		}
		if strings.Contains(path, ".tmp") || strings.HasPrefix(filepath.Base(path), ".") {
			t.Errorf("%s was left behind", path)
		}
	}
	unchanged(t, data, func() {
		_, _, err = Init(data, fileSeal(t, data, filepath.Join(vault, "other.key")), rand.Reader)
		wantFault(t, err, storage.Exists, "already_initialised")
	})

	moved := filepath.Join(vault, "moved.key")
	if err := os.Rename(key, moved); err != nil {
		t.Fatal(err)
	}
	if got, err := header(t, data).Open(fileSeal(t, data, moved)); err != nil || !bytes.Equal(got, root) {
		t.Errorf("from its new place: %v", err)
	}
}

func TestFileSealRefuses(t *testing.T) {
	t.Parallel()
	data, vault := folders(t)
	key := filepath.Join(vault, "root.key")
	h, root, err := Init(data, fileSeal(t, data, key), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, _ := folders(t)
	foreign := filepath.Join(vault, "foreign.key")
	if _, _, err := Init(elsewhere, fileSeal(t, elsewhere, foreign), rand.Reader); err != nil {
		t.Fatal(err)
	}
	put := func(name string, b []byte, mode fs.FileMode) string {
		path := filepath.Join(vault, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := encodeKeyFile(h.Cluster, root)
	for _, c := range []struct {
		name, path, code string
		fault            storage.Fault
	}{
		{"missing", filepath.Join(vault, "none.key"), "key_file_missing", storage.Unavailable},
		{"group may read", put("g.key", good, 0o640), "key_file_mode", storage.BadInput},
		{"world may read", put("w.key", good, 0o604), "key_file_mode", storage.BadInput},
		{"world may write", put("x.key", good, 0o602), "key_file_mode", storage.BadInput},
		{"a folder", vault, "key_file_unreadable", storage.BadInput},
		{"empty", put("e.key", nil, 0o600), "key_file_damaged", storage.BadInput},
		{"cut", put("c.key", good[:len(good)-5], 0o600), "key_file_damaged", storage.BadInput},
		{"one digit changed", put("d.key", bytes.Replace(good, good[60:61], []byte("g"), 1), 0o600), "key_file_damaged", storage.BadInput},
		{"another cluster", foreign, "other_cluster", storage.BadInput},
		{"another key, this cluster", put("k.key", encodeKeyFile(h.Cluster, testRoot(9)), 0o600), "wrong_root_key", storage.BadInput},
	} {
		if c.code == "key_file_mode" && runtime.GOOS == "windows" {
			continue
		}
		unchanged(t, data, func() {
			_, err := header(t, data).Open(fileSeal(t, data, c.path))
			if err == nil {
				t.Errorf("%s: opened", c.name)
				return
			}
			wantFault(t, err, c.fault, c.code)
			if strings.Contains(err.Error(), fmt.Sprintf("%x", root)) {
				t.Errorf("%s: the error holds the key", c.name)
			}
		})
	}

	fresh := filepath.Join(filepath.Dir(data), "fresh")
	if err := os.Mkdir(fresh, 0o700); err != nil {
		t.Fatal(err)
	}
	unchanged(t, data, func() {
		_, _, err := Init(fresh, fileSeal(t, fresh, key), rand.Reader)
		wantFault(t, err, storage.Exists, "key_file_exists")
		_, _, err = Init(fresh, fileSeal(t, fresh, ""), rand.Reader)
		wantFault(t, err, storage.BadInput, "no_key_file")
		_, err = header(t, data).Open(CollectShares())
		wantFault(t, err, storage.BadInput, "other_seal")
		if _, _, err = Init(filepath.Join(data, "none"), fileSeal(t, data, filepath.Join(vault, "undone.key")), rand.Reader); err == nil {
			t.Error("initialised a folder that is not there")
		}
		if _, _, err := Init(fresh, fileSeal(t, fresh, filepath.Join(vault, "never.key")), broken{}); err == nil {
			t.Error("initialised without randomness")
		}
	})
}

func TestKeyFileInsideData(t *testing.T) {
	t.Parallel()
	data, vault := folders(t)
	if err := os.Symlink(data, vault); err != nil && runtime.GOOS != "windows" {
		t.Fatal(err)
	}
	inside := []string{filepath.Join(data, "root.key"), filepath.Join(data, "a", "b"), data, filepath.Join(data, "..", "data", "x"), filepath.Join(data, "..x")}
	if runtime.GOOS != "windows" {
		inside = append(inside, filepath.Join(vault, "through-a-link"), filepath.Join(vault, "new", "root.key"))
	}
	for _, path := range inside {
		_, err := NewFileSeal(data, path)
		wantFault(t, err, storage.BadInput, "key_inside_data")
	}
	for _, path := range []string{data + ".key", filepath.Join(data, "..", "root.key"), filepath.Join(filepath.Dir(data), "..root.key")} {
		if _, err := NewFileSeal(data, path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestPassphraseSeal(t *testing.T) {
	t.Parallel()
	data, _ := folders(t)
	typed := func(text string) *PassphraseSeal {
		return NewPassphraseSeal(func() ([]byte, error) { return []byte(text), nil }, rand.Reader)
	}
	unchanged(t, data, func() {
		for _, bad := range []string{"", "short", strings.Repeat("x", maxPassphrasLen+1)} {
			_, _, err := Init(data, typed(bad), rand.Reader)
			wantFault(t, err, storage.BadInput, "bad_passphrase")
		}
	})
	h, root, err := Init(data, typed("correct horse battery"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var p passphraseParams
	if err := json.Unmarshal(h.Params, &p); err != nil || p.Time != 3 || p.MemoryKiB != 65536 {
		t.Errorf("parameters %+v, %v", p, err)
	}
	unchanged(t, data, func() {
		got, err := header(t, data).Open(typed("correct horse battery"))
		if err != nil || !bytes.Equal(got, root) {
			t.Errorf("opening: %v", err)
		}
		for _, bad := range []string{"correct horse batterz", "", strings.Repeat("x", maxPassphrasLen+1)} {
			_, err = header(t, data).Open(typed(bad))
			wantFault(t, err, storage.BadInput, "wrong_passphrase")
		}
		gone := errors.New("no terminal")
		_, err = header(t, data).Open(NewPassphraseSeal(func() ([]byte, error) { return nil, gone }, rand.Reader))
		if !errors.Is(err, gone) {
			t.Errorf("without a terminal: %v", err)
		}
	})
	// A header of another cluster holds this one's sealed key.
	_, err = typed("correct horse battery").Open(storage.ID{1}, h.Params)
	wantFault(t, err, storage.BadInput, "wrong_passphrase")

	for name, change := range map[string]func(*passphraseParams){
		"too much memory": func(p *passphraseParams) { p.MemoryKiB = argonMemoryLimit + 1 },
		"no memory":       func(p *passphraseParams) { p.MemoryKiB = 0 },
		"too long":        func(p *passphraseParams) { p.Time = argonTimeLimit + 1 },
		"no time":         func(p *passphraseParams) { p.Time = 0 },
		"no threads":      func(p *passphraseParams) { p.Threads = 0 },
		"many threads":    func(p *passphraseParams) { p.Threads = 255 },
		"no salt":         func(p *passphraseParams) { p.Salt = nil },
		"short nonce":     func(p *passphraseParams) { p.Nonce = p.Nonce[1:] },
		"short key":       func(p *passphraseParams) { p.Sealed = p.Sealed[1:] },
	} {
		bad := p
		change(&bad)
		params, err := json.Marshal(bad)
		if err != nil {
			t.Fatal(err)
		}
		asked := NewPassphraseSeal(func() ([]byte, error) {
			t.Errorf("%s: the passphrase was asked for", name)
			return nil, gone(name)
		}, rand.Reader)
		_, err = asked.Open(h.Cluster, params)
		wantFault(t, err, storage.Internal, "damaged_header")
	}
}

func gone(what string) error { return errors.New(what) }

func shamirSeal(t testing.TB, k, n int) *ShamirSeal {
	t.Helper()
	s, err := NewShamirSeal(k, n, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestShamirSeal(t *testing.T) {
	t.Parallel()
	for _, bad := range [][2]int{{0, 0}, {1, 1}, {1, 3}, {3, 2}, {2, 256}, {-1, 3}} {
		_, err := NewShamirSeal(bad[0], bad[1], rand.Reader)
		wantFault(t, err, storage.BadInput, "bad_shares")
	}
	data, _ := folders(t)
	made := shamirSeal(t, 2, 3)
	h, root, err := Init(data, made, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	shares := made.Shares()
	if len(shares) != 3 || made.Shares() != nil {
		t.Fatalf("%d shares, want 3, once", len(shares))
	}
	for path, file := range contents(t, data) {
		for _, s := range shares {
			if strings.Contains(file, s) || strings.Contains(file, string(root)) {
				t.Errorf("%s holds a share or the root key", path)
			}
		}
	}

	s := CollectShares()
	_, err = h.Open(s)
	wantFault(t, err, storage.Unavailable, "more_shares")
	offer := func(text string, have int) {
		t.Helper()
		if got, need, err := s.Offer(h, text); err != nil || got != have || need != 2 {
			t.Fatalf("have %d of %d, %v; want %d of 2", got, need, err, have)
		}
	}
	refuse := func(text string, f storage.Fault, code string) {
		t.Helper()
		have, _, err := s.Offer(h, text)
		wantFault(t, err, f, code)
		if have != len(s.got) {
			t.Errorf("%s: have %d", code, have)
		}
		for _, share := range shares {
			if strings.Contains(err.Error(), share[len(sharePrefix):]) {
				t.Errorf("%s: the error holds a share", code)
			}
		}
	}
	offer(shares[2], 1)
	if _, err = h.Open(s); err == nil || !strings.Contains(err.Error(), "1 of 2") {
		t.Errorf("with one share: %v", err)
	}
	refuse(shares[2], storage.Exists, "duplicate_share")
	refuse(strings.ToUpper(shares[2]), storage.Exists, "duplicate_share")
	refuse("", storage.BadInput, "bad_share")
	refuse(shares[1][:len(shares[1])-1], storage.BadInput, "bad_share")

	elsewhere, _ := folders(t)
	other := shamirSeal(t, 2, 3)
	if _, _, err := Init(elsewhere, other, rand.Reader); err != nil {
		t.Fatal(err)
	}
	refuse(other.Shares()[0], storage.BadInput, "other_cluster")
	for _, mixed := range []*ShamirSeal{shamirSeal(t, 2, 3), shamirSeal(t, 3, 3)} { // divided again
		if _, err := mixed.Close(h.Cluster, root); err != nil {
			t.Fatal(err)
		}
		refuse(mixed.Shares()[0], storage.BadInput, "other_shares")
	}

	for _, alter := range []func(*Share){
		func(s *Share) { s.Threshold = 3 },
		func(s *Share) { s.Index = 4 },
		func(s *Share) { s.set[0] ^= 1 },
	} {
		share, err := ParseShare(shares[0])
		if err != nil {
			t.Fatal(err)
		}
		alter(&share)
		refuse(share.encode(), storage.BadInput, "other_shares")
	}

	spaced := strings.ToUpper(" " + sharePrefix + shares[0][len(sharePrefix):40] + "-" + shares[0][40:60] + " \n" + shares[0][60:] + "\n")
	offer(spaced, 2)
	unchanged(t, data, func() {
		got, err := header(t, data).Open(s)
		if err != nil || !bytes.Equal(got, root) {
			t.Fatalf("opening: %v", err)
		}
	})
	_, err = h.Open(s)
	wantFault(t, err, storage.Unavailable, "more_shares")

	offer(shares[0], 1)
	s.Forget()
	offer(shares[1], 1)

	// A share with a good checksum and a wrong part gives another key, which the header refuses; the shares are forgotten.
	wrong, err := ParseShare(shares[0])
	if err != nil {
		t.Fatal(err)
	}
	wrong.secret[0] ^= 1
	offer(wrong.encode(), 2)
	_, err = h.Open(s)
	wantFault(t, err, storage.BadInput, "wrong_root_key")
	offer(shares[0], 1)
}

func TestOfferConcurrently(t *testing.T) {
	t.Parallel()
	data, _ := folders(t)
	made := shamirSeal(t, 5, 9)
	h, root, err := Init(data, made, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := CollectShares()
	var wg sync.WaitGroup
	for _, share := range made.Shares() {
		wg.Go(func() {
			if have, need, err := s.Offer(h, share); err != nil || have > need {
				t.Errorf("have %d of %d, %v", have, need, err)
			}
		})
	}
	wg.Wait()
	if got, err := h.Open(s); err != nil || !bytes.Equal(got, root) {
		t.Errorf("opening: %v", err)
	}
}

// Every wrong letter of a share is noticed.
func TestMistypedShare(t *testing.T) {
	t.Parallel()
	made := shamirSeal(t, 2, 2)
	if _, err := made.Close(storage.ID{1}, testRoot(1)); err != nil {
		t.Fatal(err)
	}
	share := made.Shares()[1]
	parsed, err := ParseShare(share)
	if err != nil || parsed.Index != 2 || parsed.Threshold != 2 || parsed.Cluster != (storage.ID{1}) {
		t.Fatalf("parsed %+v, %v", parsed, err)
	}
	for i := range share {
		for _, letter := range []byte("a7z0!") {
			if share[i] == letter {
				continue
			}
			_, err := ParseShare(share[:i] + string(letter) + share[i+1:])
			wantFault(t, err, storage.BadInput, "bad_share")
		}
	}
	// The last letter has bits to spare: only one way to write them is right.
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	last := strings.IndexByte(alphabet, share[len(share)-1])
	_, err = ParseShare(share[:len(share)-1] + alphabet[last+1:last+2])
	wantFault(t, err, storage.BadInput, "bad_share")
	body := []byte{2, 9, 9}
	_, err = ParseShare(sharePrefix + shareText().EncodeToString(append(body, shareSum(body)...)))
	wantFault(t, err, storage.BadInput, "newer_format")
	_, err = ParseShare(strings.Repeat("x", 1<<20))
	wantFault(t, err, storage.BadInput, "bad_share")
}

func TestHeaderRefuses(t *testing.T) {
	t.Parallel()
	data, vault := folders(t)
	_, err := ReadHeader(data)
	wantFault(t, err, storage.NotFound, "not_initialised")
	if _, _, err := Init(data, fileSeal(t, data, filepath.Join(vault, "root.key")), rand.Reader); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(data, HeaderFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refuse := func(name string, b []byte, code string) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		unchanged(t, data, func() {
			_, err := ReadHeader(data)
			if err == nil {
				t.Fatalf("%s: read", name)
			}
			wantFault(t, err, storage.Internal, code)
			if !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %q does not name the file", name, err)
			}
		})
	}
	swap := func(old, new string) []byte {
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("the header has no %s", old)
		}
		return bytes.Replace(good, []byte(old), []byte(new), 1)
	}
	refuse("newer", swap(`"format": 1`, `"format": 2`), "newer_format")
	refuse("newer, and of another shape", []byte(`{"format": 3, "seals": []}`), "newer_format")
	refuse("older than the first", swap(`"format": 1`, `"format": 0`), "damaged_header")
	refuse("another kind", swap(`"file"`, `"shamir"`), "damaged_header")
	refuse("an unknown field", swap(`"format": 1`, `"format": 1, "x": 1`), "damaged_header")
	refuse("another path", swap("root.key", "boot.key"), "damaged_header")
	refuse("empty", nil, "damaged_header")
	refuse("too long", append(bytes.Clone(good), bytes.Repeat([]byte(" "), headerMaxSize)...), "damaged_header")
	for n := 1; n < len(good)-2; n += 7 {
		refuse("cut", good[:n], "damaged_header")
	}
	h := &Header{Format: 1, Kind: "hsm", Params: json.RawMessage("{}")}
	if h.Checksum, err = h.sum(); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	refuse("an unknown kind", b, "damaged_header")
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	header(t, data)
}

func FuzzHeader(f *testing.F) {
	data, vault := folders(f)
	if _, _, err := Init(data, fileSeal(f, data, filepath.Join(vault, "k")), rand.Reader); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(data, HeaderFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"format":1,"kind":"shamir","params":{"threshold":2,"shares":3,"set":"AAAAAA=="}}`))
	f.Add([]byte(`{"format":9}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHeader(b)
		if err != nil {
			var e *storage.Error
			if !errors.As(err, &e) || strings.Contains(e.Message, "\n") {
				t.Fatalf("not an error for a person: %v", err)
			}
			return
		}
		if sum, err := h.sum(); err != nil || sum != h.Checksum {
			t.Fatal("a header with another checksum was read")
		}
	})
}

func FuzzShare(f *testing.F) {
	made := shamirSeal(f, 2, 2)
	if _, err := made.Close(storage.ID{1}, testRoot(1)); err != nil {
		f.Fatal(err)
	}
	for _, s := range made.Shares() {
		f.Add(s)
	}
	f.Add(sharePrefix)
	f.Add("BULWARK-share-\n-")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseShare(text)
		if err != nil {
			return
		}
		if again, err := ParseShare(s.encode()); err != nil || again != s {
			t.Fatalf("%+v became %+v, %v", s, again, err)
		}
	})
}

func FuzzKeyFile(f *testing.F) {
	f.Add(encodeKeyFile(storage.ID{1}, testRoot(1)))
	f.Add([]byte("bulwark-root-key-1 x y z"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		cluster, root, err := parseKeyFile(b)
		if err != nil {
			return
		}
		if c, r, err := parseKeyFile(encodeKeyFile(cluster, root)); err != nil || c != cluster || !bytes.Equal(r, root) {
			t.Fatal("a key file that was read does not read again")
		}
	})
}
