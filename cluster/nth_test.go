package cluster_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"

	"bulwark/cluster"
	"bulwark/storage"
	"bulwark/storage/entry"
)

// nthFails are the log's files on a disk whose n-th write, sync, creation or removal fails, and all after it.
type nthFails struct {
	types.VFS
	how string // "refused", "half" or "done": what becomes of the n-th; of a "torn" write some of the middle is missing

	mu   sync.Mutex
	left int
}

// next reports whether this step is the n-th, or comes after it.
func (f *nthFails) next() (nth, after bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left--
	return f.left == 0, f.left < 0
}

func (f *nthFails) met() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left <= 0
}

func (f *nthFails) step(do func() error) error {
	nth, after := f.next()
	switch {
	case after || nth && f.how == "refused":
		return syscall.EIO
	case nth:
		return errors.Join(do(), syscall.EIO)
	}
	return do()
}

func (f *nthFails) Create(dir, name string, size uint64) (w types.WritableFile, err error) {
	err = f.step(func() (err error) {
		w, err = f.VFS.Create(dir, name, size)
		return err
	})
	if err != nil {
		if w != nil {
			w.Close()
		}
		return nil, err
	}
	return &nthFile{w, f}, nil
}

func (f *nthFails) Delete(dir, name string) error {
	return f.step(func() error { return f.VFS.Delete(dir, name) })
}

func (f *nthFails) OpenWriter(dir, name string) (types.WritableFile, error) {
	w, err := f.VFS.OpenWriter(dir, name)
	if err != nil {
		return nil, err
	}
	return &nthFile{w, f}, nil
}

type nthFile struct {
	types.WritableFile
	disk *nthFails
}

func (f *nthFile) Sync() error { return f.disk.step(f.WritableFile.Sync) }

func (f *nthFile) WriteAt(b []byte, at int64) (n int, err error) {
	err = f.disk.step(func() (err error) {
		if f.disk.how == "half" && f.disk.met() {
			n, err = f.WritableFile.WriteAt(b[:len(b)/2], at)
			return err
		}
		if f.disk.how == "torn" && f.disk.met() && len(b) > 1000 {
			b = slices.Concat(b[:600], make([]byte, 200), b[800:])
		}
		n, err = f.WritableFile.WriteAt(b, at)
		return err
	})
	return n, err
}

// TestEveryStepFails lets each step of the log's disk fail once, from the first start through writes, new segments and the
// last mark: what was acknowledged is there, what was not is there as a whole or not at all, and what is in doubt is
// settled by proposing it again.
func TestEveryStepFails(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"refused", "half", "torn", "done"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			n := 1
			for ; ; n++ {
				if !stepFails(t, n, how) {
					break
				}
			}
			t.Logf("%d steps", n-1)
			if n < 20 {
				t.Errorf("there were only %d steps", n-1)
			}
		})
	}
}

// stepFails reports whether the n-th step was met.
func stepFails(t *testing.T, n int, how string) bool {
	dir, node, id, tenant := t.TempDir(), newID(), newID(), newID()
	configure := func() cluster.Config {
		config := onDisk(t, dir, node, id)
		config.SegmentSize, config.MarkBytes, config.Trailing, config.NoLeader = 64<<10, 96<<10, 1, 5*time.Second
		return config
	}
	entries := make([]*entry.Entry, 12)
	value := func(i int) string { return strings.Repeat(fmt.Sprintf("%02d", i), 10<<10) }
	for i := range entries {
		entries[i] = put(tenant, fmt.Sprint(i), value(i))
		entries[i].Leaves = []entry.Leaf{{Hash: [32]byte{byte(i)}, Sealed: []byte("event")}}
	}
	disk := &nthFails{VFS: walfs.New(), how: how, left: n}
	acked := map[int]bool{}
	config := configure()
	c, err := cluster.OpenOn(config, disk)
	if err == nil {
		for i, e := range entries {
			o, err := c.Propose(within(t, 10*time.Second), e)
			var doubt *storage.InDoubt
			switch {
			case err == nil && o.Status == entry.Applied:
				acked[i] = true
			case err == nil || !errors.As(err, &doubt) && storage.FaultOf(err) != storage.Unavailable:
				t.Errorf("step %d, entry %d: %+v, %v", n, i, o, err)
			}
		}
		if s, err := c.Local(); err != nil {
			t.Errorf("step %d: %v", n, err)
		} else {
			s.Release()
		}
		if err := c.Close(); err != nil && !errors.Is(err, syscall.EIO) {
			t.Errorf("step %d, closing: %v", n, err)
		}
	} else if closing := config.State.Close(); closing != nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("step %d: %v, %v", n, err, closing)
	}

	c, err = cluster.Open(configure())
	if err != nil {
		t.Fatalf("step %d, opening again: %v", n, err)
	}
	defer c.Close()
	s, err := c.Snapshot(within(t, 10*time.Second))
	if err != nil {
		t.Fatalf("step %d, reading again: %v", n, err)
	}
	there := 0
	for i := range entries {
		got := get(t, s, tenant, fmt.Sprint(i))
		if got != "" {
			there++
		}
		if acked[i] && got == "" || got != "" && got != value(i) {
			t.Errorf("step %d, entry %d: acknowledged %v, and %d of %d bytes are there", n, i, acked[i], len(got), len(value(i)))
		}
	}
	if size, _, err := s.Tree(tenant); int(size) != there || err != nil {
		t.Errorf("step %d: %d rows and %d events, %v", n, there, size, err)
	}
	s.Release()
	for i, e := range entries {
		if o, err := c.Propose(within(t, 10*time.Second), e); err != nil || o.Status != entry.Applied {
			t.Errorf("step %d, entry %d again: %+v, %v", n, i, o, err)
		}
	}
	s, err = c.Snapshot(within(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if size, _, err := s.Tree(tenant); int(size) != len(entries) || err != nil {
		t.Errorf("step %d: %d events at last, %v; want %d", n, size, err, len(entries))
	}
	s.Release()
	return disk.met()
}
