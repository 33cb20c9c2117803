package api

import (
	"net/http"
)

func (m *Mux) description() []byte { return []byte(`{"openapi":"3.1.0"}`) }

func (m *Mux) serveDescription(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	// The client may be gone; there is nobody else to tell.
	_, _ = w.Write(m.describe())
}
