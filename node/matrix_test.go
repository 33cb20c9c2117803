package node

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"bulwark/security/audit"
	"bulwark/web/api"
)

// projectSurfaces is every method and path that a project answers, below auth/v1 and rest/v1, and what it needs.
var projectSurfaces = []struct {
	surface, path string
	methods       []string
	need          string // "nothing", "key": a key of the project, "person": a key and a person's token
}{
	{"auth/v1", "signup", []string{"POST"}, "key"},
	{"auth/v1", "token", []string{"POST"}, "key"},
	{"auth/v1", "user", []string{"GET", "PUT"}, "person"},
	{"auth/v1", "logout", []string{"POST"}, "person"},
	{"auth/v1", "settings", []string{"GET"}, "key"},
	{"auth/v1", "health", []string{"GET"}, "nothing"},
	{"auth/v1", ".well-known/jwks.json", []string{"GET"}, "nothing"},
	{"rest/v1", "notes", []string{"GET", "HEAD", "POST", "PATCH", "DELETE"}, "rows"},
}

// mounted is every pattern that the server itself knows.
var mounted = []string{"/api", "/p/{ref}/auth/v1", "/p/{ref}/rest/v1", "/healthz", "/readyz", "/metrics",
	"/.well-known/security.txt", "/"}

// TestSurfaces holds that nothing is answered that the lists above do not have.
func TestSurfaces(t *testing.T) {
	t.Parallel()
	var got []string
	walk(t, "../web/web.go", func(n ast.Node) {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 2 {
			return
		}
		if f, ok := call.Fun.(*ast.SelectorExpr); ok && (f.Sel.Name == "mount" || f.Sel.Name == "Handle" || f.Sel.Name == "HandleFunc") {
			if lit, ok := call.Args[0].(*ast.BasicLit); ok {
				got = append(got, unquote(t, lit))
			}
		}
	})
	slices.Sort(got)
	want := slices.Sorted(slices.Values(mounted))
	if !slices.Equal(got, want) {
		t.Errorf("the server mounts %q, and the list has %q", got, want)
	}

	got = nil
	walk(t, "../security/session/http.go", func(n ast.Node) {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Names[0].Name != "endpoints" {
			return
		}
		for _, e := range spec.Values[0].(*ast.CompositeLit).Elts {
			path := e.(*ast.KeyValueExpr)
			for _, m := range path.Value.(*ast.CompositeLit).Elts {
				method := m.(*ast.KeyValueExpr)
				need := method.Value.(*ast.CompositeLit).Elts[0].(*ast.Ident).Name
				need = map[string]string{"nothing": "nothing", "aKey": "key", "aPerson": "person"}[need]
				got = append(got, fmt.Sprintf("%s %s %s", unquote(t, path.Key.(*ast.BasicLit)),
					unquote(t, method.Key.(*ast.BasicLit)), need))
			}
		}
	})
	want = nil
	for _, s := range projectSurfaces {
		for _, m := range s.methods {
			if s.surface == "auth/v1" {
				want = append(want, fmt.Sprintf("%s %s %s", s.path, m, s.need))
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("auth/v1 has %q, and the list has %q", got, want)
	}
}

func walk(t *testing.T, file string, fn func(ast.Node)) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		fn(n)
		return true
	})
}

