package storage

import (
	"bytes"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// records encodes the subsystems' own records: deterministic CBOR (RFC 8949, section 4.2.1), so that the same record is
// the same bytes, and a decoder with limits.
var records = func() struct {
	enc cbor.EncMode
	dec cbor.DecMode
} {
	e := cbor.CoreDetEncOptions()
	e.Time, e.TimeTag = cbor.TimeRFC3339Nano, cbor.EncTagNone
	enc, err := e.EncMode()
	if err != nil {
		panic("internal error: " + err.Error())
	}
	dec, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 64}.DecMode()
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return struct {
		enc cbor.EncMode
		dec cbor.DecMode
	}{enc, dec}
}()

// A Table is a typed table of one subsystem's records, declared once. Its values are sealed, and its look-up keys are
// blind: HMAC-SHA-256 under a key of their scope, so that no e-mail address or name is in any file.
//
// Records are stored under their id in the table's name; look-up keys in name + "#ix".
type Table[T any] struct {
	records, index Ref
	name           string
	cached         bool
	unique         []uniqueKey[T]
	lookup         []lookupKey[T]
}

type uniqueKey[T any] struct {
	name string
	of   func(*T) []byte
}

type lookupKey[T any] struct {
	name string
	of   func(*T) [][]byte
}

// A TableOption declares a key of a table.
type TableOption[T any] func(*Table[T])

// Unique declares a key by which at most one record is found. of returns nil for a record that has none.
func Unique[T any](name string, of func(*T) []byte) TableOption[T] {
	return func(t *Table[T]) { t.unique = append(t.unique, uniqueKey[T]{name, of}) }
}

// Lookup declares keys by which any number of records are found.
func Lookup[T any](name string, of func(*T) [][]byte) TableOption[T] {
	return func(t *Table[T]) { t.lookup = append(t.lookup, lookupKey[T]{name, of}) }
}

// Cached declares that decoded records are remembered in memory, for tables that are read on every request. Who gets a
// record must not change what its slices and maps hold.
func Cached[T any]() TableOption[T] {
	return func(t *Table[T]) { t.cached = true }
}

// NewTable declares a table. name is Bulwark's own word.
func NewTable[T any](name string, scope Scope, options ...TableOption[T]) *Table[T] {
	t := &Table[T]{name: name, records: Ref{name, scope}, index: Ref{name + "#ix", scope}}
	for _, o := range options {
		o(t)
	}
	return t
}

// The first byte of a key in the index says what it is.
const (
	uniqueTag = 'u' // + blind key; the value is the record's id
	lookupTag = 'l' // + blind key + the record's id; no value
)

// Get returns the record with an id, or ErrNotFound.
func (t *Table[T]) Get(r Reader, id ID) (T, error) {
	if t.cached {
		return getDecoded(r, t.records, id[:], t.decode)
	}
	b, err := r.Get(t.records, id[:])
	if err != nil {
		var none T
		return none, err
	}
	return t.decode(b)
}

func (t *Table[T]) decode(b []byte) (v T, err error) {
	if err := records.dec.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("decoding a record of table %s: %w", t.name, err)
	}
	return v, nil
}

// holder returns the id under a unique key.
func (t *Table[T]) holder(r Reader, key []byte) (ID, error) {
	decode := func(b []byte) (ID, error) {
		if len(b) != len(ID{}) {
			return ID{}, fmt.Errorf("a look-up key of table %s is damaged", t.name)
		}
		return ID(b), nil
	}
	if t.cached {
		return getDecoded(r, t.index, key, decode)
	}
	b, err := r.Get(t.index, key)
	if err != nil {
		return ID{}, err
	}
	return decode(b)
}

// Put writes the record with an id, new or not, and its keys. A unique value that another record has is an *Error of
// kind Exists whose Field is the key's name.
func (t *Table[T]) Put(tx Tx, id ID, v T) error {
	old, err := t.Get(tx, id)
	existed := err == nil
	if err != nil && !IsNotFound(err) {
		return err
	}
	if err := t.putUnique(tx, id, &v, &old, existed); err != nil {
		return err
	}
	if err := t.putLookup(tx, id, &v, &old, existed); err != nil {
		return err
	}
	b, err := records.enc.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding a record of table %s: %w", t.name, err)
	}
	return tx.Put(t.records, id[:], b)
}

