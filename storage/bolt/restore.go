package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	bbolt "go.etcd.io/bbolt"

	"bulwark/storage/entry"
)

// A handle is an open file, counted by who reads it, so that it can be replaced under them: bbolt's own Close waits for
// open transactions with a lock held that every new one needs.
type handle struct {
	*bbolt.DB
	readers atomic.Int64 // below zero once the file is retired
	closing sync.Once
	closed  chan struct{}
	err     error // of closing; read after closed
}

const retired = -1 << 40

func newHandle(file *bbolt.DB) *handle { return &handle{DB: file, closed: make(chan struct{})} }

// acquire keeps the file open until release. It reports false when the file was retired.
func (h *handle) acquire() bool {
	if h.readers.Add(1) > 0 {
		return true
	}
	h.release()
	return false
}

func (h *handle) release() {
	if h.readers.Add(-1) == retired {
		h.close()
	}
}

// retire closes the file as soon as nobody reads it.
func (h *handle) retire() {
	if h.readers.Add(retired) == retired {
		h.close()
	}
}

// close unmaps the file. The last reader should not wait for that.
func (h *handle) close() {
	h.closing.Do(func() {
		go func() {
			defer close(h.closed)
			h.err = h.DB.Close()
		}()
	})
}

// Restore takes over a database file that another node's Image made: the file at path, which must be on the same disk,
// becomes this DB's file. Snapshots and Images that are open go on showing the state that they were made of; those made
// from now on show the new one. Index and revision may jump. A file that is damaged, of another cluster, or older than
// what was applied is refused, and then nothing has changed. The caller must not call Apply meanwhile.
func (db *DB) Restore(path string) error {
	defer db.compaction.stop()()
	db.replacing.Lock()
	defer db.replacing.Unlock()
	info, err := db.checkCopy(path)
	if err != nil {
		return err
	}
	if err := syncFile(path); err != nil {
		return fmt.Errorf("taking over %s: %w", path, err)
	}
	file, err := openFile(path, info.Size, false)
	if err != nil {
		return err
	}
	next := &DB{bolt: newHandle(file), path: path}
	next.forget()
	if err := guard(next.load); err != nil {
		return errors.Join(damagedFile(path, err), file.Close())
	}
	if err := db.replace(next.bolt, path, func() error {
		if db.active.index > next.active.index {
			return fmt.Errorf("taking over %s: entries were applied meanwhile", path)
		}
		return nil
	}, func() {
		db.adopt(next)
	}); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path)) // its name is gone from there
}

// CheckCopy refuses the files that Restore refuses, and changes nothing. It returns the index that the file holds.
func (db *DB) CheckCopy(path string) (index uint64, err error) {
	info, err := db.checkCopy(path)
	return info.Index, err
}

func (db *DB) checkCopy(path string) (Info, error) {
	info, err := Inspect(path)
	if err != nil {
		return info, err
	}
	if cluster, err := clusterOf(db.keeper()); err != nil {
		return info, fmt.Errorf("taking over %s: %w", path, err)
	} else if info.ClusterID != cluster {
		return info, fmt.Errorf("taking over %s: it belongs to another cluster (%s, not %s)", path, info.ClusterID, cluster)
	}
	if index, _ := db.Applied(); info.Index < index {
		return info, fmt.Errorf("taking over %s: it ends at index %d, and this database holds entries up to %d", path, info.Index, index)
	}
	return info, nil
}

// clusterOf reads whose database an open file is.
func clusterOf(h *handle) (id entry.ID, err error) {
	if !h.acquire() {
		return id, errors.New("the database is closed")
	}
	defer h.release()
	err = guard(func() error {
		return h.View(func(tx *bbolt.Tx) error {
			info, err := readInfo(tx)
			id = info.ClusterID
			return err
		})
	})
	return id, err
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// keeper returns the file as it is now.
func (db *DB) keeper() *handle {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.bolt
}

// replace puts next, whose file is at path, in the place of the file. check is asked, and change is called, under the locks
// that the committer and Apply take; when replace fails before the file has its new name, nothing has changed and next is
// closed.
func (db *DB) replace(next *handle, path string, check func() error, change func()) error {
	db.committing.Lock()
	defer db.committing.Unlock()
	return db.replaceCommitting(next, path, check, change)
}

// replaceCommitting is replace for a caller that holds db.committing.
func (db *DB) replaceCommitting(next *handle, path string, check func() error, change func()) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	err := db.failed
	if err == nil && db.closed {
		err = errors.New("the database is closed")
	}
	if err == nil {
		err = check()
	}
	if err == nil {
		err = os.Rename(path, db.path)
	}
	if err != nil {
		return errors.Join(err, next.Close())
	}
	// From here on the name belongs to the new file, whatever happens.
	old := db.bolt
	db.bolt = next
	change()
	db.publish()
	db.room.Broadcast()
	db.gone = append(db.gone, old)
	old.retire()
	if err := syncFolder(filepath.Dir(db.path)); err != nil {
		// After a power cut the old file may be back under the name.
		db.fail(fmt.Errorf("replacing the database: %w", err))
		return db.failed
	}
	return nil
}

// adopt takes over what next has read from its file. The caller holds db.committing and db.mu.
func (db *DB) adopt(next *DB) {
	db.active, db.flushing = next.active, nil
	db.keys, db.recent = next.keys, next.recent
	db.lastTx, db.firstTx = next.lastTx, next.firstTx
	db.persisted.Store(next.persisted.Load())
}
