//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// A surface is one way into the node: where it is, what it wants, and how it says that something is wrong.
type surface struct {
	name   string
	path   string // of something that takes a body
	header string
	unix   bool
	keys   []string // of an error's JSON
}

// surfaces are all the ways in.
func (p *process) surfaces(t testing.TB) []surface {
	t.Helper()
	out, errs, code := run(t, "operator", "api-token", "create", "outsider", "--json", "--data", p.Data)
	var token struct{ Value string }
	if err := json.Unmarshal([]byte(out), &token); err != nil || code != 0 || token.Value == "" {
		t.Fatalf("operator api-token create: %d %v\n%s", code, err, errs)
	}
	u, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	problem := []string{"type", "title", "status", "detail", "code", "request_id"}
	postgrest := []string{"code", "message", "details", "hint"}
	key := "apikey: " + p.PublishableKey + "\r\n"
	return []surface{
		{"auth", u.Path + "/auth/v1/signup", key, false, []string{"error_code", "msg", "code"}},
		{"rest", u.Path + "/rest/v1/notes", key, false, postgrest},
		{"api", "/api/v1/tenants", "Authorization: Bearer " + token.Value + "\r\n", false, problem},
		{"console", "/api/v1/tenants", "", true, problem},
		{"no project", "/p/nosuchproject/rest/v1/notes", key, false, postgrest},
		{"nothing", "/nothing/here", "", false, problem},
	}
}

// dial opens a connection to a surface.
func (p *process) dial(t testing.TB, s surface) net.Conn {
	t.Helper()
	var c net.Conn
	var err error
	d := &net.Dialer{Timeout: 10 * time.Second}
	if s.unix {
		c, err = d.Dial("unix", filepath.Join(p.Data, "bulwark.sock"))
	} else {
		c, err = tls.DialWithDialer(d, "tcp", p.listen, p.client.Transport.(*http.Transport).TLSClientConfig.Clone())
	}
	if err == nil {
		err = c.SetDeadline(time.Now().Add(30 * time.Second))
	}
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	return c
}

// raw sends bytes, then what body has, and reads one answer while it does. There is none if the node cuts the connection.
func (p *process) raw(t testing.TB, s surface, head string, body io.Reader) *answer {
	t.Helper()
	c := p.dial(t, s)
	defer c.Close()
	var sent sync.WaitGroup
	sent.Go(func() {
		// The node may close before it has read everything.
		if _, err := io.WriteString(c, head); err == nil && body != nil {
			_, _ = io.Copy(c, body)
		}
	})
	defer sent.Wait()
	defer c.Close()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return &answer{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return &answer{status: resp.StatusCode, header: resp.Header, body: b, err: err}
}

type answer struct {
	status int
	header http.Header
	body   []byte
	err    error
}

// inShape expects an error of a client's making, as the surface tells errors.
func (a *answer) inShape(t testing.TB, s surface, what string) {
	t.Helper()
	if a.err != nil || a.status < 400 || a.status >= 500 {
		t.Errorf("%s, %s: %d %v\n%.300s", s.name, what, a.status, a.err, a.body)
		return
	}
	var got map[string]any
	if err := json.Unmarshal(a.body, &got); err != nil {
		t.Errorf("%s, %s: %d, which is not JSON: %.300s", s.name, what, a.status, a.body)
		return
	}
	for _, key := range s.keys {
		if _, ok := got[key]; !ok {
			t.Errorf("%s, %s: %d, without %q: %.300s", s.name, what, a.status, key, a.body)
		}
	}
	if len(a.body) > 4<<10 {
		t.Errorf("%s, %s: the error has %d bytes", s.name, what, len(a.body))
	}
	for _, key := range []string{"msg", "message", "detail"} {
		if text, ok := got[key].(string); ok && len(text) < 10 {
			t.Errorf("%s, %s: it says only %q", s.name, what, text)
		}
	}
}

// refusedByHTTP expects what net/http itself answers, before there is a surface, or a connection that is cut.
func (a *answer) refusedByHTTP(t testing.TB, s surface, what string) {
	t.Helper()
	if a.err == nil && (a.status < 400 || a.status == http.StatusInternalServerError || a.status == http.StatusBadGateway) {
		t.Errorf("%s, %s: %d %.300s", s.name, what, a.status, a.body)
	}
}

func (s surface) post(contentType string, more string) string {
	return "POST " + s.path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + s.header + "Content-Type: " + contentType + "\r\n" + more + "\r\n"
}

func (s surface) json(body string) string {
	return s.post("application/json", fmt.Sprintf("Content-Length: %d\r\n", len(body))) + body
}

// mutations counts what was changed, by action.
func mutations(t testing.TB, p *process) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, tenant := range []string{"demo", "system"} {
		for _, e := range exportedOf(t, p, tenant) {
			action, _ := e["action"].(string)
			if e["outcome"] == "ok" && !strings.HasPrefix(action, "audit.") && !isRead(e) {
				out[tenant+" "+action]++
			}
		}
	}
	return out
}

