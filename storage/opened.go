package storage

import (
	"bytes"
	"sync"

	"bulwark/storage/entry"
)

// openedLimit bounds the decoded records that are remembered: a few MiB.
const openedLimit = 8192

// opened remembers decoded records by their place and version, for the tables that ask for it (see Cached). What a
// transaction sees is decided by its snapshot alone, which says the version; the memory only saves opening and decoding
// the same bytes again. It holds what was typed, so a node that is sealed forgets it.
type opened struct {
	mu sync.RWMutex
	at map[string]openedRecord
}

type openedRecord struct {
	version uint64
	value   any
}

func (o *opened) get(key string, version uint64) (any, bool) {
	o.mu.RLock()
	r, ok := o.at[key]
	o.mu.RUnlock()
	return r.value, ok && r.version == version
}

func (o *opened) put(key string, version uint64, value any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.at == nil {
		o.at = map[string]openedRecord{}
	}
	if len(o.at) >= openedLimit {
		// Any eighth goes: a map visits its keys from a random place on.
		n := openedLimit / 8
		for k := range o.at {
			delete(o.at, k)
			if n--; n == 0 {
				break
			}
		}
	}
	o.at[key] = openedRecord{version, value}
}

// Forget drops the decoded records that are remembered. A node calls it when it is sealed.
func (d *DB) Forget() {
	d.opened.mu.Lock()
	defer d.opened.mu.Unlock()
	d.opened.at = nil
}

// getDecoded is Get and decode, remembered by version. Only what was committed is remembered.
func getDecoded[T any](r Reader, ref Ref, key []byte, decode func([]byte) (T, error)) (T, error) {
	var none T
	t, ok := r.(*txn)
	if !ok {
		return none, Errorf(Internal, "foreign_reader", "a transaction of another store was used")
	}
	s, err := t.space(ref)
	if err != nil {
		return none, err
	}
	if t.own(s, key) != nil {
		b, err := t.Get(ref, key)
		if err != nil {
			return none, err
		}
		return decode(b)
	}
	sealed, version, found, err := t.snap.Get(t.by.tenant, s, key)
	if err != nil {
		return none, err
	}
	if t.entry != nil {
		t.entry.Points = append(t.entry.Points, entry.Point{Space: s, Key: bytes.Clone(key), Version: version})
	}
	if !found {
		return none, ErrNotFound
	}
	// The scope's keys must be there, whether or not they are needed now.
	if _, err := t.sealer(s.Project); err != nil {
		return none, err
	}
	at := string(t.by.tenant[:]) + pendingKey(s, key)
	if v, ok := t.db.opened.get(at, version); ok {
		return v.(T), nil
	}
	b, err := t.open(s, key, sealed)
	if err != nil {
		return none, err
	}
	v, err := decode(b)
	if err == nil {
		t.db.opened.put(at, version, v)
	}
	return v, err
}
