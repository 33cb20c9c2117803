package cluster_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"
	bbolt "go.etcd.io/bbolt"

	"bulwark/cluster"
	"bulwark/cluster/memnet"
	"bulwark/storage"
	"bulwark/storage/bolt"
)

// threeOnDisk is three nodes over real databases, in virtual time. Their logs are cut early.
type threeOnDisk struct {
	t      *testing.T
	net    *memnet.Network
	id     storage.ID
	tenant storage.ID
	dir    string
	voters []cluster.Voter
	nodes  [3]*cluster.Cluster
	dbs    [3]*bolt.DB
	n      int // entries that were written
}

func newThreeOnDisk(t *testing.T) *threeOnDisk {
	c := &threeOnDisk{t: t, net: memnet.New(), id: newID(), tenant: newID(), dir: t.TempDir()}
	c.net.SetLatency(time.Millisecond)
	for i := range c.nodes {
		c.voters = append(c.voters, cluster.Voter{ID: newID(), Addr: name(i)})
	}
	for i := range c.nodes {
		c.start(i, filepath.Join(c.dir, name(i)), nil, walfs.New())
	}
	return c
}

// start opens node i over the folder dir as a node does. wrap may stand before its database.
func (c *threeOnDisk) start(i int, dir string, wrap func(*bolt.DB) cluster.State, files types.VFS) {
	c.t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	database := filepath.Join(dir, "data.db")
	if err := cluster.Finish(filepath.Join(dir, "log"), database); err != nil {
		c.t.Fatal(err)
	}
	db, err := bolt.Open(bolt.Options{Path: database, ClusterID: c.id, Logger: quiet()})
	if err != nil {
		c.t.Fatal(err)
	}
	l, err := c.net.Listen(name(i))
	if err != nil {
		c.t.Fatal(err)
	}
	config := cluster.Config{
		Cluster: c.id, Node: c.voters[i].ID, Dir: filepath.Join(dir, "log"), State: db, Voters: c.voters,
		Listener: l, Dial: c.net.Dialer(name(i)), Logger: quiet(),
		SegmentSize: 64 << 10, MarkBytes: 64 << 10, Trailing: 1,
	}
	if wrap != nil {
		config.State = wrap(db)
	}
	if c.nodes[i], err = cluster.OpenOn(config, files); err != nil {
		c.t.Fatalf("opening %s: %v", dir, err)
	}
	c.dbs[i] = db
}

func (c *threeOnDisk) stop(i int) {
	c.t.Helper()
	if err := c.nodes[i].Close(); err != nil {
		c.t.Error(err)
	}
	c.nodes[i] = nil
}

func (c *threeOnDisk) close() {
	for i, n := range c.nodes {
		if n != nil {
			c.stop(i)
		}
	}
}

