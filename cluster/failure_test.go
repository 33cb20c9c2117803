package cluster_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"bulwark/cluster"
	"bulwark/storage"
	"bulwark/storage/entry"
)

// fullDisk refuses what it is told to.
type fullDisk struct {
	cluster.Store
	logs, terms, votes, reads atomic.Bool
}

func (d *fullDisk) StoreLogs(logs []*raft.Log) error {
	if d.logs.Load() {
		return syscall.ENOSPC
	}
	return d.Store.StoreLogs(logs)
}

func (d *fullDisk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

func (d *fullDisk) SetUint64(key []byte, v uint64) error {
	// raft writes the term that it has read when it starts.
	if old, _ := d.Store.GetUint64(key); string(key) == "CurrentTerm" && d.terms.Load() && v != old || string(key) == "LastVoteTerm" && d.votes.Load() {
		return syscall.ENOSPC
	}
	return d.Store.SetUint64(key, v)
}

func (d *fullDisk) GetLog(i uint64, l *raft.Log) error {
	if d.reads.Load() {
		return syscall.EIO
	}
	return d.Store.GetLog(i, l)
}

func (d *fullDisk) IsMonotonic() bool { return true }

func openFull(t *testing.T, dir string, state *memState, node, id storage.ID) (*cluster.Cluster, *fullDisk) {
	t.Helper()
	d := new(fullDisk)
	c, err := cluster.OpenOver(single(t, dir, state, node, id), func(s cluster.Store) cluster.Store { d.Store = s; return d })
	if err != nil {
		t.Fatal(err)
	}
	return c, d
}

// stopped wants that c says what stopped it, goes on showing what it holds, and can be closed. A node that led alone must
// still answer reads, and one that never led must not: its log may hold what its state does not.
func stopped(t *testing.T, c *cluster.Cluster, tenant storage.ID, led bool, want string) {
	t.Helper()
	select {
	case <-c.Failed():
	case <-time.After(10 * time.Second):
		t.Fatalf("it has not failed: %+v", c.Status())
	}
	if err := c.Err(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the reason is %v and should say %q", err, want)
	}
	var e *storage.Error
	_, err := c.Propose(within(t, 10*time.Second), put(tenant, "later", "v"))
	if !errors.As(err, &e) || e.Fault != storage.Unavailable || !strings.Contains(err.Error(), want) {
		t.Errorf("a write answers %v", err)
	}
	var doubt *storage.InDoubt
	if errors.As(err, &doubt) {
		t.Errorf("a write that was never tried is in doubt: %v", err)
	}
	switch s, err := c.Snapshot(within(t, 10*time.Second)); {
	case led && err == nil:
		if get(t, s, tenant, "before") != "v" {
			t.Error("a read does not see what was acknowledged")
		}
		s.Release()
	case led, storage.FaultOf(err) != storage.Unavailable:
		t.Errorf("a read answers %v", err)
	}
	s, err := c.Local()
	if err != nil {
		t.Fatal(err)
	}
	if get(t, s, tenant, "before") != "v" {
		t.Error("what it holds is gone")
	}
	s.Release()
	if s := c.Status(); s.Role != "failed" || s.Failure == "" {
		t.Errorf("its status is %+v", s)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestDiskRefusesTheLog(t *testing.T) {
	t.Parallel()
	dir, state, node, id, tenant := t.TempDir(), newMemState(), newID(), newID(), newID()
	c, d := openFull(t, dir, state, node, id)
	mustPropose(t, c, put(tenant, "before", "v"))
	d.logs.Store(true)
	e := put(tenant, "during", "v")
	_, err := c.Propose(within(t, 10*time.Second), e)
	var doubt *storage.InDoubt
	if !errors.As(err, &doubt) || storage.FaultOf(err) != storage.Unavailable {
		t.Errorf("the write that the disk refused answers %v", err)
	}
	stopped(t, c, tenant, true, "the disk refused a write")

	// With room on the disk the node goes on, and the write in doubt is settled by proposing it again.
	c, _ = openFull(t, dir, state, node, id)
	defer c.Close()
	if o := mustPropose(t, c, e); o.Status != entry.Applied {
		t.Errorf("outcome %+v", o)
	}
}

// TestDiskRefusesTheTerm makes raft's election fail where it would panic.
func TestDiskRefusesTheTerm(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"term", "vote"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir, state, node, id, tenant := t.TempDir(), newMemState(), newID(), newID(), newID()
			c, _ := openFull(t, dir, state, node, id)
			mustPropose(t, c, put(tenant, "before", "v"))
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			d := new(fullDisk)
			d.terms.Store(what == "term")
			d.votes.Store(what == "vote")
			c, err := cluster.OpenOver(single(t, dir, state, node, id), func(s cluster.Store) cluster.Store { d.Store = s; return d })
			if err != nil {
				t.Fatal(err)
			}
			stopped(t, c, tenant, false, "the disk refused a write")
		})
	}
}

