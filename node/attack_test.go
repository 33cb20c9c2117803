package node

import (
	"bufio"
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
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulwark/security/audit"
	"bulwark/storage"
	"bulwark/web/client"
)

// A realm is a node with two tenants of two projects each, everything that the node wrote to its log at the level debug,
// and a clock that a test can move. All of its requests go through the node's own sockets.
type realm struct {
	t       testing.TB
	n       *Node
	log     *journal
	ahead   atomic.Int64 // nanoseconds by which the node's clock is ahead
	web     *http.Client // over TLS
	console *http.Client
	pool    *x509.CertPool
	host    string

	acme, beta        *org
	operator, revoked string // operator tokens
	secrets           secretList
}

type org struct {
	id, name string
	projects [2]*place
}

type place struct {
	org             *org
	id, ref, url    string
	public, secret  string
	revoked, pubID  string // a publishable key that was revoked; the id of the one that was not
	person, another signedIn
}

const (
	password = "correct horse battery"
	// canary is in whatever belongs to the tenant beta, in its rows, names and addresses.
	canary = "beta-canary"
)

const realmSQL = `create table notes (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null default auth.uid(),
  body text, n bigint, small smallint, score double precision, day date, done boolean, tag text unique, data jsonb
);
alter table notes enable row level security;
create policy "own" on notes to authenticated using ((select auth.uid()) = user_id) with check ((select auth.uid()) = user_id);
create table board (id bigint primary key, audience text, body text);
alter table board enable row level security;
create policy "of the role" on board for select using (auth.role() = audience);
create policy "of the address" on board for select to authenticated using (audience = (auth.jwt() ->> 'email'));
create table dropbox (id bigint primary key, body text);
alter table dropbox enable row level security;
create policy "anybody puts in" on dropbox for insert with check (true);
create table closed (id bigint primary key, body text);
`

// A journal keeps what is logged.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(b)
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// A secretList remembers what may be in no log.
type secretList struct {
	mu  sync.Mutex
	all []string
}

func (s *secretList) add(words ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range words {
		if len(w) >= 6 {
			s.all = append(s.all, w)
		}
	}
}

func newRealm(t testing.TB) *realm {
	t.Helper()
	w := &realm{t: t, log: &journal{}}
	cfg := testConfig(t, filepath.Join(t.TempDir(), "data"))
	cfg.Demo = false
	n, err := Open(t.Context(), cfg, Options{
		Version: "test", Logger: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Now: func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.n, w.host = n, n.addr
	t.Cleanup(func() {
		closed(t, n)
		w.checkLog()
	})
	w.pool = x509.NewCertPool()
	if !w.pool.AppendCertsFromPEM([]byte(*n.ca.Load())) {
		t.Fatal("no root certificate")
	}
	w.web = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.pool}, MaxIdleConnsPerHost: 100}, Timeout: time.Minute}
	w.console = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", client.SocketPath(cfg.Data))
	}}, Timeout: time.Minute}
	t.Cleanup(w.web.CloseIdleConnections)
	t.Cleanup(w.console.CloseIdleConnections)

	var token struct {
		Key   struct{ ID string }
		Value string
	}
	w.manage(201, "POST", "/operator/tokens", map[string]string{"name": "revoked"}, &token)
	w.revoked = token.Value
	w.manage(204, "DELETE", "/operator/tokens/"+token.Key.ID, nil, nil)
	w.manage(201, "POST", "/operator/tokens", map[string]string{"name": "test"}, &token)
	w.operator = token.Value
	w.secrets.add(w.operator, w.revoked, password)
	w.acme, w.beta = w.newOrg("acme"), w.newOrg(canary)
	return w
}

func (w *realm) newOrg(name string) *org {
	w.t.Helper()
	o := &org{name: name}
	var made struct{ ID string }
	w.manage(201, "POST", "/tenants", map[string]string{"name": name}, &made)
	o.id = made.ID
	for i := range o.projects {
		o.projects[i] = w.newPlace(o, fmt.Sprintf("%s-%d", name, i))
	}
	return o
}

// newPlace makes a project with a schema, two people, and a row of the first of them.
func (w *realm) newPlace(o *org, name string) *place {
	w.t.Helper()
	p := &place{org: o}
	var made struct{ ID, Ref string }
	w.manage(201, "POST", "/tenants/"+o.name+"/projects", map[string]any{"name": name, "sign_up": true, "auto_confirm": true}, &made)
	p.id, p.ref, p.url = made.ID, made.Ref, w.n.ProjectURL(made.Ref)
	key := func(kind string) (id, value string) {
		var made struct {
			Key   struct{ ID string }
			Value string
		}
		w.manage(201, "POST", "/projects/"+p.ref+"/apikeys", map[string]string{"kind": kind, "name": name + " " + kind}, &made)
		w.secrets.add(made.Value)
		return made.Key.ID, made.Value
	}
	revoked, value := key("publishable")
	p.revoked = value
	w.manage(204, "DELETE", "/projects/"+p.ref+"/apikeys/"+revoked, nil, nil)
	p.pubID, p.public = key("publishable")
	_, p.secret = key("secret")
	w.manage(200, "POST", "/projects/"+p.ref+"/sql", map[string]string{"sql": realmSQL}, nil)
	p.person, p.another = w.signUp(p, "ann@"+name+".example"), w.signUp(p, "bob@"+name+".example")
	w.rows(201, p, p.person.AccessToken, "POST", "notes", map[string]any{"body": name + " words", "tag": name + " tag"}, nil)
	w.rows(201, p, p.secret, "POST", "closed", map[string]any{"id": 1, "body": name + " closed"}, nil)
	return p
}