// isRead reports whether an event counts reads, and no change.
func isRead(e map[string]any) bool {
	notes, _ := json.Marshal(e)
	return bytes.Contains(notes, []byte(`"reads"`))
}

// exportedOf is exported for any tenant.
func exportedOf(t testing.TB, p *process, tenant string) (events []map[string]any) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	if out, errs, code := run(t, "audit", "export", "--data", p.Data, "--tenant", tenant, "-o", file); code != 0 {
		t.Fatalf("audit export: exit code %d\n%s%s", code, out, errs)
	}
	for line := range bytes.Lines(read(t, file)) {
		var l struct{ Event map[string]any }
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatal(err)
		}
		if l.Event != nil {
			events = append(events, l.Event)
		}
	}
	return events
}

// nothingWritten runs f and expects that it changed nothing.
func (p *process) nothingWritten(t *testing.T, who session, f func()) {
	t.Helper()
	rows, before := p.count(t, who), mutations(t, p)
	f()
	if n := p.count(t, who); n != rows {
		t.Errorf("there were %d rows and are %d", rows, n)
	}
	if after := mutations(t, p); !maps.Equal(before, after) {
		t.Errorf("it changed something:\nbefore %v\nafter  %v", before, after)
	}
}

// memory watches how much memory the node has while f runs, and returns by how much it grew, in MiB.
func (p *process) memory(t testing.TB, f func()) float64 {
	t.Helper()
	before := resident(t, p)
	most := before
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			most = max(most, resident(t, p))
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
	})
	f()
	close(done)
	watch.Wait()
	return most - before
}

// resident is a process's VmRSS in MiB (proc_pid_status(5)).
func resident(t testing.TB, p *process) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Error(err)
		return 0
	}
	_, rest, _ := bytes.Cut(b, []byte("VmRSS:"))
	var kib float64
	if _, err := fmt.Sscan(string(rest), &kib); err != nil {
		t.Error(err)
	}
	return kib / 1024
}

// mostGrowth bounds the memory, in MiB, that bad input may take.
const mostGrowth = 64

// TestBadInput sends what no client should to every surface of one node: each time a clear error in the surface's own shape,
// bounded memory, nothing written, and the node goes on.
func TestBadInput(t *testing.T) {
	p := serve(t, filepath.Join(t.TempDir(), "data"), "--header-timeout", "2s", "--request-timeout", "5s")
	who := p.signUp(t, "somebody@example.com")
	p.insert(t, who, 50)
	surfaces := p.surfaces(t)
	for _, part := range []struct {
		name string
		run  func(*testing.T, *process, session, []surface)
	}{
		{"http", badHTTP}, {"bodies", badBodies}, {"large bodies", largeBodies}, {"paths", badPaths}, {"slow", slow},
	} {
		t.Run(part.name, func(t *testing.T) {
			p.nothingWritten(t, who, func() {
				grew := p.memory(t, func() { part.run(t, p, who, surfaces) })
				t.Logf("the node grew by %.0f MiB", grew)
				if grew > mostGrowth {
					t.Errorf("the node grew by %.0f MiB", grew)
				}
			})
		})
	}
	t.Run("sql", func(t *testing.T) { p.nothingWritten(t, who, func() { badSQL(t, p) }) })
	p.insert(t, who, 1)
	p.stop(t)
	for _, word := range []string{"panic", "goroutine ", "fatal error"} {
		if strings.Contains(p.log.String(), word) {
			t.Errorf("the log has %q:\n%s", word, p.log)
		}
	}
}

