//go:build linux

package node

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestGuarded reads a mapped page that is no longer there: that ends the job with an error, and not the process.
func TestGuarded(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "mapped"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 16); err != nil {
		t.Fatal(err)
	}
	page, err := syscall.Mmap(int(f.Fd()), 0, 1<<16, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Munmap(page); err != nil {
			t.Error(err)
		}
	}()
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	sum := 0
	err = guarded(func() error {
		for _, b := range page {
			sum += int(b)
		}
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "panicked") {
		t.Errorf("the job ended with %v, and %d", err, sum)
	}
	if err := guarded(func() error { return os.ErrClosed }); err != os.ErrClosed {
		t.Errorf("a job's own error is %v", err)
	}
}
