package api

import "time"

// The endpoints of the cluster's nodes.
var (
	JoinTokenRoute = Route[JoinTokenRequest, JoinTokenReply]{
		Method: "POST", Path: "/api/v1/operator/join-tokens", Status: 201, Summary: "Make a token with which one new node may join the cluster"}
	JoinTokensRoute = Route[Empty, JoinTokens]{
		Method: "GET", Path: "/api/v1/operator/join-tokens", Summary: "The join tokens"}
	RevokeJoinTokenRoute = Route[JoinTokenID, Empty]{
		Method: "DELETE", Path: "/api/v1/operator/join-tokens/{id}", Summary: "Make a join token useless"}
	NodesRoute = Route[Empty, Nodes]{
		Method: "GET", Path: "/api/v1/operator/nodes", Summary: "The cluster's nodes, as this one sees them"}
	RemoveNodeRoute = Route[RemoveNodeRequest, NodeName]{
		Method: "POST", Path: "/api/v1/operator/nodes/{node}/remove", Summary: "Take a node out of the cluster for good"}
	PromoteNodeRoute = Route[NodeRequest, NodeName]{
		Method: "POST", Path: "/api/v1/operator/nodes/{node}/promote", Summary: "Give a node a vote"}
	TransferRoute = Route[TransferRequest, NodeName]{
		Method: "POST", Path: "/api/v1/operator/leader", Summary: "Make another node lead"}
)

// A JoinTokenRequest says how long the token is good for.
type JoinTokenRequest struct {
	Expires int `json:"expires,omitzero" doc:"seconds; default 3600, at most a week"`
}

// A JoinTokenReply shows the token, once.
type JoinTokenReply struct {
	ID      string    `json:"id"`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// A JoinTokenID names a join token.
type JoinTokenID struct {
	ID string `path:"id"`
}

// JoinTokens are those that were not revoked.
type JoinTokens struct {
	Tokens []JoinToken `json:"tokens"`
}

// A JoinToken is what is kept of one.
type JoinToken struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	UsedBy  string    `json:"used_by,omitempty" doc:"the name of the node that used it"`
}

// Nodes are the cluster's.
type Nodes struct {
	Nodes []NodeInfo `json:"nodes"`
}

// A NodeInfo is one node, as another sees it.
type NodeInfo struct {
	Node    string      `json:"node"`
	Name    string      `json:"name,omitempty" doc:"left out while the node that answers is sealed"`
	Address string      `json:"address" doc:"where other nodes reach it"`
	URL     string      `json:"url,omitempty" doc:"where clients reach it"`
	Role    string      `json:"role" doc:"leader, voter or non-voter"`
	Version string      `json:"version,omitempty"`
	Applied uint64      `json:"applied" doc:"the log index up to which entries are applied"`
	Behind  uint64      `json:"behind" doc:"entries of the log that the leader has committed and this node has not applied"`
	Self    bool        `json:"self,omitzero" doc:"the node that answers"`
	Seen    *time.Time  `json:"seen,omitempty" doc:"when it was last heard of"`
	Unheard float64     `json:"unheard_seconds,omitzero" doc:"how long nothing was heard of it"`
	Faults  []NodeFault `json:"faults,omitempty"`
}

// A NodeFault is why a node is not what it should be.
type NodeFault struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// A NodeRequest names a node by its name, its id, or the beginning of its id.
type NodeRequest struct {
	Node string `path:"node"`
}

// A RemoveNodeRequest takes a node out.
type RemoveNodeRequest struct {
	Node  string `path:"node"`
	Force bool   `json:"force,omitzero" doc:"also when too few of the others are alive to go on"`
}

// A TransferRequest may say which node is to lead.
type TransferRequest struct {
	Node string `json:"node,omitempty" doc:"name or id; default: the one that has most of the log"`
}

// A NodeName says which node it was.
type NodeName struct {
	Node string `json:"node"`
	Name string `json:"name,omitempty"`
}

// CompactRoute makes a node's database file anew without its free pages.
var CompactRoute = Route[Empty, Compacted]{
	Method: "POST", Path: "/api/v1/operator/compact", Summary: "Give the room in this node's database that deleted data left back to its disk"}

// Compacted says what a compaction did.
type Compacted struct {
	Before int64 `json:"before_bytes" doc:"of the database's file"`
	After  int64 `json:"after_bytes" doc:"the same as before, where there was nothing to do"`
}
