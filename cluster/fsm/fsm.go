// Package fsm applies the committed entries of the raft log to a node's state.
//
// Promise: it holds no key and decides nothing. Each log entry is decoded and handed to the State in the order of the log,
// once; what the State answers is the answer. An entry that this version cannot read stops the node: it is reported, and
// nothing after it is applied, because a node that skips an entry no longer holds the state that the others hold.
package fsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"bulwark/storage"
	"bulwark/storage/entry"
)

// A State is a node's database: what the entries of the log make of it. Package storage/bolt has the real one.
type State interface {
	// Apply applies the entries of the log entry at index, in order, and returns one outcome for each.
	Apply(index uint64, entries []*entry.Entry) []entry.Outcome
	// Applied returns the index and the revision of the latest state; Persisted the index up to which it survives a crash.
	Applied() (index, revision uint64)
	Persisted() uint64
	// Snapshot returns a view of the latest state.
	Snapshot() (storage.Snapshot, error)
	// Changed returns a channel that is closed when the revision is above rev.
	Changed(rev uint64) <-chan struct{}
	// Flush returns when everything that was applied before the call survives a crash.
	Flush() error
	// Failed says why the state can no longer persist what is applied; nil while it can.
	Failed() error
	Close() error
}

// A Copier is a State that can give another node a consistent copy of what it has persisted: the index that the copy holds,
// its size, and the copy, which must be closed.
type Copier interface {
	Copy() (index uint64, size int64, image interface {
		io.WriterTo
		io.Closer
	}, err error)
}

// A Restorer is a State that can replace itself by the file that a Copy of another node makes. CheckCopy refuses one that
// Restore would refuse, without changing anything, and says which index it holds.
type Restorer interface {
	CheckCopy(path string) (index uint64, err error)
	Restore(path string) error
}

// ErrStopped is the answer to entries that came after one that could not be applied.
var ErrStopped = errors.New("the state machine has stopped")

// A FSM is a raft.BatchingFSM over a State. Its methods for raft are called by raft only.
type FSM struct {
	state   State
	fatal   func(error)
	install Installer

	term    atomic.Uint64 // of the last log entry that was consumed
	index   atomic.Uint64 // of the last log entry that was consumed
	stopped error         // raft's goroutine for the state machine only

	mu      sync.Mutex
	waiting int
	moved   chan struct{} // closed when index grows
}

// New returns the state machine over state. fatal is called once, with the reason, when an entry cannot be applied; it
// must not block.
func New(state State, fatal func(error), install Installer) (*FSM, error) {
	if state == nil || fatal == nil {
		return nil, errors.New("a state machine needs a state and somebody to tell when it stops")
	}
	return &FSM{state: state, fatal: fatal, install: install, moved: make(chan struct{})}, nil
}

// An Installer makes the state hold the copy of another node that was received last, or more, and returns the index that
// the state then holds, and the term of the mark that came with the copy. A nil one refuses every copy.
type Installer func() (index, term uint64, err error)

// Consumed returns the index and term of the last log entry that has reached the state. Barriers and no-ops of raft do not
// reach it.
func (f *FSM) Consumed() (index, term uint64) {
	// The term is stored first, so a reader of the term never sees one whose entry the index does not cover.
	term = f.term.Load()
	return f.index.Load(), term
}

// Wait returns when the log entry at index has reached the state.
func (f *FSM) Wait(ctx context.Context, index uint64) error {
	if f.index.Load() >= index {
		return nil
	}
	f.mu.Lock()
	f.waiting++
	defer func() {
		f.mu.Lock()
		f.waiting--
		f.mu.Unlock()
	}()
	for f.index.Load() < index {
		moved := f.moved
		f.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
		f.mu.Lock()
	}
	f.mu.Unlock()
	return nil
}

