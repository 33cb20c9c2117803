package web

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// maxAddresses bounds the addresses that the rate limiter remembers.
const maxAddresses = 1 << 16

// A rateLimiter holds each address to a rate. An IPv6 address counts with its /64, which one subscriber has to itself.
type rateLimiter struct {
	limit rate.Limit
	burst int
	now   func() time.Time

	mu   sync.Mutex
	seen map[netip.Addr]*rate.Limiter
}

func newRateLimiter(perSecond float64, burst int, now func() time.Time) *rateLimiter {
	return &rateLimiter{limit: rate.Limit(perSecond), burst: burst, now: now, seen: map[netip.Addr]*rate.Limiter{}}
}

func (l *rateLimiter) allow(a netip.Addr) bool {
	a = network(a)
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	lim := l.seen[a]
	if lim == nil {
		if len(l.seen) >= maxAddresses {
			l.forget(now)
		}
		lim = rate.NewLimiter(l.limit, l.burst)
		l.seen[a] = lim
	}
	return lim.AllowN(now, 1)
}

// forget makes room. An address whose bucket is full again is as good as one never seen; if all are busy any may go: a
// flood from that many addresses is not stopped by counting them.
func (l *rateLimiter) forget(now time.Time) {
	for a, lim := range l.seen {
		if lim.TokensAt(now) >= float64(l.burst) {
			delete(l.seen, a)
		}
	}
	for a := range l.seen {
		if len(l.seen) < maxAddresses*3/4 {
			return
		}
		delete(l.seen, a)
	}
}

func network(a netip.Addr) netip.Addr {
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// A limitedListener holds the number of open connections. When all are taken it accepts no more until one closes; an
// address that has a quarter of them gets no further one, so that it cannot have them all.
type limitedListener struct {
	net.Listener
	slots   chan struct{}
	perAddr int
	open    prometheus.Gauge
	done    chan struct{}
	close   sync.Once

	mu    sync.Mutex
	count map[netip.Addr]int
}

func limitListener(l net.Listener, most int, open prometheus.Gauge) net.Listener {
	return &limitedListener{Listener: l, slots: make(chan struct{}, most), perAddr: max(1, most/4), open: open,
		done: make(chan struct{}), count: map[netip.Addr]int{}}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		select {
		case l.slots <- struct{}{}:
		case <-l.done:
			return nil, net.ErrClosed
		}
		c, err := l.Listener.Accept()
		if err != nil {
			<-l.slots
			return nil, err
		}
		var a netip.Addr
		if ap, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
			a = network(ap.Addr().Unmap())
		}
		if l.enter(a) {
			l.open.Inc()
			return &limitedConn{Conn: c, release: sync.OnceFunc(func() { l.leave(a) })}, nil
		}
		<-l.slots
		// It is refused; that closing it fails changes nothing.
		_ = c.Close()
	}
}

func (l *limitedListener) enter(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.IsValid() && l.count[a] >= l.perAddr {
		return false
	}
	l.count[a]++
	return true
}

func (l *limitedListener) leave(a netip.Addr) {
	l.mu.Lock()
	if l.count[a]--; l.count[a] == 0 {
		delete(l.count, a)
	}
	l.mu.Unlock()
	l.open.Dec()
	<-l.slots
}

func (l *limitedListener) Close() error {
	l.close.Do(func() { close(l.done) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}