// TestDiskRefusesARead makes raft's replay fail where it would panic.
func TestDiskRefusesARead(t *testing.T) {
	t.Parallel()
	dir, state, node, id, tenant := t.TempDir(), newMemState(), newID(), newID(), newID()
	c, _ := openFull(t, dir, state, node, id)
	mustPropose(t, c, put(tenant, "before", "v"))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	d := new(fullDisk)
	d.reads.Store(true)
	c, err := cluster.OpenOver(single(t, dir, state, node, id), func(s cluster.Store) cluster.Store { d.Store = s; return d })
	if err == nil {
		stopped(t, c, tenant, false, "reading the log")
	} else if !strings.Contains(err.Error(), "input/output error") && !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
}

// TestDatabaseFails lets the database refuse while the log still works.
func TestDatabaseFails(t *testing.T) {
	t.Parallel()
	state, tenant := newMemState(), newID()
	c, _ := openFull(t, t.TempDir(), state, newID(), newID())
	mustPropose(t, c, put(tenant, "before", "v"))
	state.mu.Lock()
	state.failed = errors.New("no space left for the database")
	state.mu.Unlock()
	if _, err := c.Propose(within(t, 10*time.Second), put(tenant, "during", "v")); err == nil {
		t.Error("a write that the database cannot keep was acknowledged")
	}
	stopped(t, c, tenant, true, "no space left for the database")
}

// TestLaterFormat replays an entry that a later version wrote.
func TestLaterFormat(t *testing.T) {
	t.Parallel()
	dir, state, node, id, tenant := t.TempDir(), newMemState(), newID(), newID(), newID()
	forge := &forger{}
	c, err := cluster.OpenOver(single(t, dir, state, node, id), func(s cluster.Store) cluster.Store { forge.Store = s; return forge })
	if err != nil {
		t.Fatal(err)
	}
	mustPropose(t, c, put(tenant, "before", "v"))
	forge.on.Store(true)
	_, err = c.Propose(within(t, 10*time.Second), put(tenant, "during", "v"))
	var doubt *storage.InDoubt
	if !errors.As(err, &doubt) {
		t.Errorf("the write answers %v", err)
	}
	stopped(t, c, tenant, true, "format")
	if index, _ := state.Applied(); index == 0 {
		t.Error("nothing was applied")
	}
}

// forger makes the entries that pass through it ones of a later format.
type forger struct {
	cluster.Store
	on atomic.Bool
}

func (f *forger) StoreLogs(logs []*raft.Log) error {
	for _, l := range logs {
		if f.on.Load() && l.Type == raft.LogCommand && len(l.Data) > 0 {
			l.Data[0] = entry.Format + 1
		}
	}
	return f.Store.StoreLogs(logs)
}

func (f *forger) StoreLog(l *raft.Log) error { return f.StoreLogs([]*raft.Log{l}) }
func (f *forger) IsMonotonic() bool          { return true }

// TestWaitingForALeader starts one of three voters.
func TestWaitingForALeader(t *testing.T) {
	t.Parallel()
	config := single(t, t.TempDir(), newMemState(), newID(), newID())
	for range 2 {
		l := loopback(t)
		config.Voters = append(config.Voters, cluster.Voter{ID: newID(), Addr: l.Addr().String()})
		l.Close()
	}
	c, err := cluster.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var e *storage.Error
	if _, err := c.Snapshot(ctx); !errors.As(err, &e) || e.Fault != storage.Unavailable || e.Code != "no_leader" {
		t.Errorf("a read answers %v", err)
	}
	if _, err := c.Propose(ctx, put(newID(), "k", "v")); !errors.As(err, &e) || e.Fault != storage.Unavailable || e.Code != "no_leader" {
		t.Errorf("a write answers %v", err)
	}
}

