// Package transport carries raft's messages between nodes, over any listener and dialler.
//
// Promise: one port serves raft and the node-to-node RPC, told apart by the first byte of a connection. A connection that
// does not say which it is within the handshake's time is closed, there are never more inbound connections than the limit,
// and Close leaves none open. With TLS configurations both sides are authenticated before the first byte is read.
package transport

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// The first byte of a connection says what it carries.
const (
	kindRaft byte = 1
	kindRPC  byte = 2
	kindJoin byte = 3
)

// Config says how nodes reach each other.
type Config struct {
	// Listener takes the other nodes' connections. The transport closes it. Its address is what other nodes dial, unless
	// Advertise is set.
	Listener  net.Listener
	Advertise string
	// Self is this node. A connection that was meant for another is closed: an address may come to be another node's, and a
	// vote must not be counted as one of the node that used to be there.
	Self [16]byte
	// Address finds where a node is reached, by the id that raft has for it; default: where raft believes that it is.
	Address func(id raft.ServerID) (node [16]byte, addr string, ok bool)
	// Dial opens a connection to another node.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Server and Client are for mutual TLS. Both are set, or neither (in tests).
	Server, Client *tls.Config
	// RPC takes over a connection that carries the node-to-node RPC. When it is nil such connections are closed.
	RPC func(net.Conn)
	// Join takes over a connection of somebody who has a token to join, and no certificate; such a connection carries
	// nothing else. When it is nil such connections are closed. MaxJoins of them are open at a time.
	Join     func(net.Conn)
	MaxJoins int // default 4

	Handshake  time.Duration // until a connection has said what it carries; default 5 s
	Timeout    time.Duration // of one message; default 10 s
	MaxInbound int           // connections at a time; default 256
	Logger     *slog.Logger
	RaftLogger hclog.Logger
}

// A Transport is a raft.Transport.
type Transport struct {
	*raft.NetworkTransport
	layer *layer
}

// New starts a transport. It owns the listener from now on, also when it fails.
func New(c Config) (*Transport, error) {
	switch {
	case c.Listener == nil:
		return nil, errors.New("a transport needs a listener")
	case c.Dial == nil, c.Logger == nil, c.RaftLogger == nil:
		c.Listener.Close()
		return nil, errors.New("a transport needs a dialler and its loggers")
	case (c.Server == nil) != (c.Client == nil):
		c.Listener.Close()
		return nil, errors.New("a transport needs both TLS configurations, or neither")
	}
	if c.Handshake <= 0 {
		c.Handshake = 5 * time.Second
	}
	if c.Timeout <= 0 {
		c.Timeout = 10 * time.Second
	}
	if c.MaxInbound <= 0 {
		c.MaxInbound = 256
	}
	if c.MaxJoins <= 0 {
		c.MaxJoins = 4
	}
	l := &layer{Config: c, raft: make(chan net.Conn), closed: make(chan struct{}), conns: map[net.Conn]struct{}{}, joins: make(chan struct{}, c.MaxJoins)}
	t := &Transport{layer: l}
	t.NetworkTransport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		ServerAddressProvider: l, Stream: l, MaxPool: 3, Timeout: c.Timeout, Logger: c.RaftLogger, MsgpackUseNewTimeFormat: true,
		// No pipeline of messages: when a node steps down while its pipeline is full, raft v1.8.0 stops reading the answers while
		// it still waits to send, for ever, and so does its Shutdown. A batch is sent while the one before is synced anyway.
		MaxRPCsInFlight: 1,
	})
	l.running.Add(1)
	go l.accept()
	return t, nil
}

// DialRPC opens a connection to another node that carries the node-to-node RPC.
func (t *Transport) DialRPC(ctx context.Context, node [16]byte, addr string) (net.Conn, error) {
	return t.layer.dial(ctx, node, addr, kindRPC)
}

// Close closes the listener and every connection, and returns when nothing runs any more.
func (t *Transport) Close() error {
	err := t.NetworkTransport.Close()
	t.NetworkTransport.CloseStreams()
	t.layer.running.Wait()
	return err
}

// A layer is the raft.StreamLayer: what the raft transport sees of the network.
type layer struct {
	Config
	raft    chan net.Conn // inbound, past the handshake
	joins   chan struct{} // has one for each connection of somebody who joins
	once    sync.Once
	closed  chan struct{}
	running sync.WaitGroup

	mu       sync.Mutex
	inbound  int
	shutting bool
	conns    map[net.Conn]struct{}
}

func (l *layer) accept() {
	defer l.running.Done()
	var delay time.Duration
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			select {
			case <-l.closed:
				return
			default:
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// For example too many open files: it may pass.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			l.Logger.Warn("accepting a connection of another node", "error", err)
			select {
			case <-l.closed:
				return
			case <-time.After(delay):
			}
			continue
		}
		delay = 0
		tracked, ok := l.track(c, true)
		if !ok {
			c.Close()
			continue
		}
		l.running.Add(1)
		go l.greet(tracked)
	}
}

