package node

import (
	"context"
	"errors"

	"bulwark/cluster"
	"bulwark/storage"
	"bulwark/storage/bolt"
	"bulwark/web/api"
)

// registerCompact adds the endpoint that compacts this node's database.
func (n *Node) registerCompact(m *api.Mux) {
	api.Handle(m, api.CompactRoute, func(ctx context.Context, by storage.Actor, _ api.Empty) (api.Compacted, error) {
		return n.compact(ctx, by)
	})
}

// compact rewrites the database while it is used. A large one takes longer than a request may: the work then goes on, and the
// node's log says how it ended.
func (n *Node) compact(ctx context.Context, by storage.Actor) (api.Compacted, error) {
	// A full disk would stop the log, so the room for the new file is asked for first.
	size := n.state.Stats().UsedSize
	if free, err := cluster.FreeSpace(n.cfg.Data); err == nil && free < size+spareRoom {
		return api.Compacted{}, storage.Errorf(storage.Unavailable, "no_room",
			"compacting needs up to %d MiB beside the database, and the disk has %d MiB free: free some first", (size+spareRoom)>>20, free>>20)
	}
	to := storage.Intent{Action: "operator.compact", Object: n.id.String()}
	err := n.store.Update(ctx, by, to, func(tx storage.Tx) error {
		tx.Note("bytes", size)
		return nil
	})
	if err != nil {
		return api.Compacted{}, err
	}
	type result struct {
		did api.Compacted
		err error
	}
	done := make(chan result, 1)
	n.running.Go(func() {
		var r result
		r.err = guarded(func() (err error) {
			r.did.Before, r.did.After, err = n.state.Compact(n.life)
			return err
		})
		if r.err == nil {
			n.logger.Info("compacted the database", "before", r.did.Before, "after", r.did.After)
		} else {
			n.logger.Warn("compacting the database", "error", r.err)
		}
		done <- r
	})
	select {
	case r := <-done:
		if errors.Is(r.err, bolt.ErrCompacting) {
			return r.did, storage.Errorf(storage.Conflict, "compacting", "the database is being compacted already: wait for that")
		}
		return r.did, r.err
	case <-ctx.Done():
		return api.Compacted{}, storage.Errorf(storage.Unavailable, "goes_on", "the database is large: compacting goes on, and the node's log will say how it ended")
	}
}
