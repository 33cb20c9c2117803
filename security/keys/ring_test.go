package keys

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"maps"
	chacha "math/rand/v2"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"bulwark/storage"
	"bulwark/storage/entry"
)

// shelf is a Snapshot's wrapped keys, and applies changes to them as an engine does. The methods of Snapshot that the
// ring does not use are absent.
type shelf struct {
	storage.Snapshot
	revision uint64
	scopes   map[scopeID]shelved
}

type shelved struct {
	wrapped  map[uint32][]byte
	revision uint64
}

func newShelf() *shelf { return &shelf{scopes: map[scopeID]shelved{}} }

func (s *shelf) Wrapped(tenant, project storage.ID) (map[uint32][]byte, uint64, error) {
	at := s.scopes[scopeID{tenant, project}]
	return at.wrapped, at.revision, nil
}

func (s *shelf) clone() *shelf {
	return &shelf{revision: s.revision, scopes: maps.Clone(s.scopes)}
}

func (s *shelf) apply(changes []entry.KeyChange) {
	s.revision++
	for _, c := range changes {
		id := scopeID{c.Tenant, c.Project}
		wrapped := maps.Clone(s.scopes[id].wrapped)
		if wrapped == nil {
			wrapped = map[uint32][]byte{}
		}
		switch c.Kind {
		case entry.PutKey:
			wrapped[c.Version] = c.Wrapped
		case entry.DropKey:
			delete(wrapped, c.Version)
		case entry.DestroyScope:
			maps.DeleteFunc(s.scopes, func(other scopeID, _ shelved) bool {
				return other == id || id.project.IsZero() && other.tenant == id.tenant
			})
			continue
		}
		s.scopes[id] = shelved{wrapped, s.revision}
	}
}

func id(b byte) storage.ID { return storage.ID{0: 1, 15: b} }

func testRoot(b byte) []byte { return bytes.Repeat([]byte{b}, RootLen) }

func newRing(t testing.TB, root byte) *Ring {
	t.Helper()
	r := NewRing(rand.Reader)
	if err := r.Unseal(testRoot(root)); err != nil {
		t.Fatal(err)
	}
	return r
}

func change(t testing.TB, r *Ring, s *shelf, op storage.KeyOp, tenant, project storage.ID) storage.Sealer {
	t.Helper()
	changes, sealer, err := r.Change(s, op, tenant, project)
	if err != nil {
		t.Fatalf("op %d: %v", op, err)
	}
	s.apply(changes)
	return sealer
}

func sealer(t testing.TB, r *Ring, s *shelf, tenant, project storage.ID) storage.Sealer {
	t.Helper()
	c, err := r.Sealer(s, tenant, project)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func wantFault(t testing.TB, err error, f storage.Fault, code string) {
	t.Helper()
	e, ok := err.(*storage.Error)
	if !ok || e.Fault != f || e.Code != code {
		t.Fatalf("error %v, want %v with code %q", err, f, code)
	}
	if strings.Contains(e.Message, "\n") {
		t.Errorf("the message has more than one line: %q", e.Message)
	}
}

// world is tenant 1 with projects 11 and 12, and tenant 2 with project 21.
func world(t testing.TB) (*Ring, *shelf) { return worldFrom(t, rand.Reader) }

func worldFrom(t testing.TB, random io.Reader) (*Ring, *shelf) {
	r, s := NewRing(random), newShelf()
	if err := r.Unseal(testRoot(1)); err != nil {
		t.Fatal(err)
	}
	for _, sc := range []scopeID{{id(1), storage.ID{}}, {id(1), id(11)}, {id(1), id(12)}, {id(2), storage.ID{}}, {id(2), id(21)}} {
		change(t, r, s, storage.CreateKeys, sc.tenant, sc.project)
	}
	return r, s
}

func at(tenant, project storage.ID, table, key string) storage.Place {
	return storage.Place{Tenant: tenant, Project: project, Table: table, Key: []byte(key)}
}

func mustOpen(t testing.TB, c storage.Sealer, sealed []byte, place storage.Place, want string) {
	t.Helper()
	got, err := c.Open(nil, sealed, place)
	if err != nil || string(got) != want {
		t.Fatalf("opened %q, %v; want %q", got, err, want)
	}
}

func TestSealedRing(t *testing.T) {
	t.Parallel()
	r, s := world(t)
	held := sealer(t, r, s, id(1), id(11))
	place := at(id(1), id(11), "notes", "k")
	value := held.Seal(nil, []byte("v"), place)
	state := r.state.Load()
	if r.Sealed() {
		t.Fatal("an unsealed ring says that it is sealed")
	}
	r.Seal()
	r.Seal()
	if !r.Sealed() || !NewRing(rand.Reader).Sealed() {
		t.Fatal("a sealed ring says that it is not")
	}
	if !bytes.Equal(state.root, make([]byte, RootLen)) {
		t.Error("the root key was not overwritten")
	}
	_, err := r.Sealer(s, id(1), id(11))
	wantFault(t, err, storage.Unavailable, "sealed")
	if !strings.Contains(err.Error(), "bulwark operator unseal") {
		t.Errorf("%q does not say what to do", err)
	}
	_, _, err = r.Change(s, storage.DestroyKeys, id(1), id(11))
	wantFault(t, err, storage.Unavailable, "sealed")
	_, err = r.Derive("x", 32)
	wantFault(t, err, storage.Unavailable, "sealed")
	_, err = held.Open(nil, value, place)
	wantFault(t, err, storage.Unavailable, "sealed")

	if err := r.Unseal(testRoot(1)); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, sealer(t, r, s, id(1), id(11)), value, place, "v")
}

