// Package keys holds the key hierarchy: the root key wraps tenants' keys, a tenant's key wraps its projects' keys, and
// HKDF-SHA-256 gives the working keys that seal values and blind look-up keys.
//
// Promise: what a Sealer returns opens only under the same key, at the same place, with not one bit changed. A value is
// never sealed twice under one nonce. The root key is on disk only under a Seal; a sealed Ring holds no key. An error
// never holds a key, a share, a passphrase or a value. DESIGN.md has the formats byte by byte.
package keys

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"io"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"bulwark/storage"
	"bulwark/storage/entry"
)

// RootLen is the length of the root key in bytes.
const RootLen = keyLen

func errSealed() error {
	return storage.Errorf(storage.Unavailable, "sealed",
		"this node is sealed and serves nothing: run `bulwark operator unseal`")
}

// A Ring finds and changes the keys of scopes. It is safe for concurrent use, and implements storage.Keys.
type Ring struct {
	rand  io.Reader
	mu    sync.Mutex // of Unseal, Seal and Derive
	state atomic.Pointer[unsealed]
}

var _ storage.Keys = (*Ring)(nil)

// NewRing returns a sealed Ring. rand must be cryptographically strong and safe for concurrent use, as crypto/rand.Reader
// is; a seal that cannot read from it panics, since going on would repeat a nonce.
func NewRing(rand io.Reader) *Ring { return &Ring{rand: rand} }

// An unsealed is all that a Ring knows while it is unsealed. It is dropped as a whole.
type unsealed struct {
	rand    io.Reader
	root    []byte // guarded by Ring.mu
	wrapper wrapper
	closed  atomic.Bool
	shards  [shards]shard
	derived derivedCache
	buffers sync.Pool // of *[]byte, for associated data
}

// shards is a power of two. Each holds a map that is copied to be changed, so that finding a scope takes no lock.
const shards = 128

type shard struct {
	mu     sync.Mutex
	scopes atomic.Pointer[map[scopeID]*scope]
}

type scopeID struct{ tenant, project storage.ID }

func (id scopeID) String() string {
	if id.project.IsZero() {
		return "the key of tenant " + id.tenant.String()
	}
	return "the key of project " + id.project.String()
}

func (id scopeID) notFound() error {
	if id.project.IsZero() {
		return storage.Errorf(storage.NotFound, "tenant_not_found", "tenant %s does not exist", id.tenant)
	}
	return storage.Errorf(storage.NotFound, "project_not_found", "project %s does not exist", id.project)
}

// A scope is the Sealer of one tenant or project, as its keys were at one revision.
type scope struct {
	keyring
	*blinder
	revision uint64
	wraps    map[uint32]*xaes // of a tenant: by version, what wraps its projects' keys
}

// Unseal gives the ring its root key, of which it keeps a copy. Doing so again with the same key changes nothing; with
// another it is refused.
func (r *Ring) Unseal(root []byte) error {
	if len(root) != RootLen || subtle.ConstantTimeCompare(root, make([]byte, RootLen)) == 1 {
		return storage.Errorf(storage.BadInput, "bad_root_key",
			"the root key must be 32 random bytes: give the key that `bulwark operator init` made")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if u := r.state.Load(); u != nil {
		if subtle.ConstantTimeCompare(u.root, root) != 1 {
			return storage.Errorf(storage.Exists, "already_unsealed",
				"this node is unsealed already, with another root key: run `bulwark operator seal` first")
		}
		return nil
	}
	key := expand(root, nil, labelWrap)
	defer clear(key)
	u := &unsealed{rand: r.rand, root: bytes.Clone(root), wrapper: wrapper{rootVersion, newXAES(key)}}
	u.buffers.New = func() any {
		b := make([]byte, 0, 256)
		return &b
	}
	r.state.Store(u)
	return nil
}

// Seal forgets every key. The root key is overwritten; expanded keys, which the standard library does not let us
// overwrite, are left to the garbage collector. A Sealer that somebody still holds refuses to open from now on.
func (r *Ring) Seal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if u := r.state.Swap(nil); u != nil {
		u.closed.Store(true)
		clear(u.root)
	}
}

// Sealed reports whether the ring holds no key.
func (r *Ring) Sealed() bool { return r.state.Load() == nil }

// HandOver calls fn with the root key, for one purpose: to give it, inside an authenticated connection, to a node that joins
// the cluster. fn must not keep the slice.
func (r *Ring) HandOver(fn func(root []byte)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.state.Load()
	if u == nil {
		return errSealed()
	}
	fn(u.root)
	return nil
}

