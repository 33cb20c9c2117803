package node

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"path/filepath"
	"regexp"
	"runtime"
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
	clock   atomic.Int64 // nanoseconds since 1970 at which the node's clock stands; 0: it runs
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
		Now: func() time.Time {
			if at := w.clock.Load(); at != 0 {
				return time.Unix(0, at)
			}
			return time.Now()
		},
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
	w.web = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.pool},
		MaxIdleConnsPerHost: 100}, Timeout: time.Minute}
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
	w.manage(201, "POST", "/tenants/"+o.name+"/projects",
		map[string]any{"name": name, "sign_up": true, "auto_confirm": true}, &made)
	p.id, p.ref, p.url = made.ID, made.Ref, w.n.ProjectURL(made.Ref)
	key := func(kind string) (id, value string) {
		var made struct {
			Key   struct{ ID string }
			Value string
		}
		w.manage(201, "POST", "/projects/"+p.ref+"/apikeys",
			map[string]string{"kind": kind, "name": name + " " + kind}, &made)
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
	w.rows(201, p, p.person.AccessToken, "POST", "notes",
		map[string]any{"body": name + " words", "tag": name + " tag"}, nil)
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
	words := append(w.secrets.all, canary, "@acme", "@"+canary, "words", " tag", "create table", "create policy",
		"sb_secret", "sb_publishable",
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

// TestApart holds that nothing of a project works in another, of the same tenant or not.
func TestApart(t *testing.T) {
	t.Parallel()
	w := newRealm(t)
	own, sibling, other := w.acme.projects[0], w.acme.projects[1], w.beta.projects[0]
	refresh := func(p *place, token string) answer {
		return w.send(w.web, "POST", p.url+"/auth/v1/token?grant_type=refresh_token",
			map[string]string{"refresh_token": token}, "apikey", p.public)
	}
	for _, p := range []*place{sibling, other} {
		a := w.want(400, refresh(p, own.person.RefreshToken), "a refresh token at another project", nil)
		if code(a) != "refresh_token_not_found" {
			t.Errorf("a refresh token at another project: %s", a.body)
		}
		if a := w.want(400, refresh(p, strings.Repeat("A", len(own.person.RefreshToken))), "no token", nil); code(a) != "refresh_token_not_found" {
			t.Errorf("a refresh token of nobody: %s", a.body)
		}
	}
	w.want(200, refresh(own, own.person.RefreshToken), "the token at home", &own.person)

	// One address in two tenants is two people.
	const address = "same@everywhere.example"
	w.secrets.add(address, "acme's own password", "beta's own password")
	var here, there signedIn
	w.auth(200, own, "", "POST", "signup", map[string]string{"email": address, "password": "acme's own password"},
		&here)
	w.auth(200, other, "", "POST", "signup", map[string]string{"email": address, "password": "beta's own password"},
		&there)
	if here.User.ID == there.User.ID {
		t.Error("the same address in two tenants is one account")
	}
	wrong := w.auth(400, own, "", "POST", "token?grant_type=password",
		map[string]string{"email": address, "password": "beta's own password"}, nil)
	unknown := w.auth(400, own, "", "POST", "token?grant_type=password",
		map[string]string{"email": "nobody@acme.example", "password": "beta's own password"}, nil)
	away := w.auth(400, sibling, "", "POST", "token?grant_type=password",
		map[string]string{"email": address, "password": "acme's own password"}, nil)
	same(t, "a wrong password, an unknown address, an account of another project", wrong, unknown, away)

	// What a person stores in one project is in no other, whoever asks.
	var rows []map[string]any
	w.rows(201, own, here.AccessToken, "POST", "notes",
		map[string]any{"id": "11111111-1111-4111-8111-111111111111", "body": "of acme", "tag": "taken"}, nil)
	for _, p := range []*place{sibling, other} {
		for _, token := range []string{p.person.AccessToken, p.secret} {
			w.rows(200, p, token, "GET", "notes?or=(id.eq.11111111-1111-4111-8111-111111111111,tag.eq.taken)", nil,
				&rows)
			if len(rows) != 0 {
				t.Errorf("another project reads %v", rows)
			}
		}
		// The same key values are free there.
		w.rows(201, p, p.person.AccessToken, "POST", "notes",
			map[string]any{"id": "11111111-1111-4111-8111-111111111111", "body": "other words", "tag": "taken"}, nil)
		w.rows(204, p, p.secret, "DELETE", "notes?tag=eq.taken", nil, nil)
	}
	w.rows(200, own, here.AccessToken, "GET", "notes?tag=eq.taken&select=body", nil, &rows)
	if len(rows) != 1 || rows[0]["body"] != "of acme" {
		t.Errorf("after others deleted theirs the row is %v", rows)
	}
}

func code(a answer) string {
	var e struct{ Code any }
	if json.Unmarshal(a.body, &e) != nil {
		return ""
	}
	return fmt.Sprint(e.Code)
}

var changing = regexp.MustCompile(`"error_id":"[^"]*"`)

// same holds that nobody can tell answers apart.
func same(t *testing.T, what string, answers ...answer) {
	t.Helper()
	first := answers[0]
	for _, a := range answers[1:] {
		if a.status != first.status || changing.ReplaceAllString(string(a.body), "") != changing.ReplaceAllString(string(first.body), "") {
			t.Errorf("%s: the answers differ: %d %s and %d %s", what, first.status, first.body, a.status, a.body)
		}
		for name := range a.header {
			if name != "X-Request-Id" && name != "Date" && a.header.Get(name) != first.header.Get(name) {
				t.Errorf("%s: the header %s differs: %q and %q", what, name, first.header.Get(name), a.header.Get(name))
			}
		}
	}
}

// TestDeleted holds that what was of a deleted project or tenant is dead at once, and stays so when one of the same name is
// made.
func TestDeleted(t *testing.T) {
	t.Parallel()
	w := newRealm(t)
	dead := func(p *place, at string) {
		t.Helper()
		for _, c := range []struct{ method, path, key, token, body string }{
			{"GET", "/rest/v1/notes", p.public, "", ""},
			{"GET", "/rest/v1/notes", p.secret, "", ""},
			{"GET", "/rest/v1/notes", p.public, p.person.AccessToken, ""},
			{"POST", "/rest/v1/notes", p.secret, "", `{"body":"late words"}`},
			{"GET", "/auth/v1/user", p.public, p.person.AccessToken, ""},
			{"GET", "/auth/v1/settings", p.public, "", ""},
			{"POST", "/auth/v1/signup", p.public, "", `{"email":"late@acme.example","password":"` + password + `"}`},
			{"POST", "/auth/v1/token?grant_type=refresh_token", p.public, "",
				`{"refresh_token":"` + p.person.RefreshToken + `"}`},
			{"POST", "/auth/v1/token?grant_type=password", p.public, "",
				`{"email":"ann@` + p.org.name + `-0.example","password":"` + password + `"}`},
			{"POST", "/auth/v1/logout", p.public, p.person.AccessToken, ""},
		} {
			var body any
			if c.body != "" {
				body = c.body
			}
			a := w.send(w.web, c.method, at+c.path, body, "apikey", c.key, "Authorization", bearerOf(c.token))
			if a.status != 401 && a.status != 404 {
				t.Errorf("%s %s of a deleted project: %d %s", c.method, c.path, a.status, a.body)
			}
		}
	}
	gone := func(p *place) {
		t.Helper()
		dead(p, p.url)
		for _, path := range []string{"/auth/v1/health", "/auth/v1/.well-known/jwks.json"} {
			if a := w.send(w.web, "GET", p.url+path, nil); a.status != 404 {
				t.Errorf("%s of a deleted project: %d %s", path, a.status, a.body)
			}
		}
		for _, path := range []string{"/apikeys", "/sql"} {
			w.manage(404, "GET", "/projects/"+p.ref+path, nil, nil)
		}
	}
	// What a deletion leaves is what nobody can open: the keys are gone with it, and so is what they opened.
	left := func(tenant, project string) int {
		t.Helper()
		snap, err := w.n.cluster.Local()
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Release()
		of, err := storage.ParseID(tenant)
		if err != nil {
			t.Fatal(err)
		}
		id, err := storage.ParseID(project)
		if err != nil {
			t.Fatal(err)
		}
		keys, _, err := snap.Wrapped(of, id)
		if err != nil {
			t.Fatal(err)
		}
		spaces, err := snap.Spaces(of, id)
		if err != nil {
			t.Fatal(err)
		}
		return len(keys) + len(spaces)
	}
	old, alive := w.acme.projects[1], w.acme.projects[0]
	if left(w.acme.id, old.id) == 0 {
		t.Error("a living project has neither keys nor tables")
	}
	w.manage(204, "DELETE", "/projects/"+old.ref, nil, nil)
	if n := left(w.acme.id, old.id); n != 0 {
		t.Errorf("a deleted project left %d keys and tables", n)
	}
	gone(old)
	w.rows(200, alive, alive.person.AccessToken, "GET", "notes", nil, nil)
	var made struct{ Ref string }
	w.manage(201, "POST", "/tenants/acme/projects",
		map[string]any{"name": "acme-1", "sign_up": true, "auto_confirm": true}, &made)
	if made.Ref == old.ref {
		t.Error("a ref was used twice")
	}
	gone(old)
	dead(old, w.n.ProjectURL(made.Ref))
	// People of the tenant remain, and are assigned to what they were assigned to: nobody is to the new project.
	reborn := &place{org: w.acme, ref: made.Ref, url: w.n.ProjectURL(made.Ref)}
	var key struct{ Value string }
	w.manage(201, "POST", "/projects/"+made.Ref+"/apikeys", map[string]string{"kind": "publishable", "name": "new"},
		&key)
	reborn.public = key.Value
	w.auth(400, reborn, "", "POST", "token?grant_type=password",
		map[string]string{"email": "ann@acme-1.example", "password": password}, nil)
	w.auth(400, reborn, "", "POST", "token?grant_type=refresh_token",
		map[string]string{"refresh_token": old.person.RefreshToken}, nil)
	w.auth(403, reborn, old.person.AccessToken, "GET", "user", nil, nil)

	gone2 := w.beta
	w.manage(204, "DELETE", "/tenants/"+gone2.name+"?confirm="+gone2.name, nil, nil)
	check := func() {
		t.Helper()
		for _, p := range gone2.projects {
			gone(p)
			if n := left(gone2.id, p.id); n != 0 {
				t.Errorf("a project of a deleted tenant left %d keys and tables", n)
			}
		}
		w.manage(404, "POST", "/tenants/"+gone2.id+"/audit/search", map[string]any{}, nil)
		w.manage(404, "GET", "/tenants/"+gone2.id+"/audit/checkpoint", nil, nil)
		w.manage(404, "GET", "/tenants/"+gone2.id+"/projects", nil, nil)
	}
	check()
	again := w.newOrg(canary)
	check()
	if again.id == gone2.id {
		t.Error("a tenant's id was used twice")
	}
	dead(gone2.projects[0], again.projects[0].url)
	w.rows(200, alive, alive.person.AccessToken, "GET", "notes", nil, nil)
}

// forge makes a token of a header and a payload, signed by sign.
func forge(header, payload string, sign func(signed string) []byte) string {
	b := base64.RawURLEncoding
	signed := b.EncodeToString([]byte(header)) + "." + b.EncodeToString([]byte(payload))
	return signed + "." + b.EncodeToString(sign(signed))
}

func es256(key *ecdsa.PrivateKey) func(string) []byte {
	return func(signed string) []byte {
		sum := sha256.Sum256([]byte(signed))
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			panic(err)
		}
		out := make([]byte, 64)
		r.FillBytes(out[:32])
		s.FillBytes(out[32:])
		return out
	}
}

func hs256(key []byte) func(string) []byte {
	return func(signed string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(signed))
		return h.Sum(nil)
	}
}

