package session_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"bulwark/security/access"
	"bulwark/security/account"
	"bulwark/security/apikey"
	"bulwark/security/session"
	"bulwark/security/tenant"
	"bulwark/storage"
	"bulwark/storage/storagetest"
)

// A clock is moved by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// A world is a server with everything real in it but the log: the memory engine stands for that.
type world struct {
	*storagetest.World
	clock    *clock
	tenants  *tenant.Directory
	keys     *apikey.Keys
	hasher   *account.Hasher
	sessions *session.Sessions
	server   *httptest.Server
	log      *bytes.Buffer
	tenant   storage.ID
}

// A project is one that a world has.
type project struct {
	*world
	tenant.Project
	by             storage.Actor // the operator, in it
	public, secret string
	publicKey      apikey.Key
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{clock: &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}, log: &bytes.Buffer{}}
	w.World = storagetest.NewWorldAt(t, storagetest.NewEngine(), w.clock.Now)
	var err error
	check := func() {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w.tenants, err = tenant.New(w.DB, rand.Reader)
	check()
	w.keys, err = apikey.New(w.DB, rand.Reader)
	check()
	w.hasher, err = account.NewHasher(bcrypt.MinCost)
	check()
	w.sessions, err = session.New(session.Config{
		Store: w.DB, Projects: w.tenants, Keys: w.keys, Hasher: w.hasher, Level: access.Level,
		Issuer: func(ref string) string { return "https://bulwark.test/p/" + ref + "/auth/v1" },
		Random: rand.Reader, Logger: slog.New(slog.NewTextHandler(w.log, nil)), Version: "test",
	})
	check()
	mux := http.NewServeMux()
	mux.Handle("/p/{ref}/auth/v1/", w.sessions.Handler())
	mux.HandleFunc("/p/{ref}/who", func(rw http.ResponseWriter, r *http.Request) {
		a, err := w.sessions.Caller(r)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusUnauthorized)
			return
		}
		fmt.Fprint(rw, a.Kind(), " ", a.Role())
	})
	w.server = httptest.NewServer(mux)
	t.Cleanup(w.server.Close)
	made, err := w.tenants.CreateTenant(t.Context(), console(storage.System, storage.ID{}), "acme")
	check()
	w.tenant = made.ID
	return w
}

func console(tenant, project storage.ID) storage.Actor {
	return storage.OperatorActor(tenant, project, storage.ID{}, "console", storage.Origin{})
}

func (w *world) project(t testing.TB, name string, set tenant.Settings) *project {
	t.Helper()
	made, err := w.tenants.CreateProject(t.Context(), console(w.tenant, storage.ID{}), name, set)
	if err != nil {
		t.Fatal(err)
	}
	p := &project{world: w, Project: made, by: console(w.tenant, made.ID)}
	if p.publicKey, p.public, err = w.keys.Create(t.Context(), p.by, apikey.Publishable, "web"); err != nil {
		t.Fatal(err)
	}
	if _, p.secret, err = w.keys.Create(t.Context(), p.by, apikey.Secret, "server"); err != nil {
		t.Fatal(err)
	}
	return p
}

// newProject returns a project in which anybody may sign up, in a world of its own.
func newProject(t testing.TB) *project {
	t.Helper()
	return newWorld(t).project(t, "app", tenant.Settings{SignUp: true, AutoConfirm: true})
}

// A reply is what a request got.
type reply struct {
	status int
	header http.Header
	text   string
	body   map[string]any
}

func (r reply) str(name string) string {
	s, _ := r.body[name].(string)
	return s
}

// do sends a request to the project, with its publishable key unless the headers have one ("apikey: " sends none).
func (p *project) do(t testing.TB, method, path string, body any, headers ...string) reply {
	t.Helper()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		j, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		in = bytes.NewReader(j)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, p.server.URL+"/p/"+p.Ref+path, in)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("apikey", p.public)
	req.Header.Set("User-Agent", "test-agent")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if req.Header.Set(name, value); value == "" {
			req.Header.Del(name)
		}
	}
	resp, err := p.server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	r := reply{status: resp.StatusCode, header: resp.Header, text: string(text)}
	if len(text) > 0 && text[0] == '{' {
		if err := json.Unmarshal(text, &r.body); err != nil {
			t.Fatalf("%s %s answered no JSON: %s", method, path, text)
		}
	}
	return r
}

func bearer(token string) string { return "Authorization: Bearer " + token }

// signUp makes an account and returns its first session.
func (p *project) signUp(t testing.TB, email, password string) reply {
	t.Helper()
	r := p.do(t, "POST", "/auth/v1/signup", map[string]any{"email": email, "password": password})
	if r.status != 200 || r.str("access_token") == "" {
		t.Fatalf("signing up: %d %s", r.status, r.text)
	}
	return r
}

func (p *project) signIn(t testing.TB, email, password string) reply {
	t.Helper()
	return p.do(t, "POST", "/auth/v1/token?grant_type=password", map[string]any{"email": email, "password": password})
}

func (p *project) refresh(t testing.TB, token string, headers ...string) reply {
	t.Helper()
	return p.do(t, "POST", "/auth/v1/token?grant_type=refresh_token", map[string]any{"refresh_token": token}, headers...)
}

// acts returns the events of the tenant from position first on, each as "action outcome [reason]", without those of reads,
// which are gathered over time.
func (w *world) acts(t *testing.T, first uint64) []string {
	t.Helper()
	acts := []string{}
	for _, e := range w.Events(t, w.tenant, first) {
		if _, read := e.Notes["reads"]; read {
			continue
		}
		acts = append(acts, strings.TrimSpace(e.Action+" "+e.Outcome+" "+e.Reason))
	}
	return acts
}

// mark is the position of the tenant's next event.
func (w *world) mark(t *testing.T) uint64 {
	t.Helper()
	return uint64(len(w.Events(t, w.tenant, 0)))
}

// expectActs fails unless exactly these events were written since mark.
func (w *world) expectActs(t *testing.T, mark uint64, want ...string) {
	t.Helper()
	if got := w.acts(t, mark); !slices.Equal(got, want) {
		t.Errorf("the audit log says %q, want %q", got, want)
	}
}

// refused fails unless r is an error of auth's shape with this status and code.
func (r reply) refused(t *testing.T, status int, code string) {
	t.Helper()
	if r.status != status || r.str("code") != code || r.str("error_code") != code {
		t.Errorf("answered %d %s, want %d %s", r.status, r.text, status, code)
	}
	if r.str("message") == "" || r.str("message") != r.str("msg") {
		t.Errorf("message and msg differ or are empty: %s", r.text)
	}
	if v := r.header.Get("X-Supabase-Api-Version"); v != "2024-01-01" {
		t.Errorf("X-Supabase-Api-Version is %q", v)
	}
}
