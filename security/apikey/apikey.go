// Package apikey keeps the API keys of projects, and the tokens of the cluster's operators.
//
// Promise: a key is shown once, when it is made, and is stored only as a hash. It is looked up in the live records each
// time that it is presented, so a revoked key stops with the entry that revoked it, on every node.
package apikey

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io"
	"time"
	"unicode/utf8"

	"bulwark/storage"
)

// A record is one value that a key has or had. The newest lives under the key's own id. After a rotation with overlap
// the value before it lives on in a record of its own, which says Of which key it is and Until when it is valid: so finding
// a presented value is one point read.
//
// Hash is the plain SHA-256 of a value with 131 random bits: nothing that could be guessed. It is sealed as every record
// is, and its look-up key is an HMAC of it.
type record struct {
	Kind    Kind       `cbor:"k"`
	Name    string     `cbor:"n"`
	Hint    string     `cbor:"h"`
	Hash    []byte     `cbor:"s"`
	Created time.Time  `cbor:"c"`
	Rotated time.Time  `cbor:"r,omitzero"`
	Revoked time.Time  `cbor:"x,omitzero"`
	Of      storage.ID `cbor:"o,omitzero"`
	Until   time.Time  `cbor:"u,omitzero"`
}

func byHash(r *record) []byte { return r.Hash }

func byOf(r *record) [][]byte {
	if r.Of.IsZero() {
		return nil
	}
	return [][]byte{r.Of[:]}
}

// Keys of a project are sealed under the project's keys and end with them.
var (
	keys      = storage.NewTable("apikey", storage.ProjectScope, storage.Unique("hash", byHash), storage.Lookup("of", byOf), storage.Cached[record]())
	operators = storage.NewTable[record]("operatortoken", storage.TenantScope, storage.Unique("hash", byHash), storage.Lookup("of", byOf))
)

// A Key is what may be told of a key after it was made.
type Key struct {
	ID      storage.ID `json:"id"`
	Kind    Kind       `json:"kind"`
	Name    string     `json:"name"`
	Hint    string     `json:"hint" doc:"The first characters, to recognise the key by."`
	Created time.Time  `json:"created_at"`
	Rotated *time.Time `json:"rotated_at,omitempty"`
	Revoked *time.Time `json:"revoked_at,omitempty"`
}

func (r *record) key(id storage.ID) Key {
	k := Key{ID: id, Kind: r.Kind, Name: r.Name, Hint: r.Hint, Created: r.Created}
	if !r.Rotated.IsZero() {
		k.Rotated = &r.Rotated
	}
	if !r.Revoked.IsZero() {
		k.Revoked = &r.Revoked
	}
	return k
}

// Keys creates, lists, rotates, revokes and recognises keys.
type Keys struct {
	store  storage.Store
	random io.Reader
}

// New returns the keys that store holds. random must be safe for concurrent use.
func New(store storage.Store, random io.Reader) (*Keys, error) {
	if store == nil || random == nil {
		return nil, errors.New("API keys need a store and a random source")
	}
	return &Keys{store: store, random: random}, nil
}

// maxOverlap bounds how long the old value of a rotated key may stay valid.
const maxOverlap = 30 * 24 * time.Hour

var errNoKey = storage.Errorf(storage.NotFound, "apikey_not_found", "there is no such key: list the keys to see which exist")

// tableOf is where the keys are that by may speak of: those of its project, or the cluster's operator tokens.
func tableOf(by storage.Actor) (*storage.Table[record], error) {
	switch {
	case !by.Project().IsZero():
		return keys, nil
	case by.Tenant() == storage.System:
		return operators, nil
	}
	return nil, storage.Errorf(storage.BadInput, "no_project", "keys belong to a project: say which one")
}

