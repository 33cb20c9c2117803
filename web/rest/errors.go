package rest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"bulwark/storage"
	"bulwark/storage/table"
	"bulwark/web/api"
)

// Codes of PostgREST's own errors (its documentation, "Errors"). Package table has those that it finds.
const (
	codeUnavailable  = "PGRST001"
	codeParse        = "PGRST100"
	codeBody         = "PGRST102"
	codeRange        = "PGRST103"
	codeProfile      = "PGRST106"
	codeMedia        = "PGRST107"
	codeNotEmbedded  = "PGRST108"
	codeSingular     = "PGRST116"
	codeMethod       = "PGRST117"
	codePreference   = "PGRST122"
	codeAggregate    = "PGRST123"
	codePath         = "PGRST125"
	codeRoot         = "PGRST126"
	codeRelationship = "PGRST200"
	codeFunction     = "PGRST202"
	codeConflict     = "40001"
	codeUnsupported  = "0A000"
	codeInternal     = "XX000"
)

// A fault is PostgREST's error. Every key is in the answer, null where it is not set.
type fault struct {
	status  int
	Code    string  `json:"code"`
	Message string  `json:"message"`
	Details *string `json:"details"`
	Hint    *string `json:"hint"`
}

// Error implements error.
func (f *fault) Error() string { return f.Message }

func newFault(status int, code, message string) *fault {
	return &fault{status: status, Code: code, Message: message}
}

func (f *fault) details(s string) *fault {
	f.Details = &s
	return f
}

func (f *fault) hint(s string) *fault {
	f.Hint = &s
	return f
}

func parseFault(what, text, details string) *fault {
	return newFault(http.StatusBadRequest, codeParse, `"failed to parse `+what+` (`+shown(text)+`)"`).details(details)
}

func bodyFault(message string) *fault { return newFault(http.StatusBadRequest, codeBody, message) }

// shown bounds what an error quotes of a request: it goes back to whoever sent it, and nowhere else.
func shown(text string) string {
	const most = 200
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// toFault renders any error in PostgREST's shape. by is zero where the caller is not known.
func toFault(err error, by storage.Actor) *fault {
	if f, ok := err.(*fault); ok { //nolint:errorlint // faults are never wrapped
		return f
	}
	e := api.AsError(err)
	f := newFault(api.HTTPStatus(e.Fault), e.Code, e.Message)
	if e.Details != "" {
		f.details(e.Details)
	}
	if e.Hint != "" {
		f.hint(e.Hint)
	}
	switch e.Fault {
	case storage.Denied:
		f.Code = table.CodeDenied
		if by.Kind() == storage.Anonymous || by.Kind() == storage.Nobody {
			f.status = http.StatusUnauthorized
		}
	case storage.Unavailable:
		f.Code = codeUnavailable
	case storage.Conflict:
		f.Code = codeConflict
	case storage.Internal:
		return newFault(http.StatusInternalServerError, codeInternal, "the server failed; its log says why, under the request id")
	}
	return f
}

// refuse answers with an error. The cause of one of ours goes to the log, with the request id.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, by storage.Actor, err error) {
	f := toFault(err, by)
	if f.status >= http.StatusInternalServerError && f.status != http.StatusServiceUnavailable {
		h.log.ErrorContext(r.Context(), "request failed", "request_id", api.RequestID(r.Context()), "route", r.Pattern, "error", err)
	}
	head := w.Header()
	switch f.status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		head.Set("Retry-After", "1")
	case http.StatusUnauthorized:
		head.Set("WWW-Authenticate", "Bearer")
	}
	body, err := json.Marshal(f)
	if err != nil {
		body = []byte(`{"code":"` + codeInternal + `","message":"the server failed","details":null,"hint":null}`)
	}
	head.Set("Content-Type", jsonType)
	head.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(f.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client may be gone; there is nobody else to tell
	}
}
