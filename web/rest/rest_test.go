package rest_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"bulwark/storage"
	"bulwark/storage/storagetest"
	"bulwark/storage/table"
	"bulwark/web/rest"
)

// callers takes an actor by the name in the apikey header: a test's credentials.
type callers map[string]storage.Actor

// Caller implements api.Callers.
func (c callers) Caller(r *http.Request) (storage.Actor, error) {
	if r.PathValue("ref") != "demo" {
		return storage.Actor{}, storage.Errorf(storage.NotFound, "project_not_found", "no such project")
	}
	a, ok := c[r.Header.Get("apikey")]
	if !ok {
		return storage.Actor{}, &storage.Error{Fault: storage.Unauthenticated, Message: "Invalid API key", Hint: "Double check your Supabase `anon` or `service_role` API key."}
	}
	return a, nil
}

// Alive implements api.Callers: these credentials do not end.
func (c callers) Alive(storage.Reader) error { return nil }

type server struct {
	*storagetest.World
	url    string
	actors callers
}

func column(name string) *table.Expr { return &table.Expr{Op: table.OpColumn, Name: name} }

func call(name string) *table.Expr { return &table.Expr{Op: table.OpCall, Name: name} }

// tables are notes, where each person has their own rows, and items, which anybody may read.
func tables() []*table.Table {
	owner := &table.Expr{Op: table.OpEq, Args: []*table.Expr{call("auth.uid"), column("user_id")}}
	yes := "true"
	all := &table.Expr{Op: table.OpConst, Type: table.Bool, Value: &yes}
	zero := "0"
	return []*table.Table{{
		Schema: "public", Name: "notes", RLS: true,
		Columns: []table.Column{
			{Name: "id", Type: table.UUID, Default: call("gen_random_uuid")},
			{Name: "user_id", Type: table.UUID, NotNull: true, Default: call("auth.uid")},
			{Name: "body", Type: table.Text},
		},
		Keys:     []table.Key{{Name: "notes_pkey", Primary: true, Columns: []string{"id"}}},
		Policies: []table.Policy{{Name: "owner", Command: table.All, Using: owner}},
	}, {
		Schema: "public", Name: "items", RLS: true,
		Columns: []table.Column{
			{Name: "id", Type: table.Int4},
			{Name: "name", Type: table.Text},
			{Name: "price", Type: table.Numeric},
			{Name: "ok", Type: table.Bool},
			{Name: "meta", Type: table.JSONB},
			{Name: "stock", Type: table.Int4, NotNull: true, Default: &table.Expr{Op: table.OpConst, Value: &zero}},
		},
		Keys:     []table.Key{{Name: "items_pkey", Primary: true, Columns: []string{"id"}}},
		Policies: []table.Policy{{Name: "read", Command: table.Select, Using: all}},
	}}
}

