package auditsearch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/blevesearch/bleve/v2/index/scorch"
	"github.com/blevesearch/bleve/v2/index/scorch/mergeplan"
	bleve "github.com/blevesearch/bleve_index_api"
	"go.etcd.io/bbolt"

	"bulwark/security/audit"
	"bulwark/storage"
)

// maxBatch is the number of events that are indexed at once.
const maxBatch = 5000

// positionKey names the internal value that says how far the index is. Names of internal values are not sealed.
var positionKey = []byte("p")

// A tenantIndex is one tenant's index: a folder, and what is open of it.
type tenantIndex struct {
	tenant storage.ID
	path   string
	work   chan struct{} // holds one token: who has it may open, index, rebuild and close

	// Guarded by work.
	open    *openIndex
	reached uint64    // events that were indexed when the index was last open
	used    time.Time // when a search or a batch last needed it
}

// An openIndex is an open bleve index.
type openIndex struct {
	bleve    bleve.Index
	queue    *bleve.AnalysisQueue
	folder   *folder
	path     string
	position uint64   // events that are indexed
	last     [32]byte // leaf hash of the last of them

	// inUse is held for reading by searches. It is taken under the tenant's lock, and so it can be held for writing once the
	// last search has ended.
	inUse sync.RWMutex

	macs    manifest // of the segments that are known
	written manifest // what the manifest's file says
}

// lock waits for the right to change the index.
func (t *tenantIndex) lock(ctx context.Context) error {
	select {
	case <-t.work:
		return nil
	case <-ctx.Done():
		return timedOut(ctx)
	}
}

func (t *tenantIndex) unlock() { t.work <- struct{}{} }

func timedOut(ctx context.Context) error {
	return &storage.Error{Fault: storage.Unavailable, Code: "timeout", Cause: ctx.Err(),
		Message: "the request's time ran out before the audit index had caught up; try again"}
}

// damaged says that an index must be rebuilt.
type damaged struct{ cause error }

func (d *damaged) Error() string { return "the audit index is damaged: " + d.cause.Error() }
func (d *damaged) Unwrap() error { return d.cause }

// guard turns a panic or a fault in mapped memory into damage: bleve trusts the structure of its files.
func guard(fn func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			err = &damaged{fmt.Errorf("reading it stopped with: %v", r)}
		}
	}()
	return fn()
}

// openFolder opens the index in path, or makes a new one when there is none. An index that cannot be read is damaged.
func openFolder(path, keyID string, key []byte) (*openIndex, error) {
	_, err := os.Stat(filepath.Join(path, "root.bolt"))
	fresh := errors.Is(err, os.ErrNotExist)
	if fresh {
		// Whatever else is in the folder was not made by an index that got as far as having a root.
		if err := os.RemoveAll(path); err != nil {
			return nil, fmt.Errorf("clearing the audit index's folder: %w", err)
		}
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, fmt.Errorf("making the audit index's folder: %w", err)
		}
	}
	f, err := folders.add(path, keyID, key)
	if err != nil {
		return nil, err
	}
	o := &openIndex{folder: f, path: path, queue: bleve.NewAnalysisQueue(1)}
	err = guard(func() error { return o.load(fresh) })
	if err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

func (o *openIndex) load(fresh bool) error {
	var err error
	o.bleve, err = scorch.NewScorch(scorch.Name, map[string]any{
		"path": o.path, "asyncErrorCallbackName": asyncErrors, "bolt_timeout": "1s",
		// Old snapshots are of no use here: what is damaged is rebuilt from the log.
		"numSnapshotsToKeep": 1,
	}, o.queue)
	if err != nil {
		return fmt.Errorf("preparing the audit index: %w", err)
	}
	if !fresh {
		if err := checkRoot(filepath.Join(o.path, "root.bolt")); err != nil {
			o.bleve = nil
			return &damaged{err}
		}
		if o.macs, err = checkManifest(o.path, o.folder.key); err != nil {
			o.bleve = nil
			return &damaged{err}
		}
	}
	if err := o.bleve.Open(); err != nil {
		o.bleve = nil // bleve has closed what it had opened
		return &damaged{err}
	}
	if fresh {
		if err := o.bleve.SetInternal(positionKey, o.positionValue()); err != nil {
			return fmt.Errorf("writing a new audit index: %w", err)
		}
		if err := o.settle(); err != nil {
			return err
		}
		return errors.Join(syncFolder(o.path), syncFolder(filepath.Dir(o.path)))
	}
	return o.loadPosition()
}

