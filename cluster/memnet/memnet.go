// Package memnet is a network in memory, for tests: listeners by name, latency, and partitions in one or both directions.
//
// Promise: a connection behaves as TCP does. Bytes arrive in order or not at all; a partition delays them without an error
// until it is healed; dialling across a partition hangs until the dialler gives up. It waits on channels and timers only,
// so it works in virtual time (testing/synctest).
package memnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// window is how many bytes may be under way in one direction before a writer waits.
const window = 1 << 20

// backlog is how many connections may wait to be accepted.
const backlog = 128

type link struct{ from, to string }

// A Network connects nodes that have names. Its zero value is not usable; see New.
type Network struct {
	mu        sync.Mutex
	latency   time.Duration
	cut       map[link]bool
	changed   chan struct{} // closed when cut changes
	listeners map[string]*listener
}

// New returns a network without latency and without partitions.
func New() *Network {
	return &Network{cut: map[link]bool{}, changed: make(chan struct{}), listeners: map[string]*listener{}}
}

// SetLatency sets how long bytes that are written from now on are under way, in one direction.
func (n *Network) SetLatency(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.latency = d
}

// CutOneWay stops what from sends to to. What to sends to from still arrives.
func (n *Network) CutOneWay(from, to string) { n.set(true, link{from, to}) }

// Cut stops both directions between a and b.
func (n *Network) Cut(a, b string) { n.set(true, link{a, b}, link{b, a}) }

// Heal lets both directions between a and b pass again; what was held back arrives.
func (n *Network) Heal(a, b string) { n.set(false, link{a, b}, link{b, a}) }

// HealAll ends every partition.
func (n *Network) HealAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	n.wake()
}

func (n *Network) set(cut bool, links ...link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range links {
		if cut {
			n.cut[l] = true
		} else {
			delete(n.cut, l)
		}
	}
	n.wake()
}

func (n *Network) wake() {
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *Network) look(l link) (cut bool, latency time.Duration, changed <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut[l], n.latency, n.changed
}

// addr is a node's name as a net.Addr.
type addr string

func (addr) Network() string  { return "mem" }
func (a addr) String() string { return string(a) }

// Listen makes name reachable.
func (n *Network) Listen(name string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[name] != nil {
		return nil, fmt.Errorf("memnet: %q is in use", name)
	}
	l := &listener{net: n, name: name, queue: make(chan net.Conn, backlog), closed: make(chan struct{})}
	n.listeners[name] = l
	return l, nil
}

// Dialer returns the function with which the node called from dials others by name.
func (n *Network) Dialer(from string) func(ctx context.Context, to string) (net.Conn, error) {
	return func(ctx context.Context, to string) (net.Conn, error) {
		// A handshake is one packet there and one back.
		for _, l := range []link{{from, to}, {to, from}} {
			if err := n.pass(ctx, l); err != nil {
				return nil, &net.OpError{Op: "dial", Net: "mem", Addr: addr(to), Err: err}
			}
		}
		n.mu.Lock()
		l := n.listeners[to]
		n.mu.Unlock()
		if l == nil {
			return nil, &net.OpError{Op: "dial", Net: "mem", Addr: addr(to), Err: errors.New("connection refused")}
		}
		there, back := newPipe(n, link{from, to}), newPipe(n, link{to, from})
		near := newConn(addr(from), addr(to), back, there)
		far := newConn(addr(to), addr(from), there, back)
		select {
		case <-l.closed:
			return nil, &net.OpError{Op: "dial", Net: "mem", Addr: addr(to), Err: errors.New("connection refused")}
		default:
		}
		select {
		case l.queue <- far:
			return near, nil
		case <-l.closed:
			return nil, &net.OpError{Op: "dial", Net: "mem", Addr: addr(to), Err: errors.New("connection refused")}
		case <-ctx.Done():
			return nil, &net.OpError{Op: "dial", Net: "mem", Addr: addr(to), Err: ctx.Err()}
		}
	}
}

