// Package rpc carries many calls at a time over one connection between two nodes.
//
// Promise: a frame and the calls under way are bounded, and what the other side sends costs no more memory than has come. A
// *storage.Error and a *storage.InDoubt arrive as what they were. A call that fails with anything but an InDoubt was not
// begun on the other side, or was answered by it: when nobody knows, the error is an InDoubt.
package rpc

import (
	"bufio"
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"bulwark/storage"
)

// A Handler answers a call. It runs in a goroutine of its own. ctx ends at the caller's deadline, when the caller has given
// up, and when the connection breaks.
type Handler func(ctx context.Context, method string, body []byte) ([]byte, error)

const (
	// MaxCalls bounds the calls of one connection that a node answers at a time.
	MaxCalls = 4096
	// MaxUnderWay bounds the bytes of their bodies.
	MaxUnderWay = 2 * MaxBody
	// quiet is how long a connection that carries nothing, not even a question whether anybody is there, is kept.
	quiet = time.Minute
	// stuck is how long one write may take.
	stuck = 10 * time.Second
)

// Serve answers the calls that come over conn until it breaks or ctx ends, and closes it. It returns when no handler runs
// any more.
func Serve(ctx context.Context, conn net.Conn, h Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	s := &server{handler: h, conn: conn, calls: map[uint64]*call{}, out: newOutbox()}
	var running sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	running.Go(func() {
		defer conn.Close()
		s.out.write(conn)
	})
	err := s.read(ctx, &running)
	cancel()
	stop()
	s.out.close()
	conn.Close()
	running.Wait()
	return err
}

type server struct {
	handler Handler
	conn    net.Conn
	out     *outbox

	mu    sync.Mutex
	calls map[uint64]*call
	bytes int
}

type call struct {
	cancel context.CancelFunc
	bytes  int
}

func (s *server) read(ctx context.Context, running *sync.WaitGroup) error {
	r := bufio.NewReaderSize(s.conn, 64<<10)
	for {
		if err := s.conn.SetReadDeadline(time.Now().Add(quiet)); err != nil {
			return err
		}
		f, err := readFrame(r)
		if err != nil {
			return err
		}
		switch f.kind {
		case kindPing:
			s.out.add(&frame{kind: kindPong, id: f.id})
		case kindCancel:
			s.mu.Lock()
			if c := s.calls[f.id]; c != nil {
				c.cancel()
			}
			s.mu.Unlock()
		case kindCall:
			if err := s.begin(ctx, f, running); err != nil {
				return err
			}
		default:
			return errFrame
		}
	}
}

var errFrame = errors.New("the other node sent a frame that means nothing")

func (s *server) begin(ctx context.Context, f *frame, running *sync.WaitGroup) error {
	patience, method, body, err := splitCall(f.payload)
	if err != nil {
		return err
	}
	var cancel context.CancelFunc
	if patience > 0 {
		ctx, cancel = context.WithTimeout(ctx, patience)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	c := &call{cancel: cancel, bytes: len(body)}
	s.mu.Lock()
	_, twice := s.calls[f.id]
	full := len(s.calls) >= MaxCalls || s.bytes+c.bytes > MaxUnderWay
	if !twice && !full {
		s.calls[f.id] = c
		s.bytes += c.bytes
	}
	s.mu.Unlock()
	switch {
	case twice:
		cancel()
		return errFrame
	case full:
		cancel()
		s.out.add(failure(f.id, storage.Errorf(storage.TooMany, "node_busy", "too many calls wait for that node: try again in a moment")))
		return nil
	}
	running.Go(func() {
		answer, err := s.handler(ctx, method, body)
		cancel()
		s.mu.Lock()
		delete(s.calls, f.id)
		s.bytes -= c.bytes
		s.mu.Unlock()
		switch {
		case err != nil:
			s.out.add(failure(f.id, err))
		case len(answer) > MaxBody:
			s.out.add(failure(f.id, storage.Errorf(storage.TooLarge, "answer_too_large", "the answer has %d bytes and the limit is %d", len(answer), MaxBody)))
		default:
			s.out.add(&frame{kind: kindAnswer, id: f.id, payload: answer})
		}
	})
	return nil
}
