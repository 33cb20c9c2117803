// Package cluster orders entries in one replicated log and shows the state that they make: it is the storage.Engine of a
// node, over hashicorp/raft.
//
// Promise: an entry that was acknowledged is in the log of a majority of the voters, synced, and in this node's state. A
// Snapshot holds every entry that was acknowledged, anywhere, before it was asked for. When that cannot be had there is an
// error that says so, and never an older state. What is on the disk is checked before it is used; a disk that refuses a
// write stops the log, not the process, and Local goes on answering.
//
// DESIGN.md has the arguments.
package cluster

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"bulwark/cluster/fsm"
	"bulwark/cluster/rpc"
	"bulwark/cluster/transport"
	"bulwark/storage"
	"bulwark/storage/entry"
)

// A Voter is a node that decides.
type Voter struct {
	ID   storage.ID
	Addr string // where other nodes reach it
}

// Config is what a node's log needs. Fields without "default" are required.
type Config struct {
	Cluster storage.ID // drawn once, when the cluster is made
	Node    storage.ID // drawn once, when the node is made
	Dir     string     // the log's own folder; made when it does not exist
	State   fsm.State  // the node's database, open; the Cluster closes it

	// Voters are those of a new cluster. They are used once, on an empty folder. Without them an empty node waits to be
	// added by a cluster.
	Voters []Voter

	Listener  net.Listener // takes other nodes' connections; the Cluster closes it
	Advertise string       // default: the listener's address
	Dial      func(ctx context.Context, addr string) (net.Conn, error)
	// ServerTLS and ClientTLS are for mutual TLS between nodes; both or neither.
	ServerTLS, ClientTLS *tls.Config
	// Admit is asked at every call whether the node at the other end of conn may still call; default: all may.
	Admit func(conn net.Conn) error
	// Join takes over a connection of somebody who wants to join; default: such connections are closed.
	Join func(net.Conn)

	Logger *slog.Logger

	Handlers map[string]rpc.Handler // more methods that other nodes may call, by name
	Extra    func() json.RawMessage // goes into this node's Report
	Faults   func() []Fault         // go into this node's Report
	Clock    func() time.Time       // default time.Now; for what people read only

	Heartbeat     time.Duration // without one for so long a node stands for election; default 1 s
	Election      time.Duration // a candidate without a majority for so long stands again; default Heartbeat
	CommitTimeout time.Duration // after it followers hear of what was committed, when nothing else tells them; default 5 ms
	ReportEvery   time.Duration // how often nodes ask each other how they are; default 1 s
	Lease         time.Duration // a leader that hears from no majority for so long steps down; default half of Heartbeat
	NoLeader      time.Duration // how long a call without a deadline waits for a leader; default 10 s
	MaxEntry      int           // bytes of an encoded entry; default entry.MaxEntry
	MaxBatch      int           // bytes of entries in one write of the log; default 1 MiB
	MaxWaiting    int           // bytes of entries that wait for the log; default 64 MiB
	InFlight      int           // batches under way at a time; default 1
	SegmentSize   int           // bytes of one file of the log, taken from the disk at once; default 16 MiB
	MarkBytes     int64         // bytes written to the log between marks, after which it is cut; default 64 MiB
	MinFree       int64         // bytes of the disk below which writes are refused; default 64 MiB
	Trailing      int64         // bytes of the log kept behind a mark, for nodes that lag; default 64 MiB
	MaxLog        int64         // bytes that the log may keep behind a mark, whoever wants them; default 1 GiB
	// Hold is the lowest index of the log that is still wanted, for an archive; 0: none. Default: nothing is.
	Hold func() uint64
}

