package storage

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"bulwark/storage/entry"
)

// A txn is one run of a transaction's function: a Reader, and where entry is not nil a Tx.
type txn struct {
	db    *DB
	by    Actor
	now   time.Time
	snap  Snapshot
	notes []Note

	sealers []scopeSealer

	entry   *entry.Entry
	pending map[string]int // space and key → its place in entry.Writes
	failed  error          // the first error of a call that returns none
}

type scopeSealer struct {
	tenant, project ID
	sealer          Sealer // nil once the transaction destroyed the keys
}

// By implements Reader.
func (t *txn) By() Actor { return t.by }

// Now implements Reader.
func (t *txn) Now() time.Time { return t.now }

// Revision implements Reader.
func (t *txn) Revision() uint64 { return t.snap.Revision() }

// space resolves a Ref in the actor's tenant and project: the only tenant and project that there are for a txn.
func (t *txn) space(r Ref) (entry.Space, error) {
	if r.Scope == TenantScope {
		return entry.Space{Table: r.Name}, nil
	}
	if t.by.project.IsZero() {
		return entry.Space{}, Errorf(Internal, "no_project", "table %s belongs to a project, and the actor acts in none", r.Name)
	}
	return entry.Space{Project: t.by.project, Table: r.Name}, nil
}

func (t *txn) sealer(project ID) (Sealer, error) {
	for i := range t.sealers {
		if s := &t.sealers[i]; s.tenant == t.by.tenant && s.project == project {
			if s.sealer == nil {
				return nil, Errorf(NotFound, "destroyed", "its keys were destroyed")
			}
			return s.sealer, nil
		}
	}
	s, err := t.db.guards.Keys.Sealer(t.snap, t.by.tenant, project)
	if err != nil {
		return nil, err
	}
	t.sealers = append(t.sealers, scopeSealer{tenant: t.by.tenant, project: project, sealer: s})
	return s, nil
}

func (t *txn) place(s entry.Space, key []byte) Place {
	return Place{Tenant: t.by.tenant, Project: s.Project, Table: s.Table, Key: key}
}

func (t *txn) open(s entry.Space, key, sealed []byte) ([]byte, error) {
	if len(sealed) == 0 {
		return []byte{}, nil
	}
	k, err := t.sealer(s.Project)
	if err != nil {
		return nil, err
	}
	// Room for the plaintext in one allocation; the sealed form is longer.
	value, err := k.Open(make([]byte, 0, len(sealed)), sealed, t.place(s, key))
	if err != nil {
		return nil, fmt.Errorf("opening a value of table %s: %w", s.Table, err)
	}
	return value, nil
}

// Get implements Reader.
func (t *txn) Get(r Ref, key []byte) ([]byte, error) {
	s, err := t.space(r)
	if err != nil {
		return nil, err
	}
	if w := t.own(s, key); w != nil {
		if w.Delete {
			return nil, ErrNotFound
		}
		return t.open(s, key, w.Value)
	}
	sealed, version, ok, err := t.snap.Get(t.by.tenant, s, key)
	if err != nil {
		return nil, err
	}
	if t.entry != nil {
		t.entry.Points = append(t.entry.Points, entry.Point{Space: s, Key: bytes.Clone(key), Version: version})
	}
	if !ok {
		return nil, ErrNotFound
	}
	return t.open(s, key, sealed)
}

// own returns the transaction's own write of a key, or nil.
func (t *txn) own(s entry.Space, key []byte) *entry.Write {
	if len(t.pending) == 0 { // as in every View: no key needs to be made up
		return nil
	}
	if i, ok := t.pending[pendingKey(s, key)]; ok {
		return &t.entry.Writes[i]
	}
	return nil
}

// Scan implements Reader. The transaction's own writes are merged in.
func (t *txn) Scan(r Ref, kr KeyRange, fn func(key, value []byte) bool) error {
	s, err := t.space(r)
	if err != nil {
		return err
	}
	m := &merge{t: t, space: s, own: t.ownWrites(s, kr), reverse: kr.Reverse, fn: fn}
	var seen uint64
	var last []byte
	stopped := false
	err = t.snap.Scan(t.by.tenant, s, kr.From, kr.To, kr.Reverse, func(key, sealed []byte, _ uint64) bool {
		seen++
		if t.entry != nil {
			last = append(last[:0], key...)
		}
		if !m.before(key) || !m.visit(key, sealed) {
			stopped = true
			return false
		}
		return true
	})
	if err == nil {
		err = m.err
	}
	if err != nil {
		return err
	}
	if !stopped && !m.rest() && m.err != nil {
		return m.err
	}
	if t.entry != nil {
		read := entry.Range{Space: s, From: bytes.Clone(kr.From), To: bytes.Clone(kr.To), Count: seen}
		// Only as far as the snapshot was read: what lies beyond may change freely. One that was read to its end, and then
		// left at an own write, was read to the end: a key between the two would have been seen.
		if stopped && kr.Reverse {
			read.From = last
		} else if stopped && len(last) < entry.MaxKey {
			read.To = append(last, 0)
		}
		t.entry.Ranges = append(t.entry.Ranges, read)
	}
	return nil
}

