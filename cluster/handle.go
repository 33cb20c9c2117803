package cluster

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// A handle is raft as the rest of the package sees it. It is there from Open to Close, also before raft itself runs, when other
// nodes may call already. Then it is a follower without a leader, and what is asked of it is refused as by a raft that has
// shut down, before anything is written.
type handle struct {
	inner atomic.Pointer[raft.Raft]

	mu     sync.Mutex
	closed bool
}

// run makes r the running raft, or shuts it down when the handle is closed already.
func (h *handle) run(r *raft.Raft) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.inner.Store(r)
	return true
}

// close makes sure that nothing runs after it, and returns what runs now.
func (h *handle) close() *raft.Raft {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	return h.inner.Load()
}

func (h *handle) State() raft.RaftState {
	if r := h.inner.Load(); r != nil {
		return r.State()
	}
	return raft.Follower
}

func (h *handle) CurrentTerm() uint64 {
	if r := h.inner.Load(); r != nil {
		return r.CurrentTerm()
	}
	return 0
}

func (h *handle) LastIndex() uint64 {
	if r := h.inner.Load(); r != nil {
		return r.LastIndex()
	}
	return 0
}

func (h *handle) CommitIndex() uint64 {
	if r := h.inner.Load(); r != nil {
		return r.CommitIndex()
	}
	return 0
}

func (h *handle) AppliedIndex() uint64 {
	if r := h.inner.Load(); r != nil {
		return r.AppliedIndex()
	}
	return 0
}

func (h *handle) LastContact() time.Time {
	if r := h.inner.Load(); r != nil {
		return r.LastContact()
	}
	return time.Time{}
}

func (h *handle) LeaderWithID() (raft.ServerAddress, raft.ServerID) {
	if r := h.inner.Load(); r != nil {
		return r.LeaderWithID()
	}
	return "", ""
}

func (h *handle) GetConfiguration() raft.ConfigurationFuture {
	if r := h.inner.Load(); r != nil {
		return r.GetConfiguration()
	}
	return noConfiguration{}
}

func (h *handle) Stats() map[string]string {
	if r := h.inner.Load(); r != nil {
		return r.Stats()
	}
	return map[string]string{}
}

func (h *handle) Apply(cmd []byte, timeout time.Duration) raft.ApplyFuture {
	if r := h.inner.Load(); r != nil {
		return r.Apply(cmd, timeout)
	}
	return refused{raft.ErrNotLeader}
}

func (h *handle) Barrier(timeout time.Duration) raft.Future {
	if r := h.inner.Load(); r != nil {
		return r.Barrier(timeout)
	}
	return refused{raft.ErrNotLeader}
}

func (h *handle) VerifyLeader() raft.Future {
	if r := h.inner.Load(); r != nil {
		return r.VerifyLeader()
	}
	return refused{raft.ErrNotLeader}
}

func (h *handle) Snapshot() raft.SnapshotFuture {
	if r := h.inner.Load(); r != nil {
		return r.Snapshot()
	}
	return refused{errResting}
}

func (h *handle) AddVoter(id raft.ServerID, addr raft.ServerAddress, prev uint64, timeout time.Duration) raft.IndexFuture {
	if r := h.inner.Load(); r != nil {
		return r.AddVoter(id, addr, prev, timeout)
	}
	return refused{raft.ErrNotLeader}
}

func (h *handle) AddNonvoter(id raft.ServerID, addr raft.ServerAddress, prev uint64, timeout time.Duration) raft.IndexFuture {
	if r := h.inner.Load(); r != nil {
		return r.AddNonvoter(id, addr, prev, timeout)
	}
	return refused{raft.ErrNotLeader}
}

func (h *handle) DemoteVoter(id raft.ServerID, prev uint64, timeout time.Duration) raft.IndexFuture {
	if r := h.inner.Load(); r != nil {
		return r.DemoteVoter(id, prev, timeout)
	}
	return refused{raft.ErrNotLeader}
}

func (h *handle) RemoveServer(id raft.ServerID, prev uint64, timeout time.Duration) raft.IndexFuture {
	if r := h.inner.Load(); r != nil {
		return r.RemoveServer(id, prev, timeout)
	}
	return refused{raft.ErrNotLeader}
}

func (h *handle) LeadershipTransfer() raft.Future {
	if r := h.inner.Load(); r != nil {
		return r.LeadershipTransfer()
	}
	return refused{raft.ErrNotLeader}
}

func (h *handle) LeadershipTransferToServer(id raft.ServerID, addr raft.ServerAddress) raft.Future {
	if r := h.inner.Load(); r != nil {
		return r.LeadershipTransferToServer(id, addr)
	}
	return refused{raft.ErrNotLeader}
}

func (h *handle) ReloadableConfig() raft.ReloadableConfig {
	if r := h.inner.Load(); r != nil {
		return r.ReloadableConfig()
	}
	return raft.ReloadableConfig{}
}

func (h *handle) ReloadConfig(rc raft.ReloadableConfig) error {
	if r := h.inner.Load(); r != nil {
		return r.ReloadConfig(rc)
	}
	return errResting
}

var errResting = errors.New("the log does not run yet")

// refused is any future of a raft that does not run.
type refused struct{ err error }

func (f refused) Error() error  { return f.err }
func (f refused) Index() uint64 { return 0 }
func (f refused) Response() any { return nil }
func (f refused) Open() (*raft.SnapshotMeta, io.ReadCloser, error) {
	return nil, nil, f.err
}

type noConfiguration struct{}

func (noConfiguration) Error() error                      { return nil }
func (noConfiguration) Index() uint64                     { return 0 }
func (noConfiguration) Configuration() raft.Configuration { return raft.Configuration{} }
