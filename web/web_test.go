package web_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"bulwark/storage"
	"bulwark/web"
	"bulwark/web/api"
)

// guards lets in the console, and one token.
type guards struct{}

func (guards) Operator(r *http.Request, tenant, project storage.ID) (storage.Actor, error) {
	if !web.FromConsole(r) && r.Header.Get("Authorization") != "Bearer right" {
		return storage.Actor{}, storage.Errorf(storage.Unauthenticated, "bad_token", "the token is not valid")
	}
	return storage.OperatorActor(tenant, project, storage.ID{}, "console", api.Origin(r)), nil
}

func (guards) Tenant(context.Context, string) (storage.ID, error) { return storage.ID{1}, nil }

func (guards) Project(context.Context, string) (storage.ID, storage.ID, error) {
	return storage.ID{1}, storage.ID{2}, nil
}

type echoRequest struct {
	Any  any    `json:"any"`
	Text string `json:"text"`
}

var echoRoute = api.Route[echoRequest, echoRequest]{Method: "POST", Path: "/api/v1/echo"}

// syncBuffer collects a log that many goroutines write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// running is a server on real sockets.
type running struct {
	*web.Server
	t       *testing.T
	url     string
	addr    string
	client  *http.Client // over TLS
	console *http.Client // over the unix socket
	pool    *x509.CertPool
	log     *syncBuffer
}

func serve(t *testing.T, change func(*web.Config)) *running {
	t.Helper()
	run := &running{t: t, log: &syncBuffer{}}
	log := slog.New(slog.NewTextHandler(run.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	mux := api.NewMux(api.Config{Authenticator: guards{}, Directory: guards{}, Logger: log})
	api.Handle(mux, echoRoute, func(_ context.Context, _ storage.Actor, req echoRequest) (echoRequest, error) { return req, nil })
	cfg := web.Config{API: mux, Authenticator: guards{}, Logger: log}
	if change != nil {
		change(&cfg)
	}
	run.Server = web.New(cfg)

	conf, pool := certificate(t)
	run.pool = pool
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	run.addr = l.Addr().String()
	run.url = "https://" + run.addr
	path := filepath.Join(t.TempDir(), "s")
	u, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := run.Serve(l, conf); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		if err := run.ServeUnix(u); err != nil {
			t.Error(err)
		}
	})
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	run.client = &http.Client{Transport: tr}
	run.console = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	t.Cleanup(func() {
		run.client.CloseIdleConnections()
		run.console.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		// Some tests leave a broken connection behind on purpose.
		_ = run.Shutdown(ctx)
		wg.Wait()
	})
	return run
}

func certificate(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"node.example"}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

// do sends one request and returns the answer with its body read.
func (s *running) do(c *http.Client, method, url, body string, header ...string) (*http.Response, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, string(b)
}

// dial opens a bare TLS connection.
func (s *running) dial() net.Conn {
	s.t.Helper()
	c, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: s.pool})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// raw sends bytes as they are and returns the answer.
func (s *running) raw(text string) *http.Response {
	s.t.Helper()
	c := s.dial()
	// The server may answer and close before it has read everything.
	_, _ = io.WriteString(c, text)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func problem(t *testing.T, body string) api.Problem {
	t.Helper()
	var p api.Problem
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("%v in %q", err, body)
	}
	return p
}

// showPath is a surface that answers with the path it was given.
var showPath = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s|%s", r.PathValue("ref"), r.URL.Path)
})

