package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"bulwark/storage/entry"
)

// Guards are what no Store exists without.
type Guards struct {
	Access Access
	Keys   Keys
	Audit  Audit
	Clock  func() time.Time
	Rand   io.Reader    // of cryptographic quality: ids of records and entries
	Logger *slog.Logger // hears of read events that could not be recorded
}

// A DB is the Store over an Engine: it decides, seals, and records; the Engine only orders and keeps.
// It implements Store and History, and is safe for concurrent use.
type DB struct {
	engine  Engine
	guards  Guards
	lastRow atomic.Uint64
	reads   *readLog
	opened  opened
}

// maxAttempts bounds how often fn runs again after a conflict. With the jittered pauses between them it amounts to about
// a second of being overtaken.
const maxAttempts = 24

// Open returns the Store over e. It fails without each of its guards.
func Open(e Engine, g Guards) (*DB, error) {
	switch {
	case e == nil:
		return nil, errors.New("opening the store: no engine")
	case g.Access == nil:
		return nil, errors.New("opening the store: no access guard")
	case g.Keys == nil:
		return nil, errors.New("opening the store: no keys")
	case g.Audit == nil:
		return nil, errors.New("opening the store: no audit")
	case g.Clock == nil || g.Rand == nil || g.Logger == nil:
		return nil, errors.New("opening the store: no clock, random source or logger")
	}
	d := &DB{engine: e, guards: g}
	d.reads = newReadLog(d)
	return d, nil
}

// Flush records the read events that still wait. A node calls it before it is sealed: afterwards it cannot.
func (d *DB) Flush() { d.reads.flush() }

// Close records the read events that still wait. The Engine is its owner's to close.
func (d *DB) Close() { d.reads.close() }

// Bootstrap gives the system tenant its keys, where it has none: the first entry of a cluster.
func (d *DB) Bootstrap(ctx context.Context) error {
	snap, err := d.engine.Snapshot(ctx)
	if err != nil {
		return err
	}
	_, rev, err := snap.Wrapped(System, ID{})
	snap.Release()
	if err != nil || rev != 0 {
		return err
	}
	job := JobActor(System, ID{}, "bootstrap")
	err = d.Update(ctx, job, Intent{Action: "cluster.create"}, func(tx Tx) error {
		return tx.ChangeKeys(CreateKeys, System, ID{})
	})
	if FaultOf(err) == Exists { // another node was first
		return nil
	}
	return err
}

// View implements Store.
func (d *DB) View(ctx context.Context, by Actor, to Intent, fn func(Reader) error) error {
	err := d.view(ctx, by, to, func(t *txn) error { return fn(t) })
	if err == nil {
		d.reads.note(by, to)
	}
	return err
}

func (d *DB) view(ctx context.Context, by Actor, to Intent, fn func(*txn) error) error {
	if by.kind == Nobody {
		return errNobody
	}
	t, err := d.begin(ctx, by, d.guards.Clock())
	if err != nil {
		return err
	}
	defer t.snap.Release()
	if err = d.guards.Access.Decide(t, by, to); err == nil {
		err = fn(t)
	}
	if refused(err) {
		return d.refuse(ctx, t, to, err)
	}
	return err
}

var errNobody = &Error{Fault: Unauthenticated, Code: "unauthenticated", Message: "this needs a credential: none was given"}

// Update implements Store.
func (d *DB) Update(ctx context.Context, by Actor, to Intent, fn func(Tx) error) error {
	if by.kind == Nobody {
		return errNobody
	}
	now := d.guards.Clock()
	return retry(ctx, func() (entry.Status, error) { return d.attempt(ctx, by, to, now, fn) })
}

// retry runs attempt until it is no longer a conflict.
func retry(ctx context.Context, attempt func() (entry.Status, error)) error {
	for n := range maxAttempts {
		status, err := attempt()
		if err != nil || status == entry.Applied {
			return err
		}
		if err := pause(ctx, n); err != nil {
			return err
		}
	}
	return Errorf(Conflict, "conflict", "others kept changing what this depends on; try again")
}

func (d *DB) attempt(ctx context.Context, by Actor, to Intent, now time.Time, fn func(Tx) error) (entry.Status, error) {
	t, err := d.begin(ctx, by, now)
	if err != nil {
		return 0, err
	}
	defer t.snap.Release()
	t.entry = &entry.Entry{Tenant: by.tenant, Revision: t.snap.Revision()}
	if err = d.guards.Access.Decide(t, by, to); err == nil {
		err = fn(t)
	}
	if err == nil {
		err = t.failed
	}
	if refused(err) {
		return entry.Applied, d.refuse(ctx, t, to, err)
	}
	if err != nil {
		return 0, err
	}
	if t.idle() {
		return entry.Applied, nil
	}
	return t.commit(ctx, to, "ok", "")
}

