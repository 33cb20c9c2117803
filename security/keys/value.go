package keys

import (
	"crypto/cipher"
	"encoding/binary"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"bulwark/storage"
)

// The sealed value: format, key version, nonce, ciphertext, tag. DESIGN.md has it byte by byte.
const (
	valueFormat = 1
	headerLen   = 1 + 4 + nonceLen

	// Overhead is by how many bytes a sealed value is longer than its plaintext.
	Overhead = headerLen + tagLen

	// runLength is how many values share the first half of their nonce, and so a derived key.
	runLength = 1 << 20
)

var (
	errDamaged = storage.Errorf(storage.Internal, "damaged_value",
		"a stored value cannot be opened: it is damaged, or is not where it was written; restore it from a snapshot")
	errValueFormat = storage.Errorf(storage.Internal, "newer_format",
		"a stored value has a format that this version of bulwark does not know: run the version that wrote it, or a newer one")
	errNoVersion = storage.Errorf(storage.Internal, "key_dropped",
		"a stored value was sealed under a key version that no longer exists: restore the wrapped keys from a snapshot")
)

// A valueKey is one version of a working key.
type valueKey struct {
	version uint32
	cipher  *xaes

	renewing sync.Mutex
	run      atomic.Pointer[run]
}

// A run is up to runLength seals under one derived key.
//
// The nonce's second half is the value's number in its run (four bytes) and eight random bytes. The number alone makes
// nonces within a run differ, whatever the random source does. The random bytes are for a machine that is put back to an
// older memory image, or cloned while it runs: it would count on from the same run and seal other values under the same
// numbers, and GCM forgives no repeated nonce. The kernel's random source notices such a restore; a counter does not.
type run struct {
	prefix [prefixLen]byte
	aead   cipher.AEAD
	used   atomic.Uint64
}

// next returns a run that has room for one more value, and the value's number in it.
func (k *valueKey) next(u *unsealed) (*run, uint32) {
	for {
		r := k.run.Load()
		if r != nil {
			if n := r.used.Add(1); n <= runLength {
				return r, uint32(n)
			}
		}
		k.renew(u, r)
	}
}

func (k *valueKey) renew(u *unsealed, old *run) {
	k.renewing.Lock()
	defer k.renewing.Unlock()
	if k.run.Load() != old {
		return
	}
	r := &run{}
	u.draw(r.prefix[:])
	r.aead = k.cipher.derive(r.prefix[:])
	u.derived.put(k, r.prefix[:], r.aead)
	k.run.Store(r)
}

// A keyring is every version of one working key of a scope. It is safe for concurrent use.
type keyring struct {
	state *unsealed
	keys  []*valueKey // in order of version; the last is the current one
}

func (k *keyring) current() *valueKey { return k.keys[len(k.keys)-1] }

func (k *keyring) version(v uint32) *valueKey {
	for i := len(k.keys) - 1; i >= 0; i-- {
		if k.keys[i].version == v {
			return k.keys[i]
		}
	}
	return nil
}

// Seal appends the sealed form of plain, which may not overlap the free room of dst.
func (k *keyring) Seal(dst, plain []byte, at storage.Place) []byte {
	key := k.current()
	r, number := key.next(k.state)

	dst = slices.Grow(dst, Overhead+len(plain))
	dst = append(dst, valueFormat)
	dst = binary.BigEndian.AppendUint32(dst, key.version)
	dst = append(dst, r.prefix[:]...)
	dst = binary.BigEndian.AppendUint32(dst, number)
	dst = dst[:len(dst)+8]
	k.state.draw(dst[len(dst)-8:])
	nonce := dst[len(dst)-(nonceLen-prefixLen):]

	data := k.state.buffers.Get().(*[]byte)
	*data = appendPlace((*data)[:0], key.version, at)
	dst = r.aead.Seal(dst, nonce, plain, *data)
	k.state.buffers.Put(data)
	return dst
}

// Open appends the plaintext of sealed.
func (k *keyring) Open(dst, sealed []byte, at storage.Place) ([]byte, error) {
	if k.state.closed.Load() {
		return nil, errSealed()
	}
	if len(sealed) < Overhead {
		return nil, errDamaged
	}
	if sealed[0] != valueFormat {
		return nil, errValueFormat
	}
	key := k.version(binary.BigEndian.Uint32(sealed[1:5]))
	if key == nil {
		return nil, errNoVersion
	}
	nonce := sealed[5:headerLen]
	aead := k.state.derived.get(key, nonce)
	known := aead != nil
	if !known {
		aead = key.cipher.derive(nonce)
	}
	data := k.state.buffers.Get().(*[]byte)
	*data = appendPlace((*data)[:0], key.version, at)
	dst, err := aead.Open(dst, nonce[prefixLen:], sealed[headerLen:], *data)
	k.state.buffers.Put(data)
	if err != nil {
		return nil, errDamaged
	}
	if !known { // only now: a forged value may not push a key out
		k.state.derived.put(key, nonce, aead)
	}
	return dst, nil
}

// Current reports whether sealed is under the current key version.
func (k *keyring) Current(sealed []byte) bool {
	return len(sealed) >= Overhead && sealed[0] == valueFormat && binary.BigEndian.Uint32(sealed[1:5]) == k.current().version
}

// appendPlace encodes what a value is bound to. Every part but the last has a fixed or a stated length, so no two places
// have the same encoding.
func appendPlace(b []byte, version uint32, at storage.Place) []byte {
	b = append(b, valueFormat)
	b = binary.BigEndian.AppendUint32(b, version)
	b = append(b, at.Tenant[:]...)
	b = append(b, at.Project[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(at.Table)))
	b = append(b, at.Table...)
	return append(b, at.Key...)
}

// draw fills b from the random source. A node whose random source fails cannot seal safely, and must stop.
func (u *unsealed) draw(b []byte) {
	if _, err := io.ReadFull(u.rand, b); err != nil {
		panic("internal error: the random source failed")
	}
}
