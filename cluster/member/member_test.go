package member_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"bulwark/cluster/member"
	"bulwark/storage"
	"bulwark/storage/storagetest"
)

// An authority signs certificates for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, cert, key}
}

func template(cluster, node storage.ID) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(2), URIs: []*url.URL{member.URI(cluster, node)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

func (a *authority) sign(template *x509.Certificate, public any) []byte {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func (a *authority) chain(der []byte) []byte {
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})...)
}

func newID(t *testing.T) storage.ID {
	t.Helper()
	id, err := storage.NewID(time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func nobodyRemoved(storage.ID) bool { return false }

// node makes the credentials of a node of a cluster.
func (a *authority) node(cluster, id storage.ID, now func() time.Time, removed func(storage.ID) bool) *member.Credentials {
	a.t.Helper()
	c, err := member.New(a.t.TempDir(), id, now, removed)
	if err != nil {
		a.t.Fatal(err)
	}
	if err := c.Set(a.chain(a.sign(template(cluster, id), a.public(c)))); err != nil {
		a.t.Fatal(err)
	}
	return c
}

func (a *authority) public(c *member.Credentials) any {
	a.t.Helper()
	csr, err := c.Request()
	if err != nil {
		a.t.Fatal(err)
	}
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		a.t.Fatal(err)
	}
	return r.PublicKey
}

// meet connects a client to a server over loopback, and returns what each side says once a byte went both ways.
func meet(t *testing.T, server, client *tls.Config) (atServer, atClient error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		s := tls.Server(conn, server)
		var b [1]byte
		if _, err = io.ReadFull(s, b[:]); err == nil {
			_, err = s.Write(b[:])
		}
		done <- err
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := tls.Client(conn, client)
	var b [1]byte
	if _, atClient = c.Write(b[:]); atClient == nil {
		_, atClient = io.ReadFull(c, b[:])
	}
	conn.Close()
	return <-done, atClient
}

// TestWhoIsLetIn connects with every kind of wrong certificate. (CVE-2021-37219: any certificate of the CA was enough.)
func TestWhoIsLetIn(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t), newAuthority(t)
	cluster, other := newID(t), newID(t)
	removed := newID(t)
	server := ours.node(cluster, newID(t), time.Now, func(id storage.ID) bool { return id == removed })
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	show := func(a *authority, change func(*x509.Certificate)) *tls.Config {
		tmpl := template(cluster, newID(t))
		change(tmpl)
		der := a.sign(tmpl, key.Public())
		return &tls.Config{
			InsecureSkipVerify: true, NextProtos: []string{member.NodeProtocol},
			Certificates: []tls.Certificate{{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key}},
		}
	}
	self := func() *tls.Config {
		tmpl := template(cluster, newID(t))
		tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{member.NodeProtocol}, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	}
	with := func(c *tls.Config, change func(*tls.Config)) *tls.Config {
		change(c)
		return c
	}
	same := func(*x509.Certificate) {}
	for name, c := range map[string]struct {
		conf *tls.Config
		want bool
	}{
		"a node":                    {show(ours, same), true},
		"a node by its credentials": {ours.node(cluster, newID(t), time.Now, nobodyRemoved).ClientTLS(), true},
		"no certificate":            {&tls.Config{InsecureSkipVerify: true, NextProtos: []string{member.NodeProtocol}}, false},
		"another CA":                {show(theirs, same), false},
		"signed by itself":          {self(), false},
		"another cluster":           {show(ours, func(c *x509.Certificate) { c.URIs = []*url.URL{member.URI(other, newID(t))} }), false},
		"a removed node":            {show(ours, func(c *x509.Certificate) { c.URIs = []*url.URL{member.URI(cluster, removed)} }), false},
		"expired":                   {show(ours, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), false},
		"not yet":                   {show(ours, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), false},
		"for servers only":          {show(ours, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), false},
		"for clients of the API":    {show(ours, func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"node.example"} }), false},
		"with a host's name, too":   {show(ours, func(c *x509.Certificate) { c.DNSNames = []string{"node.example"} }), false},
		"two nodes at once":         {show(ours, func(c *x509.Certificate) { c.URIs = append(c.URIs, member.URI(cluster, newID(t))) }), false},
		"another role": {show(ours, func(c *x509.Certificate) {
			c.URIs = []*url.URL{{Scheme: "bulwark", Host: cluster.String(), Path: "/client/" + newID(t).String()}}
		}), false},
		"a query behind the name": {show(ours, func(c *x509.Certificate) { c.URIs[0].RawQuery = "x" }), false},
		"another protocol":        {with(show(ours, same), func(c *tls.Config) { c.NextProtos = []string{"h2"} }), false},
		"no protocol":             {with(show(ours, same), func(c *tls.Config) { c.NextProtos = nil }), false},
		"TLS 1.2":                 {with(show(ours, same), func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			atServer, atClient := meet(t, server.ServerTLS(), c.conf)
			if c.want && (atServer != nil || atClient != nil) {
				t.Errorf("refused: %v; %v", atServer, atClient)
			}
			if !c.want && atServer == nil {
				t.Error("it was let in")
			}
		})
	}
}

