package cluster

import (
	"bytes"
	"encoding/binary"

	"github.com/hashicorp/raft"
	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"

	"bulwark/cluster/fsm"
)

// Resum puts the right checksum at the end of a small file.
func Resum(b []byte) []byte {
	return binary.BigEndian.AppendUint32(b[:len(b)-4:len(b)-4], castagnoli(b[:len(b)-4]))
}

// Store is what raft keeps its log in.
type Store = store

// OpenOver is Open over a disk that wrap stands before.
func OpenOver(c Config, wrap func(Store) Store) (*Cluster, error) { return open(c, walfs.New(), wrap) }

// OpenOn is Open over files that may fail.
func OpenOn(c Config, files types.VFS) (*Cluster, error) {
	return open(c, files, func(s store) store { return s })
}

// EncodeLog and DecodeLog are the codec of the log.
func EncodeLog(l *raft.Log) []byte {
	var b bytes.Buffer
	if err := new(codec).Encode(l, &b); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func DecodeLog(b []byte, l *raft.Log) error { return new(codec).Decode(b, l) }

// Sum is the checksum that the log and its small files use.
func Sum(b []byte) uint32 { return castagnoli(b) }

// EncodeSmall and DecodeSmall are the format of the small files.
func EncodeSmall(payload []byte) []byte { return encodeSmall("test", 1, payload) }

func DecodeSmall(b []byte) ([]byte, error) { return decodeSmall("test", 1, b) }

// Confirm is one round of a read.
func Confirm(r interface {
	leadership
	VerifyLeader() raft.Future
}, consumed func() (index, term uint64)) (uint64, error) {
	return confirm(r, consumed, func(f raft.Future) error { return f.Error() }, func(uint64) error { return r.VerifyLeader().Error() })
}

// State is a node's database.
type State = fsm.State

// Format is the format of entries that n writes now.
func Format(n *Cluster) uint8 { return n.format() }

// Majority asks the voters for a confirmation that n leads in term.
func Majority(n *Cluster, term uint64) error { return n.majority(term) }