// checkRoot reads all of bleve's own database here, where a fault is caught: bleve would read it in goroutines of its own,
// where a file that was cut short ends the process.
func checkRoot(path string) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second, PreLoadFreelist: true})
	if err != nil {
		return err
	}
	err = guard(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			// The pages up to the highest that was ever used must be there, free ones too.
			if info, err := os.Stat(path); err != nil || info.Size() < tx.Size() {
				return errors.New("its root is cut short")
			}
			return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error { return readBucket(b) })
		})
	})
	return errors.Join(err, db.Close())
}

func readBucket(b *bbolt.Bucket) error {
	return b.ForEach(func(k, v []byte) error {
		if v == nil {
			if inner := b.Bucket(k); inner != nil {
				return readBucket(inner)
			}
		}
		return nil
	})
}

func (o *openIndex) positionValue() []byte {
	return append(binary.BigEndian.AppendUint64(nil, o.position), o.last[:]...)
}

func (o *openIndex) loadPosition() error {
	r, err := o.bleve.Reader()
	if err != nil {
		return &damaged{err}
	}
	defer r.Close()
	value, err := r.GetInternal(positionKey)
	if err != nil || len(value) != 8+32 {
		return &damaged{errors.Join(errors.New("its position is missing"), err)}
	}
	o.position, o.last = binary.BigEndian.Uint64(value), [32]byte(value[8:])
	count, err := r.DocCount()
	if err != nil || count != o.position {
		return &damaged{errors.Join(fmt.Errorf("it holds %d events, not %d", count, o.position), err)}
	}
	return nil
}

// close closes the index, without waiting for its users.
func (o *openIndex) close() {
	if o.bleve != nil {
		// What a failed close leaves behind is found when the index is opened, and rebuilt.
		_ = guard(o.bleve.Close)
	}
	o.queue.Close()
	folders.remove(o.path)
}

// ensure opens t's index, and rebuilds it when it is damaged or not an index of this log. It is called under lock.
func (x *Index) ensure(ctx context.Context, t *tenantIndex) error {
	if t.open != nil {
		if failed := t.open.folder.failed.Load(); failed != nil {
			return x.rebuild(ctx, t, *failed)
		}
		return nil
	}
	id, key, err := x.cfg.Keys.IndexKey(t.tenant)
	if err != nil {
		return err
	}
	defer clear(key)
	o, err := openFolder(t.path, id, key)
	if err == nil {
		if err = x.belongs(ctx, t.tenant, o); err != nil {
			o.close()
		}
	}
	var bad *damaged
	if errors.As(err, &bad) {
		x.cfg.Logger.Warn("rebuilding an audit index", slog.String("tenant", t.tenant.String()), slog.Any("cause", bad.cause))
		if err := os.RemoveAll(t.path); err != nil {
			return fmt.Errorf("removing a damaged audit index: %w", err)
		}
		o, err = openFolder(t.path, id, key)
	}
	if err != nil {
		return fmt.Errorf("opening the audit index of tenant %s: %w", t.tenant, err)
	}
	t.open, t.reached = o, o.position
	return nil
}

