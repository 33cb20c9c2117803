package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A collector says of the node what it knows when it is asked. Its labels hold names of the cluster's nodes and of faults, never
// a tenant's or a project's.
type collector struct{ n *Node }

var (
	sealedMetric     = gauge("bulwark_sealed", "Whether the node lacks its root key.")
	leaderMetric     = gauge("bulwark_raft_leader", "Whether the node leads.")
	termMetric       = gauge("bulwark_raft_term", "The term of the log.")
	commitMetric     = gauge("bulwark_raft_commit_index", "The index up to which the log is committed, as the node knows.")
	appliedMetric    = gauge("bulwark_raft_applied_index", "The index up to which the log is applied.")
	lastMetric       = gauge("bulwark_raft_last_index", "The index of the last entry in the node's log.")
	votersMetric     = gauge("bulwark_raft_voters", "Nodes that vote.")
	logMetric        = gauge("bulwark_raft_log_bytes", "Bytes that the log takes on the disk.")
	batchesMetric    = counter("bulwark_raft_batches_total", "Writes of the log, each with one sync.")
	entriesMetric    = counter("bulwark_raft_entries_total", "Entries that the node proposed as leader.")
	roundsMetric     = counter("bulwark_raft_read_rounds_total", "Rounds that confirmed leadership for reads.")
	readsMetric      = counter("bulwark_raft_reads_total", "Reads that shared those rounds.")
	persistedMetric  = gauge("bulwark_store_persisted_index", "The index up to which the database's file holds the log.")
	revisionMetric   = gauge("bulwark_store_revision", "The state's revision.")
	databaseMetric   = gauge("bulwark_store_file_bytes", "Bytes of the database's file.")
	freePagesMetric  = gauge("bulwark_store_free_pages", "Pages of the file that later flushes use again.")
	overlayMetric    = gauge("bulwark_store_overlay_bytes", "Bytes that are applied and not in the file yet.")
	certMetric       = gauge("bulwark_node_certificate_expiry_timestamp_seconds", "When the certificate ends by which other nodes know this one.")
	faultMetric      = gauge("bulwark_fault", "Faults of the node; 1 where there is one.", "fault")
	peerSeenMetric   = gauge("bulwark_peer_unheard_seconds", "How long nothing was heard of another node.", "peer")
	peerBehindMetric = gauge("bulwark_peer_behind_entries", "Entries of the log that another node has not applied.", "peer")
	peerTripMetric   = gauge("bulwark_peer_round_trip_seconds", "How long another node's last answer took.", "peer")
)

// A metric is described once, and given a value whenever somebody asks.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue}
}

func counter(name, help string) metric {
	return metric{prometheus.NewDesc(name, help, nil, nil), prometheus.CounterValue}
}

// Describe implements prometheus.Collector: what there is depends on the node's state.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	n := c.n
	say := func(m metric, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
	}
	s, stats := n.cluster.Status(), n.state.Stats()
	say(sealedMetric, truth(n.ring.Sealed()))
	say(leaderMetric, truth(n.leads()))
	say(termMetric, float64(s.Term))
	say(commitMetric, float64(s.Commit))
	say(appliedMetric, float64(s.Applied))
	say(lastMetric, float64(s.Last))
	say(votersMetric, float64(len(s.Voters)))
	say(logMetric, float64(s.LogBytes))
	say(batchesMetric, float64(s.Batches))
	say(entriesMetric, float64(s.Entries))
	say(roundsMetric, float64(s.Rounds))
	say(readsMetric, float64(s.SharedByThem))
	say(persistedMetric, float64(s.Persisted))
	say(revisionMetric, float64(s.Revision))
	say(databaseMetric, float64(stats.FileSize))
	say(freePagesMetric, float64(stats.FreePages))
	say(overlayMetric, float64(stats.OverlayBytes))
	if at := n.credentials.Expires(); !at.IsZero() {
		say(certMetric, float64(at.Unix()))
	}
	seen := map[string]bool{}
	for _, f := range n.faults() {
		if !seen[f.Name] {
			seen[f.Name] = true
			say(faultMetric, 1, f.Name)
		}
	}
	peers := n.cluster.Peers()
	for _, m := range n.cluster.Members() {
		p, ok := peers[m.ID]
		if !ok || p.At.IsZero() {
			continue
		}
		name := m.ID.String()
		say(peerSeenMetric, max(0, n.opts.Now().Sub(p.At).Seconds()), name)
		say(peerBehindMetric, float64(p.Commit-min(p.Commit, p.Report.Applied)), name)
		say(peerTripMetric, float64(p.Took)/float64(time.Second), name)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
