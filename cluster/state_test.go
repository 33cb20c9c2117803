package cluster_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulwark/cluster"
	"bulwark/storage"
	"bulwark/storage/entry"
	"bulwark/storage/storagetest"
)

// memState is a fsm.State in memory. Reopening it keeps what it persisted, as a database does.
type memState struct {
	mu        sync.Mutex
	engine    *storagetest.Engine
	index     uint64
	revision  uint64
	persisted uint64
	failed    error
	closed    bool
	flushes   int
	slow      atomic.Int64 // nanoseconds of each Apply
}

func newMemState() *memState { return &memState{engine: storagetest.NewEngine()} }

func (m *memState) Apply(index uint64, entries []*entry.Entry) []entry.Outcome {
	if d := m.slow.Load(); d > 0 {
		time.Sleep(time.Duration(d)) // in virtual time
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if index <= m.index {
		panic("an entry was applied twice")
	}
	out := make([]entry.Outcome, len(entries))
	for i, e := range entries {
		o, err := m.engine.Propose(context.Background(), e)
		if err != nil {
			panic(err)
		}
		out[i] = o
		if o.Status == entry.Applied {
			m.revision = o.Revision
		}
	}
	m.index = index
	return out
}

func (m *memState) Applied() (uint64, uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.index, m.revision
}

func (m *memState) Persisted() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.persisted
}

func (m *memState) Snapshot() (storage.Snapshot, error)      { return m.engine.Local() }
func (m *memState) Changed(rev uint64) <-chan struct{}       { return m.engine.Changed(rev) }
func (m *memState) WriteTo(w io.Writer) (n int64, err error) { return 0, errors.New("not kept") }

func (m *memState) Flush() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.persisted = m.index
	m.flushes++
	return m.failed
}

func (m *memState) Failed() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failed
}

func (m *memState) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

func newID() storage.ID {
	var id storage.ID
	rand.Read(id[:])
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	return id
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// loopback returns a listener of its own port, and a dialler.
func loopback(t testing.TB) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// single is the configuration of a cluster of one.
func single(t testing.TB, dir string, state *memState, node, clusterID storage.ID) cluster.Config {
	l := loopback(t)
	c := cluster.Config{
		Cluster: clusterID, Node: node, Dir: dir,
		Voters:   []cluster.Voter{{ID: node, Addr: l.Addr().String()}},
		Listener: l, Dial: dial, Logger: quiet(),
	}
	if state != nil {
		c.State = state
	}
	return c
}

// put is an entry of tenant that sets one key.
func put(tenant storage.ID, key, value string) *entry.Entry {
	return &entry.Entry{ID: newID(), Tenant: tenant, Writes: []entry.Write{{
		Space: entry.Space{Table: "t"}, Key: []byte(key), Value: []byte(value),
	}}}
}

func get(t testing.TB, s storage.Snapshot, tenant storage.ID, key string) string {
	t.Helper()
	v, _, ok, err := s.Get(tenant, entry.Space{Table: "t"}, []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return ""
	}
	return string(v)
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func mustPropose(t testing.TB, c *cluster.Cluster, e *entry.Entry) entry.Outcome {
	t.Helper()
	o, err := c.Propose(within(t, 10*time.Second), e)
	if err != nil {
		t.Fatal(err)
	}
	return o
}