// TestWhoIsTalkedTo has a node call servers of every wrong kind.
func TestWhoIsTalkedTo(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t), newAuthority(t)
	cluster, removed := newID(t), newID(t)
	client := ours.node(cluster, newID(t), time.Now, func(id storage.ID) bool { return id == removed })
	for name, c := range map[string]struct {
		server *member.Credentials
		want   bool
	}{
		"a node":          {ours.node(cluster, newID(t), time.Now, nobodyRemoved), true},
		"another CA":      {theirs.node(cluster, newID(t), time.Now, nobodyRemoved), false},
		"another cluster": {ours.node(newID(t), newID(t), time.Now, nobodyRemoved), false},
		"a removed node":  {ours.node(cluster, removed, time.Now, nobodyRemoved), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, atClient := meet(t, c.server.ServerTLS(), client.ClientTLS()); (atClient == nil) != c.want {
				t.Errorf("the client says: %v", atClient)
			}
		})
	}
}

// TestClocksMayDiffer has nodes whose clocks are days apart know each other; not ones that are months apart.
func TestClocksMayDiffer(t *testing.T) {
	t.Parallel()
	ours, cluster := newAuthority(t), newID(t)
	good := ours.node(cluster, newID(t), time.Now, nobodyRemoved)
	// The test's root is an hour old: its own dates must not matter.
	late := ours.node(cluster, newID(t), func() time.Time { return time.Now().Add(-59 * time.Minute) }, nobodyRemoved)
	if atServer, atClient := meet(t, late.ServerTLS(), good.ClientTLS()); atServer != nil || atClient != nil {
		t.Errorf("refused: %v; %v", atServer, atClient)
	}
	off := ours.node(cluster, newID(t), func() time.Time { return time.Now().Add(24 * time.Hour) }, nobodyRemoved)
	if atServer, _ := meet(t, off.ServerTLS(), good.ClientTLS()); atServer == nil || !strings.Contains(atServer.Error(), "clock") {
		t.Errorf("it says %v, and nothing of clocks", atServer)
	}
}