func TestPathsOnTheWire(t *testing.T) {
	t.Parallel()
	s := serve(t, func(c *web.Config) { c.Rest, c.Auth = showPath, showPath })
	for target, want := range map[string]string{
		"/p/abc/rest/v1/notes":          "abc|/p/abc/rest/v1/notes",
		"/p/abc//rest/v1/notes":         "abc|/p/abc/rest/v1/notes",
		"//p/abc///rest/v1//notes?a=//": "abc|/p/abc/rest/v1/notes",
		"/p/abc/auth/v1":                "abc|/p/abc/auth/v1",
		"/p/abc/auth/v1/":               "abc|/p/abc/auth/v1/",
		"/p/abc/rest/v1/a%20b":          "abc|/p/abc/rest/v1/a b",
		"/p/abc/rest/v1/../notes":       "",
		"/p/abc/rest/v1/%2e%2e/notes":   "",
		"/p/abc/rest/v1/a%2fb":          "",
		"/p/abc/rest/v1/a%2Eb":          "",
		"/p/abc/rest/v1/a%1bb":          "",
		"/p/abc/rest/v1/a%5Cb":          "",
		"/p/abc/rest/v1/a%00b":          "",
		"/p/abc/rest/v1/a%ff":           "",
		"/p/abc/rest/v1/./notes":        "",
		"/" + strings.Repeat("a", 5000): "",
	} {
		resp := s.raw("GET " + target + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if want == "" {
			if resp.StatusCode != 400 {
				t.Errorf("%.40s: %s %s", target, resp.Status, body)
			}
			continue
		}
		if resp.StatusCode != 200 || string(body) != want {
			t.Errorf("%.40s: %s %q, want %q", target, resp.Status, body, want)
		}
	}
}

func TestHeadersOnEachAnswer(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	resp, _ := s.do(s.client, "GET", s.url+"/api/v1/nothing", "")
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		"Content-Type": "application/problem+json", "Strict-Transport-Security": "", "Access-Control-Allow-Origin": "",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if resp.StatusCode != 404 || len(resp.Header.Get("X-Request-Id")) != 32 {
		t.Errorf("%s, request id %q", resp.Status, resp.Header.Get("X-Request-Id"))
	}
	named := s.raw("GET / HTTP/1.1\r\nHost: node.example:8443\r\nConnection: close\r\n\r\n")
	if named.Header.Get("Strict-Transport-Security") == "" {
		t.Error("no HSTS for a name")
	}
	if resp.Proto != "HTTP/1.1" || !strings.HasSuffix(resp.Status, "Not Found") {
		t.Errorf("%s %s: want HTTP/1.1 with a reason phrase", resp.Proto, resp.Status)
	}
}

func TestHTTP2IsASetting(t *testing.T) {
	t.Parallel()
	s := serve(t, func(c *web.Config) { c.HTTP2 = true })
	if resp, _ := s.do(s.client, "GET", s.url+"/healthz", ""); resp.ProtoMajor != 2 {
		t.Errorf("got %s", resp.Proto)
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	s := serve(t, func(c *web.Config) { c.Rest = showPath })
	resp, _ := s.do(s.client, "OPTIONS", s.url+"/p/abc/rest/v1/notes", "", "Origin", "https://app.example",
		"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "apikey,x-new-header")
	h := resp.Header
	if resp.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Headers") != "apikey,x-new-header" ||
		h.Get("Access-Control-Max-Age") != "86400" || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "PATCH") {
		t.Errorf("preflight: %s %v", resp.Status, h)
	}
	resp, _ = s.do(s.client, "OPTIONS", s.url+"/p/abc/rest/v1/notes", "", "Access-Control-Request-Headers", "a<b>")
	if got := resp.Header.Get("Access-Control-Allow-Headers"); strings.Contains(got, "<") || !strings.Contains(got, "apikey") {
		t.Errorf("a strange request reflected as %q", got)
	}
	resp, _ = s.do(s.client, "GET", s.url+"/p/abc/rest/v1/notes", "")
	if got := resp.Header.Get("Access-Control-Expose-Headers"); !strings.Contains(got, "Content-Range") {
		t.Errorf("exposed: %q", got)
	}
	resp, body := s.do(s.client, "POST", s.url+"/api/v1/echo", `{}`, "Authorization", "Bearer right", "Content-Type", "application/json",
		"Sec-Fetch-Site", "cross-site")
	if resp.StatusCode != 403 || problem(t, body).Code != "cross_origin" {
		t.Errorf("a change from another origin's page: %s %s", resp.Status, body)
	}
}

func TestNothingTypedIsLogged(t *testing.T) {
	t.Parallel()
	s := serve(t, func(c *web.Config) { c.Rest = showPath })
	const canary = "canary-7361"
	s.do(s.client, "GET", s.url+"/p/"+canary+"/rest/v1/"+canary+"?q="+canary, canary, "Authorization", "Bearer "+canary, "X-"+canary, canary)
	s.do(s.client, "POST", s.url+"/api/v1/echo", `{"`+canary+`":1}`, "Authorization", "Bearer right", "Content-Type", "application/json")
	s.do(s.client, "GET", s.url+"/"+canary, "")
	s.do(s.client, canary, s.url+"/"+canary, "")
	log := s.log.String()
	if strings.Contains(log, canary) {
		t.Errorf("the log holds what was typed:\n%s", log)
	}
	if !strings.Contains(log, `route="POST /api/v1/echo" status=400`) || !strings.Contains(log, "request_id=") {
		t.Errorf("the log lacks its lines:\n%s", log)
	}
}

// TestAttacks sends what is too much of something, and watches what the process allocates.
func TestAttacks(t *testing.T) {
	read := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			api.WriteError(w, r, slog.New(slog.DiscardHandler), err)
		}
	})
	s := serve(t, func(c *web.Config) { c.Rest, c.MaxBody, c.HeaderTimeout = read, 1<<20, 300*time.Millisecond })
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)

	resp := s.raw("POST /p/abc/rest/v1/notes HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n")
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != 413 || err != nil || !strings.Contains(string(body), `"message":"the body is larger than 1048576 bytes`) {
		t.Errorf("a body that says it is 1 GiB: %s %s %v", resp.Status, body, err)
	}

	c := s.dial()
	fmt.Fprint(c, "POST /p/abc/rest/v1/notes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	chunk := []byte(fmt.Sprintf("10000\r\n%s\r\n", strings.Repeat("x", 0x10000)))
	sent := 0
	for sent < 1<<30 {
		n, err := c.Write(chunk)
		sent += n
		if err != nil {
			break
		}
	}
	if sent > 256<<20 {
		t.Errorf("a body without an end: the server took %d bytes", sent)
	}

	deep := `{"any":` + strings.Repeat("[", 10000) + strings.Repeat("]", 10000) + `}`
	bad, text := s.do(s.client, "POST", s.url+"/api/v1/echo", deep, "Authorization", "Bearer right", "Content-Type", "application/json")
	if bad.StatusCode != 400 || problem(t, text).Code != "nesting" {
		t.Errorf("deep JSON: %s %s", bad.Status, text)
	}

	resp = s.raw("GET / HTTP/1.1\r\nHost: x\r\nX-Big: " + strings.Repeat("x", 64<<10) + "\r\n\r\n")
	if resp.StatusCode != 431 {
		t.Errorf("a header of 64 KiB: %s", resp.Status)
	}

	slow := s.dial()
	fmt.Fprint(slow, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
	if err := slow.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, slow)
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		t.Error("a header that does not end is waited for")
	}

	runtime.ReadMemStats(&after)
	if grew := after.TotalAlloc - before.TotalAlloc; grew > 64<<20 {
		t.Errorf("the attacks made the process allocate %d MiB", grew>>20)
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	wait := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, err := io.Copy(io.Discard, r.Body)
			if err == nil {
				t.Error("a body that does not come was read")
			}
		} else {
			<-r.Context().Done()
		}
		if _, ok := r.Context().Deadline(); !ok {
			t.Error("the context has no deadline")
		}
		api.WriteError(w, r, slog.New(slog.DiscardHandler), context.Cause(r.Context()))
	})
	s := serve(t, func(c *web.Config) { c.Rest, c.RequestTimeout = wait, 200*time.Millisecond })
	resp, body := s.do(s.client, "GET", s.url+"/p/abc/rest/v1/x", "")
	if resp.StatusCode != 503 || problem(t, body).Code != "deadline" || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("a slow handler: %s %s", resp.Status, body)
	}
	if resp := s.raw("POST /p/abc/rest/v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"); resp.StatusCode < 400 {
		t.Errorf("a slow body: %s", resp.Status)
	}
}

