package keys

import (
	"bytes"
	"crypto/sha3"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

func readVectors(t *testing.T, name string, into any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("reading %s: %v", name, err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestXAESVectors(t *testing.T) {
	t.Parallel()
	var vectors struct {
		Values []struct{ Key, Nonce, Plaintext, AAD, Ciphertext string }
	}
	readVectors(t, "xaes-256-gcm.json", &vectors)
	if len(vectors.Values) != 2 {
		t.Fatalf("%d vectors, want 2", len(vectors.Values))
	}
	for _, v := range vectors.Values {
		x := newXAES(unhex(t, v.Key))
		nonce, plain, aad, want := unhex(t, v.Nonce), unhex(t, v.Plaintext), unhex(t, v.AAD), unhex(t, v.Ciphertext)
		if got := x.seal(nil, nonce, plain, aad); !bytes.Equal(got, want) {
			t.Errorf("key %.4s: sealed %x, want %x", v.Key, got, want)
		}
		if got, err := x.open(nil, nonce, want, aad); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("key %.4s: opened %x, %v", v.Key, got, err)
		}
	}
}

// The accumulated vector: keys, nonces, plaintexts and associated data come from one SHAKE128, and each ciphertext goes
// into another.
func TestXAESAccumulated(t *testing.T) {
	t.Parallel()
	var vectors struct {
		Accumulated []struct {
			Iterations int
			SHAKE128   string
		}
	}
	readVectors(t, "xaes-256-gcm.json", &vectors)
	for _, v := range vectors.Accumulated {
		source, result := sha3.NewSHAKE128(), sha3.NewSHAKE128()
		read := func(n int) []byte {
			b := make([]byte, n)
			source.Read(b)
			return b
		}
		for range v.Iterations {
			x := newXAES(read(32))
			nonce := read(24)
			plain := read(int(read(1)[0]))
			aad := read(int(read(1)[0]))
			sealed := x.seal(nil, nonce, plain, aad)
			if opened, err := x.open(nil, nonce, sealed, aad); err != nil || !bytes.Equal(opened, plain) {
				t.Fatalf("opening: %v", err)
			}
			result.Write(sealed)
		}
		sum := make([]byte, 32)
		result.Read(sum)
		if got := hex.EncodeToString(sum); got != v.SHAKE128 {
			t.Errorf("%d iterations: %s, want %s", v.Iterations, got, v.SHAKE128)
		}
	}
}
