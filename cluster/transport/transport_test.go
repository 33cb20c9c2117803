package transport_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"math/big"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"bulwark/cluster/memnet"
	"bulwark/cluster/transport"
)

func config(t *testing.T, n *memnet.Network, name string) transport.Config {
	t.Helper()
	l, err := n.Listen(name)
	if err != nil {
		t.Fatal(err)
	}
	return transport.Config{Listener: l, Dial: n.Dialer(name), Logger: slog.New(slog.DiscardHandler), RaftLogger: hclog.NewNullLogger()}
}

func start(t *testing.T, c transport.Config) *transport.Transport {
	t.Helper()
	tr, err := transport.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// answer answers raft's messages until the transport is closed.
func answer(tr *transport.Transport, done <-chan struct{}) {
	for {
		select {
		case rpc := <-tr.Consumer():
			rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
		case <-done:
			return
		}
	}
}

func send(from *transport.Transport, to string) error {
	var resp raft.AppendEntriesResponse
	return from.AppendEntries("x", raft.ServerAddress(to), &raft.AppendEntriesRequest{Term: 1}, &resp)
}

// In the bubble a goroutine or a connection that is left open fails the test.
func TestRaftAndRPCShareAPort(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, done := memnet.New(), make(chan struct{})
		a := start(t, config(t, n, "a"))
		c := config(t, n, "b")
		c.RPC = func(conn net.Conn) {
			defer conn.Close()
			io.Copy(conn, conn)
		}
		b := start(t, c)
		go answer(b, done)
		if err := send(a, "b"); err != nil {
			t.Error(err)
		}
		conn, err := a.DialRPC(t.Context(), [16]byte{}, "b")
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte("echo"))
		got := make([]byte, 4)
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "echo" {
			t.Errorf("%q, %v", got, err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if _, err := conn.Read(got); err == nil {
			t.Error("Close left an inbound connection open")
		}
		a.Close()
		close(done)
	})
}

func TestSilentAndUnknownConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		c := config(t, n, "b")
		c.Handshake, c.MaxInbound = time.Second, 2
		b := start(t, c)
		defer b.Close()
		dial := func() net.Conn {
			conn, err := n.Dialer("a")(t.Context(), "b")
			if err != nil {
				t.Fatal(err)
			}
			return conn
		}
		closed := func(conn net.Conn, after time.Duration, what string) {
			began := time.Now()
			if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("%s: %v", what, err)
			}
			if d := time.Since(began); d != after {
				t.Errorf("%s was closed after %v and should be after %v", what, d, after)
			}
			conn.Close()
		}
		one, two, three := dial(), dial(), dial()
		synctest.Wait()
		closed(three, 0, "one connection too many")
		closed(one, time.Second, "a silent connection")
		closed(two, 0, "another silent connection")
		unknown := dial()
		unknown.Write([]byte{77})
		closed(unknown, 0, "a connection of an unknown kind")
		rpc := dial()
		rpc.Write([]byte{2})
		closed(rpc, 0, "an RPC that nobody serves")
	})
}

func TestWantsItsGuards(t *testing.T) {
	t.Parallel()
	n := memnet.New()
	for name, change := range map[string]func(*transport.Config){
		"listener": func(c *transport.Config) { c.Listener = nil },
		"dialler":  func(c *transport.Config) { c.Dial = nil },
		"logger":   func(c *transport.Config) { c.Logger = nil },
		"half TLS": func(c *transport.Config) { c.Server = &tls.Config{} },
	} {
		c := config(t, n, name)
		change(&c)
		if tr, err := transport.New(c); err == nil {
			tr.Close()
			t.Errorf("without %s", name)
		}
	}
}

// certificate returns TLS configurations of both sides that trust one certificate.
func certificate(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "node"}, DNSNames: []string{"node"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	own := []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	server = &tls.Config{Certificates: own, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}
	client = &tls.Config{Certificates: own, RootCAs: pool, ServerName: "node", MinVersion: tls.VersionTLS13}
	return server, client
}

func TestMutualTLS(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, done := memnet.New(), make(chan struct{})
		server, client := certificate(t)
		secure := func(name string) *transport.Transport {
			c := config(t, n, name)
			c.Server, c.Client = server, client
			return start(t, c)
		}
		a, b := secure("a"), secure("b")
		plain := start(t, config(t, n, "plain"))
		c := config(t, n, "stranger")
		c.Server, c.Client = certificate(t)
		c.Client.InsecureSkipVerify = true
		stranger := start(t, c)
		go answer(b, done)
		if err := send(a, "b"); err != nil {
			t.Error(err)
		}
		if err := send(plain, "b"); err == nil {
			t.Error("a node without TLS was answered")
		}
		if err := send(stranger, "b"); err == nil {
			t.Error("a node with another CA's certificate was answered")
		}
		for _, tr := range []*transport.Transport{a, b, plain, stranger} {
			tr.Close()
		}
		close(done)
	})
}

func TestDialEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		a := start(t, config(t, n, "a"))
		defer a.Close()
		b := start(t, config(t, n, "b"))
		defer b.Close()
		n.Cut("a", "b")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.DialRPC(ctx, [16]byte{}, "b"); err == nil {
			t.Error("it reached a node that is cut off")
		}
	})
}

// TestAnotherNodeIsThere dials an address at which another node is than the one that is meant.
func TestAnotherNodeIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, done := memnet.New(), make(chan struct{})
		meant := [16]byte{1}
		from := config(t, n, "a")
		from.Address = func(raft.ServerID) ([16]byte, string, bool) { return meant, "b", true }
		a := start(t, from)
		c := config(t, n, "b")
		c.Self = [16]byte{1}
		c.RPC = func(conn net.Conn) {
			defer conn.Close()
			io.Copy(conn, conn)
		}
		b := start(t, c)
		go answer(b, done)
		echoes := func() bool {
			conn, err := a.DialRPC(t.Context(), meant, "b")
			if err != nil {
				return false
			}
			defer conn.Close()
			conn.Write([]byte("echo"))
			_, err = io.ReadFull(conn, make([]byte, 4))
			return err == nil
		}
		if err := send(a, "b"); err != nil || !echoes() {
			t.Errorf("it does not answer: %v", err)
		}
		a.CloseStreams()
		meant = [16]byte{2}
		if err := send(a, "b"); err == nil {
			t.Error("raft's message reached another node than the one that was meant")
		}
		if echoes() {
			t.Error("a call reached another node than the one that was meant")
		}
		b.Close()
		a.Close()
		close(done)
	})
}
