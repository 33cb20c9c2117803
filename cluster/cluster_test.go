package cluster_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"bulwark/cluster"
	"bulwark/storage/entry"
)

func TestSingleNode(t *testing.T) {
	t.Parallel()
	dir, state, node, id := t.TempDir()+"/log", newMemState(), newID(), newID()
	tenant := newID()
	for run := range 3 {
		began := time.Now()
		c, err := cluster.Open(single(t, dir, state, node, id))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Ready(within(t, 10*time.Second)); err != nil {
			t.Fatal(err)
		}
		t.Logf("run %d: ready after %v", run, time.Since(began))
		for i := range 20 {
			if o := mustPropose(t, c, put(tenant, fmt.Sprintf("%d-%d", run, i), "v")); o.Status != entry.Applied {
				t.Fatalf("outcome %+v", o)
			}
		}
		s, err := c.Snapshot(within(t, 10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for r := range run + 1 {
			for i := range 20 {
				if get(t, s, tenant, fmt.Sprintf("%d-%d", r, i)) != "v" {
					t.Fatalf("run %d: key %d-%d is not there", run, r, i)
				}
			}
		}
		s.Release()
		t.Logf("%+v", c.Status())
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGroupCommit(t *testing.T) {
	t.Parallel()
	c, err := cluster.Open(single(t, t.TempDir(), newMemState(), newID(), newID()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tenant := newID()
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for i := range 50 {
				if _, err := c.Propose(within(t, 30*time.Second), put(tenant, fmt.Sprintf("%d-%d", w, i), "v")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s := c.Status()
	t.Logf("%d entries in %d batches: %.1f", s.Entries, s.Batches, float64(s.Entries)/float64(s.Batches))
	if s.Entries != 64*50 || s.Entries/s.Batches < 8 {
		t.Fatalf("%d entries took %d writes of the log", s.Entries, s.Batches)
	}
}
