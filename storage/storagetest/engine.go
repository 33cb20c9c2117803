// Package storagetest has an Engine in memory, and the conformance suite that every Engine must pass.
//
// Promise: the Engine in memory is the oracle. It is written for plainness: one lock, sorted trees that are copied on
// write, the audit tree as golang.org/x/mod/sumdb/tlog stores it. It shares the entry's codec and rules with the real
// engine, and nothing else.
package storagetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/tidwall/btree"
	"golang.org/x/mod/sumdb/tlog"

	"bulwark/storage"
	"bulwark/storage/entry"
)

// A place is where a row lives.
type place struct {
	tenant  entry.ID
	project entry.ID
	table   string
	key     string
}

func (a place) compare(b place) int {
	if c := bytes.Compare(a.tenant[:], b.tenant[:]); c != 0 {
		return c
	}
	if c := bytes.Compare(a.project[:], b.project[:]); c != 0 {
		return c
	}
	if a.table != b.table {
		if a.table < b.table {
			return -1
		}
		return 1
	}
	switch {
	case a.key < b.key:
		return -1
	case a.key > b.key:
		return 1
	}
	return 0
}

type row struct {
	at      place
	value   []byte
	version uint64
}

type scope struct{ tenant, project entry.ID }

type scopeKeys struct {
	versions map[uint32][]byte
	revision uint64
}

// A trail is a tenant's audit log; stored is the tree as tlog lays it out.
type trail struct {
	leaves []entry.Leaf
	stored []tlog.Hash
}

// ReadHashes makes a trail a tlog.HashReader.
func (t trail) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x < 0 || x >= int64(len(t.stored)) {
			return nil, fmt.Errorf("the tree has no hash %d", x)
		}
		hashes[i] = t.stored[x]
	}
	return hashes, nil
}

// A state is everything at one revision. A published state is never changed.
type state struct {
	revision uint64
	rows     *btree.BTreeG[row]
	keys     map[scope]scopeKeys
	trails   map[entry.ID]trail
}

func newRows() *btree.BTreeG[row] {
	return btree.NewBTreeGOptions(func(a, b row) bool { return a.at.compare(b.at) < 0 }, btree.Options{NoLocks: true})
}

// An Engine is a storage.Engine in memory, for tests: a log of one node whose proposals are applied at once.
type Engine struct {
	mu      sync.Mutex
	state   *state
	index   uint64
	recent  map[entry.ID]entry.Outcome
	order   []entry.ID // of recent, the oldest first; one for each index
	changed chan struct{}
}

var _ storage.Engine = (*Engine)(nil)

// NewEngine returns an empty engine.
func NewEngine() *Engine {
	return &Engine{
		state:   &state{rows: newRows(), keys: map[scope]scopeKeys{}, trails: map[entry.ID]trail{}},
		recent:  map[entry.ID]entry.Outcome{},
		changed: make(chan struct{}),
	}
}

