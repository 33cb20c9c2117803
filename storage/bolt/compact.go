package bolt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	bbolt "go.etcd.io/bbolt"

	"bulwark/storage/entry"
)

// compactSuffix names the file that Compact writes, beside the database. One that a crash left is removed when the database
// is opened.
const compactSuffix = ".compact"

// How much is written in one transaction of the new file, and how full the pages of tables in random order are made: a
// full page would be split by the next key.
const (
	compactBytes  = 8 << 20
	compactRandom = 0.75
)

// ErrCompacting is the answer to a Compact beside another, or while the database is taken over or closed.
var ErrCompacting = errors.New("the database is being compacted or replaced already: wait until that is done")

// A compaction is what Compact shares with the committer and with those who end it.
type compaction struct {
	mu      sync.Mutex
	blocked int
	cancel  context.CancelFunc // of the one under way, or nil

	// Under db.mu: what was committed since the copy began.
	recording bool
	overflow  bool
	layers    []*layer
	held      int
}

// stop ends a Compact that is under way and lets none begin until the returned function is called.
func (c *compaction) stop() (resume func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blocked++
	if c.cancel != nil {
		c.cancel()
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.blocked--
	}
}

func (c *compaction) begin(ctx context.Context) (context.Context, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.blocked > 0 || c.cancel != nil {
		return nil, ErrCompacting
	}
	ctx, c.cancel = context.WithCancel(ctx)
	return ctx, nil
}

func (c *compaction) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancel()
	c.cancel = nil
}

// record keeps a layer that was committed while the file is copied. The caller holds db.mu. More than limit bytes of them
// end the compaction: memory is for what waits to be committed.
func (c *compaction) record(l *layer, limit int) {
	if !c.recording {
		return
	}
	c.layers = append(c.layers, l)
	if c.held += l.bytes; c.held > limit {
		c.recording, c.overflow, c.layers = false, true, nil
	}
}

// Compact writes the database into a new file without its free pages, and puts that in the old one's place. Reads and
// writes go on; the committer is held for the last few of them only. It returns the file's bytes before and after; where
// a new file would not be smaller nothing is changed, and both are the same. A crash at any point leaves either file.
//
// It needs as much room on the disk as the new file takes.
func (db *DB) Compact(ctx context.Context) (before, after int64, err error) {
	if ctx, err = db.compaction.begin(ctx); err != nil {
		return 0, 0, err
	}
	defer db.compaction.end()
	db.replacing.Lock()
	defer db.replacing.Unlock()
	before, after, err = db.compact(ctx)
	if err != nil {
		return before, before, fmt.Errorf("compacting the database: %w", err)
	}
	return before, after, nil
}

func (db *DB) compact(ctx context.Context) (before, after int64, err error) {
	if before, err = sizeOf(db.path); err != nil {
		return 0, 0, err
	}
	path := db.path + compactSuffix
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return before, 0, err
	}
	defer os.Remove(path) // unless it has the database's name by then
	image, err := db.imageAndRecord()
	if err != nil {
		return before, 0, err
	}
	defer image.Close() // it was only read from
	defer db.recorded(true)
	dst, err := newFile(path, image.Size, image.file.Info().PageSize)
	if err != nil {
		return before, 0, err
	}
	next := newHandle(dst)
	if err := guard(func() error { return copyFile(ctx, next.DB, image.tx) }); err != nil {
		return before, 0, errors.Join(err, next.Close())
	}
	// The old file can use its free pages again.
	if err := image.Close(); err != nil {
		return before, 0, errors.Join(err, next.Close())
	}
	if err := db.catchUp(ctx, next); err != nil {
		return before, 0, errors.Join(err, next.Close())
	}
	db.committing.Lock()
	defer db.committing.Unlock()
	layers, whole := db.recorded(true)
	if err = db.replay(ctx, next, layers, whole); err == nil {
		err = next.Sync()
	}
	if err == nil {
		after, err = sizeOf(path)
	}
	if err != nil || after >= before {
		return before, before, errors.Join(err, next.Close())
	}
	next.NoSync, next.NoGrowSync = false, false
	info, tx, err := lastOf(next)
	if err != nil {
		return before, 0, errors.Join(err, next.Close())
	}
	return before, after, db.replaceCommitting(next, path, func() error {
		if info.Index != db.persisted.Load() {
			return fmt.Errorf("the copy ends at index %d and the database at %d", info.Index, db.persisted.Load())
		}
		return nil
	}, func() {
		// What is in memory stays: it lies over the new file as it lay over the old.
		db.lastTx, db.firstTx = tx, 0
	})
}

