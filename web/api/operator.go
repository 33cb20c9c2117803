package api

import "time"

// The endpoints of the node itself. They work on a sealed node too: nothing that they need is in the store.
var (
	StatusRoute = Route[Empty, NodeStatus]{
		Method: "GET", Path: "/api/v1/status", Summary: "What state the node is in"}
	UnsealRoute = Route[UnsealRequest, UnsealReply]{
		Method: "POST", Path: "/api/v1/operator/unseal", Summary: "Give the node its passphrase, or one share of its root key"}
	SealRoute = Route[Empty, Empty]{
		Method: "POST", Path: "/api/v1/operator/seal", Summary: "Make the node forget its root key"}
	CARoute = Route[Empty, CAReply]{
		Method: "GET", Path: "/api/v1/ca", Summary: "The cluster's root certificate"}
)

// A NodeStatus is what a node says about itself.
type NodeStatus struct {
	Version    string       `json:"version" doc:"of the program"`
	Node       string       `json:"node" doc:"the node's id"`
	Cluster    string       `json:"cluster,omitempty" doc:"the cluster's id"`
	Data       string       `json:"data" doc:"the data folder"`
	URL        string       `json:"url,omitempty" doc:"where clients reach the node"`
	Role       string       `json:"role" doc:"leader, follower, candidate, or none"`
	Leader     string       `json:"leader,omitempty" doc:"the id of the node that leads"`
	Term       uint64       `json:"term"`
	Applied    uint64       `json:"applied" doc:"the log index up to which entries are applied"`
	Seal       string       `json:"seal" doc:"file, passphrase or shamir"`
	Sealed     bool         `json:"sealed" doc:"whether the node lacks its root key"`
	Shares     int          `json:"shares,omitzero" doc:"shares given so far"`
	Needed     int          `json:"needed,omitzero" doc:"shares that are needed"`
	Ready      bool         `json:"ready"`
	Reasons    []string     `json:"reasons,omitempty" doc:"why the node is not ready"`
	Started    time.Time    `json:"started"`
	Members    []Member     `json:"members,omitempty"`
	Components []ReadyState `json:"components,omitempty"`

	Verdict       string     `json:"verdict" doc:"how the cluster is, in one line, as this node sees it"`
	Healthy       bool       `json:"healthy" doc:"whether every node is there and has no fault"`
	Nodes         []NodeInfo `json:"nodes,omitempty"`
	DatabaseBytes int64      `json:"database_bytes"`
	LogBytes      int64      `json:"log_bytes"`
	Certificate   time.Time  `json:"certificate_expires,omitzero" doc:"of the certificate by which other nodes know this one"`
}

// A Member is one node of the cluster.
type Member struct {
	Node    string `json:"node"`
	Address string `json:"address"`
	Voter   bool   `json:"voter"`
}

// A ReadyState says whether one part of a node works.
type ReadyState struct {
	Name   string `json:"name"`
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
}

// An UnsealRequest has one of the two.
type UnsealRequest struct {
	Share      string `json:"share,omitempty" doc:"one share of the root key, as operator init printed it"`
	Passphrase string `json:"passphrase,omitempty"`
}

// An UnsealReply says how far the unsealing is.
type UnsealReply struct {
	Sealed bool `json:"sealed"`
	Shares int  `json:"shares,omitzero" doc:"shares given so far"`
	Needed int  `json:"needed,omitzero" doc:"shares that are needed"`
}

// A CAReply holds the cluster's root certificate.
type CAReply struct {
	PEM string `json:"pem" doc:"the certificate, as PEM"`
}
