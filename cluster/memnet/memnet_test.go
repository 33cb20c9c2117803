package memnet_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"bulwark/cluster/memnet"
)

// pair returns both ends of a connection from "a" to "b".
func pair(t *testing.T, n *memnet.Network) (a, b net.Conn) {
	t.Helper()
	l, err := n.Listen("b")
	if err != nil {
		t.Fatal(err)
	}
	if a, err = n.Dialer("a")(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close(); l.Close() })
	return a, b
}

func TestBytesArriveInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		n.SetLatency(10 * time.Millisecond)
		a, b := pair(t, n)
		sent := bytes.Repeat([]byte("0123456789"), 500_000) // more than may be under way
		go func() { a.Write(sent); a.Close() }()
		got, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d of %d bytes arrived: %v", len(got), len(sent), err)
		}
	})
}

func TestLatency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		n.SetLatency(50 * time.Millisecond)
		began := time.Now()
		a, b := pair(t, n)
		if d := time.Since(began); d != 100*time.Millisecond {
			t.Errorf("dialling took %v", d)
		}
		began = time.Now()
		a.Write([]byte("x"))
		b.Read(make([]byte, 1))
		if d := time.Since(began); d != 50*time.Millisecond {
			t.Errorf("a byte took %v", d)
		}
	})
}

func TestPartition(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		a, b := pair(t, n)
		n.CutOneWay("a", "b")
		a.Write([]byte("held"))
		b.Write([]byte("back"))
		buf := make([]byte, 4)
		if _, err := io.ReadFull(a, buf); err != nil || string(buf) != "back" {
			t.Errorf("the other way: %q, %v", buf, err)
		}
		b.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := b.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a read across the partition: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := n.Dialer("a")(ctx, "b"); err == nil || time.Since(began) != time.Second {
			t.Errorf("dialling across the partition: %v after %v", err, time.Since(began))
		}
		b.SetReadDeadline(time.Time{})
		go func() { time.Sleep(time.Second); n.Heal("a", "b") }()
		if _, err := io.ReadFull(b, buf); err != nil || string(buf) != "held" {
			t.Errorf("after healing: %q, %v", buf, err)
		}
	})
}

func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		a, b := pair(t, n)
		go func() { time.Sleep(time.Second); a.Close() }()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a read while closing: %v", err)
		}
		if _, err := b.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("a read after the other end has closed: %v", err)
		}
		if _, err := b.Write([]byte("x")); err == nil {
			t.Error("a write after the other end has closed")
		}
		if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a write after closing: %v", err)
		}
		if _, err := n.Dialer("a")(t.Context(), "nobody"); err == nil {
			t.Error("dialling nobody")
		}
		if _, err := n.Listen("b"); err == nil {
			t.Error("two listeners of one name")
		}
	})
}