func badHTTP(t *testing.T, p *process, _ session, surfaces []surface) {
	eachAtOnce(surfaces, func(s surface) {
		get := "GET " + s.path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + s.header
		body := "{\"name\":\"x\"}"
		post := func(more, body string) string { return s.post("application/json", more) + body }
		for what, request := range map[string]string{
			"no HTTP at all":           "\x16\x03\x01hello\r\n\r\n",
			"an empty request line":    "\r\n\r\n",
			"no version":               "GET " + s.path + "\r\n\r\n",
			"an unknown version":       "GET " + s.path + " HTTP/9.9\r\nHost: localhost\r\n\r\n",
			"a method with a space":    "GE T " + s.path + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
			"no host":                  "GET " + s.path + " HTTP/1.1\r\n\r\n",
			"two hosts":                get + "Host: other\r\n\r\n",
			"a host with a slash":      "GET " + s.path + " HTTP/1.1\r\nHost: a/b c\r\n\r\n",
			"NUL in a path":            "GET " + s.path + "\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
			"NUL in a header":          get + "X-A: a\x00b\r\n\r\n",
			"a space before the colon": get + "X-A : b\r\n\r\n",
			"a header without a colon": get + "nonsense\r\n\r\n",
			"a header without a name":  get + ": b\r\n\r\n",
			"length and chunks": post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
				fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n", len(body)+9999999, body)),
			"two lengths":             post("Content-Length: 5\r\nContent-Length: 6\r\n", body),
			"a negative length":       post("Content-Length: -5\r\n", body),
			"a length of no number":   post("Content-Length: 0x10\r\n", body),
			"a length beyond 64 bits": post("Content-Length: 99999999999999999999\r\n", body),
			"an unknown encoding":     post("Transfer-Encoding: gzip, chunked\r\n", body),
			"chunks of no number":     post("Transfer-Encoding: chunked\r\n", "zz\r\n"+body+"\r\n0\r\n\r\n"),
			"a chunk of 2^70 bytes":   post("Transfer-Encoding: chunked\r\n", "400000000000000000\r\n"+body),
			"huge headers":            get + "X-A: " + strings.Repeat("a", 1<<20) + "\r\n\r\n",
			"very many headers":       get + strings.Repeat("X-A: b\r\n", 20_000) + "\r\n",
			"an endless request line": "GET /" + strings.Repeat("a", 4<<20),
			"an absolute URL":         "GET http://[::1/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
		} {
			p.raw(t, s, request, nil).refusedByHTTP(t, s, what)
		}
		// As long as the headers hold it, a long URL comes to the surface.
		p.raw(t, s, "GET "+s.path+strings.Repeat("/a", 10_000)+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+s.header+"\r\n", nil).
			inShape(t, s, "a long path")
	})
}

// eachAtOnce runs f for all surfaces at once: some of what they are sent takes a while to be refused.
func eachAtOnce(surfaces []surface, f func(surface)) {
	var all sync.WaitGroup
	for _, s := range surfaces {
		all.Go(func() { f(s) })
	}
	all.Wait()
}

