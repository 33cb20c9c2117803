// Package web is the server: it takes connections within bounds, and hands each request, once it is known to be of a
// sound form, to the surface that it is for.
//
// Promise: whatever comes in, memory and time are bounded: connections, header bytes, body bytes, requests a second from
// an address, and the time of each request. A path has one form by the time that a surface sees it. Each request gets an
// id, one line in the log that names its route and not its content, and the security headers. Forwarding headers are
// believed from nobody.
//
// The order is fixed, and this is it: connection limit, TLS, header limit and time, request id, recovery, security
// headers, deadline, rate limit, path, origin, body limit, surface.
package web

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"bulwark/storage"
	"bulwark/web/api"
)

// Config is what a Server serves, and within which bounds. API and Authenticator must be there.
type Config struct {
	API           http.Handler      // /api/
	Auth          http.Handler      // /p/{ref}/auth/v1/; its paths are whole, and PathValue("ref") is set
	Rest          http.Handler      // /p/{ref}/rest/v1/; the same
	Authenticator api.Authenticator // for /metrics over TLS

	// Ready says, part by part, whether the node works; nil is ready. It is called for each request of /readyz.
	Ready func(context.Context) []api.ReadyState

	SecurityContact string // of security.txt (RFC 9116), a mailto: or https: URI; "" is none

	Logger   *slog.Logger         // nil: nothing is logged
	Registry *prometheus.Registry // nil: one of the server's own
	Now      func() time.Time     // nil: time.Now
	Random   io.Reader            // of request ids; nil: crypto/rand

	RequestTimeout time.Duration // of a request as a whole; 0 is 30 seconds
	HeaderTimeout  time.Duration // of its headers; 0 is 10 seconds
	IdleTimeout    time.Duration // between requests; 0 is 2 minutes
	MaxHeader      int           // bytes; 0 is 32 KiB
	MaxBody        int64         // bytes, where a surface has no limit of its own; 0 is 8 MiB
	MaxConnections int           // open at one time; 0 is 4096. A quarter of them may come from one address
	RateLimit      float64       // requests a second from one address; 0 is no limit
	RateBurst      int           // at once; 0 is twice RateLimit
	HTTP2          bool          // offer HTTP/2; without it answers carry reason phrases, which some clients want
}

func (c *Config) setDefaults() {
	setDefault(&c.RequestTimeout, 30*time.Second)
	setDefault(&c.HeaderTimeout, 10*time.Second)
	setDefault(&c.IdleTimeout, 2*time.Minute)
	setDefault(&c.MaxHeader, 32<<10)
	setDefault(&c.MaxBody, 8<<20)
	setDefault(&c.MaxConnections, 4096)
	setDefault(&c.RateBurst, max(1, int(min(2*c.RateLimit, 1e9))))
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Ready == nil {
		c.Ready = func(context.Context) []api.ReadyState { return nil }
	}
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// A Server serves one node's surfaces on any number of listeners.
type Server struct {
	cfg      Config
	mux      *http.ServeMux
	metrics  *metrics
	rate     *rateLimiter // nil: no limit
	crossing *http.CrossOriginProtection

	mu      sync.Mutex
	servers []*http.Server
	closed  bool
}

// New returns a Server. It panics without an API or an Authenticator.
func New(cfg Config) *Server {
	if cfg.API == nil || cfg.Authenticator == nil {
		panic("web: a Server needs an API and an Authenticator")
	}
	cfg.setDefaults()
	s := &Server{cfg: cfg, mux: http.NewServeMux(), metrics: newMetrics(cfg.Registry), crossing: http.NewCrossOriginProtection()}
	if cfg.RateLimit > 0 {
		s.rate = newRateLimiter(cfg.RateLimit, cfg.RateBurst, cfg.Now)
	}
	s.mount("/api", cfg.API)
	s.mount("/p/{ref}/auth/v1", cfg.Auth)
	s.mount("/p/{ref}/rest/v1", cfg.Rest)
	s.mux.HandleFunc("/healthz", s.health)
	s.mux.HandleFunc("/readyz", s.ready)
	s.mux.Handle("/metrics", s.metricsHandler())
	if cfg.SecurityContact != "" {
		s.mux.HandleFunc("/.well-known/security.txt", s.securityTxt)
	}
	s.mux.HandleFunc("/", s.nothing)
	return s
}

// mount puts h at path and below, without the mux's redirect from the one to the other.
func (s *Server) mount(path string, h http.Handler) {
	if h == nil {
		return
	}
	s.mux.Handle(path, h)
	s.mux.Handle(path+"/", h)
}

// Serve serves clients on l over TLS, until Shutdown. It closes l.
func (s *Server) Serve(l net.Listener, conf *tls.Config) error {
	conf = conf.Clone()
	srv := s.httpServer(false)
	srv.TLSConfig = conf
	conf.NextProtos = []string{"http/1.1"}
	if s.cfg.HTTP2 {
		conf.NextProtos = []string{"h2", "http/1.1"}
	}
	return s.run(srv, func() error {
		return srv.ServeTLS(limitListener(l, s.cfg.MaxConnections, s.metrics.connections), "", "")
	}, l)
}

// ServeUnix serves the console on l, a unix socket that only the operator can open, until Shutdown. It closes l.
func (s *Server) ServeUnix(l net.Listener) error {
	srv := s.httpServer(true)
	return s.run(srv, func() error { return srv.Serve(l) }, l)
}

func (s *Server) run(srv *http.Server, serve func() error, l net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return l.Close()
	}
	s.servers = append(s.servers, srv)
	s.mu.Unlock()
	if err := serve(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	}
	return nil
}

