// Package entry is the one thing that Bulwark replicates: an Entry holds the preconditions, the sealed writes and the
// audit leaves of one transaction of one tenant, and is applied as a whole or not at all.
//
// Promise: an Entry says everything that applying it needs. Applying needs no key, no clock and no randomness, so every
// node that applies the same entries in the same order holds the same state, byte for byte. The encoding starts with a
// version; a node that reads a later version than it knows stops and says so.
package entry

// Format is the version of the encoding that this code writes.
const Format = 1

// A Space is one table's key space inside a tenant. The zero Project is the tenant itself.
// Table is a name that Bulwark chose, never one that somebody typed: it is stored in clear.
type Space struct {
	Project ID
	Table   string
}

// A Point is the precondition that a key's version is still what the transaction read. Version 0 means absent.
type Point struct {
	Space
	Key     []byte
	Version uint64
}

// A Range is the precondition that the keys in [From, To) are still those that the transaction read: there are Count of
// them, and none has a version above the Entry's Revision. A nil To means the end of the space.
type Range struct {
	Space
	From, To []byte
	Count    uint64
}

// A ScopePoint is the precondition that the wrapped keys of (Tenant, Project) are still those that the transaction
// sealed under: the revision at which they last changed, 0 for a scope without keys. So nothing is written into a scope
// that was destroyed, or under a key version that was dropped.
type ScopePoint struct {
	Tenant, Project ID
	Revision        uint64
}

// A Write sets Key to Value (already sealed), or deletes it.
type Write struct {
	Space
	Key    []byte
	Value  []byte
	Delete bool
}

// A Leaf is one audit event: the hash that goes into the tenant's Merkle tree, and the sealed event it was made from.
type Leaf struct {
	Hash   [32]byte
	Sealed []byte
}

// KeyKind says what a KeyChange does.
type KeyKind uint8

const (
	// PutKey stores a wrapped key under (Tenant, Project, Version).
	PutKey KeyKind = 1
	// DestroyScope removes every version of the keys of (Tenant, Project), and every row that they opened. With a zero
	// Project it removes the whole tenant: keys, rows, projects and audit log.
	DestroyScope KeyKind = 2
	// DropKey removes one version of a key, once nothing is sealed under it.
	DropKey KeyKind = 3
)

// A KeyChange changes the bucket of wrapped keys, which is apart from what the keys open. An entry of the system tenant
// may change any tenant's; an entry of another tenant only those of its own projects.
type KeyChange struct {
	Kind    KeyKind
	Tenant  ID
	Project ID
	Version uint32
	Wrapped []byte
}

// An Entry is one transaction. See the package comment.
type Entry struct {
	// ID is drawn once by whoever proposes. An entry that is proposed again with the same ID is applied once.
	ID ID
	// Tenant owns every Space, Leaf and Message in the entry.
	Tenant ID
	// Revision is the state that the transaction read.
	Revision uint64
	Points   []Point
	Ranges   []Range
	Scopes   []ScopePoint
	Writes   []Write
	Leaves   []Leaf
	Messages [][]byte
	Keys     []KeyChange
}

// Status is what became of an entry.
type Status uint8

const (
	// Applied: every write is in the state.
	Applied Status = 1
	// Conflict: a precondition no longer held; nothing was written.
	Conflict Status = 2
	// Invalid: the entry breaks a rule of its format (another tenant's key, a limit); nothing was written.
	Invalid Status = 3
)

// An Outcome answers a proposal. Revision is the state after the entry where it was applied, else the state that
// refused it.
type Outcome struct {
	Status   Status
	Revision uint64
}
