package keys

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
)

const blindLen = 16

// A blinder makes look-up keys. The keyed states after HMAC's two pads are computed once, by Reset, and restored for each
// use; each goroutine takes a copy from the pool.
type blinder struct {
	pool sync.Pool
}

type blinding struct {
	mac hash.Hash
	buf []byte
}

func newBlinder(key []byte) *blinder {
	mac := hmac.New(sha256.New, key)
	mac.Reset() // makes mac keep its keyed states
	master, ok := mac.(hash.Cloner)
	if !ok {
		panic("internal error: HMAC-SHA-256 cannot be cloned")
	}
	b := &blinder{}
	b.pool.New = func() any {
		mac, err := master.Clone()
		if err != nil {
			panic("internal error: HMAC-SHA-256 cannot be cloned")
		}
		return &blinding{mac: mac}
	}
	return b
}

// Blind returns HMAC-SHA-256 of (table, label, value) under the scope's index key, cut to 16 bytes.
func (b *blinder) Blind(table, label string, value []byte) []byte {
	use := b.pool.Get().(*blinding)
	use.mac.Reset()
	use.buf = binary.BigEndian.AppendUint32(use.buf[:0], uint32(len(table)))
	use.buf = append(use.buf, table...)
	use.buf = binary.BigEndian.AppendUint32(use.buf, uint32(len(label)))
	use.buf = append(use.buf, label...)
	use.mac.Write(use.buf)
	use.mac.Write(value)
	use.buf = use.mac.Sum(use.buf[:0])
	out := make([]byte, blindLen)
	copy(out, use.buf)
	b.pool.Put(use)
	return out
}
