package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"bulwark/cluster"
	"bulwark/cluster/memnet"
	"bulwark/storage"
	"bulwark/storage/entry"
)

// quartet is four nodes in one process and in virtual time: three that vote, and one that may be made a member. Clients use
// all of them, while nodes are cut off, stalled, restarted, added and removed.
type quartet struct {
	t       *testing.T
	net     *memnet.Network
	id      storage.ID
	dir     string
	voters  []cluster.Voter // also the fourth, which is none at first
	nodes   [4]atomic.Pointer[cluster.Cluster]
	states  [4]*memState
	disks   [4]atomic.Pointer[slowDisk]
	tenant  storage.ID
	clock   atomic.Int64
	history []porcupine.Operation

	mu      sync.Mutex
	acked   []string // keys of their own that acknowledged writes also set
	refused []string
	unknown int
	retried int // in doubt at first, settled by another node
}

func newQuartet(t *testing.T) *quartet {
	q := &quartet{t: t, net: memnet.New(), id: newID(), dir: t.TempDir(), tenant: newID()}
	q.net.SetLatency(time.Millisecond)
	for i := range q.nodes {
		q.voters = append(q.voters, cluster.Voter{ID: newID(), Addr: name(i)})
		q.states[i] = newMemState()
	}
	for i := range q.nodes {
		q.open(i)
	}
	return q
}

func (q *quartet) open(i int) {
	l, err := q.net.Listen(name(i))
	if err != nil {
		q.t.Fatal(err)
	}
	c := cluster.Config{
		Cluster: q.id, Node: q.voters[i].ID, Dir: filepath.Join(q.dir, name(i)), State: q.states[i],
		Listener: l, Advertise: name(i), Dial: q.net.Dialer(name(i)), Logger: quiet(), SegmentSize: 1 << 20, Heartbeat: 500 * time.Millisecond,
	}
	if i < 3 {
		c.Voters = q.voters[:3]
	}
	n, err := cluster.OpenOver(c, func(s cluster.Store) cluster.Store {
		d := &slowDisk{Store: s}
		q.disks[i].Store(d)
		return d
	})
	if err != nil {
		q.t.Fatal(err)
	}
	q.nodes[i].Store(n)
}

func (q *quartet) close() {
	for i := range q.nodes {
		q.disks[i].Load().resume()
		if err := q.nodes[i].Load().Close(); err != nil {
			q.t.Error(err)
		}
	}
}

func (q *quartet) note(list *[]string, key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	*list = append(*list, key)
}

// write proposes one entry, again at other nodes as long as it is in doubt.
func (q *quartet) write(client, node int, in input, random *rand.Rand) {
	own := "own-" + in.value
	e := put(q.tenant, in.key, in.value)
	e.Writes = append(e.Writes, entry.Write{Space: entry.Space{Table: "t"}, Key: []byte(own), Value: []byte("1")})
	call := q.clock.Add(1)
	doubtful := false
	for range 4 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(200+random.IntN(2500))*time.Millisecond)
		o, err := q.nodes[node].Load().Propose(ctx, e)
		cancel()
		var doubt *storage.InDoubt
		switch {
		case err == nil && o.Status != entry.Applied:
			q.t.Errorf("an entry without preconditions: %+v", o)
		case err == nil:
			q.mu.Lock()
			q.history = append(q.history, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: "", Return: q.clock.Add(1)})
			if doubtful {
				q.retried++
			}
			q.mu.Unlock()
			q.note(&q.acked, own)
			return
		case errors.As(err, &doubt):
			doubtful = true
		case storage.FaultOf(err) != storage.Unavailable:
			q.t.Errorf("a refused write: %v", err)
		}
		if !doubtful {
			q.note(&q.refused, own)
			time.Sleep(5 * time.Millisecond)
			return
		}
		node = random.IntN(4)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unknown++
	q.history = append(q.history, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: "", Return: 1 << 60})
}

func (q *quartet) read(client, node int, in input) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	call := q.clock.Add(1)
	s, err := q.nodes[node].Load().Snapshot(ctx)
	if err != nil {
		if storage.FaultOf(err) != storage.Unavailable {
			q.t.Errorf("a refused read: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
		return
	}
	defer s.Release()
	out := get(q.t, s, q.tenant, in.key)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.history = append(q.history, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: q.clock.Add(1)})
}

func (q *quartet) load(seed uint64) (stop func()) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	for client := range 8 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(client)))
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				in := input{write: random.IntN(3) == 0, key: "k" + strconv.Itoa(random.IntN(3)), value: fmt.Sprintf("%d-%d", client, i)}
				if in.write {
					q.write(client, client%4, in, random)
				} else {
					q.read(client, client%4, in)
				}
				time.Sleep(time.Duration(random.IntN(40)) * time.Millisecond)
			}
		})
	}
	return func() { close(done); wg.Wait() }
}

