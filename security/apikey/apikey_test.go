package apikey

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"bulwark/storage"
	"bulwark/storage/storagetest"
	"bulwark/web/api"
)

func TestKeyForm(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, kind := range []Kind{Publishable, Secret, Operator} {
		for range 50 {
			body, err := newBody(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			key := format(kind, body)
			if seen[key] || len(key) != len("sb__")+len(kind)+22+1+8 {
				t.Errorf("%q", key)
			}
			seen[key] = true
			if got, ok := parse(key); got != kind || !ok {
				t.Errorf("%q reads as %q, %v", key, got, ok)
			}
			if h := hint(key); h != "sb_"+string(kind)+"_"+body[:4]+"…" {
				t.Errorf("the hint of %q is %q", key, h)
			}
			// Each single typing error is told.
			for i := range len(key) {
				wrong := []byte(key)
				if wrong[i] = 'x'; key[i] == 'x' {
					wrong[i] = 'y'
				}
				if _, ok := parse(string(wrong)); ok {
					t.Errorf("%q reads, with an error at %d", wrong, i)
				}
			}
		}
	}
}

// The checksum is part of the format: a key that was made once must always read.
func TestKeyVector(t *testing.T) {
	t.Parallel()
	const key = "sb_secret_0123456789ABCDEFGHIJKL_zdNaDZqm"
	if got := format(Secret, "0123456789ABCDEFGHIJKL"); got != key {
		t.Errorf("the key is %q, want %q", got, key)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(format(Secret, strings.Repeat("a", 22)))
	f.Add(format(Publishable, strings.Repeat("Z", 22)))
	f.Add("sb_secret_")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		kind, ok := parse(s)
		if ok && s != format(kind, s[len(s)-31:len(s)-9]) {
			t.Errorf("%q is a second form of a key", s)
		}
	})
}

type world struct {
	*storagetest.World
	keys *Keys
	now  time.Time
	by   storage.Actor // the operator, in the project
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	w.World = storagetest.NewWorldAt(t, storagetest.NewEngine(), func() time.Time { return w.now })
	var err error
	if w.keys, err = New(w.DB, rand.Reader); err != nil {
		t.Fatal(err)
	}
	w.by = storage.OperatorActor(w.Tenant, w.Project, storage.ID{}, "console", storage.Origin{})
	return w
}

func system() storage.Actor {
	return storage.OperatorActor(storage.System, storage.ID{}, storage.ID{}, "console", storage.Origin{})
}