func part(t *testing.T, token string, i int) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[i])
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestForgedTokens presents access tokens that the project did not sign.
func TestForgedTokens(t *testing.T) {
	t.Parallel()
	w := newRealm(t)
	p := w.acme.projects[0]
	token := p.person.AccessToken
	header, payload := part(t, token, 0), part(t, token, 1)
	w.secrets.add(strings.Split(token, ".")...)

	var fetched atomic.Int64
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	var jwks struct{ Keys []map[string]any }
	w.auth(200, p, "", "GET", ".well-known/jwks.json", nil, &jwks)
	if _, private := jwks.Keys[0]["d"]; private || len(jwks.Keys) != 1 {
		t.Errorf("the public keys are %v", jwks)
	}
	kid := fmt.Sprint(jwks.Keys[0]["kid"])
	mine, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := mine.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	jwk := fmt.Sprintf(`{"kty":"EC","crv":"P-256","kid":%q,"x":%q,"y":%q}`, kid, b64(raw[1:33]), b64(raw[33:]))
	srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		fetched.Add(1)
		_, _ = io.WriteString(rw, `{"keys":[`+jwk+`]}`)
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	url := "http://" + l.Addr().String() + "/jwks.json"

	public, err := json.Marshal(jwks.Keys[0])
	if err != nil {
		t.Fatal(err)
	}
	x, _ := base64.RawURLEncoding.DecodeString(fmt.Sprint(jwks.Keys[0]["x"]))
	y, _ := base64.RawURLEncoding.DecodeString(fmt.Sprint(jwks.Keys[0]["y"]))
	point := append(append([]byte{4}, x...), y...)
	theirs, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(theirs)
	if err != nil {
		t.Fatal(err)
	}
	pemText := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})

	none := func(string) []byte { return nil }
	bad := map[string]string{
		"of nothing": "..",
		"in JSON": `{"payload":"` + strings.Split(token,
			".")[1] + `","protected":"` + strings.Split(token, ".")[0] + `","signature":"` + strings.Split(token,
			".")[2] + `"}`,
		"with a signature of zeros": forge(header, payload, func(string) []byte { return make([]byte, 64) }),
		"with no signature":         forge(header, payload, none),
		"with an empty signature":   strings.TrimSuffix(forge(header, payload, none), "."),
		"as service_role": forge(header,
			strings.Replace(payload, `"role":"authenticated"`, `"role":"service_role"`, 1),
			func(string) []byte { return nil }),
		"under my key and their kid": forge(header, payload, es256(mine)),
		"of the other person, signed as mine": strings.Split(token,
			".")[0] + "." + strings.Split(p.another.AccessToken, ".")[1] + "." +
			strings.Split(token, ".")[2],
		"of another project": w.acme.projects[1].person.AccessToken,
		"of another tenant":  w.beta.projects[0].person.AccessToken,
		"with the header of another project": strings.Split(w.acme.projects[1].person.AccessToken,
			".")[0] + token[strings.IndexByte(token, '.'):],
		"the refresh token":     p.person.RefreshToken,
		"twice":                 token + "." + token,
		"with a list of tokens": token + "," + token,
	}
	for _, alg := range []string{"none", "None", "NONE", "nOnE", ""} {
		for _, sign := range []func(string) []byte{none, func(string) []byte { return []byte("x") }} {
			bad["alg "+alg+fmt.Sprint(len(sign("")))] = forge(fmt.Sprintf(`{"alg":%q,"typ":"JWT","kid":%q}`, alg,
				kid), payload, sign)
		}
	}
	for name, key := range map[string][]byte{"its JWK": public, "its point": point, "its x": x, "its DER": der, "its PEM": pemText, "its trimmed PEM": bytes.TrimSpace(pemText),
		"nothing": {}, "its kid": []byte(kid), "the publishable key": []byte(p.public)} {
		bad["HS256 with "+name] = forge(fmt.Sprintf(`{"alg":"HS256","typ":"JWT","kid":%q}`, kid), payload, hs256(key))
	}
	for name, h := range map[string]string{
		"jwk":            `{"alg":"ES256","typ":"JWT","jwk":` + jwk + `}`,
		"jwk and kid":    `{"alg":"ES256","typ":"JWT","kid":"` + kid + `","jwk":` + jwk + `}`,
		"jku":            `{"alg":"ES256","typ":"JWT","kid":"` + kid + `","jku":"` + url + `"}`,
		"x5u":            `{"alg":"ES256","typ":"JWT","kid":"` + kid + `","x5u":"` + url + `"}`,
		"kid as a URL":   `{"alg":"ES256","typ":"JWT","kid":"` + url + `"}`,
		"kid as a path":  `{"alg":"ES256","typ":"JWT","kid":"../../../../dev/null"}`,
		"kid as SQL":     `{"alg":"ES256","typ":"JWT","kid":"x' or 1=1--"}`,
		"no kid":         `{"alg":"ES256","typ":"JWT"}`,
		"a null kid":     `{"alg":"ES256","typ":"JWT","kid":null}`,
		"a list of kids": `{"alg":"ES256","typ":"JWT","kid":["` + kid + `"]}`,
		"two algs":       `{"alg":"none","alg":"ES256","typ":"JWT","kid":"` + kid + `"}`,
		"crit":           `{"alg":"ES256","typ":"JWT","kid":"` + kid + `","crit":["x"],"x":1}`,
		"no encoding":    `{"alg":"ES256","typ":"JWT","kid":"` + kid + `","b64":false,"crit":["b64"]}`,
		"ES384":          `{"alg":"ES384","typ":"JWT","kid":"` + kid + `"}`,
		"RS256":          `{"alg":"RS256","typ":"JWT","kid":"` + kid + `"}`,
		"no JSON":        `{`,
	} {
		bad["header with "+name] = forge(h, payload, es256(mine))
	}
	for i := 1; i < 90; i++ {
		bad[fmt.Sprint("cut by ", i)] = token[:len(token)-i]
	}
	for _, more := range []string{"A", "AA", "AAAA", "=", "==", ".", " x", "%00", "\t"} {
		bad["extended by "+more] = token + more
	}
	delete(bad, "extended by \t") // blanks around a header's value are no part of it
	for name, forged := range bad {
		for path, want := range map[string]int{"/auth/v1/user": 403, "/rest/v1/notes": 401} {
			a := w.send(w.web, "GET", p.url+path, nil, "apikey", p.public, "Authorization", "Bearer "+forged)
			if a.status != want {
				t.Errorf("GET %s with a token %s: %d, want %d\n%s", path, name, a.status, want, a.body)
			}
			if strings.Contains(string(a.body), "words") || strings.Contains(string(a.body), "@acme") || len(forged) > 20 && strings.Contains(string(a.body), forged) {
				t.Errorf("GET %s with a token %s answers %s", path, name, a.body)
			}
		}
	}
	if fetched.Load() != 0 {
		t.Errorf("the node fetched a key from where a token said, %d times", fetched.Load())
	}
	// A token counts in its header only.
	for _, query := range []string{"access_token=", "token=", "jwt=", "authorization=Bearer%20", "Authorization="} {
		if a := w.send(w.web, "GET", p.url+"/auth/v1/user?"+query+token, nil, "apikey", p.public); a.status != 401 {
			t.Errorf("a token in the query as %s: %d %s", query, a.status, a.body)
		}
	}
	w.auth(200, p, token, "GET", "user", nil, nil)
}

