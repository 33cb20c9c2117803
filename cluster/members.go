package cluster

import (
	"context"

	"bulwark/storage"
)

// A Member is a node of the cluster, as the latest configuration has it.
type Member struct {
	ID    storage.ID
	Addr  string // where other nodes reach it
	Voter bool
}

// Members returns the latest configuration that this node knows.
func (c *Cluster) Members() []Member { return nil }

// Leader returns the node that leads, as far as this node knows.
func (c *Cluster) Leader() (Member, bool) { return Member{}, false }

// Removed reports whether the cluster has removed this node.
func (c *Cluster) Removed() bool { return false }

// Add makes a node a member that does not vote yet, or gives a member a new address. The leader makes it a voter once it
// has caught up.
func (c *Cluster) Add(ctx context.Context, id storage.ID, addr string) error { return errUnbuilt }

// Promote makes a member a voter.
func (c *Cluster) Promote(ctx context.Context, id storage.ID) error { return errUnbuilt }

// Demote takes a member's vote. It is not made a voter again by itself.
func (c *Cluster) Demote(ctx context.Context, id storage.ID) error { return errUnbuilt }

// Remove takes a node out of the cluster.
func (c *Cluster) Remove(ctx context.Context, id storage.ID) error { return errUnbuilt }

// TransferLeadership makes another node lead: to, or, when that is zero, the voter that has most of the log.
func (c *Cluster) TransferLeadership(ctx context.Context, to storage.ID) error { return errUnbuilt }

var errUnbuilt = storage.Errorf(storage.Internal, "unbuilt", "this is not built yet")