func badBodies(t *testing.T, p *process, who session, surfaces []surface) {
	for _, s := range surfaces {
		for what, body := range map[string]string{
			"objects, 10,000 deep":     strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_000),
			"arrays, 10,000 deep":      strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000),
			"a million brackets":       strings.Repeat("[", 1_000_000),
			"deep in a field":          `{"name":"a","email":"a@example.com","password":"long enough 1","body":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}`,
			"nothing":                  "",
			"no JSON":                  "name=a&body=b",
			"half of it":               `{"name":"a","body":"b"`,
			"two documents":            `{"name":"a"}{"name":"b"}`,
			"invalid UTF-8":            "{\"name\":\"\xff\xfe\",\"email\":\"\xff@example.com\",\"password\":\"long enough 1\",\"body\":\"\xc3\x28\"}",
			"half a surrogate":         `{"name":"\ud800","email":"\ud800@example.com","password":"long enough 1","body":"\ud800"}`,
			"duplicate names":          `{"name":"a","name":"b","email":"a@example.com","email":"b@example.com","password":"long enough 1","body":"a","body":"b"}`,
			"a number beyond bounds":   `{"name":1e999,"email":1e999,"id":1e999}`,
			"NUL in text":              `{"name":"a\u0000b","email":"a\u0000@example.com","password":"long enough 1","body":"a\u0000b"}`,
			"another type":             `{"name":{"a":1},"email":["a"],"id":{"a":1}}`,
			"a name of a megabyte":     `{"` + strings.Repeat("a", 1<<20) + `":1}`,
			"a hundred thousand names": "{" + manyNames(100_000) + "}",
		} {
			p.raw(t, s, s.json(body), nil).inShape(t, s, what)
		}
		for _, contentType := range []string{"text/plain", "application/xml", "multipart/form-data; boundary=x", "application/json; charset=utf-16", "nonsense;;;=", ""} {
			body := `<a/>`
			p.raw(t, s, s.post(contentType, fmt.Sprintf("Content-Length: %d\r\n", len(body)))+body, nil).inShape(t, s, "content type "+contentType)
		}
		body := "\x1f\x8b\x08" + strings.Repeat("\x00", 100)
		p.raw(t, s, s.post("application/json", fmt.Sprintf("Content-Encoding: gzip\r\nContent-Length: %d\r\n", len(body)))+body, nil).
			inShape(t, s, "a compressed body")
	}
	for what, query := range map[string]string{
		"an unknown operator":   "body=frob.1",
		"deep logic":            "or=" + strings.Repeat("(and", 2000) + strings.Repeat(")", 2000),
		"an unknown column":     "nosuch=eq.1",
		"a select that is deep": "select=" + strings.Repeat("a(", 2000) + strings.Repeat(")", 2000),
		"a negative limit":      "limit=-1",
		"invalid UTF-8":         "body=eq.%ff%fe",
		"a bad escape":          "body=eq.%zz",
		"an order of nothing":   "order=nosuch.desc",
	} {
		status, _, b := p.send(t, "GET", "/rest/v1/notes?"+query, who.AccessToken, "")
		if status != http.StatusBadRequest && status != http.StatusRequestURITooLong && status != http.StatusRequestHeaderFieldsTooLarge &&
			status != http.StatusRequestedRangeNotSatisfiable || !json.Valid(b) {
			t.Errorf("rest, %s: %d %.300s", what, status, b)
		}
	}
}

func manyNames(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf(`"n%d":1`, i)
	}
	return strings.Join(names, ",")
}

// A flood is a body of a size that says nothing.
type flood struct{ left int64 }

func (f *flood) Read(b []byte) (int, error) {
	if f.left <= 0 {
		return 0, io.EOF
	}
	n := min(int64(len(b)), f.left)
	for i := range b[:n] {
		b[i] = 'a'
	}
	f.left -= n
	return int(n), nil
}

const gigabyte = 1 << 30

