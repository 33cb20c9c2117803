package session

import (
	"crypto/sha256"
	"encoding/base64"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"bulwark/storage"
)

func TestRefreshTokenRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key")
		id := storage.ID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "session"))
		n := rapid.Uint64().Draw(t, "counter")
		s := newRefreshToken(key, id, n)
		got, ok := parseRefreshToken(s)
		if !ok || got.session != id || got.counter != n || !got.provenBy(key) {
			t.Fatalf("%q reads as %v %v", s, got, ok)
		}
		other := slices.Clone(key)
		other[rapid.IntRange(0, 31).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if got.provenBy(other) {
			t.Fatal("proven by another key")
		}
		// One changed byte anywhere is told at once.
		raw, _ := base64.RawURLEncoding.DecodeString(s)
		raw[rapid.IntRange(0, len(raw)-1).Draw(t, "changed")] ^= 1
		if _, ok := parseRefreshToken(base64.RawURLEncoding.EncodeToString(raw)); ok {
			t.Fatal("a changed token reads")
		}
	})
}

func FuzzRefreshToken(f *testing.F) {
	key, id := make([]byte, 32), storage.ID{1, 2, 3}
	for _, n := range []uint64{0, 1, 127, 128, math.MaxUint64} {
		f.Add(newRefreshToken(key, id, n))
	}
	f.Add("")
	f.Add("AA")
	f.Add(newRefreshToken(key, id, 1)[:20])
	f.Add("\n" + newRefreshToken(key, id, 1))
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := parseRefreshToken(s)
		if !ok {
			return
		}
		// What reads has one form only.
		b := append(refreshBody(got.session, got.counter), got.mac[:]...)
		sum := sha256.Sum256(b)
		if base64.RawURLEncoding.EncodeToString(append(b, sum[:sumLength]...)) != s {
			t.Errorf("%q is a second form of a token", s)
		}
	})
}

func FuzzCredentialsBody(f *testing.F) {
	f.Add([]byte(`{"email":"a@b.c","password":"x","data":{"a":[1,null,{}]},"gotrue_meta_security":{}}`))
	f.Add([]byte(`{"email":"a","email":"b"}`))
	f.Add([]byte("{\"email\":\"\xff\"}"))
	f.Add([]byte(`[[[[[[[[`))
	f.Add([]byte(`{"data":1e999}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var body credentialsBody
		if err := decodeJSON(b, &body); err != nil && storage.FaultOf(err) != storage.BadInput {
			t.Errorf("refused as %v", err)
		}
	})
}

func TestVerifiedTokensAreBounded(t *testing.T) {
	t.Parallel()
	c := newVerifiedTokens(10 * 612)
	for i := range byte(100) {
		c.put([32]byte{i}, &verifiedToken{Verified: Verified{Claims: make([]byte, 100)}})
		if _, ok := c.get([32]byte{0}); !ok {
			t.Fatal("what is in use was dropped")
		}
	}
	if len(c.at) != 10 || c.order.Len() != 10 || c.bytes != 10*612 {
		t.Errorf("%d remembered, %d bytes", len(c.at), c.bytes)
	}
}