func (f *FSM) advance(index, term uint64) {
	// After a copy of another node, which may be newer than its mark, the log is behind the state for a while.
	f.index.Store(max(index, f.index.Load()))
	f.term.Store(term)
	f.mu.Lock()
	if f.waiting > 0 {
		close(f.moved)
		f.moved = make(chan struct{})
	}
	f.mu.Unlock()
}

// ApplyBatch hands committed log entries to the state. The response to a command is the []entry.Outcome of its entries, or
// an error.
func (f *FSM) ApplyBatch(logs []*raft.Log) []any {
	responses := make([]any, len(logs))
	for i, l := range logs {
		responses[i] = f.apply(l)
	}
	return responses
}

// Apply is ApplyBatch for one entry.
func (f *FSM) Apply(l *raft.Log) any { return f.apply(l) }

func (f *FSM) apply(l *raft.Log) any {
	if f.stopped != nil {
		return fmt.Errorf("%w: %w", ErrStopped, f.stopped)
	}
	var outcomes []entry.Outcome
	// A command without data only marks that its leader's term has begun. After a restart raft replays from its last mark:
	// what the state already holds is passed over.
	if applied, _ := f.state.Applied(); l.Type == raft.LogCommand && len(l.Data) > 0 && l.Index > applied {
		entries, err := entry.DecodeBatch(l.Data)
		if err != nil {
			return f.stop(fmt.Errorf("reading the log entry at index %d: %w", l.Index, err))
		}
		outcomes = f.state.Apply(l.Index, entries)
		if err := f.state.Failed(); err != nil {
			return f.stop(fmt.Errorf("applying the log entry at index %d: %w", l.Index, err))
		}
		if len(outcomes) != len(entries) {
			return f.stop(fmt.Errorf("applying the log entry at index %d: %d outcomes for %d entries", l.Index, len(outcomes), len(entries)))
		}
	}
	f.advance(l.Index, l.Term)
	return outcomes
}

func (f *FSM) stop(err error) error {
	f.stopped = err
	f.fatal(err)
	return fmt.Errorf("%w: %w", ErrStopped, err)
}

// A Marker is a raft.SnapshotSink that records an index instead of a copy.
type Marker interface {
	// Mark says that the state holds everything up to the snapshot's index, and that it has persisted up to persisted.
	Mark(persisted uint64)
}

// Snapshot marks what is applied now; its cost is that of State.Flush, in Persist.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) {
	if f.stopped != nil {
		return nil, fmt.Errorf("%w: %w", ErrStopped, f.stopped)
	}
	applied, _ := f.state.Applied()
	return &mark{state: f.state, applied: applied}, nil
}

type mark struct {
	state   State
	applied uint64
}

// Persist returns when the database itself holds what is marked, so that the log before it may go.
func (m *mark) Persist(sink raft.SnapshotSink) error {
	marker, ok := sink.(Marker)
	if !ok {
		return errors.New("marking a snapshot: the snapshot store keeps copies, not marks")
	}
	if err := m.state.Flush(); err != nil {
		return fmt.Errorf("flushing the database: %w", err)
	}
	persisted := m.state.Persisted()
	if persisted < m.applied {
		return fmt.Errorf("flushing the database: it holds entries up to %d and should hold them up to %d", persisted, m.applied)
	}
	marker.Mark(persisted)
	return sink.Close()
}

// Release does nothing: a mark holds nothing.
func (m *mark) Release() {}

// Restore takes over another node's copy. Its bytes were received and checked before; see Installer.
func (f *FSM) Restore(io.ReadCloser) error {
	if f.stopped != nil {
		return fmt.Errorf("%w: %w", ErrStopped, f.stopped)
	}
	if f.install == nil {
		return errors.New("this node cannot take over another node's copy")
	}
	index, term, err := f.install()
	if err != nil {
		err = fmt.Errorf("taking over another node's copy: %w", err)
		if f.state.Failed() != nil {
			return f.stop(err)
		}
		return err
	}
	f.advance(index, term)
	return nil
}