func largeBodies(t *testing.T, p *process, _ session, surfaces []surface) {
	var all sync.WaitGroup
	for _, s := range surfaces {
		all.Go(func() {
			a := p.raw(t, s, s.post("application/json", fmt.Sprintf("Content-Length: %d\r\n", gigabyte))+`{"name":"`, &flood{gigabyte})
			a.inShape(t, s, "a gigabyte, announced")
		})
		all.Go(func() {
			// One chunk of a gigabyte, and then one after the other.
			head := s.post("application/json", "Transfer-Encoding: chunked\r\n")
			a := p.raw(t, s, head+fmt.Sprintf("%x\r\n{\"name\":\"", gigabyte), &flood{gigabyte})
			a.inShape(t, s, "a gigabyte, in one chunk")
			chunk := fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat("a", 64<<10))
			a = p.raw(t, s, head+"9\r\n{\"name\":\"\r\n", &repeated{chunk: []byte(chunk), times: gigabyte >> 16})
			a.inShape(t, s, "a gigabyte, in chunks")
		})
	}
	all.Wait()
}

// A repeated is the same bytes again and again.
type repeated struct {
	chunk []byte
	at    int
	times int
}

func (r *repeated) Read(b []byte) (int, error) {
	if r.times == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.chunk[r.at:])
	if r.at += n; r.at == len(r.chunk) {
		r.at, r.times = 0, r.times-1
	}
	return n, nil
}

func badPaths(t *testing.T, p *process, _ session, surfaces []surface) {
	for _, s := range surfaces {
		dir := s.path[:strings.LastIndex(s.path, "/")]
		for _, path := range []string{
			dir + "/../v1/notes", dir + "/./notes", dir + "/%2e%2e/notes", dir + "/%2E./notes", dir + "/a%2fb", dir + "/a%2Fb", dir + "/a%5cb",
			dir + `/a\b`, dir + "/%00", dir + "/a%0d%0ab", dir + "/%ff%fe", dir + "/..;/notes", dir + "/notes%", dir + "/%zz",
			"/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", dir + "//../..//etc/passwd", dir + "/nosuch%20table/" + strings.Repeat("x", 5000),
		} {
			a := p.raw(t, s, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+s.header+"\r\n", nil)
			a.refusedByHTTP(t, s, path)
			if a.err != nil {
				t.Errorf("%s, %.100s: %v", s.name, path, a.err)
			}
			// net/http refuses what cannot be a URL, before there is a surface.
			if !strings.HasSuffix(path, "%") && !strings.Contains(path, "%zz") && !strings.HasPrefix(path, "/.") && !strings.HasPrefix(path, "/%") {
				a.inShape(t, s, fmt.Sprintf("%.100s", path))
			}
			if bytes.Contains(a.body, []byte("root:")) {
				t.Errorf("%s: %s", path, a.body)
			}
		}
	}
}

// slow has many connections that send nothing more, and expects that others are served meanwhile and that the slow ones are
// closed.
func slow(t *testing.T, p *process, who session, surfaces []surface) {
	var open []net.Conn
	for n := range 150 {
		s := surfaces[n%3]
		c := p.dial(t, s)
		defer c.Close()
		var text string
		switch n % 3 {
		case 0:
			text = "POST " + s.path + " HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
		case 1:
			text = s.post("application/json", "Content-Length: 1000\r\n") + `{"name":"`
		case 2:
			text = s.post("application/json", "Transfer-Encoding: chunked\r\n") + "5\r\n{\"na"
		}
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	began := time.Now()
	for range 20 {
		if status, b, err := p.do(t.Context(), "GET", "/rest/v1/notes?select=id&limit=1", who.AccessToken, nil); err != nil || status != http.StatusOK {
			t.Errorf("others are not served: %d %s %v", status, b, err)
		}
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("others are served slowly: 20 requests in %v", took)
	}
	for n, c := range open {
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a slow connection (%d) is still open after %v", n, time.Since(began))
		}
	}
}