// Create makes a key and returns it with its value, which is never shown again. An actor in a project makes publishable and
// secret keys; the operator in the system tenant makes operator tokens.
func (k *Keys) Create(ctx context.Context, by storage.Actor, kind Kind, name string) (Key, string, error) {
	t, err := tableOf(by)
	if err != nil {
		return Key{}, "", err
	}
	if ok := kind == Operator && t == operators || (kind == Publishable || kind == Secret) && t == keys; !ok {
		return Key{}, "", &storage.Error{Fault: storage.BadInput, Code: "invalid_kind", Field: "kind",
			Message: `a key of a project is of the kind "publishable" or "secret"; a key of the cluster of the kind "operator"`}
	}
	if n := utf8.RuneCountInString(name); n == 0 || n > 100 || !utf8.ValidString(name) {
		return Key{}, "", &storage.Error{Fault: storage.BadInput, Code: "invalid_name", Field: "name",
			Message: "give the key a name of 1 to 100 characters"}
	}
	body, err := newBody(k.random)
	if err != nil {
		return Key{}, "", err
	}
	value := format(kind, body)
	var made Key
	err = k.store.Update(ctx, by, storage.Intent{Action: "apikey.create", Object: name}, func(tx storage.Tx) error {
		id := tx.NewID()
		rec := record{Kind: kind, Name: name, Hint: hint(value), Hash: hash(value), Created: tx.Now().UTC()}
		made = rec.key(id)
		tx.Note("apikey", id.String())
		tx.Note("kind", string(kind))
		return t.Put(tx, id, rec)
	})
	if err != nil {
		return Key{}, "", err
	}
	return made, value, nil
}

func hash(value string) []byte {
	sum := sha256.Sum256([]byte(value))
	return sum[:]
}

// hint is what a list shows: sb_secret_AbCd….
func hint(value string) string {
	return value[:len(value)-1-checksumLength-randomLength+hintLength] + "…"
}

// List returns the keys of the actor's project, or the operator tokens, oldest first, revoked ones included.
func (k *Keys) List(ctx context.Context, by storage.Actor) ([]Key, error) {
	t, err := tableOf(by)
	if err != nil {
		return nil, err
	}
	list := []Key{}
	err = k.store.View(ctx, by, storage.Intent{Action: "apikey.list"}, func(r storage.Reader) error {
		return t.All(r, storage.ID{}, func(id storage.ID, rec record) bool {
			if rec.Of.IsZero() {
				list = append(list, rec.key(id))
			}
			return true
		})
	})
	return list, err
}

// Rotate gives a key a new value. The old one is valid for overlap longer: not at all, where that is zero.
func (k *Keys) Rotate(ctx context.Context, by storage.Actor, id storage.ID, overlap time.Duration) (Key, string, error) {
	t, err := tableOf(by)
	if err != nil {
		return Key{}, "", err
	}
	if overlap < 0 || overlap > maxOverlap {
		return Key{}, "", &storage.Error{Fault: storage.BadInput, Code: "invalid_overlap", Field: "overlap",
			Message: "the old value may stay valid for 0 to 2592000 seconds (30 days)"}
	}
	body, err := newBody(k.random)
	if err != nil {
		return Key{}, "", err
	}
	var value string
	var changed Key
	err = k.store.Update(ctx, by, storage.Intent{Action: "apikey.rotate", Object: id.String()}, func(tx storage.Tx) error {
		rec, err := current(tx, t, id)
		if err != nil {
			return err
		}
		// A second rotation ends the value before the last one: at most two are valid.
		if err := dropOld(tx, t, id); err != nil {
			return err
		}
		old := rec
		value = format(rec.Kind, body)
		rec.Hash, rec.Hint, rec.Rotated = hash(value), hint(value), tx.Now().UTC()
		changed = rec.key(id)
		tx.Note("overlap_seconds", int64(overlap/time.Second))
		if err := t.Put(tx, id, rec); err != nil {
			return err
		}
		if overlap == 0 {
			return nil
		}
		old.Of, old.Until = id, tx.Now().Add(overlap).UTC()
		return t.Put(tx, tx.NewID(), old)
	})
	if err != nil {
		return Key{}, "", err
	}
	return changed, value, nil
}

// Revoke ends a key, and its old value if one is still valid. Revoking a key that is revoked is NotFound.
func (k *Keys) Revoke(ctx context.Context, by storage.Actor, id storage.ID) error {
	t, err := tableOf(by)
	if err != nil {
		return err
	}
	return k.store.Update(ctx, by, storage.Intent{Action: "apikey.revoke", Object: id.String()}, func(tx storage.Tx) error {
		rec, err := current(tx, t, id)
		if err != nil {
			return err
		}
		if err := dropOld(tx, t, id); err != nil {
			return err
		}
		rec.Revoked = tx.Now().UTC()
		tx.Note("name", rec.Name)
		return t.Put(tx, id, rec)
	})
}

