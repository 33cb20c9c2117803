package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"bulwark/storage"
	"bulwark/web/api"
)

// health answers as long as the process serves at all: for a supervisor that restarts what hangs.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// ready answers 200 when the node can serve, else 503 with the parts that do not work: for a load balancer. Why they do not
// may name files and hold what the system said, so that is for operators.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	parts := slices.Clone(s.cfg.Ready(r.Context()))
	if _, err := s.cfg.Authenticator.Operator(r, storage.System, storage.ID{}); err != nil {
		for i := range parts {
			parts[i].Reason = ""
		}
	}
	out := struct {
		Ready      bool             `json:"ready"`
		Components []api.ReadyState `json:"components"`
	}{true, append([]api.ReadyState{}, parts...)}
	for _, p := range parts {
		out.Ready = out.Ready && p.Ready
	}
	status := http.StatusOK
	if !out.Ready {
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, status, out)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The client may be gone; there is nobody else to tell.
	_, _ = w.Write(body)
}

// securityTxt says where to report a weakness (RFC 9116). The file must name a day after which it is stale.
func (s *Server) securityTxt(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	// The client may be gone; there is nobody else to tell.
	_, _ = fmt.Fprintf(w, "Contact: %s\nExpires: %s\nPreferred-Languages: en\n",
		s.cfg.SecurityContact, s.cfg.Now().UTC().Add(90*24*time.Hour).Truncate(24*time.Hour).Format(time.RFC3339))
}

func (s *Server) nothing(w http.ResponseWriter, r *http.Request) {
	s.refuse(w, r, storage.Errorf(storage.NotFound, "no_such_path", "there is nothing at this path"))
}
