package rowpolicy

import (
	"context"
	"crypto/rand"
	"errors"
	"testing"

	"bulwark/storage"
	"bulwark/storage/table"
)

// TestLoading holds that loading the parser outlasts the request that began it: that one is told to try again, and the
// next finds the parser loaded, once.
func TestLoading(t *testing.T) {
	t.Parallel()
	p := NewParser()
	real, loads := p.parse, 0
	began, release := make(chan struct{}), make(chan struct{})
	p.parse = func(sql string) ([]byte, error) {
		if sql == "select 1" {
			loads++
			close(began)
			<-release
		}
		return real(sql)
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := p.Parse(ctx, "create table t (id uuid primary key)")
		first <- err
	}()
	<-began
	cancel()
	var e *storage.Error
	if err := <-first; !errors.As(err, &e) || e.Code != CodeLoading || e.Fault != storage.Unavailable {
		t.Errorf("while the parser was loading: %v", err)
	}
	close(release)
	if _, _, err := p.Compile(t.Context(), &table.Schema{}, "create table t (id uuid primary key)", rand.Reader); err != nil {
		t.Error(err)
	}
	if loads != 1 {
		t.Errorf("the parser was loaded %d times", loads)
	}
}