// badSQL applies statements that are not supported, and others that should break a parser.
func badSQL(t *testing.T, p *process) {
	ref := p.URL[strings.LastIndex(p.URL, "/")+1:]
	apply := func(sql string) string {
		t.Helper()
		file := filepath.Join(t.TempDir(), "bad.sql")
		write(t, file, []byte(sql))
		out, errs, code := runFor(t, 30*time.Second, "sql", "apply", "-p", ref, "--data", p.Data, file)
		if code != 1 || out != "" {
			t.Errorf("sql apply: exit code %d\n%s%.500s\n%.200s", code, out, errs, sql)
		}
		return oneLine(t, errs)
	}
	for _, c := range []struct{ sql, want string }{
		{"create table a (id int primary key);\n  drop database x;", `line 2.*column 3`},
		{"create tabel a (id int);", `line 1.*column 8`},
		{"create table a (id int primary key);\nselect 1;", `line 2.*column 1`},
		{"create table b (id int primary key, x frobtype);", `frobtype.*line 1.*column|line 1.*column.*frobtype`},
		{"create function f() returns int language sql as 'select 1';", `(?i)create function.*line 1.*column 1|line 1.*column 1.*(?i)create function`},
		{"create policy p on notes using (pg_sleep(10) is null);", `pg_sleep.*line 1|line 1.*pg_sleep`},
		{"create policy p on notes using (user_id in (select user_id from notes));", `line 1`},
		{"insert into notes (body) values ('x');", `line 1`},
		{"do $$ begin end $$;", `line 1`},
		{"create table a (id int primary key", `line 1`},
		{"create table a (id int primary key); \x00", ``},
		{"create table \xff (id int primary key);", ``},
	} {
		if got := apply(c.sql); !regexp.MustCompile(c.want).MatchString(got) {
			t.Errorf("%q: %s; want %s", c.sql, got, c.want)
		}
	}
	grew := p.memory(t, func() {
		for _, deep := range []string{
			"create policy p on notes using (" + strings.Repeat("(", 500_000) + "true" + strings.Repeat(")", 500_000) + ");",
			"create policy p on notes using (" + strings.Repeat("not ", 260_000) + "true);",
			"create policy p on notes using (true" + strings.Repeat(" and true", 110_000) + ");",
			"create policy p on notes using (" + strings.Repeat("1+", 500_000) + "1 = 1);",
			strings.Repeat("[", 1<<20),
			strings.Repeat(";", 1<<20) + "x",
		} {
			apply(deep)
		}
	})
	t.Logf("a megabyte of deep SQL takes %.0f MiB", grew)
	if grew > 512 {
		t.Errorf("a megabyte of deep SQL takes %.0f MiB", grew)
	}
}

// TestSlowReader takes an answer of many rows a byte at a time: the node must neither hold it for ever nor keep it whole.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	p := serve(t, filepath.Join(t.TempDir(), "data"), "--request-timeout", "2s")
	who := p.signUp(t, "somebody@example.com")
	for range 4 {
		p.insert(t, who, 500)
	}
	surfaces := p.surfaces(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	grew := p.memory(t, func() {
		var readers sync.WaitGroup
		for range 20 {
			readers.Go(func() {
				c := p.dial(t, surfaces[1])
				defer c.Close()
				fmt.Fprintf(c, "GET %s?select=* HTTP/1.1\r\nHost: localhost\r\n%sAuthorization: Bearer %s\r\n\r\n", surfaces[1].path, surfaces[1].header, who.AccessToken)
				var b [1]byte
				for n := 0; ctx.Err() == nil; n++ {
					if _, err := c.Read(b[:]); err != nil || n == 10_000 {
						return
					}
				}
			})
		}
		readers.Wait()
	})
	t.Logf("twenty slow readers take %.0f MiB", grew)
	if grew > 2*mostGrowth {
		t.Errorf("twenty slow readers take %.0f MiB", grew)
	}
	if n := p.count(t, who); n != 2000 {
		t.Errorf("%d rows", n)
	}
	p.stop(t)
}
