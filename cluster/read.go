package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
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
	for look := 0; ; look++ {
		turned := c.turns()
		if c.frozen() {
			return 0, nil
		}
		if err := c.usable(); err != nil {
			return 0, err
		}
		self := c.raft.State() == raft.Leader
		leader, known := c.Leader()
		if self || known && leader.ID != c.config.Node {
			r := &c.reads
			if !self {
				r = &c.remote
			}
			index, err := r.join(ctx, c.closing, c.failed)
			if err == nil {
				return index, nil
			}
			if !errors.Is(err, errAgain) {
				if ctx.Err() != nil {
					return 0, c.noLeader(ctx)
				}
				return 0, c.unavailable()
			}
		}
		if err := c.lookAgain(ctx, turned, look); err != nil {
			return 0, err
		}
	}
}

// leaderIndex is readIndex for another node: it does not ask any further.
func (c *Cluster) leaderIndex(ctx context.Context) (uint64, error) {
	if index, ok := c.aloneIndex(); ok {
		return index, nil
	}
	if c.raft.State() != raft.Leader {
		return 0, errNotLeader()
	}
	index, err := c.reads.join(ctx, c.closing, c.failed)
	if err != nil {
		return 0, errNotLeader()
	}
	return index, nil
}

// remoteRound asks the leader for a read index.
func (c *Cluster) remoteRound() (uint64, error) {
	leader, ok := c.Leader()
	if !ok || leader.ID == c.config.Node {
		return 0, errAgain
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.config.Heartbeat)
	defer cancel()
	answer, err := c.Call(ctx, leader.ID, "read-index", nil)
	if err != nil || len(answer) != 8 {
		return 0, errAgain
	}
	return binary.BigEndian.Uint64(answer), nil
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

// run holds rounds, each for all who wait when it begins, until the node closes or fails.
func (c *Cluster) runRounds(r *rounds, hold func() (uint64, error)) {
	defer c.running.Done()
	defer close(r.drained)
	for {
		select {
		case <-r.wake:
		case <-c.closing:
			return
		case <-c.failed:
			return
		}
		r.mu.Lock()
		readers := r.waiting
		r.waiting = nil
		r.mu.Unlock()
		var a answer
		a.index, a.err = hold()
		r.held.Add(1)
		r.served.Add(uint64(len(readers)))
		for _, reader := range readers {
			reader <- a
		}
	}
}

// leadership is what a round asks of raft.
type leadership interface {
	State() raft.RaftState
	CurrentTerm() uint64
	CommitIndex() uint64
	Apply(cmd []byte, timeout time.Duration) raft.ApplyFuture
}

var _ leadership = (*raft.Raft)(nil)

func (c *Cluster) round() (uint64, error) {
	return confirm(c.raft, c.fsm.Consumed, func(f raft.Future) error { return await(c, f) }, c.majority)
}

// confirm returns the commit index at its beginning, when this node led from then to its end. (Raft dissertation, §6.4.)
func confirm(r leadership, consumed func() (index, term uint64), await func(raft.Future) error, majority func(term uint64) error) (uint64, error) {
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
	if err := majority(term); err != nil {
		return 0, errAgain
	}
	// The check comes after the round: it shows that the node led, in one term, all the time.
	if r.State() != raft.Leader || r.CurrentTerm() != term {
		return 0, errAgain
	}
	return index, nil
}

// majority returns when a majority of the voters, this node among them, has said that it knows of no term above ours. raft's
// own VerifyLeader would count answers to questions that were asked before the round, and goes through its main loop, which
// is blocked while the log syncs.
func (c *Cluster) majority(term uint64) error {
	voters, have := 0, 0
	var others []storage.ID
	members := c.Members()
	for _, m := range members {
		switch {
		case !m.Voter:
			continue
		case m.ID == c.config.Node:
			have++
		default:
			others = append(others, m.ID)
		}
		voters++
	}
	answers := make(chan bool, len(others))
	// Whoever is not needed any more is not waited for: a node that is cut off must not gather questions.
	ctx, cancel := context.WithTimeout(context.Background(), c.config.Heartbeat)
	defer cancel()
	for _, id := range others {
		go func() {
			b, err := c.Call(ctx, id, "confirm", nil)
			answers <- err == nil && len(b) == 8 && binary.BigEndian.Uint64(b) <= term
		}()
	}
	for need := voters/2 + 1; have < need; {
		if len(others) == 0 {
			return errAgain
		}
		others = others[1:]
		if <-answers {
			have++
		}
	}
	// The majority must be one of the voters that decide now.
	if !slices.Equal(members, c.Members()) {
		return errAgain
	}
	return nil
}
