package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"bulwark/storage"
	"bulwark/web/api"
)

// guards knows one token, one tenant and one project.
type guards struct{}

func (guards) Operator(r *http.Request, tenant, project storage.ID) (storage.Actor, error) {
	if r.Header.Get("Authorization") != "Bearer right" {
		return storage.Actor{}, storage.Errorf(storage.Unauthenticated, "bad_token", "the token is not valid")
	}
	return storage.OperatorActor(tenant, project, storage.ID{}, "console", api.Origin(r)), nil
}

func (guards) Tenant(_ context.Context, name string) (storage.ID, error) {
	if name != "acme" {
		return storage.ID{}, storage.Errorf(storage.NotFound, "tenant_not_found", "there is no such tenant")
	}
	return storage.ID{1}, nil
}

func (guards) Project(_ context.Context, ref string) (storage.ID, storage.ID, error) {
	if ref != "abc" {
		return storage.ID{}, storage.ID{}, storage.Errorf(storage.NotFound, "project_not_found", "there is no such project")
	}
	return storage.ID{1}, storage.ID{2}, nil
}

type page struct {
	Limit int        `query:"limit" doc:"how many"`
	After storage.ID `query:"after"`
	Tags  []string   `query:"tag"`
	Wait  *bool      `query:"wait"`
}

type inner struct {
	Text string  `json:"text"`
	Next *inner  `json:"next,omitempty"`
	List []inner `json:"list,omitempty"`
}

type makeRequest struct {
	Tenant string `path:"tenant"`
	page
	inner
	When time.Time      `json:"when,omitzero"`
	Raw  []byte         `json:"raw,omitempty"`
	Map  map[string]int `json:"map,omitempty"`
}

type makeReply struct {
	Tenant storage.ID      `json:"tenant"`
	Inner  inner           `json:"inner"`
	Limit  int             `json:"limit"`
	Tags   []string        `json:"tags"`
	Any    json.RawMessage `json:"any"`
}

var (
	makeRoute   = api.Route[makeRequest, makeReply]{Method: "POST", Path: "/api/v1/tenants/{tenant}/things", Scope: api.TenantScope, Summary: "Make", Status: 201}
	deleteRoute = api.Route[deleteRequest, api.Empty]{Method: "DELETE", Path: "/api/v1/projects/{ref}/things/{id}", Scope: api.ProjectScope, Summary: "Delete"}
	streamRoute = api.Route[api.Empty, api.Empty]{Method: "GET", Path: "/api/v1/stream", Summary: "Stream"}
)

type deleteRequest struct {
	Ref string     `path:"ref"`
	ID  storage.ID `path:"id"`
}

func newMux(log io.Writer) *api.Mux {
	m := api.NewMux(api.Config{Authenticator: guards{}, Directory: guards{}, Logger: slog.New(slog.NewTextHandler(log, nil)), Version: "1.2"})
	api.Handle(m, makeRoute, func(_ context.Context, by storage.Actor, req makeRequest) (makeReply, error) {
		switch req.Text {
		case "fail":
			return makeReply{}, errors.New("cause-5512")
		case "late":
			return makeReply{}, fmt.Errorf("reading: %w", context.DeadlineExceeded)
		case "busy":
			return makeReply{}, storage.Errorf(storage.Unavailable, "no_leader", "there is no leader now: try again")
		}
		return makeReply{by.Tenant(), req.inner, req.Limit, req.Tags, json.RawMessage(`{"x":1}`)}, nil
	})
	api.Handle(m, deleteRoute, func(_ context.Context, by storage.Actor, req deleteRequest) (api.Empty, error) {
		if by.Project() != (storage.ID{2}) || req.ID.IsZero() {
			return api.Empty{}, errors.New("wrong actor or id")
		}
		return api.Empty{}, nil
	})
	api.HandleStream(m, streamRoute, "text/plain", func(_ context.Context, _ storage.Actor, _ api.Empty, w io.Writer) error {
		for range 1000 {
			if _, err := io.WriteString(w, "0123456789"); err != nil {
				return err
			}
		}
		return errors.New("broke off")
	})
	return m
}