func unquote(t *testing.T, lit *ast.BasicLit) string {
	t.Helper()
	s, err := strconv.Unquote(lit.Value)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A credential is what a request presents.
type credential struct {
	name, key, bearer string
}

// A matrix runs requests that must change nothing and tell nothing of the tenant beta, and looks afterwards at what they did.
type matrix struct {
	*realm
	cases map[string]string // by the request's id
	marks map[string]uint64 // of each log, before
	rows  map[string]string // of each project, before
}

func newMatrix(t *testing.T) *matrix {
	m := &matrix{realm: newRealm(t), cases: map[string]string{}, marks: map[string]uint64{}, rows: map[string]string{}}
	for _, tenant := range []string{systemName, m.acme.id, m.beta.id} {
		_, m.marks[tenant] = m.events(tenant, 0)
	}
	m.eachTable(func(name, rows string) { m.rows[name] = rows })
	return m
}

// eachTable reads all that there is: rows, people by their sign-in, keys, settings.
func (m *matrix) eachTable(fn func(name, content string)) {
	for _, o := range []*org{m.acme, m.beta} {
		fn(o.name, string(m.manage(200, "GET", "/tenants/"+o.name+"/projects", nil, nil).body))
		for _, p := range o.projects {
			for _, table := range []string{"notes", "board", "dropbox", "closed"} {
				fn(p.ref+"/"+table, string(m.realm.rows(200, p, p.secret, "GET", table+"?order=id", nil, nil).body))
			}
			fn(p.ref+"/keys", string(m.manage(200, "GET", "/projects/"+p.ref+"/apikeys", nil, nil).body))
			fn(p.ref+"/sql", string(m.manage(200, "GET", "/projects/"+p.ref+"/sql", nil, nil).body))
		}
	}
	fn("tokens", string(m.manage(200, "GET", "/operator/tokens", nil, nil).body))
}

// check looks at one answer.
func (m *matrix) check(what string, a answer, want ...int) {
	m.t.Helper()
	if id := a.header.Get("X-Request-Id"); id != "" { // none where net/http refused the request by itself
		m.cases[id] = what
	}
	if !slices.Contains(want, a.status) {
		m.t.Errorf("%s: %d, want %d\n%.300s", what, a.status, want, a.body)
	}
	for _, secret := range []string{canary, m.beta.id, m.beta.projects[0].id, m.beta.projects[1].id} {
		if strings.Contains(string(a.body), secret) || strings.Contains(fmt.Sprint(a.header), secret) {
			m.t.Errorf("%s: the answer tells of another tenant: %.300s", what, a.body)
		}
	}
	if a.status >= 400 && tellsTooMuch(a.body) {
		m.t.Errorf("%s: the answer tells of the node's inside: %s", what, a.body)
	}
}

var inside = regexp.MustCompile(`\.go\b|goroutine |/tmp/|/home/|bbolt|raft|bulwark/|\bpanic|0x[0-9a-f]{6}`)

func tellsTooMuch(body []byte) bool { return inside.Match(body) }

// finish holds that the requests changed nothing, and that the logs say nothing of them but the events that are expected.
func (m *matrix) finish(expected func(what string, e *audit.Record) bool) {
	m.t.Helper()
	m.n.store.Close() // the read events that wait are written; the node goes on
	for tenant, mark := range m.marks {
		list, _ := m.events(tenant, mark)
		for _, e := range list {
			what, ours := m.cases[e.Request]
			if !ours || expected != nil && expected(what, e) {
				continue
			}
			m.t.Errorf("%s: left an event %s %s %s in the log of %s", what, e.Action, e.Object, e.Outcome, tenant)
		}
	}
	m.eachTable(func(name, content string) {
		if m.rows[name] != content {
			m.t.Errorf("%s was changed from %s to %s", name, m.rows[name], content)
		}
	})
}

// nobodys are credentials that prove no operator.
func (m *matrix) nobodys() []credential {
	a := m.acme.projects[0]
	return []credential{
		{"no credential", "", ""},
		{"a garbage token", "", "garbage"},
		{"a garbage operator token", "", "sb_operator_AAAAAAAAAAAAAAAAAAAAAA_AAAAAAAA"},
		{"a publishable key", "", a.public},
		{"a publishable key as apikey", a.public, ""},
		{"a secret key", "", a.secret},
		{"a secret key as both", a.secret, a.secret},
		{"a person", "", a.person.AccessToken},
		{"a person with the key", a.public, a.person.AccessToken},
		{"a revoked operator token", "", m.revoked},
		{"an operator token as apikey", m.operator, ""},
		{"an operator token cut", "", m.operator[:len(m.operator)-1]},
		{"two tokens in one", "", m.operator + " " + m.operator},
		{"another tenant's secret key", "", m.beta.projects[0].secret},
	}
}

// TestManagementMatrix sends every route of the management API with every credential that is none of an operator's.
func TestManagementMatrix(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	routes := m.n.api.Load().Routes()
	if len(routes) < 25 {
		t.Fatalf("there are only %d routes", len(routes))
	}
	base := "https://" + m.host
	for _, rt := range routes {
		for _, target := range []*place{m.acme.projects[0], m.beta.projects[0]} {
			path := strings.NewReplacer("{ref}", target.ref, "{tenant}", target.org.id, "{id}",
				target.pubID).Replace(rt.Path)
			if rt.Method == "DELETE" && strings.HasSuffix(rt.Path, "{tenant}") {
				path += "?confirm=" + target.org.name
			}
			for _, c := range m.nobodys() {
				a := m.send(m.web, rt.Method, base+path, bodyFor(rt), "apikey", c.key, "Authorization",
					bearerOf(c.bearer))
				m.check(rt.Method+" "+rt.Path+" with "+c.name, a, 401)
			}
			query := base + path + map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")]
			for _, name := range []string{"access_token", "apikey", "token"} {
				a := m.send(m.web, rt.Method, query+name+"="+m.operator, bodyFor(rt))
				m.check(rt.Method+" "+rt.Path+" with an operator token in the query", a, 401)
			}
		}
		for _, headers := range [][]string{
			{"Authorization: bearer " + m.operator}, {"Authorization: Basic " + m.operator},
			{"Authorization: " + m.operator},
			{"Authorization: Bearer " + m.revoked, "Authorization: Bearer " + m.operator},
			{"X-Forwarded-For: 127.0.0.1", "X-Real-Ip: 127.0.0.1"},
			{"Forwarded: for=127.0.0.1;proto=unix", "X-Original-Url: /healthz"}, {"X-Http-Method-Override: GET"},
			{"Host: localhost"}, {"Host: console"},
			{"Cookie: token=" + m.operator}, {"Proxy-Authorization: Bearer " + m.operator},
		} {
			path := strings.NewReplacer("{ref}", m.beta.projects[0].ref, "{tenant}", m.beta.name, "{id}",
				m.beta.projects[0].pubID).Replace(rt.Path)
			m.check(rt.Method+" "+rt.Path+" with "+headers[0][:12], m.raw(rt.Method, path, headers, rawBody(rt)), 401)
		}
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "get", "PROPFIND"} {
			taken := slices.ContainsFunc(routes, func(o api.RouteInfo) bool {
				return o.Path == rt.Path && (o.Method == method || o.Method == "GET" && method == "HEAD")
			})
			if taken {
				continue
			}
			a := m.raw(method, rt.Path, []string{"Authorization: Bearer " + m.operator}, "")
			m.check(method+" "+rt.Path+", which takes other methods", a, 400, 405)
		}
	}
	m.finish(nil)
}

