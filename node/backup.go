package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"bulwark/cluster"
	"bulwark/security/audit"
	"bulwark/security/keys"
	"bulwark/storage"
	"bulwark/storage/backup"
	"bulwark/storage/bolt"
	"bulwark/web/api"
)

// A SnapshotRequest says how a snapshot is taken.
type SnapshotRequest struct {
	Rate      int  `query:"rate" doc:"MiB a second at most; 0 is as fast as it goes"`
	Uncertain bool `query:"no_certify" doc:"do not restore the copy in the node to see that it can be"`
}

// SnapshotRoute takes a snapshot while writes go on.
var SnapshotRoute = api.Route[SnapshotRequest, api.Empty]{
	Method: "GET", Path: "/api/v1/operator/snapshot", Summary: "A snapshot of the whole cluster, sealed, while writes go on"}

// SnapshotType is the content type of a snapshot.
const SnapshotType = "application/vnd.bulwark.snapshot"

func (n *Node) registerBackup(m *api.Mux) {
	api.HandleStream(m, SnapshotRoute, SnapshotType, func(ctx context.Context, by storage.Actor, req SnapshotRequest, w io.Writer) error {
		_, err := n.saveSnapshot(ctx, by, req, w)
		return err
	})
}

// snapshotKey signs this cluster's snapshots. Whoever has the root key can make it, and nobody else.
func snapshotKey(ring *keys.Ring) (ed25519.PrivateKey, error) {
	seed, err := ring.Derive("snapshot signing", ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	defer clear(seed)
	return ed25519.NewKeyFromSeed(seed), nil
}

// saveSnapshot writes a snapshot to w. That it was taken is in the audit log before its end is written.
func (n *Node) saveSnapshot(ctx context.Context, by storage.Actor, req SnapshotRequest, w io.Writer) (*backup.Trailer, error) {
	if !n.saving.TryLock() { // there is one scratch copy
		return nil, storage.Errorf(storage.Conflict, "snapshot_running", "a snapshot is being saved at this node already: wait for it, or ask another node")
	}
	defer n.saving.Unlock()
	start := time.Now()
	key, err := snapshotKey(n.ring)
	if err != nil {
		return nil, err
	}
	// What was acknowledged anywhere before now is to be inside.
	if err := n.cluster.Ready(ctx); err != nil {
		return nil, err
	}
	if err := n.state.Flush(); err != nil {
		return nil, fmt.Errorf("flushing the database: %w", err)
	}
	image, err := n.state.Image()
	if err != nil {
		return nil, err
	}
	defer image.Close()
	h := &backup.Header{
		Cluster: n.header.Cluster, Node: n.id, Version: n.opts.Version, Time: n.opts.Now().UTC(), Index: image.Index, Revision: image.Revision,
		Size: image.Size, KeyCheck: n.header.Check, PublicKey: key.Public().(ed25519.PublicKey),
	}
	out, err := backup.NewWriter(w, h)
	if err != nil {
		return nil, err
	}
	// What the database holds is found while it is read for the copy.
	digest := make(chan error, 1)
	var t backup.Trailer
	go func() {
		digest <- guarded(func() error {
			d, err := image.Digest()
			t = backup.Found(d)
			return err
		})
	}()
	err = n.copyOut(ctx, image, out, req)
	defer os.Remove(n.scratch())
	if err := errors.Join(err, <-digest); err != nil {
		return nil, err
	}
	if !req.Uncertain {
		if err := beside(out.Pause, func() error { return n.certify(&t) }); err != nil {
			return nil, err
		}
	}
	t.Seconds = time.Since(start).Seconds()
	err = n.store.Update(ctx, by, storage.Intent{Action: "snapshot.save"}, func(tx storage.Tx) error {
		tx.Note("index", h.Index)
		tx.Note("bytes", h.Size)
		tx.Note("root", fmt.Sprintf("%x", t.Root[:]))
		tx.Note("certified", t.Certified != nil)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &t, out.Close(&t, key)
}

// paced is a writer that takes no more than so many MiB a second.
func paced(ctx context.Context, w io.Writer, mib int) io.Writer {
	if mib <= 0 {
		return w
	}
	return &pacer{ctx, w, rate.NewLimiter(rate.Limit(mib<<20), paceStep)}
}

const paceStep = 256 << 10

type pacer struct {
	ctx     context.Context
	w       io.Writer
	limiter *rate.Limiter
}

func (p *pacer) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		part := b[:min(len(b), paceStep)]
		if err := p.limiter.WaitN(p.ctx, len(part)); err != nil {
			return n, err
		}
		m, err := p.w.Write(part)
		n += m
		if err != nil {
			return n, err
		}
		b = b[len(part):]
	}
	return n, nil
}

// pauseEvery is how often a stream that has nothing to say says so.
const pauseEvery = 5 * time.Second

// beside runs fn, and pause every few seconds until it has returned.
func beside(pause, fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- guarded(fn) }()
	ticker := time.NewTicker(pauseEvery)
	defer ticker.Stop()
	var broken error
	for {
		select {
		case err := <-done:
			return errors.Join(err, broken)
		case <-ticker.C:
			if broken == nil {
				broken = pause()
			}
		}
	}
}