func newServer(t testing.TB, more ...*table.Table) *server {
	t.Helper()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	o := storage.Origin{}
	s := &server{World: w, actors: callers{
		"anon":    storage.AnonymousActor(w.Tenant, w.Project, storage.ID{1}, o),
		"service": w.Service(),
		"alice":   storage.AccountActor(w.Tenant, w.Project, storage.ID{0xa1}, storage.ID{2}, []byte(`{"role":"authenticated"}`), o),
		"bob":     storage.AccountActor(w.Tenant, w.Project, storage.ID{0xb0}, storage.ID{3}, []byte(`{"role":"authenticated"}`), o),
	}}
	by := storage.OperatorActor(w.Tenant, w.Project, storage.ID{}, "test", o)
	err := w.DB.Update(t.Context(), by, storage.Intent{Action: "schema.apply"}, func(tx storage.Tx) error {
		return table.SaveSchema(tx, &table.Schema{Tables: append(tables(), more...)})
	})
	if err != nil {
		t.Fatal(err)
	}
	cat, err := table.New(table.Options{Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	h, err := rest.New(rest.Config{Store: w.DB, Callers: s.actors, Tables: cat})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/p/{ref}/rest/v1/", h)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	s.url = srv.URL + "/p/demo/rest/v1/"
	return s
}

type reply struct {
	status int
	head   http.Header
	body   string
}

// send makes a request. headers are "Name: value".
func (s *server) send(t testing.TB, by, method, path, body string, headers ...string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("apikey", by)
	for _, h := range headers {
		name, v, _ := strings.Cut(h, ": ")
		r.Header.Add(name, v)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, string(b)}
}

const items = `[{"id":1,"name":"nut","price":1.50,"ok":true,"meta":{"k":{"n":1}}},
 {"id":2,"name":"bolt, M4","price":10,"ok":false,"meta":["a"]},
 {"id":3,"name":null,"price":null,"ok":null,"meta":null},
 {"id":4,"name":"Nut (big)","price":2.25,"ok":true,"meta":{"k":{"n":2},"s":"x"}}]`

func (s *server) fill(t testing.TB) {
	t.Helper()
	if got := s.send(t, "service", "POST", "items", items, "Content-Type: application/json"); got.status != 201 || got.body != "" {
		t.Fatal(got)
	}
}

func TestReads(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.fill(t)
	for _, c := range []struct{ query, want string }{
		{"select=id&id=eq.2", "2"}, {"select=id&price=gt.2", "2 4"}, {"select=id&price=lte.2.25", "1 4"}, {"select=id&id=neq.1", "2 3 4"},
		{"select=id&name=like.*ut*", "1 4"}, {"select=id&name=like.nu_", "1"}, {"select=id&name=ilike.NUT*", "1 4"},
		{"select=id&ok=is.true", "1 4"}, {"select=id&ok=is.null", "3"}, {"select=id&ok=is.not_null", "1 2 4"}, {"select=id&ok=not.is.null", "1 2 4"},
		{"select=id&ok=not.is.true", "2 3"}, {"select=id&ok=is.unknown", "3"}, {"select=id&ok=is.FALSE", "2"},
		{"select=id&id=in.(1,3,9)", "1 3"}, {"select=id&id=in.()", ""}, {"select=id&name=in.(%22bolt,+M4%22,nut)", "1 2"},
		{"select=id&name=not.in.(nut)", "2 4"}, {"select=id&name=isdistinct.nut", "2 3 4"},
		{"select=id&or=(id.eq.1,and(price.gte.2,ok.is.true))", "1 4"}, {"select=id&or=(name.eq.%22bolt,+M4%22,id.in.(3,4))", "2 3 4"},
		{"select=id&not.or=(id.eq.1,id.eq.2)", "3 4"}, {"select=id&and=(id.gt.1,not.or(id.eq.2,id.eq.3))", "4"}, {"select=id&or=(id.not.gt.1,name.is.null)", "1 3"},
		{"select=id&id=gt.1&id=lt.4", "2 3"}, {"select=id&id=eq(any).{1,4}", "1 4"}, {"select=id&name=ilike(all).{*n*,*big*}", "4"},
		{"select=id&meta->k->>n=eq.2", "4"}, {"select=id&meta->>0=eq.a", "2"}, {"select=id&meta->k=eq.{%22n%22:1}", "1"}, {`select=id&%22id%22=eq.3`, "3"},
		{"select=id&order=price", "1 4 2 3"}, {"select=id&order=price.desc", "3 2 4 1"}, {"select=id&order=price.desc.nullslast", "2 4 1 3"},
		{"select=id&order=price.nullsfirst", "3 1 4 2"}, {"select=id&order=ok.desc,id.desc&limit=2&offset=1", "4 1"}, {"select=id&limit=0", ""},
		{"select=id&order=name", "4 2 1 3"}, {"select=id&name=eq.Nut+(big)", "4"}, {"select=id&or=(name.eq.%22Nut+(big)%22)", "4"},
		{"select=id&order=id&limit=1&offset=9", ""},
	} {
		got := s.send(t, "anon", "GET", "items?"+c.query, "")
		if got.status != 200 {
			t.Errorf("%s: %d %s", c.query, got.status, got.body)
			continue
		}
		var rows []struct{ ID int }
		if err := json.Unmarshal([]byte(got.body), &rows); err != nil {
			t.Errorf("%s: %v", c.query, err)
		}
		var ids []string
		for _, r := range rows {
			ids = append(ids, fmt.Sprint(r.ID))
		}
		if g := strings.Join(ids, " "); g != c.want {
			t.Errorf("%s gives %q, want %q", c.query, g, c.want)
		}
	}
}

func TestShapes(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.fill(t)
	for _, c := range []struct {
		name, method, path string
		headers            []string
		status             int
		body               string
		head               []string
	}{
		{"whole rows", "GET", "items?id=eq.1", nil, 200, `[{"id":1,"name":"nut","price":1.50,"ok":true,"meta":{"k":{"n":1}},"stock":0}]`,
			[]string{"Content-Range: 0-0/*", "Content-Type: application/json; charset=utf-8"}},
		{"alias", "GET", "items?id=eq.1&select=n:name,id", nil, 200, `[{"n":"nut","id":1}]`, nil},
		{"star and alias", "GET", "items?id=eq.3&select=*,again:id", nil, 200, `[{"id":3,"name":null,"price":null,"ok":null,"meta":null,"stock":0,"again":3}]`, nil},
		{"empty", "GET", "items?id=eq.9", nil, 200, `[]`, []string{"Content-Range: */*"}},
		{"count", "GET", "items?select=id&limit=2", []string{"Prefer: count=exact"}, 206, `[{"id":1},{"id":2}]`,
			[]string{"Content-Range: 0-1/4", "Preference-Applied: count=exact"}},
		{"count of all", "GET", "items?select=id", []string{"Prefer: count=exact"}, 200, `[{"id":1},{"id":2},{"id":3},{"id":4}]`, []string{"Content-Range: 0-3/4"}},
		{"count of none", "GET", "items?id=eq.9", []string{"Prefer: count=exact"}, 200, `[]`, []string{"Content-Range: */0"}},
		{"range", "GET", "items?select=id", []string{"Range-Unit: items", "Range: 1-2"}, 200, `[{"id":2},{"id":3}]`, []string{"Content-Range: 1-2/*"}},
		{"open range", "GET", "items?select=id", []string{"Range: 3-"}, 200, `[{"id":4}]`, []string{"Content-Range: 3-3/*"}},
		{"longest range", "GET", "items?select=id", []string{"Range: 3-9223372036854775807"}, 200, `[{"id":4}]`, []string{"Content-Range: 3-3/*"}},
		{"beyond", "GET", "items?offset=7", []string{"Prefer: count=exact"}, 416,
			`{"code":"PGRST103","message":"Requested range not satisfiable","details":"An offset of 7 was requested, but there are only 4 rows.","hint":null}`, []string{"Content-Range: */4"}},
		{"single", "GET", "items?select=id&id=eq.1", []string{"Accept: application/vnd.pgrst.object+json"}, 200, `{"id":1}`,
			[]string{"Content-Type: application/vnd.pgrst.object+json; charset=utf-8"}},
		{"single of many", "GET", "items?id=gt.2", []string{"Accept: application/vnd.pgrst.object+json"}, 406,
			`{"code":"PGRST116","message":"Cannot coerce the result to a single JSON object","details":"The result contains 2 rows","hint":null}`, nil},
		{"profile", "GET", "items?select=id&id=eq.1", []string{"Accept-Profile: public"}, 200, `[{"id":1}]`, []string{"Content-Profile: public"}},
		{"other profile", "GET", "items", []string{"Accept-Profile: x"}, 406,
			`{"code":"PGRST106","message":"Invalid schema: x","details":null,"hint":"Only the following schemas are exposed: public"}`, nil},
		{"csv", "GET", "items", []string{"Accept: text/csv"}, 406, `{"code":"PGRST107","message":"None of these media types are available: text/csv","details":null,"hint":null}`, nil},
		{"bad literal", "GET", "items?id=eq.x", nil, 400, `{"code":"22P02","message":"invalid input syntax for type integer: \"x\"","details":null,"hint":null}`, nil},
		{"no column", "GET", "items?nope=eq.x", nil, 400, `{"code":"42703","message":"column items.nope does not exist","details":null,"hint":null}`, nil},
		{"no table", "GET", "none", nil, 404, `{"code":"PGRST205","message":"Could not find the table 'public.none' in the schema cache","details":null,"hint":null}`, nil},
		{"bad operator", "GET", "items?id=foo.x", nil, 400, `{"code":"PGRST100","message":"\"failed to parse filter (foo.x)\"","details":"unexpected operator \"foo\" expecting \"not\" or operator (eq, neq, gt, gte, lt, lte, like, ilike, is, in, isdistinct)","hint":null}`, nil},
		{"embed", "GET", "items?select=id,notes(*)", nil, 400, `{"code":"PGRST200","message":"Could not find a relationship between 'items' and 'notes' in the schema cache","details":"Searched for a foreign key relationship between 'items' and 'notes' in the schema 'public', but no matches were found.","hint":null}`, nil},
		{"aggregate", "GET", "items?select=count()", nil, 400, `{"code":"PGRST123","message":"Use of aggregate functions is not allowed","details":null,"hint":null}`, nil},
		{"not embedded", "GET", "items?notes.id=eq.1", nil, 400, `{"code":"PGRST108","message":"'notes' is not an embedded resource in this request","details":null,"hint":"Verify that 'notes' is included in the 'select' query parameter."}`, nil},
		{"verb", "PUT", "items", nil, 405, `{"code":"PGRST117","message":"Unsupported HTTP method: PUT","details":null,"hint":null}`, nil},
		{"root", "GET", "", nil, 404, `{"code":"PGRST126","message":"Root endpoint metadata is disabled","details":null,"hint":null}`, nil},
		{"function", "POST", "rpc/f", nil, 404, `{"code":"PGRST202","message":"Could not find the function public.f in the schema cache","details":null,"hint":null}`, nil},
		{"head", "HEAD", "items?select=id", []string{"Prefer: count=exact"}, 200, ``, []string{"Content-Range: 0-3/4"}},
		{"strict", "GET", "items", []string{"Prefer: handling=strict, x=y"}, 400, `{"code":"PGRST122","message":"Invalid preferences given with handling=strict","details":"Invalid preferences: x=y","hint":null}`, nil},
	} {
		got := s.send(t, "anon", c.method, c.path, "", c.headers...)
		if got.status != c.status || got.body != c.body {
			t.Errorf("%s: %d %s\nwant %d %s", c.name, got.status, got.body, c.status, c.body)
		}
		for _, h := range c.head {
			name, v, _ := strings.Cut(h, ": ")
			if got.head.Get(name) != v {
				t.Errorf("%s: %s is %q, want %q", c.name, name, got.head.Get(name), v)
			}
		}
	}
	if got := s.send(t, "nobody", "GET", "items", ""); got.status != 401 || !strings.Contains(got.body, `"message":"Invalid API key"`) {
		t.Errorf("without a key: %v", got)
	}
}

func TestWrites(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	got := s.send(t, "alice", "POST", "notes?select=body,user_id", `{"body":"hello"}`, "Prefer: return=representation")
	if got.status != 201 || got.body != `[{"body":"hello","user_id":"a1000000-0000-0000-0000-000000000000"}]` || got.head.Get("Preference-Applied") != "return=representation" {
		t.Fatal(got)
	}
	id := "d0d0d0d0-0000-4000-8000-000000000001"
	for _, c := range []struct {
		name, by, method, path, body string
		headers                      []string
		status                       int
		want                         string
		head                         string
	}{
		{"headers only", "alice", "POST", "notes", `{"id":"` + id + `","body":"b"}`, []string{"Prefer: return=headers-only"}, 201, "", "Location: /notes?id=eq." + id},
		{"another's id", "alice", "POST", "notes", `{"user_id":"` + id + `"}`, nil, 403, `{"code":"42501","message":"new row violates row-level security policy for table \"notes\"","details":null,"hint":null}`, ""},
		{"anonymous", "anon", "POST", "notes", `{"body":"x","user_id":"` + id + `"}`, nil, 401, `{"code":"42501","message":"new row violates row-level security policy for table \"notes\"","details":null,"hint":null}`, "Www-Authenticate: Bearer"},
		{"no policy for writes", "alice", "POST", "items", `{"id":1}`, nil, 403, `{"code":"42501","message":"new row violates row-level security policy for table \"items\"","details":null,"hint":null}`, ""},
		{"bob sees nothing", "bob", "GET", "notes", "", nil, 200, `[]`, ""},
		{"bob changes nothing", "bob", "PATCH", "notes?id=eq." + id, `{"body":"stolen"}`, []string{"Prefer: return=representation"}, 200, `[]`, "Content-Range: */*"},
		{"bob deletes nothing", "bob", "DELETE", "notes?id=eq." + id, "", []string{"Prefer: count=exact"}, 204, ``, "Content-Range: */0"},
		{"given away", "alice", "PATCH", "notes?id=eq." + id, `{"user_id":"` + id + `"}`, nil, 403, `{"code":"42501","message":"new row violates row-level security policy for table \"notes\"","details":null,"hint":null}`, ""},
		{"update", "alice", "PATCH", "notes?id=eq." + id, `{"body":"c"}`, nil, 204, "", "Content-Range: 0-0/*"},
		{"rolled back", "alice", "PATCH", "notes?id=eq." + id + "&select=body", `{"body":"d"}`, []string{"Prefer: return=representation", "Prefer: tx=rollback"}, 200, `[{"body":"d"}]`, "Preference-Applied: return=representation, tx=rollback"},
		{"after", "alice", "GET", "notes?select=body&id=eq." + id, "", nil, 200, `[{"body":"c"}]`, ""},
		{"single of two", "alice", "PATCH", "notes", `{"body":"e"}`, []string{"Prefer: return=representation", "Accept: application/vnd.pgrst.object+json"}, 406,
			`{"code":"PGRST116","message":"Cannot coerce the result to a single JSON object","details":"The result contains 2 rows","hint":null}`, ""},
		{"max affected", "alice", "DELETE", "notes", ``, []string{"Prefer: handling=strict, max-affected=1"}, 400,
			`{"code":"PGRST124","message":"Query result exceeds max-affected preference constraint","details":"The query affects 2 rows","hint":null}`, ""},
		{"nothing of it", "alice", "GET", "notes?select=body&order=body", "", nil, 200, `[{"body":"c"},{"body":"hello"}]`, ""},
		{"duplicate", "alice", "POST", "notes", `{"id":"` + id + `"}`, nil, 409, `{"code":"23505","message":"duplicate key value violates unique constraint \"notes_pkey\"","details":null,"hint":null}`, ""},
		{"duplicate for the service", "service", "POST", "notes", `{"id":"` + id + `","user_id":"` + id + `"}`, nil, 409,
			`{"code":"23505","message":"duplicate key value violates unique constraint \"notes_pkey\"","details":"Key (id)=(` + id + `) already exists.","hint":null}`, ""},
		{"not null", "service", "POST", "items", `{"id":5,"stock":null}`, nil, 400, `{"code":"23502","message":"null value in column \"stock\" of relation \"items\" violates not-null constraint","details":null,"hint":null}`, ""},
		{"unknown field", "service", "POST", "items", `{"id":5,"nope":null}`, nil, 400, `{"code":"PGRST204","message":"Could not find the 'nope' column of 'items' in the schema cache","details":null,"hint":null}`, ""},
		{"columns", "service", "POST", `items?columns="id","name"&select=id,name,ok`, `[{"id":5,"ok":true},{"id":6,"name":"n"}]`, []string{"Prefer: return=representation,count=exact"}, 201,
			`[{"id":5,"name":null,"ok":null},{"id":6,"name":"n","ok":null}]`, "Content-Range: */2"},
		{"missing is null", "service", "POST", `items?columns=id,stock`, `[{"id":7}]`, nil, 400, `{"code":"23502","message":"null value in column \"stock\" of relation \"items\" violates not-null constraint","details":null,"hint":null}`, ""},
		{"missing is the default", "service", "POST", `items?columns=id,stock&select=stock`, `[{"id":7},{"id":8,"stock":2}]`, []string{"Prefer: missing=default, return=representation"}, 201, `[{"stock":0},{"stock":2}]`, ""},
		{"keys differ", "service", "POST", "items", `[{"id":9},{"name":"x"}]`, nil, 400, `{"code":"PGRST102","message":"All object keys must match","details":null,"hint":null}`, ""},
		{"no rows", "service", "POST", "items", `[]`, nil, 201, ``, ""},
		{"upsert", "service", "POST", "items", `[{"id":9}]`, []string{"Prefer: resolution=merge-duplicates"}, 400, `{"code":"0A000","message":"upsert is not supported","details":null,"hint":"Insert without resolution=…, or update the rows by their key."}`, ""},
		{"delete", "alice", "DELETE", "notes?select=body&body=eq.hello", ``, []string{"Prefer: return=representation"}, 200, `[{"body":"hello"}]`, ""},
	} {
		got := s.send(t, c.by, c.method, c.path, c.body, c.headers...)
		if got.status != c.status || got.body != c.want {
			t.Errorf("%s: %d %s\nwant %d %s", c.name, got.status, got.body, c.status, c.want)
		}
		if name, v, ok := strings.Cut(c.head, ": "); ok && got.head.Get(name) != v {
			t.Errorf("%s: %s is %q, want %q", c.name, name, got.head.Get(name), v)
		}
	}
}

// Each change has its event with the table and the number of rows; what is refused has one too; and nothing of a row is
// in any of them.
func TestEvents(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	first := uint64(len(s.Events(t, s.Tenant, 0)))
	s.send(t, "alice", "POST", "notes", `[{"body":"canary"},{"body":"canary"}]`)
	s.send(t, "alice", "PATCH", "notes", `{"body":"canary2"}`)
	s.send(t, "alice", "PATCH", "notes?body=eq.none", `{"body":"canary2"}`)
	s.send(t, "anon", "POST", "notes", `{"body":"canary"}`)
	s.send(t, "alice", "DELETE", "notes", ``)
	var got []string
	for _, e := range s.Events(t, s.Tenant, first) {
		got = append(got, fmt.Sprintf("%s %s %s %s %v", e.Action, e.Object, e.Outcome, e.Reason, e.Notes))
	}
	want := []string{
		"rows.insert notes ok  map[rows:2]", "rows.update notes ok  map[rows:2]",
		"rows.insert notes denied 42501 map[]", "rows.delete notes ok  map[rows:2]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("events:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestBodies(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, c := range []struct {
		name, body string
		status     int
		code       string
	}{
		{"empty", "", 400, "PGRST102"}, {"number", "1", 400, "PGRST102"}, {"cut", `{"id":`, 400, "PGRST102"}, {"more", `{} {}`, 400, "PGRST102"},
		{"twice", `{"id":1,"id":2}`, 400, "PGRST102"}, {"inner twice", `{"id":1,"meta":{"a":1,"a":2}}`, 400, "PGRST102"},
		{"not UTF-8", "{\"name\":\"\xff\"}", 400, "PGRST102"}, {"mixed", `[{"id":1},2]`, 400, "PGRST102"},
		{"deep", strings.Repeat("[", 10000) + strings.Repeat("]", 10000), 400, "PGRST102"},
		{"deep value", `{"id":1,"meta":` + strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000) + "}", 400, "PGRST102"},
		{"large", `{"name":"` + strings.Repeat("x", 9<<20) + `"}`, 413, "body_too_large"},
		{"large row", `{"id":1,"name":"` + strings.Repeat("x", 2<<20) + `"}`, 400, "54000"},
	} {
		got := s.send(t, "service", "POST", "items", c.body)
		var e struct{ Code string }
		if err := json.Unmarshal([]byte(got.body), &e); err != nil || got.status != c.status || e.Code != c.code {
			t.Errorf("%s: %d %s", c.name, got.status, got.body)
		}
		if len(c.body) < 100 && c.body != "" && c.body != "1" && strings.Contains(got.body, c.body) {
			t.Errorf("%s: the error quotes the body", c.name)
		}
	}
	if got := s.send(t, "service", "POST", "items", "id=1", "Content-Type: application/x-www-form-urlencoded"); got.status != 400 {
		t.Error(got)
	}
	if got := s.send(t, "service", "GET", "items", ""); got.body != "[]" {
		t.Errorf("something was written: %s", got.body)
	}
}

// A node that cannot serve says so in the surface's own shape, and that trying again is worth it.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.Ring.Seal()
	got := s.send(t, "anon", "GET", "items", "")
	if got.status != 503 || got.head.Get("Retry-After") == "" || !strings.Contains(got.body, `"code":"PGRST001"`) || !strings.Contains(got.body, `"details":`) {
		t.Errorf("a sealed node: %v", got)
	}
}
