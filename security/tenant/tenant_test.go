package tenant

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"bulwark/storage"
	"bulwark/storage/entry"
	"bulwark/storage/storagetest"
	"bulwark/web/api"
)

type world struct {
	*storagetest.World
	engine *engine
	dir    *Directory
	now    time.Time
}

// An engine can be told to fail, as one does that is killed between two entries.
type engine struct {
	storage.Engine
	left int // entries that still pass; below zero: all
}

var errKilled = errors.New("killed")

func (e *engine) Propose(ctx context.Context, en *entry.Entry) (entry.Outcome, error) {
	if e.left == 0 {
		return entry.Outcome{}, errKilled
	}
	e.left--
	return e.Engine.Propose(ctx, en)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{engine: &engine{storagetest.NewEngine(), -1}, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	w.World = storagetest.NewWorldAt(t, w.engine, func() time.Time { return w.now })
	w.dir = w.directory(t)
	return w
}

// directory is that of one more node, with an empty memory.
func (w *world) directory(t *testing.T) *Directory {
	t.Helper()
	d, err := New(w.DB, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func console(tenant, project storage.ID) storage.Actor {
	return storage.OperatorActor(tenant, project, storage.ID{}, "console", storage.Origin{})
}

func system() storage.Actor { return console(storage.System, storage.ID{}) }

func (w *world) tenant(t *testing.T, name string) Tenant {
	t.Helper()
	w.now = w.now.Add(time.Millisecond) // ids grow with time
	made, err := w.dir.CreateTenant(t.Context(), system(), name)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func (w *world) project(t *testing.T, tenant storage.ID, name string) Project {
	t.Helper()
	w.now = w.now.Add(time.Millisecond)
	p, err := w.dir.CreateProject(t.Context(), console(tenant, storage.ID{}), name, Settings{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// expect fails unless exactly these events were written to the tenant since mark.
func (w *world) expect(t *testing.T, tenant storage.ID, mark int, want ...string) {
	t.Helper()
	var got []string
	for _, e := range w.Events(t, tenant, uint64(mark)) {
		if _, read := e.Notes["reads"]; !read {
			got = append(got, strings.TrimSpace(e.Action+" "+e.Outcome+" "+e.Reason))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the audit log says %q, want %q", got, want)
	}
}

// alive reports whether a scope has keys.
func (w *world) alive(t *testing.T, tenant, project storage.ID) bool {
	t.Helper()
	s, err := w.engine.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	_, rev, err := s.Wrapped(tenant, project)
	if err != nil {
		t.Fatal(err)
	}
	return rev != 0
}

func TestNames(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"acme": true, "a": true, "a-1": true, "0": true, strings.Repeat("a", 63): true,
		"": false, "-a": false, "a-": false, "Acme": false, "a_b": false, "a b": false, "\u00e4": false, "a.b": false,
		strings.Repeat("a", 64): false, "root": false, "system": false, "admin": false, "api": false,
		"0190a0b0-0000-7000-8000-000000000000": false, "a\n": false,
	} {
		if err := checkName(name); (err == nil) != ok || err != nil && storage.FaultOf(err) != storage.BadInput {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestRefs(t *testing.T) {
	t.Parallel()
	for range 200 {
		ref, err := newRef(rand.Reader)
		if err != nil || !isRef(ref) || strings.Contains(ref, "http") {
			t.Fatalf("%q, %v", ref, err)
		}
	}
	// One that holds "http" is drawn again.
	draw := append(bytes.Repeat([]byte{0}, 16), 7, 19, 19, 15)
	draw = append(draw, bytes.Repeat([]byte{255, 1}, 20)...) // 255 would favour some letters, and is passed over
	ref, err := newRef(bytes.NewReader(draw))
	if err != nil || ref != strings.Repeat("b", 20) {
		t.Errorf("%q, %v", ref, err)
	}
	if _, err := newRef(strings.NewReader("")); err == nil {
		t.Error("a ref without randomness")
	}
}

func TestTenants(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mark := len(w.Events(t, storage.System, 0))
	a, b := w.tenant(t, "acme"), w.tenant(t, "beta")
	if !w.alive(t, a.ID, storage.ID{}) {
		t.Error("a tenant without keys")
	}
	if _, err := w.dir.CreateTenant(t.Context(), system(), "acme"); storage.FaultOf(err) != storage.Exists {
		t.Errorf("the same name again: %v", err)
	}
	list, err := w.dir.Tenants(t.Context(), system())
	if err != nil || len(list) != 2 || list[0] != a || list[1] != b {
		t.Errorf("%+v, %v", list, err)
	}
	for _, name := range []string{"acme", a.ID.String()} {
		if id, err := w.dir.Tenant(t.Context(), name); id != a.ID || err != nil {
			t.Errorf("%s: %v, %v", name, id, err)
		}
	}
	for _, name := range []string{"nobody", storage.ID{1}.String(), storage.System.String(), ""} {
		if _, err := w.dir.Tenant(t.Context(), name); !storage.IsNotFound(err) {
			t.Errorf("%q: %v", name, err)
		}
	}
	p := w.project(t, a.ID, "app")
	q := w.project(t, b.ID, "app")
	for _, confirm := range []string{"", "beta", "ACME", a.ID.String()} {
		if err := w.dir.DeleteTenant(t.Context(), system(), "acme", confirm); storage.FaultOf(err) != storage.BadInput {
			t.Errorf("confirmed with %q: %v", confirm, err)
		}
	}
	elsewhere := w.directory(t)
	if err := elsewhere.DeleteTenant(t.Context(), system(), "acme", "acme"); err != nil {
		t.Fatal(err)
	}
	if w.alive(t, a.ID, storage.ID{}) || w.alive(t, a.ID, p.ID) || !w.alive(t, b.ID, q.ID) {
		t.Error("the wrong keys live")
	}
	if _, _, err := elsewhere.Project(t.Context(), p.Ref); !storage.IsNotFound(err) {
		t.Errorf("the ref of a deleted tenant: %v", err)
	}
	if tenant, project, err := elsewhere.Project(t.Context(), q.Ref); tenant != b.ID || project != q.ID || err != nil {
		t.Errorf("the ref of another tenant: %v", err)
	}
	if err := w.dir.DeleteTenant(t.Context(), system(), "acme", "acme"); !storage.IsNotFound(err) {
		t.Errorf("deleting twice: %v", err)
	}
	w.tenant(t, "acme")
	w.expect(t, storage.System, mark, "tenant.create ok", "tenant.create ok", "directory.add ok", "directory.add ok", "tenant.delete ok", "tenant.create ok")
}

func TestWhoMay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t, "acme")
	p := w.project(t, a.ID, "app")
	in := console(a.ID, storage.ID{})
	service := storage.ServiceActor(a.ID, p.ID, storage.ID{1}, storage.Origin{})
	person := storage.AccountActor(a.ID, p.ID, storage.ID{1}, storage.ID{2}, nil, storage.Origin{})
	for name, act := range map[string]func(storage.Actor) error{
		"create tenant": func(by storage.Actor) error { _, err := w.dir.CreateTenant(t.Context(), by, "x"); return err },
		"list tenants":  func(by storage.Actor) error { _, err := w.dir.Tenants(t.Context(), by); return err },
		"delete tenant": func(by storage.Actor) error { return w.dir.DeleteTenant(t.Context(), by, "acme", "acme") },
		"create project": func(by storage.Actor) error {
			_, err := w.dir.CreateProject(t.Context(), by, "x", Settings{})
			return err
		},
		"list projects":  func(by storage.Actor) error { _, err := w.dir.Projects(t.Context(), by); return err },
		"configure":      func(by storage.Actor) error { _, err := w.dir.Configure(t.Context(), by, Settings{}); return err },
		"delete project": func(by storage.Actor) error { return w.dir.DeleteProject(t.Context(), by) },
	} {
		for _, by := range []storage.Actor{service, person} {
			if err := act(by); storage.FaultOf(err) != storage.Denied {
				t.Errorf("%s by %v: %v", name, by.Kind(), err)
			}
		}
		if err := act(storage.Actor{}); err == nil {
			t.Errorf("%s by nobody succeeds", name)
		}
		if strings.HasSuffix(name, "tenant") || strings.HasSuffix(name, "tenants") {
			if err := act(in); storage.FaultOf(err) != storage.Denied {
				t.Errorf("%s by an operator in a tenant: %v", name, err)
			}
		}
	}
	if _, _, err := w.directory(t).Project(t.Context(), p.Ref); err != nil {
		t.Errorf("what was refused happened: %v", err)
	}
}

func TestProjects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.tenant(t, "acme"), w.tenant(t, "beta")
	mark := len(w.Events(t, a.ID, 0))
	by := console(a.ID, storage.ID{})
	p, err := w.dir.CreateProject(t.Context(), by, "app", Settings{SignUp: true})
	if err != nil || !w.alive(t, a.ID, p.ID) || p.Settings.DefaultRole != "user" {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := w.dir.CreateProject(t.Context(), by, "app", Settings{}); storage.FaultOf(err) != storage.Exists {
		t.Errorf("the same name again: %v", err)
	}
	w.project(t, b.ID, "app")
	for _, role := range []string{"owner", "admin", "super_admin", "x"} {
		if _, err := w.dir.CreateProject(t.Context(), by, "x", Settings{DefaultRole: role}); storage.FaultOf(err) != storage.BadInput {
			t.Errorf("the default role %s: %v", role, err)
		}
	}
	list, err := w.dir.Projects(t.Context(), by)
	if err != nil || len(list) != 1 || list[0] != p {
		t.Errorf("%+v, %v", list, err)
	}
	in := console(a.ID, p.ID)
	set := Settings{AutoConfirm: true, DefaultRole: "viewer"}
	if changed, err := w.dir.Configure(t.Context(), in, set); err != nil || changed.Settings != set {
		t.Errorf("%+v, %v", changed, err)
	}
	err = w.DB.View(t.Context(), storage.JobActor(a.ID, p.ID, "test"), storage.Intent{Action: "credential.resolve"}, func(r storage.Reader) error {
		open, confirm, role, err := w.dir.SignUp(r, p.ID)
		if open || !confirm || role != "viewer" || err != nil {
			t.Errorf("%v %v %v %v", open, confirm, role, err)
		}
		ref, kid, key, err := w.dir.Signing(r, p.ID)
		if ref != p.Ref || len(kid) != 16 || key == nil || err != nil {
			t.Errorf("%v %v %v", ref, kid, err)
		}
		_, _, again, err := w.dir.Signing(r, p.ID)
		if err != nil || !again.Equal(key) {
			t.Error("the signing key changes")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	// A node that has the ref in its memory: what it answers opens nothing any more.
	elsewhere := w.directory(t)
	if _, _, err := elsewhere.Project(t.Context(), p.Ref); err != nil {
		t.Fatal(err)
	}
	if err := w.dir.DeleteProject(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if w.alive(t, a.ID, p.ID) {
		t.Error("the keys of a deleted project live")
	}
	if _, _, err := w.dir.Project(t.Context(), p.Ref); !storage.IsNotFound(err) {
		t.Errorf("the ref of a deleted project: %v", err)
	}
	tenant, project, err := elsewhere.Project(t.Context(), p.Ref)
	if err == nil {
		err = w.DB.View(t.Context(), storage.JobActor(tenant, project, "test"), storage.Intent{Action: "credential.resolve"}, func(r storage.Reader) error {
			if _, _, _, err := elsewhere.Signing(r, project); !storage.IsNotFound(err) {
				t.Errorf("the signing key of a deleted project: %v", err)
			}
			_, err := r.Blind(storage.Ref{Name: "apikey", Scope: storage.ProjectScope}, "x", nil)
			return err
		})
	}
	if !storage.IsNotFound(err) {
		t.Errorf("the keys of a deleted project: %v", err)
	}
	if err := w.dir.DeleteProject(t.Context(), in); !storage.IsNotFound(err) {
		t.Errorf("deleting twice: %v", err)
	}
	if again := w.project(t, a.ID, "app"); again.Ref == p.Ref {
		t.Error("a ref is used twice")
	}
	w.expect(t, a.ID, mark, "project.create ok", "project.configure ok", "project.delete ok", "project.create ok")
}

// A node is killed after each number of entries of a creation, and of a deletion. Whatever is left leads nowhere, is in no
// list, and is gone after a sweep.
func TestKilledBetweenEntries(t *testing.T) {
	t.Parallel()
	for after := range 2 {
		w := newWorld(t)
		a := w.tenant(t, "acme")
		by := console(a.ID, storage.ID{})
		keep := w.project(t, a.ID, "keep")
		w.engine.left = after
		if _, err := w.dir.CreateProject(t.Context(), by, "app", Settings{}); !errors.Is(err, errKilled) {
			t.Fatalf("after %d entries: %v", after, err)
		}
		w.engine.left = -1
		if list, err := w.dir.Projects(t.Context(), by); err != nil || len(list) != 1 || list[0] != keep {
			t.Errorf("after %d entries the list is %+v, %v", after, list, err)
		}
		w.now = w.now.Add(stale + time.Second)
		mark := len(w.Events(t, a.ID, 0))
		for range 2 {
			if err := w.directory(t).Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		want := []string{"directory.clean ok"}
		w.expect(t, a.ID, mark, want[:after]...)
		w.project(t, a.ID, "app")

		w.engine.left = after
		err := w.dir.DeleteProject(t.Context(), console(a.ID, keep.ID))
		w.engine.left = -1
		if !errors.Is(err, errKilled) {
			t.Fatalf("deleting, after %d entries: %v", after, err)
		}
		list, err := w.dir.Projects(t.Context(), by)
		if err != nil || len(list) != 2-after {
			t.Errorf("deleting, after %d entries the list is %+v, %v", after, list, err)
		}
		if w.alive(t, a.ID, keep.ID) != (after == 0) {
			t.Errorf("deleting, after %d entries: keys", after)
		}
		if err := w.dir.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, _, err = w.directory(t).Project(t.Context(), keep.Ref)
		if storage.IsNotFound(err) != (after == 1) {
			t.Errorf("deleting, after %d entries and a sweep: %v", after, err)
		}
	}
}

// What is being made at this moment is not swept.
func TestSweepLeavesNewProjects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t, "acme")
	w.engine.left = 1
	if _, err := w.dir.CreateProject(t.Context(), console(a.ID, storage.ID{}), "app", Settings{}); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	w.engine.left = -1
	w.now = w.now.Add(stale)
	mark := len(w.Events(t, a.ID, 0))
	if err := w.dir.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.expect(t, a.ID, mark)
}

// node makes every caller the operator, as the node's own socket does.
type node struct{}

func (node) Operator(_ *http.Request, tenant, project storage.ID) (storage.Actor, error) {
	return console(tenant, project), nil
}

func do[Req, Resp any](t *testing.T, s *httptest.Server, rt api.Route[Req, Resp], req Req, status int, into any) {
	t.Helper()
	r, err := api.NewRequest(t.Context(), s.URL, rt, req)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		t.Fatalf("%s %s: %d %s, %v", rt.Method, rt.Path, resp.StatusCode, body, err)
	}
	if into != nil {
		if err := json.Unmarshal(body, into); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := api.NewMux(api.Config{Authenticator: node{}, Directory: w.dir})
	w.dir.Register(m)
	s := httptest.NewServer(m)
	t.Cleanup(s.Close)
	var a Tenant
	do(t, s, CreateTenant, CreateTenantRequest{Name: "acme"}, 201, &a)
	do(t, s, CreateTenant, CreateTenantRequest{Name: "acme"}, 409, nil)
	do(t, s, CreateTenant, CreateTenantRequest{Name: "root"}, 400, nil)
	var tenants TenantList
	do(t, s, ListTenants, api.Empty{}, 200, &tenants)
	if len(tenants.Tenants) != 1 || tenants.Tenants[0] != a {
		t.Errorf("%+v", tenants)
	}
	var p Project
	do(t, s, CreateProject, CreateProjectRequest{Tenant: "acme", Name: "app", SignUp: true, DefaultRole: "viewer"}, 201, &p)
	if want := (Settings{SignUp: true, DefaultRole: "viewer"}); p.Settings != want || !isRef(p.Ref) {
		t.Errorf("%+v", p)
	}
	do(t, s, CreateProject, CreateProjectRequest{Tenant: "nobody", Name: "app"}, 404, nil)
	var projects ProjectList
	do(t, s, ListProjects, ListProjectsRequest{Tenant: a.ID.String()}, 200, &projects)
	if len(projects.Projects) != 1 || projects.Projects[0] != p {
		t.Errorf("%+v", projects)
	}
	do(t, s, ConfigureProject, ConfigureProjectRequest{Ref: p.Ref, AutoConfirm: true}, 200, &p)
	if want := (Settings{AutoConfirm: true, DefaultRole: "user"}); p.Settings != want {
		t.Errorf("%+v", p)
	}
	do(t, s, DeleteProject, DeleteProjectRequest{Ref: p.Ref}, 204, nil)
	do(t, s, DeleteProject, DeleteProjectRequest{Ref: p.Ref}, 404, nil)
	do(t, s, DeleteTenant, DeleteTenantRequest{Tenant: "acme", Confirm: "x"}, 400, nil)
	do(t, s, DeleteTenant, DeleteTenantRequest{Tenant: "acme", Confirm: "acme"}, 204, nil)
	do(t, s, DeleteTenant, DeleteTenantRequest{Tenant: "acme", Confirm: "acme"}, 404, nil)
}
