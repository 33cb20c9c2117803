// Package auditsearch finds events of the audit log: a bleve index for each tenant, derived from the log.
//
// Promise: an answer misses nothing that was in the log when the search was called, and holds nothing that the store would
// not have shown. Of a request's id, a phrase and a time inside a second, the index knows less than the query asks: such
// events are opened and looked at, before they are shown or counted. No word of an event is in any file of the index in clear. An index that is missing, damaged, sealed
// under another key or not of this log is made anew from the log, and the answer is the same.
//
// On disk an index is a folder named after the tenant's id, with bleve's files (root.bolt, *.zap) and a manifest of ours.
// The values in bleve's files are sealed (see hooks.go); sizes, counts and documents' positions are visible.
package auditsearch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bulwark/security/audit"
	"bulwark/storage"
)

// A KeySource gives the key of a tenant's index: 32 bytes, and an id that names this key and no other. Under a key with
// another id the index is made anew. The key is the caller's to keep; Index clears the slice.
type KeySource interface {
	IndexKey(tenant storage.ID) (id string, key []byte, err error)
}

// Config is what an Index needs. The zero values of the last four mean their defaults.
type Config struct {
	Dir     string // holds a folder for each tenant; it is the Index's own
	Store   storage.Store
	History storage.History
	Keys    KeySource
	Clock   func() time.Time
	Logger  *slog.Logger

	Gather time.Duration // how long events gather before they are indexed, when no search waits; 30 s
	Batch  uint64        // so many events are indexed without waiting for Gather; 5,000
	Idle   time.Duration // an index that nobody needs is closed after it; 1 minute
	Duty   float64       // the fraction of one core that indexing may take, when no search waits; 0.1
}

// An Index is the search index of every tenant on this node. It implements audit.Searcher and storage.Follower, and is
// safe for concurrent use. A process can have one Index of a folder.
type Index struct {
	cfg     Config
	schema  *schema
	reached atomic.Uint64
	waiting atomic.Int64 // searches that wait for their index

	mu      sync.Mutex
	tenants map[storage.ID]*tenantIndex
	closed  bool
}

var (
	_ audit.Searcher   = (*Index)(nil)
	_ storage.Follower = (*Index)(nil)
)

// Open returns the Index over the folder cfg.Dir, which it makes where there is none. Indexes are opened when they are
// needed.
func Open(cfg Config) (*Index, error) {
	switch {
	case cfg.Dir == "":
		return nil, errors.New("opening the audit index: no folder")
	case cfg.Store == nil || cfg.History == nil:
		return nil, errors.New("opening the audit index: no store or history")
	case cfg.Keys == nil:
		return nil, errors.New("opening the audit index: no keys")
	case cfg.Clock == nil || cfg.Logger == nil:
		return nil, errors.New("opening the audit index: no clock or logger")
	case cfg.Duty < 0 || cfg.Duty > 1:
		return nil, errors.New("opening the audit index: duty is a fraction between 0 and 1")
	}
	if cfg.Gather == 0 {
		cfg.Gather = 30 * time.Second
	}
	if cfg.Batch == 0 {
		cfg.Batch = maxBatch
	}
	if cfg.Idle == 0 {
		cfg.Idle = time.Minute
	}
	if cfg.Duty == 0 {
		cfg.Duty = 0.1
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("opening the audit index: %w", err)
	}
	cfg.Dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening the audit index: %w", err)
	}
	s, err := newSchema()
	if err != nil {
		return nil, err
	}
	return &Index{cfg: cfg, schema: s, tenants: map[storage.ID]*tenantIndex{}}, nil
}

// Close closes every index. Searches that run end first; later ones are refused.
func (x *Index) Close() {
	x.mu.Lock()
	x.closed = true
	tenants := x.tenants
	x.tenants = map[storage.ID]*tenantIndex{}
	x.mu.Unlock()
	for _, t := range tenants {
		<-t.work // and it is never given back
		x.shut(t)
	}
}

// of returns the tenant's index, which need not be open.
func (x *Index) of(tenant storage.ID) (*tenantIndex, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil, storage.Errorf(storage.Unavailable, "stopping", "the node is stopping; try another one")
	}
	t := x.tenants[tenant]
	if t == nil {
		t = &tenantIndex{tenant: tenant, path: filepath.Join(x.cfg.Dir, tenant.String()), work: make(chan struct{}, 1)}
		t.work <- struct{}{}
		x.tenants[tenant] = t
	}
	return t, nil
}

