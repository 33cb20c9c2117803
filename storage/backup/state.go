package backup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"bulwark/storage"
	"bulwark/storage/bolt"
	"bulwark/storage/entry"
)

// Examine opens a copy of the database at path as a state machine would, walks all of it, and says what it holds. The audit
// trees are built anew from their leaves. It needs no key. The file is only read.
func Examine(path string, cluster storage.ID, logger *slog.Logger) (t Trailer, err error) {
	db, err := bolt.Open(bolt.Options{Path: path, ClusterID: cluster, Logger: logger})
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.Check(); err != nil {
		return t, err
	}
	image, err := db.Image()
	if err != nil {
		return t, err
	}
	defer image.Close()
	d, err := image.Digest()
	return Found(d), err
}

// Opened says how many sealed values a root key has opened.
type Opened struct {
	Values uint64 `json:"values"`
	Events uint64 `json:"events"`
}

// OpenAll opens every value and every audit event of the copy at path.
func OpenAll(ctx context.Context, path string, cluster storage.ID, keys storage.Keys, audit storage.Audit, logger *slog.Logger) (o Opened, err error) {
	db, err := bolt.Open(bolt.Options{Path: path, ClusterID: cluster, Logger: logger})
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	snap, err := db.Snapshot()
	if err != nil {
		return o, err
	}
	defer snap.Release()
	tenants, err := snap.Tenants()
	if err != nil {
		return o, err
	}
	for _, t := range tenants {
		if err := o.tenant(ctx, snap, keys, audit, t); err != nil {
			return o, fmt.Errorf("tenant %s: %w", t, err)
		}
	}
	return o, nil
}

func (o *Opened) tenant(ctx context.Context, snap storage.Snapshot, keys storage.Keys, audit storage.Audit, tenant storage.ID) error {
	projects, err := snap.Projects(tenant)
	if err != nil {
		return err
	}
	for _, p := range append([]storage.ID{{}}, projects...) {
		if err := o.scope(ctx, snap, keys, tenant, p); err != nil {
			return fmt.Errorf("project %s: %w", p, err)
		}
	}
	sealer, err := keys.Sealer(snap, tenant, storage.ID{})
	if err != nil {
		return err
	}
	var failed error
	err = snap.Leaves(tenant, 0, func(position uint64, leaf entry.Leaf) bool {
		if _, failed = audit.Open(sealer, tenant, leaf); failed != nil {
			failed = fmt.Errorf("audit event %d: %w", position, failed)
		}
		o.Events++
		return failed == nil && ctx.Err() == nil
	})
	return errors.Join(err, failed, ctx.Err())
}

func (o *Opened) scope(ctx context.Context, snap storage.Snapshot, keys storage.Keys, tenant, project storage.ID) error {
	sealer, err := keys.Sealer(snap, tenant, project)
	if err != nil {
		return err
	}
	spaces, err := snap.Spaces(tenant, project)
	if err != nil {
		return err
	}
	var plain []byte
	for _, table := range spaces {
		if project.IsZero() && table == entry.Outbox {
			continue // a message is sealed at a place that only its receiver knows
		}
		var failed error
		err := snap.Scan(tenant, entry.Space{Project: project, Table: table}, nil, nil, false, func(key, value []byte, _ uint64) bool {
			if len(value) == 0 {
				return true // a look-up key
			}
			plain, failed = sealer.Open(plain[:0], value, storage.Place{Tenant: tenant, Project: project, Table: table, Key: key})
			o.Values++
			return failed == nil && ctx.Err() == nil
		})
		clear(plain)
		if err := errors.Join(err, failed, ctx.Err()); err != nil {
			return fmt.Errorf("table %s: %w", table, err)
		}
	}
	return nil
}

// Extract writes the database of a snapshot to path, checks all of it, and compares it with what the snapshot says.
func Extract(file, path string, logger *slog.Logger, progress func(done, size int64)) (s *Snapshot, err error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading the snapshot: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("restoring the database: %w", err)
	}
	s, err = Read(in, out, progress)
	if err := errors.Join(err, out.Sync(), out.Close()); err != nil {
		return nil, err
	}
	found, err := Examine(path, s.Header.Cluster, logger)
	if err != nil {
		return nil, err
	}
	if !found.Same(&s.Trailer) {
		return nil, damaged("the database in it is not the one that the snapshot says was saved")
	}
	return s, nil
}
