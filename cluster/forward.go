package cluster

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/hashicorp/raft"

	"bulwark/storage"
	"bulwark/storage/entry"
)

// forward proposes an encoded entry at the leader, and returns when this node's state has it.
func (c *Cluster) forward(ctx context.Context, leader Member, encoded []byte) (entry.Outcome, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Once another leads, the answer may never come; what was asked is in doubt, and the other can settle it.
	defer c.deposed(leader, cancel)()
	answer, err := c.Call(ctx, leader.ID, "propose", encoded)
	if err != nil {
		return entry.Outcome{}, err
	}
	if len(answer) != answerLen {
		return entry.Outcome{}, &storage.InDoubt{Cause: errors.New("the leader's answer cannot be read: is it of another version?")}
	}
	o := entry.Outcome{Status: entry.Status(answer[0]), Revision: binary.BigEndian.Uint64(answer[1:])}
	// The outcome is known now. If this node's state takes longer than the caller has, a Snapshot will wait for it.
	_ = c.fsm.Wait(ctx, binary.BigEndian.Uint64(answer[9:]))
	return o, nil
}

// answerLen is the length of the answer to a proposal: status (1) · revision (8) · index of the log (8).
const answerLen = 1 + 8 + 8

// proposeFor proposes an entry for another node.
func (c *Cluster) proposeFor(ctx context.Context, encoded []byte) ([]byte, error) {
	if c.raft.State() != raft.Leader {
		return nil, errNotLeader()
	}
	// What cannot be read would stop every node.
	e, err := entry.Decode(encoded)
	if err == nil {
		err = e.Validate()
	}
	if err != nil {
		return nil, &storage.Error{Fault: storage.BadInput, Code: "bad_entry", Message: "the entry cannot be read: is the other node of another version?", Cause: err}
	}
	if err := c.disk.takes(e); err != nil {
		return nil, err
	}
	if format := c.format(); encoded[0] > format { // the other node has heard of a member that this one has not
		encoded = entry.AppendFormat(nil, format, e)
	}
	o, index, err := c.proposeHere(ctx, encoded)
	if err != nil {
		return nil, err
	}
	answer := append(make([]byte, 0, answerLen), byte(o.Status))
	answer = binary.BigEndian.AppendUint64(answer, o.Revision)
	return binary.BigEndian.AppendUint64(answer, index), nil
}