func (c *Config) check() error {
	switch {
	case c.Cluster.IsZero() || c.Node.IsZero():
		return errors.New("a node needs a cluster id and a node id")
	case c.Dir == "":
		return errors.New("the log needs a folder")
	case c.State == nil:
		return errors.New("the log needs a state to apply entries to")
	case c.Listener == nil || c.Dial == nil:
		return errors.New("a node needs a listener and a dialler")
	case (c.ServerTLS == nil) != (c.ClientTLS == nil):
		return errors.New("a node needs both TLS configurations, or neither")
	case c.Logger == nil:
		return errors.New("a node needs a logger")
	}
	setDefault(&c.Heartbeat, time.Second)
	setDefault(&c.Election, c.Heartbeat)
	setDefault(&c.Lease, c.Heartbeat/2)
	setDefault(&c.CommitTimeout, 5*time.Millisecond)
	setDefault(&c.ReportEvery, time.Second)
	setDefault(&c.NoLeader, 10*time.Second)
	if c.Clock == nil {
		c.Clock = time.Now
	}
	setDefault(&c.MaxEntry, entry.MaxEntry)
	setDefault(&c.MaxBatch, 1<<20)
	setDefault(&c.MaxWaiting, 64<<20)
	setDefault(&c.InFlight, 1)
	setDefault(&c.SegmentSize, 16<<20)
	setDefault(&c.MarkBytes, 64<<20)
	setDefault(&c.MinFree, minFree)
	setDefault(&c.Trailing, 64<<20)
	setDefault(&c.MaxLog, 1<<30)
	if c.Lease > c.Heartbeat {
		return errors.New("a leader's lease must not be longer than the heartbeat timeout")
	}
	return nil
}

func setDefault[T int | int64 | uint64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// A Cluster is this node's part in the replicated log. It is a storage.Engine.
type Cluster struct {
	config    Config
	logger    *slog.Logger
	state     fsm.State
	fsm       *fsm.FSM
	wal       *diskLog
	store     *guardedStore
	marks     *marks
	lengths   *lengths
	transport *transport.Transport
	raft      *handle

	failure atomic.Pointer[error]
	failed  chan struct{} // closed with failure
	dead    chan struct{} // closed when raft has stopped, whatever stopped it

	closing  chan struct{} // closed when Close begins
	closed   sync.Once
	closeErr error
	stop     context.CancelFunc // ends the goroutines in running
	running  sync.WaitGroup
	disk     disk
	full     chan struct{} // the log has grown by MarkBytes

	leadership sync.Mutex
	turned     chan struct{} // closed when leadership or health may have changed
	leads      raft.ServerID // the last leader that this node heard of
	loyal      map[*loyalty]struct{}

	proposals queue
	reads     rounds // of this node, where it leads
	remote    rounds // of the leader, where another node is
	peers     peers
}

var _ storage.Engine = (*Cluster)(nil)

// Open opens the node's log, or makes one in an empty folder, and starts the node. When it fails it has changed nothing
// that was there, and the caller still owns the state and the listener; else Close closes them.
func Open(c Config) (*Cluster, error) {
	return open(c, walfs.New(), func(s store) store { return s })
}

// open is Open over the files of files, and a disk that wrap stands before.
func open(c Config, files types.VFS, wrap func(store) store) (*Cluster, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	n := &Cluster{
		config: c, logger: c.Logger, state: c.State, raft: new(handle),
		failed: make(chan struct{}), dead: make(chan struct{}), closing: make(chan struct{}),
		full: make(chan struct{}, 1), turned: make(chan struct{}), loyal: map[*loyalty]struct{}{},
	}
	n.disk = disk{dir: c.Dir, need: c.MinFree}
	n.proposals.init()
	n.reads.init()
	n.remote.init()
	if err := n.openFiles(files, wrap); err != nil {
		return nil, err
	}
	if err := n.start(); err != nil {
		n.wal.Close()
		return nil, err
	}
	return n, nil
}

const (
	identityName    = "identity"
	identityKind    = "iden"
	identityVersion = 1
)

type identity struct{ Cluster, Node storage.ID }

// openFiles checks everything that is in the folder before it changes anything.
func (c *Cluster) openFiles(files types.VFS, wrap func(store) store) (err error) {
	dir := c.config.Dir
	own := identity{c.config.Cluster, c.config.Node}
	applied, _ := c.state.Applied()
	found, err := readIdentity(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := checkEmpty(dir); err != nil {
			return err
		}
		if applied > 0 {
			return fmt.Errorf("the log in %s is missing, but the database holds entries: restore the folder, or restore this node from a snapshot", dir)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("making the log's folder: %w", err)
		}
		// The folder's own name must survive a power cut, too: without it the log is lost.
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return fmt.Errorf("making the log's folder: %w", err)
		}
		b, err := json.Marshal(own)
		if err != nil {
			return err
		}
		if err := writeSmall(dir, identityName, identityKind, identityVersion, b); err != nil {
			return err
		}
	case err != nil:
		return err
	case found.Cluster != own.Cluster:
		return fmt.Errorf("the log in %s belongs to cluster %s, not to %s: use that cluster's folder", dir, found.Cluster, own.Cluster)
	case found.Node != own.Node:
		return fmt.Errorf("the log in %s belongs to node %s, not to %s: use that node's folder", dir, found.Node, own.Node)
	}
	if c.marks, err = openMarks(dir, c.state); err != nil {
		return err
	}
	if err := c.checkContents(); err != nil {
		return err
	}
	if c.wal, err = openLog(dir, files, c.config.SegmentSize, newRaftLogger(c.logger)); err != nil {
		return err
	}
	if err = c.checkTogether(applied); err == nil {
		err = c.finishEmptying()
	}
	if err == nil {
		err = removeLeftovers(dir)
	}
	if err != nil {
		c.wal.Close()
		return err
	}
	c.store = &guardedStore{store: wrap(c.wal), marks: c.marks, lengths: c.lengths, hold: c.config.Hold, fail: c.fail, limit: c.config.MarkBytes, full: c.full}
	return nil
}

