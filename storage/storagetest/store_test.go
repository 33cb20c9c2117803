package storagetest

import (
	"testing"

	"bulwark/storage"
)

func TestMemoryStore(t *testing.T) {
	t.Parallel()
	TestStore(t, func(*testing.T) storage.Engine { return NewEngine() })
}
