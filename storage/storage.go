// Package storage is the one door to a tenant's data: View and Update of a Store.
//
// Promise: a transaction belongs to one Actor, and so to one tenant; there is no call that reaches another's. What it
// writes, the messages it emits and the audit event that says so are one entry of the log: all of them exist, or none.
// What leaves this package for an Engine is sealed. No Store exists without its guards: Access, Keys and Audit.
package storage

import (
	"context"
	"time"

	"bulwark/storage/entry"
)

// ID is a UUID; see entry.ID.
type ID = entry.ID

// System is the tenant of the cluster's own records.
var System = entry.System

// ParseID reads a UUID in its canonical form.
func ParseID(s string) (ID, error) { return entry.ParseID(s) }

// A Store runs transactions.
type Store interface {
	// View runs fn on a consistent snapshot that is no older than the call. A refusal of the intent is audited.
	View(ctx context.Context, by Actor, to Intent, fn func(Reader) error) error

	// Update runs fn, then commits what it wrote, emitted and noted as one entry. fn runs again when another entry changed
	// what it read, so it must have no side effects. If fn returns an error nothing is written, except that an error of
	// kind Denied or Unauthenticated is recorded in the audit log as the intent's refusal.
	Update(ctx context.Context, by Actor, to Intent, fn func(Tx) error) error
}

// A Scope says whether a table belongs to the tenant or to each project.
type Scope uint8

// The scopes.
const (
	TenantScope Scope = iota
	ProjectScope
)

// A Ref names a table in the transaction's tenant, and in the actor's project where the scope says so. Name is stored in
// clear: it is Bulwark's word, or a random name, never what somebody typed.
type Ref struct {
	Name  string
	Scope Scope
}

// A KeyRange is [From, To). A nil To is the end. Reverse starts at its end.
type KeyRange struct {
	From, To []byte
	Reverse  bool
}

// A Reader reads one tenant's tables as they were at one moment. It is used by one goroutine, inside fn only.
type Reader interface {
	By() Actor
	Now() time.Time   // fixed when the transaction began
	Revision() uint64 // of the snapshot

	// Get returns the opened value of key, or ErrNotFound. The bytes are the caller's.
	Get(t Ref, key []byte) ([]byte, error)

	// Scan calls fn with each key of the range and its opened value, in order, until fn returns false. key is valid during
	// the call only. The range as far as it was read is a precondition of an Update.
	Scan(t Ref, r KeyRange, fn func(key, value []byte) bool) error

	// Blind returns the look-up key (16 bytes) of a value under the scope's index key. label separates uses.
	Blind(t Ref, label string, value []byte) ([]byte, error)
}

// A Tx is a Reader that also writes. It sees its own writes.
type Tx interface {
	Reader

	// Put seals value and sets key to it. A nil value is stored as an empty one, unsealed, for look-up keys.
	Put(t Ref, key, value []byte) error
	Delete(t Ref, key []byte) error

	// NewID returns a UUIDv7 of the transaction's time.
	NewID() ID
	// NewRow returns a row id that grows, and that no transaction of this node was given since it started. Another node may
	// give the same one, and a clock that was set back an old one: Get its key before you Put it. That it is absent is then
	// a precondition, as of anything that was read.
	NewRow() uint64

	// Note adds a field to the audit event. The event is sealed, so a note may hold a name; never a secret.
	Note(field string, value any)

	// Emit puts a message in the tenant's outbox: delivered at least once, after the commit.
	Emit(topic string, payload []byte) error

	// ChangeKeys creates, rotates or destroys the keys of a scope in the same entry. Values put into a scope that the
	// transaction created are sealed under its new key.
	ChangeKeys(op KeyOp, tenant, project ID) error
}

// A Place is where a sealed value lives. It is bound to the value as associated data, so that a value cannot be moved.
type Place struct {
	Tenant, Project ID
	Table           string
	Key             []byte
}

// A Sealer holds one scope's working keys: those of one project, or of the tenant itself.
type Sealer interface {
	// Seal appends the sealed form of plain to dst, under the current key version.
	Seal(dst, plain []byte, at Place) []byte
	// Open appends the plaintext of sealed to dst. It fails when one bit of the value or its place differs.
	Open(dst, sealed []byte, at Place) ([]byte, error)
	// Blind returns HMAC-SHA-256 under the scope's index key, cut to 16 bytes. It does not change when a key is rotated.
	Blind(table, label string, value []byte) []byte
	// Current reports whether sealed is under the current key version.
	Current(sealed []byte) bool
}

// A KeyOp is a change of a scope's keys.
type KeyOp uint8

// The changes. DropOldKeys removes every version but the current one.
const (
	CreateKeys KeyOp = iota + 1
	RotateKeys
	DestroyKeys
	DropOldKeys
)

