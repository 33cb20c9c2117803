package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"bulwark/cluster/fsm"
)

// A mark says up to where the log is no longer needed, because the database holds it.
type mark struct {
	Index, Term        uint64
	Configuration      []byte // as raft encodes it
	ConfigurationIndex uint64
	// Persisted is what the database held when the mark was made. A database that holds less was put back to an older copy.
	Persisted uint64
}

const (
	markName    = "mark"
	markKind    = "mark"
	markVersion = 1
	copyPattern = "copy-*" + tmpSuffix
)

// marks is a raft.SnapshotStore that keeps one mark and no copies. The database is copied only when another node asks.
type marks struct {
	dir   string
	state fsm.State

	mu   sync.Mutex
	last *mark
}

func openMarks(dir string, state fsm.State) (*marks, error) {
	m := &marks{dir: dir, state: state}
	b, err := readSmall(dir, markName, markKind, markVersion)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	m.last = new(mark)
	if err := json.Unmarshal(b, m.last); err != nil {
		return nil, fmt.Errorf("reading %s: %w", filepath.Join(dir, markName), errDamaged)
	}
	return m, nil
}

func (m *marks) get() *mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

func (k *mark) meta() *raft.SnapshotMeta {
	return &raft.SnapshotMeta{
		Version: 1, ID: fmt.Sprintf("%d-%d", k.Term, k.Index), Index: k.Index, Term: k.Term,
		Configuration: raft.DecodeConfiguration(k.Configuration), ConfigurationIndex: k.ConfigurationIndex,
	}
}

func (m *marks) List() ([]*raft.SnapshotMeta, error) {
	if k := m.get(); k != nil {
		return []*raft.SnapshotMeta{k.meta()}, nil
	}
	return nil, nil
}

// Open copies the database, so that its size is known before it is sent, and returns the copy. The copy may be newer than
// the mark: the node that takes it passes over the entries that it already holds.
func (m *marks) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	k := m.get()
	if k == nil || k.meta().ID != id {
		return nil, nil, fmt.Errorf("there is no mark %q", id)
	}
	copier, ok := m.state.(fsm.Copier)
	if !ok {
		return nil, nil, errors.New("copying the database: this database cannot write a copy of itself")
	}
	f, err := os.CreateTemp(m.dir, copyPattern)
	if err != nil {
		return nil, nil, fmt.Errorf("copying the database: %w", err)
	}
	c := &copied{File: f}
	size, err := copier.WriteTo(f)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		c.Close()
		return nil, nil, fmt.Errorf("copying the database: %w", err)
	}
	meta := k.meta()
	meta.Size = size
	return meta, c, nil
}

// copied is a copy of the database that goes away when it is closed.
type copied struct{ *os.File }

func (c *copied) Close() error {
	err := c.File.Close()
	if rerr := os.Remove(c.Name()); err == nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = rerr
	}
	return err
}

func (m *marks) Create(_ raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &sink{marks: m, mark: mark{Index: index, Term: term, Configuration: raft.EncodeConfiguration(c), ConfigurationIndex: cIndex}}, nil
}

// A sink makes one mark.
type sink struct {
	marks  *marks
	mark   mark
	marked bool
	done   bool
}

// Mark is fsm.Marker.
func (s *sink) Mark(persisted uint64) { s.mark.Persisted, s.marked = persisted, true }

// Write refuses another node's copy: a node takes one over when it joins, not through raft.
func (s *sink) Write([]byte) (int, error) {
	return 0, errors.New("taking over another node's database while running is not supported: let the node join again")
}

func (s *sink) Close() error {
	if s.done {
		return nil
	}
	s.done = true
	if !s.marked {
		return errors.New("a mark needs the index that the database has persisted")
	}
	b, err := json.Marshal(&s.mark)
	if err != nil {
		return err
	}
	if err := writeSmall(s.marks.dir, markName, markKind, markVersion, b); err != nil {
		return err
	}
	s.marks.mu.Lock()
	s.marks.last = &s.mark
	s.marks.mu.Unlock()
	return nil
}

func (s *sink) Cancel() error { s.done = true; return nil }

func (s *sink) ID() string { return s.mark.meta().ID }

// keepShort marks the database and drops the log before the mark whenever enough was written since the last time.
func (c *Cluster) keepShort(ctx context.Context) {
	defer c.running.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.full:
		}
		c.store.written.Store(0)
		if err := await(c, c.raft.Snapshot()); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && ctx.Err() == nil {
			c.logger.Warn("marking the log", "error", err)
		}
	}
}

// lastMark marks the database before the node stops, so that the next start has nothing to replay. It may fail: then there
// is something to replay.
func (c *Cluster) lastMark() {
	done := make(chan error, 1)
	go func() { done <- c.raft.Snapshot().Error() }()
	timer := time.NewTimer(c.config.NoLeader)
	defer timer.Stop()
	select {
	case err := <-done:
		if err != nil {
			c.logger.Debug("marking the log before stopping", "error", err)
		}
	case <-c.failed:
	case <-timer.C:
		c.logger.Warn("the database takes long to flush: the next start will replay the log")
	}
}