// bodyFor is a body that the route would take.
func bodyFor(rt api.RouteInfo) any {
	switch {
	case rt.Method == "GET" || rt.Method == "DELETE":
		return nil
	case strings.HasSuffix(rt.Path, "/sql"):
		return map[string]string{"sql": "drop table notes"}
	case strings.HasSuffix(rt.Path, "/apikeys"):
		return map[string]string{"kind": "secret", "name": "forged"}
	case strings.HasSuffix(rt.Path, "/tokens"), strings.HasSuffix(rt.Path, "/tenants"), strings.HasSuffix(rt.Path, "/projects"):
		return map[string]string{"name": "forged"}
	case strings.HasSuffix(rt.Path, "/settings"):
		return map[string]any{"sign_up": false, "auto_confirm": false}
	}
	return map[string]any{}
}

func rawBody(rt api.RouteInfo) string {
	if rt.Method == "GET" || rt.Method == "DELETE" {
		return ""
	}
	return `{"name":"forged","kind":"secret","sql":"drop table notes"}`
}

// TestOperatorMatrix sends every route with an operator's token, and something that names nothing or cannot be read: the
// route is reached, and nothing happens. Spellings of the path that are not its own reach nothing.
func TestOperatorMatrix(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	auth := "Authorization: Bearer " + m.operator
	const nothing = "00000000-0000-7000-8000-000000000000"
	for _, rt := range m.n.api.Load().Routes() {
		path := strings.NewReplacer("{ref}", "abcdefghijklmnopqrst", "{tenant}", nothing, "{id}",
			nothing).Replace(rt.Path)
		body := `{"none_of_its_fields":1}`
		if rt.Method == "GET" {
			body = ""
		}
		want := []int{400, 404}
		if rt.Method == "GET" && !strings.Contains(rt.Path, "{") {
			want = []int{200}
		}
		if want[0] == 200 { // it tells an operator of everybody
			if a := m.raw(rt.Method, path, []string{auth}, body); a.status != 200 {
				t.Errorf("%s %s with an operator token: %d %s", rt.Method, rt.Path, a.status, a.body)
			}
		} else {
			m.check(rt.Method+" "+rt.Path+" of nothing with an operator token",
				m.raw(rt.Method, path, []string{auth}, body), want...)
		}
		path = strings.NewReplacer("{ref}", m.acme.projects[0].ref, "{tenant}", m.acme.id, "{id}",
			m.acme.projects[0].pubID).Replace(rt.Path)
		for _, spelled := range spellings(path) {
			want := []int{400, 404}
			if !strings.Contains(spelled, "//") {
				m.check(rt.Method+" "+spelled+" with an operator token",
					m.raw(rt.Method, spelled, []string{auth}, body), want...)
			}
			m.check(rt.Method+" "+spelled, m.raw(rt.Method, spelled, nil, body), 400, 401, 404)
		}
	}
	// A key's id is looked for in the project that the path names, and nowhere else.
	for _, p := range []*place{m.beta.projects[0], m.acme.projects[1]} {
		path := "/api/v1/projects/" + m.acme.projects[0].ref + "/apikeys/" + p.pubID
		m.check("revoking another project's key", m.raw("DELETE", path, []string{auth}, ""), 404)
		m.check("rotating another project's key", m.raw("POST", path+"/rotate", []string{auth}, `{}`), 404)
	}
	m.check("deleting a tenant without its name", m.raw("DELETE", "/api/v1/tenants/"+m.acme.id, []string{auth}, ""),
		400)
	m.check("deleting a tenant by another's name", m.raw("DELETE", "/api/v1/tenants/"+m.acme.id+"?confirm=system",
		[]string{auth}, ""), 400)
	m.check("deleting the system tenant", m.raw("DELETE", "/api/v1/tenants/system?confirm=system", []string{auth},
		""), 404)
	m.check("a project in the system tenant", m.raw("POST", "/api/v1/tenants/system/projects", []string{auth},
		`{"name":"mine"}`), 400)
	m.finish(nil)
}

