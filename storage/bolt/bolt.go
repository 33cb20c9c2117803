// Package bolt keeps the replicated state in one bbolt file: it applies entries of the log, shows the state at an
// instant, and holds no key.
//
// Promise: the same entries in the same order make the same state on every node. An entry is applied as a whole or not
// at all, and once, however often it is proposed. The file is a checkpoint of the log, at one index: it is written only in
// synced transactions, so that a crash leaves an older checkpoint and never half of one. A file that is damaged, of
// another cluster, of a newer format or in use is refused without a byte of it being changed.
package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	bbolt "go.etcd.io/bbolt"

	"bulwark/storage/entry"
)

// Options say how to open a DB. Path, ClusterID and Logger must be given.
type Options struct {
	Path      string   // of the file; its folder must exist
	ClusterID entry.ID // a new file is made for it; a file of another cluster is refused

	// What was applied is flushed to the file FlushInterval after it (default 50 ms), or when FlushBytes of it wait
	// (default 4 MiB). Apply waits when MaxOverlay bytes do (default 256 MiB).
	FlushInterval time.Duration
	FlushBytes    int
	MaxOverlay    int

	PageSize int // of a new file, in bytes (default 4,096)
	Logger   *slog.Logger
}

// A DB is the replicated state of one node. Its methods may be called from any goroutine, except that only one at a time
// may call Apply.
type DB struct {
	log           *slog.Logger
	path          string
	flushInterval time.Duration
	flushBytes    int
	maxOverlay    int

	view      atomic.Pointer[view]
	persisted atomic.Uint64 // the index in the file
	stuck     atomic.Bool   // bbolt panicked, and may hold its locks

	dirty, full, stop chan struct{}
	done              chan struct{} // closed when the committer has ended

	replacing  sync.Mutex // held while the file is made anew or taken over; taken before committing
	compaction compaction
	committing sync.Mutex // held while the file is written; taken before mu

	mu       sync.Mutex // guards what follows; bolt is set under committing, too, and may be read under either
	bolt     *handle
	gone     []*handle  // files that were replaced, and may still be read
	room     *sync.Cond // of mu: the overlay has shrunk, or never will
	active   *layer
	flushing *layer
	keys     *keyring
	recent   memory
	lastTx   int // the id of the newest transaction in the file
	firstTx  int // what it was when the file was opened
	failed   error
	broken   bool // a batch may be half in active
	closed   bool

	waiting sync.Mutex // guards waiters
	waiters map[uint64]chan struct{}
	past    chan struct{} // always closed
}

// Open opens the database, or makes it. The error says in one line what is wrong and what to do.
func Open(o Options) (*DB, error) {
	if o.Logger == nil || o.Path == "" || o.ClusterID.IsZero() {
		return nil, errors.New("opening the database: a path, a cluster id and a logger are needed")
	}
	if o.FlushInterval == 0 {
		o.FlushInterval = 50 * time.Millisecond
	}
	if o.FlushBytes == 0 {
		o.FlushBytes = 4 << 20
	}
	if o.MaxOverlay == 0 {
		o.MaxOverlay = 256 << 20
	}
	if o.PageSize == 0 {
		o.PageSize = 4096
	}
	if _, err := os.Lstat(o.Path); errors.Is(err, os.ErrNotExist) {
		if err := create(o); err != nil {
			return nil, fmt.Errorf("creating the database %s: %w", o.Path, err)
		}
	}
	info, err := Inspect(o.Path)
	if err != nil {
		return nil, err
	}
	if info.ClusterID != o.ClusterID {
		return nil, fmt.Errorf("the database %s belongs to another cluster (%s, not %s): use its own data folder, "+
			"or an empty one to join", o.Path, info.ClusterID, o.ClusterID)
	}
	file, err := openFile(o.Path, info.Size, false)
	if err != nil {
		return nil, err
	}
	db := &DB{
		log: o.Logger, path: o.Path, bolt: newHandle(file),
		flushInterval: o.FlushInterval, flushBytes: o.FlushBytes, maxOverlay: o.MaxOverlay,
		dirty: make(chan struct{}, 1), full: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		waiters: map[uint64]chan struct{}{},
		past:    make(chan struct{}),
	}
	db.room = sync.NewCond(&db.mu)
	close(db.past)
	db.forget()
	if err := guard(db.load); err != nil {
		return nil, errors.Join(damagedFile(o.Path, err), file.Close())
	}
	db.removeLeftovers()
	db.publish()
	go db.run()
	return db, nil
}

// forget empties what load fills.
func (db *DB) forget() {
	db.keys, db.recent = &keyring{}, memory{outcomes: map[entry.ID]entry.Outcome{}}
}

