package cluster

import "bulwark/storage"

// Identity returns whose log is in dir: the ids of its cluster and node. A folder without a log is fs.ErrNotExist.
func Identity(dir string) (cluster, node storage.ID, err error) {
	found, err := readIdentity(dir)
	return found.Cluster, found.Node, err
}
