//go:build unix

package cluster_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"bulwark/cluster"
)

// threeBench is three nodes with real databases over real sockets, the leader first.
func threeBench(b *testing.B) (nodes [3]*cluster.Cluster) {
	id := newID()
	var voters []cluster.Voter
	var listeners [3]net.Listener
	for i := range nodes {
		listeners[i] = loopback(b)
		voters = append(voters, cluster.Voter{ID: newID(), Addr: listeners[i].Addr().String()})
	}
	for i := range nodes {
		config := onDisk(b, b.TempDir(), voters[i].ID, id)
		config.Listener.Close()
		config.Listener, config.Voters = listeners[i], voters
		var err error
		if nodes[i], err = cluster.Open(config); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { nodes[i].Close() })
	}
	for i := range nodes {
		if err := nodes[i].Ready(within(b, 30*time.Second)); err != nil {
			b.Fatal(err)
		}
	}
	for i := range nodes {
		if nodes[i].Status().Role == "leader" {
			nodes[0], nodes[i] = nodes[i], nodes[0]
		}
	}
	return nodes
}

// BenchmarkThree is proposals and reads at the leader and at a follower.
func BenchmarkThree(b *testing.B) {
	for at, where := range []string{"leader", "follower"} {
		for _, workers := range []int{1, 64} {
			b.Run(fmt.Sprintf("propose/%s/%d", where, workers), func(b *testing.B) {
				n := threeBench(b)[at]
				tenant := newID()
				b.ResetTimer()
				spread(b, workers, func(_, i int) {
					if _, err := n.Propose(b.Context(), put(tenant, fmt.Sprint(i), "a value")); err != nil {
						b.Error(err)
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
			})
			b.Run(fmt.Sprintf("read/%s/%d", where, workers), func(b *testing.B) {
				n := threeBench(b)[at]
				b.ResetTimer()
				spread(b, workers, func(int, int) {
					s, err := n.Snapshot(b.Context())
					if err != nil {
						b.Error(err)
						return
					}
					s.Release()
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
			})
		}
	}
}