// TestLeftovers removes what a crash left half written.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	dir, node, id, tenant := t.TempDir(), newID(), newID(), newID()
	state := newMemState()
	c, _ := openFull(t, dir, state, node, id)
	mustPropose(t, c, put(tenant, "before", "v"))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mark.tmp", "copy-123.tmp", "contents.tmp"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, _ = openFull(t, dir, state, node, id)
	defer c.Close()
	if err := c.Ready(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestCrashWhileMaking starts a cluster whose first start was cut short between any two of its steps.
func TestCrashWhileMaking(t *testing.T) {
	t.Parallel()
	for _, stop := range []string{"term", "configuration"} {
		t.Run(stop, func(t *testing.T) {
			t.Parallel()
			dir, node, id := t.TempDir(), newID(), newID()
			d := new(fullDisk)
			d.terms.Store(stop == "term")
			d.logs.Store(stop == "configuration")
			config := single(t, dir, newMemState(), node, id)
			if c, err := cluster.OpenOver(config, func(s cluster.Store) cluster.Store { d.Store = s; return d }); err == nil {
				c.Close()
				t.Fatal("it started on a disk that refuses everything")
			}
			c, err := cluster.Open(single(t, dir, newMemState(), node, id))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			mustPropose(t, c, put(newID(), "k", "v"))
		})
	}
}

func FuzzCodec(f *testing.F) {
	f.Add(cluster.EncodeLog(&raft.Log{Index: 7, Term: 3, Data: []byte("data"), Extensions: []byte("x"), AppendedAt: time.Unix(1, 2)}))
	f.Add([]byte{})
	f.Add(make([]byte, 41))
	f.Fuzz(func(t *testing.T, b []byte) {
		var l raft.Log
		if cluster.DecodeLog(b, &l) != nil {
			// With the right checksum it must not panic either.
			if len(b) >= 4 {
				b = binary.BigEndian.AppendUint32(b[:len(b)-4:len(b)-4], cluster.Sum(b[:len(b)-4]))
				if cluster.DecodeLog(b, &l) != nil {
					return
				}
			} else {
				return
			}
		}
		var again raft.Log
		if err := cluster.DecodeLog(cluster.EncodeLog(&l), &again); err != nil {
			t.Fatal(err)
		}
		if again.Index != l.Index || again.Term != l.Term || again.Type != l.Type || string(again.Data) != string(l.Data) ||
			string(again.Extensions) != string(l.Extensions) || !again.AppendedAt.Equal(l.AppendedAt) {
			t.Fatalf("%+v became %+v", l, again)
		}
	})
}

// TestCodecRefusesEveryFlippedBit flips each bit of an encoded entry.
func TestCodecRefusesEveryFlippedBit(t *testing.T) {
	t.Parallel()
	b := cluster.EncodeLog(&raft.Log{Index: 7, Term: 3, Data: []byte("some data"), AppendedAt: time.Unix(1, 2)})
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		if cluster.DecodeLog(b, new(raft.Log)) == nil {
			t.Errorf("bit %d flipped was taken", i)
		}
		b[i/8] ^= 1 << (i % 8)
	}
}

func FuzzSmallFile(f *testing.F) {
	f.Add(cluster.EncodeSmall([]byte("payload")))
	f.Add([]byte("bulwark\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, cluster.Resum(append(b, 0, 0, 0, 0))} {
			if p, err := cluster.DecodeSmall(b); err == nil && string(cluster.EncodeSmall(p)) != string(b) && b[15] == 1 {
				t.Fatalf("%q is read as %q", b, p)
			}
		}
	})
}

// TestDiskAlmostFull refuses writes before the disk does, and goes on by itself.
func TestDiskAlmostFull(t *testing.T) {
	t.Parallel()
	dir, state, node, id, tenant := t.TempDir(), newMemState(), newID(), newID(), newID()
	c, _ := openFull(t, dir, state, node, id)
	mustPropose(t, c, put(tenant, "before", "v"))
	if s := c.Status(); s.DiskFull != "" {
		t.Errorf("there is room, but its status is %q", s.DiskFull)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	config := single(t, dir, state, node, id)
	config.MinFree = 1 << 60
	c, err := cluster.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var e *storage.Error
	_, err = c.Propose(within(t, 10*time.Second), put(tenant, "during", "v"))
	if !errors.As(err, &e) || e.Fault != storage.Unavailable || e.Code != "disk_full" {
		t.Errorf("a write answers %v", err)
	}
	s, err := c.Snapshot(within(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	if now := c.Status(); now.Role != "leader" || now.DiskFull == "" {
		t.Errorf("its status is %+v", now)
	}
	if get(t, s, tenant, "before") != "v" || get(t, s, tenant, "during") != "" {
		t.Error("it does not hold what was acknowledged, or holds what was refused")
	}
}
