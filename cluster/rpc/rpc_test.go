package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bulwark/cluster/memnet"
	"bulwark/cluster/rpc"
	"bulwark/storage"
)

// serve answers calls at name until the test ends.
func serve(t *testing.T, n *memnet.Network, name string, h rpc.Handler) (stop func()) {
	l, err := n.Listen(name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { rpc.Serve(ctx, conn, h) })
		}
	})
	return func() { cancel(); l.Close(); running.Wait() }
}

func client(n *memnet.Network, from, to string) *rpc.Client {
	dial := n.Dialer(from)
	return rpc.NewClient(rpc.ClientConfig{
		Dial:    func(ctx context.Context) (net.Conn, error) { return dial(ctx, to) },
		Silence: 2 * time.Second,
	})
}

func echo(_ context.Context, method string, body []byte) ([]byte, error) {
	return append([]byte(method+":"), body...), nil
}

func TestManyCallsAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		n.SetLatency(time.Millisecond)
		defer serve(t, n, "b", func(ctx context.Context, method string, body []byte) ([]byte, error) {
			time.Sleep(time.Second)
			return echo(ctx, method, body)
		})()
		c := client(n, "a", "b")
		defer c.Close()
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() {
				body := bytes.Repeat([]byte{byte(i)}, i*100)
				b, err := c.Call(t.Context(), "m", body)
				if err != nil || !bytes.Equal(b, append([]byte("m:"), body...)) {
					t.Errorf("call %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("they took %v, one after the other", d)
		}
	})
}

func TestErrorsSurvive(t *testing.T) {
	t.Parallel()
	want := &storage.Error{Fault: storage.TooMany, Code: "code", Message: "message", Field: "field", Details: "details", Hint: "hint", Cause: errors.New("cause")}
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		defer serve(t, n, "b", func(_ context.Context, method string, _ []byte) ([]byte, error) {
			switch method {
			case "error":
				return nil, want
			case "doubt":
				return nil, &storage.InDoubt{Cause: want}
			}
			return nil, errors.New("a plain one")
		})()
		c := client(n, "a", "b")
		defer c.Close()
		var got *storage.Error
		var doubt *storage.InDoubt
		_, err := c.Call(t.Context(), "error", nil)
		if errors.As(err, &doubt) || !errors.As(err, &got) || got.Cause.Error() != "cause" {
			t.Fatalf("it arrives as %#v", err)
		}
		same := *got
		same.Cause = want.Cause
		if same != *want {
			t.Errorf("it arrives as %+v", got)
		}
		if _, err = c.Call(t.Context(), "doubt", nil); !errors.As(err, &doubt) || !errors.As(doubt.Cause, &got) || got.Code != "code" {
			t.Errorf("a doubt arrives as %#v", err)
		}
		if _, err = c.Call(t.Context(), "plain", nil); errors.As(err, &doubt) || !errors.As(err, &got) || got.Fault != storage.Internal || got.Cause.Error() != "a plain one" {
			t.Errorf("a plain error arrives as %#v", err)
		}
	})
}

// TestDoubt holds that a call which may have been begun is in doubt, and one that was not is not.
func TestDoubt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		n.SetLatency(time.Millisecond)
		var begun, ended atomic.Int32
		stop := serve(t, n, "b", func(ctx context.Context, method string, _ []byte) ([]byte, error) {
			if method == "quick" {
				return nil, nil
			}
			begun.Add(1)
			<-ctx.Done()
			ended.Add(1)
			return nil, ctx.Err()
		})
		c := client(n, "a", "b")
		defer c.Close()
		var doubt *storage.InDoubt

		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := c.Call(ctx, "slow", nil); !errors.As(err, &doubt) {
			t.Errorf("a call that timed out: %v", err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		go func() { time.Sleep(time.Second); cancel() }()
		if _, err := c.Call(ctx, "slow", nil); !errors.As(err, &doubt) {
			t.Errorf("a call that was given up: %v", err)
		}
		synctest.Wait()
		time.Sleep(10 * time.Millisecond)
		if begun.Load() != 2 || ended.Load() != 2 {
			t.Errorf("%d handlers began and %d ended", begun.Load(), ended.Load())
		}

		n.Cut("a", "b")
		began := time.Now()
		if _, err := c.Call(t.Context(), "slow", nil); !errors.As(err, &doubt) {
			t.Errorf("a call into a partition: %v", err)
		}
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("a partition was noticed after %v", d)
		}
		if _, err := c.Call(t.Context(), "slow", nil); errors.As(err, &doubt) || storage.FaultOf(err) != storage.Unavailable {
			t.Errorf("a call that cannot be sent: %v", err)
		}
		n.HealAll()
		time.Sleep(time.Second)
		if _, err := c.Call(t.Context(), "quick", nil); err != nil {
			t.Errorf("a call after the partition: %v", err)
		}
		go func() { time.Sleep(time.Second); stop() }()
		if _, err := c.Call(t.Context(), "slow", nil); !errors.As(err, &doubt) {
			t.Errorf("a call to a node that stops: %v", err)
		}
		time.Sleep(time.Second)
		if _, err := c.Call(t.Context(), "slow", nil); errors.As(err, &doubt) || storage.FaultOf(err) != storage.Unavailable {
			t.Errorf("a call to a node that has stopped: %v", err)
		}
	})
}