// spellings are ways to write a path that are not its own.
func spellings(path string) []string {
	at := strings.LastIndexByte(path, '/')
	head, last := path[:at], path[at+1:]
	return []string{
		path + "/", path + "/.", path + "/..", path + "//", "//" + path[1:], strings.Replace(path, "/v1/", "//v1//", 1),
		head + "/./" + last, head + "/x/../" + last, "/healthz/.." + path, "/p/.." + path,
		head + "/%2e/" + last, head + "/x/%2e%2e/" + last, head + "%2f" + last, head + "%2F" + last,
		head + `\` + last, head + "%5c" + last,
		strings.ToUpper(path), strings.Replace(path, "/api/", "/API/", 1), strings.Replace(path, "/v1/", "/V1/", 1),
		path + "%00", path + "%0a", path + "%20", path + ";a=b", path + "%3f", path + "%", path + "%zz",
		path + "%c0%af", path + ".json",
		head + "/" + fmt.Sprintf("%%%02x", last[0]) + last[1:] + "x",
	}
}

// TestProjectMatrix sends every method of a project's surfaces with every credential that is none of the project's.
func TestProjectMatrix(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	own, sibling := m.acme.projects[0], m.acme.projects[1]
	// Those with a key of the project pass where a key is all that is needed.
	credentials := []struct {
		credential
		passes bool
	}{
		{credential{"no credential", "", ""}, false},
		{credential{"a garbage token", "", "garbage"}, false},
		{credential{"garbage as the key", "garbage", ""}, false},
		{credential{"a person without a key", "", own.person.AccessToken}, false},
		{credential{"a person's token as the key", own.person.AccessToken, ""}, false},
		{credential{"another tenant's publishable key", m.beta.projects[0].public, ""}, false},
		{credential{"another tenant's secret key", m.beta.projects[0].secret, m.beta.projects[0].secret}, false},
		{credential{"another tenant's key and person", m.beta.projects[0].public,
			m.beta.projects[0].person.AccessToken}, false},
		{credential{"another tenant's key and our person", m.beta.projects[0].public, own.person.AccessToken}, false},
		{credential{"another project's publishable key", sibling.public, ""}, false},
		{credential{"another project's secret key", "", sibling.secret}, false},
		{credential{"another project's key and our person", sibling.secret, own.person.AccessToken}, false},
		{credential{"a revoked key", own.revoked, ""}, false},
		{credential{"a revoked key and a person", own.revoked, own.person.AccessToken}, false},
		{credential{"an operator token", m.operator, m.operator}, false},
		{credential{"a revoked operator token", "", m.revoked}, false},
		{credential{"the key cut", own.public[:len(own.public)-1], ""}, false},
		{credential{"the key in capitals", strings.ToUpper(own.public), ""}, false},
		{credential{"the key and a garbage token", own.public, "garbage"}, true},
		{credential{"the key and another tenant's person", own.public, m.beta.projects[0].person.AccessToken}, true},
		{credential{"the key and another project's person", own.public, sibling.person.AccessToken}, true},
		{credential{"the secret key and another tenant's person", own.secret, m.beta.projects[0].person.AccessToken},
			true},
	}
	for _, s := range projectSurfaces {
		for _, method := range s.methods {
			url := own.url + "/" + s.surface + "/" + s.path
			for _, c := range credentials {
				what := method + " " + s.surface + "/" + s.path + " with " + c.name
				var body any
				if method != "GET" && method != "HEAD" {
					body = map[string]any{}
				}
				want := 401
				switch {
				case s.need == "nothing":
					want = 200
				case s.need == "key" && c.passes && method == "GET":
					want = 200
				case s.path == "signup" && c.passes: // nothing is in the body
					want = 422
				case s.path == "token" && c.passes:
					want = 400
				case s.need == "person" && c.passes:
					want = 403 // as the auth clients expect for a token that is not good
				}
				m.check(what, m.send(m.web, method, url, body, "apikey", c.key, "Authorization", bearerOf(c.bearer)),
					want)
			}
			// What belongs to nobody leads nowhere, whatever is presented.
			for _, ref := range []string{"abcdefghijklmnopqrst", strings.ToUpper(own.ref), own.ref + "x", own.ref[:19], own.id, own.org.id, "demo"} {
				a := m.raw(method, "/p/"+ref+"/"+s.surface+"/"+s.path,
					[]string{"apikey: " + own.public, "Authorization: Bearer " + own.person.AccessToken}, "")
				m.check(method+" "+s.surface+"/"+s.path+" of the project "+ref, a, 404)
			}
			path := "/p/" + own.ref + "/" + s.surface + "/" + s.path
			for _, spelled := range spellings(path) {
				m.check(method+" "+spelled+" without a credential",
					m.raw(method, strings.Replace(spelled, "/API/", "/P/", 1), nil, ""), 400, 401, 404, 405,
					map[string]int{"nothing": 200}[s.need])
			}
		}
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "get"} {
			if slices.Contains(s.methods, method) || method == "HEAD" && slices.Contains(s.methods, "GET") {
				continue
			}
			a := m.send(m.web, method, own.url+"/"+s.surface+"/"+s.path, nil, "apikey", own.secret)
			m.check(method+" "+s.surface+"/"+s.path, a, 405)
		}
	}
	// What the protocol has and this server does not offer.
	for _, path := range []string{
		"", "auth", "auth/v1", "auth/v1/", "auth/v1/admin/users", "auth/v1/admin/users/" + own.person.User.ID,
		"auth/v1/admin/generate_link", "auth/v1/invite", "auth/v1/otp", "auth/v1/verify",
		"auth/v1/recover", "auth/v1/magiclink", "auth/v1/resend", "auth/v1/reauthenticate", "auth/v1/authorize",
		"auth/v1/callback", "auth/v1/factors", "auth/v1/sso", "auth/v1/sso/saml/acs",
		"auth/v1/user/identities", "auth/v1/users", "auth/v1/sessions", "auth/v1/audit",
		"auth/v1/.well-known/openid-configuration", "auth/v1/oauth/token", "auth/v1/Signup",
		"auth/v1/user/" + own.person.User.ID,
		"rest", "rest/v1", "rest/v1/", "rest/v1/rpc/f", "rest/v1/auth.users", "rest/v1/pg_catalog.pg_class",
		"rest/v1/account", "rest/v1/session", "rest/v1/apikey", "rest/v1/schema", "rest/v1/notes/1",
		"rest/v1/notes%23ix", "rest/v1/Notes", "rest/v1/public.notes", "storage/v1/bucket", "functions/v1/f",
		"realtime/v1/websocket", "ingest/v1/events", "hooks/x", "graphql/v1", "pg/tables", "admin",
	} {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
			for _, key := range []string{"", own.public, own.secret} {
				var body any
				if method != "GET" {
					body = map[string]any{}
				}
				a := m.send(m.web, method, own.url+"/"+path, body, "apikey", key)
				m.check(method+" "+path, a, 401, 404, 405)
				if key != "" && a.status == 401 {
					t.Errorf("%s %s with a key: %s", method, path, a.body)
				}
			}
		}
	}
	for _, path := range []string{"/", "/admin", "/debug/pprof/", "/api", "/api/", "/api/v1", "/api/v1/", "/api/v2/tenants", "/api/v1/operator/profile/heap", "/api/v1/operator/profile/cpu?seconds=1", "/metrics",
		"/p", "/p/", "/.env", "/.git/config", "/favicon.ico", "/bulwark-data/ca.pem", "/.well-known/security.txt",
		"/rest/v1/notes", "/auth/v1/settings"} {
		for _, key := range []string{"", own.secret} {
			m.check("GET "+path, m.send(m.web, "GET", "https://"+m.host+path, nil, "apikey", key, "Authorization",
				bearerOf(key)), 401, 404)
		}
	}
	m.check("profiles are for the console", m.send(m.web, "GET", "https://"+m.host+"/api/v1/operator/profile/heap",
		nil, "Authorization", bearerOf(m.operator)), 404)
	m.check("the description", m.send(m.web, "GET", "https://"+m.host+"/api/v1/openapi.json", nil), 200)
	m.check("health", m.send(m.web, "GET", "https://"+m.host+"/healthz", nil), 200)
	m.check("readiness", m.send(m.web, "GET", "https://"+m.host+"/readyz", nil), 200)
	m.finish(nil)
}

// TestNothingAtTheConsole holds that a project's surfaces want their keys at the console too, where the operator is.
func TestNothingAtTheConsole(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	p := m.acme.projects[0]
	for _, s := range projectSurfaces {
		for _, method := range s.methods {
			if s.need == "nothing" {
				continue
			}
			m.check("the console's "+method+" "+s.path,
				m.send(m.console, method, "http://console/p/"+p.ref+"/"+s.surface+"/"+s.path, nil), 401)
		}
	}
	for _, origin := range []string{"https://evil.example", "null", "https://" + m.host + ".evil.example"} {
		a := m.send(m.console, "POST", "http://console/api/v1/tenants", map[string]string{"name": "forged"}, "Origin",
			origin)
		m.check("a page of "+origin, a, http.StatusForbidden)
		a = m.send(m.web, "POST", "https://"+m.host+"/api/v1/tenants", map[string]string{"name": "forged"}, "Origin",
			origin, "Authorization", bearerOf(m.operator))
		m.check("a page of "+origin+" with a token", a, http.StatusForbidden)
	}
	m.finish(nil)
}