// Derive returns n bytes of a node-level secret (1 to 8,160), the same for the same root key and label.
func (r *Ring) Derive(label string, n int) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.state.Load()
	if u == nil {
		return nil, errSealed()
	}
	if n < 1 || n > 255*sha256.Size {
		return nil, storage.Errorf(storage.Internal, "bad_length", "a derived secret has 1 to 8160 bytes, not %d", n)
	}
	return hkdf.Key(sha256.New, u.root, nil, labelPrefix+labelNode+label, n)
}

// Sealer finds the Sealer of a scope. See storage.Keys.
func (r *Ring) Sealer(s storage.Snapshot, tenant, project storage.ID) (storage.Sealer, error) {
	u := r.state.Load()
	if u == nil {
		return nil, errSealed()
	}
	c, err := u.scope(s, scopeID{tenant, project})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (u *unsealed) shard(id scopeID) *shard {
	return &u.shards[(id.tenant[15]^id.project[15])%shards]
}

func (u *unsealed) scope(s storage.Snapshot, id scopeID) (*scope, error) {
	wrapped, revision, err := s.Wrapped(id.tenant, id.project)
	if err != nil {
		return nil, err
	}
	var cached *scope
	if m := u.shard(id).scopes.Load(); m != nil {
		cached = (*m)[id]
	}
	if len(wrapped) == 0 {
		if cached != nil { // destroyed, perhaps through another node
			u.forget(id)
		}
		return nil, id.notFound()
	}
	if cached != nil && cached.revision == revision {
		return cached, nil
	}
	c, err := u.load(s, id, wrapped, revision)
	if err != nil {
		return nil, err
	}
	u.keep(id, c)
	return c, nil
}

// keep puts c into the cache, unless what is there is newer: an old snapshot may still be read.
func (u *unsealed) keep(id scopeID, c *scope) {
	old := u.swap(id, func(old *scope) *scope {
		if old != nil && old.revision > c.revision {
			return old
		}
		return c
	})
	if old != nil && old.revision < c.revision {
		u.derived.drop(&old.keyring)
	}
}

// swap replaces the cached scope of id by what change makes of it, and returns what was there.
func (u *unsealed) swap(id scopeID, change func(*scope) *scope) *scope {
	sh := u.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	next := map[scopeID]*scope{}
	if m := sh.scopes.Load(); m != nil {
		next = maps.Clone(*m)
	}
	old := next[id]
	if c := change(old); c != nil {
		next[id] = c
	} else {
		delete(next, id)
	}
	sh.scopes.Store(&next)
	return old
}

// forget drops the cached keys of id, and those of its projects where it is a tenant.
func (u *unsealed) forget(id scopeID) {
	gone := []scopeID{id}
	if id.project.IsZero() {
		for i := range u.shards {
			if m := u.shards[i].scopes.Load(); m != nil {
				for other := range *m {
					if other.tenant == id.tenant {
						gone = append(gone, other)
					}
				}
			}
		}
	}
	for _, g := range gone {
		if old := u.swap(g, func(*scope) *scope { return nil }); old != nil {
			u.derived.drop(&old.keyring)
		}
	}
}

// finder returns how to find what wraps the keys of id, and the newest such key.
func (u *unsealed) finder(s storage.Snapshot, id scopeID) (find func(uint32) *xaes, newest wrapper, err error) {
	if id.project.IsZero() {
		return func(v uint32) *xaes {
			if v != rootVersion {
				return nil
			}
			return u.wrapper.cipher
		}, u.wrapper, nil
	}
	tenant, err := u.scope(s, scopeID{tenant: id.tenant})
	if err != nil {
		return nil, wrapper{}, err
	}
	v := tenant.current().version
	return func(v uint32) *xaes { return tenant.wraps[v] }, wrapper{v, tenant.wraps[v]}, nil
}

// open opens every version of a scope's keys, in order of version.
func open(find func(uint32) *xaes, id scopeID, wrapped map[uint32][]byte) (versions []uint32, all []*material, err error) {
	defer func() {
		if err != nil {
			forgetAll(all)
		}
	}()
	versions = slices.Sorted(maps.Keys(wrapped))
	for _, v := range versions {
		m, err := unwrap(find, id, v, wrapped[v])
		if err != nil {
			return nil, all, err
		}
		all = append(all, m)
		if subtle.ConstantTimeCompare(m.index, all[0].index) != 1 {
			return nil, all, storage.Errorf(storage.Internal, "damaged_key",
				"the versions of %s do not belong together: restore the wrapped keys from a snapshot of this cluster", id)
		}
	}
	return versions, all, nil
}

func forgetAll(all []*material) {
	for _, m := range all {
		m.clear()
	}
}

func (u *unsealed) load(s storage.Snapshot, id scopeID, wrapped map[uint32][]byte, revision uint64) (*scope, error) {
	find, _, err := u.finder(s, id)
	if err != nil {
		return nil, err
	}
	versions, all, err := open(find, id, wrapped)
	if err != nil {
		return nil, err
	}
	defer forgetAll(all)
	return u.assemble(id, versions, all, revision), nil
}

// assemble makes the Sealer of a scope from its opened keys.
func (u *unsealed) assemble(id scopeID, versions []uint32, all []*material, revision uint64) *scope {
	index := expand(all[0].index, nil, labelIndex)
	defer clear(index)
	c := &scope{keyring: u.keyring(labelRows, versions, all), blinder: newBlinder(index), revision: revision}
	if !id.project.IsZero() {
		return c
	}
	c.wraps = map[uint32]*xaes{}
	for i, m := range all {
		c.wraps[versions[i]] = m.working(labelWrap)
		for _, old := range m.carried {
			if c.wraps[old.version] == nil {
				c.wraps[old.version] = newXAES(old.wrap)
			}
		}
	}
	return c
}

// keyring makes the working key of one label, in every version.
func (u *unsealed) keyring(label string, versions []uint32, all []*material) keyring {
	k := keyring{state: u}
	for i, m := range all {
		k.keys = append(k.keys, &valueKey{version: versions[i], cipher: m.working(label)})
	}
	return k
}

// Change returns the entry's part of op. See storage.Keys. s must show the tenant's keys where a project's are changed.
func (r *Ring) Change(s storage.Snapshot, op storage.KeyOp, tenant, project storage.ID) ([]entry.KeyChange, storage.Sealer, error) {
	u := r.state.Load()
	if u == nil {
		return nil, nil, errSealed()
	}
	id := scopeID{tenant, project}
	wrapped, revision, err := s.Wrapped(tenant, project)
	if err != nil {
		return nil, nil, err
	}
	if op == storage.CreateKeys && len(wrapped) > 0 {
		return nil, nil, storage.Errorf(storage.Exists, "keys_exist", "%s exists already: choose another id", id)
	}
	if op != storage.CreateKeys && len(wrapped) == 0 {
		return nil, nil, id.notFound()
	}
	if op == storage.DestroyKeys { // also when the keys cannot be opened any more
		u.forget(id)
		return []entry.KeyChange{{Kind: entry.DestroyScope, Tenant: tenant, Project: project}}, nil, nil
	}
	find, by, err := u.finder(s, id)
	if err != nil {
		return nil, nil, err
	}
	versions, all, err := open(find, id, wrapped)
	if err != nil {
		return nil, nil, err
	}
	defer func() { forgetAll(all) }()
	var changes []entry.KeyChange
	switch op {
	case storage.CreateKeys, storage.RotateKeys:
		version, m, err := u.next(id, versions, all)
		if err != nil {
			return nil, nil, err
		}
		versions, all = append(versions, version), append(all, m)
		changes = []entry.KeyChange{{
			Kind: entry.PutKey, Tenant: tenant, Project: project, Version: version, Wrapped: u.wrap(by, id, version, m),
		}}
	case storage.DropOldKeys: // the newest was opened above: nothing is dropped in favour of a key that is damaged
		last := len(versions) - 1
		for _, v := range versions[:last] {
			changes = append(changes, entry.KeyChange{Kind: entry.DropKey, Tenant: tenant, Project: project, Version: v})
		}
		forgetAll(all[:last])
		versions, all = versions[last:], all[last:]
	default:
		return nil, nil, storage.Errorf(storage.Internal, "bad_key_change", "there is no change of keys with number %d", op)
	}
	return changes, u.assemble(id, versions, all, revision), nil
}

// next draws the key of a scope's next version, or of its first.
func (u *unsealed) next(id scopeID, versions []uint32, all []*material) (uint32, *material, error) {
	m := &material{key: make([]byte, keyLen)}
	u.draw(m.key)
	if len(all) == 0 {
		m.index = make([]byte, keyLen)
		u.draw(m.index)
		return firstVersion, m, nil
	}
	newest, version := all[len(all)-1], versions[len(versions)-1]
	m.index = bytes.Clone(newest.index)
	if id.project.IsZero() {
		for _, c := range newest.carried {
			m.carried = append(m.carried, carried{c.version, bytes.Clone(c.wrap)})
		}
		m.carried = append(m.carried, carried{version, expand(newest.key, nil, labelWrap)})
	}
	if version == math.MaxUint32 || len(m.carried) > maxCarried {
		m.clear()
		return 0, nil, storage.Errorf(storage.BadInput, "too_many_rotations",
			"%s was rotated as often as it can be: make a new one, and move the data", id)
	}
	return version + 1, m, nil
}