// Name implements storage.Follower.
func (x *Index) Name() string { return "audit index" }

// Reached implements storage.Follower: every tenant's events up to this revision are indexed.
func (x *Index) Reached() uint64 { return x.reached.Load() }

// Follow implements storage.Follower. It lets events gather, and takes at most cfg.Duty of one core: a search does not
// depend on it, because it brings its index up to date itself.
func (x *Index) Follow(ctx context.Context, e storage.Engine) error {
	since := map[storage.ID]time.Time{} // when events that are not indexed were first seen
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		began := time.Now()
		err := x.round(ctx, e, since)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			x.cfg.Logger.Warn("following the log for the audit index", slog.Any("error", err))
		}
		timer.Reset(x.pause(time.Since(began)))
	}
}

// pause is how long to rest after working for d.
func (x *Index) pause(d time.Duration) time.Duration {
	rest := time.Duration(float64(d) * (1/x.cfg.Duty - 1))
	return max(rest, min(time.Second, x.cfg.Gather))
}

// round looks at each tenant once, and indexes one batch of each that is due.
func (x *Index) round(ctx context.Context, e storage.Engine, since map[storage.ID]time.Time) error {
	snap, err := e.Local()
	if err != nil {
		return err
	}
	revision := snap.Revision()
	tenants, err := snap.Tenants()
	sizes := make([]uint64, len(tenants))
	for i := range tenants {
		if err == nil {
			sizes[i], _, err = snap.Tree(tenants[i])
		}
	}
	snap.Release()
	if err != nil {
		return err
	}
	all := true
	var failed []error
	for i, tenant := range tenants {
		done, err := x.follow(ctx, tenant, sizes[i], since)
		all = all && done
		if err != nil && ctx.Err() == nil {
			failed = append(failed, err)
		}
	}
	if all {
		x.reached.Store(revision)
	}
	return errors.Join(append(failed, x.drop(tenants))...)
}

// follow indexes one batch of a tenant that is due, and closes an index that nobody needs. It reports whether the index
// has every event below size.
func (x *Index) follow(ctx context.Context, tenant storage.ID, size uint64, since map[storage.ID]time.Time) (bool, error) {
	t, err := x.of(tenant)
	if err != nil {
		return false, err
	}
	select {
	case <-t.work:
	default: // a search is at it
		return false, nil
	}
	defer t.unlock()
	now := x.cfg.Clock()
	if t.reached >= size {
		delete(since, tenant)
		if t.open != nil && now.Sub(t.used) >= x.cfg.Idle && t.open.inUse.TryLock() {
			t.open.inUse.Unlock()
			x.shut(t)
		}
		return true, nil
	}
	first, seen := since[tenant]
	if !seen {
		first = now
		since[tenant] = now
	}
	if size-t.reached < x.cfg.Batch && now.Sub(first) < x.cfg.Gather {
		return false, nil
	}
	if err := x.ensure(ctx, t); err != nil {
		return false, err
	}
	t.used = now
	if t.reached < size {
		if err := x.step(ctx, t, size); err != nil {
			return false, err
		}
		if err := t.open.merge(ctx); err != nil {
			return false, err
		}
	}
	return t.reached >= size, nil
}

// drop removes the indexes of tenants that are no more.
func (x *Index) drop(alive []storage.ID) error {
	files, err := os.ReadDir(x.cfg.Dir)
	if err != nil {
		return fmt.Errorf("listing audit indexes: %w", err)
	}
	for _, f := range files {
		id, err := storage.ParseID(f.Name())
		if err != nil || slices.Contains(alive, id) {
			continue
		}
		if err := x.discard(id); err != nil {
			return fmt.Errorf("removing the audit index of a tenant that is no more: %w", err)
		}
	}
	return nil
}

func (x *Index) discard(tenant storage.ID) error {
	t, err := x.of(tenant)
	if err != nil {
		return err
	}
	<-t.work
	defer t.unlock()
	x.shut(t)
	t.reached = 0
	return os.RemoveAll(t.path)
}
