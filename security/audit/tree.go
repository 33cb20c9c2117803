package audit

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"

	"bulwark/storage"
	"bulwark/storage/entry"
)

// A Tree is an RFC 6962 Merkle tree of which only the right edge is kept: one hash for each set bit of the size, largest
// subtree first. The zero Tree is empty.
type Tree struct {
	size uint64
	edge [][32]byte
}

// NewTree returns the tree that storage.Snapshot's Tree described. It keeps a copy of edge.
func NewTree(size uint64, edge [][32]byte) (*Tree, error) {
	if want := bits.OnesCount64(size); want != len(edge) {
		return nil, fmt.Errorf("the edge of a tree of %d leaves has %d hashes, not %d", size, want, len(edge))
	}
	if size > math.MaxInt64 {
		return nil, errors.New("a tree has at most 2^63-1 leaves")
	}
	return &Tree{size: size, edge: append([][32]byte(nil), edge...)}, nil
}

// Append adds a leaf's hash.
func (t *Tree) Append(leaf [32]byte) {
	// Each trailing one of the size is a complete subtree as large as the one that is made here.
	for ones := bits.TrailingZeros64(^t.size); ones > 0; ones-- {
		leaf = nodeHash(t.edge[len(t.edge)-1], leaf)
		t.edge = t.edge[:len(t.edge)-1]
	}
	t.edge = append(t.edge, leaf)
	t.size++
}

// Size is the number of leaves.
func (t *Tree) Size() uint64 { return t.size }

// Edge returns a copy of the right edge.
func (t *Tree) Edge() [][32]byte { return append([][32]byte(nil), t.edge...) }

// Root is RFC 6962's MTH (section 2.1); that of the empty tree is the SHA-256 of nothing.
func (t *Tree) Root() [32]byte {
	if t.size == 0 {
		return sha256.Sum256(nil)
	}
	root := t.edge[len(t.edge)-1]
	for i := len(t.edge) - 2; i >= 0; i-- {
		root = nodeHash(t.edge[i], root)
	}
	return root
}

func nodeHash(left, right [32]byte) [32]byte {
	var b [65]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[33:], right[:])
	return sha256.Sum256(b[:])
}

// blockLevel is the level of the smallest subtrees whose hashes a Prover keeps: it costs 64 bytes for each 256 leaves.
const (
	blockLevel = 8
	blockSize  = 1 << blockLevel
)

// A Prover makes proofs from the leaf hashes of a tree. It keeps the hashes of complete subtrees of 256 leaves and more,
// and the leaves of the last block; for a proof inside another block it must be shown that block's leaves.
type Prover struct {
	size  uint64
	upper [][]tlog.Hash // upper[i][n] is the n-th complete subtree of level blockLevel+i
	tail  []tlog.Hash   // leaves after the last complete block
}

// Append adds a leaf's hash.
func (p *Prover) Append(leaf [32]byte) {
	p.tail = append(p.tail, leaf)
	p.size++
	if len(p.tail) < blockSize {
		return
	}
	h := subtree(p.tail)
	p.tail = p.tail[:0]
	for level := 0; ; level++ {
		if level == len(p.upper) {
			p.upper = append(p.upper, nil)
		}
		p.upper[level] = append(p.upper[level], h)
		n := len(p.upper[level])
		if n%2 == 1 {
			return
		}
		h = tlog.NodeHash(p.upper[level][n-2], h)
	}
}

// Size is the number of leaves.
func (p *Prover) Size() uint64 { return p.size }

// Root is the root of the tree.
func (p *Prover) Root() ([32]byte, error) {
	h, err := tlog.TreeHash(int64(p.size), p.reader(0, nil))
	return h, err
}

// Inclusion proves that leaf n is in the tree: RFC 6962's PATH(n, D), section 2.1.1. block holds the hashes of the 256
// leaves from n - n%256 on; it may be nil for leaves after the last complete block.
func (p *Prover) Inclusion(n uint64, block [][32]byte) ([][32]byte, error) {
	if n >= p.size {
		return nil, fmt.Errorf("proving leaf %d: the tree has %d leaves", n, p.size)
	}
	proof, err := tlog.ProveRecord(int64(p.size), int64(n), p.reader(n/blockSize, block))
	if err != nil {
		return nil, fmt.Errorf("proving leaf %d: %w", n, err)
	}
	return plainHashes(proof), nil
}

