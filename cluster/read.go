package cluster

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"bulwark/storage"
)

// Snapshot returns a state that holds every entry that was acknowledged, anywhere, before the call.
func (c *Cluster) Snapshot(ctx context.Context) (storage.Snapshot, error) {
	index, err := c.readIndex(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.fsm.Wait(ctx, index); err != nil {
		return nil, timedOut(ctx, "the state was not up to date in time: try again")
	}
	return c.state.Snapshot()
}

var errAgain = errors.New("leadership is not settled")

// readIndex returns an index that covers every entry that was acknowledged before the call.
func (c *Cluster) readIndex(ctx context.Context) (uint64, error) {
	if index, ok := c.aloneIndex(); ok {
		return index, nil
	}
	if c.frozen() {
		return 0, nil
	}
	ctx, cancel := c.patience(ctx)
	defer cancel()
	for {
		turned := c.turns()
		if c.frozen() {
			return 0, nil
		}
		if err := c.usable(); err != nil {
			return 0, err
		}
		if c.raft.State() == raft.Leader {
			index, err := c.reads.join(ctx, c.closing, c.failed)
			if err == nil {
				return index, nil
			}
			if !errors.Is(err, errAgain) {
				if ctx.Err() != nil {
					return 0, c.noLeader(ctx)
				}
				return 0, c.unavailable()
			}
			if c.raft.State() == raft.Leader {
				continue
			}
		}
		select {
		case <-turned:
		case <-c.closing:
		case <-c.failed:
		case <-ctx.Done():
			return 0, c.noLeader(ctx)
		}
	}
}

// aloneIndex is the read index of a leader that is the only voter, without a round: nobody else can be elected without its
// vote, and giving that changes its term. DESIGN.md has the argument; the order of the steps is part of it.
func (c *Cluster) aloneIndex() (uint64, bool) {
	term := c.raft.CurrentTerm()
	if _, consumed := c.fsm.Consumed(); consumed != term || c.failure.Load() != nil {
		return 0, false
	}
	index := c.raft.CommitIndex()
	ok := c.alone() && c.raft.State() == raft.Leader && c.raft.CurrentTerm() == term
	return index, ok
}

// frozen reports whether this node has failed, after it led, as its cluster's only voter. Then its state holds every entry
// that was ever acknowledged: those from before by the time that it consumed one of its own term, later ones before they were
// acknowledged, and nobody else could acknowledge any. What was in doubt when the node failed may appear when it is opened
// again; nobody was told that it happened, nor that it did not.
func (c *Cluster) frozen() bool {
	select {
	case <-c.closing:
		return false
	default:
	}
	if c.failure.Load() == nil {
		return false
	}
	_, consumed := c.fsm.Consumed()
	return consumed != 0 && consumed == c.raft.CurrentTerm() && c.alone()
}

// rounds confirm that this node leads, once for all readers that wait when a round begins.
type rounds struct {
	mu      sync.Mutex
	waiting []chan answer // each has room for one
	wake    chan struct{} // has room for one
	drained chan struct{} // closed when no more rounds are held

	held, served atomic.Uint64
}

type answer struct {
	index uint64
	err   error
}

func (r *rounds) init() {
	r.wake = make(chan struct{}, 1)
	r.drained = make(chan struct{})
}

// kick asks for a round that nobody waits for.
func (r *rounds) kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// join waits for the next round to begin, and for its answer. It never joins one that has begun: that one's index may be
// older than an entry that was acknowledged since.
func (r *rounds) join(ctx context.Context, closing, failed <-chan struct{}) (uint64, error) {
	mine := make(chan answer, 1)
	r.mu.Lock()
	r.waiting = append(r.waiting, mine)
	r.mu.Unlock()
	r.kick()
	select {
	case a := <-mine:
		return a.index, a.err
	case <-closing:
		return 0, raft.ErrRaftShutdown
	case <-failed: // no more rounds are held
		return 0, raft.ErrRaftShutdown
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (c *Cluster) runRounds(ctx context.Context) {
	defer c.running.Done()
	defer close(c.reads.drained)
	for {
		select {
		case <-c.reads.wake:
		case <-c.closing:
			return
		case <-c.failed:
			return
		}
		c.reads.mu.Lock()
		readers := c.reads.waiting
		c.reads.waiting = nil
		c.reads.mu.Unlock()
		var a answer
		a.index, a.err = c.round()
		c.reads.held.Add(1)
		c.reads.served.Add(uint64(len(readers)))
		for _, r := range readers {
			r <- a
		}
	}
}

// leadership is what a round asks of raft.
type leadership interface {
	State() raft.RaftState
	CurrentTerm() uint64
	CommitIndex() uint64
	Apply(cmd []byte, timeout time.Duration) raft.ApplyFuture
	VerifyLeader() raft.Future
}

var _ leadership = (*raft.Raft)(nil)

func (c *Cluster) round() (uint64, error) {
	return confirm(c.raft, c.fsm.Consumed, func(f raft.Future) error { return await(c, f) })
}

// confirm returns the commit index at its beginning, when this node led from then to its end. (Raft dissertation, §6.4.)
func confirm(r leadership, consumed func() (index, term uint64), await func(raft.Future) error) (uint64, error) {
	term := r.CurrentTerm()
	if r.State() != raft.Leader {
		return 0, errAgain
	}
	// A new leader does not know what its predecessors have committed until an entry of its own term is committed.
	if _, t := consumed(); t != term {
		if err := await(r.Apply(nil, 0)); err != nil {
			return 0, errAgain
		}
		if _, t := consumed(); t != term {
			return 0, errAgain
		}
	}
	index := r.CommitIndex()
	if err := await(r.VerifyLeader()); err != nil {
		return 0, errAgain
	}
	// The check comes after the round: it shows that the node led, in one term, all the time.
	if r.State() != raft.Leader || r.CurrentTerm() != term {
		return 0, errAgain
	}
	return index, nil
}
