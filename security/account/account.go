// Package account keeps the accounts of a tenant: the people, their passwords and what is known of them.
//
// Promise: an address names at most one account of a tenant. A password is kept only as a bcrypt hash under a key of the
// tenant, is compared exactly as it was typed, and costs the same to try whether or not the account exists.
package account

import (
	"bytes"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"bulwark/storage"
)

// An Account is one person of a tenant. It lives under its id in the tenant, and is changed only through this package.
type Account struct {
	ID         storage.ID     `cbor:"-"`
	Email      string         `cbor:"e"` // normal form
	Hash       []byte         `cbor:"h,omitempty"`
	Role       string         `cbor:"r"`
	Projects   []storage.ID   `cbor:"p"` // assigned
	Metadata   jsontext.Value `cbor:"m"` // user_metadata: a JSON object that the person writes
	Created    time.Time      `cbor:"c"`
	Updated    time.Time      `cbor:"u"`
	Confirmed  time.Time      `cbor:"f,omitzero"` // zero: the address is not confirmed
	LastSignIn time.Time      `cbor:"l,omitzero"`
}

var accounts = storage.NewTable[Account]("account", storage.TenantScope,
	storage.Unique("email", func(a *Account) []byte {
		if a.Email == "" {
			return nil
		}
		return []byte(a.Email)
	}),
	storage.Lookup("project", func(a *Account) [][]byte {
		keys := make([][]byte, len(a.Projects))
		for i := range a.Projects {
			keys[i] = a.Projects[i][:]
		}
		return keys
	}))

// ErrExists is returned for an address that an account of the tenant has.
var ErrExists error = storage.Errorf(storage.Exists, "user_already_exists", "User already registered")

// Get returns the account with an id, or storage.ErrNotFound.
func Get(r storage.Reader, id storage.ID) (Account, error) {
	a, err := accounts.Get(r, id)
	a.ID = id
	return a, err
}

// ByEmail returns the account that has an address, in its normal form, or storage.ErrNotFound.
func ByEmail(r storage.Reader, email string) (Account, error) {
	id, a, err := accounts.ByUnique(r, "email", []byte(email))
	a.ID = id
	return a, err
}

// A New account is what signing up brings.
type New struct {
	Email     string // normal form
	Hash      []byte // of the password; empty for none
	Role      string
	Metadata  jsontext.Value // nil for none
	Confirmed bool
}

// Create makes an account that is assigned to the actor's project.
func Create(tx storage.Tx, n New) (Account, error) {
	now := tx.Now().UTC()
	a := Account{ID: tx.NewID(), Email: n.Email, Hash: n.Hash, Role: n.Role, Created: now, Updated: now}
	if n.Confirmed {
		a.Confirmed = now
	}
	if p := tx.By().Project(); !p.IsZero() {
		a.Projects = []storage.ID{p}
	}
	var err error
	if a.Metadata, err = MergeMetadata(nil, n.Metadata); err != nil {
		return Account{}, err
	}
	err = Put(tx, a)
	if storage.FaultOf(err) == storage.Exists {
		return Account{}, ErrExists
	}
	return a, err
}

// Put writes an account.
func Put(tx storage.Tx, a Account) error { return accounts.Put(tx, a.ID, a) }

// Assigned reports whether the account may sign in to a project.
func (a *Account) Assigned(project storage.ID) bool { return slices.Contains(a.Projects, project) }

// maxMetadata bounds user_metadata, in bytes of JSON: it is part of every access token, and so of every request's header.
const maxMetadata = 8 << 10

// MergeMetadata returns metadata with the members of change, a JSON object: a member that is null is removed, every other one
// replaces the member of its name as a whole. A nil change changes nothing.
func MergeMetadata(metadata, change jsontext.Value) (jsontext.Value, error) {
	members := map[string]jsontext.Value{}
	if len(metadata) > 0 {
		if err := json.Unmarshal(metadata, &members); err != nil {
			return nil, err
		}
	}
	if change != nil && change.Kind() != 'n' {
		var set map[string]jsontext.Value
		if err := json.Unmarshal(change, &set); err != nil {
			return nil, &storage.Error{Fault: storage.BadInput, Code: "validation_failed", Field: "data", Message: "data must be a JSON object"}
		}
		for name, value := range set {
			if value.Kind() == 'n' {
				delete(members, name)
				continue
			}
			members[name] = value
		}
	}
	merged, err := json.Marshal(members, json.Deterministic(true))
	if err != nil {
		return nil, err
	}
	if len(merged) > maxMetadata {
		return nil, &storage.Error{Fault: storage.TooLarge, Code: "validation_failed", Field: "data",
			Message: "data may hold 8 KiB of JSON: keep what is larger in a table"}
	}
	return bytes.Clone(merged), nil
}
