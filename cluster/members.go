package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"bulwark/storage"
)

// A Member is a node of the cluster, as the latest configuration has it.
type Member struct {
	ID    storage.ID
	Addr  string // where other nodes reach it
	Voter bool
}

// Members returns the latest configuration that this node knows.
func (c *Cluster) Members() []Member {
	var all []Member
	for _, s := range c.raft.GetConfiguration().Configuration().Servers {
		if id, err := storage.ParseID(string(s.ID)); err == nil {
			all = append(all, Member{ID: id, Addr: string(s.Address), Voter: s.Suffrage == raft.Voter})
		}
	}
	return all
}

func (c *Cluster) member(id storage.ID) (Member, bool) {
	for _, m := range c.Members() {
		if m.ID == id {
			return m, true
		}
	}
	return Member{}, false
}

// Leader returns the node that leads, as far as this node knows.
func (c *Cluster) Leader() (Member, bool) {
	addr, name := c.raft.LeaderWithID()
	id, err := storage.ParseID(string(name))
	if err != nil {
		return c.saysItLeads()
	}
	if m, ok := c.member(id); ok {
		return m, true
	}
	return Member{ID: id, Addr: string(addr), Voter: true}, true
}

// saysItLeads returns the member that said of itself that it leads, not long ago: a node whose address has changed hears of no
// leader, because the leader calls it where it was.
func (c *Cluster) saysItLeads() (found Member, ok bool) {
	for id, p := range c.Peers() {
		if p.Err == "" && p.Report.Leads && c.config.Clock().Sub(p.At) < 3*c.config.ReportEvery {
			if m, is := c.member(id); is {
				found, ok = m, true
			}
		}
	}
	return found, ok
}

// A change is what is done to the configuration.
type change string

const (
	add      change = "add"
	promote  change = "promote"
	demote   change = "demote"
	remove   change = "remove"
	transfer change = "transfer"
)

type memberCall struct {
	Do   change
	Node storage.ID
	Addr string `json:",omitempty"`
}

// Add makes a node a member that does not vote yet, or gives a member a new address. The leader makes it a voter once it
// has caught up.
func (c *Cluster) Add(ctx context.Context, id storage.ID, addr string) error {
	return c.change(ctx, memberCall{add, id, addr})
}

// Promote makes a member a voter.
func (c *Cluster) Promote(ctx context.Context, id storage.ID) error {
	return c.change(ctx, memberCall{Do: promote, Node: id})
}

// Demote takes a member's vote, until it is promoted.
func (c *Cluster) Demote(ctx context.Context, id storage.ID) error {
	return c.change(ctx, memberCall{Do: demote, Node: id})
}

// Remove takes a node out of the cluster.
func (c *Cluster) Remove(ctx context.Context, id storage.ID) error {
	return c.change(ctx, memberCall{Do: remove, Node: id})
}

// TransferLeadership makes another node lead: to, or, when that is zero, the voter that has most of the log.
func (c *Cluster) TransferLeadership(ctx context.Context, to storage.ID) error {
	return c.change(ctx, memberCall{Do: transfer, Node: to})
}

// change does it here, where this node leads, or asks the leader to.
func (c *Cluster) change(ctx context.Context, m memberCall) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = c.atLeader(ctx, func(ctx context.Context, leader Member, self bool) ([]byte, error) {
		if self {
			return nil, c.changeHere(ctx, m)
		}
		return c.Call(ctx, leader.ID, "member", body)
	})
	var doubt *storage.InDoubt
	if errors.As(err, &doubt) {
		return &storage.Error{Fault: storage.Unavailable, Code: "in_doubt", Cause: doubt.Cause,
			Message: "the node cannot tell whether this was done: look at the nodes before you repeat it"}
	}
	return err
}

// changeTime bounds how long raft may take to begin a change, where its caller has no deadline.
const changeTime = 10 * time.Second

func (c *Cluster) changeHere(ctx context.Context, m memberCall) error {
	have, known := c.member(m.Node)
	switch {
	case m.Do == add:
		return c.addHere(ctx, m, have, known)
	case !known && m.Do == remove:
		return nil
	case !known && !(m.Do == transfer && m.Node.IsZero()):
		return storage.Errorf(storage.NotFound, "node_not_found", "node %s is not in the cluster", m.Node)
	}
	id, addr := serverID(m.Node), raft.ServerAddress(have.Addr)
	switch m.Do {
	case promote:
		c.hold(m.Node, false)
		if have.Voter {
			return nil
		}
		return c.changed(ctx, c.raft.AddVoter(id, addr, 0, changeTime))
	case demote:
		if !have.Voter {
			c.hold(m.Node, true)
			return nil
		}
		if err := c.mayLose(ctx, m.Node); err != nil {
			return err
		}
		c.hold(m.Node, true)
		return c.changed(ctx, c.raft.DemoteVoter(id, 0, changeTime))
	case remove:
		if have.Voter {
			if err := c.mayLose(ctx, m.Node); err != nil {
				return err
			}
		}
		c.hold(m.Node, false)
		return c.changed(ctx, c.raft.RemoveServer(id, 0, changeTime))
	case transfer:
		return c.transferHere(ctx, m.Node, have)
	}
	return storage.Errorf(storage.BadInput, "bad_change", "there is no change %q of the cluster's nodes", string(m.Do))
}

