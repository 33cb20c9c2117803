package audit_test

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"bulwark/security/audit"
	"bulwark/storage/entry"
	"bulwark/storage/storagetest"

	"bulwark/storage"
)

func leafHash(n uint64) [32]byte {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	return audit.LeafHash(b[:])
}

// reference keeps every stored hash, as tlog's own documentation does it.
type reference []tlog.Hash

func (r reference) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = r[x]
	}
	return out, nil
}

func referenceTree(t *testing.T, n uint64) reference {
	t.Helper()
	var r reference
	for i := range n {
		h, err := tlog.StoredHashesForRecordHash(int64(i), leafHash(i), r)
		if err != nil {
			t.Fatal(err)
		}
		r = append(r, h...)
	}
	return r
}

func TestTreeIsRFC6962(t *testing.T) {
	t.Parallel()
	const most = 1100
	ref := referenceTree(t, most)
	var tree audit.Tree
	var prover audit.Prover
	if tree.Root() != sha256.Sum256(nil) {
		t.Error("the root of the empty tree is not the hash of nothing")
	}
	for n := range uint64(most) {
		tree.Append(leafHash(n))
		prover.Append(leafHash(n))
		want, err := tlog.TreeHash(int64(n)+1, ref)
		if err != nil {
			t.Fatal(err)
		}
		proved, err := prover.Root()
		if err != nil {
			t.Fatal(err)
		}
		if tlog.Hash(tree.Root()) != want || tlog.Hash(proved) != want {
			t.Fatalf("the root of %d leaves differs from tlog's", n+1)
		}
		again, err := audit.NewTree(tree.Size(), tree.Edge())
		if err != nil || again.Root() != tree.Root() {
			t.Fatalf("resuming at %d: %v", n+1, err)
		}
	}
	if _, err := audit.NewTree(3, make([][32]byte, 1)); err == nil {
		t.Error("a tree of three leaves has an edge of two hashes")
	}
}

func block(size, n uint64) [][32]byte {
	first := n - n%256
	if first+256 > size {
		return nil
	}
	out := make([][32]byte, 256)
	for i := range out {
		out[i] = leafHash(first + uint64(i))
	}
	return out
}

func TestProofs(t *testing.T) {
	t.Parallel()
	const most = 3000
	ref := referenceTree(t, most)
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.Uint64Range(1, most).Draw(rt, "size")
		n := rapid.Uint64Range(0, size-1).Draw(rt, "n")
		var p audit.Prover
		for i := range size {
			p.Append(leafHash(i))
		}
		root, err := p.Root()
		if err != nil {
			rt.Fatal(err)
		}
		proof, err := p.Inclusion(n, block(size, n))
		if err != nil {
			rt.Fatal(err)
		}
		want, err := tlog.ProveRecord(int64(size), int64(n), ref)
		if err != nil {
			rt.Fatal(err)
		}
		if len(want) != len(proof) {
			rt.Fatalf("the proof has %d hashes, tlog's %d", len(proof), len(want))
		}
		for i := range want {
			if want[i] != tlog.Hash(proof[i]) {
				rt.Fatalf("hash %d of the proof differs from tlog's", i)
			}
		}
		if err := audit.CheckInclusion(proof, size, root, n, leafHash(n)); err != nil {
			rt.Fatal(err)
		}
		if audit.CheckInclusion(proof, size, root, n, leafHash(n+1)) == nil {
			rt.Fatal("a proof holds for another leaf")
		}
		old := n + 1
		consistency, err := p.Consistency(old, block(size, n))
		if err != nil {
			rt.Fatal(err)
		}
		oldRoot, err := tlog.TreeHash(int64(old), ref)
		if err != nil {
			rt.Fatal(err)
		}
		if err := audit.CheckConsistency(consistency, size, root, old, oldRoot); err != nil {
			rt.Fatal(err)
		}
		oldRoot[0] ^= 1
		if audit.CheckConsistency(consistency, size, root, old, oldRoot) == nil {
			rt.Fatal("a consistency proof holds for another root")
		}
	})
}

func TestProofsOutsideTheTree(t *testing.T) {
	t.Parallel()
	var p audit.Prover
	for i := range uint64(600) {
		p.Append(leafHash(i))
	}
	if _, err := p.Inclusion(600, nil); err == nil {
		t.Error("a proof of a leaf that is not there")
	}
	if _, err := p.Inclusion(3, nil); err == nil {
		t.Error("a proof without the leaves of its block")
	}
	for _, old := range []uint64{0, 601} {
		if _, err := p.Consistency(old, nil); err == nil {
			t.Errorf("a proof of consistency with %d leaves", old)
		}
	}
	if audit.CheckInclusion(nil, 1<<63, [32]byte{}, 0, [32]byte{}) == nil || audit.CheckConsistency(nil, 5, [32]byte{}, 0, [32]byte{}) == nil {
		t.Error("an impossible tree was accepted")
	}
}