func (t *Table[T]) putUnique(tx Tx, id ID, v, old *T, existed bool) error {
	for _, k := range t.unique {
		var was []byte
		now := k.of(v)
		if existed {
			was = k.of(old)
		}
		if existed && now != nil && bytes.Equal(now, was) {
			continue
		}
		if now != nil {
			key, err := t.uniqueKey(tx, k.name, now)
			if err != nil {
				return err
			}
			holder, err := tx.Get(t.index, key)
			if err == nil && !bytes.Equal(holder, id[:]) {
				return &Error{Fault: Exists, Code: "exists", Field: k.name, Message: fmt.Sprintf("another %s has this %s", t.name, k.name)}
			}
			if err != nil && !IsNotFound(err) {
				return err
			}
			if err := tx.Put(t.index, key, id[:]); err != nil {
				return err
			}
		}
		if was != nil {
			if err := t.dropUnique(tx, k.name, was); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *Table[T]) putLookup(tx Tx, id ID, v, old *T, existed bool) error {
	for _, k := range t.lookup {
		var was [][]byte
		now := k.of(v)
		if existed {
			was = k.of(old)
		}
		for _, value := range now {
			if contains(was, value) {
				continue
			}
			key, err := t.lookupKey(tx, k.name, value, id)
			if err != nil {
				return err
			}
			if err := tx.Put(t.index, key, nil); err != nil {
				return err
			}
		}
		for _, value := range was {
			if contains(now, value) {
				continue
			}
			if err := t.dropLookup(tx, k.name, value, id); err != nil {
				return err
			}
		}
	}
	return nil
}

func contains(values [][]byte, v []byte) bool {
	for _, w := range values {
		if bytes.Equal(w, v) {
			return true
		}
	}
	return false
}

// Delete removes the record and its keys. An absent record is ErrNotFound.
func (t *Table[T]) Delete(tx Tx, id ID) error {
	old, err := t.Get(tx, id)
	if err != nil {
		return err
	}
	for _, k := range t.unique {
		if was := k.of(&old); was != nil {
			if err := t.dropUnique(tx, k.name, was); err != nil {
				return err
			}
		}
	}
	for _, k := range t.lookup {
		for _, was := range k.of(&old) {
			if err := t.dropLookup(tx, k.name, was, id); err != nil {
				return err
			}
		}
	}
	return tx.Delete(t.records, id[:])
}

func (t *Table[T]) dropUnique(tx Tx, name string, value []byte) error {
	key, err := t.uniqueKey(tx, name, value)
	if err != nil {
		return err
	}
	return tx.Delete(t.index, key)
}

func (t *Table[T]) dropLookup(tx Tx, name string, value []byte, id ID) error {
	key, err := t.lookupKey(tx, name, value, id)
	if err != nil {
		return err
	}
	return tx.Delete(t.index, key)
}

// ByUnique returns the record whose unique key has value, or ErrNotFound.
func (t *Table[T]) ByUnique(r Reader, name string, value []byte) (ID, T, error) {
	var none T
	i := t.uniqueNamed(name)
	key, err := t.uniqueKey(r, name, value)
	if err != nil {
		return ID{}, none, err
	}
	id, err := t.holder(r, key)
	if err != nil {
		return ID{}, none, err
	}
	v, err := t.Get(r, id)
	if err != nil {
		return ID{}, none, err
	}
	// The blind key is cut to 16 bytes: what it found must still be what was asked for.
	if !bytes.Equal(t.unique[i].of(&v), value) {
		return ID{}, none, ErrNotFound
	}
	return id, v, nil
}

// ByLookup calls fn with each record that has value under the look-up key, in order of id, until fn returns false.
func (t *Table[T]) ByLookup(r Reader, name string, value []byte, fn func(ID, T) bool) error {
	of := t.lookupNamed(name)
	prefix, err := t.lookupKey(r, name, value, ID{})
	if err != nil {
		return err
	}
	prefix = prefix[:len(prefix)-len(ID{})]
	var ids []ID
	err = r.Scan(t.index, KeyRange{From: prefix, To: after(prefix)}, func(key, _ []byte) bool {
		ids = append(ids, ID(key[len(prefix):]))
		return true
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		v, err := t.Get(r, id)
		if err != nil {
			return err
		}
		if contains(of(&v), value) && !fn(id, v) {
			return nil
		}
	}
	return nil
}

// All calls fn with each record whose id is above the given one, in order of id, until fn returns false.
func (t *Table[T]) All(r Reader, above ID, fn func(ID, T) bool) error {
	var failed error
	err := r.Scan(t.records, KeyRange{From: append(above[:len(above):len(above)], 0)}, func(key, value []byte) bool {
		var v T
		if v, failed = t.decode(value); failed != nil {
			return false
		}
		return fn(ID(key), v)
	})
	if failed != nil {
		return failed
	}
	return err
}

func (t *Table[T]) uniqueNamed(name string) int {
	for i := range t.unique {
		if t.unique[i].name == name {
			return i
		}
	}
	panic("internal error: table " + t.name + " has no unique key " + name)
}

func (t *Table[T]) lookupNamed(name string) func(*T) [][]byte {
	for i := range t.lookup {
		if t.lookup[i].name == name {
			return t.lookup[i].of
		}
	}
	panic("internal error: table " + t.name + " has no look-up key " + name)
}

func (t *Table[T]) uniqueKey(r Reader, name string, value []byte) ([]byte, error) {
	b, err := r.Blind(t.index, name, value)
	return append([]byte{uniqueTag}, b...), err
}

func (t *Table[T]) lookupKey(r Reader, name string, value []byte, id ID) ([]byte, error) {
	b, err := r.Blind(t.index, name, value)
	return append(append([]byte{lookupTag}, b...), id[:]...), err
}

// after returns the first key that does not have the prefix.
func after(prefix []byte) []byte {
	to := bytes.Clone(prefix)
	for i := len(to) - 1; i >= 0; i-- {
		to[i]++
		if to[i] != 0 {
			return to[:i+1]
		}
	}
	return nil
}
