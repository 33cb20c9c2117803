package storagetest_test

import (
	"testing"

	"bulwark/storage"
	"bulwark/storage/storagetest"
)

func TestMemoryEngine(t *testing.T) {
	t.Parallel()
	storagetest.TestEngine(t, func(*testing.T) storage.Engine { return storagetest.NewEngine() })
}
