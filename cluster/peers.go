package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"bulwark/cluster/rpc"
	"bulwark/storage"
	"bulwark/storage/entry"
)

// A Report is what a node says of itself. All nodes ask each other for it, every Config.ReportEvery.
type Report struct {
	Node                                        storage.ID
	Applied, Persisted, LastIndex, Commit, Term uint64
	Leads                                       bool
	Formats                                     [2]uint8 // the oldest and the newest entry format that it reads
	Clock                                       time.Time
	Knows                                       bool            // the node that asked is a member
	Held                                        []storage.ID    `json:",omitempty"` // of a leader: the nodes that were demoted by hand
	Faults                                      []Fault         `json:",omitempty"`
	Extra                                       json.RawMessage `json:",omitempty"` // Config.Extra
}

// A Fault is why a node is not what it should be.
type Fault struct{ Name, Reason string }

// A PeerReport is the last answer of another member.
type PeerReport struct {
	Report Report
	At     time.Time     // when it came; zero: never
	Took   time.Duration // from the question to the answer
	Commit uint64        // what this node knew to be committed when it asked
	Err    string        // why the last question was not answered; "" when it was
}

// peers are the connections to the other nodes, and what those said last.
type peers struct {
	mu      sync.Mutex
	clients map[storage.ID]*rpc.Client
	reports map[storage.ID]PeerReport
	held    []storage.ID // demoted by hand: they get their vote back by hand
	outcast bool         // the leader says that this node is no member
	closed  bool

	removed atomic.Bool // what Removed said last
}

// Peers returns the last answer of each other member.
func (c *Cluster) Peers() map[storage.ID]PeerReport {
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	return maps.Clone(c.peers.reports)
}

// Call calls a method of another member. An error is a *storage.InDoubt when nobody knows whether the call was begun.
func (c *Cluster) Call(ctx context.Context, to storage.ID, method string, body []byte) ([]byte, error) {
	client, err := c.client(to)
	if err != nil {
		return nil, err
	}
	return client.Call(ctx, method, body)
}

func (c *Cluster) client(to storage.ID) (*rpc.Client, error) {
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	if c.peers.closed {
		return nil, storage.Errorf(storage.Unavailable, "stopping", "this node is stopping: try another, or again in a moment")
	}
	if have := c.peers.clients[to]; have != nil {
		return have, nil
	}
	if c.peers.clients == nil {
		c.peers.clients = map[storage.ID]*rpc.Client{}
	}
	made := rpc.NewClient(rpc.ClientConfig{Silence: 2 * c.config.Heartbeat, Dial: func(ctx context.Context) (net.Conn, error) {
		m, ok := c.member(to) // its address may change
		if !ok {
			return nil, fmt.Errorf("node %s is not in the cluster", to)
		}
		return c.transport.DialRPC(ctx, to, m.Addr)
	}})
	c.peers.clients[to] = made
	return made, nil
}

// closePeers ends the connections to the others.
func (c *Cluster) closePeers() {
	c.peers.mu.Lock()
	c.peers.closed = true
	clients := c.peers.clients
	c.peers.mu.Unlock()
	for _, client := range clients {
		client.Close()
	}
}

// serveRPC answers a connection that carries calls of another node, until the transport closes it.
func (c *Cluster) serveRPC(conn net.Conn) {
	answer := c.answer
	if c.config.Admit != nil {
		answer = func(ctx context.Context, method string, body []byte) ([]byte, error) {
			if err := c.config.Admit(conn); err != nil {
				conn.Close()
				return nil, err
			}
			return c.answer(ctx, method, body)
		}
	}
	if err := rpc.Serve(context.Background(), conn, answer); err != nil {
		c.logger.Debug("a connection of another node ended", "error", err)
	}
}

// answer answers one call of another node.
func (c *Cluster) answer(ctx context.Context, method string, body []byte) ([]byte, error) {
	switch method {
	case "confirm":
		// Read after the question came: whoever leads a later term had this node's vote, or has not been elected.
		term := c.raft.CurrentTerm()
		if term == 0 { // raft does not run yet: what it voted for is not known
			return nil, storage.Errorf(storage.Unavailable, "starting", "this node is starting")
		}
		return binary.BigEndian.AppendUint64(nil, term), nil
	case "read-index":
		index, err := c.leaderIndex(ctx)
		return binary.BigEndian.AppendUint64(nil, index), err
	case "propose":
		return c.proposeFor(ctx, body)
	case "member":
		var m memberCall
		if err := json.Unmarshal(body, &m); err != nil {
			return nil, storage.Errorf(storage.BadInput, "bad_call", "the call cannot be read: is the other node of another version?")
		}
		if c.raft.State() != raft.Leader {
			return nil, errNotLeader()
		}
		return nil, c.changeHere(ctx, m)
	case "report":
		r := c.report()
		if len(body) == len(storage.ID{}) {
			_, r.Knows = c.member(storage.ID(body))
		}
		return json.Marshal(r)
	}
	if h := c.config.Handlers[method]; h != nil {
		return h(ctx, method, body)
	}
	return nil, storage.Errorf(storage.NotFound, "unknown_method", "this node knows no method %q: is it of an older version?", method)
}