// refused reports whether err is a refusal, which the audit log records.
func refused(err error) bool {
	if err == nil {
		return false
	}
	f := FaultOf(err)
	return f == Denied || f == Unauthenticated
}

// refuse records that an intent was refused, and returns the refusal: or the error of recording it, because a refusal
// that nobody can see is not one that we may answer. Nothing that the refused transaction wrote is kept; its notes are,
// since they say what it was about.
func (d *DB) refuse(ctx context.Context, t *txn, to Intent, refusal error) error {
	var e *Error
	errors.As(refusal, &e)
	event := &Event{
		Time: t.now, Tenant: t.by.tenant, Project: t.by.project, By: t.by, To: to,
		Outcome: "denied", Reason: e.Code, Notes: t.notes,
	}
	if err := d.recordEvents(ctx, t.by.tenant, []*Event{event}); err != nil {
		return err
	}
	return refusal
}

func (d *DB) begin(ctx context.Context, by Actor, now time.Time) (*txn, error) {
	snap, err := d.engine.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return &txn{db: d, by: by, now: now, snap: snap}, nil
}

// propose hands e to the engine until its outcome is known, ctx ends, or the engine has been asked often enough. The same
// id makes a second proposal harmless. Once e was in doubt only an outcome settles it: that a later proposal was refused
// says nothing about the first.
func (d *DB) propose(ctx context.Context, e *entry.Entry) (entry.Outcome, error) {
	var doubt *InDoubt
	for attempt := range maxAttempts {
		if doubt == nil && ctx.Err() != nil {
			return entry.Outcome{}, timedOut(ctx)
		}
		out, err := d.engine.Propose(ctx, e)
		if !errors.As(err, &doubt) && (err == nil || doubt == nil) {
			return out, err
		}
		if ctx.Err() != nil || pause(ctx, attempt) != nil {
			break
		}
	}
	return entry.Outcome{}, &Error{Fault: Unavailable, Code: "in_doubt", Cause: doubt.Cause,
		Message: "the node cannot tell yet whether this was done; look before you repeat it"}
}

// pause waits a jittered, growing while: 0-1 ms at first, 0-64 ms from the seventh time on.
func pause(ctx context.Context, attempt int) error {
	limit := time.Millisecond << min(attempt, 6)
	timer := time.NewTimer(rand.N(limit))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return timedOut(ctx)
	}
}

func timedOut(ctx context.Context) error {
	return &Error{Fault: Unavailable, Code: "timeout", Message: "the request's time ran out; try again", Cause: ctx.Err()}
}

// NewID returns a UUIDv7 (RFC 9562, section 5.7) of the time now.
func NewID(now time.Time, random io.Reader) (ID, error) {
	var id ID
	if _, err := io.ReadFull(random, id[6:]); err != nil {
		return ID{}, fmt.Errorf("drawing an id: %w", err)
	}
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli()))
	copy(id[:6], ms[2:])
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id, nil
}

// rowEpoch is when row ids begin to count, so that 44 bits of milliseconds last for 557 years.
var rowEpoch = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// newRow returns a row id above every one that this node gave since it started: milliseconds, then twenty bits that start
// at random. Another node may draw the same one: whoever makes a new row reads its key first (see Tx.NewRow).
func (d *DB) newRow() uint64 {
	fresh := uint64(d.guards.Clock().UnixMilli()-rowEpoch)<<20 | uint64(rand.Uint32N(1<<18))
	for {
		last := d.lastRow.Load()
		next := max(fresh, last+1)
		if d.lastRow.CompareAndSwap(last, next) {
			return next
		}
	}
}

// Events implements History.
func (d *DB) Events(ctx context.Context, by Actor, to Intent, first uint64, fn func(uint64, [32]byte, []byte) bool) error {
	return d.view(ctx, by, to, func(t *txn) error {
		s, err := t.sealer(ID{})
		if err != nil {
			return err
		}
		var failed error
		err = t.snap.Leaves(by.tenant, first, func(position uint64, leaf entry.Leaf) bool {
			var event []byte
			if event, failed = d.guards.Audit.Open(s, by.tenant, leaf); failed != nil {
				failed = fmt.Errorf("opening audit event %d: %w", position, failed)
				return false
			}
			return fn(position, leaf.Hash, event)
		})
		return errors.Join(failed, err)
	})
}

// Tree implements History. Whoever asks finds what was read before in the tree, also reads that still gathered.
func (d *DB) Tree(ctx context.Context, by Actor, to Intent) (size uint64, edge [][32]byte, err error) {
	if by.kind != Job { // a Follower's looking must not decide when reads are recorded
		d.Flush()
	}
	err = d.view(ctx, by, to, func(t *txn) error {
		size, edge, err = t.snap.Tree(by.tenant)
		return err
	})
	return size, edge, err
}