// copyOut writes the image to out, and at the same time into the file in which it is certified.
func (n *Node) copyOut(ctx context.Context, image *bolt.Image, out *backup.Writer, req SnapshotRequest) error {
	if req.Uncertain {
		_, err := image.WriteTo(paced(ctx, out, req.Rate))
		return errors.Join(err, out.Flush())
	}
	noRoom := func(err error) error {
		return fmt.Errorf("certifying the snapshot: %w: it takes as much room as the database; or leave it out with --no-certify", err)
	}
	if free, err := cluster.FreeSpace(n.cfg.Data); err == nil && free < image.Size+spareRoom {
		return noRoom(fmt.Errorf("%d MiB are free in the data folder", free>>20))
	}
	f, err := os.OpenFile(n.scratch(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return noRoom(err)
	}
	_, err = image.WriteTo(paced(ctx, io.MultiWriter(out, f), req.Rate))
	return errors.Join(err, out.Flush(), f.Close())
}

// spareRoom is what of the disk is left to the node while a snapshot is certified.
const spareRoom = 256 << 20

// certify opens the scratch copy as a state machine does, and compares what it holds with what the database does.
func (n *Node) certify(t *backup.Trailer) error {
	found, err := backup.Examine(n.scratch(), n.header.Cluster, n.logger)
	if err != nil {
		return fmt.Errorf("certifying the snapshot: the copy does not restore: %w", err)
	}
	if !found.Same(t) {
		return errors.New("certifying the snapshot: the copy holds another state than the database: look at the disk")
	}
	now := n.opts.Now().UTC()
	t.Certified = &now
	return nil
}

// scratchName is the copy of the database that is looked at while a snapshot is certified.
const scratchName = "certify.tmp"

func (n *Node) scratch() string { return filepath.Join(n.cfg.Data, scratchName) }

// The names of scheduled snapshots sort by time.
const (
	snapshotPrefix = "bulwark-"
	snapshotSuffix = ".snapshot"
	partialSuffix  = ".partial"
)

// keepSnapshots takes a snapshot into the folder of the configuration, again and again until ctx ends. It runs where the node
// leads; the folder may be one that all nodes see.
func (n *Node) keepSnapshots(ctx context.Context) error {
	if n.cfg.SnapshotDir == "" {
		<-ctx.Done()
		return nil
	}
	for {
		wait := n.untilSnapshot()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		err := n.snapshotNow(ctx)
		if err != nil && ctx.Err() == nil {
			n.logger.Error("taking the scheduled snapshot", "error", err)
			err = fmt.Errorf("the scheduled snapshot failed: %w", err)
		}
		n.backupFault.Store(&err)
		if err != nil {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(min(n.cfg.SnapshotEvery, time.Minute)):
			}
		}
	}
}

// untilSnapshot is how long it is until the next one, by the newest that is there.
func (n *Node) untilSnapshot() time.Duration {
	all, err := snapshots(n.cfg.SnapshotDir)
	if err != nil || len(all) == 0 {
		return 0
	}
	info, err := os.Stat(filepath.Join(n.cfg.SnapshotDir, all[len(all)-1]))
	if err != nil {
		return 0
	}
	return max(0, n.cfg.SnapshotEvery-n.opts.Now().Sub(info.ModTime()))
}