func readIdentity(dir string) (identity, error) {
	var id identity
	b, err := readSmall(dir, identityName, identityKind, identityVersion)
	if err != nil {
		return id, err
	}
	if err := json.Unmarshal(b, &id); err != nil {
		return id, fmt.Errorf("reading %s: %w", filepath.Join(dir, identityName), errDamaged)
	}
	return id, nil
}

// checkEmpty makes sure that a folder without an identity holds nothing of value.
func checkEmpty(dir string) error {
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the log's folder: %w", err)
	}
	for _, n := range names {
		if !strings.HasSuffix(n.Name(), tmpSuffix) {
			return fmt.Errorf("the log's folder %s has no identity but holds %s: restore it, or use an empty folder", dir, n.Name())
		}
	}
	return nil
}

// checkContents looks at the table of contents before raft-wal does, which deletes segments that the table does not name
// and makes anew a last segment that is missing.
func (c *Cluster) checkContents() error {
	dir := c.config.Dir
	table := new(contents)
	log, err := table.Load(dir)
	if err != nil {
		return err
	}
	if table.fresh {
		segments, err := segmentFiles(dir)
		if err != nil {
			return err
		}
		if len(segments) > 0 || c.marks.get() != nil {
			return fmt.Errorf("the log in %s has no table of contents: %w", dir, errDamaged)
		}
	}
	var held uint64
	if k := c.marks.get(); k != nil {
		held = max(k.Index, k.Persisted)
	}
	for i, s := range log.Segments {
		path := filepath.Join(dir, segment.FileName(s))
		if _, err := os.Stat(path); err == nil {
			if s.SealTime.IsZero() {
				return nil // how far it goes is seen when it is open
			}
			held = max(held, s.MaxIndex)
		} else if !s.SealTime.IsZero() || !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the log in %s: %w; %w", dir, err, errDamaged)
		} else if k := c.marks.get(); i == 0 && len(table.data.Stable) > 0 && (k == nil || !k.Emptied) {
			// raft-wal names a segment before it makes it. The first one is made before raft stores a term; every later one
			// follows one that is complete.
			return fmt.Errorf("the log in %s has lost its segment %s: %w", dir, segment.FileName(s), errDamaged)
		}
	}
	return c.checkHeld(held)
}

// checkHeld makes sure that a log up to held is not older than the database.
func (c *Cluster) checkHeld(held uint64) error {
	if persisted := c.state.Persisted(); persisted > held {
		return fmt.Errorf("the log in %s ends at entry %d, but the database holds entries up to %d: the log was cut or put back to an older copy; restore this node from the others or from a snapshot", c.config.Dir, held, persisted)
	}
	return nil
}