func TestUnsealRefuses(t *testing.T) {
	t.Parallel()
	r := NewRing(rand.Reader)
	for _, root := range [][]byte{nil, make([]byte, 31), make([]byte, 33), make([]byte, 32)} {
		wantFault(t, r.Unseal(root), storage.BadInput, "bad_root_key")
	}
	if !r.Sealed() {
		t.Fatal("a refused key unsealed the ring")
	}
	root := testRoot(1)
	if err := r.Unseal(root); err != nil {
		t.Fatal(err)
	}
	clear(root) // the ring has a copy
	if err := r.Unseal(testRoot(1)); err != nil {
		t.Errorf("the same key again: %v", err)
	}
	wantFault(t, r.Unseal(testRoot(2)), storage.Exists, "already_unsealed")
}

func TestUnknownScope(t *testing.T) {
	t.Parallel()
	r, s := world(t)
	for _, sc := range []struct {
		tenant, project storage.ID
		code            string
	}{{id(9), storage.ID{}, "tenant_not_found"}, {id(9), id(11), "project_not_found"}, {id(2), id(11), "project_not_found"}, {id(1), id(19), "project_not_found"}} {
		_, err := r.Sealer(s, sc.tenant, sc.project)
		wantFault(t, err, storage.NotFound, sc.code)
		for _, op := range []storage.KeyOp{storage.RotateKeys, storage.DropOldKeys, storage.DestroyKeys} {
			_, _, err = r.Change(s, op, sc.tenant, sc.project)
			wantFault(t, err, storage.NotFound, sc.code)
		}
	}
	_, _, err := r.Change(s, storage.CreateKeys, id(1), id(11))
	wantFault(t, err, storage.Exists, "keys_exist")
	_, _, err = r.Change(s, storage.CreateKeys, id(9), id(91))
	wantFault(t, err, storage.NotFound, "tenant_not_found")
	_, _, err = r.Change(s, 99, id(1), id(11))
	wantFault(t, err, storage.Internal, "bad_key_change")
}