// snapshots lists the snapshots in a folder, oldest first.
func snapshots(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), snapshotPrefix) && strings.HasSuffix(e.Name(), snapshotSuffix) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, err
}

func (n *Node) snapshotNow(ctx context.Context) error {
	if err := os.MkdirAll(n.cfg.SnapshotDir, 0o700); err != nil {
		return err
	}
	name := snapshotPrefix + n.opts.Now().UTC().Format("20060102-150405") + snapshotSuffix
	path := filepath.Join(n.cfg.SnapshotDir, name)
	partial := path + partialSuffix
	defer os.Remove(partial)
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	by := storage.JobActor(storage.System, storage.ID{}, "scheduled snapshot")
	t, err := n.saveSnapshot(ctx, by, SnapshotRequest{Rate: n.cfg.SnapshotRate}, f)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(partial, path); err != nil {
		return err
	}
	n.logger.Info("took the scheduled snapshot", "file", path, "certified", t.Certified != nil, "seconds", t.Seconds)
	return n.forgetSnapshots()
}

// forgetSnapshots removes the oldest beyond the number that is kept, and what killed attempts left.
func (n *Node) forgetSnapshots() error {
	all, err := snapshots(n.cfg.SnapshotDir)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range all[:max(0, len(all)-n.cfg.SnapshotKeep)] {
		errs = append(errs, os.Remove(filepath.Join(n.cfg.SnapshotDir, name)))
	}
	partials, err := filepath.Glob(filepath.Join(n.cfg.SnapshotDir, snapshotPrefix+"*"+snapshotSuffix+partialSuffix))
	for _, p := range partials {
		errs = append(errs, os.Remove(p))
	}
	return errors.Join(append(errs, err)...)
}

// restoredName is a file that a restored data folder holds until the node has written into the audit log what it says.
const restoredName = "restored.json"

// A Restored says what a data folder was restored from.
type Restored struct {
	Cluster  storage.ID `json:"cluster"`
	Index    uint64     `json:"index"`
	Taken    time.Time  `json:"taken"`
	Restored time.Time  `json:"restored"`
	Values   uint64     `json:"values"`
	Tenants  int        `json:"tenants"`
}

// A RestoreRequest names what to restore, where, and the root key that proves the right to.
type RestoreRequest struct {
	File      string
	Data      string // a folder that is empty or not there
	Advertise string // where other nodes will reach this one
	KeyFile   string
	Progress  func(done, size int64)
}

// Restore makes a data folder from a snapshot: a cluster of one, of the same cluster id, with the root key that the snapshot
// needs. Other nodes then join it anew.
func Restore(ctx context.Context, req RestoreRequest, o Options) (r *Restored, err error) {
	o.setDefaults()
	if names, err := os.ReadDir(req.Data); err == nil && len(names) > 0 {
		return nil, storage.Errorf(storage.Exists, "not_empty",
			"the folder %s is not empty: a snapshot is restored into an empty one; stop the node and move its folder away first", req.Data)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the data folder: %w", err)
	}
	s, err := peek(req.File)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(req.Data, 0o700); err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	defer func() {
		if err != nil {
			// What is half made must not be taken for a node's.
			err = errors.Join(err, os.RemoveAll(req.Data))
		}
	}()
	root, err := keys.ReadKeyFile(req.Data, req.KeyFile, s.Cluster)
	if err != nil {
		return nil, err
	}
	defer clear(root)
	if err := rightKey(root, s); err != nil {
		return nil, err
	}
	database := filepath.Join(req.Data, databaseName)
	snapshot, err := backup.Extract(req.File, database, o.Logger, req.Progress)
	if err != nil {
		return nil, err
	}
	id, err := storage.NewID(o.Now(), o.Random)
	if err != nil {
		return nil, err
	}
	err = cluster.Seed(filepath.Join(req.Data, logName), snapshot.Header.Cluster, cluster.Voter{ID: id, Addr: req.Advertise}, snapshot.Header.Index)
	if err != nil {
		return nil, err
	}
	r = &Restored{
		Cluster: snapshot.Header.Cluster, Index: snapshot.Header.Index, Taken: snapshot.Header.Time, Restored: o.Now().UTC(),
		Values: snapshot.Trailer.Values, Tenants: len(snapshot.Trailer.Trees),
	}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(req.Data, restoredName), b, 0o600); err != nil {
		return nil, err
	}
	// The header comes last: without it the folder is no node's.
	return r, keys.Adopt(req.Data, req.KeyFile, snapshot.Header.Cluster, root)
}