// checkTogether makes sure that the log, the mark and the database belong together and that none is older than the others
// allow.
func (c *Cluster) checkTogether(applied uint64) error {
	dir := c.config.Dir
	var after, persisted uint64
	if k := c.marks.get(); k != nil {
		after, persisted = k.Index, k.Persisted
	}
	if applied < persisted {
		return fmt.Errorf("the database holds entries up to %d, but the log in %s knows that it held them up to %d: it was put back to an older copy; restore this node from the others or from a snapshot", applied, dir, persisted)
	}
	c.lengths = &lengths{keep: c.config.Trailing, most: c.config.MaxLog}
	if err := checkLog(c.wal, dir, after, applied, func(l *raft.Log) { c.lengths.add(l) }); err != nil {
		return err
	}
	last, err := c.wal.LastIndex()
	if err != nil {
		return err
	}
	if err := c.checkHeld(max(last, after, persisted)); err != nil {
		return err
	}
	term, err := c.wal.GetUint64([]byte(currentTerm))
	if err != nil {
		return err
	}
	var newest raft.Log
	if last > 0 {
		if err := c.wal.GetLog(last, &newest); err != nil {
			return err
		}
	}
	if k := c.marks.get(); term < newest.Term || k != nil && term < k.Term {
		return fmt.Errorf("the log in %s has entries of a term that its table of contents does not know: %w", dir, errDamaged)
	}
	return nil
}

// start starts raft over the open files.
func (c *Cluster) start() error {
	logger := newRaftLogger(c.logger)
	machine, err := fsm.New(c.state, c.fail, c.marks.install)
	if err != nil {
		return err
	}
	c.fsm = machine
	// raft must reach the listener's address through the transport, but nothing may come in before the log is checked.
	c.transport, err = transport.New(transport.Config{
		Listener: c.config.Listener, Advertise: c.config.Advertise, Dial: c.config.Dial,
		Server: c.config.ServerTLS, Client: c.config.ClientTLS, RPC: c.serveRPC, Join: c.config.Join,
		Self: c.config.Node, Address: c.where,
		Timeout: max(2*c.config.Heartbeat, messageTime), Logger: c.logger, RaftLogger: logger,
	})
	if err != nil {
		return err
	}
	c.marks.logger, c.marks.stall, c.marks.drop = c.logger, max(10*time.Second, 4*c.config.Heartbeat), c.transport.DropInbound
	c.marks.room = func(size int64) error { return c.disk.full(size + c.config.MinFree) }
	notify := make(chan bool)
	rc := raft.DefaultConfig()
	rc.LocalID = serverID(c.config.Node)
	rc.Logger = logger
	rc.NotifyCh = notify
	rc.LeaderLeaseTimeout = c.config.Lease
	rc.MaxAppendEntries = 64
	rc.TrailingLogs = 1 // what is kept is counted in bytes; see guardedStore.DeleteRange
	rc.SnapshotInterval = time.Minute
	rc.SnapshotThreshold = 4096
	rc.NoSnapshotRestoreOnStart = true
	rc.NoLegacyTelemetry = true
	// See hurry.
	rc.HeartbeatTimeout = c.config.Heartbeat + time.Millisecond
	rc.ElectionTimeout = c.config.Election + time.Millisecond
	rc.CommitTimeout = c.config.CommitTimeout
	if err := c.bootstrap(rc); err != nil {
		c.transport.Close()
		return err
	}
	c.store.running.Store(true)
	r, err := newRaft(rc, machine, c.store, c.marks, sender{c.transport, c.marks})
	if err != nil {
		c.transport.Close()
		return fmt.Errorf("starting the log in %s: %w", c.config.Dir, err)
	}
	c.raft.run(r)
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	c.running.Add(7)
	heard := make(chan raft.Observation, 1) // raft drops what does not fit: then a turn is to come
	r.RegisterObserver(raft.NewObserver(heard, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	}))
	go c.watch(notify, heard)
	go c.supervise()
	go c.propose(ctx)
	go c.runRounds(&c.reads, c.round)
	go c.runRounds(&c.remote, c.remoteRound)
	go c.ask(ctx)
	go c.keepShort(ctx)
	if err := c.hurry(); err != nil {
		c.fail(err)
		<-c.dead
		cancel()
		c.running.Wait()
		return err
	}
	return nil
}

// messageTime is how long one message may take at least: entries of many megabytes do.
const messageTime = 2 * time.Second

// where finds a node by its id in the latest configuration.
func (c *Cluster) where(name raft.ServerID) (node [16]byte, addr string, ok bool) {
	id, err := storage.ParseID(string(name))
	if err != nil {
		return node, "", false
	}
	m, ok := c.member(id)
	return id, m.Addr, ok
}

func serverID(id storage.ID) raft.ServerID { return raft.ServerID(id.String()) }