func (w *realm) signUp(p *place, email string) (s signedIn) {
	w.t.Helper()
	w.auth(200, p, "", "POST", "signup", map[string]string{"email": email, "password": password}, &s)
	w.secrets.add(email, s.AccessToken, s.RefreshToken)
	return s
}

func (w *realm) signIn(p *place, email string) (s signedIn) {
	w.t.Helper()
	w.auth(200, p, "", "POST", "token?grant_type=password", map[string]string{"email": email, "password": password}, &s)
	w.secrets.add(s.AccessToken, s.RefreshToken)
	return s
}

// An answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// send sends one request. headers are pairs. A body that is not a string is sent as JSON.
func (w *realm) send(c *http.Client, method, url string, body any, headers ...string) answer {
	w.t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	default:
		text, err := json.Marshal(body)
		if err != nil {
			w.t.Fatal(err)
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, url, r)
	if err != nil {
		w.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i+1] != "" {
			req.Header.Add(headers[i], headers[i+1])
		}
	}
	resp, err := c.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, b}
}

func (w *realm) want(want int, a answer, what string, into any) answer {
	w.t.Helper()
	if a.status != want {
		w.t.Fatalf("%s: %d, want %d\n%s", what, a.status, want, a.body)
	}
	if into != nil {
		if err := json.Unmarshal(a.body, into); err != nil {
			w.t.Fatalf("%s: %v\n%s", what, err, a.body)
		}
	}
	return a
}

// manage is the operator at the console.
func (w *realm) manage(want int, method, path string, body, into any) answer {
	w.t.Helper()
	return w.want(want, w.send(w.console, method, "http://console/api/v1"+path, body), method+" "+path, into)
}

// auth speaks to a project's auth/v1 with its publishable key.
func (w *realm) auth(want int, p *place, token, method, path string, body, into any) answer {
	w.t.Helper()
	a := w.send(w.web, method, p.url+"/auth/v1/"+path, body, "apikey", p.public, "Authorization", bearerOf(token))
	return w.want(want, a, method+" "+path, into)
}

// rows speaks to a project's rest/v1. Without a token it is anonymous; the token may be the secret key.
func (w *realm) rows(want int, p *place, token, method, path string, body, into any, headers ...string) answer {
	w.t.Helper()
	key := p.public
	if strings.HasPrefix(token, "sb_") {
		key = token
	}
	headers = append([]string{"apikey", key, "Authorization", bearerOf(token)}, headers...)
	return w.want(want, w.send(w.web, method, p.url+"/rest/v1/"+path, body, headers...), method+" "+path, into)
}

func bearerOf(token string) string {
	if token == "" {
		return ""
	}
	return "Bearer " + token
}

// raw sends a request exactly as it is written, which a client of net/http would not, and closes the connection.
func (w *realm) raw(method, target string, headers []string, body string) answer {
	w.t.Helper()
	conn, err := tls.Dial("tcp", w.host, &tls.Config{RootCAs: w.pool, ServerName: "localhost"})
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", method, target)
	if !slices.ContainsFunc(headers, func(h string) bool { return strings.HasPrefix(h, "Host:") }) {
		b.WriteString("Host: " + w.host + "\r\n")
	}
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	if body != "" {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	b.WriteString("Connection: close\r\n\r\n" + body)
	if _, err := io.WriteString(conn, b.String()); err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, text}
}

// events returns what a tenant's log says from position first on, and the position after it. It leaves no event itself.
func (w *realm) events(tenant string, first uint64) (list []*audit.Record, next uint64) {
	w.t.Helper()
	id := storage.System
	if tenant != systemName {
		var err error
		if id, err = storage.ParseID(tenant); err != nil {
			w.t.Fatal(err)
		}
	}
	next = first
	by := storage.JobActor(id, storage.ID{}, "test")
	err := w.n.store.Events(context.Background(), by, storage.Intent{Action: "audit.index"}, first, func(at uint64, _ [32]byte, text []byte) bool {
		r, err := audit.Parse(text)
		if err != nil {
			w.t.Error(err)
			return false
		}
		list, next = append(list, r), at+1
		return true
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return list, next
}

// checkLog holds that the node logged nothing that somebody typed and no credential.
func (w *realm) checkLog() {
	text := w.log.text()
	if strings.Count(text, "msg=request") < 20 {
		w.t.Error("the log has hardly any requests: is it captured?")
	}
	words := append(w.secrets.all, canary, "@acme", "@"+canary, "words", " tag", "create table", "create policy", "sb_secret", "sb_publishable",
		"sb_operator", "eyJ", "Bearer ")
	for _, word := range words {
		at := strings.Index(text, word)
		if at < 0 {
			continue
		}
		line := text[strings.LastIndexByte(text[:at], '\n')+1:]
		line, _, _ = strings.Cut(line, "\n")
		w.t.Errorf("the log has %.12q… in: %s", word, line)
	}
}