// report is what this node says of itself.
func (c *Cluster) report() *Report {
	index, _ := c.fsm.Consumed()
	applied, _ := c.state.Applied()
	r := &Report{
		Node: c.config.Node, Applied: max(index, applied), Persisted: c.state.Persisted(), LastIndex: c.raft.LastIndex(),
		Commit: c.raft.CommitIndex(), Term: c.raft.CurrentTerm(), Leads: c.raft.State() == raft.Leader,
		Formats: [2]uint8{entry.Oldest, entry.Newest()}, Clock: c.config.Clock(),
	}
	if c.config.Extra != nil {
		r.Extra = c.config.Extra()
	}
	if c.config.Faults != nil {
		r.Faults = c.config.Faults()
	}
	if c.Removed() {
		r.Faults = append(r.Faults, Fault{"removed", "the cluster has removed this node"})
	}
	if r.Leads {
		c.peers.mu.Lock()
		r.Held = slices.Clone(c.peers.held)
		c.peers.mu.Unlock()
	}
	return r
}

// ask asks every other member for its report, every Config.ReportEvery, and lets the leader draw its conclusions.
func (c *Cluster) ask(ctx context.Context) {
	defer c.running.Done()
	ticker := time.NewTicker(c.config.ReportEvery)
	defer ticker.Stop()
	ready := map[storage.ID]int{}
	for {
		c.askAll(ctx)
		c.peers.removed.Store(c.Removed())
		c.promoteReady(ctx, ready)
		c.correctAddress(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (c *Cluster) askAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.config.ReportEvery)
	defer cancel()
	members := c.Members()
	var asked sync.WaitGroup
	for _, m := range members {
		if m.ID == c.config.Node {
			continue
		}
		asked.Go(func() {
			start, commit := time.Now(), c.raft.CommitIndex()
			b, err := c.Call(ctx, m.ID, "report", c.config.Node[:])
			var r Report
			if err == nil {
				err = json.Unmarshal(b, &r)
			}
			c.peers.mu.Lock()
			defer c.peers.mu.Unlock()
			if c.peers.reports == nil {
				c.peers.reports = map[storage.ID]PeerReport{}
			}
			p := c.peers.reports[m.ID]
			if err != nil {
				p.Err = err.Error()
			} else {
				p = PeerReport{Report: r, At: c.config.Clock(), Took: time.Since(start), Commit: commit}
			}
			c.peers.reports[m.ID] = p
			if err == nil && r.Leads {
				c.peers.outcast, c.peers.held = !r.Knows, r.Held
			}
		})
	}
	asked.Wait()
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	for id := range c.peers.reports {
		if !has(members, id) {
			delete(c.peers.reports, id)
		}
	}
	for id, client := range c.peers.clients {
		if !has(members, id) {
			delete(c.peers.clients, id)
			go client.Close()
		}
	}
}

func has(members []Member, id storage.ID) bool {
	for _, m := range members {
		if m.ID == id {
			return true
		}
	}
	return false
}

// hold makes sure that a node gets its vote back by hand only, or lets go of it.
func (c *Cluster) hold(id storage.ID, held bool) {
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	c.peers.held = slices.DeleteFunc(slices.Clone(c.peers.held), func(h storage.ID) bool { return h == id })
	if held {
		c.peers.held = append(c.peers.held, id)
	}
}

func (c *Cluster) isHeld(id storage.ID) bool {
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	return slices.Contains(c.peers.held, id)
}

// Removed reports whether the cluster has removed this node. One that was away while that happened hears it from the leader.
func (c *Cluster) Removed() bool {
	members := c.Members()
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	return len(members) > 0 && (c.peers.outcast || !has(members, c.config.Node))
}

// closeBy is how many entries a node may lack and still be near enough to vote.
const closeBy = 256

// promoteReady makes voters of the members that have caught up: those that said so twice, and have no fault.
func (c *Cluster) promoteReady(ctx context.Context, ready map[storage.ID]int) {
	if c.raft.State() != raft.Leader {
		clear(ready)
		return
	}
	reports := c.Peers()
	for _, m := range c.Members() {
		r := reports[m.ID]
		if m.Voter || c.isHeld(m.ID) || r.Err != "" || r.At.IsZero() || hindered(r.Report.Faults) || r.Report.Applied+closeBy < c.raft.CommitIndex() {
			delete(ready, m.ID)
			continue
		}
		if ready[m.ID]++; ready[m.ID] < 2 {
			continue
		}
		delete(ready, m.ID)
		if err := c.changed(ctx, c.raft.AddVoter(serverID(m.ID), raft.ServerAddress(m.Addr), 0, changeTime)); err != nil {
			c.logger.Warn("giving a node its vote", "node", m.ID, "error", err)
			continue
		}
		c.logger.Info("a node has caught up and votes", "node", m.ID)
	}
}

// hindered reports whether a fault is one with which a node should not vote. A backup that failed is none.
func hindered(faults []Fault) bool {
	for _, f := range faults {
		if f.Name != "backup" {
			return true
		}
	}
	return false
}

// correctAddress sees that the others call this node where it is.
func (c *Cluster) correctAddress(ctx context.Context) {
	m, ok := c.member(c.config.Node)
	addr := string(c.transport.LocalAddr())
	if !ok || c.config.Advertise == "" || m.Addr == addr {
		return
	}
	if err := c.Add(ctx, c.config.Node, addr); err != nil && ctx.Err() == nil {
		c.logger.Warn("telling the other nodes this node's address", "address", addr, "error", err)
	}
}

// format is the newest format of entries that every member reads. Of a member that nobody heard of the oldest is assumed.
func (c *Cluster) format() uint8 {
	newest := entry.Newest()
	if newest == entry.Oldest {
		return newest
	}
	reports := c.Peers()
	for _, m := range c.Members() {
		if m.ID == c.config.Node {
			continue
		}
		if r := reports[m.ID]; r.At.IsZero() {
			return entry.Oldest
		} else if f := r.Report.Formats[1]; f < newest {
			newest = max(f, entry.Oldest)
		}
	}
	return newest
}