// newRaft is raft.NewRaft, without its panics.
func newRaft(rc *raft.Config, machine *fsm.FSM, s *guardedStore, m *marks, t raft.Transport) (r *raft.Raft, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("%v", p)
			}
		}()
		r, err = raft.NewRaft(rc, machine, s, s, m, t)
	}()
	<-done
	if r == nil && err == nil {
		err = s.err() // the store ended the goroutine
	}
	return r, err
}

// bootstrap writes the first configuration of a new cluster, once.
func (c *Cluster) bootstrap(rc *raft.Config) error {
	if len(c.config.Voters) == 0 || c.marks.get() != nil {
		return nil
	}
	last, err := c.store.LastIndex()
	if err != nil || last > 0 {
		return err
	}
	term, err := c.store.GetUint64([]byte(currentTerm))
	if err != nil || term > 1 {
		return err
	}
	if applied, _ := c.state.Applied(); applied > 0 {
		return fmt.Errorf("the log in %s is empty, but the database holds entries: restore this node from the others or from a snapshot", c.config.Dir)
	}
	if term == 1 {
		// A crash came between the term and the configuration. No vote was cast: that takes a configuration.
		if err := c.store.SetUint64([]byte("LastVoteTerm"), 0); err != nil {
			return err
		}
		if err := c.wal.SetUint64([]byte(currentTerm), 0); err != nil {
			return err
		}
	}
	var configuration raft.Configuration
	for _, v := range c.config.Voters {
		configuration.Servers = append(configuration.Servers, raft.Server{Suffrage: raft.Voter, ID: serverID(v.ID), Address: raft.ServerAddress(v.Addr)})
	}
	if err := raft.BootstrapCluster(rc, c.store, c.store, c.marks, c.transport, configuration); err != nil {
		return fmt.Errorf("making the log in %s: %w", c.config.Dir, err)
	}
	return nil
}

// hurry makes a node that is its cluster's only voter stand for election at once: there is nobody whose heartbeat it could
// wait for. raft restarts its election timer when the heartbeat timeout is made shorter.
func (c *Cluster) hurry() error {
	if !c.alone() {
		return nil
	}
	reload := c.raft.ReloadableConfig()
	reload.HeartbeatTimeout, reload.ElectionTimeout = c.config.Heartbeat, c.config.Heartbeat
	return c.raft.ReloadConfig(reload)
}

// alone reports whether this node is the only voter in the latest configuration.
func (c *Cluster) alone() bool {
	voters, self := 0, false
	for _, s := range c.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters++
			self = self || s.ID == serverID(c.config.Node)
		}
	}
	return voters == 1 && self
}

// watch wakes whoever waits when leadership turns. It is a hint only: what is true is asked of raft.
func (c *Cluster) watch(notify <-chan bool, heard <-chan raft.Observation) {
	defer c.running.Done()
	for {
		select {
		case <-heard:
			c.turn()
		case leads := <-notify:
			c.turn()
			if leads {
				c.reads.kick() // an entry of the new term, so that the first reader need not wait for it
			}
		case <-c.dead:
			c.turn()
			return
		}
	}
}

func (c *Cluster) turn() {
	c.leadership.Lock()
	defer c.leadership.Unlock()
	close(c.turned)
	c.turned = make(chan struct{})
	if _, id := c.raft.LeaderWithID(); id != "" && id != c.leads {
		c.leads = id
		for w := range c.loyal {
			if serverID(w.leader) != id {
				w.leave()
			}
		}
	}
}

// loyalty is a call that waits for a leader's answer.
type loyalty struct {
	leader storage.ID
	leave  func()
}

// deposed calls leave when this node learns that another than leader leads; not any more after the function that it returns.
func (c *Cluster) deposed(leader Member, leave func()) (stop func()) {
	w := &loyalty{leader.ID, leave}
	c.leadership.Lock()
	defer c.leadership.Unlock()
	c.loyal[w] = struct{}{}
	return func() {
		c.leadership.Lock()
		defer c.leadership.Unlock()
		delete(c.loyal, w)
	}
}

func (c *Cluster) turns() <-chan struct{} {
	c.leadership.Lock()
	defer c.leadership.Unlock()
	return c.turned
}

// fail records why this node can no longer take part in the log. It does not block.
func (c *Cluster) fail(err error) {
	if c.failure.CompareAndSwap(nil, &err) {
		c.logger.Error("the log has stopped", "error", err)
		close(c.failed)
	}
}

