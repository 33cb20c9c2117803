package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path"
	"path/filepath"
	"testing"
	"time"

	"bulwark/node/config"
	"bulwark/security/audit"
	"bulwark/web/client"
)

// testConfig is a configuration for a node on a data folder, on ports that are free.
func testConfig(t testing.TB, data string) config.Config {
	t.Helper()
	c := config.Default()
	c.Data, c.KeyFile = data, data+".key"
	c.Listen, c.ClusterListen = freeAddr(t), "localhost:0"
	c.Demo, c.BcryptCost, c.RateLimit = true, 4, 0
	return c
}

// freeAddr finds a port that a node can have again when it is opened anew: its tokens name its URL.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("localhost", port)
}

func testLogger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(b))
	return len(b), nil
}

func open(t testing.TB, c config.Config) *Node {
	t.Helper()
	n, err := Open(t.Context(), c, Options{Version: "test", Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, n) })
	return n
}

func closed(t testing.TB, n *Node) {
	t.Helper()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// A caller speaks to the demo project.
type caller struct {
	t      testing.TB
	demo   *Demo
	client *http.Client
}

func newCaller(t testing.TB, n *Node) *caller {
	t.Helper()
	d, err := n.Demo(t.Context())
	if err != nil || d == nil {
		t.Fatalf("the demo: %v, %v", d, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(d.CA)) {
		t.Fatal("no root certificate")
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}, Timeout: time.Minute}
	t.Cleanup(c.CloseIdleConnections)
	return &caller{t: t, demo: d, client: c}
}

func (c *caller) do(want int, method, path, token string, body any, into any) []byte {
	c.t.Helper()
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			c.t.Fatal(err)
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, c.demo.URL+path, r)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("apikey", c.demo.PublishableKey)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.client.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if resp.StatusCode != want {
		c.t.Fatalf("%s %s: %s, want %d\n%s", method, path, resp.Status, want, b)
	}
	if into != nil {
		if err := json.Unmarshal(b, into); err != nil {
			c.t.Fatalf("%s %s: %v\n%s", method, path, err, b)
		}
	}
	return b
}

type signedIn struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	User         struct{ ID string }
}

// TestThinRun goes once through everything: two people sign up, write rows, and each reads their own; the node is closed
// and opened, and it is all still there.
func TestThinRun(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, filepath.Join(t.TempDir(), "data"))
	n := open(t, cfg)
	c := newCaller(t, n)
	var ann, bob signedIn
	c.do(200, "POST", "/auth/v1/signup", "", map[string]string{"email": "ann@example.com", "password": "a long password"}, &ann)
	c.do(200, "POST", "/auth/v1/signup", "", map[string]string{"email": "bob@example.com", "password": "a long password"}, &bob)
	c.do(201, "POST", "/rest/v1/notes", ann.AccessToken, map[string]string{"body": "ann's"}, nil)
	c.do(201, "POST", "/rest/v1/notes", bob.AccessToken, map[string]string{"body": "bob's"}, nil)
	c.do(403, "POST", "/rest/v1/notes", bob.AccessToken, map[string]string{"body": "for ann", "user_id": ann.User.ID}, nil)
	own := func(who signedIn, want string) {
		t.Helper()
		var rows []struct{ Body string }
		c.do(200, "GET", "/rest/v1/notes?select=body&order=created_at.desc&limit=10", who.AccessToken, nil, &rows)
		if len(rows) != 1 || rows[0].Body != want {
			t.Errorf("the rows are %v, want one that says %q", rows, want)
		}
	}
	own(ann, "ann's")
	own(bob, "bob's")
	// A search misses nothing that was done before it, reads included.
	cl, err := client.New(client.Options{Socket: client.SocketPath(n.cfg.Data)})
	if err != nil {
		t.Fatal(err)
	}
	page, err := client.Call(t.Context(), cl, audit.SearchRoute, audit.SearchRequest{Tenant: demoName, Query: audit.Query{
		Filter: audit.Filter{Action: "rows.select", Actor: bob.User.ID}}})
	if err != nil || len(page.Events) != 1 {
		t.Errorf("what bob just read is not in the audit log: %+v, %v", page, err)
	}
	if b := c.do(200, "GET", "/rest/v1/notes", "", nil, nil); string(b) != "[]" {
		t.Errorf("anybody reads %s", b)
	}

	closed(t, n)
	n = open(t, cfg)
	c = newCaller(t, n)
	own(ann, "ann's")
	c.do(200, "POST", "/auth/v1/token?grant_type=refresh_token", "", map[string]string{"refresh_token": ann.RefreshToken}, &ann)
	c.do(204, "PATCH", "/rest/v1/notes?body=eq.ann's", ann.AccessToken, map[string]string{"body": "changed"}, nil)
	own(ann, "changed")
	c.do(204, "DELETE", "/rest/v1/notes?user_id=eq."+ann.User.ID, ann.AccessToken, nil, nil)
	own(bob, "bob's")
	c.do(204, "POST", "/auth/v1/logout?scope=global", ann.AccessToken, map[string]string{}, nil)
	c.do(403, "GET", "/auth/v1/user", ann.AccessToken, nil, nil)
}

// TestRotate rotates a project's data key while it is in use: rows stay readable, and the old key is gone in the end.
func TestRotate(t *testing.T) {
	t.Parallel()
	n := open(t, testConfig(t, filepath.Join(t.TempDir(), "data")))
	c := newCaller(t, n)
	var ann signedIn
	c.do(200, "POST", "/auth/v1/signup", "", map[string]string{"email": "ann@example.com", "password": "a long password"}, &ann)
	rows := make([]map[string]string, 700)
	for i := range rows {
		rows[i] = map[string]string{"body": fmt.Sprint("row ", i)}
	}
	c.do(201, "POST", "/rest/v1/notes", ann.AccessToken, rows, nil)
	versions := func() int {
		all, err := n.projects()
		if err != nil || len(all) != 1 {
			t.Fatalf("the projects are %v, %v", all, err)
		}
		return all[0].keys
	}
	ref := path.Base(c.demo.URL)
	cl, err := client.New(client.Options{Socket: client.SocketPath(n.cfg.Data)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Call(t.Context(), cl, RotateKeyRoute, RotateKeyRequest{Ref: ref}); err != nil {
		t.Fatal(err)
	}
	var got []struct{ Body string }
	c.do(200, "GET", "/rest/v1/notes?select=body", ann.AccessToken, nil, &got)
	if len(got) != len(rows) {
		t.Errorf("%d rows after the rotation, want %d", len(got), len(rows))
	}
	deadline := time.Now().Add(20 * time.Second)
	for versions() > 1 && time.Now().Before(deadline) {
		snap, err := n.cluster.Local()
		if err != nil {
			t.Fatal(err)
		}
		changed := n.cluster.Changed(snap.Revision())
		snap.Release()
		select {
		case <-changed:
		case <-time.After(time.Second):
		}
	}
	if v := versions(); v != 1 {
		t.Errorf("there are %d key versions after the rows were sealed anew", v)
	}
	c.do(200, "GET", "/rest/v1/notes?select=body", ann.AccessToken, nil, &got)
	if len(got) != len(rows) {
		t.Errorf("%d rows under the new key, want %d", len(got), len(rows))
	}
}