// belongs checks that the last event that o has indexed is the log's event at that position: the folder may be older or
// newer than the log, after a restore.
func (x *Index) belongs(ctx context.Context, tenant storage.ID, o *openIndex) error {
	if o.position == 0 {
		return nil
	}
	found := false
	err := x.events(ctx, tenant, o.position-1, func(_ uint64, hash [32]byte, _ []byte) bool {
		found = bytes.Equal(hash[:], o.last[:])
		return false
	})
	if err != nil {
		return err
	}
	if !found {
		return &damaged{errors.New("it is not of this log")}
	}
	return nil
}

// rebuild throws t's index away, and opens a new one at the next call of ensure.
func (x *Index) rebuild(ctx context.Context, t *tenantIndex, cause error) error {
	x.cfg.Logger.Warn("rebuilding an audit index", slog.String("tenant", t.tenant.String()), slog.Any("cause", cause))
	x.shut(t)
	if err := os.RemoveAll(t.path); err != nil {
		return fmt.Errorf("removing a damaged audit index: %w", err)
	}
	return x.ensure(ctx, t)
}

// shut closes t's index after the searches that use it. It is called under lock.
func (x *Index) shut(t *tenantIndex) {
	if t.open == nil {
		return
	}
	t.open.inUse.Lock()
	if err := guard(t.open.settle); err != nil {
		x.cfg.Logger.Warn("closing an audit index", slog.String("tenant", t.tenant.String()), slog.Any("error", err))
	}
	t.open.close()
	t.open = nil
}

// merge waits until bleve has merged what it would merge in the background, so that its work counts as the follower's. It is
// called under lock.
func (o *openIndex) merge(ctx context.Context) error {
	s, ok := o.bleve.(*scorch.Scorch)
	if !ok {
		return errors.New("internal error: the index is not a scorch index")
	}
	done := make(chan error, 1)
	go func() {
		plan := mergeplan.DefaultMergePlanOptions
		done <- guard(func() error { return s.ForceMerge(ctx, &plan) })
	}()
	// bleve tries a merge that fails again and again, until the index is closed: the goroutine ends then.
	failed := time.NewTicker(100 * time.Millisecond)
	defer failed.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("merging the audit index: %w", err)
			}
			return guard(o.settle)
		case <-ctx.Done():
			return ctx.Err()
		case <-failed.C:
			if err := o.folder.failed.Load(); err != nil {
				return fmt.Errorf("merging the audit index: %w", *err)
			}
		}
	}
}

func (x *Index) events(ctx context.Context, tenant storage.ID, first uint64, fn func(uint64, [32]byte, []byte) bool) error {
	by := storage.JobActor(tenant, storage.ID{}, "audit-index")
	return x.cfg.History.Events(ctx, by, storage.Intent{Action: "audit.index"}, first, fn)
}

// step indexes up to maxBatch events below size. It is called under lock, with an open index.
func (x *Index) step(ctx context.Context, t *tenantIndex, size uint64) error {
	o := t.open
	next, last := o.position, o.last
	limit := min(size, next+maxBatch)
	batch := bleve.NewBatch()
	var failed error
	err := x.events(ctx, t.tenant, next, func(position uint64, hash [32]byte, event []byte) bool {
		if position != next {
			failed = fmt.Errorf("event %d is missing in the log", next)
			return false
		}
		r, err := audit.Parse(event)
		if err != nil {
			failed = fmt.Errorf("indexing event %d: %w", position, err)
			return false
		}
		batch.Update(x.schema.document(position, r))
		next, last = next+1, hash
		return next < limit && ctx.Err() == nil
	})
	if err := errors.Join(failed, err); err != nil {
		return err
	}
	if next == o.position {
		return fmt.Errorf("event %d is missing in the log", next)
	}
	was, wasLast := o.position, o.last
	o.position, o.last = next, last
	batch.SetInternal(positionKey, o.positionValue())
	err = guard(func() error { return o.bleve.Batch(batch) })
	if err != nil {
		o.position, o.last = was, wasLast
		return fmt.Errorf("writing the audit index: %w", err)
	}
	t.reached = next
	return guard(o.settle)
}
