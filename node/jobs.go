package node

import (
	"context"
	"errors"
	"time"

	"bulwark/security/audit"
	"bulwark/security/auditsearch"
	"bulwark/storage"
	"bulwark/web/api"
)

// How often the jobs look whether there is something to do.
const (
	checkpointEvery = 10 * time.Second
	resealEvery     = time.Minute
)

// startJobs starts what goes on in the background while the node is unsealed, until ctx ends. n.jobs waits for it.
func (n *Node) startJobs(ctx context.Context, checkpoints *audit.Checkpointer, search *auditsearch.Index) {
	job := func(name string, fn func() error) {
		n.jobs.Go(func() {
			if err := fn(); err != nil && ctx.Err() == nil {
				n.logger.Error("a background job ended", "job", name, "error", err)
			}
		})
	}
	job("sweep", func() error { return n.parts.directory.Sweep(ctx) })
	job("audit index", func() error { return search.Follow(ctx, n.cluster) })
	job("audit checkpoints", func() error {
		ticker := time.NewTicker(checkpointEvery)
		defer ticker.Stop()
		return checkpoints.Run(ctx, n.cluster, ticker.C)
	})
	job("sealing anew", func() error { return n.resealAll(ctx) })
}

// resealAll seals anew what rotations left under old keys, whenever there is something, until ctx ends.
func (n *Node) resealAll(ctx context.Context) error {
	ticker := time.NewTicker(resealEvery)
	defer ticker.Stop()
	for {
		if err := n.resealOnce(ctx); err != nil && ctx.Err() == nil {
			n.logger.Warn("sealing anew", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-n.rotated:
		}
	}
}

// resealOnce finds the projects that have more than one key version, and seals their rows under the newest.
func (n *Node) resealOnce(ctx context.Context) error {
	snap, err := n.cluster.Local()
	if err != nil {
		return err
	}
	type scope struct{ tenant, project storage.ID }
	var due []scope
	tenants, err := snap.Tenants()
	for _, t := range tenants {
		var projects []storage.ID
		if projects, err = snap.Projects(t); err != nil {
			break
		}
		for _, p := range projects {
			versions, _, werr := snap.Wrapped(t, p)
			if err = errors.Join(err, werr); len(versions) > 1 {
				due = append(due, scope{t, p})
			}
		}
	}
	snap.Release()
	if err != nil {
		return err
	}
	for _, s := range due {
		sealed, err := n.store.Reseal(ctx, storage.JobActor(s.tenant, s.project, "sealing anew"))
		if err != nil {
			return err
		}
		n.logger.Info("sealed anew under the project's new key", "project", s.project, "values", sealed)
	}
	return nil
}

// A RotateKeyRequest names a project.
type RotateKeyRequest struct {
	Ref string `path:"ref"`
}

// RotateKeyRoute gives a project a new data key.
var RotateKeyRoute = api.Route[RotateKeyRequest, api.Empty]{
	Method: "POST", Path: "/api/v1/projects/{ref}/keys/rotate", Scope: api.ProjectScope,
	Summary: "Give a project a new data key; what is sealed under the old one is sealed anew in the background",
}

// registerKeys adds the endpoints of projects' data keys.
func (n *Node) registerKeys(m *api.Mux) {
	api.Handle(m, RotateKeyRoute, func(ctx context.Context, by storage.Actor, _ RotateKeyRequest) (api.Empty, error) {
		to := storage.Intent{Action: "key.rotate", Object: by.Project().String()}
		err := n.store.Update(ctx, by, to, func(tx storage.Tx) error {
			return tx.ChangeKeys(storage.RotateKeys, by.Tenant(), by.Project())
		})
		if err == nil {
			select {
			case n.rotated <- struct{}{}:
			default: // it is told already
			}
		}
		return api.Empty{}, err
	})
}
