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

// ClientConfig says how a Client reaches its node. Fields without "default" are required.
type ClientConfig struct {
	Dial    func(ctx context.Context) (net.Conn, error)
	Silence time.Duration // a connection over which nothing came for so long, though it was asked, is given up; default 2 s
	Backoff time.Duration // the longest pause between two attempts to connect; default 500 ms
}

// A Client keeps one connection to another node open, and opens it again when it breaks.
type Client struct {
	config ClientConfig
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	link    *link
	dialing chan struct{} // closed when the attempt that is under way has ended; nil when none is
	failed  error         // why the last attempt failed
	pause   time.Duration // after that
	next    time.Time     // no attempt before
	running sync.WaitGroup
}

// NewClient returns a client. It connects when it is first called.
func NewClient(c ClientConfig) *Client {
	if c.Silence <= 0 {
		c.Silence = 2 * time.Second
	}
	if c.Backoff <= 0 {
		c.Backoff = 500 * time.Millisecond
	}
	client := &Client{config: c}
	client.ctx, client.cancel = context.WithCancel(context.Background())
	return client
}

// Close ends every call, and returns when nothing runs any more.
func (c *Client) Close() {
	c.cancel()
	c.mu.Lock()
	l := c.link
	c.mu.Unlock()
	if l != nil {
		l.fail(net.ErrClosed)
	}
	c.running.Wait()
}

// Break gives up the connection, if there is one: the next call opens another.
func (c *Client) Break() {
	c.mu.Lock()
	l := c.link
	c.mu.Unlock()
	if l != nil {
		l.fail(errors.New("the connection was given up"))
	}
}

func unreachable(cause error) error {
	return &storage.Error{Fault: storage.Unavailable, Code: "unreachable", Message: "that node cannot be reached: try again in a moment", Cause: cause}
}

// Call calls a method of the other node. An error is an InDoubt when nobody knows whether the call was begun.
func (c *Client) Call(ctx context.Context, method string, body []byte) ([]byte, error) {
	if len(method) > 255 || len(body) > MaxBody {
		return nil, storage.Errorf(storage.TooLarge, "call_too_large", "a call of %d bytes is above the limit of %d", len(body), MaxBody)
	}
	l, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	return l.call(ctx, method, body)
}

// connect returns the open connection, or opens one. Many callers share an attempt.
func (c *Client) connect(ctx context.Context) (*link, error) {
	c.mu.Lock()
	for {
		if c.ctx.Err() != nil {
			c.mu.Unlock()
			return nil, unreachable(net.ErrClosed)
		}
		if l := c.link; l != nil && l.alive() {
			c.mu.Unlock()
			return l, nil
		}
		if c.dialing == nil {
			if time.Now().Before(c.next) {
				err := c.failed
				c.mu.Unlock()
				return nil, unreachable(err)
			}
			c.dialing = make(chan struct{})
			c.running.Add(1)
			go c.dial()
		}
		dialing := c.dialing
		c.mu.Unlock()
		select {
		case <-dialing:
		case <-ctx.Done():
			return nil, unreachable(ctx.Err())
		}
		c.mu.Lock()
		if c.link == nil && c.failed != nil {
			err := c.failed
			c.mu.Unlock()
			return nil, unreachable(err)
		}
	}
}

func (c *Client) dial() {
	defer c.running.Done()
	ctx, cancel := context.WithTimeout(c.ctx, c.config.Silence)
	defer cancel()
	conn, err := c.config.Dial(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.dialing)
	c.dialing = nil
	if err == nil && c.ctx.Err() != nil {
		conn.Close()
		err = net.ErrClosed
	}
	c.failed, c.link = err, nil
	if err != nil {
		c.pause = min(max(2*c.pause, 10*time.Millisecond), c.config.Backoff)
		c.next = time.Now().Add(c.pause)
		return
	}
	l := &link{conn: conn, silence: c.config.Silence, out: newOutbox(), calls: map[uint64]*waiting{}, broken: make(chan struct{})}
	l.heard = time.Now()
	c.link = l
	c.running.Add(3)
	go func() {
		defer c.running.Done()
		if err := l.out.write(conn); err != nil {
			l.fail(err)
		}
	}()
	go func() {
		defer c.running.Done()
		err := l.read()
		l.fail(err)
		// A node that takes connections and closes them at once must not be dialled without a pause.
		c.mu.Lock()
		defer c.mu.Unlock()
		if l.answered() {
			c.pause = 0
		} else {
			c.failed = err
			c.pause = min(max(2*c.pause, 10*time.Millisecond), c.config.Backoff)
			c.next = time.Now().Add(c.pause)
		}
		if c.link == l {
			c.link = nil
		}
	}()
	go func() {
		defer c.running.Done()
		l.listen()
	}()
}

