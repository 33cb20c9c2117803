//go:build bench

package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestProfile puts a load on a node and keeps CPU profiles of it in PROFILE_DIR: for work on speed, by hand.
func TestProfile(t *testing.T) {
	into := os.Getenv("PROFILE_DIR")
	if into == "" {
		t.Skip("PROFILE_DIR is not set")
	}
	clients, err := strconv.Atoi(os.Getenv("CLIENTS"))
	if err != nil {
		clients = 16
	}
	dir, err := os.MkdirTemp(".", ".bench-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := serve(t, filepath.Join(dir, "data"))
	who := p.signUp(t, "bench@example.com")
	header := http.Header{
		"Apikey": {p.PublishableKey}, "Authorization": {"Bearer " + who.AccessToken}, "Content-Type": {"application/json"},
	}
	for name, request := range map[string]func(n int) error{
		"insert": func(n int) error {
			return raw(p.client, "POST", p.URL+"/rest/v1/notes", header, noteBody(n), http.StatusCreated)
		},
		"get": func(int) error {
			return raw(p.client, "GET", p.URL+"/rest/v1/notes?select=*&id=eq."+noteID(1), header, nil, http.StatusOK)
		},
	} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			profile(t, p, filepath.Join(into, name+".pprof"), span(t))
		}()
		f := load(t, p.cmd.Process.Pid, clients, span(t)+time.Second, request)
		<-done
		t.Logf("%s: %s", name, f)
	}
	p.stop(t)
}
