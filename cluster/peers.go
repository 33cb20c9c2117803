package cluster

import (
	"context"
	"encoding/json"
	"time"

	"bulwark/storage"
)

// A Report is what a node says of itself. All nodes ask each other for it, every Config.ReportEvery.
type Report struct {
	Node                                        storage.ID
	Applied, Persisted, LastIndex, Commit, Term uint64
	Leads                                       bool
	Formats                                     [2]uint8 // the oldest and the newest entry format that it reads
	Clock                                       time.Time
	Faults                                      []Fault            `json:",omitempty"`
	Points                                      []Point            `json:",omitempty"`
	Acked                                       map[storage.ID]Ack `json:",omitempty"` // what it knows that others acknowledged
	Extra                                       json.RawMessage    `json:",omitempty"` // Config.Extra
}

// A Fault is why a node is not what it should be.
type Fault struct{ Name, Reason string }

// A Point is the state's hash after the entry at Index.
type Point struct {
	Index uint64
	Root  [32]byte
}

// An Ack is how far a node's log went when it acknowledged it.
type Ack struct{ Index, Term uint64 }

// A PeerReport is the last answer of another member.
type PeerReport struct {
	Report Report
	At     time.Time     // when it came; zero: never
	Took   time.Duration // from the question to the answer
	Err    string        // why the last question was not answered; "" when it was
}

// Peers returns the last answer of each other member.
func (c *Cluster) Peers() map[storage.ID]PeerReport { return nil }

// Call calls a method of another member.
func (c *Cluster) Call(ctx context.Context, to storage.ID, method string, body []byte) ([]byte, error) {
	return nil, errUnbuilt
}
