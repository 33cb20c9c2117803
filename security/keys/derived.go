package keys

import (
	"crypto/cipher"
	"sync/atomic"
)

const (
	derivedSets = 256
	derivedWays = 4
)

// A derivedCache keeps derived AEADs by (key, first half of the nonce), at most 1,024 of them, each just under a
// kilobyte: deriving costs as much as opening three values. Reading takes no lock. Within a set of four the one that was
// not used lately is replaced.
type derivedCache struct {
	sets [derivedSets][derivedWays]atomic.Pointer[derived]
}

type derived struct {
	key    *valueKey
	prefix [prefixLen]byte
	aead   cipher.AEAD
	used   atomic.Bool
}

// The prefix is random, so its first byte spreads evenly.
func (c *derivedCache) set(prefix []byte) *[derivedWays]atomic.Pointer[derived] {
	return &c.sets[prefix[0]]
}

func (c *derivedCache) get(k *valueKey, prefix []byte) cipher.AEAD {
	set := c.set(prefix)
	for i := range set {
		d := set[i].Load()
		if d == nil || d.key != k || d.prefix != [prefixLen]byte(prefix) {
			continue
		}
		if !d.used.Load() { // a store for each hit would pass the cache line from core to core
			d.used.Store(true)
		}
		return d.aead
	}
	return nil
}

func (c *derivedCache) put(k *valueKey, prefix []byte, aead cipher.AEAD) {
	set := c.set(prefix)
	d := &derived{key: k, prefix: [prefixLen]byte(prefix), aead: aead}
	for i := range set {
		if set[i].CompareAndSwap(nil, d) {
			return
		}
	}
	victim := int(prefix[1]) % derivedWays
	for i := range set {
		if old := set[i].Load(); old == nil || !old.used.Swap(false) {
			victim = i
			break
		}
	}
	set[victim].Store(d)
}

// drop forgets what was derived from the keys of k.
func (c *derivedCache) drop(k *keyring) {
	for i := range c.sets {
		for j := range c.sets[i] {
			slot := &c.sets[i][j]
			if d := slot.Load(); d != nil && k.version(d.key.version) == d.key {
				slot.CompareAndSwap(d, nil)
			}
		}
	}
}
