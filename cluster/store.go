package cluster

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// A store is what raft keeps its log, term and vote in. raft-wal's WAL is one.
type store interface {
	raft.LogStore
	raft.StableStore
}

// A guarded store stands between raft and its disk. hashicorp/raft panics when its term cannot be written or an entry
// cannot be read, which would take the whole process down. Here the first error fails the node instead: it is reported,
// nothing is written any more, and where raft would panic its goroutine ends (runtime.Goexit runs its deferred calls), as if
// it had crashed alone. Nothing that was not written is ever answered as written.
type guardedStore struct {
	store
	marks   *marks
	lengths *lengths
	hold    func() uint64 // the lowest entry that is wanted; nil: none
	fail    func(error)   // must not block
	limit   int64         // bytes, after which
	full    chan<- struct{}
	written atomic.Int64
	running atomic.Bool // the callers are raft's goroutines

	once   sync.Once
	failed atomic.Pointer[error]
}

func (g *guardedStore) err() error {
	if err := g.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (g *guardedStore) refuse(err error) error {
	g.once.Do(func() {
		g.failed.Store(&err)
		g.fail(err)
	})
	return g.err()
}

func (g *guardedStore) write(f func() error) error {
	if err := g.err(); err != nil {
		return err
	}
	if err := f(); err != nil {
		return g.refuse(fmt.Errorf("the disk refused a write: %w", err))
	}
	return nil
}

func (g *guardedStore) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

func (g *guardedStore) StoreLogs(logs []*raft.Log) error {
	err := g.write(func() error {
		if err := g.store.StoreLogs(logs); err != nil {
			return err
		}
		return g.marks.filled()
	})
	if err == nil {
		n := 0
		for _, l := range logs {
			n += g.lengths.add(l)
		}
		if g.written.Add(int64(n)) > g.limit {
			select {
			case g.full <- struct{}{}:
			default:
			}
		}
	}
	return err
}

// DeleteRange is called for three things: to cut the log behind a mark, which leaves the last entry (TrailingLogs is one)
// and is what lengths decides about; to drop entries at the end that a leader does not have; and to empty the log.
func (g *guardedStore) DeleteRange(from, to uint64) error {
	return g.write(func() error {
		first, err := g.store.FirstIndex()
		if err != nil {
			return err
		}
		last, err := g.store.LastIndex()
		if err != nil {
			return err
		}
		if from <= first && to < last {
			var wanted uint64
			if g.hold != nil {
				wanted = g.hold()
			}
			if to = g.lengths.cut(to, wanted); to < from {
				return nil
			}
		} else if from <= first {
			if err := g.marks.emptying(); err != nil {
				return err
			}
		}
		return g.store.DeleteRange(from, to)
	})
}

func (g *guardedStore) Set(key, value []byte) error {
	return g.write(func() error { return g.store.Set(key, value) })
}

// currentTerm is the key whose write raft does not expect to fail. It does expect a vote's.
const currentTerm = "CurrentTerm"

func (g *guardedStore) SetUint64(key []byte, value uint64) error {
	err := g.write(func() error { return g.store.SetUint64(key, value) })
	if err != nil && string(key) == currentTerm {
		g.end()
	}
	return err
}

func (g *guardedStore) GetLog(index uint64, l *raft.Log) error {
	err := g.store.GetLog(index, l)
	if err == nil && l.Index != index {
		err = errors.New("it is another entry")
	}
	if err == nil || errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	g.refuse(fmt.Errorf("reading the log, entry %d: %w", index, err))
	g.end()
	return g.err()
}

// end ends one of raft's goroutines.
func (g *guardedStore) end() {
	if g.running.Load() {
		runtime.Goexit()
	}
}

// IsMonotonic tells raft that the log has no gaps, as raft-wal's.
func (g *guardedStore) IsMonotonic() bool {
	m, ok := g.store.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}
