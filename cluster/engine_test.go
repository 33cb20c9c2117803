package cluster_test

import (
	"testing"

	"bulwark/storage"
	"bulwark/storage/storagetest"
)

func TestEngineOverTheLog(t *testing.T) {
	t.Parallel()
	storagetest.TestEngine(t, func(t *testing.T) storage.Engine {
		c := openOnDisk(t, t.TempDir(), newID(), newID())
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
		return c
	})
}
