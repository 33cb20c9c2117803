package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/hashicorp/raft"

	"bulwark/cluster"
	"bulwark/cluster/memnet"
	"bulwark/storage"
)

// slowDisk holds every write of the log while it stalls.
type slowDisk struct {
	cluster.Store
	mu      sync.Mutex
	resumed chan struct{} // nil while it does not stall
}

func (d *slowDisk) stall() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.resumed == nil {
		d.resumed = make(chan struct{})
	}
}

func (d *slowDisk) resume() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.resumed != nil {
		close(d.resumed)
		d.resumed = nil
	}
}

func (d *slowDisk) StoreLogs(logs []*raft.Log) error {
	d.mu.Lock()
	resumed := d.resumed
	d.mu.Unlock()
	if resumed != nil {
		<-resumed
	}
	return d.Store.StoreLogs(logs)
}

func (d *slowDisk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

func (d *slowDisk) IsMonotonic() bool { return true }

// trio is three nodes in one process and in virtual time.
type trio struct {
	t       *testing.T
	net     *memnet.Network
	nodes   [3]*cluster.Cluster
	states  [3]*memState
	disks   [3]*slowDisk
	tenant  storage.ID
	clock   atomic.Int64 // orders calls and returns: virtual time stands still while the nodes work
	mu      sync.Mutex
	history []porcupine.Operation
	unknown int
}

func name(i int) string { return "node" + strconv.Itoa(i) }

func newTrio(t *testing.T) *trio {
	c := &trio{t: t, net: memnet.New(), tenant: newID()}
	c.net.SetLatency(2 * time.Millisecond)
	id, dir := newID(), t.TempDir()
	var voters []cluster.Voter
	for i := range c.nodes {
		voters = append(voters, cluster.Voter{ID: newID(), Addr: name(i)})
	}
	for i := range c.nodes {
		l, err := c.net.Listen(name(i))
		if err != nil {
			t.Fatal(err)
		}
		c.states[i] = newMemState()
		c.nodes[i], err = cluster.OpenOver(cluster.Config{
			Cluster: id, Node: voters[i].ID, Dir: filepath.Join(dir, name(i)), State: c.states[i], Voters: voters,
			Listener: l, Dial: c.net.Dialer(name(i)), Logger: quiet(), SegmentSize: 1 << 20,
		}, func(s cluster.Store) cluster.Store {
			c.disks[i] = &slowDisk{Store: s}
			return c.disks[i]
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *trio) close() {
	for i, n := range c.nodes {
		c.disks[i].resume()
		if err := n.Close(); err != nil {
			c.t.Error(err)
		}
	}
}

// leader waits for a leader other than the node at index not, and returns its index.
func (c *trio) leader(not int) int {
	c.t.Helper()
	for range 600 {
		for i, n := range c.nodes {
			if i != not && n.Status().Role == "leader" {
				return i
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	c.t.Fatal("no leader within a minute")
	return -1
}

type input struct {
	write bool
	key   string
	value string
}

// registers is a model of keys that hold what was last written.
func registers() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			parts := map[string][]porcupine.Operation{}
			for _, o := range history {
				k := o.Input.(input).key
				parts[k] = append(parts[k], o)
			}
			var all [][]porcupine.Operation
			for _, p := range parts {
				all = append(all, p)
			}
			return all
		},
		Init: func() any { return "" },
		Step: func(state, in, out any) (bool, any) {
			if i := in.(input); i.write {
				return true, i.value
			}
			return out.(string) == state.(string), state
		},
	}
}

// act does one operation on one node and records it.
func (c *trio) act(client, node int, in input) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	call := c.clock.Add(1)
	var out string
	if in.write {
		_, err := c.nodes[node].Propose(ctx, put(c.tenant, in.key, in.value))
		var doubt *storage.InDoubt
		if errors.As(err, &doubt) {
			c.mu.Lock()
			c.unknown++
			c.history = append(c.history, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: "", Return: 1 << 60})
			c.mu.Unlock()
			return
		}
		if err != nil {
			if storage.FaultOf(err) != storage.Unavailable {
				c.t.Errorf("a refused write: %v", err)
			}
			time.Sleep(5 * time.Millisecond)
			return
		}
	} else {
		s, err := c.nodes[node].Snapshot(ctx)
		if err != nil {
			if storage.FaultOf(err) != storage.Unavailable {
				c.t.Errorf("a refused read: %v", err)
			}
			return
		}
		out = get(c.t, s, c.tenant, in.key)
		s.Release()
	}
	op := porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: c.clock.Add(1)}
	c.mu.Lock()
	c.history = append(c.history, op)
	c.mu.Unlock()
}

// load runs clients on every node until stop is called.
func (c *trio) load(seed uint64) (stop func()) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	for client := range 9 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(client)))
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				key := "k" + strconv.Itoa(random.IntN(3))
				c.act(client, client%3, input{write: random.IntN(3) == 0, key: key, value: fmt.Sprintf("%d-%d", client, i)})
				time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
			}
		})
	}
	return func() { close(done); wg.Wait() }
}