func TestAStreamMovesItsDeadline(t *testing.T) {
	t.Parallel()
	const pause = 50 * time.Millisecond
	long := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for range 20 { // a second: five times the deadline
			select {
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			case <-tick.C:
			}
			w.(api.Extender).Extend()
			if _, err := io.WriteString(w, "x"); err != nil {
				panic(http.ErrAbortHandler)
			}
		}
	})
	s := serve(t, func(c *web.Config) { c.Rest, c.RequestTimeout = long, 200*time.Millisecond })
	if _, body := s.do(s.client, "GET", s.url+"/p/abc/rest/v1/x", ""); body != strings.Repeat("x", 20) {
		t.Errorf("got %q", body)
	}
}

func TestPanics(t *testing.T) {
	t.Parallel()
	boom := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.WriteHeader(200)
			w.(interface{ Unwrap() http.ResponseWriter }).Unwrap().(http.Flusher).Flush()
		}
		panic("secret-9921")
	})
	s := serve(t, func(c *web.Config) { c.Rest, c.Auth = boom, boom })
	resp, body := s.do(s.client, "GET", s.url+"/p/abc/rest/v1/x", "")
	if resp.StatusCode != 500 || body != `{"code":"internal","details":null,"hint":null,"message":"the server failed"}` {
		t.Errorf("rest: %s %s", resp.Status, body)
	}
	resp, body = s.do(s.client, "GET", s.url+"/p/abc/auth/v1/x", "")
	if resp.StatusCode != 500 || !strings.Contains(body, `"error_code":"internal"`) {
		t.Errorf("auth: %s %s", resp.Status, body)
	}
	r, err := s.client.Post(s.url+"/p/abc/rest/v1/x", "text/plain", nil)
	if err == nil {
		if _, err = io.ReadAll(r.Body); err == nil {
			t.Error("an answer that broke off looks whole")
		}
		r.Body.Close()
	}
	if log := s.log.String(); !strings.Contains(log, "a handler panicked") || strings.Contains(log, "secret-9921") {
		t.Errorf("log:\n%s", log)
	}
}