// TestRefreshTokens holds that each character of a refresh token counts, that many at once take one step, and that an old
// one ends the session.
func TestRefreshTokens(t *testing.T) {
	t.Parallel()
	w := newRealm(t)
	p := w.acme.projects[0]
	refresh := func(token string) answer {
		return w.send(w.web, "POST", p.url+"/auth/v1/token?grant_type=refresh_token",
			map[string]string{"refresh_token": token}, "apikey", p.public)
	}
	token := p.person.RefreshToken
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for i := range token {
		for _, c := range alphabet {
			if changed := token[:i] + string(c) + token[i+1:]; changed != token {
				if a := refresh(changed); a.status != 400 || code(a) != "refresh_token_not_found" {
					t.Fatalf("with character %d changed: %d %s", i, a.status, a.body)
				}
			}
		}
	}
	for _, changed := range []string{token + "A", token + "=", token[1:], token[:len(token)-1], " " + token, token + "\n", token + "\x00", strings.ToLower(token), token + token, "\u200b" + token} {
		if a := refresh(changed); a.status != 400 {
			t.Errorf("a changed token: %d %s", a.status, a.body)
		}
	}

	_, mark := w.events(w.acme.id, 0)
	var all sync.WaitGroup
	answers := make([]answer, 50)
	for i := range answers {
		all.Go(func() { answers[i] = refresh(token) })
	}
	all.Wait()
	next := map[string]bool{}
	for _, a := range answers {
		var s signedIn
		w.want(200, a, "refreshing at once", &s)
		w.secrets.add(s.AccessToken, s.RefreshToken)
		next[s.RefreshToken] = true
	}
	if len(next) != 1 || next[token] {
		t.Errorf("fifty refreshes at once gave %d new tokens", len(next))
	}
	list, mark := w.events(w.acme.id, mark)
	steps, again := 0, 0
	for _, e := range list {
		switch {
		case e.Action != "session.refresh" || e.Actor.Kind != "anonymous":
		case e.Notes["again"] == true:
			again++
		default:
			steps++
		}
	}
	if steps != 1 || again != 49 {
		t.Errorf("fifty refreshes at once left %d steps and %d repetitions in the log", steps, again)
	}

	// The last but one may be lost on its way and is good for ever; one before that is somebody else's, ten seconds later.
	var second, third signedIn
	for now := range next {
		w.want(200, refresh(now), "the next step", &second)
	}
	w.want(200, refresh(second.RefreshToken), "the next step", &third)
	w.clock.Store(time.Now().Add(time.Minute).UnixNano())
	a := w.want(400, refresh(token), "an old token", nil)
	if code(a) != "refresh_token_already_used" {
		t.Errorf("an old token: %s", a.body)
	}
	w.want(400, refresh(third.RefreshToken), "the newest token after that", nil)
	w.auth(403, p, third.AccessToken, "GET", "user", nil, nil)
	list, _ = w.events(w.acme.id, mark)
	if !slices.ContainsFunc(list, func(e *audit.Record) bool {
		return e.Action == "session.reuse" && e.Outcome == "ok" && e.Notes["account"] == p.person.User.ID
	}) {
		t.Error("the reuse is in no event")
	}
}

// TestSessionsEnd holds that a session that ended is dead with the answer that says so.
func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	w := newRealm(t)
	p := w.acme.projects[0]
	alive := func(s signedIn, want bool, what string) {
		t.Helper()
		user, rows, refreshed := 200, 200, 200
		if !want {
			user, rows, refreshed = 403, 401, 400
		}
		w.auth(user, p, s.AccessToken, "GET", "user", nil, nil)
		w.rows(rows, p, s.AccessToken, "GET", "notes", nil, nil)
		if !want {
			w.rows(401, p, s.AccessToken, "POST", "notes", map[string]string{"body": "late words"}, nil)
			w.auth(refreshed, p, "", "POST", "token?grant_type=refresh_token",
				map[string]string{"refresh_token": s.RefreshToken}, nil)
			w.auth(403, p, s.AccessToken, "POST", "logout", map[string]string{}, nil)
		}
	}
	session := func() signedIn { return w.signIn(p, "ann@acme-0.example") }
	a, b, c := session(), session(), session()
	w.auth(204, p, a.AccessToken, "POST", "logout?scope=local", map[string]string{}, nil)
	alive(a, false, "ended by itself")
	alive(b, true, "another one")
	w.auth(204, p, b.AccessToken, "POST", "logout?scope=others", map[string]string{}, nil)
	alive(c, false, "ended by another")
	alive(b, true, "the one that ended the others")
	w.auth(400, p, b.AccessToken, "POST", "logout?scope=everybody", map[string]string{}, nil)
	c = session()
	const changed = "an entirely new password"
	w.secrets.add(changed)
	w.auth(400, p, b.AccessToken, "PUT", "user", map[string]string{"password": changed,
		"current_password": "not it at all"}, nil)
	alive(c, true, "after a refused change")
	w.auth(200, p, b.AccessToken, "PUT", "user", map[string]string{"password": changed}, nil)
	alive(c, false, "ended by a new password")
	alive(b, true, "the one that changed the password")
	w.auth(400, p, "", "POST", "token?grant_type=password",
		map[string]string{"email": "ann@acme-0.example", "password": password}, nil)
	w.auth(204, p, b.AccessToken, "POST", "logout", map[string]string{}, nil)
	alive(b, false, "ended by the global one")
	alive(p.another, true, "of another person")

	// A person cannot change what the server says about them.
	w.auth(200, p, p.another.AccessToken, "PUT", "user", map[string]any{
		"data": map[string]any{"role": "owner"}, "role": "service_role",
		"app_metadata": map[string]any{"role": "owner", "level": 100},
		"id":           a.User.ID, "email_confirmed_at": "2020-01-01T00:00:00Z",
	}, nil)
	var me struct {
		ID, Role    string
		AppMetadata struct {
			Role  string
			Level int
		} `json:"app_metadata"`
	}
	w.auth(200, p, p.another.AccessToken, "GET", "user", nil, &me)
	if me.ID != p.another.User.ID || me.Role != "authenticated" || me.AppMetadata.Role != "user" || me.AppMetadata.Level != 40 {
		t.Errorf("a person made themselves %+v", me)
	}
	w.auth(400, p, p.another.AccessToken, "PUT", "user", map[string]string{"email": "ann@acme-0.example"}, nil)

	// The clock: a token is good until its time and not from it on.
	var claims struct{ Exp int64 }
	if err := json.Unmarshal([]byte(part(t, p.another.AccessToken, 1)), &claims); err != nil {
		t.Fatal(err)
	}
	exp := time.Unix(claims.Exp, 0)
	for at, want := range map[time.Time]int{exp.Add(-time.Second): 200, exp.Add(-1): 200, exp: 403, exp.Add(1): 403, exp.Add(time.Second): 403, exp.Add(24 * time.Hour): 403} {
		w.clock.Store(at.UnixNano())
		w.auth(want, p, p.another.AccessToken, "GET", "user", nil, nil)
	}
	w.clock.Store(exp.Add(time.Second).UnixNano())
	w.rows(401, p, p.another.AccessToken, "GET", "notes", nil, nil)
}

