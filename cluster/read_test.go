package cluster_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"bulwark/cluster"
)

// aRaft answers a round as raft may, with turns in it that take luck to meet on a network.
type aRaft struct {
	state        raft.RaftState
	term, commit uint64
	applied      int
	onApply      func(*aRaft) error
	onVerify     func(*aRaft) error
}

func (r *aRaft) State() raft.RaftState { return r.state }
func (r *aRaft) CurrentTerm() uint64   { return r.term }
func (r *aRaft) CommitIndex() uint64   { return r.commit }

func (r *aRaft) Apply([]byte, time.Duration) raft.ApplyFuture {
	r.applied++
	if r.onApply != nil {
		return done{r.onApply(r)}
	}
	return done{}
}

func (r *aRaft) VerifyLeader() raft.Future {
	if r.onVerify != nil {
		return done{r.onVerify(r)}
	}
	return done{}
}

type done struct{ err error }

func (d done) Error() error          { return d.err }
func (d done) Index() uint64         { return 0 }
func (d done) Response() interface{} { return nil }

// TestRound holds each step of a round to what it is for.
func TestRound(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		raft     aRaft
		follows  bool
		consumed uint64 // the term
		after    uint64 // the term after an entry was applied
		index    uint64 // 0: none
		applies  int
	}{
		"it leads":           {consumed: 5, index: 9},
		"it follows":         {follows: true, consumed: 5},
		"a new leader":       {consumed: 4, after: 5, index: 9, applies: 1},
		"its entry is lost":  {raft: aRaft{onApply: func(*aRaft) error { return broken }}, consumed: 4, after: 5, applies: 1},
		"its entry is older": {consumed: 4, after: 4, applies: 1},
		"a majority is gone": {raft: aRaft{onVerify: func(*aRaft) error { return broken }}, consumed: 5},
		"it is told too late": {raft: aRaft{onVerify: func(r *aRaft) error {
			r.state = raft.Follower
			return nil
		}}, consumed: 5},
		// Others led, and acknowledged entries, between the two terms.
		"it leads again": {raft: aRaft{onVerify: func(r *aRaft) error {
			r.term += 2
			return nil
		}}, consumed: 5},
		"it leads again before its entry": {raft: aRaft{onApply: func(r *aRaft) error {
			r.term += 2
			return nil
		}}, consumed: 4, after: 5, applies: 1},
		// What is committed meanwhile is not waited for.
		"others write": {raft: aRaft{onVerify: func(r *aRaft) error {
			r.commit++
			return nil
		}}, consumed: 5, index: 9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := c.raft
			r.term, r.commit = 5, 9
			if !c.follows {
				r.state = raft.Leader
			}
			index, err := cluster.Confirm(&r, func() (uint64, uint64) {
				if r.applied > 0 {
					return 9, c.after
				}
				return 8, c.consumed
			})
			if index != c.index || (err == nil) != (c.index > 0) || r.applied != c.applies {
				t.Errorf("index %d, %v, %d entries; want %d, %d", index, err, r.applied, c.index, c.applies)
			}
		})
	}
}

// TestSnapshotWaitsForTheState reads while an entry is committed and not yet in the state.
func TestSnapshotWaitsForTheState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t)
		defer c.close()
		lead := c.leader(-1)
		mustPropose(t, c.nodes[lead], put(c.tenant, "k", "old"))
		c.states[lead].slow.Store(int64(time.Second))
		before := c.nodes[lead].Status()
		answered := make(chan error, 1)
		go func() {
			_, err := c.nodes[lead].Propose(within(t, 10*time.Second), put(c.tenant, "k", "new"))
			answered <- err
		}()
		time.Sleep(500 * time.Millisecond) // in virtual time: it is committed, and half applied
		if s := c.nodes[lead].Status(); s.Commit <= before.Commit || s.Applied != before.Applied {
			t.Fatalf("it was at %d, applied %d, and is at %d, %d", before.Commit, before.Applied, s.Commit, s.Applied)
		}
		s, err := c.nodes[lead].Snapshot(within(t, 10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Release()
		if got := get(t, s, c.tenant, "k"); got != "new" {
			t.Errorf("a committed entry reads as %q", got)
		}
		if err := <-answered; err != nil {
			t.Error(err)
		}
	})
}