// Propose applies e. Bytes of e are copied. It fails only when ctx has ended or e cannot be encoded.
func (m *Engine) Propose(ctx context.Context, e *entry.Entry) (entry.Outcome, error) {
	if ctx.Err() != nil {
		return entry.Outcome{}, timedOut(ctx)
	}
	encoded := entry.Append(nil, e)
	e, err := entry.Decode(encoded)
	if err != nil {
		return entry.Outcome{}, fmt.Errorf("encoding a proposal: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index++
	if o, ok := m.recent[e.ID]; ok {
		m.remember(entry.ID{}, o)
		return o, nil
	}
	o := m.apply(e)
	m.remember(e.ID, o)
	return o, nil
}

// remember keeps the outcome of each of the last entry.RecentIndexes indexes. A zero id stands for an index that has no
// outcome of its own.
func (m *Engine) remember(id entry.ID, o entry.Outcome) {
	if !id.IsZero() {
		m.recent[id] = o
	}
	m.order = append(m.order, id)
	if len(m.order) > entry.RecentIndexes {
		delete(m.recent, m.order[0])
		m.order = m.order[1:]
	}
}

func (m *Engine) apply(e *entry.Entry) entry.Outcome {
	old := m.state
	if e.Validate() != nil {
		return entry.Outcome{Status: entry.Invalid, Revision: old.revision}
	}
	if !old.holds(e) {
		return entry.Outcome{Status: entry.Conflict, Revision: old.revision}
	}
	s := &state{
		revision: old.revision + 1,
		rows:     old.rows.Copy(),
		keys:     maps.Clone(old.keys),
		trails:   maps.Clone(old.trails),
	}
	for i := range e.Writes {
		w := &e.Writes[i]
		at := place{e.Tenant, w.Project, w.Table, string(w.Key)}
		if w.Delete {
			s.rows.Delete(row{at: at})
		} else {
			s.rows.Set(row{at, w.Value, s.revision})
		}
	}
	for i := range e.Leaves {
		t := s.trails[e.Tenant]
		more, err := tlog.StoredHashesForRecordHash(int64(len(t.leaves)), tlog.Hash(e.Leaves[i].Hash), t)
		if err != nil {
			panic("storagetest: the audit tree cannot grow: " + err.Error())
		}
		// There is one history, so what an older state's slices do not show may be written in place.
		t.leaves = append(t.leaves, e.Leaves[i])
		t.stored = append(t.stored, more...)
		s.trails[e.Tenant] = t
	}
	for i, msg := range e.Messages {
		key := binary.BigEndian.AppendUint64(nil, s.revision)
		key = binary.BigEndian.AppendUint32(key, uint32(i))
		s.rows.Set(row{place{e.Tenant, entry.ID{}, entry.Outbox, string(key)}, msg, s.revision})
	}
	for i := range e.Keys {
		s.change(&e.Keys[i])
	}
	m.state = s
	close(m.changed)
	m.changed = make(chan struct{})
	return entry.Outcome{Status: entry.Applied, Revision: s.revision}
}

// holds reports whether every precondition of e holds.
func (s *state) holds(e *entry.Entry) bool {
	for _, p := range e.Scopes {
		if s.keys[scope{p.Tenant, p.Project}].revision != p.Revision {
			return false
		}
	}
	for i := range e.Points {
		p := &e.Points[i]
		r, _ := s.rows.Get(row{at: place{e.Tenant, p.Project, p.Table, string(p.Key)}})
		if r.version != p.Version {
			return false
		}
	}
	for i := range e.Ranges {
		r := &e.Ranges[i]
		var n uint64
		fresh := false
		s.scan(e.Tenant, r.Space, r.From, r.To, false, func(_, _ []byte, version uint64) bool {
			n++
			fresh = fresh || version > e.Revision
			return true
		})
		if fresh || n != r.Count {
			return false
		}
	}
	return true
}

func (s *state) change(k *entry.KeyChange) {
	at := scope{k.Tenant, k.Project}
	had := s.keys[at]
	switch k.Kind {
	case entry.PutKey:
		versions := maps.Clone(had.versions)
		if versions == nil {
			versions = map[uint32][]byte{}
		}
		versions[k.Version] = k.Wrapped
		s.keys[at] = scopeKeys{versions, s.revision}
	case entry.DropKey:
		if _, ok := had.versions[k.Version]; !ok {
			return
		}
		versions := maps.Clone(had.versions)
		delete(versions, k.Version)
		if s.keys[at] = (scopeKeys{versions, s.revision}); len(versions) == 0 {
			delete(s.keys, at)
		}
	case entry.DestroyScope:
		whole := k.Project.IsZero()
		maps.DeleteFunc(s.keys, func(sc scope, _ scopeKeys) bool {
			return sc.tenant == k.Tenant && (whole || sc.project == k.Project)
		})
		if whole {
			delete(s.trails, k.Tenant)
		}
		var gone []row
		s.rows.Ascend(row{at: place{tenant: k.Tenant, project: k.Project}}, func(r row) bool {
			if r.at.tenant != k.Tenant || !whole && r.at.project != k.Project {
				return false
			}
			gone = append(gone, r)
			return true
		})
		for _, r := range gone {
			s.rows.Delete(r)
		}
	}
}

// Snapshot returns the state as it is.
func (m *Engine) Snapshot(ctx context.Context) (storage.Snapshot, error) {
	if ctx.Err() != nil {
		return nil, timedOut(ctx)
	}
	return m.Local()
}

func timedOut(ctx context.Context) error {
	return &storage.Error{Fault: storage.Unavailable, Code: "timeout", Message: "the time ran out", Cause: ctx.Err()}
}

// Local returns the state as it is.
func (m *Engine) Local() (storage.Snapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &snapshot{m.state}, nil
}

// Changed returns a channel that is closed when the revision is above rev.
func (m *Engine) Changed(rev uint64) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state.revision > rev {
		done := make(chan struct{})
		close(done)
		return done
	}
	if m.state.revision == rev {
		return m.changed
	}
	later, next := make(chan struct{}), m.changed
	go func() {
		<-next
		<-m.Changed(rev)
		close(later)
	}()
	return later
}

type snapshot struct{ s *state }

func (sn *snapshot) Revision() uint64 { return sn.s.revision }

func (sn *snapshot) Get(tenant storage.ID, sp entry.Space, key []byte) ([]byte, uint64, bool, error) {
	r, ok := sn.s.rows.Get(row{at: place{tenant, sp.Project, sp.Table, string(key)}})
	return r.value, r.version, ok, nil
}

func (sn *snapshot) Scan(tenant storage.ID, sp entry.Space, from, to []byte, reverse bool,
	fn func(key, value []byte, version uint64) bool,
) error {
	sn.s.scan(tenant, sp, from, to, reverse, fn)
	return nil
}

func (s *state) scan(tenant storage.ID, sp entry.Space, from, to []byte, reverse bool,
	fn func(key, value []byte, version uint64) bool,
) {
	low := place{tenant, sp.Project, sp.Table, string(from)}
	high := place{tenant, sp.Project, sp.Table + "\x00", ""} // the least place above every key of the table
	if to != nil {
		high = place{tenant, sp.Project, sp.Table, string(to)}
	}
	if !reverse {
		s.rows.Ascend(row{at: low}, func(r row) bool {
			return r.at.compare(high) < 0 && fn([]byte(r.at.key), r.value, r.version)
		})
		return
	}
	s.rows.Descend(row{at: high}, func(r row) bool {
		if r.at.compare(high) >= 0 {
			return true
		}
		return r.at.compare(low) >= 0 && fn([]byte(r.at.key), r.value, r.version)
	})
}

func (sn *snapshot) Wrapped(tenant, project storage.ID) (map[uint32][]byte, uint64, error) {
	k := sn.s.keys[scope{tenant, project}]
	return maps.Clone(k.versions), k.revision, nil
}

func (sn *snapshot) Tree(tenant storage.ID) (uint64, [][32]byte, error) {
	t := sn.s.trails[tenant]
	n := uint64(len(t.leaves))
	var edge [][32]byte
	var done uint64
	for level := 62; level >= 0; level-- {
		if n&(1<<level) != 0 {
			edge = append(edge, t.stored[tlog.StoredHashIndex(level, int64(done>>level))])
			done += 1 << level
		}
	}
	return n, edge, nil
}

func (sn *snapshot) Leaves(tenant storage.ID, first uint64, fn func(position uint64, leaf entry.Leaf) bool) error {
	leaves := sn.s.trails[tenant].leaves
	for i := first; i < uint64(len(leaves)); i++ {
		if !fn(i, leaves[i]) {
			return nil
		}
	}
	return nil
}

func (sn *snapshot) Tenants() ([]storage.ID, error) {
	var ids []storage.ID
	for sc := range sn.s.keys {
		ids = append(ids, sc.tenant)
	}
	slices.SortFunc(ids, func(a, b storage.ID) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(ids), nil
}

func (sn *snapshot) Projects(tenant storage.ID) ([]storage.ID, error) {
	var ids []storage.ID
	for sc := range sn.s.keys {
		if sc.tenant == tenant && !sc.project.IsZero() {
			ids = append(ids, sc.project)
		}
	}
	slices.SortFunc(ids, func(a, b storage.ID) int { return bytes.Compare(a[:], b[:]) })
	return ids, nil
}

func (sn *snapshot) Spaces(tenant, project storage.ID) ([]string, error) {
	var names []string
	sn.s.rows.Ascend(row{at: place{tenant: tenant, project: project}}, func(r row) bool {
		if r.at.tenant != tenant || r.at.project != project {
			return false
		}
		if len(names) == 0 || names[len(names)-1] != r.at.table {
			names = append(names, r.at.table)
		}
		return true
	})
	return names, nil
}

// Release does nothing: a state in memory needs no release.
func (sn *snapshot) Release() {}
