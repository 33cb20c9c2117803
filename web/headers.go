package web

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"bulwark/storage"
	"bulwark/web/api"
)

// secure sets the headers that each answer has. Surfaces may replace them before they answer.
func secure(h http.Header, r *http.Request) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	if r.TLS != nil && named(r.Host) {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// named reports whether a Host header holds a name that HSTS is good for. It holds for a name on all of its ports, so for
// localhost it would turn every other program's http into https.
func named(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return false
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err != nil
}

const (
	corsMethods = "GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS"
	corsHeaders = "authorization, x-client-info, apikey, content-type, prefer, range, accept-profile, content-profile, x-retry-count, x-supabase-api-version"
	corsExpose  = "Content-Range, Content-Location, Location, Link, X-Total-Count, X-Supabase-Api-Version, ETag, Retry-After, x-relay-error, Upload-Offset, Upload-Length, Tus-Resumable, Content-Profile, X-Request-Id"
)

// origin applies the rules on callers from other origins: a project's surfaces are for browsers anywhere, which prove
// themselves in headers and never by cookie; the others are for none. It reports whether to go on.
func (s *Server) origin(w *response, r *http.Request, surface string) bool {
	h := w.Header()
	switch surface {
	case "auth", "rest", "project":
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Expose-Headers", corsExpose)
		if surface == "auth" {
			h.Set("Cache-Control", "no-store")
		}
		if r.Method != http.MethodOptions {
			return true
		}
		allow := corsHeaders
		if asked := r.Header.Get("Access-Control-Request-Headers"); headerNames(asked) {
			allow = asked
		}
		h.Set("Access-Control-Allow-Headers", allow)
		h.Set("Access-Control-Allow-Methods", corsMethods)
		h.Set("Access-Control-Max-Age", "86400")
		h.Set("Vary", "Access-Control-Request-Headers")
		r.Pattern = "OPTIONS /p/"
		w.WriteHeader(http.StatusNoContent)
		return false
	}
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if err := s.crossing.Check(r); err != nil {
		s.refuse(w, r, storage.Errorf(storage.Denied, "cross_origin", "this endpoint takes no changes from a page of another origin"))
		return false
	}
	return true
}

// headerNames reports whether s is a list of header names (RFC 9110 tokens), which may be answered as it is.
func headerNames(s string) bool {
	if s == "" || len(s) > 1024 {
		return false
	}
	for _, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune("-_, ", rune(c)) {
			return false
		}
	}
	return true
}

// refuse answers with err in the shape that the clients of the request's surface read.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := api.AsError(err)
	status := api.HTTPStatus(e.Fault)
	var body any
	// The path may be what is wrong; its beginning still says who asks.
	switch surfaceOf(r.URL.Path) {
	case "rest", "project":
		body = map[string]any{"code": code(e), "message": e.Message, "details": nil, "hint": nil}
	case "auth":
		body = map[string]any{"code": status, "error_code": code(e), "msg": e.Message, "message": e.Message}
	default:
		api.WriteError(w, r, s.cfg.Logger, err)
		return
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	if e.Fault == storage.Unavailable || e.Fault == storage.TooMany {
		h.Set("Retry-After", "1")
	}
	text, err := json.Marshal(body)
	if err != nil {
		status, text = http.StatusInternalServerError, nil
	}
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		// The client may be gone; there is nobody else to tell.
		_, _ = w.Write(text)
	}
}

func code(e *storage.Error) string {
	if e.Code != "" {
		return e.Code
	}
	return e.Fault.String()
}
