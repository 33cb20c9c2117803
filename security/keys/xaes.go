package keys

import (
	"crypto/aes"
	"crypto/cipher"
)

const (
	keyLen    = 32
	nonceLen  = 24
	prefixLen = 12 // the part of a nonce that selects the derived key
	tagLen    = 16
)

// An xaes is AES-256 in XAES-256-GCM (C2SP, c2sp.org/XAES-256-GCM): the first twelve bytes of a nonce derive an AES-256
// key by the key derivation function in counter mode over CMAC (NIST SP 800-108r1, SP 800-38B), the last twelve are
// the nonce of AES-256-GCM under that key. It keeps only the expanded key.
type xaes struct {
	block cipher.Block
	k1    [aes.BlockSize]byte // CMAC's first subkey
}

func newXAES(key []byte) *xaes {
	if len(key) != keyLen {
		panic("internal error: an XAES-256-GCM key must have 32 bytes")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("internal error: AES refused a key of 32 bytes")
	}
	x := &xaes{block: block}
	block.Encrypt(x.k1[:], x.k1[:])
	// Doubling in GF(2^128), without a branch on the key's bits (SP 800-38B, 6.1).
	var carry byte
	for i := len(x.k1) - 1; i >= 0; i-- {
		carry, x.k1[i] = x.k1[i]>>7, x.k1[i]<<1|carry
	}
	x.k1[len(x.k1)-1] ^= carry * 0x87
	return x
}

// derive returns AES-256-GCM under the key that the first twelve bytes of a nonce select.
//
// Both CMAC inputs are exactly one block, so a CMAC is one AES call on the input combined with k1.
func (x *xaes) derive(prefix []byte) cipher.AEAD {
	var key [keyLen]byte
	for i := range 2 {
		half := key[i*aes.BlockSize : (i+1)*aes.BlockSize]
		half[1], half[2] = byte(i+1), 'X'
		copy(half[4:], prefix[:prefixLen])
		for j := range half {
			half[j] ^= x.k1[j]
		}
		x.block.Encrypt(half, half)
	}
	block, err := aes.NewCipher(key[:])
	clear(key[:])
	if err != nil {
		panic("internal error: AES refused a key of 32 bytes")
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("internal error: GCM refused AES")
	}
	return aead
}

func (x *xaes) seal(dst, nonce, plain, data []byte) []byte {
	return x.derive(nonce).Seal(dst, nonce[prefixLen:nonceLen], plain, data)
}

func (x *xaes) open(dst, nonce, sealed, data []byte) ([]byte, error) {
	return x.derive(nonce).Open(dst, nonce[prefixLen:nonceLen], sealed, data)
}