// TestSlowAnswerKeepsTheConnection holds that an answer may take longer than silence is borne.
func TestSlowAnswerKeepsTheConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		defer serve(t, n, "b", func(context.Context, string, []byte) ([]byte, error) {
			time.Sleep(time.Minute)
			return []byte("late"), nil
		})()
		c := client(n, "a", "b")
		defer c.Close()
		if b, err := c.Call(t.Context(), "slow", nil); err != nil || string(b) != "late" {
			t.Errorf("%q, %v", b, err)
		}
		time.Sleep(10 * time.Minute) // an idle connection stays
		if b, err := c.Call(t.Context(), "slow", nil); err != nil || string(b) != "late" {
			t.Errorf("%q, %v", b, err)
		}
	})
}

func TestCallsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		release := make(chan struct{})
		defer serve(t, n, "b", func(context.Context, string, []byte) ([]byte, error) { <-release; return nil, nil })()
		c := client(n, "a", "b")
		defer c.Close()
		var wg sync.WaitGroup
		var refused atomic.Int32
		for range rpc.MaxCalls + 10 {
			wg.Go(func() {
				if _, err := c.Call(t.Context(), "m", nil); storage.FaultOf(err) == storage.TooMany {
					refused.Add(1)
				} else if err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := refused.Load(); n != 10 {
			t.Errorf("%d calls were refused", n)
		}
		close(release)
		wg.Wait()
		if _, err := c.Call(t.Context(), strings.Repeat("m", 256), nil); storage.FaultOf(err) != storage.TooLarge {
			t.Errorf("a long method: %v", err)
		}
	})
}

// FuzzServe says anything to a server.
func FuzzServe(f *testing.F) {
	f.Add([]byte{0, 0, 0, 9, 5, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Add([]byte{0, 0, 0, 15, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 'm'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Add([]byte{3, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			rpc.Serve(t.Context(), far, echo)
		}()
		go func() {
			buf := make([]byte, 1<<16)
			for {
				if _, err := near.Read(buf); err != nil {
					return
				}
			}
		}()
		near.Write(b)
		near.Close()
		<-done
	})
}

// FuzzClient answers a call with anything.
func FuzzClient(f *testing.F) {
	f.Add([]byte{0, 0, 0, 9, 2, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Add([]byte{0, 0, 0, 11, 3, 0, 0, 0, 0, 0, 0, 0, 1, 1, 9})
	f.Add(append([]byte{0, 0, 0, 35, 3, 0, 0, 0, 0, 0, 0, 0, 1, 1, 9}, make([]byte, 24)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		near, far := net.Pipe()
		var once atomic.Bool
		c := rpc.NewClient(rpc.ClientConfig{Dial: func(context.Context) (net.Conn, error) {
			if once.Swap(true) {
				return nil, errors.New("refused")
			}
			return near, nil
		}})
		defer c.Close()
		go func() {
			var buf [18]byte
			for n := 0; n < 18; {
				k, err := far.Read(buf[n:])
				if err != nil {
					return
				}
				n += k
			}
			far.Write(b)
			far.Close()
		}()
		_, err := c.Call(t.Context(), "m", nil)
		var doubt *storage.InDoubt
		var plain *storage.Error
		if err != nil && !errors.As(err, &doubt) && !errors.As(err, &plain) {
			t.Errorf("an error of another kind: %v", err)
		}
	})
}