// TestEnumeration holds that nobody learns by signing up or in which addresses have an account.
func TestEnumeration(t *testing.T) {
	t.Parallel()
	w := newRealm(t)
	p := w.acme.projects[0]
	const known, unknown = "ann@acme-0.example", "nobody@acme-0.example"
	w.secrets.add(unknown, "another password")
	runs := func(fn func() answer) (answer, uint64) {
		before := w.n.parts.sessions.Hasher.Runs()
		a := fn()
		return a, w.n.parts.sessions.Hasher.Runs() - before
	}
	try := func(path, email, pass string) func() answer {
		return func() answer {
			return w.send(w.web, "POST", p.url+"/auth/v1/"+path, map[string]string{"email": email, "password": pass},
				"apikey", p.public)
		}
	}
	pair := func(what, path string, want int, cost uint64) (answer, answer) {
		t.Helper()
		a, n := runs(try(path, known, "another password"))
		b, m := runs(try(path, unknown, "another password"))
		if n != m || n != cost {
			t.Errorf("%s: bcrypt ran %d and %d times, want %d", what, n, m, cost)
		}
		if a.status != want || b.status != want {
			t.Errorf("%s: %d %s and %d %s", what, a.status, a.body, b.status, b.body)
		}
		return a, b
	}
	a, b := pair("signing in", "token?grant_type=password", 400, 1)
	same(t, "signing in", a, b)
	w.manage(200, "PUT", "/projects/"+p.ref+"/settings", map[string]bool{"sign_up": false, "auto_confirm": true}, nil)
	a, b = pair("signing up where that is closed", "signup", 422, 0)
	same(t, "signing up where that is closed", a, b)
	w.manage(200, "PUT", "/projects/"+p.ref+"/settings", map[string]bool{"sign_up": true, "auto_confirm": false}, nil)
	a, b = pair("signing up where addresses are confirmed", "signup", 200, 1)
	var first, second map[string]any
	w.want(200, a, "", &first)
	w.want(200, b, "", &second)
	for _, name := range slices.Concat(slices.Collect(maps.Keys(first)), slices.Collect(maps.Keys(second))) {
		switch name {
		case "id", "email", "created_at", "updated_at", "identities": // as the protocol has it, identities are empty
			continue
		}
		if fmt.Sprint(first[name]) != fmt.Sprint(second[name]) {
			t.Errorf("signing up with a taken address says %s %v, with a free one %v", name, first[name], second[name])
		}
	}
	if first["id"] == p.person.User.ID {
		t.Error("signing up with a taken address tells whose it is")
	}
	// Nobody gets in by that, and the password is the old one.
	w.auth(400, p, "", "POST", "token?grant_type=password",
		map[string]string{"email": known, "password": "another password"}, nil)
	w.signIn(p, known)

	w.manage(200, "PUT", "/projects/"+p.ref+"/settings", map[string]bool{"sign_up": true, "auto_confirm": true}, nil)
	w.secrets.add("many@acme-0.example")
	var all sync.WaitGroup
	answers := make([]answer, 20)
	for i := range answers {
		all.Go(func() {
			answers[i] = w.send(w.web, "POST", p.url+"/auth/v1/signup",
				map[string]string{"email": "Many@acme-0.example", "password": password}, "apikey", p.public)
		})
	}
	all.Wait()
	made := 0
	for _, a := range answers {
		switch a.status {
		case 200:
			made++
		case 422:
		default:
			t.Errorf("signing up at once: %d %s", a.status, a.body)
		}
	}
	if made != 1 {
		t.Errorf("one address signed up %d times", made)
	}
}

