package client_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"bulwark/storage"
	"bulwark/web/api"
	"bulwark/web/client"
)

type createRequest struct {
	Ref   string     `path:"ref"`
	Dry   bool       `query:"dry"`
	Tags  []string   `query:"tag"`
	After storage.ID `query:"after"`
	Name  string     `json:"name"`
	Count int        `json:"count"`
}

type createReply struct {
	Got     createRequest `json:"got"`
	Tenant  storage.ID    `json:"tenant"`
	Project storage.ID    `json:"project"`
	Kind    string        `json:"kind"`
}

var createRoute = api.Route[createRequest, createReply]{
	Method: "POST", Path: "/api/v1/projects/{ref}/things", Scope: api.ProjectScope, Summary: "Make a thing", Status: 201}

var streamRoute = api.Route[api.Empty, api.Empty]{Method: "GET", Path: "/api/v1/export", Summary: "Export"}

var faultRoute = api.Route[faultRequest, api.Empty]{Method: "GET", Path: "/api/v1/faults/{fault}"}

type faultRequest struct {
	Fault uint `path:"fault"`
}

// guards accepts one token, or anybody on a unix socket, and knows one tenant and one project.
type guards struct{}

var tenantID, projectID = storage.ID{1}, storage.ID{2}

func (guards) Operator(r *http.Request, tenant, project storage.ID) (storage.Actor, error) {
	if r.TLS != nil && r.Header.Get("Authorization") != "Bearer right" {
		return storage.Actor{}, storage.Errorf(storage.Unauthenticated, "bad_token", "the token is not valid: make a new one")
	}
	return storage.OperatorActor(tenant, project, storage.ID{}, "console", api.Origin(r)), nil
}

func (guards) Tenant(context.Context, string) (storage.ID, error) { return tenantID, nil }

func (guards) Project(_ context.Context, ref string) (storage.ID, storage.ID, error) {
	if ref != "abc" {
		return storage.ID{}, storage.ID{}, storage.Errorf(storage.NotFound, "project_not_found", "there is no such project")
	}
	return tenantID, projectID, nil
}

func newMux() *api.Mux {
	m := api.NewMux(api.Config{Authenticator: guards{}, Directory: guards{}})
	api.Handle(m, createRoute, func(_ context.Context, by storage.Actor, req createRequest) (createReply, error) {
		return createReply{req, by.Tenant(), by.Project(), by.Kind().String()}, nil
	})
	api.Handle(m, faultRoute, func(_ context.Context, _ storage.Actor, req faultRequest) (api.Empty, error) {
		e := storage.Errorf(storage.Fault(req.Fault), "the_code", "the message")
		e.Field, e.Hint, e.Cause = "the_field", "the hint", errors.New("the cause")
		return api.Empty{}, fmt.Errorf("doing: %w", e)
	})
	api.HandleStream(m, streamRoute, "text/plain",
		func(_ context.Context, _ storage.Actor, _ api.Empty, w io.Writer) error {
			_, err := io.WriteString(w, strings.Repeat("line\n", 10000))
			return err
		})
	return m
}

// onSocket serves the mux on a unix socket.
func onSocket(t *testing.T) *client.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: newMux()}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	c, err := client.New(client.Options{Socket: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestCall(t *testing.T) {
	t.Parallel()
	c := onSocket(t)
	req := createRequest{Ref: "abc", Dry: true, Tags: []string{"a", "b&c"}, After: storage.ID{9}, Name: "n", Count: 3}
	got, err := client.Call(t.Context(), c, createRoute, req)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got.Got) != fmt.Sprint(req) || got.Tenant != tenantID || got.Project != projectID || got.Kind != "operator" {
		t.Errorf("got %+v", got)
	}
	_, err = client.Call(t.Context(), c, createRoute, createRequest{Ref: "nope"})
	var e *storage.Error
	if !errors.As(err, &e) || e.Fault != storage.NotFound || e.Code != "project_not_found" {
		t.Errorf("a wrong ref: %v", err)
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	t.Parallel()
	c := onSocket(t)
	for f := storage.Internal; f <= storage.Unavailable; f++ {
		_, err := client.Call(t.Context(), c, faultRoute, faultRequest{uint(f)})
		var e *storage.Error
		if !errors.As(err, &e) || e.Fault != f {
			t.Errorf("%s came back as %v", f, err)
			continue
		}
		if f == storage.Internal {
			if strings.Contains(e.Error(), "cause") || strings.Contains(e.Error(), "the message") {
				t.Errorf("an internal error's cause reached the client: %v", e)
			}
			continue
		}
		if e.Code != "the_code" || e.Message != "the message" || e.Field != "the_field" || e.Hint != "the hint" {
			t.Errorf("%s came back as %+v", f, e)
		}
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := client.Stream(t.Context(), onSocket(t), streamRoute, api.Empty{}, &b); err != nil || b.Len() != 50000 {
		t.Errorf("%d bytes, %v", b.Len(), err)
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(newMux())
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for token, want := range map[string]storage.Fault{"right": 255, "wrong": storage.Unauthenticated} {
		c, err := client.New(client.Options{URL: s.URL, Token: token, CA: ca})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = client.Call(t.Context(), c, createRoute, createRequest{Ref: "abc"})
		if want == 255 && err != nil || want != 255 && storage.FaultOf(err) != want {
			t.Errorf("token %s: %v", token, err)
		}
	}
	c, err := client.New(client.Options{URL: s.URL, Token: "right"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Call(t.Context(), c, createRoute, createRequest{Ref: "abc"})
	var u *client.Unreachable
	if !errors.As(err, &u) || !strings.Contains(u.Error(), "--ca FILE") {
		t.Errorf("without the root: %v", err)
	}
}

func TestNobodyThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, err := client.New(client.Options{Socket: filepath.Join(dir, "bulwark.sock")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Call(t.Context(), c, createRoute, createRequest{Ref: "abc"})
	if want := "no node is running on " + dir + ": start it with bulwark serve --data " + dir; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestBadOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []client.Options{
		{}, {Socket: "s", URL: "https://x"}, {URL: "http://x"}, {URL: "https://u:p@x"}, {URL: "https://x?q=1"},
		{URL: "https://x", CA: []byte("no")}, {URL: "https://"},
	} {
		if _, err := client.New(o); storage.FaultOf(err) != storage.BadInput {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestPathNamesAreChecked(t *testing.T) {
	t.Parallel()
	c := onSocket(t)
	for _, ref := range []string{"", ".", "..", "a/b", "a%2fb"} {
		if _, err := client.Call(t.Context(), c, createRoute, createRequest{Ref: ref}); storage.FaultOf(err) != storage.BadInput {
			t.Errorf("ref %q: %v", ref, err)
		}
	}
}
