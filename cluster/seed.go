package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"bulwark/storage"
)

// Seed makes the log of a cluster of one behind a database that holds entries up to index: one that a snapshot was restored
// into. The folder must not be there.
func Seed(dir string, cluster storage.ID, self Voter, index uint64) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("making the log's folder: %w", err)
	}
	table := &contents{dir: dir}
	table.data.Stable = map[string][]byte{}
	// raft-wal reads numbers in little-endian.
	if err := table.SetStable([]byte(currentTerm), []byte{seedTerm, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		return fmt.Errorf("making the log: %w", err)
	}
	k := &mark{
		Index: index, Term: seedTerm, ConfigurationIndex: index, Persisted: index, Emptied: true,
		Configuration: raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{
			{Suffrage: raft.Voter, ID: serverID(self.ID), Address: raft.ServerAddress(self.Addr)},
		}}),
	}
	if err := writeMark(dir, k); err != nil {
		return fmt.Errorf("making the log: %w", err)
	}
	b, err := json.Marshal(identity{cluster, self.ID})
	if err != nil {
		return err
	}
	// Last: a log without an identity is none.
	if err := writeSmall(dir, identityName, identityKind, identityVersion, b); err != nil {
		return fmt.Errorf("making the log: %w", err)
	}
	return syncDir(filepath.Dir(dir))
}

// seedTerm is the term of what a restored database holds. Every election comes after it.
const seedTerm = 1
