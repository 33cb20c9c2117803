package api

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"

	"bulwark/storage"
)

// An Authenticator proves that a request comes from an operator: whoever may use the node's own socket, or holds an
// operator token. It returns the operator acting in tenant and, if not zero, project; or an *storage.Error of kind
// Unauthenticated.
type Authenticator interface {
	Operator(r *http.Request, tenant, project storage.ID) (storage.Actor, error)
}

// A Directory finds what a path names. It refuses with an *storage.Error of kind NotFound.
type Directory interface {
	// Tenant finds a tenant by its id or its name.
	Tenant(ctx context.Context, nameOrID string) (storage.ID, error)
	// Project finds a project by its ref.
	Project(ctx context.Context, ref string) (tenant, project storage.ID, err error)
}

// Config is what a Mux needs. Authenticator and Directory are its guards, and must be there.
type Config struct {
	Authenticator Authenticator
	Directory     Directory
	Logger        *slog.Logger // nil: nothing is logged
	MaxBody       int64        // bytes; 0 is DefaultMaxBody
	MaxDepth      int          // levels of nested JSON; 0 is DefaultMaxDepth
	Version       string       // of the program, for the description
}

// A Mux serves the registered routes, and their description at /api/v1/openapi.json. Every other path is a NotFound
// problem. Routes are registered before it serves.
type Mux struct {
	cfg      Config
	mux      *http.ServeMux
	routes   []RouteInfo
	describe func() []byte
}

// A RouteInfo describes one registered route.
type RouteInfo struct {
	Method, Path, Summary string
	Scope                 Scope
	Status                int          // of success
	Request, Response     reflect.Type // Response is nil for a stream
	ContentType           string       // of the response; "" where there is no content
}

// DescriptionPath is where the OpenAPI description is.
const DescriptionPath = "/api/v1/openapi.json"

// NewMux returns a Mux without routes. It panics without an Authenticator or a Directory.
func NewMux(cfg Config) *Mux {
	if cfg.Authenticator == nil || cfg.Directory == nil {
		panic("api: a Mux needs an Authenticator and a Directory")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = DefaultMaxBody
	}
	if cfg.MaxDepth == 0 {
		cfg.MaxDepth = DefaultMaxDepth
	}
	m := &Mux{cfg: cfg, mux: http.NewServeMux()}
	m.describe = sync.OnceValue(m.description)
	m.mux.HandleFunc("GET "+DescriptionPath, m.serveDescription)
	return m
}

// Routes lists the registered routes in order of path and method.
func (m *Mux) Routes() []RouteInfo {
	out := slices.Clone(m.routes)
	slices.SortFunc(out, func(a, b RouteInfo) int {
		return strings.Compare(a.Path+" "+a.Method, b.Path+" "+b.Method)
	})
	return out
}

// ServeHTTP serves one request.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, pattern := m.mux.Handler(r)
	if pattern != "" {
		m.mux.ServeHTTP(w, r)
		return
	}
	// The ServeMux knows whether the path exists under other methods; it says so in plain text, so ask and say it again.
	probe := answer{header: http.Header{}}
	h.ServeHTTP(&probe, r)
	if allow := probe.header.Get("Allow"); probe.status == http.StatusMethodNotAllowed && allow != "" {
		w.Header().Set("Allow", allow)
		m.fail(w, r, badInput("method", "", "this path does not take %s, but %s", printable(r.Method), allow))
		return
	}
	m.fail(w, r, storage.Errorf(storage.NotFound, "no_such_endpoint",
		"there is no such endpoint: see "+DescriptionPath+" for those that there are"))
}

func (m *Mux) fail(w http.ResponseWriter, r *http.Request, err error) {
	WriteError(w, r, m.cfg.Logger, err)
}

// answer keeps a reply's status and header and forgets its body.
type answer struct {
	header http.Header
	status int
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) Write(b []byte) (int, error) { return len(b), nil }
func (a *answer) WriteHeader(status int)      { a.status = status }

// Handle registers a route. fn gets an operator that acts in the route's scope and a request that was decoded strictly;
// the error it returns is answered as a problem. Handle panics where the route contradicts itself or another.
func Handle[Req, Resp any](m *Mux, rt Route[Req, Resp], fn func(ctx context.Context, by storage.Actor, req Req) (Resp, error)) {
	status := rt.Status
	empty := reflect.TypeFor[Resp]() == reflect.TypeFor[Empty]()
	switch {
	case status == 0 && empty:
		status = http.StatusNoContent
	case status == 0:
		status = http.StatusOK
	}
	info := RouteInfo{Method: rt.Method, Path: rt.Path, Summary: rt.Summary, Scope: rt.Scope, Status: status,
		Request: reflect.TypeFor[Req](), Response: reflect.TypeFor[Resp]()}
	if !empty {
		info.ContentType = "application/json"
	}
	register(m, info, func(w http.ResponseWriter, r *http.Request, by storage.Actor, req Req) error {
		resp, err := fn(r.Context(), by, req)
		if err != nil {
			return err
		}
		w.Header().Set("Cache-Control", "no-store")
		if empty {
			w.WriteHeader(status)
			return nil
		}
		body, err := json.Marshal(resp, json.Deterministic(true))
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		// The client may be gone; there is nobody else to tell.
		_, _ = w.Write(body)
		return nil
	})
}

