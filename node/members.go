package node

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"bulwark/cluster/member"
	"bulwark/security/cert"
	"bulwark/storage"
	"bulwark/web/api"
)

// registerMembers adds the endpoints of the cluster's nodes. They need the root key, but for the list.
func (n *Node) registerMembers(m *api.Mux) {
	api.Handle(m, api.JoinTokenRoute, n.makeJoinToken)
	api.Handle(m, api.JoinTokensRoute, func(ctx context.Context, by storage.Actor, _ api.Empty) (api.JoinTokens, error) {
		all, err := n.members.Tokens(ctx, by)
		reply := api.JoinTokens{Tokens: []api.JoinToken{}}
		for _, t := range all {
			reply.Tokens = append(reply.Tokens, api.JoinToken{ID: t.ID.String(), Created: t.Created, Expires: t.Expires, UsedBy: t.Name})
		}
		return reply, err
	})
	api.Handle(m, api.RevokeJoinTokenRoute, func(ctx context.Context, by storage.Actor, req api.JoinTokenID) (api.Empty, error) {
		id, err := storage.ParseID(req.ID)
		if err != nil {
			return api.Empty{}, storage.Errorf(storage.BadInput, "bad_id", "%q is not the id of a join token: see `bulwark operator token list`", req.ID)
		}
		return api.Empty{}, n.members.RevokeToken(ctx, by, id)
	})
	api.Handle(m, api.RemoveNodeRoute, n.removeNode)
	api.Handle(m, api.PromoteNodeRoute, func(ctx context.Context, by storage.Actor, req api.NodeRequest) (api.NodeName, error) {
		return n.changeNode(ctx, by, req.Node, "member.promote", n.cluster.Promote)
	})
	api.Handle(m, api.TransferRoute, func(ctx context.Context, by storage.Actor, req api.TransferRequest) (api.NodeName, error) {
		if req.Node != "" {
			return n.changeNode(ctx, by, req.Node, "member.transfer_leader", n.cluster.TransferLeadership)
		}
		if err := n.members.Note(ctx, by, "member.transfer_leader", storage.ID{}); err != nil {
			return api.NodeName{}, err
		}
		if err := n.cluster.TransferLeadership(ctx, storage.ID{}); err != nil {
			return api.NodeName{}, err
		}
		leader, _ := n.cluster.Leader()
		return api.NodeName{Node: leader.ID.String(), Name: n.names(ctx, by)[leader.ID]}, nil
	})
}

func (n *Node) makeJoinToken(ctx context.Context, by storage.Actor, req api.JoinTokenRequest) (api.JoinTokenReply, error) {
	expiry := member.DefaultExpiry
	if req.Expires != 0 {
		expiry = time.Duration(req.Expires) * time.Second
	}
	ca, err := cert.Authority(ctx, n.store)
	if err != nil {
		return api.JoinTokenReply{}, err
	}
	addrs := []string{n.clusterAddr}
	for _, m := range n.cluster.Members() {
		if m.ID != n.id {
			addrs = append(addrs, m.Addr)
		}
	}
	text, id, t, err := n.members.NewToken(ctx, by, ca, addrs, expiry)
	return api.JoinTokenReply{ID: id.String(), Token: text, Expires: t.Expires}, err
}

// extra is what this node's report says beside what the log knows.
type extra struct {
	Name    string `json:"name"`
	URL     string `json:"url"`
	Version string `json:"version"`
	Sealed  bool   `json:"sealed,omitempty"`
}

func (n *Node) extra() json.RawMessage {
	name, _ := n.name()
	if own := n.ownName.Load(); own != nil {
		name = *own
	}
	b, err := json.Marshal(extra{Name: name, URL: n.URL(), Version: n.opts.Version, Sealed: n.ring.Sealed()})
	if err != nil {
		return nil
	}
	return b
}