func (c *threeOnDisk) leader() int {
	c.t.Helper()
	for range 600 {
		for i, n := range c.nodes {
			if n != nil && n.Status().Role == "leader" {
				return i
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	c.t.Fatal("no leader within a minute")
	return -1
}

// write writes n entries of 2 KiB.
func (c *threeOnDisk) write(n int) {
	c.t.Helper()
	for range n {
		c.n++
		mustPropose(c.t, c.nodes[c.leader()], put(c.tenant, strconv.Itoa(c.n%300), strings.Repeat(strconv.Itoa(c.n%10), 2<<10)))
	}
}

// level waits until node i has applied what the leader has.
func (c *threeOnDisk) level(i int) {
	c.t.Helper()
	want, _ := c.dbs[c.leader()].Applied()
	for range 1200 {
		if got, _ := c.dbs[i].Applied(); got >= want {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.t.Fatalf("node %d did not catch up with %d: %+v", i, want, c.nodes[i].Status())
}

// same stops all nodes and compares their files, cell by cell.
func (c *threeOnDisk) same(dirs ...string) {
	c.t.Helper()
	for i := range c.nodes {
		c.level(i)
	}
	c.close()
	var first string
	for _, dir := range dirs {
		got := contentOf(c.t, filepath.Join(dir, "data.db"))
		if first == "" {
			first = got
		}
		if got != first || len(got) < 1000 {
			c.t.Errorf("%s and %s hold different states (%d and %d bytes)", dirs[0], dir, len(first), len(got))
		}
		for _, pattern := range []string{"log/*.tmp", "*.compact", "*.tmp"} {
			if left, _ := filepath.Glob(filepath.Join(dir, pattern)); len(left) > 0 {
				c.t.Errorf("left over: %v", left)
			}
		}
	}
}

// contentOf returns every bucket, key and value of a database, in order.
func contentOf(t *testing.T, path string) string {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var b bytes.Buffer
	var walk func(*bbolt.Bucket) error
	walk = func(in *bbolt.Bucket) error {
		return in.ForEach(func(k, v []byte) error {
			fmt.Fprintf(&b, "%d:%x=%d:%x\n", len(k), k, len(v), v)
			if v == nil {
				return walk(in.Bucket(k))
			}
			return nil
		})
	}
	if err := db.View(func(tx *bbolt.Tx) error { return walk(tx.Cursor().Bucket()) }); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func (c *threeOnDisk) dirs() []string {
	return []string{filepath.Join(c.dir, name(0)), filepath.Join(c.dir, name(1)), filepath.Join(c.dir, name(2))}
}

// TestLaggingNodeIsFed keeps a follower away until the log is cut: it is fed the file, twice, the second time while writes
// go on.
func TestLaggingNodeIsFed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newThreeOnDisk(t)
		defer c.close()
		lead := c.leader()
		away := (lead + 1) % 3
		c.write(20)
		c.level(away)
		old, err := c.nodes[away].Local()
		if err != nil {
			t.Fatal(err)
		}
		for round := range 2 {
			c.net.Cut(name(lead), name(away))
			c.net.Cut(name(3-lead-away), name(away))
			c.write(200)
			if err := c.nodes[lead].Entries(1, nil); storage.FaultOf(err) != storage.Unavailable {
				t.Fatalf("the log was not cut: %v", err)
			}
			c.net.HealAll()
			if round == 1 {
				c.write(100)
			}
			c.level(away)
			if k := c.nodes[away].Status().Marked; k < 100 {
				t.Errorf("round %d: the node was not fed: its mark is at %d", round, k)
			}
			c.write(3)
			c.level(away)
		}
		if got := get(t, old, c.tenant, "300"); got != "" || old.Revision() != 20 {
			t.Errorf("a snapshot of before shows revision %d and %d bytes of what came later", old.Revision(), len(got))
		}
		old.Release()
		// The log behind a copy passes the checks of the next start.
		c.stop(away)
		c.start(away, filepath.Join(c.dir, name(away)), nil, walfs.New())
		c.write(5)
		c.same(c.dirs()...)
	})
}

// crashes copies a node's folder whenever something is about to be changed in it, and when it was.
type crashes struct {
	t     *testing.T
	dir   string
	to    string
	mu    sync.Mutex
	armed bool
	names []string
}

func (c *crashes) at(point string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.armed {
		return
	}
	to := filepath.Join(c.to, fmt.Sprintf("%02d-%s", len(c.names), point))
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(c.dir, path)
		if err != nil || relErr != nil || d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	})
	if err != nil {
		c.t.Error(err)
	}
	c.names = append(c.names, to)
}

type crashingState struct {
	*bolt.DB
	crashes *crashes
}

func (s crashingState) CheckCopy(path string) (uint64, error) {
	s.crashes.at("received")
	return s.DB.CheckCopy(path)
}

func (s crashingState) Restore(path string) error {
	s.crashes.at("named")
	err := s.DB.Restore(path)
	s.crashes.at("renamed")
	return err
}

type crashingFiles struct {
	types.VFS
	crashes *crashes
}

func (f crashingFiles) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f.crashes.at("create")
	w, err := f.VFS.Create(dir, name, size)
	f.crashes.at("created")
	return w, err
}

func (f crashingFiles) Delete(dir, name string) error {
	f.crashes.at("delete")
	return f.VFS.Delete(dir, name)
}

// TestCrashWhileTakingOver copies a follower's folder at every step of taking over a copy. Each must start, catch up, and
// hold what the others hold.
func TestCrashWhileTakingOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newThreeOnDisk(t)
		defer c.close()
		lead := c.leader()
		away := (lead + 1) % 3
		c.write(40)
		c.stop(away)
		dir := filepath.Join(c.dir, name(away))
		points := &crashes{t: t, dir: dir, to: filepath.Join(c.dir, "crashes")}
		c.write(200)
		points.armed = true
		c.start(away, dir, func(db *bolt.DB) cluster.State { return crashingState{db, points} }, crashingFiles{walfs.New(), points})
		c.level(away)
		c.write(1)
		c.level(away)
		points.at("after")
		points.mu.Lock()
		points.armed = false
		points.mu.Unlock()
		c.stop(away)
		found := strings.Join(points.names, " ")
		for _, point := range []string{"received", "named", "renamed", "create", "created", "delete"} {
			if !strings.Contains(found, "-"+point) {
				t.Errorf("there was no step %q: %s", point, found)
			}
		}
		t.Logf("%d points", len(points.names))
		for _, crashed := range points.names {
			c.start(away, crashed, nil, walfs.New())
			c.write(2)
			c.level(away)
			c.stop(away)
			if left, _ := filepath.Glob(filepath.Join(crashed, "log/*.tmp")); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
		}
		last := points.names[len(points.names)-1]
		c.start(away, last, nil, walfs.New())
		c.write(2)
		dirs := c.dirs()
		dirs[away] = last
		c.same(dirs...)
	})
}
