package fsm_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"bulwark/cluster/fsm"
	"bulwark/storage"
	"bulwark/storage/entry"
)

// counter is a state that counts what is applied.
type counter struct {
	index, persisted uint64
	entries          int
	failed           error
	flush            error
}

func (c *counter) Apply(index uint64, entries []*entry.Entry) []entry.Outcome {
	c.index, c.entries = index, c.entries+len(entries)
	out := make([]entry.Outcome, len(entries))
	for i := range out {
		out[i] = entry.Outcome{Status: entry.Applied, Revision: uint64(c.entries - len(entries) + i + 1)}
	}
	return out
}

func (c *counter) Applied() (uint64, uint64)           { return c.index, uint64(c.entries) }
func (c *counter) Persisted() uint64                   { return c.persisted }
func (c *counter) Snapshot() (storage.Snapshot, error) { return nil, errors.New("none") }
func (c *counter) Changed(uint64) <-chan struct{}      { return nil }
func (c *counter) Flush() error                        { return c.flush }
func (c *counter) Failed() error                       { return c.failed }
func (c *counter) Close() error                        { return nil }

func batch(n int) []byte {
	var all [][]byte
	for i := range n {
		all = append(all, entry.Append(nil, &entry.Entry{ID: entry.ID{15: byte(i + 1)}, Tenant: entry.ID{15: 9}}))
	}
	return entry.AppendBatch(nil, all)
}

func newFSM(t *testing.T, s fsm.State) (*fsm.FSM, *[]error) {
	t.Helper()
	var stops []error
	f, err := fsm.New(s, func(err error) { stops = append(stops, err) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f, &stops
}

func command(index, term uint64, data []byte) *raft.Log {
	return &raft.Log{Type: raft.LogCommand, Index: index, Term: term, Data: data}
}

func TestNewWantsItsGuards(t *testing.T) {
	t.Parallel()
	if _, err := fsm.New(nil, func(error) {}, nil); err == nil {
		t.Error("no state")
	}
	if _, err := fsm.New(&counter{}, nil, nil); err == nil {
		t.Error("nobody to tell")
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	s := &counter{}
	f, stops := newFSM(t, s)
	got := f.ApplyBatch([]*raft.Log{
		{Type: raft.LogConfiguration, Index: 1, Term: 1, Data: []byte("raft's own")},
		command(2, 1, batch(2)), command(3, 1, nil), command(4, 1, batch(3)),
	})
	if len(got) != 4 || len(got[1].([]entry.Outcome)) != 2 || len(got[3].([]entry.Outcome)) != 3 || got[3].([]entry.Outcome)[2].Revision != 5 {
		t.Errorf("outcomes %v", got)
	}
	if index, term := f.Consumed(); index != 4 || term != 1 || s.index != 4 || s.entries != 5 {
		t.Errorf("consumed %d of term %d; the state is at %d with %d entries", index, term, s.index, s.entries)
	}
	// A replay passes over what the state holds, and counts it as consumed.
	f.ApplyBatch([]*raft.Log{command(3, 1, batch(1)), command(4, 2, batch(1)), command(5, 2, batch(1))})
	if index, term := f.Consumed(); index != 5 || term != 2 || s.entries != 6 {
		t.Errorf("after a replay: consumed %d of term %d, %d entries", index, term, s.entries)
	}
	if len(*stops) > 0 {
		t.Error(*stops)
	}
}

func TestStops(t *testing.T) {
	t.Parallel()
	later := batch(1)
	later[0] = entry.Format + 1
	for name, test := range map[string]struct {
		data  []byte
		fails error
		want  string
	}{
		"later format":     {later, nil, "format"},
		"not a batch":      {[]byte{entry.Format, 3, 1}, nil, "index 7"},
		"database refuses": {batch(1), errors.New("no space"), "no space"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &counter{failed: test.fails}
			f, stops := newFSM(t, s)
			first := f.Apply(command(7, 1, test.data))
			after := s.entries
			second := f.Apply(command(8, 1, batch(1)))
			for _, r := range []any{first, second} {
				if err, ok := r.(error); !ok || !errors.Is(err, fsm.ErrStopped) || !strings.Contains(err.Error(), test.want) {
					t.Errorf("the answer is %v", r)
				}
			}
			if len(*stops) != 1 || !strings.Contains((*stops)[0].Error(), test.want) {
				t.Errorf("it was told %v", *stops)
			}
			if index, _ := f.Consumed(); index != 0 || s.entries != after {
				t.Errorf("it went on: consumed %d", index)
			}
			if _, err := f.Snapshot(); err == nil {
				t.Error("it marked a state that lacks an entry")
			}
		})
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	f, _ := newFSM(t, &counter{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := f.Wait(ctx, 3); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for what does not come: %v", err)
	}
	done := make(chan error, 20)
	for range cap(done) {
		go func() { done <- f.Wait(t.Context(), 3) }()
	}
	for i := range uint64(3) {
		f.Apply(command(i+1, 1, batch(1)))
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// sink is a raft.SnapshotSink.
type sink struct {
	marked uint64
	closed bool
}

func (s *sink) Write(b []byte) (int, error) { return len(b), nil }
func (s *sink) Close() error                { s.closed = true; return nil }
func (s *sink) ID() string                  { return "" }
func (s *sink) Cancel() error               { return nil }

type marker struct{ sink }

func (m *marker) Mark(persisted uint64) { m.marked = persisted }

func TestMark(t *testing.T) {
	t.Parallel()
	s := &counter{}
	f, _ := newFSM(t, s)
	f.Apply(command(5, 1, batch(1)))
	snapshot, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Release()
	m := &marker{}
	if err := snapshot.Persist(m); err == nil || m.closed {
		t.Error("it marked what the database has not persisted")
	}
	s.persisted, s.flush = 6, errors.New("no space")
	if err := snapshot.Persist(m); err == nil || m.closed {
		t.Error("it marked what the database could not flush")
	}
	s.flush = nil
	if err := snapshot.Persist(m); err != nil || !m.closed || m.marked != 6 {
		t.Errorf("marked %d, closed %v, %v", m.marked, m.closed, err)
	}
	if err := snapshot.Persist(&sink{}); err == nil {
		t.Error("it marked where copies are kept")
	}
}
