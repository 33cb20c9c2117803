package keys

import (
	"bytes"
	"crypto/rand"
	"fmt"
	chacha "math/rand/v2"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"bulwark/storage"
)

func TestSealOpen(t *testing.T) {
	t.Parallel()
	r, s := world(t)
	c := sealer(t, r, s, id(1), id(11))
	rapid.Check(t, func(t *rapid.T) {
		bytesOf := rapid.SliceOf(rapid.Byte())
		plain, before := bytesOf.Draw(t, "plain"), bytesOf.Draw(t, "before")
		place := storage.Place{Tenant: id(1), Project: id(11), Table: rapid.String().Draw(t, "table"), Key: bytesOf.Draw(t, "key")}
		sealed := c.Seal(bytes.Clone(before), plain, place)
		value, ok := bytes.CutPrefix(sealed, before)
		if !ok || len(value) != len(plain)+Overhead {
			t.Fatalf("%d bytes sealed as %d after %x", len(plain), len(value), before)
		}
		opened, err := c.Open(bytes.Clone(before), value, place)
		if got, ok := bytes.CutPrefix(opened, before); err != nil || !ok || !bytes.Equal(got, plain) {
			t.Fatalf("opened %x, %v", opened, err)
		}
	})
}

// A value that is moved is refused, whichever part of its place differs: with its own Sealer at another place, and with
// the other place's Sealer.
func TestMovedValue(t *testing.T) {
	t.Parallel()
	r, s := world(t)
	change(t, r, s, storage.RotateKeys, id(1), id(11))
	own := sealer(t, r, s, id(1), id(11))
	home := at(id(1), id(11), "notes", "key")
	value := own.Seal(nil, []byte("plain"), home)
	mustOpen(t, own, value, home, "plain")
	older := bytes.Clone(value)
	older[4] = 1

	for _, move := range []struct {
		name  string
		by    storage.Sealer
		value []byte
		to    storage.Place
	}{
		{"another key", own, value, at(id(1), id(11), "notes", "kez")},
		{"a longer key", own, value, at(id(1), id(11), "notes", "key\x00")},
		{"no key", own, value, at(id(1), id(11), "notes", "")},
		{"another table", own, value, at(id(1), id(11), "votes", "key")},
		{"a table that ends later", own, value, at(id(1), id(11), "notesk", "ey")},
		{"a table that ends earlier", own, value, at(id(1), id(11), "note", "skey")},
		{"another project", own, value, at(id(1), id(12), "notes", "key")},
		{"the tenant itself", own, value, at(id(1), storage.ID{}, "notes", "key")},
		{"another tenant", own, value, at(id(2), id(11), "notes", "key")},
		{"project and tenant exchanged", own, value, at(id(11), id(1), "notes", "key")},
		{"another version", own, older, home},
		{"another project's key", sealer(t, r, s, id(1), id(12)), older, home},
		{"the tenant's key", sealer(t, r, s, id(1), storage.ID{}), older, home},
		{"another tenant's key", sealer(t, r, s, id(2), id(21)), older, home},
		{"another project and its key", sealer(t, r, s, id(1), id(12)), older, at(id(1), id(12), "notes", "key")},
	} {
		got, err := move.by.Open(nil, move.value, move.to)
		if err == nil || got != nil {
			t.Errorf("%s: opened %q, %v", move.name, got, err)
			continue
		}
		wantFault(t, err, storage.Internal, "damaged_value")
	}
	// The place alone must refuse it: under one key, with the same nonce and tag.
	key := &keyring{state: r.state.Load(), keys: []*valueKey{{version: 1, cipher: newXAES(testRoot(9))}, {version: 2, cipher: newXAES(testRoot(9))}}}
	value = key.Seal(nil, []byte("plain"), home)
	mustOpen(t, storageSealer{key}, value, home, "plain")
	value[4] = 1
	if _, err := key.Open(nil, value, home); err == nil {
		t.Error("the version is not bound to the value")
	}
}

// storageSealer makes a keyring a storage.Sealer for mustOpen.
type storageSealer struct{ *keyring }

func (storageSealer) Blind(string, string, []byte) []byte { return nil }

func TestFlippedBits(t *testing.T) {
	t.Parallel()
	r, s := world(t)
	c := sealer(t, r, s, id(1), id(11))
	place := at(id(1), id(11), "notes", "key")
	value := c.Seal(nil, []byte("a value of some length"), place)
	for i := range value {
		for bit := range 8 {
			bad := bytes.Clone(value)
			bad[i] ^= 1 << bit
			if got, err := c.Open(nil, bad, place); err == nil {
				t.Fatalf("bit %d of byte %d flipped: opened %q", bit, i, got)
			}
		}
	}
	for n := range value {
		if _, err := c.Open(nil, value[:n], place); err == nil {
			t.Fatalf("cut to %d bytes: opened", n)
		}
		if c.Current(value[:n]) && n < Overhead {
			t.Fatalf("cut to %d bytes: current", n)
		}
	}
	if _, err := c.Open(nil, append(value, 0), place); err == nil {
		t.Fatal("with a byte more: opened")
	}
	_, err := c.Open(nil, append([]byte{2}, value[1:]...), place)
	wantFault(t, err, storage.Internal, "newer_format")
}

