package bolt_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	bbolt "go.etcd.io/bbolt"

	"bulwark/storage/bolt"
	"bulwark/storage/entry"
)

// written makes a database with some hundred entries in it and returns its path.
func written(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, path)
	for i := range uint64(300) {
		if db.Apply(i+1, []*entry.Entry{entryAt(i + 1)}) == nil {
			t.Fatal(db.Failed())
		}
		if i%50 == 0 {
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// edit changes the file's bytes.
func edit(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

func pageSizeOf(b []byte) int { return int(binary.LittleEndian.Uint32(b[24:])) }

// pagesOf returns the high-water mark.
func pagesOf(b []byte) int {
	newest := b[:80]
	if second := b[pageSizeOf(b):][:80]; binary.LittleEndian.Uint64(second[64:]) > binary.LittleEndian.Uint64(newest[64:]) {
		newest = second
	}
	return int(binary.LittleEndian.Uint64(newest[56:]))
}

// sumMeta makes a changed meta page's checksum match again.
func sumMeta(page []byte) {
	h := fnv.New64a()
	h.Write(page[16:72])
	binary.LittleEndian.PutUint64(page[72:], h.Sum64())
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	inMeta := func(key string, value []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			file, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = file.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte(key), value) })
			if err := errors.Join(err, file.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	change := func(f func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) { edit(t, path, f) }
	}
	for name, c := range map[string]struct {
		damage func(*testing.T, string)
		want   string // in the error
		is     error
	}{
		"another cluster": {inMeta("cluster", bytes.Repeat([]byte{9}, 16)), "belongs to another cluster (09090909-", nil},
		"newer format": {inMeta("format", []byte{0, 0, 0, 0, 0, 0, 0, 2}),
			"written by a newer Bulwark (format 2); this one knows 1: upgrade this node", nil},
		"no cluster":  {inMeta("cluster", nil), "cluster id is missing", bolt.ErrDamaged},
		"short index": {inMeta("index", []byte{1}), "index is missing", bolt.ErrDamaged},
		"first meta page": {change(func(b []byte) []byte { b[40] ^= 1; return b }),
			"first meta page: its checksum does not match", bolt.ErrDamaged},
		"second meta page": {change(func(b []byte) []byte { b[pageSizeOf(b)+40] ^= 1; return b }),
			"second meta page: its checksum does not match", bolt.ErrDamaged},
		"both meta pages": {change(func(b []byte) []byte { b[40] ^= 1; b[pageSizeOf(b)+40] ^= 1; return b }), "", bolt.ErrDamaged},
		"one meta page twice": {change(func(b []byte) []byte { copy(b[pageSizeOf(b):], b[:pageSizeOf(b)]); return b }),
			"meta pages disagree", bolt.ErrDamaged},
		"one page short": {change(func(b []byte) []byte { return b[:(pagesOf(b)-1)*pageSizeOf(b)] }),
			"should have at least", bolt.ErrDamaged},
		"cut to half": {change(func(b []byte) []byte { return b[:pagesOf(b)/2*pageSizeOf(b)+17] }),
			"should have at least", bolt.ErrDamaged},
		"cut to two pages": {change(func(b []byte) []byte { return b[:2*pageSizeOf(b)] }), "", bolt.ErrDamaged},
		"cut to one page":  {change(func(b []byte) []byte { return b[:pageSizeOf(b)] }), "", bolt.ErrDamaged},
		"empty":            {change(func([]byte) []byte { return nil }), "", bolt.ErrDamaged},
		"other bytes":      {change(func([]byte) []byte { return bytes.Repeat([]byte("no database "), 9000) }), "", bolt.ErrDamaged},
		"pages of zeros": {change(func(b []byte) []byte {
			clear(b[2*pageSizeOf(b):])
			return b
		}), "", bolt.ErrDamaged},
		"a root page out of bounds": {change(func(b []byte) []byte {
			for _, at := range []int{0, pageSizeOf(b)} {
				binary.LittleEndian.PutUint64(b[at+32:], 1<<50)
				sumMeta(b[at:])
			}
			return b
		}), "root page is out of bounds", bolt.ErrDamaged},
		"another database": {func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			file, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := file.Close(); err != nil {
				t.Fatal(err)
			}
		}, "no Bulwark database", bolt.ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := written(t)
			c.damage(t, path)
			before := readFolder(t, filepath.Dir(path))
			db, err := bolt.Open(options(path))
			if err == nil {
				db.Close()
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error is %q, want one line with %q", err, c.want)
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("the error is %q, want one that is %q", err, c.is)
			}
			if readFolder(t, filepath.Dir(path)) != before {
				t.Error("the folder was changed")
			}
		})
	}
}

// readFolder writes down every file of a folder: its name, time, mode and content.
func readFolder(t *testing.T, folder string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		sum := fnv.New128a()
		sum.Write(b)
		fmt.Fprintln(&all, path, info.ModTime().UnixNano(), info.Mode(), info.Size(), sum.Sum(nil))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func TestOpenRefusesAFileInUse(t *testing.T) {
	t.Parallel()
	path := written(t)
	db := open(t, path)
	defer db.Close()
	for range uint64(20) {
		_, rev := db.Applied()
		db.Apply(rev+10_000, []*entry.Entry{entryAt(rev + 10_000)})
	}
	_, err := bolt.Open(options(path))
	if !errors.Is(err, bolt.ErrInUse) || !strings.Contains(err.Error(), "the data folder is in use by another bulwark process") {
		t.Fatalf("a file in use gives %v", err)
	}
}

func TestNewFileIsPrivate(t *testing.T) {
	t.Parallel()
	path := written(t)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Fatalf("the file's mode is %v", info.Mode())
	}
	if names, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(names) != 1 {
		t.Fatalf("the folder holds %v", names)
	}
}

// TestDamagedPages flips bits all over a file. It is refused, or opened and found damaged by a read, or the bit did not
// matter; but nothing ends the process, and a file that was refused was not changed.
func TestDamagedPages(t *testing.T) {
	t.Parallel()
	path := written(t)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size := pageSizeOf(whole)
	r := rand.New(rand.NewPCG(1, 2))
	refused, opened := 0, 0
	for range 60 {
		damaged := bytes.Clone(whole)
		at := (2+r.IntN(pagesOf(whole)-2))*size + r.IntN([]int{16, 300}[r.IntN(2)])
		damaged[at] ^= 1 << r.IntN(8)
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := bolt.Open(options(path))
		if err != nil {
			refused++
			if after, _ := os.ReadFile(path); !bytes.Equal(after, damaged) {
				t.Fatal("a refused file was changed")
			}
			continue
		}
		opened++
		_ = db.Check()
		if s, err := db.Snapshot(); err == nil {
			for _, tenant := range tenants {
				_ = s.Leaves(tenant, 0, func(uint64, entry.Leaf) bool { return true })
				for _, project := range projects {
					for _, table := range tables {
						_ = s.Scan(tenant, entry.Space{Project: project, Table: table}, nil, nil, true,
							func(_, _ []byte, _ uint64) bool { return true })
					}
				}
			}
			s.Release()
		}
		if err := db.Close(); err != nil {
			t.Log(err)
		}
	}
	t.Logf("%d refused, %d opened", refused, opened)
	if refused < 10 {
		t.Errorf("only %d of 60 damaged files were refused", refused)
	}
}
