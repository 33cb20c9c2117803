package node

import (
	"fmt"
	"slices"
	"time"

	"bulwark/cluster"
	"bulwark/storage"
)

// When a node is not what it should be.
const (
	maxBehind = 5 * time.Second  // without having caught up with the leader
	maxSkew   = 30 * time.Second // from the median of the nodes' clocks
)

// faults says why this node is not what it should be; the other nodes are told, too. It costs little: it is asked for
// several times a second.
func (n *Node) faults() []cluster.Fault {
	var all []cluster.Fault
	add := func(name, format string, args ...any) {
		all = append(all, cluster.Fault{Name: name, Reason: fmt.Sprintf(format, args...)})
	}
	if n.cluster == nil || n.state == nil {
		return nil // it is starting
	}
	s := n.cluster.Status()
	if s.DiskFull != "" {
		add("disk", "%s", s.DiskFull)
	}
	if s.Failure != "" {
		add("log", "%s", s.Failure)
	}
	if n.cluster.Removed() {
		add("removed", "the cluster has removed this node: to bring it back, let it join anew with an empty data folder")
	}
	if err := n.state.Failed(); err != nil {
		add("damaged", "%v", err)
	}
	if late := n.lateness.behind(n.opts.Now(), s, n.cluster.Peers()); late > maxBehind {
		add("behind", "it has been behind the leader for %s", late.Round(time.Second))
	}
	if off := clockOff(n.cluster.Peers()); off.Abs() > maxSkew {
		add("clock", "its clock is %s %s the other nodes': set it, best by NTP", off.Abs().Round(time.Second), aheadOf(off))
	}
	if err := n.backupFault.Load(); err != nil && *err != nil {
		add("backup", "%v", *err)
	}
	return all
}

func aheadOf(off time.Duration) string {
	if off > 0 {
		return "ahead of"
	}
	return "behind"
}

// clockOff is how far this node's clock is ahead of the median of the others'. It takes two others to say who is wrong: with
// one, neither says so before they differ by more than is allowed, and then both do.
func clockOff(peers map[storage.ID]cluster.PeerReport) time.Duration {
	var offs []time.Duration
	for _, p := range peers {
		if p.Err == "" && !p.At.IsZero() && !p.Report.Clock.IsZero() {
			offs = append(offs, p.At.Add(-p.Took/2).Sub(p.Report.Clock))
		}
	}
	if len(offs) == 0 {
		return 0
	}
	slices.Sort(offs)
	// With two others the one nearer to this node's own clock: only who differs from both is wrong.
	return slices.MinFunc(offs[(len(offs)-1)/2:len(offs)/2+1], func(a, b time.Duration) int { return int(a.Abs() - b.Abs()) })
}