// check holds the history to linearizability and the nodes to the same state.
func (c *trio) check() {
	c.t.Helper()
	lead := c.leader(-1)
	o, err := c.nodes[lead].Propose(within(c.t, 30*time.Second), put(c.tenant, "end", "end"))
	if err != nil {
		c.t.Fatal(err)
	}
	for i, s := range c.states {
		select {
		case <-s.Changed(o.Revision - 1):
		case <-time.After(30 * time.Second):
			c.t.Fatalf("node %d did not catch up: %+v", i, c.nodes[i].Status())
		}
		snap, err := c.nodes[i].Local()
		if err != nil {
			c.t.Fatal(err)
		}
		mine, err := c.nodes[lead].Local()
		if err != nil {
			c.t.Fatal(err)
		}
		for _, k := range []string{"k0", "k1", "k2", "end"} {
			if get(c.t, snap, c.tenant, k) != get(c.t, mine, c.tenant, k) {
				c.t.Errorf("nodes %d and %d differ at %s", i, lead, k)
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if result := porcupine.CheckOperationsTimeout(registers(), c.history, 30*time.Second); result != porcupine.Ok {
		c.t.Errorf("the history of %d operations, %d of them in doubt, is not linearizable: %v", len(c.history), c.unknown, result)
	}
	c.t.Logf("%d operations, %d in doubt", len(c.history), c.unknown)
}

func TestThreeNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t)
		defer c.close()
		first := c.leader(-1)
		for i := range 100 {
			mustPropose(t, c.nodes[first], put(c.tenant, "k"+strconv.Itoa(i%3), strconv.Itoa(i)))
		}
		for k, v := range map[string]string{"k0": "99", "k1": "97", "k2": "98"} {
			c.history = append(c.history, porcupine.Operation{Input: input{true, k, v}, Call: c.clock.Add(1), Output: "", Return: c.clock.Add(1)})
		}
		stop := c.load(1)
		time.Sleep(time.Second)
		for i := range 3 {
			if i != first {
				c.net.Cut(name(first), name(i))
			}
		}
		began := time.Now()
		second := c.leader(first)
		t.Logf("failed over in %v", time.Since(began))
		if _, err := c.nodes[first].Snapshot(within(t, time.Second)); storage.FaultOf(err) != storage.Unavailable {
			t.Errorf("a leader that was cut off answers: %v", err)
		}
		mustPropose(t, c.nodes[second], put(c.tenant, "after", "failover"))
		c.net.HealAll()
		time.Sleep(5 * time.Second)
		stop()
		c.check()
	})
}

// TestNewLeaderKnowsOldWrites cuts a leader off at the moment it has acknowledged a write, when the others hold the entry
// but do not know yet that it is committed, and reads from whoever leads next.
func TestNewLeaderKnowsOldWrites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t)
		defer c.close()
		for i := range 5 {
			old := c.leader(-1)
			value := strconv.Itoa(i)
			// The others apply slowly, so that a commit is long before its effect.
			for n, s := range c.states {
				s.slow.Store(0)
				if n != old {
					s.slow.Store(int64(50 * time.Millisecond))
				}
			}
			mustPropose(t, c.nodes[old], put(c.tenant, "k", value))
			var wg sync.WaitGroup
			for n := range 3 {
				if n == old {
					continue
				}
				c.net.Cut(name(old), name(n))
				wg.Go(func() {
					s, err := c.nodes[n].Snapshot(within(t, 8*time.Second))
					if err != nil {
						return
					}
					defer s.Release()
					if got := get(t, s, c.tenant, "k"); got != value {
						t.Errorf("a new leader reads %q, but %q was acknowledged", got, value)
					}
				})
			}
			wg.Wait()
			c.net.HealAll()
			time.Sleep(5 * time.Second)
		}
	})
}

// TestFaults cuts nodes off and stalls disks at random. A leader whose disk stalls goes on believing that it leads.
func TestFaults(t *testing.T) {
	t.Parallel()
	seeds := uint64(5)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newTrio(t)
				defer c.close()
				random := rand.New(rand.NewPCG(seed, 99))
				c.leader(-1)
				stop := c.load(seed)
				for range 12 {
					victim := random.IntN(3)
					if random.IntN(3) > 0 {
						victim = c.leader(-1)
					}
					switch random.IntN(4) {
					case 0:
						for i := range 3 {
							c.net.CutOneWay(name(victim), name(i))
						}
					case 1:
						c.disks[victim].stall()
						for i := range 3 {
							c.net.Cut(name(victim), name(i))
						}
					default:
						for i := range 3 {
							if i != victim {
								c.net.Cut(name(victim), name(i))
							}
						}
					}
					time.Sleep(time.Duration(500+random.IntN(4000)) * time.Millisecond)
					c.net.HealAll()
					c.disks[victim].resume()
					time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
				}
				time.Sleep(5 * time.Second)
				stop()
				c.check()
			})
		})
	}
}