// send sends one request over a real socket.
func send(t *testing.T, url, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer right")
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func serve(t *testing.T, m http.Handler) string {
	t.Helper()
	s := httptest.NewServer(m)
	t.Cleanup(s.Close)
	return s.URL
}

func TestStrictRequests(t *testing.T) {
	t.Parallel()
	url := serve(t, newMux(io.Discard))
	const path = "/api/v1/tenants/acme/things"
	deep := func(n int) string { return `{"map":` + strings.Repeat(`[`, n) + strings.Repeat(`]`, n) + `}` }
	cases := []struct {
		name, method, path, body string
		header                   []string
		status                   int
		code, field              string
	}{
		{name: "good", path: path + "?limit=3&tag=a&tag=b", body: `{"text":"x","next":{"text":"y"}}`, status: 201},
		{name: "no token", path: path, body: `{}`, header: []string{"Authorization", ""}, status: 401, code: "bad_token"},
		{name: "no token, no such tenant", path: "/api/v1/tenants/other/things", body: `{}`, header: []string{"Authorization", ""}, status: 401, code: "bad_token"},
		{name: "no token, bad body", path: path, body: `{`, header: []string{"Authorization", ""}, status: 401, code: "bad_token"},
		{name: "no such tenant", path: "/api/v1/tenants/other/things", body: `{}`, status: 404, code: "tenant_not_found"},
		{name: "unknown field", path: path, body: `{"txt":"x"}`, status: 400, code: "unknown_field", field: "txt"},
		{name: "unknown field below", path: path, body: `{"next":{"txt":"x"}}`, status: 400, code: "unknown_field", field: "next.txt"},
		{name: "case of a name", path: path, body: `{"Text":"x"}`, status: 400, code: "unknown_field", field: "Text"},
		{name: "a path's field in the body", path: path, body: `{"tenant":"x"}`, status: 400, code: "unknown_field", field: "tenant"},
		{name: "a query's field in the body", path: path, body: `{"limit":1}`, status: 400, code: "unknown_field", field: "limit"},
		{name: "duplicate name", path: path, body: `{"text":"x","text":"y"}`, status: 400, code: "duplicate_name", field: "text"},
		{name: "bad UTF-8", path: path, body: "{\"text\":\"\xff\"}", status: 400, code: "bad_utf8"},
		{name: "bad UTF-8 in a name", path: path, body: "{\"\xff\":1}", status: 400, code: "bad_utf8"},
		{name: "half a surrogate pair", path: path, body: `{"text":"\ud800"}`, status: 400, code: "bad_json"},
		{name: "wrong kind", path: path, body: `{"text":5}`, status: 400, code: "bad_value", field: "text"},
		{name: "not an object", path: path, body: `[]`, status: 400, code: "bad_value"},
		{name: "trailing bytes", path: path, body: `{} {}`, status: 400, code: "bad_json"},
		{name: "cut off", path: path, body: `{"text":"x`, status: 400, code: "bad_json"},
		{name: "bad time", path: path, body: `{"when":"soon"}`, status: 400, code: "bad_value", field: "when"},
		{name: "empty", path: path, status: 400, code: "empty_body"},
		{name: "at the limit of depth", path: path, body: deep(99), status: 400, code: "bad_value"},
		{name: "beyond the limit of depth", path: path, body: deep(100), status: 400, code: "nesting"},
		{name: "far beyond", path: path, body: strings.Repeat("[", 500_000), status: 400, code: "nesting"},
		{name: "brackets in a string", path: path, body: `{"text":"` + strings.Repeat(`[{\"`, 500) + `"}`, status: 201},
		{name: "too large", path: path, body: `{"text":"` + strings.Repeat("x", 1<<20) + `"}`, status: 413, code: "body_too_large"},
		{name: "content type", path: path, body: `{}`, header: []string{"Content-Type", "text/plain"}, status: 400, code: "content_type"},
		{name: "no content type", path: path, body: `{}`, header: []string{"Content-Type", ""}, status: 400, code: "content_type"},
		{name: "charset", path: path, body: `{}`, header: []string{"Content-Type", "application/json; charset=latin1"}, status: 400, code: "content_type"},
		{name: "utf-8", path: path, body: `{}`, header: []string{"Content-Type", "application/json; charset=UTF-8"}, status: 201},
		{name: "unknown parameter", path: path + "?limt=3", body: `{}`, status: 400, code: "unknown_parameter", field: "limt"},
		{name: "parameter twice", path: path + "?limit=3&limit=4", body: `{}`, status: 400, code: "duplicate_parameter", field: "limit"},
		{name: "bad number", path: path + "?limit=x", body: `{}`, status: 400, code: "bad_parameter", field: "limit"},
		{name: "bad id", path: path + "?after=x", body: `{}`, status: 400, code: "bad_parameter", field: "after"},
		{name: "bad bool", path: path + "?wait=perhaps", body: `{}`, status: 400, code: "bad_parameter", field: "wait"},
		{name: "bad query", path: path + "?a=%zz", body: `{}`, status: 400, code: "bad_query"},
		{name: "zero byte", path: path + "?tag=%00", body: `{}`, status: 400, code: "bad_parameter", field: "tag"},
		{name: "bad id in the path", method: "DELETE", path: "/api/v1/projects/abc/things/x", status: 400, code: "bad_path", field: "id"},
		{name: "a body where none is taken", method: "DELETE", path: "/api/v1/projects/abc/things/00000000-0000-7000-8000-000000000001", body: `{"a":1}`, status: 400, code: "unexpected_body"},
		{name: "no content", method: "DELETE", path: "/api/v1/projects/abc/things/00000000-0000-7000-8000-000000000001", status: 204},
		{name: "no such project", method: "DELETE", path: "/api/v1/projects/xyz/things/00000000-0000-7000-8000-000000000001", status: 404, code: "project_not_found"},
		{name: "wrong method", method: "PATCH", path: path, body: `{}`, status: 400, code: "method"},
		{name: "no such endpoint", path: "/api/v1/nothing", body: `{}`, status: 404, code: "no_such_endpoint"},
		{name: "internal", path: path, body: `{"text":"fail"}`, status: 500, code: "internal"},
		{name: "late", path: path, body: `{"text":"late"}`, status: 503, code: "deadline"},
		{name: "busy", path: path, body: `{"text":"busy"}`, status: 503, code: "no_leader"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.method == "" {
				c.method = "POST"
			}
			resp, body := send(t, url, c.method, c.path, c.body, c.header...)
			if resp.StatusCode != c.status {
				t.Fatalf("%s %.300s, want %d", resp.Status, body, c.status)
			}
			if c.code == "" {
				return
			}
			var p api.Problem
			if err := json.Unmarshal([]byte(body), &p); err != nil || resp.Header.Get("Content-Type") != api.ProblemType {
				t.Fatalf("%v in %s %s", err, resp.Header.Get("Content-Type"), body)
			}
			if p.Code != c.code || c.field != "" && p.Field != c.field || p.Status != c.status || p.Title == "" || p.Detail == "" || len(body) > 1000 {
				t.Errorf("got %.500s", body)
			}
			if (resp.Header.Get("Retry-After") != "") != (c.status == 503) || (resp.Header.Get("WWW-Authenticate") != "") != (c.status == 401) {
				t.Errorf("headers %v", resp.Header)
			}
			if resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("an error may be stored")
			}
		})
	}
}