func TestChangeChangesNothing(t *testing.T) {
	t.Parallel()
	r, s := world(t)
	for op := storage.RotateKeys; op <= storage.DropOldKeys; op++ {
		before := s.clone()
		if _, _, err := r.Change(s, op, id(1), id(11)); err != nil {
			t.Fatal(err)
		}
		if len(before.scopes) != len(s.scopes) || s.revision != before.revision {
			t.Fatal("Change changed the snapshot")
		}
		sealer(t, r, s, id(1), id(11))
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	for _, project := range []storage.ID{{}, id(11)} {
		r, s := world(t)
		place := at(id(1), project, "notes", "k")
		first := sealer(t, r, s, id(1), project)
		old := first.Seal(nil, []byte("old"), place)
		if !first.Current(old) {
			t.Error("a new value is not current")
		}
		blind := first.Blind("notes", "email", []byte("a@example.org"))

		after := change(t, r, s, storage.RotateKeys, id(1), project)
		for name, c := range map[string]storage.Sealer{"of Change": after, "of Sealer": sealer(t, r, s, id(1), project)} {
			mustOpen(t, c, old, place, "old")
			if c.Current(old) {
				t.Errorf("%s: the old value is current", name)
			}
			value := c.Seal(nil, []byte("new"), place)
			if !c.Current(value) || binary.BigEndian.Uint32(value[1:5]) != 2 {
				t.Errorf("%s: a new value is not under the new version", name)
			}
			if !bytes.Equal(blind, c.Blind("notes", "email", []byte("a@example.org"))) {
				t.Errorf("%s: the blind key changed", name)
			}
			_, err := first.Open(nil, value, place)
			wantFault(t, err, storage.Internal, "key_dropped")
		}
		value := after.Seal(nil, []byte("new"), place)

		changes, last, err := r.Change(s, storage.DropOldKeys, id(1), project)
		if err != nil || len(changes) != 1 || changes[0].Kind != entry.DropKey || changes[0].Version != 1 {
			t.Fatalf("dropping: %+v, %v", changes, err)
		}
		s.apply(changes)
		for _, c := range []storage.Sealer{last, sealer(t, r, s, id(1), project), sealer(t, newRing(t, 1), s, id(1), project)} {
			mustOpen(t, c, value, place, "new")
			_, err = c.Open(nil, old, place)
			wantFault(t, err, storage.Internal, "key_dropped")
			if !bytes.Equal(blind, c.Blind("notes", "email", []byte("a@example.org"))) {
				t.Error("the blind key changed")
			}
		}
		if changes, _, err := r.Change(s, storage.DropOldKeys, id(1), project); err != nil || len(changes) != 0 {
			t.Errorf("dropping again: %+v, %v", changes, err)
		}
		change(t, r, s, storage.RotateKeys, id(1), project)
		if _, ok := s.scopes[scopeID{id(1), project}].wrapped[3]; !ok {
			t.Error("a version was used twice")
		}
	}
}

// A tenant's key rotates, and its old versions are dropped: projects open as before, with nothing known but the snapshot.
func TestTenantRotationKeepsProjects(t *testing.T) {
	t.Parallel()
	r, s := world(t)
	place := at(id(1), id(11), "notes", "k")
	value := sealer(t, r, s, id(1), id(11)).Seal(nil, []byte("v"), place)
	for range 3 {
		change(t, r, s, storage.RotateKeys, id(1), storage.ID{})
		mustOpen(t, sealer(t, newRing(t, 1), s, id(1), id(11)), value, place, "v")
		change(t, r, s, storage.DropOldKeys, id(1), storage.ID{})
		mustOpen(t, sealer(t, newRing(t, 1), s, id(1), id(11)), value, place, "v")
	}
	change(t, r, s, storage.RotateKeys, id(1), id(11))
	wrapped := s.scopes[scopeID{id(1), id(11)}].wrapped
	if by := binary.BigEndian.Uint32(wrapped[1][1:5]); by != 1 {
		t.Errorf("version 1 is wrapped under version %d of the tenant's key, want 1", by)
	}
	if by := binary.BigEndian.Uint32(wrapped[2][1:5]); by != 4 {
		t.Errorf("version 2 is wrapped under version %d of the tenant's key, want 4", by)
	}
	mustOpen(t, sealer(t, newRing(t, 1), s, id(1), id(11)), value, place, "v")
}

func TestTooManyRotations(t *testing.T) {
	t.Parallel()
	r, s := newRing(t, 1), newShelf()
	change(t, r, s, storage.CreateKeys, id(1), storage.ID{})
	for range maxCarried {
		change(t, r, s, storage.RotateKeys, id(1), storage.ID{})
		change(t, r, s, storage.DropOldKeys, id(1), storage.ID{})
	}
	sealer(t, newRing(t, 1), s, id(1), storage.ID{})
	_, _, err := r.Change(s, storage.RotateKeys, id(1), storage.ID{})
	wantFault(t, err, storage.BadInput, "too_many_rotations")
}

func TestDestroy(t *testing.T) {
	t.Parallel()
	r, s := world(t)
	for _, p := range []storage.ID{{}, id(11), id(12)} {
		sealer(t, r, s, id(1), p)
	}
	changes, c, err := r.Change(s, storage.DestroyKeys, id(1), id(11))
	if err != nil || c != nil || len(changes) != 1 || changes[0].Kind != entry.DestroyScope {
		t.Fatalf("destroying: %+v, %v, %v", changes, c, err)
	}
	s.apply(changes)
	_, err = r.Sealer(s, id(1), id(11))
	wantFault(t, err, storage.NotFound, "project_not_found")
	sealer(t, r, s, id(1), id(12))

	change(t, r, s, storage.DestroyKeys, id(1), storage.ID{})
	for _, p := range []storage.ID{{}, id(12)} {
		_, err = r.Sealer(s, id(1), p)
		if storage.FaultOf(err) != storage.NotFound {
			t.Errorf("project %v of a destroyed tenant: %v", p, err)
		}
	}
	if n := kept(r, id(1)); n != 0 {
		t.Errorf("%d scopes of a destroyed tenant are still in memory", n)
	}
	sealer(t, r, s, id(2), id(21))
}

// kept counts the scopes of a tenant that the ring has in memory.
func kept(r *Ring, tenant storage.ID) (n int) {
	u := r.state.Load()
	for i := range u.shards {
		if m := u.shards[i].scopes.Load(); m != nil {
			for id := range *m {
				if id.tenant == tenant {
					n++
				}
			}
		}
	}
	return n
}

// What another node destroyed is forgotten when it is next asked for.
func TestDestroyedElsewhere(t *testing.T) {
	t.Parallel()
	r, s := world(t)
	sealer(t, r, s, id(1), id(11))
	sealer(t, r, s, id(1), id(12))
	change(t, newRing(t, 1), s, storage.DestroyKeys, id(1), storage.ID{})
	_, err := r.Sealer(s, id(1), storage.ID{})
	wantFault(t, err, storage.NotFound, "tenant_not_found")
	if n := kept(r, id(1)); n != 0 {
		t.Errorf("%d scopes are still in memory", n)
	}
}

// Keys that cannot be opened any more can still be destroyed, but not rotated or trimmed.
func TestDestroyDamaged(t *testing.T) {
	t.Parallel()
	_, s := world(t)
	other := newRing(t, 2)
	_, err := other.Sealer(s, id(1), id(11))
	wantFault(t, err, storage.Internal, "damaged_key")
	for _, op := range []storage.KeyOp{storage.RotateKeys, storage.DropOldKeys} {
		_, _, err = other.Change(s, op, id(1), storage.ID{})
		wantFault(t, err, storage.Internal, "damaged_key")
	}
	change(t, other, s, storage.DestroyKeys, id(1), storage.ID{})
}

func TestWrappedKeyIsBound(t *testing.T) {
	t.Parallel()
	r, s := world(t)
	change(t, r, s, storage.RotateKeys, id(1), id(11))
	whole := s.scopes[scopeID{id(1), id(11)}].wrapped
	refused := func(name string, to scopeID, wrapped map[uint32][]byte) {
		t.Helper()
		bad := s.clone()
		bad.revision++
		bad.scopes[to] = shelved{wrapped, bad.revision}
		if _, err := r.Sealer(bad, to.tenant, to.project); storage.FaultOf(err) != storage.Internal || err == nil {
			t.Errorf("%s: %v, want it refused", name, err)
		}
	}
	refused("another project", scopeID{id(1), id(12)}, whole)
	refused("another tenant", scopeID{id(2), id(11)}, whole)
	refused("another tenant's own key", scopeID{tenant: id(2)}, s.scopes[scopeID{tenant: id(1)}].wrapped)
	refused("another version", scopeID{id(1), id(11)}, map[uint32][]byte{3: whole[2]})
	refused("versions exchanged", scopeID{id(1), id(11)}, map[uint32][]byte{1: whole[2], 2: whole[1]})
	refused("a project's key as a tenant's", scopeID{tenant: id(1)}, whole)
	for i := range whole[2] {
		for bit := range 8 {
			b := bytes.Clone(whole[2])
			b[i] ^= 1 << bit
			refused("a flipped bit", scopeID{id(1), id(11)}, map[uint32][]byte{1: whole[1], 2: b})
		}
	}
	newer := s.clone()
	newer.scopes[scopeID{id(1), id(11)}] = shelved{map[uint32][]byte{1: append([]byte{2}, whole[1][1:]...)}, 1000}
	_, err := r.Sealer(newer, id(1), id(11))
	wantFault(t, err, storage.Internal, "newer_format")
	for n := range len(whole[2]) {
		refused("cut", scopeID{id(1), id(11)}, map[uint32][]byte{2: whole[2][:n]})
	}
}

// The key-check value is a guard of its own: a wrapped key that authenticates, but whose check value is another key's, is
// refused.
func TestWrappedKeyCommits(t *testing.T) {
	t.Parallel()
	r, s := world(t)
	u := r.state.Load()
	m := &material{key: testRoot(3), index: testRoot(4)}
	good := u.wrap(u.wrapper, scopeID{tenant: id(5)}, 1, m)
	forge := func(flip byte) []byte {
		header := bytes.Clone(good[:wrapHeader])
		header[wrapHeader-1] ^= flip
		nonce := good[wrapHeader : wrapHeader+nonceLen]
		b := append(bytes.Clone(header), nonce...)
		return u.wrapper.cipher.seal(b, nonce, m.encode(), wrapData(header, scopeID{tenant: id(5)}, 1))
	}
	s.scopes[scopeID{tenant: id(5)}] = shelved{map[uint32][]byte{1: forge(0)}, 100}
	if _, err := r.Sealer(s, id(5), storage.ID{}); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	s.scopes[scopeID{tenant: id(5)}] = shelved{map[uint32][]byte{1: forge(1)}, 101}
	_, err := r.Sealer(s, id(5), storage.ID{})
	wantFault(t, err, storage.Internal, "damaged_key")
	if !strings.Contains(err.Error(), "key-check") {
		t.Errorf("refused for another reason: %v", err)
	}
}

// Two versions that each open, but carry different index keys, are not one scope's.
func TestVersionsBelongTogether(t *testing.T) {
	t.Parallel()
	r, s := world(t)
	u := r.state.Load()
	scope := scopeID{tenant: id(5)}
	s.scopes[scope] = shelved{map[uint32][]byte{
		1: u.wrap(u.wrapper, scope, 1, &material{key: testRoot(3), index: testRoot(4)}),
		2: u.wrap(u.wrapper, scope, 2, &material{key: testRoot(3), index: testRoot(5)}),
	}, 100}
	_, err := r.Sealer(s, id(5), storage.ID{})
	wantFault(t, err, storage.Internal, "damaged_key")
}

func TestSealerCache(t *testing.T) {
	t.Parallel()
	r, s := world(t)
	first := sealer(t, r, s, id(1), id(11))
	if sealer(t, r, s, id(1), id(11)) != first {
		t.Error("the same revision made another Sealer")
	}
	old := s.clone()
	change(t, r, s, storage.RotateKeys, id(1), id(11))
	second := sealer(t, r, s, id(1), id(11))
	if second == first {
		t.Error("a new revision returned the old Sealer")
	}
	place := at(id(1), id(11), "notes", "k")
	if value := sealer(t, r, old, id(1), id(11)).Seal(nil, nil, place); second.Current(value) {
		t.Error("an old snapshot sealed under the new version")
	}
	if sealer(t, r, s, id(1), id(11)) != second {
		t.Error("an old snapshot pushed the newer Sealer out")
	}
}

func TestDerive(t *testing.T) {
	t.Parallel()
	r := newRing(t, 1)
	a, err := r.Derive("token mac", 32)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{string(a): "token mac"}
	again, _ := newRing(t, 1).Derive("token mac", 64)
	if !bytes.Equal(a, again[:32]) {
		t.Error("the same root and label gave another secret")
	}
	for _, label := range []string{"", "rows", "wrap", "checkpoint", "token mac "} {
		b, err := r.Derive(label, 32)
		if err != nil || seen[string(b)] != "" {
			t.Errorf("%q: %v, or as %q", label, err, seen[string(b)])
		}
		seen[string(b)] = label
	}
	for _, label := range []string{labelWrap, labelRows, labelIndex, labelCheck, labelRoot} {
		if seen[string(expand(testRoot(1), nil, label))] != "" {
			t.Errorf("a derived secret is the working key %q", label)
		}
	}
	if b, _ := newRing(t, 2).Derive("token mac", 32); bytes.Equal(a, b) {
		t.Error("two roots gave one secret")
	}
	for _, n := range []int{-1, 0, 8161} {
		_, err := r.Derive("x", n)
		wantFault(t, err, storage.Internal, "bad_length")
	}
}

// Blind is HMAC-SHA-256 of an encoding in which no two (table, label, value) meet.
func TestBlind(t *testing.T) {
	t.Parallel()
	key := testRoot(7)
	b := newBlinder(key)
	rapid.Check(t, func(t *rapid.T) {
		table, label, value := rapid.String().Draw(t, "table"), rapid.String().Draw(t, "label"), rapid.SliceOf(rapid.Byte()).Draw(t, "value")
		mac := hmac.New(sha256.New, key)
		binary.Write(mac, binary.BigEndian, uint32(len(table)))
		mac.Write([]byte(table))
		binary.Write(mac, binary.BigEndian, uint32(len(label)))
		mac.Write([]byte(label))
		mac.Write(value)
		if got := b.Blind(table, label, value); !bytes.Equal(got, mac.Sum(nil)[:16]) {
			t.Fatalf("Blind = %x", got)
		}
	})
	same := [][3]string{{"ab", "c", "d"}, {"a", "bc", "d"}, {"a", "b", "cd"}, {"", "abc", "d"}, {"abcd", "", ""}, {"", "", "abcd"}}
	seen := map[string]bool{}
	for _, p := range same {
		seen[string(b.Blind(p[0], p[1], []byte(p[2])))] = true
	}
	if len(seen) != len(same) {
		t.Errorf("%d keys for %d places", len(seen), len(same))
	}

	r, s := world(t)
	if bytes.Equal(sealer(t, r, s, id(1), id(11)).Blind("t", "l", nil), sealer(t, r, s, id(1), id(12)).Blind("t", "l", nil)) {
		t.Error("two projects have one index key")
	}
}

// Everything at once, for the race detector.
func TestRingConcurrently(t *testing.T) {
	t.Parallel()
	r, s := world(t)
	rotated := s.clone()
	change(t, r, rotated, storage.RotateKeys, id(1), storage.ID{})
	change(t, r, rotated, storage.RotateKeys, id(1), id(11))
	place := at(id(1), id(11), "notes", "k")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			see := []*shelf{s, rotated}[i%2]
			for range 50 {
				c, err := r.Sealer(see, id(1), id(11))
				if storage.FaultOf(err) == storage.Unavailable && err != nil {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				value := c.Seal(nil, []byte("v"), place)
				if got, err := c.Open(nil, value, place); err == nil && string(got) != "v" || err != nil && storage.FaultOf(err) != storage.Unavailable {
					t.Errorf("opened %q, %v", got, err)
				}
				c.Blind("t", "l", value)
				if i == 0 {
					r.Seal()
					if err := r.Unseal(testRoot(1)); err != nil {
						t.Error(err)
					}
				}
				if i == 1 {
					if _, _, err := r.Change(see, storage.DestroyKeys, id(1), id(12)); err != nil && storage.FaultOf(err) != storage.Unavailable {
						t.Error(err)
					}
				}
				r.Derive("x", 32)
			}
		})
	}
	wg.Wait()
}