// TestCredentialsAreKept reads back what was written, and refuses what does not belong together.
func TestCredentialsAreKept(t *testing.T) {
	t.Parallel()
	ours, cluster, id, dir := newAuthority(t), newID(t), newID(t), t.TempDir()
	if _, err := member.Load(dir, time.Now, nobodyRemoved); !storage.IsNotFound(err) {
		t.Fatal(err)
	}
	c, err := member.New(dir, id, time.Now, nobodyRemoved)
	if err != nil {
		t.Fatal(err)
	}
	pending, err := member.Load(dir, time.Now, nobodyRemoved)
	if err != nil || pending.Node() != id || !pending.Due() {
		t.Fatalf("%v %+v", err, pending)
	}
	if _, has := pending.Cluster(); has {
		t.Error("it has a certificate before it was given one")
	}
	if atServer, _ := meet(t, pending.ServerTLS(), c.ClientTLS()); atServer == nil {
		t.Error("a node without a certificate talks")
	}
	chain := ours.chain(ours.sign(template(cluster, id), ours.public(c)))
	for name, bad := range map[string][]byte{
		"of another node": ours.chain(ours.sign(template(cluster, newID(t)), ours.public(c))),
		"of another key":  ours.chain(ours.sign(template(cluster, id), ours.key.Public())),
		"of another root": append(chain[:bytes.Index(chain, []byte("-----END"))+26:bytes.Index(chain, []byte("-----END"))+26], newAuthority(t).chain(nil)[bytes.Index(newAuthority(t).chain(nil), []byte("-----END"))+26:]...),
		"without a root":  chain[:len(chain)/3],
		"nothing":         nil,
	} {
		if err := c.Set(bad); err == nil {
			t.Errorf("a certificate %s is taken", name)
		}
	}
	if err := c.Set(chain); err != nil {
		t.Fatal(err)
	}
	again, err := member.Load(dir, time.Now, nobodyRemoved)
	if err != nil {
		t.Fatal(err)
	}
	if of, ok := again.Cluster(); !ok || of != cluster {
		t.Errorf("it is of %v", of)
	}
	info, err := os.Stat(filepath.Join(dir, member.FileName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	b, err := os.ReadFile(filepath.Join(dir, member.FileName))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(b); i += 97 { // a damaged file is refused, or is what it was
		flipped := bytes.Clone(b)
		flipped[i] ^= 1
		if err := os.WriteFile(filepath.Join(dir, member.FileName), flipped, 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := member.Load(dir, time.Now, nobodyRemoved); err == nil && c.Node() != id {
			t.Errorf("a flipped bit at %d made it node %s", i, c.Node())
		}
	}
}

// TestTokenText holds tokens to their text.
func TestTokenText(t *testing.T) {
	t.Parallel()
	token := &member.Token{CA: sha256.Sum256([]byte("ca")), Secret: sha256.Sum256([]byte("secret")), Expires: time.Unix(1_800_000_000, 0), Addrs: []string{"10.0.0.1:8444", "node.example:8444"}}
	text := token.String()
	back, err := member.ParseToken(" " + text + "\n")
	if err != nil || !reflect.DeepEqual(back, token) {
		t.Fatalf("%v %+v", err, back)
	}
	for i := range text {
		changed := []byte(text)
		changed[i] ^= 1
		if got, err := member.ParseToken(string(changed)); err == nil {
			t.Errorf("a token with byte %d changed is read: %+v", i, got)
		} else if strings.Contains(err.Error(), text[10:40]) {
			t.Error("the error quotes the token")
		}
		if _, err := member.ParseToken(text[:i]); err == nil {
			t.Errorf("a token cut to %d bytes is read", i)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add((&member.Token{Addrs: []string{"a:1"}}).String())
	f.Add("bwj_")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := member.ParseToken(s)
		if err != nil {
			return
		}
		if again, err := member.ParseToken(token.String()); err != nil || !reflect.DeepEqual(again, token) {
			t.Errorf("%v: %+v is not %+v", err, again, token)
		}
	})
}

// A registry over a store in memory.
func newRegistry(t *testing.T) (*member.Registry, *storagetest.World) {
	t.Helper()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	return member.NewRegistry(w.DB), w
}

var operator = storage.OperatorActor(storage.System, storage.ID{}, storage.ID{}, "console", storage.Origin{})

func makeToken(t *testing.T, g *member.Registry, expiry time.Duration) (*member.Token, storage.ID) {
	t.Helper()
	text, id, _, err := g.NewToken(t.Context(), operator, []byte("ca"), []string{"a:1"}, expiry)
	if err != nil {
		t.Fatal(err)
	}
	token, err := member.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	return token, id
}

func candidate(t *testing.T, token *member.Token, name string) member.Candidate {
	return member.Candidate{Secret: token.Secret, Node: newID(t), Name: name, Addr: name + ":8444", Key: sha256.Sum256([]byte(name))}
}

func dead(storage.ID) bool  { return false }
func alive(storage.ID) bool { return true }

// TestTokenIsUsedOnce holds a token to one node.
func TestTokenIsUsedOnce(t *testing.T) {
	t.Parallel()
	g, _ := newRegistry(t)
	token, _ := makeToken(t, g, time.Hour)
	first := candidate(t, token, "one")
	m, _, err := g.Admit(t.Context(), first, alive)
	if err != nil || m.Name != "one" {
		t.Fatalf("%+v %v", m, err)
	}
	// The answer was lost: the same node asks again.
	if m, _, err = g.Admit(t.Context(), first, alive); err != nil || m.ID != first.Node {
		t.Fatalf("the same node may not ask again: %v", err)
	}
	denied := func(what string, c member.Candidate) {
		t.Helper()
		if _, _, err := g.Admit(t.Context(), c, alive); storage.FaultOf(err) != storage.Denied {
			t.Errorf("%s: %v", what, err)
		}
	}
	denied("another node", candidate(t, token, "two"))
	stolen := first
	stolen.Key = sha256.Sum256([]byte("another key"))
	denied("another key of the same id", stolen)
	wrong := candidate(t, token, "three")
	wrong.Secret[0] ^= 1
	denied("another secret", wrong)
	revoked, id := makeToken(t, g, time.Hour)
	if err := g.RevokeToken(t.Context(), operator, id); err != nil {
		t.Fatal(err)
	}
	denied("a revoked token", candidate(t, revoked, "four"))
	short, _ := makeToken(t, g, time.Nanosecond)
	denied("an expired token", candidate(t, short, "five"))
	if err := g.Remove(t.Context(), operator, first.Node); err != nil {
		t.Fatal(err)
	}
	denied("a removed node", first)
	fresh, _ := makeToken(t, g, time.Hour)
	back := candidate(t, fresh, "one")
	back.Node = first.Node
	denied("a removed node's id with a new token", back)
}

// TestNames gives each node a name of its own, and that of a node that is gone to the next.
func TestNames(t *testing.T) {
	t.Parallel()
	g, _ := newRegistry(t)
	admit := func(name string, given bool, alive func(storage.ID) bool) (member.Record, storage.ID, error) {
		token, _ := makeToken(t, g, time.Hour)
		c := candidate(t, token, name)
		c.NameGiven = given
		return g.Admit(t.Context(), c, alive)
	}
	first, _, err := admit("berlin", true, alive)
	if err != nil {
		t.Fatal(err)
	}
	if m, _, err := admit("Berlin", false, alive); err != nil || m.Name != "Berlin-2" {
		t.Errorf("%+v %v", m, err)
	}
	if _, _, err := admit("BERLIN", true, alive); storage.FaultOf(err) != storage.Exists {
		t.Errorf("a name that is taken: %v", err)
	}
	m, replaced, err := admit("berlin", true, dead)
	if err != nil || m.Name != "berlin" || replaced != first.ID {
		t.Errorf("%+v replaces %s, not %s: %v", m, replaced, first.ID, err)
	}
}

// TestJoin runs the protocol over loopback: with the right cluster, another, and one that answers with nonsense.
func TestJoin(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t)
	cluster := newID(t)
	server := ours.node(cluster, newID(t), time.Now, nobodyRemoved)
	listen := func(admit func(context.Context, *member.JoinRequest) (*member.JoinReply, error)) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				s := tls.Server(conn, server.ServerTLS())
				var kind [1]byte
				if _, err := io.ReadFull(s, kind[:]); err != nil || kind[0] != member.KindJoin {
					s.Close()
					continue
				}
				_ = member.Serve(context.Background(), s, admit)
			}
		}()
		return l.Addr().String()
	}
	good := listen(func(_ context.Context, r *member.JoinRequest) (*member.JoinReply, error) {
		return &member.JoinReply{Cluster: cluster, Name: r.Name, Root: []byte("root")}, nil
	})
	sealed := listen(func(context.Context, *member.JoinRequest) (*member.JoinReply, error) {
		return nil, storage.Errorf(storage.Unavailable, "sealed", "the node is sealed")
	})
	refusing := listen(func(context.Context, *member.JoinRequest) (*member.JoinReply, error) {
		return nil, storage.Errorf(storage.Denied, "bad_join_token", "no")
	})
	broken := listen(func(context.Context, *member.JoinRequest) (*member.JoinReply, error) {
		return nil, errors.New("secret detail")
	})
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}
	join := func(ca [32]byte, addrs ...string) (*member.JoinReply, error) {
		return member.Join(t.Context(), &member.Token{CA: ca, Addrs: addrs}, &member.JoinRequest{Name: "new"}, time.Now, dial)
	}
	pin := sha256.Sum256(ours.cert.Raw)
	if r, err := join(pin, "127.0.0.1:1", sealed, good); err != nil || string(r.Root) != "root" || r.Name != "new" {
		t.Errorf("%+v %v", r, err)
	}
	if r, err := join(sha256.Sum256([]byte("another")), good); err == nil {
		t.Errorf("it talks to a cluster that its token does not pin: %+v", r)
	}
	if _, err := join(pin, refusing, good); storage.FaultOf(err) != storage.Denied {
		t.Errorf("a refusal does not end it: %v", err)
	}
	if _, err := join(pin, broken); err == nil || strings.Contains(err.Error(), "secret detail") {
		t.Errorf("%v", err)
	}
	if _, err := join(pin, sealed); err == nil {
		t.Error("nobody let it in, and it says nothing")
	}
}

// TestServeIsBounded sends what is no request.
func TestServeIsBounded(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{
		"a length of gigabytes": {0xff, 0xff, 0xff, 0xff},
		"no JSON":               append([]byte{0, 0, 0, 3}, "abc"...),
		"cut short":             {0, 0, 0, 9, '{'},
		"nothing":               nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, z := net.Pipe()
			go func() {
				_, _ = a.Write(b)
				a.Close()
			}()
			err := member.Serve(t.Context(), z, func(context.Context, *member.JoinRequest) (*member.JoinReply, error) {
				return nil, fmt.Errorf("it was asked")
			})
			if err == nil || strings.Contains(err.Error(), "it was asked") {
				t.Errorf("%v", err)
			}
		})
	}
}