// TestHeaders holds what doubled and forged headers do: nothing.
func TestHeaders(t *testing.T) {
	t.Parallel()
	w := newRealm(t)
	p := w.acme.projects[0]
	path := "/p/" + p.ref + "/rest/v1/closed"
	for name, headers := range map[string][]string{
		"the key twice":        {"apikey: " + p.public, "apikey: " + p.secret},
		"the key twice in one": {"apikey: " + p.public + ", " + p.secret},
		"the secret key as bearer": {"apikey: " + p.public,
			"Authorization: Bearer " + p.secret},
		"two bearers": {"apikey: " + p.public,
			"Authorization: Bearer " + p.person.AccessToken, "Authorization: Bearer " + p.secret},
		"garbage, then a token": {"apikey: " + p.public, "Authorization: Bearer garbage",
			"Authorization: Bearer " + p.person.AccessToken},
		"a secret key from a browser": {"apikey: " + p.secret, "User-Agent: Mozilla/5.0"},
		"a role in a header": {"apikey: " + p.public, "X-Role: service_role",
			"Role: service_role", "X-Client-Role: service_role", "X-User-Id: " + p.person.User.ID},
		"claims in a header": {"apikey: " + p.public,
			`Request.jwt.claims: {"role":"service_role"}`, "X-Hasura-Role: admin"},
		"another schema": {"apikey: " + p.secret, "Accept-Profile: auth"},
		"another project as the host": {"apikey: " + w.acme.projects[1].secret,
			"Host: " + p.ref + ".localhost"},
		"a path for a proxy": {"apikey: " + p.public,
			"X-Original-Url: /api/v1/tenants", "X-Rewrite-Url: /api/v1/tenants", "X-Forwarded-Prefix: /api"},
		"a method for a proxy": {"apikey: " + p.public, "X-Http-Method-Override: DELETE",
			"X-Method-Override: DELETE"},
		"the secret key behind the public one in the query": {"apikey: " + p.public},
	} {
		target := path
		if strings.Contains(name, "query") {
			target += "?apikey=" + p.secret
		}
		a := w.raw("GET", target, headers, "")
		if a.status != 401 && a.status != 403 && a.status != 406 || strings.Contains(string(a.body), "words") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	// Who asks is who the socket says, and where the node is, is what its configuration says.
	_, mark := w.events(w.acme.id, 0)
	a := w.raw("POST", "/p/"+p.ref+"/auth/v1/token?grant_type=password", []string{
		"apikey: " + p.public, "Host: evil.example", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Host: evil.example",
		"X-Forwarded-Proto: http",
		"Forwarded: for=203.0.113.9;host=evil.example", "X-Real-Ip: 203.0.113.9", "True-Client-Ip: 203.0.113.9",
		"X-Request-Id: chosen", "User-Agent: \xff\xfe\"",
	}, `{"email":"ann@acme-0.example","password":"`+password+`"}`)
	var s signedIn
	w.want(200, a, "signing in with forged headers", &s)
	w.secrets.add(s.AccessToken, s.RefreshToken)
	if claims := part(t, s.AccessToken, 1); !strings.Contains(claims, `"iss":"`+p.url+`/auth/v1"`) || strings.Contains(claims, "evil") {
		t.Errorf("the token says %s", claims)
	}
	list, _ := w.events(w.acme.id, mark)
	i := slices.IndexFunc(list, func(e *audit.Record) bool { return e.Action == "session.create" })
	if i < 0 || !list[i].Actor.Addr.IsLoopback() || list[i].Request != a.header.Get("X-Request-Id") || list[i].Request == "chosen" {
		t.Errorf("the event of signing in is %+v", list)
	}
	for name, values := range a.header {
		if strings.Contains(fmt.Sprint(values), "evil") {
			t.Errorf("the header %s of an answer is %q", name, values)
		}
	}
	// Two lengths, or a length and chunks, are how a proxy and a server come to disagree about where a request ends.
	for name, headers := range map[string][]string{
		"two lengths":         {"Content-Length: 2", "Content-Length: 3"},
		"a length and chunks": {"Content-Length: 2", "Transfer-Encoding: chunked"},
		"odd chunks":          {"Transfer-Encoding: xchunked"},
		"two hosts":           {"Host: localhost", "Host: evil.example"},
		"a folded header":     {"apikey: " + p.public, " more"},
		"a blank in a name":   {"apikey : " + p.public},
	} {
		if a := w.raw("POST", path, headers, ""); a.status != 400 && a.status != 501 && a.status != 401 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

// TestRowPolicies goes at rows that belong to another person through everything that the surface takes.
func TestRowPolicies(t *testing.T) {
	t.Parallel()
	w := newRealm(t)
	p := w.acme.projects[0]
	ann, bob := p.person.AccessToken, p.another.AccessToken
	w.rows(204, p, p.secret, "DELETE", "notes", nil, nil)
	const hidden, own = "22222222-2222-4222-8222-222222222222", "33333333-3333-4333-8333-333333333333"
	w.rows(201, p, ann, "POST", "notes", map[string]any{"id": hidden, "body": "hidden words", "n": 4242, "small": 7,
		"score": 1.5, "day": "2020-02-02", "done": true, "tag": "hidden tag",
		"data": map[string]any{"a": "hidden words"}}, nil)
	w.rows(201, p, bob, "POST", "notes", map[string]any{"id": own, "body": "own", "n": 1, "tag": "own"}, nil)
	state := func() string {
		return string(w.rows(200, p, p.secret, "GET", "notes?order=id", nil, nil).body)
	}
	before := state()
	unchanged := func(what string) {
		t.Helper()
		if now := state(); now != before {
			t.Errorf("%s: the rows were %s and are %s", what, before, now)
			before = now
		}
	}
	tells := func(what string, a answer) {
		t.Helper()
		a.header.Del("X-Request-Id") // any digits
		if s := string(a.body) + fmt.Sprint(a.header); strings.Contains(s, "hidden") || strings.Contains(s, "4242") || strings.Contains(s, p.person.User.ID) {
			t.Errorf("%s tells of a hidden row: %d %s %v", what, a.status, a.body, a.header)
		}
		if a.status >= 500 || tellsTooMuch(a.body) {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}

	// Reading: what a filter, an order, a range or a count says of a hidden row is what it says of one that is not there.
	for _, c := range []struct{ with, without string }{
		{"id=eq." + hidden, "id=eq.99999999-2222-4222-8222-222222222222"},
		{"tag=eq.hidden%20tag", "tag=eq.no%20tag"}, {"n=eq.4242", "n=eq.4243"}, {"n=gt.100", "n=gt.100000"},
		{"body=like.hidden*", "body=like.nothing*"},
		{"body=ilike.*WORDS", "body=ilike.*nothing"}, {"data-%3E%3Ea=eq.hidden%20words", "data-%3E%3Ea=eq.x"},
		{"data=not.is.null", "data=not.is.null"},
		{"or=(n.eq.4242,body.eq.x)", "or=(n.eq.9,body.eq.x)"},
		{"not.and=(n.eq.1,body.eq.own)", "not.and=(n.eq.1,tag.eq.own)"},
		{"id=in.(" + hidden + ")", "id=in.(99999999-2222-4222-8222-222222222222)"}, {"done=is.true", "done=is.true"},
		{"user_id=neq." + p.another.User.ID, "day=is.null&n=eq.2"},
	} {
		for _, more := range []string{"", "&order=n.desc", "&order=body.asc.nullsfirst,id", "&limit=1", "&offset=0", "&select=count", "&limit=0"} {
			a := w.send(w.web, "GET", p.url+"/rest/v1/notes?"+c.with+more, nil, "apikey", p.public, "Authorization",
				"Bearer "+bob, "Prefer", "count=exact")
			b := w.send(w.web, "GET", p.url+"/rest/v1/notes?"+c.without+more, nil, "apikey", p.public,
				"Authorization", "Bearer "+bob, "Prefer", "count=exact")
			tells("reading "+c.with+more, a)
			same(t, "reading "+c.with+more, a, b)
		}
	}
	for _, bobs := range []string{"", "&order=n", "&order=n.desc&limit=5", "&offset=1", "&limit=1", "&select=id"} {
		a := w.send(w.web, "GET", p.url+"/rest/v1/notes?id=not.is.null"+bobs, nil, "apikey", p.public,
			"Authorization", "Bearer "+bob, "Prefer", "count=exact")
		tells("counting", a)
		if of := a.header.Get("Content-Range"); !strings.HasSuffix(of, "/1") {
			t.Errorf("bob's rows are counted as %s", of)
		}
	}
	a := w.rows(416, p, bob, "GET", "notes?offset=5", nil, nil, "Prefer", "count=exact")
	if !strings.Contains(string(a.body), "there are only 1 rows") {
		t.Errorf("a range beyond the end: %s", a.body)
	}
	for _, method := range []string{"HEAD", "GET"} {
		for _, kind := range []string{"exact", "planned", "estimated"} {
			a := w.send(w.web, method, p.url+"/rest/v1/notes", nil, "apikey", p.public, "Prefer", "count="+kind)
			if r := a.header.Get("Content-Range"); r != "*/0" {
				t.Errorf("anybody counts %s rows by %s", r, kind)
			}
		}
	}
	for _, prefer := range []string{"Accept", "Prefer"} {
		value := map[string]string{"Accept": "application/vnd.pgrst.object+json",
			"Prefer": "handling=strict,max-affected=0"}[prefer]
		for _, c := range []struct{ method, with, without string }{{"GET", "n=eq.4242", "n=eq.9"}, {"PATCH", "n=eq.4242", "n=eq.9"}, {"DELETE", "n=eq.4242", "n=eq.9"}} {
			var body any
			if c.method == "PATCH" {
				body = `{"body":"x"}`
			}
			headers := []string{"apikey", p.public, "Authorization", "Bearer " + bob, prefer, value, "Prefer",
				"return=representation"}
			same(t, c.method+" with "+value, w.send(w.web, c.method, p.url+"/rest/v1/notes?"+c.with, body,
				headers...), w.send(w.web, c.method, p.url+"/rest/v1/notes?"+c.without, body, headers...))
		}
	}

	// An error in a filter is the same whether a hidden row would meet it or not; operands of the wrong type are the client's.
	for _, f := range []string{"n=eq.abc", "n=eq.1.5", "n=eq.99999999999999999999", "id=eq.1", "day=eq.2020-13-45", "done=eq.perhaps", "score=eq.1e999", "n=like.1*", "data=eq.{", "n=in.(1,x)", "id=in.(,)",
		"data-%3Ea-%3Eb=eq.1", "nope=eq.1", "order=nope", "order=n.up", "select=nope", "select=*,nope",
		"select=user_id(email)", "select=auth.uid()", "select=n.sum()", "select=n::text", "select=count()",
		"limit=-1", "limit=x", "offset=-1", "limit=99999999999999999999", "offset=9223372036854775807",
		"offset=9223372036854775808", "columns=nope", "body=eq.%00", "body=eq.%ff", "%ff=eq.1", "%00=eq.1",
		"body=eq",
		"body=", "=eq.1", "and=(", "or=()", "or=(n.eq.1", "or=(n.eq.1))", "not=eq.1", "n=not.not.eq.1", "n=fts.x",
		"n=cs.{1}", "n=ov.(1,2)", "n=eq(any).{1,2", "body=like(all).{a*,b*}",
		"n=isdistinct.1", "a.b=eq.1", "notes.n=eq.1", "auth.uid()=eq.1", "n=eq.1;drop table notes", "n=eq.1'--",
		"n=eq.(select 1)", "on_conflict=id", "on_conflict=tag", "%", "a%zz=1",
		"order=data-%3E%3Ea", "order=(select tag)", "body=match.hid.*", "body=imatch.HID.*", "limit=1&limit=2",
		"select=n&select=body", "ctid=eq.1", "oid=eq.1", "xmin=eq.1", "tableoid=eq.1",
		"or=(" + strings.Repeat("and(", 60) + "n.eq.1" + strings.Repeat(")", 60) + ")", strings.Repeat("(", 3000),
		"data" + strings.Repeat("-%3Ea", 3000) + "=eq.1",
		"body=like." + strings.Repeat("%25a", 3000), "order=" + strings.Repeat("n,", 2000) + "n",
		"select=" + strings.Repeat("n,", 2000) + "n",
	} {
		for _, method := range []string{"GET", "PATCH", "DELETE"} {
			var body any
			if method == "PATCH" {
				body = `{"body":"own"}`
			}
			if method != "GET" && !strings.Contains(f, "eq.") {
				continue
			}
			f = strings.ReplaceAll(f, " ", "%20")
			a := w.send(w.web, method, p.url+"/rest/v1/notes?tag=eq.none&"+f, body, "apikey", p.public,
				"Authorization", "Bearer "+bob)
			tells(method+" "+f[:min(len(f), 60)], a)
		}
	}
	unchanged("odd filters")
	long := "id=in.(" + strings.Repeat(own+",", 700) + hidden + ")"
	var rows []map[string]any
	w.rows(200, p, bob, "GET", "notes?"+long, nil, &rows)
	if len(rows) != 1 {
		t.Errorf("a long list finds %v", rows)
	}
	w.rows(200, p, bob, "GET", "notes?n=in.("+strings.Repeat("4242,", 5000)+"4242)", nil, &rows)
	if len(rows) != 0 {
		t.Errorf("a long list finds %v", rows)
	}
	for _, r := range []string{"0-9223372036854775807", "0-0", "0-", "5-1", "-1", "a-b", "0-1,2-3", "items=0-0", "bytes=0-10", "9223372036854775807-"} {
		a := w.send(w.web, "GET", p.url+"/rest/v1/notes", nil, "apikey", p.public, "Authorization", "Bearer "+bob,
			"Range", r, "Prefer", "count=exact")
		tells("the range "+r, a)
		if r == "0-9223372036854775807" && !strings.Contains(string(a.body), own) {
			t.Errorf("the range %s gives %d %s", r, a.status, a.body)
		}
	}

	// Changing: hidden rows are not there.
	for _, f := range []string{"", "id=eq." + hidden, "n=eq.4242", "tag=eq.hidden%20tag", "n=gt.100", "id=in.(" + hidden + ")", "or=(n.eq.4242,tag.eq.none)"} {
		if f == "" {
			f = "n=neq.1"
		}
		for _, prefer := range []string{"", "return=representation", "return=headers-only", "count=exact", "tx=rollback,return=representation"} {
			for method, body := range map[string]any{"PATCH": map[string]any{"body": "overwritten"}, "DELETE": nil} {
				a := w.send(w.web, method, p.url+"/rest/v1/notes?"+f, body, "apikey", p.public, "Authorization",
					"Bearer "+bob, "Prefer", prefer)
				tells(method+" "+f+" with "+prefer, a)
				if a.status != 204 && string(a.body) != "[]" {
					t.Errorf("%s %s with %q: %d %s", method, f, prefer, a.status, a.body)
				}
				if r := a.header.Get("Content-Range"); strings.Contains(prefer, "count") && r != "*/0" {
					t.Errorf("%s %s counts %s", method, f, r)
				}
			}
		}
	}
	unchanged("changes of hidden rows")

	// What a row may become: nobody's but one's own, as a whole or not at all.
	refused := func(want int, what, method, path string, body any, prefer string) {
		t.Helper()
		a := w.send(w.web, method, p.url+"/rest/v1/"+path, body, "apikey", p.public, "Authorization", "Bearer "+bob,
			"Prefer", prefer)
		if a.status != want {
			t.Errorf("%s: %d, want %d\n%s", what, a.status, want, a.body)
		}
		if strings.Contains(string(a.body), "hidden words") || strings.Contains(string(a.body), "Key (") || a.status >= 500 {
			t.Errorf("%s tells %s", what, a.body)
		}
		unchanged(what)
	}
	mine, theirs := p.another.User.ID, p.person.User.ID
	refused(403, "a forged owner", "POST", "notes", map[string]any{"user_id": theirs, "body": "x"}, "")
	refused(403, "a forged owner, to be read", "POST", "notes", map[string]any{"user_id": theirs, "body": "x"},
		"return=representation")
	refused(403, "no owner", "POST", "notes", map[string]any{"user_id": nil, "body": "x"}, "")
	refused(403, "no owner in columns", "POST", "notes?columns=user_id,body", map[string]any{"body": "x"},
		"missing=null")
	refused(403, "a row given away", "PATCH", "notes?id=eq."+own, map[string]any{"user_id": theirs}, "")
	refused(403, "a row given away in columns", "PATCH", "notes?id=eq."+own+"&columns=user_id",
		map[string]any{"user_id": theirs, "body": "x"}, "")
	refused(403, "every row given away", "PATCH", "notes?n=gt.0", map[string]any{"user_id": theirs, "body": "x"},
		"return=representation")
	refused(403, "a bulk with one bad row", "POST", "notes",
		[]map[string]any{{"body": "a", "user_id": mine}, {"body": "b", "user_id": theirs}}, "")
	refused(409, "a bulk with one taken key", "POST", "notes",
		[]map[string]any{{"tag": "a"}, {"tag": "own"}, {"tag": "b"}}, "")
	refused(409, "a bulk with one key twice", "POST", "notes", []map[string]any{{"tag": "a"}, {"tag": "a"}},
		"return=representation")
	refused(409, "a key that a hidden row has", "POST", "notes", map[string]any{"tag": "hidden tag"},
		"return=representation")
	refused(409, "a key that a hidden row has, changed", "PATCH", "notes?id=eq."+own,
		map[string]any{"tag": "hidden tag"}, "")
	refused(409, "an id that a hidden row has", "POST", "notes", map[string]any{"id": hidden}, "")
	refused(400, "a bulk with one bad value", "POST", "notes", []map[string]any{{"n": 1}, {"n": "x"}}, "")
	refused(400, "a bulk of unlike rows", "POST", "notes", []map[string]any{{"n": 1}, {"body": "x"}}, "")
	for _, prefer := range []string{"resolution=merge-duplicates", "resolution=ignore-duplicates", "return=representation,resolution=merge-duplicates"} {
		refused(400, "an upsert by "+prefer, "POST", "notes", map[string]any{"id": hidden, "body": "overwritten"},
			prefer)
		refused(400, "an upsert by tag and "+prefer, "POST", "notes?on_conflict=tag",
			map[string]any{"tag": "hidden tag", "body": "overwritten"}, prefer)
	}
	refused(400, "an unknown column", "POST", "notes", map[string]any{"body": "x", "is_admin": true}, "")
	refused(400, "an unknown column in columns", "POST", "notes?columns=body,is_admin", map[string]any{"body": "x"}, "")
	refused(400, "an unknown column of a change", "PATCH", "notes?id=eq."+own, map[string]any{"is_admin": true}, "")
	refused(400, "a change of some rows only", "PATCH", "notes?limit=1", map[string]any{"body": "x"}, "")
	refused(400, "a removal of some rows only", "DELETE", "notes?limit=1&order=id", nil, "")
	for what, body := range map[string]string{
		"a number beyond int64":           `{"n":9223372036854775808}`,
		"a number beyond int64, negative": `{"n":-9223372036854775809}`, "a fraction": `{"n":1.5}`,
		"an exponent":              `{"n":1e400}`,
		"a number beyond smallint": `{"small":32768}`, "a float beyond its range": `{"score":1e999}`,
		"text as a number": `{"n":"1x"}`, "an array as a number": `{"n":[1]}`,
		"an object as a number": `{"n":{}}`, "a number as an id": `{"id":1}`, "an object as a date": `{"day":{}}`,
		"NUL in text": `{"body":"a\u0000b"}`, "NUL in JSON": `{"data":{"a":"\u0000"}}`,
		"NUL in a name of JSON": `{"data":{"\u0000":1}}`, "half a surrogate": `{"body":"\ud800"}`,
		"bytes that are not UTF-8": "{\"body\":\"\xff\xfe\"}", "a name that is not UTF-8": "{\"\xff\":1}",
		"a raw control character": "{\"body\":\"a\x01b\"}",
		"a name twice":            `{"body":"a","body":"b"}`, "a name twice, escaped": `{"body":"a","bod\u0079":"b"}`,
		"an owner twice":     `{"user_id":"` + mine + `","user_id":"` + theirs + `"}`,
		"more after the end": `{"body":"a"}{"body":"b"}`, "a comment": `{"body":"a"/**/}`,
		"a comma too many": `{"body":"a",}`, "NaN": `{"score":NaN}`, "half an object": `{"body":`,
		"nothing": ` `, "a string": `"x"`, "a number": `1`, "null": `null`, "a list of numbers": `[1,2]`,
		"a list of lists": `[[{"body":"x"}]]`, "a byte order mark": "\ufeff{\"body\":\"a\"}",
		"a deep value":                        `{"data":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`,
		"a deep, open value":                  strings.Repeat(`{"data":`, 100000),
		"more names than a table has columns": names(1601), "half a million names": names(500_000),
		"a long number": `{"n":` + strings.Repeat("9", 100000) + `}`,
	} {
		refused(400, what, "POST", "notes", body, "")
		refused(400, what+" in a change", "PATCH", "notes?id=eq."+own, body, "")
	}
	if a := w.send(w.web, "POST", p.url+"/rest/v1/notes", `body=x`, "apikey", p.public, "Authorization", "Bearer "+bob, "Content-Type", "text/csv"); a.status == 201 {
		t.Errorf("another type of body: %d %s", a.status, a.body)
	}
	unchanged("other bodies")

	// Policies by role and by claim.
	w.rows(201, p, p.secret, "POST", "board", []map[string]any{{"id": 1, "audience": "anon", "body": "for anybody"},
		{"id": 2, "audience": "authenticated", "body": "for people"},
		{"id": 3, "audience": "service_role", "body": "for servers"},
		{"id": 4, "audience": "bob@acme-0.example", "body": "for bob"}}, nil)
	for token, want := range map[string]string{"": "1", ann: "2", bob: "2,4", p.secret: "1,2,3,4"} {
		var got []struct{ ID int }
		w.rows(200, p, token, "GET", "board?select=id&order=id", nil, &got)
		var ids []string
		for _, r := range got {
			ids = append(ids, fmt.Sprint(r.ID))
		}
		if strings.Join(ids, ",") != want {
			t.Errorf("one reads %v of the board, want %s", ids, want)
		}
		if token != p.secret {
			a := w.send(w.web, "POST", p.url+"/rest/v1/board", `{"id":9,"body":"x"}`, "apikey", p.public,
				"Authorization", bearerOf(token))
			if a.status != 401 && a.status != 403 {
				t.Errorf("writing to the board: %d %s", a.status, a.body)
			}
		}
	}
	// A person may claim whatever they like about themselves, and no policy hears of it but in user_metadata.
	w.auth(200, p, ann, "PUT", "user", map[string]any{"data": map[string]any{"email": "bob@acme-0.example",
		"role": "service_role", "sub": mine}}, nil)
	liar := w.signIn(p, "ann@acme-0.example").AccessToken
	w.rows(200, p, liar, "GET", "board?id=in.(3,4)", nil, &rows)
	if len(rows) != 0 {
		t.Errorf("metadata opens %v", rows)
	}
	w.rows(200, p, liar, "GET", "notes?id=eq."+own, nil, &rows)
	if len(rows) != 0 {
		t.Errorf("metadata opens %v", rows)
	}

	// A table to put in only: what is put in cannot be had back, nor found out.
	w.rows(201, p, "", "POST", "dropbox", map[string]any{"id": 1, "body": "hidden words"}, nil)
	for _, prefer := range []string{"return=representation", "return=headers-only"} {
		a := w.send(w.web, "POST", p.url+"/rest/v1/dropbox", `{"id":2,"body":"x"}`, "apikey", p.public, "Prefer",
			prefer)
		if a.status != 401 {
			t.Errorf("putting in with %s: %d %s %v", prefer, a.status, a.body, a.header)
		}
	}
	for method, body := range map[string]any{"GET": nil, "PATCH": `{"body":"y"}`, "DELETE": nil} {
		a := w.send(w.web, method, p.url+"/rest/v1/dropbox?id=eq.1", body, "apikey", p.public, "Prefer",
			"return=representation,count=exact")
		if string(a.body) != "[]" || !strings.HasSuffix(a.header.Get("Content-Range"), "*/0") {
			t.Errorf("%s of what was put in: %d %s %v", method, a.status, a.body, a.header)
		}
	}
	// Without policies only a secret key gets in.
	for _, token := range []string{"", ann} {
		for method, body := range map[string]any{"GET": nil, "HEAD": nil, "POST": `{"id":5}`, "PATCH": `{"body":"x"}`, "DELETE": nil} {
			a := w.send(w.web, method, p.url+"/rest/v1/closed?id=eq.1", body, "apikey", p.public, "Authorization",
				bearerOf(token))
			if want := map[bool]int{true: 401, false: 403}[token == ""]; a.status != want || strings.Contains(string(a.body), "words") {
				t.Errorf("%s of a table without policies: %d %s", method, a.status, a.body)
			}
		}
	}
	unchanged("the end")
}

// names is an object of n names, the first of which is a column.
func names(n int) string {
	b := []byte(`{"body":"x"`)
	for i := 1; i < n; i++ {
		b = fmt.Appendf(b, `,"%x":1`, i)
	}
	return string(append(b, '}'))
}

// TestAuditOfEachAct holds that each act leaves one event, in the log of its tenant, that says who did what to what, from
// where, and under which request; and that a denial leaves one.
func TestAuditOfEachAct(t *testing.T) {
	t.Parallel()
	w := newRealm(t)
	p := w.acme.projects[0]
	ann := p.person
	acme, system := w.acme.id, systemName
	type expectation struct{ tenant, action, object, kind, actor, outcome string }
	marks := map[string]uint64{}
	for _, tenant := range []string{acme, w.beta.id, system} {
		_, marks[tenant] = w.events(tenant, 0)
	}
	operator := func(method, path string, body any) func() answer {
		return func() answer {
			return w.send(w.web, method, "https://"+w.host+"/api/v1"+path, body, "Authorization", "Bearer "+w.operator)
		}
	}
	surface := func(method, path, token string, body any, headers ...string) func() answer {
		return func() answer {
			return w.send(w.web, method, p.url+path, body,
				append([]string{"apikey", p.public, "Authorization", bearerOf(token)}, headers...)...)
		}
	}
	var tokens struct {
		Keys []struct{ ID, Name string }
	}
	w.manage(200, "GET", "/operator/tokens", nil, &tokens)
	test := tokens.Keys[slices.IndexFunc(tokens.Keys,
		func(k struct{ ID, Name string }) bool { return k.Name == "test" })].ID
	ok := func(tenant, action, object string) expectation {
		return expectation{tenant, action, object, "operator", test, "ok"}
	}
	by := func(kind, actor, action, object, outcome string) expectation {
		return expectation{acme, action, object, kind, actor, outcome}
	}
	key := p.pubID
	person := ann.User.ID
	notes, closed := "/rest/v1/notes", "/rest/v1/closed"
	for _, c := range []struct {
		do     func() answer
		status int
		want   []expectation
	}{
		{operator("POST", "/tenants", map[string]string{"name": "another"}), 201,
			[]expectation{ok(system, "tenant.create", "another")}},
		{operator("POST", "/tenants", map[string]string{"name": "another"}), 409, nil},
		{operator("DELETE", "/tenants/another?confirm=another", nil), 204,
			[]expectation{ok(system, "tenant.delete", "another")}},
		{operator("POST", "/tenants/acme/projects", map[string]any{"name": "third"}), 201,
			[]expectation{ok(acme, "project.create", "third"),
				{system, "directory.add", "", "job", "directory", "ok"}}},
		{operator("PUT", "/projects/"+p.ref+"/settings", map[string]bool{"sign_up": true, "auto_confirm": true}), 200,
			[]expectation{ok(acme, "project.configure", p.id)}},
		{operator("POST", "/projects/"+p.ref+"/apikeys", map[string]string{"kind": "secret", "name": "one more"}),
			201, []expectation{ok(acme, "apikey.create", "one more")}},
		{operator("POST", "/projects/"+p.ref+"/apikeys/"+key+"/rotate", map[string]int{"overlap": 1000}), 200,
			[]expectation{ok(acme, "apikey.rotate", key)}},
		{operator("POST", "/projects/"+p.ref+"/sql",
			map[string]string{"sql": "create table more (id bigint primary key)"}), 200,
			[]expectation{ok(acme, "schema.apply", p.id)}},
		{operator("POST", "/projects/"+p.ref+"/keys/rotate", map[string]any{}), 204,
			[]expectation{ok(acme, "key.rotate", p.id)}},
		{operator("POST", "/operator/tokens", map[string]string{"name": "second"}), 201,
			[]expectation{ok(system, "apikey.create", "second")}},
		{surface("POST", "/auth/v1/signup", "", map[string]string{"email": "new@acme-0.example",
			"password": password}), 200, []expectation{by("anonymous", key, "account.signup", "", "ok")}},
		{surface("POST", "/auth/v1/signup", "", map[string]string{"email": "new@acme-0.example",
			"password": password}), 422, nil},
		{surface("POST", "/auth/v1/token?grant_type=password", "",
			map[string]string{"email": "ann@acme-0.example", "password": password}), 200,
			[]expectation{by("anonymous", key, "session.create", person, "ok")}},
		{surface("POST", "/auth/v1/token?grant_type=password", "",
			map[string]string{"email": "ann@acme-0.example", "password": "wrong words"}), 400,
			[]expectation{by("anonymous", key, "session.create", person, "denied")}},
		{surface("POST", "/auth/v1/token?grant_type=password", "",
			map[string]string{"email": "who@acme-0.example", "password": "wrong words"}), 400,
			[]expectation{by("anonymous", key, "session.create", "", "denied")}},
		{surface("POST", "/auth/v1/token?grant_type=refresh_token", "",
			map[string]string{"refresh_token": p.another.RefreshToken}), 200,
			[]expectation{by("anonymous", key, "session.refresh", "", "ok")}},
		{surface("PUT", "/auth/v1/user", ann.AccessToken, map[string]any{"data": map[string]int{"a": 1}}), 200,
			[]expectation{by("account", person, "account.update", person, "ok")}},
		{surface("PUT", "/auth/v1/user", ann.AccessToken,
			map[string]string{"password": "new words of mine", "current_password": "wrong words"}), 400,
			[]expectation{by("account", person, "account.update", person, "denied")}},
		{surface("POST", notes, ann.AccessToken, []map[string]string{{"body": "a"}, {"body": "b"}}), 201,
			[]expectation{by("account", person, "rows.insert", "notes", "ok")}},
		{surface("PATCH", notes+"?body=eq.a", ann.AccessToken, map[string]string{"body": "c"}), 204,
			[]expectation{by("account", person, "rows.update", "notes", "ok")}},
		{surface("PATCH", notes+"?body=eq.none", ann.AccessToken, map[string]string{"body": "c"}), 204, nil},
		{surface("POST", notes, ann.AccessToken, map[string]string{"user_id": p.another.User.ID}), 403,
			[]expectation{by("account", person, "rows.insert", "notes", "denied")}},
		{surface("GET", closed, ann.AccessToken, nil), 403,
			[]expectation{by("account", person, "rows.select", "closed", "denied")}},
		{surface("DELETE", closed, "", nil), 401, []expectation{by("anonymous", key, "rows.delete", "closed",
			"denied")}},
		{surface("DELETE", notes, ann.AccessToken, nil, "Prefer", "tx=rollback,return=representation"), 200,
			[]expectation{by("account", person, "rows.delete", "notes", "ok")}},
		{surface("PATCH", notes, ann.AccessToken, map[string]string{"body": "z"}, "Prefer",
			"tx=rollback,return=representation"), 200,
			[]expectation{by("account", person, "rows.update", "notes", "ok")}},
		{surface("DELETE", notes, ann.AccessToken, nil), 204,
			[]expectation{by("account", person, "rows.delete", "notes", "ok")}},
		{surface("POST", "/auth/v1/logout", ann.AccessToken, map[string]any{}), 204,
			[]expectation{by("account", person, "session.end", "", "ok")}},
		{surface("GET", "/auth/v1/user", ann.AccessToken, nil), 403, nil},
		{surface("GET", notes, "garbage", nil), 401, nil},
		{operator("DELETE", "/projects/"+p.ref+"/apikeys/"+key, nil), 204,
			[]expectation{ok(acme, "apikey.revoke", key)}},
		{operator("DELETE", "/projects/"+p.ref+"/apikeys/"+key, nil), 404, nil},
		{operator("DELETE", "/projects/"+p.ref, nil), 204,
			[]expectation{ok(acme, "project.delete", p.id),
				{system, "directory.remove", p.ref, "job", "directory", "ok"}}},
	} {
		a := c.do()
		id := a.header.Get("X-Request-Id")
		if a.status != c.status || id == "" {
			t.Errorf("want %d for %+v: %d %s", c.status, c.want, a.status, a.body)
		}
		var got []expectation
		for _, tenant := range []string{acme, w.beta.id, system} {
			list, next := w.events(tenant, marks[tenant])
			marks[tenant] = next
			for _, e := range list {
				if _, read := e.Notes["reads"]; read || e.Actor.Kind == "job" && e.Actor.Name != "directory" {
					continue // gathered reads, the node's own work
				}
				actor := e.Actor.Name
				if !e.Actor.ID.IsZero() {
					actor = e.Actor.ID.String()
				}
				got = append(got, expectation{tenant, e.Action, e.Object, e.Actor.Kind, actor, e.Outcome})
				if e.Actor.Kind == "job" {
					continue
				}
				if e.Request != id || !e.Actor.Addr.IsLoopback() {
					t.Errorf("%s by %s is under the request %q from %s, and the answer says %q", e.Action, actor,
						e.Request, e.Actor.Addr, id)
				}
				if e.Actor.Kind == "account" && e.Actor.Session.IsZero() {
					t.Errorf("%s by an account without a session", e.Action)
				}
			}
		}
		for i := range got { // what is drawn is not known beforehand
			if i < len(c.want) && c.want[i].object == "" && (c.want[i].action == "directory.add" || strings.HasPrefix(c.want[i].action, "session.")) {
				got[i].object = ""
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("the answer %d %.80s left\n%+v\nwant\n%+v", a.status, a.body, got, c.want)
		}
	}
}

// TestSealedByToken seals the node over the network: the answer arrives, the event is there afterwards, and nothing is
// answered meanwhile.
func TestSealedByToken(t *testing.T) {
	t.Parallel()
	w := newRealm(t)
	p := w.acme.projects[0]
	_, mark := w.events(systemName, 0)
	began := time.Now()
	a := w.want(204, w.send(w.web, "POST", "https://"+w.host+"/api/v1/operator/seal", map[string]any{},
		"Authorization", "Bearer "+w.operator), "sealing", nil)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("sealing took %v", took)
	}
	for !w.n.Sealed() {
		if time.Since(began) > 30*time.Second {
			t.Fatal("the node is not sealed")
		}
		runtime.Gosched()
	}
	for _, path := range []string{"/api/v1/tenants", "/api/v1/projects/" + p.ref + "/sql", "/api/v1/operator/tokens", "/p/" + p.ref + "/auth/v1/settings", "/p/" + p.ref + "/rest/v1/notes"} {
		a := w.send(w.console, "GET", "http://console"+path, nil, "apikey", p.secret)
		if a.status != 503 || strings.Contains(string(a.body), "words") {
			t.Errorf("%s of a sealed node: %d %s", path, a.status, a.body)
		}
	}
	if conn, err := net.DialTimeout("tcp", w.host, time.Second); err == nil {
		conn.Close()
		t.Error("a sealed node takes connections")
	}
	b := w.manage(200, "POST", "/operator/unseal", map[string]any{}, nil)
	w.web.CloseIdleConnections()
	w.rows(200, p, p.person.AccessToken, "GET", "notes", nil, nil)
	list, _ := w.events(systemName, mark)
	for action, request := range map[string]string{"operator.seal": a.header.Get("X-Request-Id"), "operator.unseal": b.header.Get("X-Request-Id")} {
		n := 0
		for _, e := range list {
			if e.Action == action && e.Request == request && e.Actor.Kind == "operator" && e.Outcome == "ok" {
				n++
			}
		}
		if n != 1 {
			t.Errorf("there are %d events of %s", n, action)
		}
	}
}

// TestSlowBody begins requests with credentials that are good, and ends them when these are not any more.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	w := newRealm(t)
	p := w.acme.projects[0]
	type made struct {
		Key   struct{ ID string }
		Value string
	}
	keys := map[string]made{}
	for name, kind := range map[string]string{"writes": "secret", "signs up": "publishable", "signs in": "publishable", "refreshes": "publishable"} {
		var key made
		w.manage(201, "POST", "/projects/"+p.ref+"/apikeys", map[string]string{"kind": kind, "name": name}, &key)
		keys[name] = key
	}
	revoke := func(name string) func() {
		return func() { w.manage(204, "DELETE", "/projects/"+p.ref+"/apikeys/"+keys[name].Key.ID, nil, nil) }
	}
	var token made
	w.manage(201, "POST", "/operator/tokens", map[string]string{"name": "slow"}, &token)
	w.secrets.add(keys["writes"].Value, token.Value)
	gone := w.signIn(p, "ann@acme-0.example")
	for _, c := range []struct {
		name, method, path, key, token, body string
		end                                  func()
	}{
		{"a session", "POST", "/p/" + p.ref + "/rest/v1/notes", p.public, gone.AccessToken, `{"body":"late words"}`, func() {
			w.auth(204, p, gone.AccessToken, "POST", "logout?scope=local", map[string]any{}, nil)
		}},
		{"a secret key", "PATCH", "/p/" + p.ref + "/rest/v1/closed", keys["writes"].Value, "",
			`{"body":"late words"}`, revoke("writes")},
		{"a publishable key that signs up", "POST", "/p/" + p.ref + "/auth/v1/signup", keys["signs up"].Value, "",
			`{"email":"late@acme-0.example","password":"` + password + `"}`, revoke("signs up")},
		{"a publishable key that signs in", "POST", "/p/" + p.ref + "/auth/v1/token?grant_type=password",
			keys["signs in"].Value, "",
			`{"email":"ann@acme-0.example","password":"` + password + `"}`, revoke("signs in")},
		{"a publishable key that refreshes", "POST", "/p/" + p.ref + "/auth/v1/token?grant_type=refresh_token",
			keys["refreshes"].Value, "",
			`{"refresh_token":"` + p.person.RefreshToken + `"}`, revoke("refreshes")},
		{"an operator token", "POST", "/api/v1/tenants", "", token.Value, `{"name":"late"}`, func() {
			w.manage(204, "DELETE", "/operator/tokens/"+token.Key.ID, nil, nil)
		}},
	} {
		body, writer := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), c.method, "https://"+w.host+c.path, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Apikey", c.key)
		req.Header.Set("Authorization", bearerOf(c.token))
		// The server says 100 Continue when it asks for the body: the credentials are proven by then.
		req.Header.Set("Expect", "100-continue")
		asked := make(chan struct{})
		req = req.WithContext(httptrace.WithClientTrace(t.Context(),
			&httptrace.ClientTrace{Got100Continue: func() { close(asked) }}))
		status := make(chan int)
		go func() {
			resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.pool},
				ExpectContinueTimeout: time.Minute, DisableKeepAlives: true}}).Do(req)
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				status <- 0
				return
			}
			defer resp.Body.Close()
			status <- resp.StatusCode
		}()
		<-asked
		c.end()
		if _, err := io.WriteString(writer, c.body); err != nil {
			t.Error(err)
		}
		writer.Close()
		if got := <-status; got != 401 {
			t.Errorf("a request of %s that ended meanwhile: %d", c.name, got)
		}
	}
	var rows []map[string]any
	for _, table := range []string{"notes", "closed"} {
		w.rows(200, p, p.secret, "GET", table+"?body=like.late*", nil, &rows)
		if len(rows) != 0 {
			t.Errorf("%s has %v", table, rows)
		}
	}
	w.manage(404, "GET", "/tenants/late/projects", nil, nil)
	w.auth(400, p, "", "POST", "token?grant_type=password",
		map[string]string{"email": "late@acme-0.example", "password": password}, nil)
	w.auth(200, p, "", "POST", "token?grant_type=refresh_token",
		map[string]string{"refresh_token": p.person.RefreshToken}, nil)
}