// current returns the record of a key that is not revoked.
func current(r storage.Reader, t *storage.Table[record], id storage.ID) (record, error) {
	rec, err := t.Get(r, id)
	if storage.IsNotFound(err) || err == nil && (!rec.Of.IsZero() || !rec.Revoked.IsZero()) {
		return record{}, errNoKey
	}
	return rec, err
}

// dropOld removes the values that a key had before.
func dropOld(tx storage.Tx, t *storage.Table[record], id storage.ID) error {
	var old []storage.ID
	err := t.ByLookup(tx, "of", id[:], func(o storage.ID, _ record) bool {
		old = append(old, o)
		return true
	})
	if err != nil {
		return err
	}
	for _, o := range old {
		if err := t.Delete(tx, o); err != nil {
			return err
		}
	}
	return nil
}

// ErrInvalid is the one answer to every key that is not valid, so that nothing is told about which ones exist.
var ErrInvalid error = &storage.Error{Fault: storage.Unauthenticated, Code: "invalid_api_key", Message: "Invalid API key",
	Hint: "Double check your Supabase `anon` or `service_role` API key."}

// Resolve says what a presented key is in the reader's project: storage.Anonymous for a publishable key, storage.Service
// for a secret one, with the key's id. It reads the live record each time, in the caller's own snapshot. Any key that is
// not valid there, and a project that is gone, is ErrInvalid.
func (k *Keys) Resolve(r storage.Reader, presented string) (storage.Kind, storage.ID, error) {
	kind, ok := parse(presented)
	if !ok || kind == Operator {
		return storage.Nobody, storage.ID{}, ErrInvalid
	}
	id, _, err := resolve(r, keys, kind, presented)
	switch {
	case err != nil:
		return storage.Nobody, storage.ID{}, err
	case kind == Secret:
		return storage.Service, id, nil
	}
	return storage.Anonymous, id, nil
}

// Alive returns ErrInvalid for a key of the reader's project that was revoked since it was resolved.
func (k *Keys) Alive(r storage.Reader, id storage.ID) error {
	_, err := current(r, keys, id)
	if storage.IsNotFound(err) {
		return ErrInvalid
	}
	return err
}

// Operator recognises an operator token, and returns its id and name.
func (k *Keys) Operator(ctx context.Context, presented string) (id storage.ID, name string, err error) {
	kind, ok := parse(presented)
	if !ok || kind != Operator {
		return storage.ID{}, "", ErrInvalid
	}
	by := storage.JobActor(storage.System, storage.ID{}, "credentials")
	var refusal error
	err = k.store.View(ctx, by, storage.Intent{Action: "credential.resolve"}, func(r storage.Reader) error {
		id, name, refusal = resolve(r, operators, kind, presented)
		return unlessRefused(refusal)
	})
	if err != nil {
		return storage.ID{}, "", err
	}
	return id, name, refusal
}

// unlessRefused keeps a refused credential out of the audit log: nobody was proven, and a flood of guesses must not
// become a flood of entries.
func unlessRefused(err error) error {
	if storage.FaultOf(err) == storage.Unauthenticated {
		return nil
	}
	return err
}

func resolve(r storage.Reader, t *storage.Table[record], kind Kind, presented string) (storage.ID, string, error) {
	sum := hash(presented)
	id, rec, err := t.ByUnique(r, "hash", sum)
	if storage.IsNotFound(err) {
		return storage.ID{}, "", ErrInvalid
	}
	if err != nil {
		return storage.ID{}, "", err
	}
	if subtle.ConstantTimeCompare(rec.Hash, sum) != 1 || rec.Kind != kind || !rec.Revoked.IsZero() {
		return storage.ID{}, "", ErrInvalid
	}
	if rec.Of.IsZero() {
		return id, rec.Name, nil
	}
	if !r.Now().Before(rec.Until) {
		return storage.ID{}, "", ErrInvalid
	}
	return rec.Of, rec.Name, nil
}