// load reads what memory holds from the file.
func (db *DB) load() error {
	return db.bolt.View(func(tx *bbolt.Tx) error {
		info, err := readInfo(tx)
		if err != nil {
			return err
		}
		db.lastTx, db.firstTx = tx.ID(), tx.ID()
		db.active = newLayer(info.Index, info.Revision)
		db.persisted.Store(info.Index)
		err = tx.Bucket(recentBucket).ForEach(func(k, v []byte) error {
			return db.recent.load(binary.BigEndian.Uint64(k), v)
		})
		if err != nil {
			return err
		}
		return tx.Bucket(keysBucket).ForEach(func(k, v []byte) error {
			at := string(k[:2*idSize])
			s, ok := db.keys.Get(at)
			if !ok {
				s = &scopeKeys{versions: map[uint32][]byte{}}
				db.keys.Set(at, s)
			}
			if len(k) == len(at) {
				s.revision = binary.BigEndian.Uint64(v)
			} else {
				s.versions[binary.BigEndian.Uint32(k[len(at):])] = append([]byte(nil), v...)
			}
			return nil
		})
	})
}

// publish shows the state to snapshots and wakes who waits for it. The caller holds db.mu.
func (db *DB) publish() {
	v := &view{
		file:     db.bolt,
		active:   db.active.freeze(),
		flushing: db.flushing,
		keys:     db.keys.Copy(),
		index:    db.active.index,
		revision: db.active.revision,
		maxTx:    db.lastTx,
	}
	if db.flushing != nil {
		v.maxTx++
	}
	old := db.view.Swap(v)
	if old != nil && old.revision == v.revision {
		return
	}
	db.waiting.Lock()
	defer db.waiting.Unlock()
	for rev, c := range db.waiters {
		if rev < v.revision {
			close(c)
			delete(db.waiters, rev)
		}
	}
}

// Changed returns a channel that is closed when the revision is above rev.
func (db *DB) Changed(rev uint64) <-chan struct{} {
	db.waiting.Lock()
	defer db.waiting.Unlock()
	if db.view.Load().revision > rev {
		return db.past
	}
	c, ok := db.waiters[rev]
	if !ok {
		c = make(chan struct{})
		db.waiters[rev] = c
	}
	return c
}

// Applied returns the index and the revision of the state that a Snapshot taken now shows.
func (db *DB) Applied() (index, revision uint64) {
	v := db.view.Load()
	return v.index, v.revision
}

// Persisted returns the index that the file holds: the log may be cut up to it, and no further.
func (db *DB) Persisted() uint64 { return db.persisted.Load() }

// Failed returns why the DB takes no more writes, or nil. It stays so until the file is opened anew. Reads go on.
func (db *DB) Failed() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.failed
}

// Stats are numbers for an operator.
type Stats struct {
	FileSize     int64 // bytes
	UsedSize     int64 // bytes up to the last page in use
	FreePages    int   // pages below that which later flushes reuse
	PageSize     int
	OverlayBytes int // applied and not yet in the file
	Index        uint64
	Persisted    uint64
	Revision     uint64
}

// Stats returns the numbers as they are.
func (db *DB) Stats() Stats {
	s := Stats{Persisted: db.Persisted()}
	// A closed DB has no such numbers.
	if file := db.keeper(); file.acquire() {
		defer file.release()
		if tx, err := file.Begin(false); err == nil {
			s.PageSize, s.UsedSize = file.Info().PageSize, tx.Size()
			_ = tx.Rollback()
		}
		stats := file.Stats()
		s.FreePages = stats.FreePageN + stats.PendingPageN
	}
	if info, err := os.Stat(db.path); err == nil {
		s.FileSize = info.Size()
	}
	s.Index, s.Revision = db.Applied()
	db.mu.Lock()
	defer db.mu.Unlock()
	s.OverlayBytes = db.heldBytes()
	return s
}

// Close flushes what was applied and closes the file. It waits for every Snapshot and Image to be released. It returns
// the error that made the DB fail, if one did; what was not flushed is then still in the log.
func (db *DB) Close() error {
	db.mu.Lock()
	if db.closed {
		db.mu.Unlock()
		return nil
	}
	db.closed = true
	db.room.Broadcast()
	db.mu.Unlock()
	close(db.stop)
	<-db.done
	db.compaction.stop()
	db.replacing.Lock()
	defer db.replacing.Unlock()

	err := db.Flush()
	if db.stuck.Load() {
		// Closing would wait for ever. The process is about to end, and the file is as the last commit left it.
		return err
	}
	if err == nil && db.wrote() {
		// One more transaction comes, which moves no layer: what is published may be laid over it, too.
		db.mu.Lock()
		db.lastTx++
		db.publish()
		db.mu.Unlock()
		err = guard(db.leaveFreelist)
	}
	last := db.keeper()
	last.retire()
	<-last.closed
	for _, h := range db.gone {
		<-h.closed
		err = errors.Join(err, h.err)
	}
	return errors.Join(err, last.err)
}

// wrote reports whether the file was written since it was opened. One that was not is left as it is to the last byte: what
// else the node needs may have been found damaged, and somebody will want to look.
func (db *DB) wrote() bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.lastTx != db.firstTx
}

// leaveFreelist writes the list of free pages, which commits leave out, so that the next Open need not read every page.
func (db *DB) leaveFreelist() error {
	db.bolt.NoFreelistSync = false
	if err := db.bolt.Update(func(*bbolt.Tx) error { return nil }); err != nil {
		return fmt.Errorf("closing the database: %w", err)
	}
	return nil
}
