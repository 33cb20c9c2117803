package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"bulwark/cluster"
	"bulwark/security/keys"
	"bulwark/web/api"
)

// Status says what the node is doing, and what it knows of the others.
func (n *Node) Status(ctx context.Context) api.NodeStatus {
	c, stats := n.cluster.Status(), n.state.Stats()
	s := api.NodeStatus{
		Version: n.opts.Version, Node: n.id.String(), Cluster: n.header.Cluster.String(), Data: n.dataFolder(), URL: n.URL(),
		Role: c.Role, Leader: c.Leader, Term: c.Term, Applied: c.Applied,
		Seal: string(n.header.Kind), Sealed: n.ring.Sealed(), Started: n.started, Ready: true,
		Components: n.readiness(ctx), Nodes: n.nodes(),
		DatabaseBytes: stats.FileSize, LogBytes: c.LogBytes, Certificate: n.credentials.Expires(),
	}
	if n.header.Kind == keys.Shamir {
		s.Shares, s.Needed = n.progress()
	}
	for _, m := range n.cluster.Members() {
		s.Members = append(s.Members, api.Member{Node: m.ID.String(), Address: m.Addr, Voter: m.Voter})
	}
	for _, p := range s.Components {
		if !p.Ready {
			s.Ready = false
			s.Reasons = append(s.Reasons, p.Name+": "+p.Reason)
		}
	}
	s.Verdict, s.Healthy = verdict(s.Nodes)
	if n.cluster.Removed() {
		s.Verdict, s.Healthy = "the cluster has removed this node", false
	}
	return s
}

// components are the parts of a node that are always shown, and the faults that are theirs.
func components() []component {
	return []component{
		{"seal", nil}, {"disk", nil}, {"log", []string{"removed"}},
		{"database", []string{"damaged"}}, {"behind", nil}, {"clock", nil}, {"audit", nil},
	}
}

type component struct {
	name   string
	faults []string // beside those of its own name
}

// readiness says of each part whether it works.
func (n *Node) readiness(context.Context) []api.ReadyState {
	found := n.faults()
	if n.ring.Sealed() {
		found = append(found, cluster.Fault{Name: "seal", Reason: "sealed: run `bulwark operator unseal`"})
	}
	if _, ok := n.cluster.Leader(); !ok && n.cluster.Err() == nil {
		found = append(found, cluster.Fault{Name: "log", Reason: "there is no leader"})
	}
	if n.stopping.Load() {
		found = append(found, cluster.Fault{Name: "log", Reason: "the node is stopping"})
	}
	all := make([]api.ReadyState, 0, len(components()))
	for _, c := range components() {
		s := api.ReadyState{Name: c.name, Ready: true}
		for _, f := range found {
			if s.Ready && (f.Name == c.name || slices.Contains(c.faults, f.Name)) {
				s.Ready, s.Reason = false, f.Reason
			}
		}
		all = append(all, s)
	}
	return all
}

// verdict says in one line how the cluster is, as seen from one node, and whether all of it is well.
func verdict(nodes []api.NodeInfo) (string, bool) {
	voters, well := 0, 0
	var troubles []string
	for _, n := range nodes {
		trouble := trouble(n)
		if trouble != "" {
			troubles = append(troubles, shortName(n)+" "+trouble)
		}
		if n.Role == "non-voter" {
			continue
		}
		voters++
		if trouble == "" {
			well++
		}
	}
	line := fmt.Sprintf("%d of %d %s well", well, voters, plural(voters, "node is", "nodes are"))
	switch spare := well - (voters/2 + 1); {
	case voters == 0:
		return "this node is in no cluster yet", false
	case spare < 0:
		line += "; that is no majority: nothing can be written"
	case voters == 1:
		line += "; there is no other to take over"
	case spare == 0:
		line += "; losing one more stops the cluster"
	default:
		line += fmt.Sprintf("; losing %d is survived", spare)
	}
	if len(troubles) > 0 {
		line += ": " + strings.Join(troubles, "; ")
	}
	return line, len(troubles) == 0
}

// trouble says what is the matter with a node; "" when nothing is.
func trouble(n api.NodeInfo) string {
	switch {
	case !n.Self && n.Seen == nil:
		return "has not been heard from yet"
	case !n.Self && n.Unheard > notHeard.Seconds():
		return fmt.Sprintf("has not been heard from for %.0f s", n.Unheard)
	case len(n.Faults) > 0:
		return "says: " + n.Faults[0].Reason
	}
	return ""
}

func shortName(n api.NodeInfo) string {
	if n.Name != "" {
		return n.Name
	}
	return n.Node[:8]
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
