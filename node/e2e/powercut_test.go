//go:build e2e && linux

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

const (
	cuts      = 16 // under load
	startCuts = 8  // during the first start
)

// A disk is an ext4 file system of its own, in a file, that can lose its power.
type disk struct {
	image, at string
	mounted   bool
}

// newDisk makes and mounts a disk. Its journal is written every 30 seconds and not oftener, so that whatever is not
// synced is lost. It needs root and loop devices; leave it out with -skip TestPowerCut where there are none.
func newDisk(t *testing.T) *disk {
	t.Helper()
	dir := t.TempDir()
	d := &disk{image: filepath.Join(dir, "image"), at: filepath.Join(dir, "disk")}
	if err := os.Mkdir(d.at, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(d.image)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(512 << 20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	command(t, "mkfs.ext4", "-q", "-F", d.image)
	d.mount(t)
	t.Cleanup(func() {
		if d.mounted {
			d.unmount(t)
		}
	})
	return d
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s(a power cut needs root, ext4 and loop devices; -skip TestPowerCut leaves it out)", name, err, out)
	}
}

func (d *disk) mount(t *testing.T) {
	t.Helper()
	command(t, "mount", "-t", "ext4", "-o", "loop,commit=30", d.image, d.at)
	d.mounted = true
}

func (d *disk) unmount(t *testing.T) {
	t.Helper()
	command(t, "umount", d.at)
	d.mounted = false
}

// cut takes the power away: nothing reaches the disk any more, what is not in its journal is gone.
// (Linux, fs/ext4/ext4.h: EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH.)
func (d *disk) cut(t *testing.T) {
	t.Helper()
	const shutdown = 0x8004587d
	noLogFlush := uint32(2)
	f, err := os.Open(d.at)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), shutdown, uintptr(unsafe.Pointer(&noLogFlush))); errno != 0 {
		t.Fatalf("cutting the power: %v", errno)
	}
}

// restore mounts the disk again, once nobody has it open.
func (d *disk) restore(t *testing.T) {
	t.Helper()
	d.unmount(t)
	d.mount(t)
}

// TestPowerCut takes the power from a node's disk at random moments under load, and reads as an outsider what it kept:
// every acknowledged row, none half there, and one audit event for each.
func TestPowerCut(t *testing.T) {
	d := newDisk(t)
	p := serve(t, filepath.Join(d.at, "data"))
	who := p.signUp(t, "power@example.com")
	var (
		mu    sync.Mutex
		acked = map[string]bool{}
		// A machine without power answers nothing. Linux is not as sudden here: a sync that the shutdown overtakes may come
		// back as done, though the journal throws the write away. A bare loop of write and fsync sees it, too. So an answer
		// counts only if it came before the cut began.
		powered = true
		late    int
	)
	insert := func(ctx context.Context, p *process) error {
		mu.Lock()
		n := len(acked) + 1
		id := fmt.Sprintf("00000000-0000-4000-8000-%012d", n)
		acked[id] = false
		mu.Unlock()
		body := id + ":" + strconv.Itoa(n) + ":" + filler(n)
		status, b, err := p.do(ctx, "POST", "/rest/v1/notes", who.AccessToken, map[string]string{"id": id, "body": body})
		if err != nil {
			return err
		}
		if status != http.StatusCreated {
			return fmt.Errorf("inserting: %d %s", status, b)
		}
		mu.Lock()
		defer mu.Unlock()
		if powered {
			acked[id] = true
		} else {
			late++
		}
		return nil
	}
	for n := range cuts {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for ctx.Err() == nil {
					if insert(ctx, p) != nil {
						return
					}
				}
			})
		}
		select {
		case <-time.After(time.Duration(50+rand.IntN(1000)) * time.Millisecond):
		case <-p.ended:
			t.Fatalf("the node ended by itself before cut %d\n%s", n, p.log)
		}
		mu.Lock()
		powered = false
		mu.Unlock()
		d.cut(t)
		if n%2 == 0 { // the node meets the dead disk for a while
			select {
			case <-time.After(50 * time.Millisecond):
			case <-p.ended:
				t.Errorf("a disk that went away ended the process\n%s", p.log)
			}
		}
		p.kill()
		cancel()
		wg.Wait()
		d.restore(t)
		p = p.again(t)
		powered = true
	}
	t.Logf("%d cuts; %d answers came while the power went", cuts, late)
	check(t, p, who, acked)
	p.stop(t)
}

// TestPowerCutAtFirstStart takes the power away while the data folder is being made: the next start either finds nothing
// or goes on with what is there.
func TestPowerCutAtFirstStart(t *testing.T) {
	d := newDisk(t)
	for n := range startCuts {
		data := filepath.Join(d.at, "data"+strconv.Itoa(n))
		cmd := exec.Command(binary(t), "serve", "--demo", "--data", data, "--listen", "localhost:0", "--cluster-listen", "localhost:0")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+rand.IntN(300)) * time.Millisecond)
		d.cut(t)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		d.restore(t)
		p := serve(t, data)
		p.signUp(t, "first@example.com")
		p.stop(t)
	}
}
