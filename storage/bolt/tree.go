package bolt

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/bits"
)

// A frontier is the right edge of an RFC 6962 Merkle tree: the hash of one perfect subtree for each set bit of the size,
// the largest first. It is all that appending needs.
type frontier struct {
	size uint64
	edge [][32]byte
}

var errFrontier = errors.New("the audit tree's edge is damaged")

func decodeFrontier(b []byte) (frontier, error) {
	if b == nil {
		return frontier{}, nil
	}
	if len(b) < 8 || (len(b)-8)%32 != 0 {
		return frontier{}, errFrontier
	}
	f := frontier{size: binary.BigEndian.Uint64(b)}
	n := (len(b) - 8) / 32
	if n != bits.OnesCount64(f.size) {
		return frontier{}, errFrontier
	}
	f.edge = make([][32]byte, n, n+1)
	for i := range f.edge {
		copy(f.edge[i][:], b[8+32*i:])
	}
	return f, nil
}

func (f *frontier) encode() []byte {
	b := make([]byte, 8, 8+32*len(f.edge))
	binary.BigEndian.PutUint64(b, f.size)
	for i := range f.edge {
		b = append(b, f.edge[i][:]...)
	}
	return b
}

// add appends a leaf: as many subtrees as the size has trailing ones are joined with it (RFC 6962, section 2.1).
func (f *frontier) add(leaf [32]byte) {
	var joined [65]byte
	for range bits.TrailingZeros64(^f.size) {
		last := len(f.edge) - 1
		joined[0] = 1
		copy(joined[1:], f.edge[last][:])
		copy(joined[33:], leaf[:])
		leaf = sha256.Sum256(joined[:])
		f.edge = f.edge[:last]
	}
	f.edge = append(f.edge, leaf)
	f.size++
}
