package cluster_test

import (
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"

	walfs "github.com/hashicorp/raft-wal/fs"

	"bulwark/cluster"
	"bulwark/cluster/memnet"
	"bulwark/storage/bolt"
)

// TestNothingRunsOn closes nodes, and lets their opening fail at each of its steps. A bubble does not end before every
// goroutine that was started in it has.
func TestNothingRunsOn(t *testing.T) {
	t.Parallel()
	for n := range 14 {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				dir, node, id := t.TempDir(), newID(), newID()
				left := n
				if n == 0 {
					left = 1 << 30 // none fails
				}
				l, err := memnet.New().Listen("node")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				state, err := bolt.Open(bolt.Options{Path: filepath.Join(dir, "data.db"), ClusterID: id, Logger: quiet()})
				if err != nil {
					t.Fatal(err)
				}
				c, err := cluster.OpenOn(cluster.Config{
					Cluster: id, Node: node, Dir: filepath.Join(dir, "log"), State: state,
					Voters:   []cluster.Voter{{ID: node, Addr: "node"}},
					Listener: l, Dial: dial, Logger: quiet(),
				}, &nthFails{VFS: walfs.New(), how: "refused", left: left})
				if err != nil {
					if err := state.Close(); err != nil || n == 0 {
						t.Error(err)
					}
					return
				}
				if _, err := c.Propose(t.Context(), put(newID(), "k", "v")); err != nil && n == 0 {
					t.Errorf("a write: %v", err)
				}
				if err := c.Close(); err != nil && n == 0 {
					t.Error(err)
				}
			})
		})
	}
}