// HandleStream registers a route whose answer is written as it is made, as contentType. An error before the first byte is
// answered as a problem; after it the connection is cut, so that a client cannot take a part for the whole. Each write
// moves the request's deadline on.
func HandleStream[Req any](m *Mux, rt Route[Req, Empty], contentType string,
	fn func(ctx context.Context, by storage.Actor, req Req, w io.Writer) error) {
	status := rt.Status
	if status == 0 {
		status = http.StatusOK
	}
	info := RouteInfo{Method: rt.Method, Path: rt.Path, Summary: rt.Summary, Scope: rt.Scope, Status: status,
		Request: reflect.TypeFor[Req](), ContentType: contentType}
	register(m, info, func(w http.ResponseWriter, r *http.Request, by storage.Actor, req Req) error {
		s := &stream{w: w, status: status, contentType: contentType}
		err := fn(r.Context(), by, req, s)
		switch {
		case err == nil && !s.started:
			s.start()
		case err != nil && s.started:
			m.cfg.Logger.WarnContext(r.Context(), "stream cut", "request_id", RequestID(r.Context()), "route", r.Pattern, "error", err)
			panic(http.ErrAbortHandler)
		}
		return err
	})
}

// An Extender is a ResponseWriter of a server that gives each request a deadline. Extend moves it on by its full length.
type Extender interface{ Extend() }

type stream struct {
	w           http.ResponseWriter
	status      int
	contentType string
	started     bool
}

func (s *stream) start() {
	s.started = true
	s.w.Header().Set("Content-Type", s.contentType)
	s.w.Header().Set("Cache-Control", "no-store")
	s.w.WriteHeader(s.status)
}

func (s *stream) Write(b []byte) (int, error) {
	if !s.started {
		s.start()
	}
	if e, ok := s.w.(Extender); ok {
		e.Extend()
	}
	return s.w.Write(b)
}

func register[Req any](m *Mux, info RouteInfo, fn func(http.ResponseWriter, *http.Request, storage.Actor, Req) error) {
	if !strings.HasPrefix(info.Path, "/api/v1/") {
		panic("api: the path " + info.Path + " is not under /api/v1/")
	}
	names := pathNames(info.Path)
	if need := map[Scope]string{TenantScope: "tenant", ProjectScope: "ref"}[info.Scope]; need != "" && !slices.Contains(names, need) {
		panic("api: the scope of " + info.Method + " " + info.Path + " needs {" + need + "} in its path")
	}
	p := planOf(reflect.TypeFor[Req](), info.Method, info.Path)
	m.routes = append(m.routes, info)
	m.mux.HandleFunc(info.Method+" "+info.Path, func(w http.ResponseWriter, r *http.Request) {
		by, err := m.actor(r, info.Scope)
		if err != nil {
			m.fail(w, r, err)
			return
		}
		var req Req
		if err := p.decode(r, reflect.ValueOf(&req), limits{m.cfg.MaxBody, m.cfg.MaxDepth}); err != nil {
			m.fail(w, r, err)
			return
		}
		if r.ContentLength != 0 { // the body took its time to come, in which the credential may have ended
			if by, err = m.actor(r, info.Scope); err != nil {
				m.fail(w, r, err)
				return
			}
		}
		if err := fn(w, r, by, req); err != nil {
			m.fail(w, r, err)
		}
	})
}

// actor proves the operator first, so that a stranger cannot ask which tenants and projects there are.
func (m *Mux) actor(r *http.Request, s Scope) (storage.Actor, error) {
	by, err := m.cfg.Authenticator.Operator(r, storage.System, storage.ID{})
	if err != nil || s == SystemScope {
		return by, err
	}
	var tenant, project storage.ID
	if s == TenantScope {
		tenant, err = m.cfg.Directory.Tenant(r.Context(), r.PathValue("tenant"))
	} else {
		tenant, project, err = m.cfg.Directory.Project(r.Context(), r.PathValue("ref"))
	}
	if err != nil {
		return storage.Actor{}, err
	}
	return m.cfg.Authenticator.Operator(r, tenant, project)
}
