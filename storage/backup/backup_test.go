package backup_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	mrand "math/rand/v2"
	"testing"

	"bulwark/storage"
	"bulwark/storage/backup"
)

// file makes a snapshot file of size bytes, with a pause in it.
func file(t testing.TB, size int) (b, content []byte) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	content = make([]byte, size)
	if _, err := rand.Read(content); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := backup.NewWriter(&out, &backup.Header{Cluster: storage.System, Size: int64(size), Index: 7, PublicKey: public})
	if err == nil {
		_, err = w.Write(content)
	}
	err = errors.Join(err, w.Flush(), w.Pause(), w.Close(&backup.Trailer{Values: 3}, key))
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), content
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 1 << 20, 1<<20 + 1, 3<<20 - 5} {
		b, content := file(t, size)
		var got bytes.Buffer
		var last int64
		s, err := backup.Read(bytes.NewReader(b), &got, func(done, _ int64) { last = done })
		if err != nil || !bytes.Equal(got.Bytes(), content) || s.Header.Index != 7 || s.Trailer.Values != 3 || last != int64(size) {
			t.Errorf("%d bytes: %v, %d came back", size, err, got.Len())
		}
	}
}

// TestEveryBitCounts flips each bit of what describes a snapshot, and many of what it holds.
func TestEveryBitCounts(t *testing.T) {
	t.Parallel()
	b, _ := file(t, 2000)
	for i := range b {
		changed := bytes.Clone(b)
		changed[i] ^= 1 << mrand.N(8)
		if s, err := backup.Read(bytes.NewReader(changed), io.Discard, nil); !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("byte %d of %d was changed: %v %+v", i, len(b), err, s)
		}
		if _, err := backup.Read(bytes.NewReader(b[:i]), io.Discard, nil); !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("a file cut to %d bytes: %v", i, err)
		}
	}
	if _, err := backup.Read(bytes.NewReader(append(b, 0)), io.Discard, nil); !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("a byte behind the end: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	b, _ := file(f, 100)
	f.Add(b)
	f.Fuzz(func(t *testing.T, in []byte) {
		if s, err := backup.Read(bytes.NewReader(in), io.Discard, nil); err == nil && s.Header.Index != 7 {
			t.Error("a snapshot that nobody signed is read") // who signs it chooses the key: the header says which
		}
	})
}

// TestSizeIsHeld signs a snapshot that holds less, or more, of the database than its header says.
func TestSizeIsHeld(t *testing.T) {
	t.Parallel()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{9, 11} {
		var out bytes.Buffer
		w, err := backup.NewWriter(&out, &backup.Header{Cluster: storage.System, Size: size, PublicKey: public})
		if err == nil {
			_, err = w.Write(make([]byte, 10))
		}
		if err := errors.Join(err, w.Close(&backup.Trailer{}, key)); err != nil {
			t.Fatal(err)
		}
		if _, err := backup.Read(&out, io.Discard, nil); !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("10 bytes where %d should be: %v", size, err)
		}
	}
}
