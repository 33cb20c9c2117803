package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"bulwark/storage"
	"bulwark/storage/entry"
)

// minFree is how much of a disk must be free for a node to write: the next segment of the log, a step of the database's
// growth, the search index's merging, and something to free more with.
const minFree = 64 << 20

// A disk watches how much is free where the log is. A log that has met a full disk has stopped until it is opened anew, and
// so has a database. So writes are refused while there is still room for what goes on without them: what was acknowledged
// and is not in the database yet, the audit events of reads, the mark.
type disk struct {
	dir  string
	need int64 // bytes

	mu   sync.Mutex
	at   time.Time // when it was looked at
	free int64
	err  error
}

// lookAgain is how long what was found holds: too short for a node to write what is kept free.
const lookAgain = 100 * time.Millisecond

// full returns an error while fewer than need bytes are free. A disk that does not say passes: the log will notice.
func (d *disk) full(need int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); d.at.IsZero() || now.Sub(d.at) >= lookAgain {
		d.free, d.err = freeSpace(d.dir)
		d.at = now
	}
	if d.err != nil || d.free >= need {
		return nil
	}
	return storage.Errorf(storage.Unavailable, "disk_full", "the node's disk is full: nothing can be changed until its operator "+
		"frees %d MiB, but what is there can be read", (need-d.free+1<<20-1)>>20)
}

// takes refuses an entry that there is no room for. One that only records what was read is taken for longer.
func (d *disk) takes(e *entry.Entry) error {
	if len(e.Writes)+len(e.Messages)+len(e.Keys) == 0 {
		return d.full(d.need / 4)
	}
	return d.full(d.need)
}

// CheckDisk says in one line what is wrong when a node could not write to a folder, because its disk is full. The folder
// need not be there yet.
func CheckDisk(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("finding the folder: %w", err)
	}
	at := dir
	for {
		if _, err := os.Stat(at); !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			break
		}
		at = filepath.Dir(at)
	}
	free, err := freeSpace(at)
	if err != nil || free >= minFree {
		return nil // where the disk does not say, the first write will
	}
	return fmt.Errorf("the disk of %s is full: %d MiB are free, and a node needs %d: free some, or move the folder to a larger disk",
		dir, free>>20, minFree>>20)
}

// FreeSpace is how many bytes of the disk that dir is on this process may still write.
func FreeSpace(dir string) (int64, error) { return freeSpace(dir) }