// ownWrites lists the transaction's writes inside a range, in scan order.
func (t *txn) ownWrites(s entry.Space, kr KeyRange) []*entry.Write {
	if len(t.pending) == 0 {
		return nil
	}
	var own []*entry.Write
	for i := range t.entry.Writes {
		w := &t.entry.Writes[i]
		if w.Space == s && bytes.Compare(w.Key, kr.From) >= 0 && (kr.To == nil || bytes.Compare(w.Key, kr.To) < 0) {
			own = append(own, w)
		}
	}
	slices.SortFunc(own, func(a, b *entry.Write) int {
		if kr.Reverse {
			return bytes.Compare(b.Key, a.Key)
		}
		return bytes.Compare(a.Key, b.Key)
	})
	return own
}

// A merge joins a snapshot's scan with the transaction's own writes.
type merge struct {
	t       *txn
	space   entry.Space
	own     []*entry.Write
	reverse bool
	fn      func(key, value []byte) bool
	err     error
}

// before visits the own writes that come before key. It returns false when the scan is to stop.
func (m *merge) before(key []byte) bool {
	for len(m.own) > 0 {
		c := bytes.Compare(m.own[0].Key, key)
		if m.reverse {
			c = -c
		}
		if c >= 0 {
			return true
		}
		if !m.visitOwn() {
			return false
		}
	}
	return true
}

// visit visits a key of the snapshot, or the own write that replaces it.
func (m *merge) visit(key, sealed []byte) bool {
	if len(m.own) > 0 && bytes.Equal(m.own[0].Key, key) {
		return m.visitOwn()
	}
	return m.give(key, sealed)
}

func (m *merge) visitOwn() bool {
	w := m.own[0]
	m.own = m.own[1:]
	return w.Delete || m.give(w.Key, w.Value)
}

func (m *merge) rest() bool {
	for len(m.own) > 0 {
		if !m.visitOwn() {
			return false
		}
	}
	return true
}

func (m *merge) give(key, sealed []byte) bool {
	var value []byte
	if value, m.err = m.t.open(m.space, key, sealed); m.err != nil {
		return false
	}
	return m.fn(key, value)
}

// Blind implements Reader.
func (t *txn) Blind(r Ref, label string, value []byte) ([]byte, error) {
	s, err := t.space(r)
	if err != nil {
		return nil, err
	}
	k, err := t.sealer(s.Project)
	if err != nil {
		return nil, err
	}
	return k.Blind(s.Table, label, value), nil
}

// Put implements Tx.
func (t *txn) Put(r Ref, key, value []byte) error {
	s, err := t.space(r)
	if err != nil {
		return err
	}
	w := entry.Write{Space: s, Key: bytes.Clone(key), Value: []byte{}}
	k, err := t.sealer(s.Project) // also for look-up keys: the scope must be alive
	if err != nil {
		return err
	}
	if value != nil {
		w.Value = k.Seal(make([]byte, 0, len(value)+sealRoom), value, t.place(s, w.Key))
	}
	t.write(w)
	return nil
}

// sealRoom is how much longer a sealed value is, so that sealing allocates once.
const sealRoom = 64

// Delete implements Tx.
func (t *txn) Delete(r Ref, key []byte) error {
	s, err := t.space(r)
	if err != nil {
		return err
	}
	t.write(entry.Write{Space: s, Key: bytes.Clone(key), Delete: true})
	return nil
}

func (t *txn) write(w entry.Write) {
	k := pendingKey(w.Space, w.Key)
	if i, ok := t.pending[k]; ok {
		t.entry.Writes[i] = w
		return
	}
	if t.pending == nil {
		t.pending = map[string]int{}
	}
	t.pending[k] = len(t.entry.Writes)
	t.entry.Writes = append(t.entry.Writes, w)
}

func pendingKey(s entry.Space, key []byte) string {
	return string(s.Project[:]) + s.Table + "\x00" + string(key)
}

