package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"bulwark/storage"
	"bulwark/storage/entry"
)

// What becomes of a proposal. Whoever moves it out of queued owns what happens to it.
const (
	queued int32 = iota
	taken        // by the proposer: from now on its outcome may be in doubt
	left         // by its caller
)

type proposal struct {
	encoded []byte
	state   atomic.Int32
	done    chan struct{} // closed after outcome and err are set
	outcome entry.Outcome
	index   uint64 // of the log entry that it became part of
	err     error
}

func (p *proposal) answer(o entry.Outcome, err error) {
	p.outcome, p.err = o, err
	close(p.done)
}

// A queue holds the proposals that wait for the next write of the log.
type queue struct {
	mu      sync.Mutex
	waiting []*proposal
	bytes   int
	closed  bool
	wake    chan struct{} // has room for one
	drained chan struct{} // closed when nothing is under way any more, after Close or a failure

	entries, batches atomic.Uint64
}

func (q *queue) init() {
	q.wake = make(chan struct{}, 1)
	q.drained = make(chan struct{})
}

// add returns false when the queue is full or closed.
func (q *queue) add(p *proposal, limit int) (ok, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.bytes+len(p.encoded) > limit && len(q.waiting) > 0 {
		return false, q.closed
	}
	q.waiting = append(q.waiting, p)
	q.bytes += len(p.encoded)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return true, false
}

// take returns the proposals of the next batch: at least one, unless none waits, and no more than limit bytes of others.
func (q *queue) take(limit int) []*proposal {
	q.mu.Lock()
	defer q.mu.Unlock()
	var batch []*proposal
	size, n := 0, 0
	for _, p := range q.waiting {
		if len(batch) > 0 && (size+len(p.encoded) > limit || len(batch) == maxBatchEntries) {
			break
		}
		n++
		q.bytes -= len(p.encoded)
		if p.state.CompareAndSwap(queued, taken) {
			batch = append(batch, p)
			size += len(p.encoded)
		}
	}
	clear(q.waiting[:n])
	q.waiting = q.waiting[n:]
	if len(q.waiting) == 0 {
		q.waiting = nil
	} else {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return batch
}

func (q *queue) close() []*proposal {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	var rest []*proposal
	for {
		batch := q.take(1 << 30)
		if len(batch) == 0 {
			return rest
		}
		rest = append(rest, batch...)
	}
}

// maxBatchEntries bounds the entries in one write of the log.
const maxBatchEntries = 1024

// Propose hands e to the log and returns when this node's state has it. Errors are *storage.Error (e was not applied) or
// *storage.InDoubt (nobody knows yet; proposing e again is safe).
func (c *Cluster) Propose(ctx context.Context, e *entry.Entry) (entry.Outcome, error) {
	// An entry that breaks the format's rules must not reach the log: no node could read it.
	if err := e.Validate(); errors.Is(err, entry.ErrLimit) {
		return entry.Outcome{}, &storage.Error{Fault: storage.TooLarge, Code: "entry_too_large",
			Message: "the transaction is too large: write less at a time", Cause: err}
	} else if err != nil {
		_, revision := c.state.Applied()
		return entry.Outcome{Status: entry.Invalid, Revision: revision}, nil
	}
	encoded := entry.AppendFormat(nil, c.format(), e)
	if len(encoded) > c.config.MaxEntry {
		return entry.Outcome{}, storage.Errorf(storage.TooLarge, "entry_too_large",
			"the transaction takes %d bytes and the limit is %d: write less at a time", len(encoded), c.config.MaxEntry)
	}
	if err := c.disk.takes(e); err != nil {
		return entry.Outcome{}, err
	}
	var outcome entry.Outcome
	_, err := c.atLeader(ctx, func(ctx context.Context, leader Member, self bool) (_ []byte, err error) {
		if self {
			outcome, _, err = c.proposeHere(ctx, encoded)
		} else {
			outcome, err = c.forward(ctx, leader, encoded)
		}
		return nil, err
	})
	return outcome, err
}

// proposeHere proposes an encoded entry on the node that leads. It returns also the index of the log.
func (c *Cluster) proposeHere(ctx context.Context, encoded []byte) (entry.Outcome, uint64, error) {
	p := &proposal{encoded: encoded, done: make(chan struct{})}
	if ok, closed := c.proposals.add(p, c.config.MaxWaiting); closed {
		return entry.Outcome{}, 0, c.unavailable()
	} else if !ok {
		return entry.Outcome{}, 0, storage.Errorf(storage.TooMany, "log_busy", "too many writes are waiting: try again in a moment")
	}
	select {
	case <-p.done:
		return p.outcome, p.index, p.err
	case <-ctx.Done():
	}
	if p.state.CompareAndSwap(queued, left) {
		return entry.Outcome{}, 0, timedOut(ctx, "the write was not begun in time: try again")
	}
	select {
	case <-p.done: // both happened
		return p.outcome, p.index, p.err
	default:
		return entry.Outcome{}, 0, &storage.InDoubt{Cause: ctx.Err()}
	}
}

func timedOut(ctx context.Context, message string) error {
	return &storage.Error{Fault: storage.Unavailable, Code: "timeout", Message: message, Cause: ctx.Err()}
}

// patience bounds how long a call waits for a leader.
func (c *Cluster) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.config.NoLeader)
}