func TestInternalCauseIsForTheLog(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	m := newMux(&log)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.ServeHTTP(w, r.WithContext(api.WithRequestID(r.Context(), "req-1")))
	})
	s := httptest.NewServer(h)
	_, body := send(t, s.URL, "POST", "/api/v1/tenants/acme/things", `{"text":"fail"}`)
	s.Close() // the log is complete
	if strings.Contains(body, "cause-5512") || !strings.Contains(body, `"request_id":"req-1"`) {
		t.Errorf("the client got %s", body)
	}
	if !strings.Contains(log.String(), "cause-5512") || !strings.Contains(log.String(), "request_id=req-1") {
		t.Errorf("the log got %s", log.String())
	}
}

func TestABrokenStreamIsCut(t *testing.T) {
	t.Parallel()
	url := serve(t, newMux(io.Discard))
	r, err := http.NewRequestWithContext(t.Context(), "GET", url+"/api/v1/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer right")
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("a stream that broke off after %d bytes looks whole", len(b))
	}
}

func TestEveryRouteNeedsAnOperator(t *testing.T) {
	t.Parallel()
	m := newMux(io.Discard)
	url := serve(t, m)
	if len(m.Routes()) != 3 {
		t.Fatalf("%d routes", len(m.Routes()))
	}
	for _, info := range m.Routes() {
		path := strings.NewReplacer("{tenant}", "acme", "{ref}", "abc", "{id}", "x").Replace(info.Path)
		if resp, body := send(t, url, info.Method, path, "{}", "Authorization", "Bearer wrong"); resp.StatusCode != 401 {
			t.Errorf("%s %s: %s %s", info.Method, info.Path, resp.Status, body)
		}
	}
}