// greet finds out what a connection carries, and hands it on.
func (l *layer) greet(c net.Conn) {
	defer l.running.Done()
	if err := c.SetDeadline(time.Now().Add(l.Handshake)); err != nil {
		c.Close()
		return
	}
	anonymous := false
	if l.Server != nil {
		t := tls.Server(c, l.Server)
		if err := t.Handshake(); err != nil {
			l.Logger.Warn("refusing a connection of another node", "address", c.RemoteAddr().String(), "error", err)
			c.Close()
			return
		}
		c, anonymous = t, len(t.ConnectionState().PeerCertificates) == 0
	}
	var kind [1]byte
	if n, err := c.Read(kind[:]); err != nil || n != 1 {
		c.Close()
		return
	}
	if kind[0] != kindRaft && kind[0] != kindJoin && (kind[0] != kindRPC || l.RPC == nil) {
		c.Close()
		return
	}
	var meant [16]byte
	if kind[0] != kindJoin {
		if _, err := io.ReadFull(c, meant[:]); err != nil || meant != [16]byte{} && meant != l.Self {
			c.Close()
			return
		}
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		c.Close()
		return
	}
	switch {
	case anonymous != (kind[0] == kindJoin && l.Server != nil):
		c.Close()
	case kind[0] == kindJoin && l.Join != nil:
		select {
		case l.joins <- struct{}{}:
			l.Join(c)
			<-l.joins
		default: // whoever has a token asks again
			c.Close()
		}
	case kind[0] == kindRaft:
		select {
		case l.raft <- c:
		case <-l.closed:
			c.Close()
		}
	case kind[0] == kindRPC && l.RPC != nil:
		l.RPC(c)
	default:
		c.Close()
	}
}

// track makes sure that c is closed with the transport, and that inbound connections stay within their limit.
func (l *layer) track(c net.Conn, inbound bool) (net.Conn, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shutting || inbound && l.inbound >= l.MaxInbound {
		return nil, false
	}
	t := &trackedConn{Conn: c, layer: l, inbound: inbound}
	l.conns[t] = struct{}{}
	if inbound {
		l.inbound++
	}
	return t, true
}

type trackedConn struct {
	net.Conn
	layer   *layer
	inbound bool
	once    sync.Once
}

func (t *trackedConn) Close() error {
	t.once.Do(func() {
		t.layer.mu.Lock()
		defer t.layer.mu.Unlock()
		delete(t.layer.conns, t)
		if t.inbound {
			t.layer.inbound--
		}
	})
	return t.Conn.Close()
}

// Accept gives raft its connections.
func (l *layer) Accept() (net.Conn, error) {
	select {
	case c := <-l.raft:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close is called by the raft transport when it closes.
func (l *layer) Close() error {
	var err error
	l.once.Do(func() {
		close(l.closed)
		err = l.Listener.Close()
		l.mu.Lock()
		l.shutting = true
		open := make([]net.Conn, 0, len(l.conns))
		for c := range l.conns {
			open = append(open, c)
		}
		l.mu.Unlock()
		for _, c := range open {
			c.Close()
		}
	})
	return err
}

// advertised is an address as other nodes write it.
type advertised string

func (advertised) Network() string  { return "tcp" }
func (a advertised) String() string { return string(a) }

// Addr is where other nodes reach this one.
func (l *layer) Addr() net.Addr {
	if l.Advertise != "" {
		return advertised(l.Advertise)
	}
	return l.Listener.Addr()
}

// Dial opens a connection that carries raft.
func (l *layer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	// A dial must not outlive the transport.
	l.mu.Lock()
	if l.shutting {
		l.mu.Unlock()
		return nil, net.ErrClosed
	}
	l.running.Add(1)
	l.mu.Unlock()
	go func() {
		defer l.running.Done()
		select {
		case <-l.closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	var node [16]byte
	if id, rest, ok := strings.Cut(string(addr), "@"); ok {
		if n, err := hex.Decode(node[:], []byte(id)); err != nil || n != len(node) {
			return nil, fmt.Errorf("the address %q names no node", addr)
		}
		addr = raft.ServerAddress(rest)
	}
	return l.dial(ctx, node, string(addr), kindRaft)
}

// ServerAddr is raft.ServerAddressProvider: an address with the node that is meant to be there.
func (l *layer) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if l.Address != nil {
		if node, addr, ok := l.Address(id); ok {
			return raft.ServerAddress(hex.EncodeToString(node[:]) + "@" + addr), nil
		}
	}
	return "", errors.New("it is not known where that node is")
}

func (l *layer) dial(ctx context.Context, node [16]byte, addr string, kind byte) (net.Conn, error) {
	c, err := l.Config.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	tracked, ok := l.track(c, false)
	if !ok {
		c.Close()
		return nil, net.ErrClosed
	}
	c = tracked
	deadline, ok := ctx.Deadline()
	if limit := time.Now().Add(l.Handshake); !ok || limit.Before(deadline) {
		deadline = limit
	}
	introduced, err := l.introduce(ctx, c, deadline, kind, node)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("connecting to node %s: %w", addr, err)
	}
	return introduced, nil
}

// introduce does the TLS handshake and says what the connection carries.
func (l *layer) introduce(ctx context.Context, c net.Conn, deadline time.Time, kind byte, node [16]byte) (net.Conn, error) {
	if err := c.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if l.Client != nil {
		t := tls.Client(c, l.Client)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		c = t
	}
	if _, err := c.Write(append([]byte{kind}, node[:]...)); err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Time{})
}