func sizeOf(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// imageAndRecord begins a copy, and to record what is committed from then on.
func (db *DB) imageAndRecord() (*Image, error) {
	db.committing.Lock()
	defer db.committing.Unlock()
	if err := db.Failed(); err != nil {
		return nil, err
	}
	image, err := db.Image()
	if err != nil {
		return nil, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	c := &db.compaction
	c.recording, c.overflow, c.layers, c.held = true, false, nil, 0
	return image, nil
}

// recorded returns what was recorded since it was last called; the last call ends the recording.
func (db *DB) recorded(last bool) ([]*layer, bool) {
	db.mu.Lock()
	defer db.mu.Unlock()
	c := &db.compaction
	layers, whole := c.layers, !c.overflow
	c.layers, c.held = nil, 0
	if last {
		c.recording = false
	}
	return layers, whole
}

// catchUpRounds bounds how often what came meanwhile is replayed before the committer is held for the rest.
const catchUpRounds = 16

// catchUp replays what was committed since the copy began, until little is left, and syncs the file.
func (db *DB) catchUp(ctx context.Context, next *handle) error {
	for range catchUpRounds {
		layers, whole := db.recorded(false)
		if err := db.replay(ctx, next, layers, whole); err != nil {
			return err
		}
		if len(layers) <= 1 {
			break
		}
	}
	return next.Sync()
}

var errTooManyWrites = errors.New("more was written meanwhile than memory should hold: try again when there are fewer writes")

func (db *DB) replay(ctx context.Context, next *handle, layers []*layer, whole bool) error {
	if !whole {
		return errTooManyWrites
	}
	for _, l := range layers {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := guard(func() error {
			return next.Update(func(tx *bbolt.Tx) error { return fill(tx, l) })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// lastOf returns what a file says of itself, and its last transaction.
func lastOf(h *handle) (info Info, tx int, err error) {
	err = h.View(func(t *bbolt.Tx) error {
		tx = t.ID()
		info, err = readInfo(t)
		return err
	})
	return info, tx, err
}

// newFile makes an empty file that is not synced until its maker does.
func newFile(path string, size int64, pageSize int) (*bbolt.DB, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	options := fileOptions(size, false)
	options.PageSize = pageSize
	file, err := bbolt.Open(path, 0o600, options)
	if err != nil {
		return nil, err
	}
	file.AllocSize = growBy
	file.NoSync, file.NoGrowSync = true, true
	return file, nil
}

// A copier copies buckets, key by key in order, in transactions of a bounded size.
type copier struct {
	ctx  context.Context
	dst  *bbolt.DB
	tx   *bbolt.Tx
	size int
}

func copyFile(ctx context.Context, dst *bbolt.DB, src *bbolt.Tx) (err error) {
	c := &copier{ctx: ctx, dst: dst}
	if c.tx, err = dst.Begin(true); err != nil {
		return err
	}
	defer func() {
		if c.tx != nil {
			_ = c.tx.Rollback() // the copy is given up
		}
	}()
	if err := c.bucket(src.Cursor().Bucket(), nil); err != nil {
		return err
	}
	tx := c.tx
	c.tx = nil
	return tx.Commit()
}

// open finds the bucket at path in the transaction as it is now.
func (c *copier) open(path [][]byte) *bbolt.Bucket {
	b := c.tx.Cursor().Bucket()
	for _, name := range path {
		b = b.Bucket(name)
	}
	b.FillPercent = fillOrdered
	if n := len(path); n > 0 && strings.HasSuffix(string(path[n-1]), entry.IndexSuffix) {
		b.FillPercent = compactRandom
	}
	return b
}

func (c *copier) bucket(src *bbolt.Bucket, path [][]byte) error {
	dst := c.open(path)
	return src.ForEach(func(k, v []byte) error {
		if v == nil {
			if inside := src.Bucket(k); inside != nil {
				made, err := dst.CreateBucket(k)
				if err == nil {
					err = made.SetSequence(inside.Sequence())
				}
				if err == nil {
					err = c.bucket(inside, append(path[:len(path):len(path)], k))
				}
				dst = c.open(path) // the transaction may be another one
				return err
			}
		}
		if c.size += len(k) + len(v) + elementSize; c.size > compactBytes {
			if err := c.next(); err != nil {
				return err
			}
			dst = c.open(path)
		}
		return dst.Put(k, v)
	})
}

func (c *copier) next() (err error) {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	tx := c.tx
	c.tx, c.size = nil, 0
	if err := tx.Commit(); err != nil {
		return err
	}
	c.tx, err = c.dst.Begin(true)
	return err
}

// removeLeftovers removes what a Compact left that a crash ended.
func (db *DB) removeLeftovers() {
	if err := os.Remove(db.path + compactSuffix); err != nil && !errors.Is(err, os.ErrNotExist) {
		db.log.Warn("removing what compacting the database left", "error", err)
	}
}
