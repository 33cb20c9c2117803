package rowpolicy

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bulwark/storage"
	"bulwark/storage/entry"
	"bulwark/storage/storagetest"
	"bulwark/storage/table"
	"bulwark/web/api"
)

// newService makes a Service over a store with the real guards. Its parser is the tests' shared one.
func newService(t *testing.T) (*Service, *storagetest.World, storage.Actor) {
	t.Helper()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	s, err := New(w.DB, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.parser = shared()
	return s, w, storage.OperatorActor(w.Tenant, w.Project, storage.ID{}, "test", storage.Origin{})
}

func TestNewNeedsGuards(t *testing.T) {
	t.Parallel()
	if _, err := New(nil, rand.Reader); err == nil {
		t.Error("made without a store")
	}
	_, w, _ := newService(t)
	if _, err := New(w.DB, nil); err == nil {
		t.Error("made without a random source")
	}
}

// TestApplyGolden stores each accepted text: what this package compiles, package table must compile too.
func TestApplyGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s, _, by := newService(t)
			if _, err := s.Apply(t.Context(), by, string(text)); err != nil {
				t.Fatal(err)
			}
			sql, err := s.SQL(t.Context(), by)
			if err != nil {
				t.Fatal(err)
			}
			golden, err := os.ReadFile(strings.TrimSuffix(file, ".sql") + ".golden")
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(golden), sql) {
				t.Errorf("stored\n%s\nwant\n%s", sql, golden)
			}
		})
	}
}

func TestApplyDrop(t *testing.T) {
	t.Parallel()
	s, w, by := newService(t)
	ctx := t.Context()
	if _, err := s.Apply(ctx, by, "create table keep (a int); create table gone (a int)"); err != nil {
		t.Fatal(err)
	}
	var spaces []string
	const rows = 2*purgeBatch + 7
	err := w.DB.Update(ctx, by, storage.Intent{Action: "schema.test"}, func(tx storage.Tx) error {
		schema, err := table.ReadSchema(tx)
		if err != nil {
			return err
		}
		spaces = nil
		for _, tb := range schema.Tables {
			spaces = append(spaces, tb.Space)
			for i := range rows {
				key := binary.BigEndian.AppendUint64(nil, uint64(i))
				if err := tx.Put(storage.Ref{Name: tb.Space, Scope: storage.ProjectScope}, key, []byte("{}")); err != nil {
					return err
				}
				if err := tx.Put(storage.Ref{Name: tb.Space + entry.IndexSuffix, Scope: storage.ProjectScope}, key, nil); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	changes, err := s.Apply(ctx, by, "drop table gone; create table gone (b text)")
	if err != nil || len(changes) != 2 {
		t.Fatal(changes, err)
	}
	count := func(name string) (n int) {
		err := w.DB.View(ctx, by, storage.Intent{Action: "schema.test"}, func(r storage.Reader) error {
			return r.Scan(storage.Ref{Name: name, Scope: storage.ProjectScope}, storage.KeyRange{}, func(_, _ []byte) bool {
				n++
				return true
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for name, want := range map[string]int{
		spaces[0]: rows, spaces[0] + entry.IndexSuffix: rows, spaces[1]: 0, spaces[1] + entry.IndexSuffix: 0, droppedRef().Name: 0,
	} {
		if got := count(name); got != want {
			t.Errorf("%s holds %d keys, want %d", name, got, want)
		}
	}
	events := len(w.Events(t, w.Tenant, 0))
	if err := s.Purge(ctx, by); err != nil {
		t.Fatal(err)
	}
	if n := len(w.Events(t, w.Tenant, 0)); n != events {
		t.Errorf("a purge of nothing wrote %d events", n-events)
	}
}

func TestApplyIsOneEntry(t *testing.T) {
	t.Parallel()
	s, w, by := newService(t)
	before := len(w.Events(t, w.Tenant, 0))
	if _, err := s.Apply(t.Context(), by, "create table a (b int); create policy p on a using (nope)"); err == nil {
		t.Fatal("accepted")
	}
	if sql, err := s.SQL(t.Context(), by); err != nil || sql != "" {
		t.Errorf("a refused text left %q, %v", sql, err)
	}
	if _, err := s.Apply(t.Context(), by, "create table secret_plan (b int); alter table secret_plan enable row level security"); err != nil {
		t.Fatal(err)
	}
	events := w.Events(t, w.Tenant, uint64(before))
	last := events[len(events)-1]
	if last.Action != "schema.apply" || last.Object != w.Project.String() || last.Outcome != "ok" {
		t.Errorf("the audit event is %+v", last)
	}
	if names, _ := last.Notes["changes"].([]any); len(names) != 2 || names[0] != "create table public.secret_plan" {
		t.Errorf("its notes are %v", last.Notes)
	}
}

// TestApplyIsDenied to whoever is not an operator of the project, and to an operator without one.
func TestApplyIsDenied(t *testing.T) {
	t.Parallel()
	s, w, by := newService(t)
	const sql = "create table a (b int)"
	if _, err := s.Apply(t.Context(), w.Service(), sql); storage.FaultOf(err) != storage.Denied {
		t.Errorf("a secret key: %v", err)
	}
	none := storage.OperatorActor(w.Tenant, storage.ID{}, storage.ID{}, "test", storage.Origin{})
	if _, err := s.Apply(t.Context(), none, sql); storage.FaultOf(err) != storage.BadInput {
		t.Errorf("no project: %v", err)
	}
	if got, err := s.SQL(t.Context(), by); err != nil || got != "" {
		t.Errorf("left %q, %v", got, err)
	}
}

type operator struct{}

func (operator) Operator(_ *http.Request, tenant, project storage.ID) (storage.Actor, error) {
	return storage.OperatorActor(tenant, project, storage.ID{}, "test", storage.Origin{}), nil
}

type directory struct{ w *storagetest.World }

func (d directory) Tenant(context.Context, string) (storage.ID, error) { return d.w.Tenant, nil }
func (d directory) Project(context.Context, string) (tenant, project storage.ID, err error) {
	return d.w.Tenant, d.w.Project, nil
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	s, w, _ := newService(t)
	m := api.NewMux(api.Config{Authenticator: operator{}, Directory: directory{w}})
	s.Register(m)
	server := httptest.NewServer(m)
	defer server.Close()
	for _, c := range []struct {
		method, body string
		status       int
		want         string
	}{
		{"POST", `{"sql":"create table notes (id uuid primary key)"}`, 200, `{"changes":[{"action":"create table","object":"public.notes","count":1}]}`},
		{"POST", `{"sql":"begin;"}`, 200, `{"changes":[]}`},
		{"POST", `{"sql":"create table notes (id uuid)"}`, 400, `relation \"notes\" already exists (line 1, column 14)`},
		{"POST", `{"sql":"create trigger"}`, 400, `"code":"42601"`},
		{"GET", "", 200, `CREATE TABLE public.notes (\n    id uuid NOT NULL`},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, server.URL+"/api/v1/projects/demo/sql", strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if c.body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var body strings.Builder
		if err := resp.Write(&body); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != c.status || !strings.Contains(body.String(), c.want) {
			t.Errorf("%s %s: got %s", c.method, c.body, body.String())
		}
	}
}