// Consistency proves that the tree begins with the tree of its first old leaves: RFC 6962's PROOF(old, D), section 2.1.2.
// block holds the hashes of the 256 leaves from (old-1) - (old-1)%256 on; it may be nil for leaves after the last
// complete block.
func (p *Prover) Consistency(old uint64, block [][32]byte) ([][32]byte, error) {
	if old == 0 || old > p.size {
		return nil, fmt.Errorf("proving consistency with %d leaves: the tree has %d leaves", old, p.size)
	}
	proof, err := tlog.ProveTree(int64(p.size), int64(old), p.reader((old-1)/blockSize, block))
	if err != nil {
		return nil, fmt.Errorf("proving consistency with %d leaves: %w", old, err)
	}
	return plainHashes(proof), nil
}

var errNoBlock = errors.New("the leaves of the block were not given")

// reader answers for every complete subtree of blockLevel and above, and below it inside the given block and the tail.
func (p *Prover) reader(block uint64, leaves [][32]byte) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			level, n := tlog.SplitStoredHashIndex(index)
			if level >= blockLevel {
				out[i] = p.upper[level-blockLevel][n]
				continue
			}
			lo := uint64(n) << level
			hi := lo + 1<<level
			switch first := lo &^ (blockSize - 1); {
			case first == p.size&^(blockSize-1):
				out[i] = subtree(p.tail[lo-first : hi-first])
			case first == block*blockSize && len(leaves) == blockSize:
				part := make([]tlog.Hash, 0, blockSize)
				for _, h := range leaves[lo-first : hi-first] {
					part = append(part, h)
				}
				out[i] = subtree(part)
			default:
				return nil, errNoBlock
			}
		}
		return out, nil
	})
}

// subtree is the root over a power of two of leaves.
func subtree(leaves []tlog.Hash) tlog.Hash {
	if len(leaves) == 1 {
		return leaves[0]
	}
	half := len(leaves) / 2
	return tlog.NodeHash(subtree(leaves[:half]), subtree(leaves[half:]))
}

func plainHashes(in []tlog.Hash) [][32]byte {
	out := make([][32]byte, len(in))
	for i, h := range in {
		out[i] = h
	}
	return out
}

// CheckInclusion reports whether proof shows that leaf is leaf n of the tree with this size and root.
func CheckInclusion(proof [][32]byte, size uint64, root [32]byte, n uint64, leaf [32]byte) error {
	if size > math.MaxInt64 || n >= size {
		return fmt.Errorf("leaf %d cannot be in a tree of %d leaves", n, size)
	}
	return tlog.CheckRecord(tlogHashes(proof), int64(size), root, int64(n), leaf)
}

// CheckConsistency reports whether proof shows that the tree (size, root) begins with the tree (old, oldRoot).
func CheckConsistency(proof [][32]byte, size uint64, root [32]byte, old uint64, oldRoot [32]byte) error {
	if size > math.MaxInt64 || old == 0 || old > size {
		return fmt.Errorf("a tree of %d leaves cannot begin with one of %d", size, old)
	}
	return tlog.CheckTree(tlogHashes(proof), int64(size), root, int64(old), oldRoot)
}

func tlogHashes(in [][32]byte) []tlog.Hash {
	out := make([]tlog.Hash, len(in))
	for i, h := range in {
		out[i] = h
	}
	return out
}

// VerifyLeaves recomputes the tree of a tenant from its leaves in s and compares it with the tree that the state holds.
// It needs no key. The error says the first difference that was found.
func VerifyLeaves(s storage.Snapshot, tenant storage.ID) (*Tree, error) {
	size, edge, err := s.Tree(tenant)
	if err != nil {
		return nil, fmt.Errorf("reading the audit tree: %w", err)
	}
	stated, err := NewTree(size, edge)
	if err != nil {
		return nil, fmt.Errorf("checking the audit tree of tenant %s: %w", tenant, err)
	}
	var t Tree
	var bad error
	err = s.Leaves(tenant, 0, func(position uint64, leaf entry.Leaf) bool {
		if position != t.size {
			bad = fmt.Errorf("checking the audit log of tenant %s: leaf %d is missing (the next one is %d)", tenant, t.size, position)
			return false
		}
		t.Append(leaf.Hash)
		return true
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the audit leaves: %w", err)
	case bad != nil:
		return nil, bad
	case t.size != size:
		return nil, fmt.Errorf("checking the audit log of tenant %s: it has %d leaves, and its tree %d", tenant, t.size, size)
	}
	for i := range edge {
		if t.edge[i] != stated.edge[i] {
			return nil, fmt.Errorf("checking the audit log of tenant %s: the tree in the state is not that of its %d leaves: a leaf or the tree was altered",
				tenant, size)
		}
	}
	return &t, nil
}