// nodes lists the members of the log, with what is known of each.
func (n *Node) nodes() []api.NodeInfo {
	s, peers := n.cluster.Status(), n.cluster.Peers()
	leader, _ := n.cluster.Leader()
	list := []api.NodeInfo{}
	for _, m := range n.cluster.Members() {
		i := api.NodeInfo{Node: m.ID.String(), Address: m.Addr, Role: "non-voter"}
		if m.Voter {
			i.Role = "voter"
		}
		if m.ID == leader.ID {
			i.Role = "leader"
		}
		var e extra
		p, heard := peers[m.ID]
		switch {
		case m.ID == n.id:
			i.Self, i.Applied, i.Behind = true, s.Applied, s.Commit-min(s.Commit, s.Applied)
			// It was made by us.
			_ = json.Unmarshal(n.extra(), &e)
			for _, f := range n.faults() {
				i.Faults = append(i.Faults, api.NodeFault{Name: f.Name, Reason: f.Reason})
			}
		case heard && !p.At.IsZero():
			i.Applied, i.Seen, i.Behind = p.Report.Applied, &p.At, p.Commit-min(p.Commit, p.Report.Applied)
			i.Unheard = max(0, n.opts.Now().Sub(p.At).Seconds())
			// What cannot be read is of a later version, and left out.
			_ = json.Unmarshal(p.Report.Extra, &e)
			for _, f := range p.Report.Faults {
				i.Faults = append(i.Faults, api.NodeFault{Name: f.Name, Reason: f.Reason})
			}
		}
		i.Name, i.URL, i.Version = e.Name, e.URL, e.Version
		list = append(list, i)
	}
	return list
}

// names returns the nodes' names by id.
func (n *Node) names(ctx context.Context, by storage.Actor) map[storage.ID]string {
	names := map[storage.ID]string{}
	all, err := n.members.List(ctx, by)
	if err != nil {
		n.logger.Debug("listing the nodes", "error", err)
	}
	for _, m := range all {
		names[m.ID] = m.Name
	}
	return names
}

// find returns the member that is called by its name, its id, or the beginning of its id.
func (n *Node) find(ctx context.Context, by storage.Actor, called string) (id storage.ID, name string, err error) {
	names := n.names(ctx, by)
	var found []storage.ID
	for _, m := range n.cluster.Members() {
		switch {
		case strings.EqualFold(names[m.ID], called), m.ID.String() == called:
			return m.ID, names[m.ID], nil
		case len(called) >= 4 && strings.HasPrefix(m.ID.String(), called):
			found = append(found, m.ID)
		}
	}
	switch len(found) {
	case 1:
		return found[0], names[found[0]], nil
	case 0:
		return id, "", storage.Errorf(storage.NotFound, "node_not_found", "there is no node %q: see `bulwark operator nodes`", called)
	}
	return id, "", storage.Errorf(storage.BadInput, "ambiguous_node", "more than one node's id begins with %q: give more of it, or its name", called)
}

// changeNode does one thing to a node, and writes down first who wanted it: what the log itself then does is no entry of ours.
func (n *Node) changeNode(ctx context.Context, by storage.Actor, called, action string, change func(context.Context, storage.ID) error) (api.NodeName, error) {
	id, name, err := n.find(ctx, by, called)
	if err != nil {
		return api.NodeName{}, err
	}
	if err := n.members.Note(ctx, by, action, id); err != nil {
		return api.NodeName{}, err
	}
	return api.NodeName{Node: id.String(), Name: name}, change(ctx, id)
}

func (n *Node) removeNode(ctx context.Context, by storage.Actor, req api.RemoveNodeRequest) (api.NodeName, error) {
	id, name, err := n.find(ctx, by, req.Node)
	if err != nil {
		return api.NodeName{}, err
	}
	if err := n.removable(id, req.Force); err != nil {
		return api.NodeName{}, err
	}
	if err := n.cluster.Remove(ctx, id); err != nil {
		return api.NodeName{}, err
	}
	return api.NodeName{Node: id.String(), Name: name}, n.members.Remove(ctx, by, id)
}

// removable reports whether the others can go on without a node.
func (n *Node) removable(id storage.ID, force bool) error {
	voters, alive := 0, 0
	for _, m := range n.cluster.Members() {
		if !m.Voter || m.ID == id {
			continue
		}
		voters++
		if n.alive(m.ID) {
			alive++
		}
	}
	switch {
	case voters == 0:
		return storage.Errorf(storage.Conflict, "last_voter", "it is the only node that votes: without it there is no cluster")
	case alive*2 <= voters && !force:
		return storage.Errorf(storage.Conflict, "no_majority",
			"of the %d other nodes that vote only %d can be reached: without this one the cluster would stop; bring them back first, or give --force", voters, alive)
	}
	return nil
}