// supervise stops raft when the node has failed, and says when raft has stopped.
func (c *Cluster) supervise() {
	defer c.running.Done()
	select {
	case <-c.failed:
	case <-c.closing:
		<-c.proposals.drained
		<-c.reads.drained
		c.lastMark()
	}
	var stopped raft.Future = refused{}
	if r := c.raft.close(); r != nil {
		stopped = r.Shutdown()
	}
	// Messages that wait for other nodes end now, so that raft's goroutines do.
	c.transport.Close()
	c.closePeers()
	if err := stopped.Error(); err != nil {
		c.logger.Warn("stopping the log", "error", err)
	}
	close(c.dead)
}

// Failed returns a channel that is closed when this node can no longer take part in the log; Err then says why. Local and
// Changed go on.
func (c *Cluster) Failed() <-chan struct{} { return c.failed }

// Err says why the node has failed; nil while it has not.
func (c *Cluster) Err() error {
	if err := c.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// Ready returns when this node can answer a Snapshot.
func (c *Cluster) Ready(ctx context.Context) error {
	s, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	s.Release()
	return nil
}

// Local returns this node's state as it is.
func (c *Cluster) Local() (storage.Snapshot, error) { return c.state.Snapshot() }

// Changed returns a channel that is closed when the local state's revision is above rev.
func (c *Cluster) Changed(rev uint64) <-chan struct{} { return c.state.Changed(rev) }

// Status is what a node knows about itself.
type Status struct {
	Role                 string // "leader", "follower", "candidate", "stopped" or "failed"
	Term                 uint64
	Leader               string // node id; "" when none is known
	LeaderAddr           string
	Last                 uint64 // of the log
	Commit               uint64
	Applied, Persisted   uint64 // of the database
	Revision             uint64
	Marked               uint64 // up to where the log may be cut
	LogBytes             int64  // on the disk
	Voters               []Voter
	Failure              string
	DiskFull             string // why nothing can be written now; "" while there is room
	Entries, Batches     uint64 // proposed through this node, and the writes of the log that they took
	Rounds, SharedByThem uint64 // rounds of confirming leadership, and the reads that they served
}

// Status says how the node is.
func (c *Cluster) Status() Status {
	addr, id := c.raft.LeaderWithID()
	applied, revision := c.state.Applied()
	if consumed, _ := c.fsm.Consumed(); consumed > applied { // raft's own entries change nothing
		applied = consumed
	}
	s := Status{
		Role: strings.ToLower(c.raft.State().String()), Term: c.raft.CurrentTerm(), Leader: string(id), LeaderAddr: string(addr),
		Last: c.raft.LastIndex(), Commit: c.raft.CommitIndex(), Applied: applied, Revision: revision,
		Persisted: c.state.Persisted(), LogBytes: logSize(c.config.Dir),
		Entries: c.proposals.entries.Load(), Batches: c.proposals.batches.Load(),
		Rounds: c.reads.held.Load(), SharedByThem: c.reads.served.Load(),
	}
	for _, v := range c.raft.GetConfiguration().Configuration().Servers {
		if v.Suffrage != raft.Voter {
			continue
		}
		if id, err := storage.ParseID(string(v.ID)); err == nil {
			s.Voters = append(s.Voters, Voter{ID: id, Addr: string(v.Address)})
		}
	}
	if k := c.marks.get(); k != nil {
		s.Marked = k.Index
	}
	if err := c.disk.full(c.config.MinFree); err != nil {
		s.DiskFull = err.Error()
	}
	if s.Role == "shutdown" {
		s.Role = "stopped"
	}
	if err := c.Err(); err != nil {
		s.Role, s.Failure = "failed", err.Error()
	}
	return s
}

// Close stops the node: what waits is refused, what is under way is finished, the database is flushed and marked, so that
// the next start has nothing to replay. It returns when nothing runs any more.
func (c *Cluster) Close() error {
	c.closed.Do(func() {
		c.handOver()
		close(c.closing)
		<-c.proposals.drained
		<-c.reads.drained
		<-c.remote.drained
		<-c.dead
		c.stop()
		c.running.Wait()
		c.closeErr = errors.Join(c.wal.Close(), c.state.Close())
	})
	return c.closeErr
}

// await waits for a raft future. raft does not answer all of them when it stops.
func await(c *Cluster, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-c.dead:
		select {
		case err := <-done:
			return err
		default:
			return raft.ErrRaftShutdown
		}
	}
}
