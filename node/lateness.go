package node

import (
	"sync"
	"time"

	"bulwark/cluster"
	"bulwark/storage"
)

// A lateness remembers since when a node has not caught up with where the leader was.
type lateness struct {
	mu     sync.Mutex
	target uint64    // what the leader had committed when the node was last seen to be behind
	since  time.Time // zero: it is not behind
}

// behind returns for how long the node has not come to where the leader was when it was first seen to be behind. A node that
// follows closely is always a little behind, but not behind the same place.
func (l *lateness) behind(now time.Time, s cluster.Status, peers map[storage.ID]cluster.PeerReport) time.Duration {
	commit := s.Commit
	for _, p := range peers {
		if p.Report.Leads {
			commit = max(commit, p.Report.Commit)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.Applied >= l.target {
		l.since = time.Time{}
	}
	if s.Applied >= commit {
		return 0
	}
	if l.since.IsZero() {
		l.since, l.target = now, commit
	}
	return now.Sub(l.since)
}
