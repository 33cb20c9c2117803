package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	bbolt "go.etcd.io/bbolt"

	"bulwark/storage/entry"
)

// run is the committer: it flushes what Apply left, flushInterval after the first of it, or as soon as there is much.
func (db *DB) run() {
	defer close(db.done)
	for {
		select {
		case <-db.dirty:
		case <-db.stop:
			return
		}
		timer := time.NewTimer(db.flushInterval)
		select {
		case <-timer.C:
		case <-db.full:
		case <-db.stop:
			timer.Stop()
			return
		}
		timer.Stop()
		if err := db.Flush(); err != nil {
			return
		}
	}
}

// signal wakes whoever waits on c, or the next who will.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Flush returns when everything that was applied before the call is in the file, and synced. An error is for good: the
// file is not written any more until it is opened anew, and Failed returns the error.
func (db *DB) Flush() error {
	db.committing.Lock()
	defer db.committing.Unlock()
	return db.flush()
}

// flush moves the active layer into the file. The caller holds db.committing.
func (db *DB) flush() error {
	db.mu.Lock()
	if db.failed != nil || db.active.index == db.persisted.Load() {
		defer db.mu.Unlock()
		return db.failed
	}
	l := db.active
	db.flushing = l
	db.active = newLayer(l.index, l.revision)
	db.publish()
	db.mu.Unlock()

	txid, err := db.commit(l)

	db.mu.Lock()
	defer db.mu.Unlock()
	defer db.room.Broadcast()
	if err != nil {
		db.fail(fmt.Errorf("writing the database: %w", err))
		return db.failed
	}
	db.lastTx = txid
	db.flushing = nil
	db.compaction.record(l, db.maxOverlay)
	db.persisted.Store(l.index)
	db.publish()
	return nil
}

// fail notes that the DB will not go on. The caller holds db.mu.
func (db *DB) fail(err error) {
	if db.failed == nil {
		db.failed = err
		db.log.Error("the database takes no more writes; restart the node once the cause is mended", "cause", err)
		db.room.Broadcast()
	}
}

// commit writes l in one synced transaction of bbolt. It returns a damaged page's fault or panic as an error.
func (db *DB) commit(l *layer) (txid int, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			// bbolt may have been left holding its locks.
			db.stuck.Store(true)
			err = fmt.Errorf("the file is damaged: %v", p)
		}
	}()
	tx, err := db.bolt.Begin(true)
	if err != nil {
		return 0, err
	}
	txid = tx.ID()
	if err := fill(tx, l); err != nil {
		return 0, errors.Join(err, tx.Rollback())
	}
	return txid, tx.Commit()
}

// fill applies l to the file: its masks first, then its cells.
func fill(tx *bbolt.Tx, l *layer) error {
	for _, m := range l.masks {
		if err := destroyBuckets(tx, m); err != nil {
			return err
		}
	}
	w := writer{tx: tx}
	l.cells.Scan(func(key string, stored []byte) bool {
		w.err = w.put([]byte(key), stored)
		return w.err == nil
	})
	if w.err != nil {
		return w.err
	}
	meta := tx.Bucket(metaBucket)
	if err := meta.Put(indexKey, binary.BigEndian.AppendUint64(nil, l.index)); err != nil {
		return err
	}
	return meta.Put(revisionKey, binary.BigEndian.AppendUint64(nil, l.revision))
}

func destroyBuckets(tx *bbolt.Tx, m mask) error {
	if m.whole {
		if tx.Bucket(tenantBucket(m.tenant)) == nil {
			return nil
		}
		return deleteBucket(tx.Cursor().Bucket(), tenantBucket(m.tenant))
	}
	t := tx.Bucket(tenantBucket(m.tenant))
	if t == nil || t.Bucket(projectBucket(m.project)) == nil {
		return nil
	}
	return deleteBucket(t, projectBucket(m.project))
}

// deleteBucket deletes a bucket, the ones inside it first. bbolt itself removes those while it walks over them: in a bucket
// that the transaction changed before, it then passes over every other one and loses its pages.
func deleteBucket(parent *bbolt.Bucket, name []byte) error {
	child := parent.Bucket(name)
	var inside [][]byte
	err := child.ForEachBucket(func(k []byte) error {
		inside = append(inside, bytes.Clone(k))
		return nil
	})
	if err != nil {
		return err
	}
	for _, k := range inside {
		if err := deleteBucket(child, k); err != nil {
			return err
		}
	}
	return parent.DeleteBucket(name)
}

// How full a page is made before it is split. Rows and leaves arrive in the order of their keys, so a page that is full
// stays as it is; keys in random order need room.
const (
	fillOrdered = 1.0
	fillRandom  = 0.5
)

// A writer puts cells into their buckets. It remembers the last bucket, since cells come in order.
type writer struct {
	tx     *bbolt.Tx
	prefix string // of the flat keys that go into bucket
	bucket *bbolt.Bucket
	err    error
}

func (w *writer) put(flat, stored []byte) error {
	if w.bucket == nil || len(flat) < len(w.prefix) || string(flat[:len(w.prefix)]) != w.prefix {
		if err := w.open(flat); err != nil {
			return err
		}
	}
	key := flat[len(w.prefix):]
	if len(key) == 0 {
		key = treeKey
	}
	if stored == nil {
		return w.bucket.Delete(key)
	}
	return w.bucket.Put(key, stored)
}

// open finds or makes the bucket that flat's cell lives in.
func (w *writer) open(flat []byte) (err error) {
	switch flat[0] {
	case wrappedCell:
		w.prefix, w.bucket = string(flat[:1]), w.tx.Bucket(keysBucket)
		return nil
	case recentCell:
		w.prefix, w.bucket = string(flat[:1]), w.tx.Bucket(recentBucket)
		return nil
	}
	tenant := entry.ID(flat[1 : 1+idSize])
	w.prefix = string(flat[:1+idSize])
	if w.bucket, err = w.tx.CreateBucketIfNotExists(tenantBucket(tenant)); err != nil {
		return err
	}
	switch flat[0] {
	case leafCell:
		w.bucket, err = w.bucket.CreateBucketIfNotExists(leavesBucket)
		if err == nil {
			w.bucket.FillPercent = fillOrdered
		}
	case rowCell:
		project, rest := entry.ID(flat[1+idSize:1+2*idSize]), string(flat[1+2*idSize:])
		table, _, _ := strings.Cut(rest, "\x00")
		w.prefix = string(flat[:1+2*idSize+len(table)+1])
		if w.bucket, err = w.bucket.CreateBucketIfNotExists(projectBucket(project)); err != nil {
			return err
		}
		if w.bucket, err = w.bucket.CreateBucketIfNotExists([]byte(table)); err != nil {
			return err
		}
		w.bucket.FillPercent = fillOrdered
		if strings.HasSuffix(table, entry.IndexSuffix) {
			w.bucket.FillPercent = fillRandom
		}
	}
	return err
}