// TestDescription reads the description as a client generator would: every reference resolves, every path's names are
// its parameters.
func TestDescription(t *testing.T) {
	t.Parallel()
	url := serve(t, newMux(io.Discard))
	resp, body := send(t, url, "GET", api.DescriptionPath, "")
	var doc map[string]any
	if err := json.Unmarshal([]byte(body), &doc); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	if doc["openapi"] != "3.1.0" || at(doc, "info", "version") != "1.2" {
		t.Errorf("%v %v", doc["openapi"], doc["info"])
	}
	op := at(doc, "paths", "/api/v1/tenants/{tenant}/things", "post")
	var names []string
	for _, p := range at(op, "parameters").([]any) {
		names = append(names, fmt.Sprint(at(p, "in"), ":", at(p, "name")))
	}
	if strings.Join(names, " ") != "path:tenant query:limit query:after query:tag query:wait" {
		t.Errorf("parameters %v", names)
	}
	schema := at(op, "requestBody", "content", "application/json", "schema")
	if at(schema, "additionalProperties") != false || at(schema, "properties", "when", "format") != "date-time" ||
		at(schema, "properties", "raw", "contentEncoding") != "base64" {
		t.Errorf("the body's schema: %v", schema)
	}
	if at(op, "responses", "201") == nil || at(op, "responses", "default", "$ref") != "#/components/responses/problem" {
		t.Errorf("responses %v", at(op, "responses"))
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok && at(doc, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...) == nil {
				t.Errorf("%s is nowhere", ref)
			}
			for _, below := range v {
				walk(below)
			}
		case []any:
			for _, below := range v {
				walk(below)
			}
		}
	}
	walk(doc)
}

func at(v any, names ...string) any {
	for _, name := range names {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

func TestMistakesInRoutesAreFound(t *testing.T) {
	t.Parallel()
	type noTag struct{ Name string }
	type notInPath struct {
		Other string `path:"other"`
	}
	type badQuery struct {
		Q map[string]string `query:"q"`
	}
	type body struct {
		Name string `json:"name"`
	}
	none := func(m *api.Mux) {}
	cases := map[string]func(m *api.Mux){
		"no tag":             func(m *api.Mux) { handle[noTag](m, "POST", "/api/v1/x", api.SystemScope) },
		"not in the path":    func(m *api.Mux) { handle[notInPath](m, "POST", "/api/v1/x", api.SystemScope) },
		"a map in the query": func(m *api.Mux) { handle[badQuery](m, "POST", "/api/v1/x", api.SystemScope) },
		"a body on GET":      func(m *api.Mux) { handle[body](m, "GET", "/api/v1/x", api.SystemScope) },
		"no tenant":          func(m *api.Mux) { handle[api.Empty](m, "GET", "/api/v1/x", api.TenantScope) },
		"no ref":             func(m *api.Mux) { handle[api.Empty](m, "GET", "/api/v1/x", api.ProjectScope) },
		"elsewhere":          func(m *api.Mux) { handle[api.Empty](m, "GET", "/x", api.SystemScope) },
		"twice": func(m *api.Mux) {
			handle[api.Empty](m, "GET", "/api/v1/x", api.SystemScope)
			handle[api.Empty](m, "GET", "/api/v1/x", api.SystemScope)
		},
		"no guards": func(*api.Mux) { api.NewMux(api.Config{}) },
		"":          none,
	}
	for name, fn := range cases {
		func() {
			defer func() {
				if v := recover(); (v == nil) != (name == "") {
					t.Errorf("%s: %v", name, v)
				}
			}()
			fn(newMux(io.Discard))
		}()
	}
}

func handle[Req any](m *api.Mux, method, path string, s api.Scope) {
	api.Handle(m, api.Route[Req, api.Empty]{Method: method, Path: path, Scope: s},
		func(context.Context, storage.Actor, Req) (api.Empty, error) { return api.Empty{}, nil })
}

// FuzzDecodeJSON holds that what is taken is JSON that the standard library takes too, nests no deeper than the limit, and
// that what is refused is refused as bad input, in one short line without the values.
func FuzzDecodeJSON(f *testing.F) {
	for _, s := range []string{`{}`, `{"text":"x","list":[{"text":"y"}]}`, `{"text":"x","text":"y"}`, `[[[[[[`, "{\"text\":\"\xff\"}",
		`{"text":"\ud800"}`, `{"next":null}`, `{"text":1e999}`, `{} `, `"\"[[["`, `{"list":[{"list":[{"list":[]}]}]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var got inner
		err := api.DecodeJSON(body, &got, 5)
		if err != nil {
			var e *storage.Error
			if !errors.As(err, &e) || e.Fault != storage.BadInput || len(e.Message) > 300 || strings.ContainsAny(e.Message, "\n\x00") {
				t.Fatalf("%q: %v", body, err)
			}
			return
		}
		var std any
		if err := json.Unmarshal(body, &std); err != nil {
			t.Fatalf("%q was taken, which is not JSON: %v", body, err)
		}
		if d := depth(std); d > 5 {
			t.Fatalf("%q nests %d deep", body, d)
		}
	})
}

func depth(v any) int {
	most := 0
	switch v := v.(type) {
	case map[string]any:
		for _, below := range v {
			most = max(most, depth(below))
		}
	case []any:
		for _, below := range v {
			most = max(most, depth(below))
		}
	default:
		return 0
	}
	return most + 1
}