func (c *Cluster) addHere(ctx context.Context, m memberCall, have Member, known bool) error {
	if m.Node.IsZero() || m.Addr == "" {
		return storage.Errorf(storage.BadInput, "bad_member", "a node needs an id and an address")
	}
	if known && have.Addr == m.Addr {
		return nil
	}
	for _, other := range c.Members() {
		if other.Addr == m.Addr && other.ID != m.Node {
			return storage.Errorf(storage.Exists, "address_taken",
				"node %s has the address %s: remove that one first, or give this one another", other.ID, m.Addr)
		}
	}
	// raft leaves a voter its vote.
	return c.changed(ctx, c.raft.AddNonvoter(serverID(m.Node), raft.ServerAddress(m.Addr), 0, changeTime))
}

// mayLose refuses to take away the last vote, and one without which no majority would answer: the change itself needs that
// majority, and until it is there nothing can be written. This node does not decide about its own vote, but lets another lead.
func (c *Cluster) mayLose(ctx context.Context, id storage.ID) error {
	left, answering := 0, 0
	reports := c.Peers()
	for _, m := range c.Members() {
		if !m.Voter || m.ID == id {
			continue
		}
		left++
		if r := reports[m.ID]; m.ID == c.config.Node || r.Err == "" && !r.At.IsZero() {
			answering++
		}
	}
	switch {
	case left == 0:
		return storage.Errorf(storage.Conflict, "last_voter", "it is the only node that votes: without it there is no cluster")
	case answering < left/2+1:
		return storage.Errorf(storage.Conflict, "no_majority",
			"of the %d nodes that would still vote only %d answer: bring another back first, or remove one that does not answer", left, answering)
	case id == c.config.Node:
		if err := c.transferHere(ctx, storage.ID{}, Member{}); err != nil {
			return err
		}
		return errNotLeader()
	}
	return nil
}

func (c *Cluster) transferHere(ctx context.Context, to storage.ID, m Member) error {
	switch {
	case to == c.config.Node:
		return nil
	case to.IsZero() && c.alone():
		return storage.Errorf(storage.Conflict, "last_voter", "no other node votes: leadership cannot move")
	case to.IsZero():
		return c.changed(ctx, c.raft.LeadershipTransfer())
	case !m.Voter:
		return storage.Errorf(storage.Conflict, "no_vote", "node %s does not vote, so it cannot lead: promote it first", to)
	}
	return c.changed(ctx, c.raft.LeadershipTransferToServer(serverID(to), raft.ServerAddress(m.Addr)))
}

// changed waits for a change, no longer than ctx.
func (c *Cluster) changed(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- await(c, f) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		return &storage.InDoubt{Cause: ctx.Err()}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return errNotLeader()
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown):
		return &storage.InDoubt{Cause: err}
	}
	return &storage.Error{Fault: storage.Unavailable, Code: "change_failed", Message: fmt.Sprintf("the cluster's nodes could not be changed: %v: try again", err), Cause: err}
}

func errNotLeader() error {
	return storage.Errorf(storage.Unavailable, "not_leader", "the leader has just changed: try again")
}

// atLeader does something at the leader, which may be this node: again at the next one when the first had ceased to lead,
// until ctx ends. What is in doubt is not tried again.
func (c *Cluster) atLeader(ctx context.Context, do func(ctx context.Context, leader Member, self bool) ([]byte, error)) ([]byte, error) {
	ctx, cancel := c.patience(ctx)
	defer cancel()
	for look := 0; ; look++ {
		turned := c.turns()
		if err := c.usable(); err != nil {
			return nil, err
		}
		self := c.raft.State() == raft.Leader
		leader, ok := c.Leader()
		if self || ok && leader.ID != c.config.Node {
			answer, err := do(ctx, leader, self)
			if err == nil || !elsewhere(err) {
				return answer, err
			}
		}
		if err := c.lookAgain(ctx, turned, look); err != nil {
			return nil, err
		}
	}
}

// elsewhere reports whether an error means that nothing was done, and that another node, or the same one later, may do it.
func elsewhere(err error) bool {
	var doubt *storage.InDoubt
	var e *storage.Error
	if errors.As(err, &doubt) || !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case "not_leader", "unreachable", "stopping", "log_stopped", "no_leader":
		return true
	}
	return false
}

// lookAgain waits until leadership has turned, or a growing while: another node may know of a turn before this one does.
func (c *Cluster) lookAgain(ctx context.Context, turned <-chan struct{}, look int) error {
	timer := time.NewTimer(time.Millisecond << min(look, 6))
	defer timer.Stop()
	select {
	case <-turned:
	case <-timer.C:
	case <-c.closing:
	case <-c.failed:
	case <-ctx.Done():
		return c.noLeader(ctx)
	}
	return nil
}

// handOver makes another node lead before this one stops, so that writes go on at once.
func (c *Cluster) handOver() {
	if c.failure.Load() != nil || c.raft.State() != raft.Leader || c.alone() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*c.config.Heartbeat)
	defer cancel()
	if err := c.transferHere(ctx, storage.ID{}, Member{}); err != nil {
		c.logger.Debug("handing leadership over before stopping", "error", err)
	}
}
