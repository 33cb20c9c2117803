package bolt_test

import (
	"testing"

	"bulwark/storage"
	"bulwark/storage/storagetest"
)

func TestEngine(t *testing.T) {
	t.Parallel()
	t.Run("FlushedNowAndThen", func(t *testing.T) {
		t.Parallel()
		storagetest.TestEngine(t, func(t *testing.T) storage.Engine { return newEngine(t, 1) })
	})
	t.Run("NeverFlushed", func(t *testing.T) {
		t.Parallel()
		storagetest.TestEngine(t, func(t *testing.T) storage.Engine { return newEngine(t, 0) })
	})
	t.Run("FlushedAfterEachEntry", func(t *testing.T) {
		t.Parallel()
		storagetest.TestEngine(t, func(t *testing.T) storage.Engine { return newEngine(t, -1) })
	})
}