// A link is one connection.
type link struct {
	conn    net.Conn
	silence time.Duration
	out     *outbox
	broken  chan struct{} // closed with reason

	mu     sync.Mutex
	last   uint64
	calls  map[uint64]*waiting
	heard  time.Time // when something last came
	frames int       // that came
	reason error
}

// waiting is a call that waits for its answer.
type waiting struct{ answer chan *frame } // has room for one

func (l *link) alive() bool {
	select {
	case <-l.broken:
		return false
	default:
		return true
	}
}

func (l *link) answered() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.frames > 0
}

func (l *link) fail(err error) {
	l.mu.Lock()
	if l.reason == nil {
		l.reason = err
		close(l.broken)
	}
	l.mu.Unlock()
	l.out.close()
	l.conn.Close()
}

func (l *link) call(ctx context.Context, method string, body []byte) ([]byte, error) {
	var patience time.Duration
	if deadline, ok := ctx.Deadline(); ok {
		if patience = time.Until(deadline); patience <= 0 {
			return nil, unreachable(context.DeadlineExceeded)
		}
	}
	w := &waiting{answer: make(chan *frame, 1)}
	l.mu.Lock()
	l.last++
	id := l.last
	l.calls[id] = w
	l.mu.Unlock()
	f := callFrame(id, patience, method, body)
	defer func() {
		l.mu.Lock()
		delete(l.calls, id)
		l.mu.Unlock()
	}()
	if !l.out.add(f) {
		return nil, unreachable(l.why())
	}
	var cause error
	select {
	case a := <-w.answer:
		return opened(a)
	case <-l.broken:
		cause = unreachable(l.why())
	case <-ctx.Done():
		cause = ctx.Err()
	}
	select {
	case a := <-w.answer: // both happened
		return opened(a)
	default:
	}
	if l.out.take(f) {
		return nil, unreachable(cause)
	}
	l.out.add(&frame{kind: kindCancel, id: id})
	return nil, &storage.InDoubt{Cause: cause}
}

func opened(a *frame) ([]byte, error) {
	if a.kind == kindFailure {
		return nil, readError(a.payload)
	}
	return a.payload, nil
}

func (l *link) why() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reason
}

func (l *link) read() error {
	r := bufio.NewReaderSize(l.conn, 64<<10)
	for {
		f, err := readFrame(r)
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.heard = time.Now()
		l.frames++
		w := l.calls[f.id]
		if f.kind != kindPong {
			delete(l.calls, f.id)
		}
		l.mu.Unlock()
		switch f.kind {
		case kindAnswer, kindFailure:
			if w != nil {
				w.answer <- f
			}
		case kindPong:
		default:
			return errFrame
		}
	}
}

var errSilent = errors.New("nothing came over the connection, though it was asked")

// listen asks whether anybody is there when nothing has come for a while. After a partition a connection may take minutes to
// come to life again; a new one takes none.
func (l *link) listen() {
	tick := time.NewTicker(l.silence / 4)
	defer tick.Stop()
	for {
		select {
		case <-l.broken:
			return
		case <-tick.C:
		}
		l.mu.Lock()
		silent := time.Since(l.heard)
		l.mu.Unlock()
		switch {
		case silent >= l.silence:
			l.fail(errSilent)
		case silent >= l.silence/4:
			l.out.add(&frame{kind: kindPing})
		}
	}
}
