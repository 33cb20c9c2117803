package bolt_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"bulwark/storage"
	"bulwark/storage/bolt"
	"bulwark/storage/entry"
)

var cluster = entry.ID{1, 2, 3}

func options(path string) bolt.Options {
	return bolt.Options{Path: path, ClusterID: cluster, Logger: slog.New(slog.DiscardHandler)}
}

func open(t testing.TB, path string) *bolt.DB {
	t.Helper()
	db, err := bolt.Open(options(path))
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// An engine is a DB behind a log that is nothing but a counter.
type engine struct {
	*bolt.DB
	each bool // flush after each proposal

	mu    sync.Mutex
	index uint64
}

func (e *engine) Propose(ctx context.Context, p *entry.Entry) (entry.Outcome, error) {
	if err := ctx.Err(); err != nil {
		return entry.Outcome{}, err
	}
	decoded, err := entry.Decode(entry.Append(nil, p))
	if err != nil {
		return entry.Outcome{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.index++
	outcomes := e.Apply(e.index, []*entry.Entry{decoded})
	if outcomes == nil {
		return entry.Outcome{}, e.Failed()
	}
	if e.each {
		if err := e.Flush(); err != nil {
			return entry.Outcome{}, err
		}
	}
	return outcomes[0], nil
}

func (e *engine) Snapshot(context.Context) (storage.Snapshot, error) { return e.DB.Snapshot() }
func (e *engine) Local() (storage.Snapshot, error)                   { return e.DB.Snapshot() }

// newEngine opens an engine that flushes interval milliseconds after a change; 0: never, -1: after each proposal.
func newEngine(t *testing.T, interval int) *engine {
	o := options(filepath.Join(t.TempDir(), "state.db"))
	o.FlushInterval = time.Hour
	if interval > 0 {
		o.FlushInterval = time.Duration(interval) * time.Millisecond
	}
	db, err := bolt.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Flush(); err != nil {
			t.Error(err)
		}
		if err := db.Check(); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return &engine{DB: db, each: interval < 0}
}