// Keys finds the Sealer of a scope from the wrapped keys in a snapshot, and makes changes to them. It is what package keys
// provides. A scope that has no keys is NotFound; a sealed node is Unavailable.
type Keys interface {
	Sealer(s Snapshot, tenant, project ID) (Sealer, error)
	// Change returns the entry's part of op, and the Sealer that holds afterwards (nil after DestroyKeys). It changes
	// nothing by itself.
	Change(s Snapshot, op KeyOp, tenant, project ID) ([]entry.KeyChange, Sealer, error)
}

// Access decides. It returns nil, or an *Error of kind Denied. r reads as the actor whose intent is decided; reads that
// the decision rests on become preconditions of an Update.
type Access interface {
	Decide(r Reader, by Actor, to Intent) error
}

// An Event is what the audit log says about one intent.
type Event struct {
	ID      ID
	Time    time.Time
	Tenant  ID
	Project ID
	By      Actor
	To      Intent
	Outcome string // "ok", "denied"
	Reason  string // the error's code, where denied
	Notes   []Note
}

// A Note is one further field of an Event.
type Note struct {
	Field string
	Value any
}

// AuditTable is the table named in the Place of a sealed event; its key is the leaf's hash.
const AuditTable = "audit"

// Audit makes the leaf of an event: canonical JSON with a salt, its hash, and the whole sealed with the tenant's key at
// Place{Tenant, Table: AuditTable, Key: hash}. Open undoes it and checks that the event has the leaf's hash.
type Audit interface {
	Leaf(s Sealer, e *Event) (entry.Leaf, error)
	Open(s Sealer, tenant ID, leaf entry.Leaf) (event []byte, err error)
}

// A History reads the audit log of the actor's tenant.
type History interface {
	// Events opens the events from position first on, as canonical JSON with the salt inside, until fn returns false.
	Events(ctx context.Context, by Actor, to Intent, first uint64, fn func(position uint64, hash [32]byte, event []byte) bool) error
	// Tree returns the size of the tenant's tree and its right edge (see Snapshot).
	Tree(ctx context.Context, by Actor, to Intent) (size uint64, edge [][32]byte, err error)
}

// An Engine orders entries, keeps the state they make, and shows it. It holds no key. Package cluster has the real one,
// storagetest one in memory.
type Engine interface {
	// Propose hands e to the log and returns when this node's state has it. An error means that e was not applied, or,
	// when it is an InDoubt, that nobody knows yet: proposing the same entry again is safe and settles it.
	Propose(ctx context.Context, e *entry.Entry) (entry.Outcome, error)
	// Snapshot returns a state that holds every entry that was acknowledged, anywhere, before the call.
	Snapshot(ctx context.Context) (Snapshot, error)
	// Local returns this node's state as it is, for Followers and for a node that has lost its leader.
	Local() (Snapshot, error)
	// Changed returns a channel that is closed when the local state's revision is above rev.
	Changed(rev uint64) <-chan struct{}
}

// A Snapshot is the state at one revision. It is safe for one goroutine and must be released.
type Snapshot interface {
	Revision() uint64
	// Get returns the sealed value and its version. The bytes are valid until Release.
	Get(tenant ID, s entry.Space, key []byte) (value []byte, version uint64, ok bool, err error)
	// Scan visits [from, to) in order, or backwards; a nil to is the end. Bytes are valid until Release.
	Scan(tenant ID, s entry.Space, from, to []byte, reverse bool, fn func(key, value []byte, version uint64) bool) error
	// Wrapped returns the wrapped keys of a scope by version, and the revision at which they last changed (0 and an empty
	// map when there are none). It is cheap: it is asked for on every transaction.
	Wrapped(tenant, project ID) (map[uint32][]byte, uint64, error)
	// Tree returns the number of leaves in the tenant's audit tree and the hashes of its right edge: one for each set bit
	// of the number, largest subtree first.
	Tree(tenant ID) (size uint64, edge [][32]byte, err error)
	// Leaves visits the audit leaves from position first on, until fn returns false.
	Leaves(tenant ID, first uint64, fn func(position uint64, leaf entry.Leaf) bool) error
	// Tenants lists the tenants that have wrapped keys, in order of id; Projects a tenant's projects that have; Spaces the
	// tables of a scope that hold a key.
	Tenants() ([]ID, error)
	Projects(tenant ID) ([]ID, error)
	Spaces(tenant, project ID) ([]string, error)
	Release()
}

// An InDoubt error says that an entry may or may not have been applied.
type InDoubt struct{ Cause error }

func (e *InDoubt) Error() string { return "the outcome is not known yet: " + e.Cause.Error() }

// Unwrap returns the cause.
func (e *InDoubt) Unwrap() error { return e.Cause }

// A Follower is derived from the log: it has a name and a position, and can be rebuilt from nothing.
type Follower interface {
	Name() string
	// Follow brings the follower up to date with engine, again and again, until ctx ends.
	Follow(ctx context.Context, e Engine) error
	// Reached returns the revision up to which the follower has followed.
	Reached() uint64
}
