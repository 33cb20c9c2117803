package node

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"bulwark/security/audit"
	"bulwark/security/auditsearch"
	"bulwark/storage"
	"bulwark/web/api"
)

// How often the jobs look whether there is something to do.
const (
	checkpointEvery = 10 * time.Second
	tidyEvery       = time.Minute
)

// startJobs starts what goes on in the background while the node is unsealed, until ctx ends. n.jobs waits for it.
func (n *Node) startJobs(ctx context.Context, checkpoints *audit.Checkpointer, search *auditsearch.Index) {
	job := func(name string, fn func() error) {
		n.jobs.Go(func() {
			if err := guarded(fn); err != nil && ctx.Err() == nil {
				n.logger.Error("a background job ended", "job", name, "error", err)
			}
		})
	}
	// What changes the cluster's records runs on the node that leads; what is this node's own runs here.
	led := func(name string, fn func(ctx context.Context) error) {
		job(name, func() error { return n.whileLeading(ctx, fn) })
	}
	led("sweep", n.parts.directory.Sweep)
	job("audit index", func() error { return search.Follow(ctx, n.cluster) })
	led("audit checkpoints", func(ctx context.Context) error {
		ticker := time.NewTicker(checkpointEvery)
		defer ticker.Stop()
		return checkpoints.Run(ctx, n.cluster, ticker.C)
	})
	job("node certificate", func() error { return n.keepEnrolled(ctx) })
	led("tidying up", n.tidyUp)
	led("snapshots", n.keepSnapshots)
}

// lookEvery is how often a node looks whether it still leads.
const lookEvery = 250 * time.Millisecond

// leads reports whether this node leads, as far as it knows. Two may believe so for a moment: what they then do twice must be
// harmless.
func (n *Node) leads() bool {
	leader, ok := n.cluster.Leader()
	return ok && leader.ID == n.id
}

// whileLeading runs fn whenever this node leads, until ctx ends. An error of fn while the node leads is returned.
func (n *Node) whileLeading(ctx context.Context, fn func(ctx context.Context) error) error {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for ctx.Err() == nil {
		if !n.leads() {
			select {
			case <-ctx.Done():
			case <-ticker.C:
			}
			continue
		}
		term, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- guarded(func() error { return fn(term) }) }()
		var err error
		for running := true; running; {
			select {
			case err = <-done:
				running = false
			case <-ticker.C:
				if !n.leads() {
					stop()
				}
			}
		}
		ended := term.Err() != nil
		stop()
		if !ended {
			return err
		}
	}
	return nil
}

// guarded runs fn. A page of the database that cannot be read ends fn, and not the process. What a panic says may quote what
// it met, so the error has its place only.
func guarded(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it panicked (%T)\n%s", p, debug.Stack())
		}
	}()
	return fn()
}

// tidyUp finishes what operators began, whenever there is something, until ctx ends: it seals anew what rotations left under
// old keys, and deletes the rows of dropped tables that a crash left behind.
func (n *Node) tidyUp(ctx context.Context) error {
	ticker := time.NewTicker(tidyEvery)
	defer ticker.Stop()
	for {
		if err := n.tidyProjects(ctx); err != nil && ctx.Err() == nil {
			n.logger.Warn("tidying up", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-n.rotated:
		}
	}
}

func (n *Node) tidyProjects(ctx context.Context) error {
	scopes, err := n.projects()
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range scopes {
		err := n.parts.sql.Purge(ctx, storage.JobActor(s.tenant, s.project, "deleting dropped tables"))
		if err == nil && s.keys > 1 {
			var sealed int
			sealed, err = n.store.Reseal(ctx, storage.JobActor(s.tenant, s.project, "sealing anew"))
			n.logger.Info("sealed anew under the project's new key", "project", s.project, "values", sealed)
		}
		if err != nil && !storage.IsNotFound(err) { // a project may be deleted meanwhile
			errs = append(errs, fmt.Errorf("project %s: %w", s.project, err))
		}
	}
	return errors.Join(errs...)
}

// A scope is a project, and how many versions of its key there are.
type scope struct {
	tenant, project storage.ID
	keys            int
}

// projects lists every project that has keys.
func (n *Node) projects() (all []scope, err error) {
	snap, err := n.cluster.Local()
	if err != nil {
		return nil, err
	}
	defer snap.Release()
	tenants, err := snap.Tenants()
	if err != nil {
		return nil, err
	}
	for _, t := range tenants {
		projects, err := snap.Projects(t)
		if err != nil {
			return nil, err
		}
		for _, p := range projects {
			versions, _, err := snap.Wrapped(t, p)
			if err != nil {
				return nil, err
			}
			all = append(all, scope{t, p, len(versions)})
		}
	}
	return all, nil
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
