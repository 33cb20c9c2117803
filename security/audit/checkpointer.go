package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"bulwark/storage"
)

// A Signed is a signed checkpoint: the note, and what it says.
type Signed struct {
	Checkpoint
	Note     []byte // C2SP signed note
	Verifier string // the key that checks it: "name+hash+key"
}

// A Checkpointer makes signed checkpoints of tenants' trees and keeps the last one of each.
type Checkpointer struct {
	store   storage.Store
	history storage.History
	signer  *Signer
	logger  *slog.Logger
	table   *storage.Table[kept]
}

// A kept is the last stored checkpoint of a tenant.
type kept struct {
	Size uint64 `cbor:"s"`
	Note []byte `cbor:"n"`
}

var keptID = storage.ID{15: 1} // there is one

// NewCheckpointer returns a Checkpointer. None of its parts may be nil.
func NewCheckpointer(store storage.Store, history storage.History, signer *Signer, logger *slog.Logger) (*Checkpointer, error) {
	if store == nil || history == nil || signer == nil || logger == nil {
		return nil, errors.New("the checkpointer needs a store, a history, a signer and a logger")
	}
	return &Checkpointer{store, history, signer, logger, storage.NewTable[kept]("audit_checkpoint", storage.TenantScope)}, nil
}

// Current signs the tree of the actor's tenant as it is now.
func (c *Checkpointer) Current(ctx context.Context, by storage.Actor) (*Signed, error) {
	return c.current(ctx, by, storage.Intent{Action: "audit.checkpoint"})
}

func (c *Checkpointer) current(ctx context.Context, by storage.Actor, to storage.Intent) (*Signed, error) {
	size, edge, err := c.history.Tree(ctx, by, to)
	if err != nil {
		return nil, err
	}
	t, err := NewTree(size, edge)
	if err != nil {
		return nil, err
	}
	return c.sign(by.Tenant(), t)
}

func (c *Checkpointer) sign(tenant storage.ID, t *Tree, extensions ...string) (*Signed, error) {
	s := &Signed{Checkpoint: Checkpoint{Origin: c.signer.Origin(tenant), Size: t.Size(), Root: t.Root(), Extensions: extensions}}
	var err error
	if s.Verifier, err = c.signer.VerifierKey(tenant); err != nil {
		return nil, err
	}
	s.Note, err = c.signer.Sign(tenant, s.Size, s.Root, extensions...)
	return s, err
}

// Kept returns the last stored checkpoint of the actor's tenant, or an error that is NotFound.
func (c *Checkpointer) Kept(ctx context.Context, by storage.Actor) (note []byte, size uint64, err error) {
	err = c.store.View(ctx, by, storage.Intent{Action: "audit.checkpoint"}, func(r storage.Reader) error {
		k, err := c.table.Get(r, keptID)
		note, size = k.Note, k.Size
		return err
	})
	return note, size, err
}

var errNothingNew = errors.New("nothing new to sign")

// Keep signs the tenant's tree and stores the checkpoint, if the tree has grown by something other than the event of the
// last stored one. It reports whether it did. Several nodes may do so at once: one of them wins.
func (c *Checkpointer) Keep(ctx context.Context, tenant storage.ID) (bool, error) {
	by, to := storage.JobActor(tenant, storage.ID{}, "audit-checkpoint"), storage.Intent{Action: "audit.checkpoint"}
	s, err := c.current(ctx, by, to)
	if err != nil {
		return false, err
	}
	err = c.store.Update(ctx, by, to, func(tx storage.Tx) error {
		last, err := c.table.Get(tx, keptID)
		switch {
		case storage.IsNotFound(err):
			if s.Size == 0 {
				return errNothingNew
			}
		case err != nil:
			return err
		case s.Size <= last.Size+1: // + 1: the event of storing it
			return errNothingNew
		}
		tx.Note("size", s.Size)
		return c.table.Put(tx, keptID, kept{Size: s.Size, Note: s.Note})
	})
	if errors.Is(err, errNothingNew) {
		return false, nil
	}
	return err == nil, err
}

// Run keeps checkpoints of every tenant that the engine's local state has, each time that tick fires, until ctx ends.
func (c *Checkpointer) Run(ctx context.Context, e storage.Engine, tick <-chan time.Time) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick:
			if err := c.keepAll(ctx, e); err != nil && ctx.Err() == nil {
				c.logger.Warn("storing audit checkpoints", slog.Any("error", err))
			}
		}
	}
}

func (c *Checkpointer) keepAll(ctx context.Context, e storage.Engine) error {
	snap, err := e.Local()
	if err != nil {
		return err
	}
	tenants, err := snap.Tenants()
	snap.Release()
	if err != nil {
		return err
	}
	var failed []error
	for _, t := range tenants {
		if _, err := c.Keep(ctx, t); err != nil {
			failed = append(failed, fmt.Errorf("tenant %s: %w", t, err))
		}
	}
	return errors.Join(failed...)
}