// stuck is a random source that has stopped being random.
type stuck struct{}

func (stuck) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// A million values from eight goroutines, over the end of a run, have a million nonces.
func TestNoncesAreUnique(t *testing.T) {
	t.Parallel()
	r, s := world(t)
	c := sealer(t, r, s, id(1), id(11))
	c.Seal(nil, nil, storage.Place{})
	c.(*scope).current().run.Load().used.Store(runLength / 2)
	const workers, each = 8, 1 << 17
	all := make([][][nonceLen]byte, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			buf := make([]byte, 0, Overhead)
			for range each {
				buf = c.Seal(buf[:0], nil, storage.Place{})
				all[w] = append(all[w], [nonceLen]byte(buf[5:headerLen]))
			}
		})
	}
	wg.Wait()
	seen := make(map[[nonceLen]byte]bool, workers*each)
	prefixes := map[[prefixLen]byte]int{}
	for _, nonces := range all {
		for _, n := range nonces {
			if seen[n] {
				t.Fatalf("nonce %x was used twice", n)
			}
			seen[n] = true
			prefixes[[prefixLen]byte(n[:])]++
		}
	}
	if len(prefixes) != 2 {
		t.Errorf("%d runs, want 2", len(prefixes))
	}
}

// Each half of the argument in run's comment, alone.
func TestNonceWithinARun(t *testing.T) {
	t.Parallel()
	r := NewRing(stuck{})
	if err := r.Unseal(testRoot(1)); err != nil {
		t.Fatal(err)
	}
	k := &keyring{state: r.state.Load(), keys: []*valueKey{{version: 1, cipher: newXAES(testRoot(9))}}}
	seen := map[string]bool{}
	for range 1000 {
		nonce := string(k.Seal(nil, nil, storage.Place{})[5:headerLen])
		if seen[nonce] {
			t.Fatal("with a random source that is stuck, a nonce was used twice within a run")
		}
		seen[nonce] = true
	}

	r = newRing(t, 1)
	k.state = r.state.Load()
	k.keys[0].run.Store(nil)
	clear(seen)
	for range 1000 {
		if run := k.keys[0].run.Load(); run != nil {
			run.used.Store(0) // as after going back to an older memory image
		}
		nonce := string(k.Seal(nil, nil, storage.Place{})[5:headerLen])
		if seen[nonce] {
			t.Fatal("after going back to an older memory image, a nonce was used twice")
		}
		seen[nonce] = true
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, fmt.Errorf("no randomness") }

func TestBrokenRandomSource(t *testing.T) {
	t.Parallel()
	r, s := world(t)
	c := sealer(t, r, s, id(1), id(11))
	r.state.Load().rand = broken{}
	defer func() {
		if recover() == nil {
			t.Error("a value was sealed without randomness")
		}
	}()
	c.Seal(nil, nil, storage.Place{})
}

func TestSealConcurrently(t *testing.T) {
	t.Parallel()
	r, s := world(t)
	c := sealer(t, r, s, id(1), id(11))
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 300 {
				if run := c.(*scope).current().run.Load(); run != nil && i%50 == 0 {
					run.used.Store(runLength - 5) // many runs end
				}
				place := at(id(1), id(11), "notes", fmt.Sprint(w, i))
				want := fmt.Sprintf("value %d of %d", i, w)
				got, err := c.Open(nil, c.Seal(nil, []byte(want), place), place)
				if err != nil || string(got) != want {
					t.Errorf("opened %q, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}

// The cache is bounded, finds what was put last, and forgets the keys of a scope that is dropped.
func TestDerivedCache(t *testing.T) {
	t.Parallel()
	c := &derivedCache{}
	k := &keyring{keys: []*valueKey{{version: 1, cipher: newXAES(testRoot(1))}}}
	other := &valueKey{version: 1, cipher: newXAES(testRoot(2))}
	aead := k.keys[0].cipher.derive(make([]byte, prefixLen))
	prefix := make([]byte, prefixLen)
	for range 5000 {
		rand.Read(prefix)
		c.put(k.keys[0], prefix, aead)
		if c.get(k.keys[0], prefix) == nil {
			t.Fatal("what was just put is not there")
		}
		if c.get(other, prefix) != nil {
			t.Fatal("one key's derived key was found under another")
		}
	}
	c = &derivedCache{}
	for i := range byte(derivedWays) { // as many as a set holds, though none was used yet
		c.put(k.keys[0], []byte{7, i, 11: 0}, aead)
	}
	for i := range byte(derivedWays) {
		if c.get(k.keys[0], []byte{7, i, 11: 0}) == nil {
			t.Errorf("entry %d of one set is not there", i)
		}
	}
	kept := [prefixLen]byte{7}
	c.put(other, kept[:], aead)
	for i := range 200 {
		if c.get(other, kept[:]) == nil {
			t.Fatalf("an entry in constant use was replaced after %d others", i)
		}
		rand.Read(prefix)
		prefix[0] = 7
		c.put(k.keys[0], prefix, aead)
	}
	c.drop(k)
	left := 0
	for i := range c.sets {
		for j := range c.sets[i] {
			if d := c.sets[i][j].Load(); d != nil {
				left++
			}
		}
	}
	if left != 1 || c.get(other, kept[:]) == nil {
		t.Errorf("%d entries left, want the other key's alone", left)
	}
}

// Values that do not authenticate never enter the cache.
func TestForgedValueIsNotCached(t *testing.T) {
	t.Parallel()
	r, s := world(t)
	c := sealer(t, r, s, id(1), id(11))
	place := at(id(1), id(11), "notes", "key")
	value := c.Seal(nil, []byte("v"), place)
	value[5] ^= 1
	if _, err := c.Open(nil, value, place); err == nil {
		t.Fatal("opened")
	}
	if r.state.Load().derived.get(c.(*scope).current(), value[5:headerLen]) != nil {
		t.Error("a forged prefix is in the cache")
	}
}

// Not parallel: allocations are counted for the whole process.
func TestSealAllocatesNothing(t *testing.T) {
	r, s := world(t)
	c := sealer(t, r, s, id(1), id(11))
	place := at(id(1), id(11), "notes", "key")
	plain, sealed, opened := make([]byte, 1024), make([]byte, 0, 2048), make([]byte, 0, 2048)
	if n := testing.AllocsPerRun(1000, func() { sealed = c.Seal(sealed[:0], plain, place) }); n != 0 {
		t.Errorf("sealing allocates %v times", n)
	}
	if n := testing.AllocsPerRun(1000, func() { opened, _ = c.Open(opened[:0], sealed, place) }); n != 0 {
		t.Errorf("opening allocates %v times", n)
	}
	if n := testing.AllocsPerRun(1000, func() { r.Sealer(s, id(1), id(11)) }); n != 0 {
		t.Errorf("finding a Sealer allocates %v times", n)
	}
}

func FuzzOpen(f *testing.F) {
	r, s := worldFrom(f, chacha.NewChaCha8([32]byte{})) // the same keys in every process that fuzzes
	c := sealer(f, r, s, id(1), id(11))
	place := at(id(1), id(11), "notes", "key")
	good := c.Seal(nil, []byte("plain"), place)
	f.Add(good)
	f.Add(good[:Overhead])
	f.Add(make([]byte, Overhead))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c.Current(b)
		if _, err := c.Open(nil, b, place); err == nil && !bytes.Equal(b, good) {
			t.Fatal("a value that nobody sealed was opened")
		}
	})
}

func BenchmarkSeal1KiB(b *testing.B) {
	r, s := world(b)
	c := sealer(b, r, s, id(1), id(11))
	place := at(id(1), id(11), "notes", "0123456789abcdef")
	plain, dst := make([]byte, 1024), make([]byte, 0, 2048)
	b.SetBytes(1024)
	b.ReportAllocs()
	for b.Loop() {
		dst = c.Seal(dst[:0], plain, place)
	}
}

func BenchmarkOpen1KiB(b *testing.B) {
	r, s := world(b)
	c := sealer(b, r, s, id(1), id(11))
	place := at(id(1), id(11), "notes", "0123456789abcdef")
	value, dst := c.Seal(nil, make([]byte, 1024), place), make([]byte, 0, 2048)
	b.SetBytes(1024)
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = c.Open(dst[:0], value, place)
	}
}

func BenchmarkOpen1KiBUnknownPrefix(b *testing.B) {
	r, s := world(b)
	c := sealer(b, r, s, id(1), id(11))
	place := at(id(1), id(11), "notes", "0123456789abcdef")
	value, dst := c.Seal(nil, make([]byte, 1024), place), make([]byte, 0, 2048)
	ring := &c.(*scope).keyring
	b.SetBytes(1024)
	b.ReportAllocs()
	for b.Loop() {
		ring.state.derived.drop(ring)
		dst, _ = c.Open(dst[:0], value, place)
	}
}
