package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"bulwark/storage"
)

// ProblemType is the content type of an error's body (RFC 9457).
const ProblemType = "application/problem+json"

// A Problem is the body of an error on the management API: RFC 9457 problem details, with the members code, field, hint
// and request_id of our own. Type names the kind of error (a storage.Fault), Code the exact one.
type Problem struct {
	Type      string `json:"type" doc:"the kind of error: urn:bulwark:problem: and the kind's name"`
	Title     string `json:"title" doc:"the kind of error, for a person"`
	Status    int    `json:"status" doc:"the HTTP status"`
	Detail    string `json:"detail" doc:"what is wrong, and what to do"`
	Code      string `json:"code" doc:"what is wrong, for a program; stable"`
	Field     string `json:"field,omitempty" doc:"the field that it is about"`
	Hint      string `json:"hint,omitempty" doc:"what to do"`
	RequestID string `json:"request_id,omitempty" doc:"names the request in the node's log"`
}

const problemPrefix = "urn:bulwark:problem:"

// faults is the one table from a kind of error to its HTTP status and title, indexed by Fault.
var faults = [...]struct {
	status int
	title  string
}{
	storage.Internal:        {http.StatusInternalServerError, "The server failed"},
	storage.BadInput:        {http.StatusBadRequest, "The request is wrong"},
	storage.Unauthenticated: {http.StatusUnauthorized, "A valid credential is needed"},
	storage.Denied:          {http.StatusForbidden, "Not allowed"},
	storage.NotFound:        {http.StatusNotFound, "Not found"},
	storage.Exists:          {http.StatusConflict, "Exists already"},
	storage.Conflict:        {http.StatusConflict, "Changed meanwhile"},
	storage.TooLarge:        {http.StatusRequestEntityTooLarge, "Too large"},
	storage.TooMany:         {http.StatusTooManyRequests, "Too many requests"},
	storage.Unavailable:     {http.StatusServiceUnavailable, "Not available now"},
}

// HTTPStatus returns the HTTP status of a kind of error, on every surface that has no table of its own.
func HTTPStatus(f storage.Fault) int {
	if int(f) >= len(faults) {
		return http.StatusInternalServerError
	}
	return faults[f].status
}

// AsError turns any error into the *storage.Error that a client may see. What is not one becomes Internal, or Unavailable
// where the request's time was up, or TooLarge where its body was.
func AsError(err error) *storage.Error {
	var e *storage.Error
	if errors.As(err, &e) {
		return e
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return storage.Errorf(storage.TooLarge, "body_too_large", "the body is larger than %d bytes: send less", large.Limit)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &storage.Error{Fault: storage.Unavailable, Code: "deadline",
			Message: "the request took longer than it may: try again, or ask for less", Cause: err}
	}
	return &storage.Error{Fault: storage.Internal, Message: "the server failed", Cause: err}
}

// WriteError answers r with err as a problem. The cause of an Internal error goes to log with the request id, and never
// to the client.
func WriteError(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	e := AsError(err)
	id := RequestID(r.Context())
	p := Problem{
		Type:      problemPrefix + e.Fault.String(),
		Status:    HTTPStatus(e.Fault),
		Detail:    e.Message,
		Code:      e.Code,
		Field:     e.Field,
		Hint:      e.Hint,
		RequestID: id,
	}
	if int(e.Fault) < len(faults) {
		p.Title = faults[e.Fault].title
	}
	if p.Code == "" {
		p.Code = e.Fault.String()
	}
	if e.Details != "" {
		p.Detail += ": " + e.Details
	}
	if e.Fault == storage.Internal {
		log.ErrorContext(r.Context(), "request failed", "request_id", id, "route", r.Pattern, "error", err)
		p.Detail = "the server failed; its log says why, under the request id"
		p.Code, p.Field, p.Hint = "internal", "", ""
	}
	h := w.Header()
	h.Set("Content-Type", ProblemType)
	h.Set("Cache-Control", "no-store")
	switch e.Fault {
	case storage.Unauthenticated:
		h.Set("WWW-Authenticate", `Bearer realm="bulwark"`)
	case storage.Unavailable, storage.TooMany:
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		// The client may be gone; there is nobody else to tell.
		_ = json.MarshalWrite(w, p)
	}
}

// maxProblem bounds what a client reads of an error's body.
const maxProblem = 64 << 10

// ReadError turns an answer that is not a success back into the *storage.Error that caused it.
func ReadError(resp *http.Response) *storage.Error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	var p Problem
	if kind != ProblemType || json.Unmarshal(body, &p) != nil {
		return storage.Errorf(faultOfStatus(resp.StatusCode), "not_a_problem",
			"the server answered %s, not in Bulwark's words: is the address that of a Bulwark node?", statusText(resp.StatusCode))
	}
	e := &storage.Error{Fault: faultOfStatus(p.Status), Code: p.Code, Message: p.Detail, Field: p.Field, Hint: p.Hint}
	if name, ok := strings.CutPrefix(p.Type, problemPrefix); ok {
		for f := range faults {
			if storage.Fault(f).String() == name {
				e.Fault = storage.Fault(f)
			}
		}
	}
	if e.Fault == storage.Internal && p.RequestID != "" {
		e.Message += " " + p.RequestID
	}
	return e
}

func statusText(code int) string {
	if t := http.StatusText(code); t != "" {
		return strconv.Itoa(code) + " " + t
	}
	return strconv.Itoa(code)
}

func faultOfStatus(code int) storage.Fault {
	for f, row := range faults {
		if row.status == code {
			return storage.Fault(f)
		}
	}
	if code >= 400 && code < 500 {
		return storage.BadInput
	}
	return storage.Internal
}

type contextKey int

const requestIDKey contextKey = iota

// WithRequestID returns a context that carries a request's id, as answered in X-Request-Id.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey, id)
}

// RequestID returns the id that WithRequestID put in, or "".
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey).(string)
	return id
}

// Origin says where r came from: the socket's other end, and the request id. Forwarding headers are not believed.
func Origin(r *http.Request) storage.Origin {
	o := storage.Origin{RequestID: RequestID(r.Context())}
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		o.Address = ap.Addr().Unmap()
	}
	return o
}

// badInput makes a BadInput error about a field.
func badInput(code, field, format string, args ...any) *storage.Error {
	return &storage.Error{Fault: storage.BadInput, Code: code, Field: field, Message: fmt.Sprintf(format, args...)}
}