// NewID implements Tx.
func (t *txn) NewID() ID {
	id, err := NewID(t.now, t.db.guards.Rand)
	t.fail(err)
	return id
}

// NewRow implements Tx.
func (t *txn) NewRow() uint64 { return t.db.newRow() }

// Note implements Tx.
func (t *txn) Note(field string, value any) {
	for i := range t.notes {
		if t.notes[i].Field == field {
			t.notes[i].Value = value
			return
		}
	}
	t.notes = append(t.notes, Note{Field: field, Value: value})
}

// outboxTable is the table named in the Place of a sealed message; its key is the message's id.
const outboxTable = "outbox"

// Emit implements Tx. The message is its id, then the sealed topic and payload.
func (t *txn) Emit(topic string, payload []byte) error {
	id := t.NewID()
	k, err := t.sealer(ID{})
	if err != nil {
		return err
	}
	plain, err := records.enc.Marshal(message{Topic: topic, Payload: payload})
	if err != nil {
		return fmt.Errorf("encoding a message: %w", err)
	}
	sealed := k.Seal(id[:], plain, Place{Tenant: t.by.tenant, Table: outboxTable, Key: id[:]})
	t.entry.Messages = append(t.entry.Messages, sealed)
	return nil
}

type message struct {
	Topic   string `cbor:"t"`
	Payload []byte `cbor:"p"`
}

// ChangeKeys implements Tx. Tenants' own keys are the system tenant's to change; projects' keys their tenant's.
func (t *txn) ChangeKeys(op KeyOp, tenant, project ID) error {
	if t.by.tenant != System && (tenant != t.by.tenant || project.IsZero()) {
		return Errorf(Denied, "denied", "a tenant may change the keys of its own projects only")
	}
	changes, sealer, err := t.db.guards.Keys.Change(t.snap, op, tenant, project)
	if err != nil {
		return err
	}
	if err := t.alive(tenant, project); err != nil {
		return err
	}
	t.entry.Keys = append(t.entry.Keys, changes...)
	for i := range t.sealers {
		if s := &t.sealers[i]; s.tenant == tenant && s.project == project {
			s.sealer = sealer
			return nil
		}
	}
	t.sealers = append(t.sealers, scopeSealer{tenant: tenant, project: project, sealer: sealer})
	return nil
}

// alive makes it a precondition that a scope's keys are as the snapshot has them.
func (t *txn) alive(tenant, project ID) error {
	for _, s := range t.entry.Scopes {
		if s.Tenant == tenant && s.Project == project {
			return nil
		}
	}
	_, rev, err := t.snap.Wrapped(tenant, project)
	if err != nil {
		return err
	}
	t.entry.Scopes = append(t.entry.Scopes, entry.ScopePoint{Tenant: tenant, Project: project, Revision: rev})
	return nil
}

func (t *txn) fail(err error) {
	if t.failed == nil {
		t.failed = err
	}
}

// idle reports whether there is nothing to commit: no write, no message, no change of keys, no note.
func (t *txn) idle() bool {
	return len(t.entry.Writes) == 0 && len(t.entry.Messages) == 0 && len(t.entry.Keys) == 0 && len(t.notes) == 0
}

// commit adds the audit event and proposes the entry.
func (t *txn) commit(ctx context.Context, to Intent, outcome, reason string) (entry.Status, error) {
	e := t.entry
	id, err := NewID(t.now, t.db.guards.Rand)
	if err != nil {
		return 0, err
	}
	e.ID = id
	k, err := t.sealer(ID{})
	if err != nil {
		return 0, fmt.Errorf("sealing the audit event: %w", err)
	}
	leaf, err := t.db.guards.Audit.Leaf(k, &Event{
		ID: e.ID, Time: t.now, Tenant: t.by.tenant, Project: t.by.project, By: t.by, To: to,
		Outcome: outcome, Reason: reason, Notes: t.notes,
	})
	if err != nil {
		return 0, fmt.Errorf("recording the audit event: %w", err)
	}
	e.Leaves = append(e.Leaves, leaf)
	// Whatever was sealed must still be openable when the entry applies.
	for _, s := range t.sealers {
		if s.tenant == t.by.tenant {
			if err := t.alive(s.tenant, s.project); err != nil {
				return 0, err
			}
		}
	}
	out, err := t.db.propose(ctx, e)
	if err != nil {
		return 0, err
	}
	if out.Status == entry.Invalid {
		return 0, Errorf(TooLarge, "too_large", "the change is larger than one entry may be; make it in parts")
	}
	return out.Status, nil
}