func newSigner(t testing.TB, cluster storage.ID, first byte) *audit.Signer {
	t.Helper()
	seed := make([]byte, audit.SeedSize)
	seed[0] = first
	s, err := audit.NewSigner(cluster, seed)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func vkey(t testing.TB, s *audit.Signer, tenant storage.ID) string {
	t.Helper()
	k, err := s.VerifierKey(tenant)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestCheckpoint(t *testing.T) {
	t.Parallel()
	s := newSigner(t, id(50), 1)
	tenant, root := id(51), leafHash(7)
	signed, err := s.Sign(tenant, 42, root)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Sign(tenant, 42, root)
	if err != nil || string(again) != string(signed) {
		t.Errorf("signing is not deterministic: %v", err)
	}
	want := "bulwark/" + id(50).String() + "/" + id(51).String() + "\n42\n"
	if !strings.HasPrefix(string(signed), want) {
		t.Errorf("the note is %q", signed)
	}
	key := vkey(t, s, tenant)
	// Any implementation of signed notes must read it.
	v, err := note.NewVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := note.Open(signed, note.VerifierList(v)); err != nil {
		t.Error(err)
	}
	c, signer, err := audit.OpenCheckpoint(signed, vkey(t, newSigner(t, id(50), 9), tenant), key)
	if err != nil {
		t.Fatal(err)
	}
	if c.Size != 42 || c.Root != root || signer != key || c.Origin != s.Origin(tenant) {
		t.Errorf("opened %+v by %s", c, signer)
	}
	for name, try := range map[string]struct {
		note string
		key  string
	}{
		"another size":   {strings.Replace(string(signed), "\n42\n", "\n43\n", 1), key},
		"another tenant": {string(signed), vkey(t, s, id(52))},
		"another seed":   {string(signed), vkey(t, newSigner(t, id(50), 2), tenant)},
		"no key":         {string(signed), "nonsense"},
		"empty":          {"", key},
	} {
		if _, _, err := audit.OpenCheckpoint([]byte(try.note), try.key); err == nil {
			t.Errorf("%s: the checkpoint was accepted", name)
		}
	}
}

// A key may sign only for the origin that is its name.
func TestCheckpointOfAnotherOrigin(t *testing.T) {
	t.Parallel()
	secret, public, err := note.GenerateKey(&counting{}, "bulwark/other")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	for origin, want := range map[string]bool{"bulwark/other": true, "bulwark/own": false} {
		c := audit.Checkpoint{Origin: origin, Size: 1, Root: leafHash(1)}
		signed, err := note.Sign(&note.Note{Text: c.Text()}, signer)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := audit.OpenCheckpoint(signed, public); (err == nil) != want {
			t.Errorf("%s: %v", origin, err)
		}
	}
}

// One checkpoint has one text: the unused bits at a signature's end count.
func TestCheckpointHasOneText(t *testing.T) {
	t.Parallel()
	s := newSigner(t, id(50), 1)
	signed, err := s.Sign(id(51), 42, leafHash(7))
	if err != nil {
		t.Fatal(err)
	}
	end := strings.LastIndexByte(string(signed), '=') - 1
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		other := append([]byte(nil), signed...)
		other[end] = c
		if _, _, err := audit.OpenCheckpoint(other, vkey(t, s, id(51))); (err == nil) != (c == signed[end]) {
			t.Errorf("with %q in the place of %q: %v", c, signed[end], err)
		}
	}
}

func TestSignerNeedsItsParts(t *testing.T) {
	t.Parallel()
	if _, err := audit.NewSigner(id(1), make([]byte, 31)); err == nil {
		t.Error("a signer with a short seed")
	}
	if _, err := audit.NewSigner(storage.ID{}, make([]byte, audit.SeedSize)); err == nil {
		t.Error("a signer without a cluster")
	}
	s := newSigner(t, id(1), 1)
	if _, err := s.Sign(id(2), 1, [32]byte{}, "two\nlines"); err == nil {
		t.Error("an extension of two lines")
	}
}

func FuzzOpenCheckpoint(f *testing.F) {
	s := newSigner(f, id(50), 1)
	signed, err := s.Sign(id(51), 42, leafHash(1), "extension")
	if err != nil {
		f.Fatal(err)
	}
	key := vkey(f, s, id(51))
	f.Add(signed)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, _, err := audit.OpenCheckpoint(b, key)
		if err == nil && (c.Size != 42 || c.Root != leafHash(1)) {
			t.Errorf("what was never signed was accepted: %+v", c)
		}
	})
}

// altered shows a state in which somebody changed leaves.
type altered struct {
	storage.Snapshot
	change func(position uint64, leaf *entry.Leaf) (keep bool)
}

func (a altered) Leaves(tenant storage.ID, first uint64, fn func(uint64, entry.Leaf) bool) error {
	return a.Snapshot.Leaves(tenant, first, func(position uint64, leaf entry.Leaf) bool {
		return !a.change(position, &leaf) || fn(position, leaf)
	})
}

func TestVerifyLeaves(t *testing.T) {
	t.Parallel()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	fill(t, w, 20)
	snap, err := w.Engine.Local()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	tree, err := audit.VerifyLeaves(snap, w.Tenant)
	if err != nil {
		t.Fatal(err)
	}
	size := tree.Size()
	for name, change := range map[string]func(uint64, *entry.Leaf) bool{
		"changed": func(n uint64, l *entry.Leaf) bool { l.Hash[3] ^= byte(n & 1); return true },
		"dropped": func(n uint64, _ *entry.Leaf) bool { return n != 5 },
		"cut":     func(n uint64, _ *entry.Leaf) bool { return n < size-1 },
	} {
		if _, err := audit.VerifyLeaves(altered{snap, change}, w.Tenant); err == nil {
			t.Errorf("%s: the leaves were accepted", name)
		}
	}
	for i := range tree.Edge() {
		if _, err := audit.VerifyLeaves(alteredTree{snap, i}, w.Tenant); err == nil || !strings.Contains(err.Error(), "was altered") {
			t.Errorf("hash %d of the edge: %v", i, err)
		}
	}
}

// alteredTree shows a state in which somebody changed a hash of the tree's edge.
type alteredTree struct {
	storage.Snapshot
	which int
}

func (a alteredTree) Tree(tenant storage.ID) (uint64, [][32]byte, error) {
	size, edge, err := a.Snapshot.Tree(tenant)
	edge = append([][32]byte(nil), edge...)
	edge[a.which][9] ^= 1
	return size, edge, err
}
