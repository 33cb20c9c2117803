package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"bulwark/storage"
	"bulwark/web/api"
)

const (
	maxBody  = 1 << 20 // bytes
	maxDepth = 32      // levels of nested JSON
	// apiVersion is the version of auth's error bodies that we answer: "code" is a string.
	apiVersion       = "2024-01-01"
	apiVersionHeader = "X-Supabase-Api-Version"
)

// statuses are those that clients expect where the kind of error alone would give another.
var statuses = map[string]int{
	"invalid_credentials":         http.StatusBadRequest,
	"email_not_confirmed":         http.StatusBadRequest,
	"validation_failed":           http.StatusBadRequest,
	"phone_provider_disabled":     http.StatusBadRequest,
	"bad_jwt":                     http.StatusForbidden,
	"jwt_expired":                 http.StatusForbidden,
	"session_not_found":           http.StatusForbidden,
	"user_not_found":              http.StatusForbidden,
	"user_already_exists":         http.StatusUnprocessableEntity,
	"signup_disabled":             http.StatusUnprocessableEntity,
	"anonymous_provider_disabled": http.StatusUnprocessableEntity,
	"weak_password":               http.StatusUnprocessableEntity,
	"same_password":               http.StatusUnprocessableEntity,
	"method_not_allowed":          http.StatusMethodNotAllowed,
}

// errorBody is read by every generation of clients: the older ones take msg and error_code, the newer message and code.
type errorBody struct {
	Code         string        `json:"code"`
	ErrorCode    string        `json:"error_code"`
	Message      string        `json:"message"`
	Msg          string        `json:"msg"`
	Hint         string        `json:"hint,omitempty"`
	ID           string        `json:"error_id,omitempty"`
	WeakPassword *weakPassword `json:"weak_password,omitempty"`
}

type weakPassword struct {
	Reasons []string `json:"reasons"`
}

// writeError answers in auth's own shape. The cause of an error goes to the log, never to the client.
func (s *Sessions) writeError(w http.ResponseWriter, r *http.Request, err error) {
	var e *storage.Error
	switch {
	case errors.As(err, &e):
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		e = storage.Errorf(storage.Unavailable, "request_timeout", "The request took too long: try again")
	default:
		e = &storage.Error{Cause: err}
	}
	code, message, status := e.Code, e.Message, api.HTTPStatus(e.Fault)
	if e.Fault == storage.Internal {
		s.Logger.ErrorContext(r.Context(), "request failed", slog.String("request_id", api.RequestID(r.Context())), slog.Any("error", err))
		code, message = "unexpected_failure", "Unexpected failure, please check server logs for more information"
	}
	if code == "" {
		code = e.Fault.String()
	}
	if known, ok := statuses[code]; ok {
		status = known
	}
	// A token that expired is one of those that clients call bad; other surfaces tell the two apart.
	if code == "jwt_expired" {
		code = "bad_jwt"
	}
	body := errorBody{Code: code, ErrorCode: code, Message: message, Msg: message, Hint: e.Hint, ID: api.RequestID(r.Context())}
	if code == "weak_password" {
		body.WeakPassword = &weakPassword{Reasons: []string{"length"}}
	}
	h := w.Header()
	h.Set(apiVersionHeader, apiVersion)
	switch status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		h.Set("Retry-After", "1")
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	}
	s.writeJSON(w, r, status, body)
}

func (s *Sessions) writeJSON(w http.ResponseWriter, r *http.Request, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		s.Logger.ErrorContext(r.Context(), "encoding a reply", slog.Any("error", err))
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	w.WriteHeader(status)
	// The client may be gone; there is nobody else to tell.
	_, _ = w.Write(b)
}

func invalid(field, message string) error {
	return &storage.Error{Fault: storage.BadInput, Code: "validation_failed", Message: message, Field: field}
}

// readJSON reads a request's body into dst, within limits. Unknown members are passed over, as clients expect; invalid
// UTF-8, a name that comes twice, and whatever follows the value are refused. Its errors quote nothing.
func readJSON(w http.ResponseWriter, r *http.Request, dst any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return storage.Errorf(storage.TooLarge, "request_too_large", "The body may be 1 MiB: send less")
	}
	if err != nil {
		return &storage.Error{Fault: storage.BadInput, Code: "bad_json", Message: "The body ended early or came too slowly: send it again", Cause: err}
	}
	return decodeJSON(body, dst)
}

func decodeJSON(body []byte, dst any) error {
	if tooDeep(body) {
		return storage.Errorf(storage.BadInput, "bad_json", "The body is nested deeper than %d levels: send it flatter", maxDepth)
	}
	if err := json.Unmarshal(body, dst); err != nil {
		return storage.Errorf(storage.BadInput, "bad_json", "Could not parse request body as JSON: send an object with the fields of this endpoint")
	}
	return nil
}

// tooDeep reports whether body nests deeper than maxDepth, before anything is kept of it.
func tooDeep(body []byte) bool {
	d := jsontext.NewDecoder(bytes.NewReader(body))
	for {
		if _, err := d.ReadToken(); err != nil {
			return false // its end, or malformed: decoding it will tell
		}
		if d.StackDepth() > maxDepth {
			return true
		}
	}
}