// Shutdown stops taking requests, waits for the running ones until ctx ends, and cuts what is left.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	servers := s.servers
	s.mu.Unlock()
	var wg sync.WaitGroup
	errs := make([]error, len(servers))
	for i, srv := range servers {
		wg.Go(func() {
			if errs[i] = srv.Shutdown(ctx); errs[i] != nil {
				errs[i] = errors.Join(fmt.Errorf("waiting for running requests: %w", errs[i]), srv.Close())
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// afterDeadline is how long an answer may still be written once a request's time is up: enough to say so.
const afterDeadline = 5 * time.Second

func (s *Server) httpServer(console bool) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(s.cfg.HTTP2 && !console)
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.serve(w, r, console)
		}),
		Protocols:         protocols,
		ReadHeaderTimeout: s.cfg.HeaderTimeout,
		ReadTimeout:       s.cfg.RequestTimeout,
		WriteTimeout:      s.cfg.RequestTimeout + afterDeadline,
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    s.cfg.MaxHeader,
		ErrorLog:          log.New(quiet{s.cfg.Logger}, "", 0),
	}
}

// quiet writes net/http's own messages (broken handshakes, mostly) where only a debugging operator looks.
type quiet struct{ log *slog.Logger }

func (q quiet) Write(b []byte) (int, error) {
	q.log.Debug("http server", "message", strings.TrimSpace(string(b)))
	return len(b), nil
}

type contextKey int

const consoleKey contextKey = iota

// FromConsole reports whether r came through the node's own unix socket. Nothing in a request can claim it.
func FromConsole(r *http.Request) bool { return r.Context().Value(consoleKey) != nil }

// serve is the chain that the package comment names, for one request.
func (s *Server) serve(rw http.ResponseWriter, r *http.Request, console bool) {
	// A page of the database that cannot be read is this request's misfortune, and not the end of the process. net/http has
	// a goroutine for each connection, and nothing else runs on it.
	debug.SetPanicOnFault(true)
	start := s.cfg.Now()
	w := &response{ResponseWriter: rw, timeout: s.cfg.RequestTimeout}
	id := s.requestID()
	ctx := api.WithRequestID(r.Context(), id)
	if console {
		ctx = context.WithValue(ctx, consoleKey, true)
	}
	w.deadline = newDeadline(ctx, s.cfg.RequestTimeout)
	defer w.deadline.stop()
	r = r.WithContext(w.deadline)
	surface := ""
	defer func() { s.finish(w, r, surface, id, start, recover()) }()

	h := w.Header()
	h["X-Request-Id"] = []string{id}
	secure(h, r)
	if s.rate != nil && !console && !s.rate.allow(api.Origin(r).Address) {
		s.metrics.limited.Inc()
		s.refuse(w, r, storage.Errorf(storage.TooMany, "over_request_rate_limit", "too many requests from this address: wait a second, and send fewer"))
		return
	}
	path, err := canonical(r.URL.EscapedPath())
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	r.URL.Path, r.URL.RawPath = path, ""
	surface = surfaceOf(path)
	if !s.origin(w, r, surface) {
		return
	}
	if r.ContentLength > s.cfg.MaxBody {
		s.refuse(w, r, &http.MaxBytesError{Limit: s.cfg.MaxBody})
		return
	}
	r.Body = http.MaxBytesReader(rw, r.Body, s.cfg.MaxBody)
	s.mux.ServeHTTP(w, r)
}

// finish answers for a panic, and writes the request's one line.
func (s *Server) finish(w *response, r *http.Request, surface, id string, start time.Time, panicked any) {
	if panicked != nil && panicked != http.ErrAbortHandler { //nolint:errorlint // the very value, as net/http compares it
		s.metrics.panics.Inc()
		s.cfg.Logger.Error("a handler panicked", "request_id", id, "route", r.Pattern, "panic", describePanic(panicked), "stack", stack())
		if !w.started {
			s.refuse(w, r, storage.Errorf(storage.Internal, "internal", "the server failed"))
			panicked = nil
		} else {
			panicked = http.ErrAbortHandler
		}
	}
	took := s.cfg.Now().Sub(start)
	status := w.status
	switch {
	case panicked != nil:
		status = 0 // cut
	case status == 0:
		status = http.StatusOK
	}
	s.metrics.observe(surface, r.Method, status, took)
	s.cfg.Logger.LogAttrs(context.Background(), slog.LevelInfo, "request",
		slog.String("method", knownMethod(r.Method)), slog.String("route", r.Pattern), slog.Int("status", status),
		slog.Duration("took", took), slog.String("request_id", id))
	if panicked != nil {
		panic(http.ErrAbortHandler) // net/http cuts the connection
	}
}

// requestID draws 128 bits. They name a request; they are no secret.
func (s *Server) requestID() string {
	var b [16]byte
	if _, err := io.ReadFull(s.cfg.Random, b[:]); err != nil {
		return ""
	}
	return hex.EncodeToString(b[:])
}