func (c *Cluster) noLeader(ctx context.Context) error {
	return &storage.Error{Fault: storage.Unavailable, Code: "no_leader",
		Message: "the cluster has no leader that this node can reach: try again in a moment", Cause: ctx.Err()}
}

// usable returns an error when this node takes no more part in the log.
func (c *Cluster) usable() error {
	select {
	case <-c.closing:
		return c.unavailable()
	default:
	}
	if c.failure.Load() != nil {
		return c.unavailable()
	}
	if c.peers.removed.Load() {
		return storage.Errorf(storage.Unavailable, "removed", "the cluster has removed this node: use another, or let it join again")
	}
	return nil
}

func (c *Cluster) unavailable() error {
	if err := c.Err(); err != nil {
		return &storage.Error{Fault: storage.Unavailable, Code: "log_stopped",
			Message: "this node cannot write: its log has stopped; the node's own log says why, and what it holds can still be read", Cause: err}
	}
	return storage.Errorf(storage.Unavailable, "stopping", "this node is stopping: try another, or again in a moment")
}

// propose gathers what waits into one write of the log at a time, and keeps InFlight of them under way. While one is being
// synced the next gathers.
func (c *Cluster) propose(ctx context.Context) {
	defer c.running.Done()
	slots := make(chan struct{}, c.config.InFlight)
	var under sync.WaitGroup
	defer close(c.proposals.drained)
	defer under.Wait()
	defer func() {
		for _, p := range c.proposals.close() {
			p.answer(entry.Outcome{}, c.unavailable())
		}
	}()
	for {
		select {
		case slots <- struct{}{}:
		case <-c.closing:
			return
		case <-c.failed:
			return
		}
		select {
		case <-c.proposals.wake:
		case <-c.closing:
			return
		case <-c.failed:
			return
		}
		batch := c.proposals.take(c.config.MaxBatch)
		if len(batch) == 0 {
			<-slots
			continue
		}
		c.proposals.entries.Add(uint64(len(batch)))
		c.proposals.batches.Add(1)
		encoded := make([][]byte, len(batch))
		size := 0
		for i, p := range batch {
			encoded[i] = p.encoded
			size += len(p.encoded)
		}
		// The state keeps parts of these bytes, so they are never used again.
		data := entry.AppendBatch(make([]byte, 0, size+16*len(batch)+16), encoded)
		f := c.raft.Apply(data, 0)
		under.Go(func() {
			c.settle(batch, f)
			<-slots
		})
	}
}

// settle answers a batch.
func (c *Cluster) settle(batch []*proposal, f raft.ApplyFuture) {
	err := await(c, f)
	var outcomes []entry.Outcome
	if err == nil {
		switch r := f.Response().(type) {
		case []entry.Outcome:
			outcomes = r
		case error:
			err = r
		}
		if err == nil && len(outcomes) != len(batch) {
			err = fmt.Errorf("%d outcomes for %d entries", len(outcomes), len(batch))
		}
	}
	if err != nil {
		err = c.explain(err)
		for _, p := range batch {
			p.answer(entry.Outcome{}, err)
		}
		return
	}
	for i, p := range batch {
		p.index = f.Index()
		p.answer(outcomes[i], nil)
	}
}

// explain says what raft's error means for the entries of a batch. raft answers the first two before it has written
// anything; with any other, and with ones to come, the entries may be in somebody's log.
func (c *Cluster) explain(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader):
		return storage.Errorf(storage.Unavailable, "not_leader", "the leader has just changed: try again")
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return storage.Errorf(storage.Unavailable, "not_leader", "leadership is moving to another node: try again")
	case c.store.err() != nil:
		return &storage.InDoubt{Cause: c.unavailable()}
	}
	return &storage.InDoubt{Cause: err}
}