func TestOpsEndpoints(t *testing.T) {
	t.Parallel()
	ready := []api.ReadyState{{Name: "store", Ready: true}, {Name: "keys", Reason: "sealed: bulwark operator unseal"}}
	s := serve(t, func(c *web.Config) {
		c.Ready = func(context.Context) []api.ReadyState { return ready }
		c.SecurityContact = "mailto:security@example.com"
	})
	if resp, body := s.do(s.client, "GET", s.url+"/healthz", ""); resp.StatusCode != 200 || body != `{"status":"ok"}` {
		t.Errorf("healthz: %s %s", resp.Status, body)
	}
	resp, body := s.do(s.client, "GET", s.url+"/readyz", "")
	if resp.StatusCode != 503 || !strings.Contains(body, `"ready":false`) || !strings.Contains(body, `"keys"`) || strings.Contains(body, "unseal") {
		t.Errorf("readyz for anybody: %s %s", resp.Status, body)
	}
	if resp, body := s.do(s.client, "GET", s.url+"/readyz", "", "Authorization", "Bearer right"); resp.StatusCode != 503 || !strings.Contains(body, "bulwark operator unseal") {
		t.Errorf("readyz with a token: %s %s", resp.Status, body)
	}
	if resp, body := s.do(s.console, "GET", "http://x/readyz", ""); resp.StatusCode != 503 || !strings.Contains(body, "bulwark operator unseal") {
		t.Errorf("readyz at the console: %s %s", resp.Status, body)
	}
	if resp, _ := s.do(s.client, "GET", s.url+"/metrics", ""); resp.StatusCode != 401 {
		t.Errorf("metrics without a token: %s", resp.Status)
	}
	if resp, body := s.do(s.client, "GET", s.url+"/metrics", "", "Authorization", "Bearer right"); resp.StatusCode != 200 || !strings.Contains(body, "bulwark_http_connections") {
		t.Errorf("metrics with a token: %s %.200s", resp.Status, body)
	}
	if resp, body := s.do(s.console, "GET", "http://x/metrics", ""); resp.StatusCode != 200 ||
		!strings.Contains(body, `bulwark_http_requests_total{method="GET",status="4xx",surface="metrics"} 1`) {
		t.Errorf("metrics at the console: %s %s", resp.Status, body)
	}
	if _, body := s.do(s.client, "GET", s.url+"/.well-known/security.txt", ""); !strings.Contains(body, "Contact: mailto:security@example.com\nExpires: ") {
		t.Errorf("security.txt: %s", body)
	}
}