// pass waits as long as one packet would take.
func (n *Network) pass(ctx context.Context, l link) error {
	for {
		cut, latency, changed := n.look(l)
		if cut {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if latency == 0 {
			return ctx.Err()
		}
		timer := time.NewTimer(latency)
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

type listener struct {
	net    *Network
	name   string
	queue  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.net.mu.Lock()
		delete(l.net.listeners, l.name)
		l.net.mu.Unlock()
		for {
			select {
			case c := <-l.queue:
				c.Close()
				continue
			default:
			}
			return
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return addr(l.name) }

// A pipe is one direction of a connection.
type pipe struct {
	net  *Network
	link link

	mu      sync.Mutex
	pieces  []piece
	size    int
	ended   bool          // the writer has closed
	broken  bool          // the reader has closed
	changed chan struct{} // closed when anything above changes
}

type piece struct {
	b  []byte
	at time.Time // when it arrives
}

func newPipe(n *Network, l link) *pipe { return &pipe{net: n, link: l, changed: make(chan struct{})} }

func (p *pipe) wakeLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *pipe) close(reader bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if reader {
		p.broken, p.pieces, p.size = true, nil, 0
	} else {
		p.ended = true
	}
	p.wakeLocked()
}

func (p *pipe) write(b []byte, d *deadline, closed <-chan struct{}) (int, error) {
	done := 0
	for {
		stop := d.wait()
		_, latency, _ := p.net.look(p.link)
		p.mu.Lock()
		if p.broken || p.ended {
			p.mu.Unlock()
			return done, errors.New("connection reset by peer")
		}
		if n := min(len(b)-done, window-p.size); n > 0 {
			p.pieces = append(p.pieces, piece{append([]byte(nil), b[done:done+n]...), time.Now().Add(latency)})
			p.size += n
			done += n
			p.wakeLocked()
		}
		changed := p.changed
		p.mu.Unlock()
		if done == len(b) {
			return done, nil
		}
		select {
		case <-changed:
		case <-stop:
			return done, os.ErrDeadlineExceeded
		case <-closed:
			return done, net.ErrClosed
		}
	}
}

func (p *pipe) read(b []byte, d *deadline, closed <-chan struct{}) (int, error) {
	for {
		stop := d.wait()
		select {
		case <-stop:
			return 0, os.ErrDeadlineExceeded
		case <-closed:
			return 0, net.ErrClosed
		default:
		}
		cut, _, healed := p.net.look(p.link)
		p.mu.Lock()
		var timer *time.Timer
		var arrival <-chan time.Time
		if !cut && len(p.pieces) > 0 {
			first := &p.pieces[0]
			if wait := time.Until(first.at); wait > 0 {
				timer = time.NewTimer(wait)
				arrival = timer.C
			} else {
				n := copy(b, first.b)
				first.b = first.b[n:]
				p.size -= n
				if len(first.b) == 0 {
					p.pieces = p.pieces[1:]
				}
				p.wakeLocked()
				p.mu.Unlock()
				return n, nil
			}
		} else if !cut && p.ended {
			p.mu.Unlock()
			return 0, io.EOF
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-healed:
		case <-arrival:
		case <-stop:
		case <-closed:
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// A deadline is a time that can be moved while others wait for it.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	hit   chan struct{} // closed when the time has come
}

func newDeadline() *deadline { return &deadline{hit: make(chan struct{})} }

func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hit
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.hit // the timer has fired and closes this one
	}
	d.timer = nil
	select {
	case <-d.hit:
		d.hit = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	hit := d.hit
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, func() { close(hit) })
	} else {
		close(hit)
	}
}

type conn struct {
	local, remote net.Addr
	in, out       *pipe
	reading       *deadline
	writing       *deadline
	once          sync.Once
	closed        chan struct{}
}

func newConn(local, remote net.Addr, in, out *pipe) *conn {
	return &conn{local: local, remote: remote, in: in, out: out, reading: newDeadline(), writing: newDeadline(), closed: make(chan struct{})}
}

func (c *conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	return c.in.read(b, c.reading, c.closed)
}

func (c *conn) Write(b []byte) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	case <-c.writing.wait():
		return 0, os.ErrDeadlineExceeded
	default:
	}
	return c.out.write(b, c.writing, c.closed)
}

func (c *conn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.in.close(true)
		c.out.close(false)
		c.reading.set(time.Time{})
		c.writing.set(time.Time{})
	})
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	c.reading.set(t)
	c.writing.set(t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error  { c.reading.set(t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { c.writing.set(t); return nil }