// TestAuditSearchApart sends queries that are none, and another tenant's places, to a tenant's search: whoever reads a log
// reads that one.
func TestAuditSearchApart(t *testing.T) {
	t.Parallel()
	w := newRealm(t)
	search := func(tenant string, q map[string]any) answer {
		t.Helper()
		began := time.Now()
		a := w.send(w.web, "POST", "https://"+w.host+"/api/v1/tenants/"+tenant+"/audit/search", q, "Authorization",
			"Bearer "+w.operator)
		if a.status >= 500 || time.Since(began) > 10*time.Second || a.status >= 400 && tellsTooMuch(a.body) {
			t.Errorf("searching for %.80v: %d after %v\n%.300s", q, a.status, time.Since(began), a.body)
		}
		if tenant == w.acme.id && (strings.Contains(string(a.body), w.beta.projects[0].id) || strings.Contains(string(a.body), canary)) {
			t.Errorf("searching for %.80v in %s tells of another tenant", q, tenant)
		}
		return a
	}
	var page struct {
		Events []struct{ Position uint64 }
		Next   string
	}
	w.want(200, search(w.beta.id, map[string]any{"limit": 1}), "searching beta's log", &page)
	if page.Next == "" || len(page.Events) != 1 {
		t.Fatalf("the first page is %+v", page)
	}
	for _, q := range []map[string]any{
		{"after": page.Next}, {"after": page.Next, "oldest_first": true}, {"after": "x"},
		{"after": strings.Repeat("A", 5000)}, {"limit": 1 << 40}, {"limit": -1},
		{"text": "*"}, {"text": "/(a+)+$/"}, {"text": `"`}, {"text": strings.Repeat("(", 10000)},
		{"text": strings.Repeat("a* ", 3000)}, {"text": strings.Repeat("-a ", 3000)},
		{"text": "tenant:" + w.beta.id}, {"text": "project:" + w.beta.projects[0].id[:13]},
		{"project": w.beta.projects[0].ref}, {"text": "\x00"}, {"text": "name:/.*/"},
		{"text": "time:>0001-01-01"}, {"text": `\`}, {"text": "a:b:c:d"}, {"text": "~2"}, {"text": "a^1e400"},
		{"text": "+ - + -"}, {"facets": []string{"nope"}}, {"facets": slices.Repeat([]string{"action"}, 5000)},
		{"action": "*"}, {"action": "**"}, {"from": "9999-12-31T23:59:59Z"}, {"to": "0001-01-01T00:00:00Z"},
		{"addr": "not an address"},
	} {
		search(w.acme.id, q)
		search(systemName, q)
	}
}