func TestTheConsoleIsTheSocketOnly(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	if resp, body := s.do(s.console, "POST", "http://x/api/v1/echo", `{"text":"t"}`, "Content-Type", "application/json"); resp.StatusCode != 200 {
		t.Errorf("console: %s %s", resp.Status, body)
	}
	if resp, _ := s.do(s.client, "POST", s.url+"/api/v1/echo", `{"text":"t"}`, "Content-Type", "application/json", "X-Forwarded-For", "127.0.0.1"); resp.StatusCode != 401 {
		t.Errorf("over TLS without a token: %s", resp.Status)
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	s := serve(t, func(c *web.Config) {
		c.RateLimit, c.RateBurst, c.Rest = 1, 3, showPath
		c.Now = func() time.Time { return now }
	})
	var codes []int
	for range 5 {
		resp, body := s.do(s.client, "GET", s.url+"/p/abc/rest/v1/x", "")
		codes = append(codes, resp.StatusCode)
		if resp.StatusCode == 429 && (resp.Header.Get("Retry-After") != "1" || !strings.Contains(body, `"code":"over_request_rate_limit"`)) {
			t.Errorf("%v %s", resp.Header, body)
		}
	}
	if fmt.Sprint(codes) != "[200 200 200 429 429]" {
		t.Errorf("got %v", codes)
	}
	for range 5 {
		if resp, _ := s.do(s.console, "GET", "http://x/healthz", ""); resp.StatusCode != 200 {
			t.Errorf("the console is limited: %s", resp.Status)
		}
	}
}

func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	s := serve(t, func(c *web.Config) { c.MaxConnections = 8 }) // two for one address
	held := []net.Conn{s.dial(), s.dial()}
	if c, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: s.pool}); err == nil {
		c.Close()
		t.Error("a third connection from one address was taken")
	}
	held[0].Close()
	// The server notices the close in its own time; from then on there is room.
	until := time.Now().Add(10 * time.Second)
	for {
		c, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: s.pool})
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(until) {
			t.Fatal("a closed connection's place is never free again")
		}
	}
}

func TestShutdownWaits(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}), make(chan struct{})
	s := serve(t, func(c *web.Config) {
		c.Rest = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(entered)
			<-leave
			io.WriteString(w, "done")
		})
	})
	got := make(chan string)
	go func() {
		resp, err := s.client.Get(s.url + "/p/abc/rest/v1/x")
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		got <- string(b)
	}()
	<-entered
	stopped := make(chan error)
	go func() { stopped <- s.Shutdown(context.Background()) }()
	close(leave)
	if body := <-got; body != "done" {
		t.Errorf("the running request got %q", body)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", s.addr); err == nil {
		t.Error("the port is still open")
	}
}