// peek reads a snapshot's header, unchecked.
func peek(file string) (*backup.Header, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading the snapshot: %w", err)
	}
	defer f.Close()
	return backup.Peek(f)
}

// rightKey reports whether root is the root key of the cluster that a snapshot is of, and has signed it.
func rightKey(root []byte, h *backup.Header) error {
	ring := keys.NewRing(nil)
	if err := ring.Unseal(root); err != nil {
		return err
	}
	defer ring.Seal()
	key, err := snapshotKey(ring)
	if err != nil {
		return err
	}
	if keys.Check(h.Cluster, root) != h.KeyCheck || !slices.Equal(key.Public().(ed25519.PublicKey), h.PublicKey) {
		return storage.Errorf(storage.Denied, "other_key", "the root key is not the one of the cluster that the snapshot is of: name the right key file")
	}
	return nil
}

// recordRestore writes into the audit log that the state was restored, once.
func (n *Node) recordRestore(ctx context.Context) error {
	path := filepath.Join(n.cfg.Data, restoredName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var r Restored
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	ended, err := n.endSessions(ctx)
	if err != nil {
		return fmt.Errorf("ending the sessions of before the restore: %w", err)
	}
	by := storage.JobActor(storage.System, storage.ID{}, "restore")
	err = n.store.Update(ctx, by, storage.Intent{Action: "snapshot.restore"}, func(tx storage.Tx) error {
		tx.Note("index", r.Index)
		tx.Note("taken", r.Taken.Format(time.RFC3339))
		tx.Note("restored", r.Restored.Format(time.RFC3339))
		tx.Note("sessions_ended", ended)
		return nil
	})
	if err != nil {
		return fmt.Errorf("recording the restore: %w", err)
	}
	return os.Remove(path)
}

// endSessions ends every session of every tenant.
func (n *Node) endSessions(ctx context.Context) (total int, err error) {
	snap, err := n.cluster.Local()
	if err != nil {
		return 0, err
	}
	tenants, err := snap.Tenants()
	snap.Release()
	for _, t := range tenants {
		if err == nil && t != storage.System {
			var ended int
			ended, err = n.parts.sessions.EndEvery(ctx, storage.JobActor(t, storage.ID{}, "restore"))
			total += ended
		}
	}
	return total, err
}

// VerifySnapshot restores a snapshot into a scratch file beside it and compares what that holds with what the snapshot says.
// With a key file it also opens every value.
func VerifySnapshot(ctx context.Context, file, keyFile string, logger *slog.Logger, progress func(done, size int64)) (s *backup.Snapshot, o *backup.Opened, err error) {
	scratch, err := os.MkdirTemp(filepath.Dir(file), ".verify-*")
	if err != nil {
		return nil, nil, fmt.Errorf("making a scratch folder beside the snapshot: %w", err)
	}
	defer os.RemoveAll(scratch)
	path := filepath.Join(scratch, databaseName)
	if s, err = backup.Extract(file, path, logger, progress); err != nil || keyFile == "" {
		return s, nil, err
	}
	root, err := keys.ReadKeyFile(scratch, keyFile, s.Header.Cluster)
	if err != nil {
		return nil, nil, err
	}
	defer clear(root)
	if err := rightKey(root, &s.Header); err != nil {
		return nil, nil, err
	}
	ring := keys.NewRing(rand.Reader)
	if err := ring.Unseal(root); err != nil {
		return nil, nil, err
	}
	defer ring.Seal()
	recorder, err := audit.New(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	opened, err := backup.OpenAll(ctx, path, s.Header.Cluster, ring, recorder, logger)
	if err != nil {
		return nil, nil, fmt.Errorf("opening what the snapshot holds: %w", err)
	}
	return s, &opened, nil
}