func FuzzUnwrap(f *testing.F) {
	r, s := worldFrom(f, chacha.NewChaCha8([32]byte{})) // the same keys in every process that fuzzes
	good := s.scopes[scopeID{tenant: id(1)}].wrapped[1]
	f.Add(good)
	f.Add(good[:wrapMin])
	f.Add([]byte{})
	f.Add([]byte{2})
	u := r.state.Load()
	find, _, err := u.finder(s, scopeID{tenant: id(1)})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := unwrap(find, scopeID{tenant: id(1)}, 1, b); err == nil && !bytes.Equal(b, good) {
			t.Fatal("a wrapped key that nobody wrapped was opened")
		}
	})
}

func BenchmarkSealer(b *testing.B) {
	r, s := world(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := r.Sealer(s, id(1), id(11)); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkSealerCold(b *testing.B) {
	r, s := world(b)
	b.ReportAllocs()
	for b.Loop() {
		r.state.Load().forget(scopeID{id(1), id(11)})
		if _, err := r.Sealer(s, id(1), id(11)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBlind(b *testing.B) {
	r, s := world(b)
	c := sealer(b, r, s, id(1), id(11))
	value := []byte("somebody@example.org")
	b.ReportAllocs()
	for b.Loop() {
		c.Blind("accounts", "email", value)
	}
}
