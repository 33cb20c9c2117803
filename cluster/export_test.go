package cluster

import "encoding/binary"

// Resum puts the right checksum at the end of a small file.
func Resum(b []byte) []byte {
	return binary.BigEndian.AppendUint32(b[:len(b)-4:len(b)-4], castagnoli(b[:len(b)-4]))
}

// Store is what raft keeps its log in.
type Store = store

// OpenOver is Open over a disk that wrap stands before.
func OpenOver(c Config, wrap func(Store) Store) (*Cluster, error) { return open(c, wrap) }