// resolve says what a key is in a project.
func (w *world) resolve(t *testing.T, tenant, project storage.ID, key string) (kind storage.Kind, id storage.ID, refusal error) {
	t.Helper()
	by := storage.JobActor(tenant, project, "test")
	err := w.DB.View(t.Context(), by, storage.Intent{Action: "credential.resolve"}, func(r storage.Reader) error {
		kind, id, refusal = w.keys.Resolve(r, key)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return kind, id, refusal
}

// valid fails unless a key is valid, or invalid, in the world's project.
func (w *world) valid(t *testing.T, want bool, kind storage.Kind, id storage.ID, key string) {
	t.Helper()
	k, i, err := w.resolve(t, w.Tenant, w.Project, key)
	if want && (err != nil || k != kind || i != id) {
		t.Errorf("a valid key: %v, %v, %v", k, i, err)
	}
	if !want && (err != ErrInvalid || k != storage.Nobody || !i.IsZero()) {
		t.Errorf("an invalid key: %v, %v, %v", k, i, err)
	}
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

func TestLifeOfAKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mark := len(w.Events(t, w.Tenant, 0))
	public, publicValue, err := w.keys.Create(t.Context(), w.by, Publishable, "web")
	if err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(time.Millisecond) // ids grow with time
	secret, v1, err := w.keys.Create(t.Context(), w.by, Secret, "server")
	if err != nil {
		t.Fatal(err)
	}
	w.valid(t, true, storage.Anonymous, public.ID, publicValue)
	w.valid(t, true, storage.Service, secret.ID, v1)
	if k, _, err := w.resolve(t, w.Tenant, storage.ID{7}, v1); err != ErrInvalid || k != storage.Nobody {
		t.Errorf("in a project that does not exist: %v, %v", k, err)
	}
	tenant, project := w.AddTenant(t)
	if k, _, err := w.resolve(t, tenant, project, v1); err != ErrInvalid || k != storage.Nobody {
		t.Errorf("in another tenant: %v, %v", k, err)
	}

	// Without overlap the old value ends at once; with it, at its time, or when the key is rotated again.
	same, v2, err := w.keys.Rotate(t.Context(), w.by, secret.ID, 0)
	if err != nil || same.ID != secret.ID || same.Rotated == nil || v2 == v1 {
		t.Fatalf("%+v, %v", same, err)
	}
	w.valid(t, false, 0, storage.ID{}, v1)
	w.valid(t, true, storage.Service, secret.ID, v2)
	_, v3, err := w.keys.Rotate(t.Context(), w.by, secret.ID, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(time.Minute - 1)
	w.valid(t, true, storage.Service, secret.ID, v2)
	w.valid(t, true, storage.Service, secret.ID, v3)
	w.now = w.now.Add(1)
	w.valid(t, false, 0, storage.ID{}, v2)
	_, v4, err := w.keys.Rotate(t.Context(), w.by, secret.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	_, v5, err := w.keys.Rotate(t.Context(), w.by, secret.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	w.valid(t, false, 0, storage.ID{}, v3)
	w.valid(t, true, storage.Service, secret.ID, v4)

	// Revoking ends every value.
	if err := w.keys.Revoke(t.Context(), w.by, secret.ID); err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{v1, v2, v3, v4, v5} {
		w.valid(t, false, 0, storage.ID{}, v)
	}
	w.valid(t, true, storage.Anonymous, public.ID, publicValue)
	if err := w.keys.Revoke(t.Context(), w.by, secret.ID); !storage.IsNotFound(err) {
		t.Errorf("revoking twice: %v", err)
	}
	if _, _, err := w.keys.Rotate(t.Context(), w.by, secret.ID, 0); !storage.IsNotFound(err) {
		t.Errorf("rotating a revoked key: %v", err)
	}

	list, err := w.keys.List(t.Context(), w.by)
	if err != nil || len(list) != 2 || list[0].ID != public.ID || list[1].ID != secret.ID || list[1].Revoked == nil || list[0].Revoked != nil {
		t.Errorf("%+v, %v", list, err)
	}
	if b, _ := json.Marshal(list); strings.Contains(string(b), v5[14:30]) {
		t.Errorf("the list holds a key: %s", b)
	}
	w.expect(t, w.Tenant, mark, "apikey.create ok", "apikey.create ok", "apikey.rotate ok", "apikey.rotate ok", "apikey.rotate ok", "apikey.rotate ok", "apikey.revoke ok")
	for _, e := range w.Events(t, w.Tenant, 0) {
		b, _ := json.Marshal(e)
		for _, v := range []string{v1, v2, v3, v4, v5, publicValue} {
			if strings.Contains(string(b), v) || strings.Contains(string(b), v[len(v)-31:len(v)-9]) {
				t.Errorf("an audit event holds a key: %s", b)
			}
		}
	}
}

func TestOperatorTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token, value, err := w.keys.Create(t.Context(), system(), Operator, "ci")
	if err != nil {
		t.Fatal(err)
	}
	if id, name, err := w.keys.Operator(t.Context(), value); id != token.ID || name != "ci" || err != nil {
		t.Errorf("%v %q %v", id, name, err)
	}
	w.valid(t, false, 0, storage.ID{}, value)
	_, secret, err := w.keys.Create(t.Context(), w.by, Secret, "server")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.keys.Revoke(t.Context(), system(), token.ID); err != nil {
		t.Fatal(err)
	}
	mark := len(w.Events(t, storage.System, 0))
	for _, v := range []string{value, secret, "", "sb_operator_x", format(Operator, strings.Repeat("a", 22))} {
		if id, _, err := w.keys.Operator(t.Context(), v); err != ErrInvalid || !id.IsZero() {
			t.Errorf("an invalid token: %v", err)
		}
	}
	w.expect(t, storage.System, mark)
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	inTenant := storage.OperatorActor(w.Tenant, storage.ID{}, storage.ID{}, "console", storage.Origin{})
	for name, c := range map[string]struct {
		by   storage.Actor
		kind Kind
		name string
		want storage.Fault
	}{
		"operator token in a project": {w.by, Operator, "x", storage.BadInput},
		"secret key in no project":    {system(), Secret, "x", storage.BadInput},
		"key of a tenant":             {inTenant, Secret, "x", storage.BadInput},
		"no kind":                     {w.by, "", "x", storage.BadInput},
		"no name":                     {w.by, Secret, "", storage.BadInput},
		"long name":                   {w.by, Secret, strings.Repeat("x", 101), storage.BadInput},
		"by a secret key":             {w.Service(), Secret, "x", storage.Denied},
		"by a publishable key":        {storage.AnonymousActor(w.Tenant, w.Project, storage.ID{1}, storage.Origin{}), Secret, "x", storage.Denied},
		"by nobody":                   {storage.Actor{}, Secret, "x", storage.BadInput},
	} {
		if _, v, err := w.keys.Create(t.Context(), c.by, c.kind, c.name); storage.FaultOf(err) != c.want || v != "" {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for _, overlap := range []time.Duration{-1, maxOverlap + 1} {
		if _, _, err := w.keys.Rotate(t.Context(), w.by, storage.ID{1}, overlap); storage.FaultOf(err) != storage.BadInput {
			t.Errorf("an overlap of %v: %v", overlap, err)
		}
	}
	if _, err := New(nil, rand.Reader); err == nil {
		t.Error("keys without a store")
	}
}

// console makes every caller the operator, as the node's own socket does.
type console struct{}

func (console) Operator(_ *http.Request, tenant, project storage.ID) (storage.Actor, error) {
	return storage.OperatorActor(tenant, project, storage.ID{}, "console", storage.Origin{}), nil
}

// directory leads every path to one project.
type directory struct{ tenant, project storage.ID }

func (d directory) Tenant(context.Context, string) (storage.ID, error) { return d.tenant, nil }

func (d directory) Project(context.Context, string) (tenant, project storage.ID, err error) {
	return d.tenant, d.project, nil
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
	m := api.NewMux(api.Config{Authenticator: console{}, Directory: directory{w.Tenant, w.Project}})
	w.keys.Register(m)
	s := httptest.NewServer(m)
	t.Cleanup(s.Close)
	var made NewKey
	do(t, s, CreateKey, CreateRequest{Ref: "x", Kind: Secret, Name: "server"}, 201, &made)
	w.valid(t, true, storage.Service, made.Key.ID, made.Value)
	var list KeyList
	do(t, s, ListKeys, ListRequest{Ref: "x"}, 200, &list)
	if len(list.Keys) != 1 || list.Keys[0].ID != made.Key.ID || !strings.HasPrefix(made.Value, strings.TrimSuffix(list.Keys[0].Hint, "…")) {
		t.Errorf("%+v", list)
	}
	var changed NewKey
	do(t, s, RotateKey, RotateRequest{Ref: "x", ID: made.Key.ID, Overlap: 60}, 200, &changed)
	w.valid(t, true, storage.Service, made.Key.ID, changed.Value)
	w.valid(t, true, storage.Service, made.Key.ID, made.Value)
	do(t, s, RotateKey, RotateRequest{Ref: "x", ID: made.Key.ID, Overlap: 1 << 62}, 400, nil)
	do(t, s, RevokeKey, RevokeRequest{Ref: "x", ID: made.Key.ID}, 204, nil)
	do(t, s, RevokeKey, RevokeRequest{Ref: "x", ID: made.Key.ID}, 404, nil)
	w.valid(t, false, 0, storage.ID{}, changed.Value)
	do(t, s, CreateToken, CreateTokenRequest{Name: "ci"}, 201, &made)
	if _, _, err := w.keys.Operator(t.Context(), made.Value); err != nil {
		t.Error(err)
	}
	do(t, s, ListTokens, api.Empty{}, 200, &list)
	do(t, s, RotateToken, RotateTokenRequest{ID: made.Key.ID}, 200, &changed)
	do(t, s, RevokeToken, RevokeTokenRequest{ID: made.Key.ID}, 204, nil)
	if _, _, err := w.keys.Operator(t.Context(), changed.Value); err != ErrInvalid {
		t.Error(err)
	}
}
