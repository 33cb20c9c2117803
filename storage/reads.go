package storage

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"bulwark/storage/entry"
)

// Reads are frequent, and each of them would cost an entry. So they gather for a moment: what one principal read of one
// thing in that time is one event that says how often, and all events of a tenant go into one entry.
const (
	readWindow = 250 * time.Millisecond
	readLimit  = 256  // events that gather before the window ends, and the most of one entry: about 64 KiB of sealed leaves
	readTotal  = 4096 // events that gather while the log is slow; then whoever has read waits, since no read goes unrecorded
	readsUnder = 4    // recordings under way at a time
	readTime   = 10 * time.Second
)

// A readLog gathers the reads of principals outside. Jobs are not gathered: a Follower's own reading would never end.
type readLog struct {
	db     *DB
	mu     sync.Mutex
	events map[readKey]*readCount
	timer  *time.Timer
	closed bool
	under  int        // recordings under way
	late   bool       // what gathered should be recorded as soon as one of them ends
	ended  *sync.Cond // of mu: a recording has ended, or the log is closed
}

type readKey struct {
	kind                              Kind
	tenant, project, subject, session ID
	action, object                    string
}

type readCount struct {
	by    Actor
	first time.Time
	count int
}

func newReadLog(d *DB) *readLog {
	l := &readLog{db: d, events: map[readKey]*readCount{}}
	l.ended = sync.NewCond(&l.mu)
	return l
}

func (l *readLog) note(by Actor, to Intent) {
	if by.kind == Job {
		return
	}
	k := readKey{by.kind, by.tenant, by.project, by.subject, by.session, to.Action, to.Object}
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if e, ok := l.events[k]; ok {
			e.count++
			return
		}
		if l.closed {
			return
		}
		if len(l.events) < readTotal {
			break
		}
		l.ended.Wait()
	}
	l.events[k] = &readCount{by: by, first: l.db.guards.Clock(), count: 1}
	switch {
	case len(l.events) >= readLimit:
		l.flushLocked()
	case l.timer == nil:
		l.timer = time.AfterFunc(readWindow, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.flushLocked()
		})
	}
}

// flushLocked hands what has gathered to a goroutine that records it.
func (l *readLog) flushLocked() {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	if len(l.events) == 0 {
		return
	}
	if l.late = l.under == readsUnder; l.late {
		return
	}
	gathered := l.events
	l.events = map[readKey]*readCount{}
	l.under++
	go func() {
		l.record(gathered)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.under--
		if l.late {
			l.flushLocked()
		}
		l.ended.Broadcast()
	}()
}

func (l *readLog) record(gathered map[readKey]*readCount) {
	// A page of the database that cannot be read must not end the process.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			l.db.guards.Logger.Error("recording read events", slog.String("panic", fmt.Sprintf("%T", p)), slog.String("stack", string(debug.Stack())))
		}
	}()
	byTenant := map[ID][]*Event{}
	for k, e := range gathered {
		byTenant[k.tenant] = append(byTenant[k.tenant], &Event{
			Time: e.first, Tenant: k.tenant, Project: k.project, By: e.by, To: Intent{Action: k.action, Object: k.object},
			Outcome: "ok", Notes: []Note{{Field: "reads", Value: e.count}},
		})
	}
	ctx, cancel := context.WithTimeout(context.Background(), readTime)
	defer cancel()
	for tenant, events := range byTenant {
		for some := range slices.Chunk(events, readLimit) {
			if err := l.db.recordEvents(ctx, tenant, some); err != nil && FaultOf(err) != NotFound {
				l.db.guards.Logger.Error("recording read events", slog.Int("events", len(some)), slog.Any("error", err))
			}
		}
	}
}

// recordEvents writes events that come with no other change.
func (d *DB) recordEvents(ctx context.Context, tenant ID, events []*Event) error {
	return retry(ctx, func() (entry.Status, error) { return d.tryRecord(ctx, tenant, events) })
}

func (d *DB) tryRecord(ctx context.Context, tenant ID, events []*Event) (entry.Status, error) {
	snap, err := d.engine.Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	defer snap.Release()
	k, err := d.guards.Keys.Sealer(snap, tenant, ID{})
	if err != nil {
		return 0, err
	}
	_, rev, err := snap.Wrapped(tenant, ID{})
	if err != nil {
		return 0, err
	}
	e := &entry.Entry{Tenant: tenant, Revision: snap.Revision(), Scopes: []entry.ScopePoint{{Tenant: tenant, Revision: rev}}}
	if e.ID, err = NewID(d.guards.Clock(), d.guards.Rand); err != nil {
		return 0, err
	}
	for _, ev := range events {
		if ev.ID, err = NewID(ev.Time, d.guards.Rand); err != nil {
			return 0, err
		}
		leaf, err := d.guards.Audit.Leaf(k, ev)
		if err != nil {
			return 0, err
		}
		e.Leaves = append(e.Leaves, leaf)
	}
	out, err := d.propose(ctx, e)
	return out.Status, err
}

// flush records what has gathered and waits until it is written.
func (l *readLog) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flushLocked()
	for l.late || l.under > 0 {
		l.ended.Wait()
	}
}

// close is flush; what is read later is not recorded.
func (l *readLog) close() {
	l.mu.Lock()
	l.closed = true
	l.ended.Broadcast()
	l.mu.Unlock()
	l.flush()
}