// trouble does one harmful thing for a while.
func (q *quartet) trouble(random *rand.Rand) {
	victim := random.IntN(4)
	if random.IntN(3) > 0 {
		for i := range 4 {
			if q.nodes[i].Load().Status().Role == "leader" {
				victim = i
			}
		}
	}
	others := func(f func(a, b string)) {
		for i := range 4 {
			if i != victim {
				f(name(victim), name(i))
			}
		}
	}
	while := time.Duration(200+random.IntN(2500)) * time.Millisecond
	any := q.nodes[random.IntN(4)].Load()
	ctx, cancel := context.WithTimeout(context.Background(), while)
	defer cancel()
	switch random.IntN(10) {
	case 0, 1:
		others(q.net.Cut)
	case 2:
		others(q.net.CutOneWay)
	case 3:
		others(func(a, b string) { q.net.CutOneWay(b, a) })
	case 4:
		q.disks[victim].Load().stall()
		others(q.net.Cut)
	case 5:
		q.net.SetLatency(time.Duration(1+random.IntN(100)) * time.Millisecond)
	case 6:
		if err := q.nodes[victim].Load().Close(); err != nil {
			q.t.Error(err)
		}
		time.Sleep(while)
		q.open(victim)
	case 7:
		any.TransferLeadership(ctx, storage.ID{})
	case 8:
		if random.IntN(2) == 0 {
			any.Demote(ctx, q.voters[victim].ID)
		} else {
			any.Remove(ctx, q.voters[victim].ID)
			time.Sleep(while)
		}
	case 9:
		any.Add(ctx, q.voters[victim].ID, name(victim))
	}
	time.Sleep(while)
	q.net.HealAll()
	q.net.SetLatency(time.Millisecond)
	q.disks[victim].Load().resume()
	time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond)
}

// check holds the history to linearizability, and the nodes to the same state, with everything in it that was acknowledged
// and nothing that was refused.
func (q *quartet) check() {
	q.t.Helper()
	var members []cluster.Member
	var revision uint64
	for try := 0; ; try++ {
		n := q.nodes[try%4].Load()
		o, err := n.Propose(within(q.t, 10*time.Second), put(q.tenant, "end", "end"))
		if members = n.Members(); err == nil {
			revision = o.Revision
			break
		}
		if try > 12 {
			q.t.Fatalf("no node takes a write after the troubles: %v", err)
		}
	}
	in := func(i int) bool {
		for _, m := range members {
			if m.ID == q.voters[i].ID {
				return true
			}
		}
		return false
	}
	for i, s := range q.states {
		if !in(i) {
			continue
		}
		select {
		case <-s.Changed(revision - 1):
		case <-time.After(time.Minute):
			for j := range q.nodes {
				n := q.node(j)
				q.t.Errorf("node %d, removed %v: %+v, members %+v, hears %+v", j, n.Removed(), n.Status(), n.Members(), n.Peers())
			}
			q.t.Errorf("node %d did not catch up with revision %d", i, revision)
			return
		}
		if _, at := s.Applied(); at != revision {
			q.t.Errorf("node %d holds revision %d, others %d", i, at, revision)
		}
		snap, err := s.Snapshot()
		if err != nil {
			q.t.Fatal(err)
		}
		for _, k := range q.acked {
			if get(q.t, snap, q.tenant, k) != "1" {
				q.t.Errorf("node %d lacks %s, which was acknowledged", i, k)
			}
		}
		for _, k := range q.refused {
			if get(q.t, snap, q.tenant, k) != "" {
				q.t.Errorf("node %d holds %s, which was refused", i, k)
			}
		}
		snap.Release()
	}
	if result := porcupine.CheckOperationsTimeout(registers(), q.history, 60*time.Second); result != porcupine.Ok {
		q.t.Errorf("the history of %d operations, %d of them in doubt, is not linearizable: %v", len(q.history), q.unknown, result)
	}
	q.t.Logf("%d operations, %d writes acknowledged, %d refused, %d settled by another node, %d in doubt; %d members", len(q.history), len(q.acked), len(q.refused), q.retried, q.unknown, len(members))
}

// TestAnyNode is seeds of troubles. BULWARK_SEEDS sets how many, BULWARK_SEED the first.
func TestAnyNode(t *testing.T) {
	t.Parallel()
	seeds, first := 8, 0
	if testing.Short() {
		seeds = 3
	}
	if n, err := strconv.Atoi(os.Getenv("BULWARK_SEEDS")); err == nil {
		seeds = n
	}
	if n, err := strconv.Atoi(os.Getenv("BULWARK_SEED")); err == nil {
		first = n
	}
	for i := range seeds {
		seed := uint64(first + i)
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q := newQuartet(t)
				defer q.close()
				random := rand.New(rand.NewPCG(seed, 4))
				if err := q.nodes[0].Load().Add(within(t, 30*time.Second), q.voters[3].ID, name(3)); err != nil {
					t.Fatal(err)
				}
				stop := q.load(seed)
				for range 10 {
					q.trouble(random)
				}
				time.Sleep(5 * time.Second)
				stop()
				q.check()
			})
		})
	}
}
