package storagetest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulwark/security/access"
	"bulwark/security/audit"
	"bulwark/security/keys"
	"bulwark/storage"
)

// A World is a Store over an Engine with the real guards, and one tenant with one project in it.
type World struct {
	DB              *storage.DB
	Engine          storage.Engine
	Ring            *keys.Ring
	Tenant, Project storage.ID
}

// Job is a background job in the world's project.
func (w *World) Job() storage.Actor { return storage.JobActor(w.Tenant, w.Project, "test") }

// Service is the holder of a secret key of the world's project.
func (w *World) Service() storage.Actor {
	return storage.ServiceActor(w.Tenant, w.Project, storage.ID{9}, storage.Origin{})
}

// NewWorld opens a Store over e under a fresh root key, and creates a tenant and a project.
func NewWorld(t testing.TB, e storage.Engine) *World {
	t.Helper()
	return NewWorldAt(t, e, time.Now)
}

// NewWorldAt is NewWorld with a clock.
func NewWorldAt(t testing.TB, e storage.Engine, clock func() time.Time) *World {
	t.Helper()
	w := &World{Engine: e, Ring: keys.NewRing(rand.Reader)}
	root := make([]byte, 32)
	if _, err := rand.Read(root); err != nil {
		t.Fatal(err)
	}
	if err := w.Ring.Unseal(root); err != nil {
		t.Fatal(err)
	}
	recorder, err := audit.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w.DB, err = storage.Open(e, storage.Guards{
		Access: access.New(), Keys: w.Ring, Audit: recorder, Clock: clock, Rand: rand.Reader,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.DB.Close)
	if err := w.DB.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Tenant, w.Project = w.AddTenant(t)
	return w
}

// AddTenant creates one more tenant with a project.
func (w *World) AddTenant(t testing.TB) (tenant, project storage.ID) {
	t.Helper()
	tenant, project = newID(t), newID(t)
	operator := storage.OperatorActor(storage.System, storage.ID{}, storage.ID{}, "test", storage.Origin{})
	err := w.DB.Update(t.Context(), operator, storage.Intent{Action: "tenant.create"}, func(tx storage.Tx) error {
		return tx.ChangeKeys(storage.CreateKeys, tenant, storage.ID{})
	})
	if err != nil {
		t.Fatal(err)
	}
	operator = storage.OperatorActor(tenant, storage.ID{}, storage.ID{}, "test", storage.Origin{})
	err = w.DB.Update(t.Context(), operator, storage.Intent{Action: "project.create"}, func(tx storage.Tx) error {
		return tx.ChangeKeys(storage.CreateKeys, tenant, project)
	})
	if err != nil {
		t.Fatal(err)
	}
	return tenant, project
}

func newID(t testing.TB) storage.ID {
	t.Helper()
	id, err := storage.NewID(time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// An AuditEvent is what tests look at of an event.
type AuditEvent struct {
	Action  string         `json:"action"`
	Object  string         `json:"object"`
	Outcome string         `json:"outcome"`
	Reason  string         `json:"reason"`
	Notes   map[string]any `json:"notes"`
}

// Events returns a tenant's audit events from position first on.
func (w *World) Events(t testing.TB, tenant storage.ID, first uint64) []AuditEvent {
	t.Helper()
	var events []AuditEvent
	by := storage.OperatorActor(tenant, storage.ID{}, storage.ID{}, "test", storage.Origin{})
	err := w.DB.Events(t.Context(), by, storage.Intent{Action: "audit.search"}, first, func(_ uint64, _ [32]byte, b []byte) bool {
		var e AuditEvent
		if err := json.Unmarshal(b, &e); err != nil {
			t.Error(err)
		}
		events = append(events, e)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return events
}

var (
	notes  = storage.Ref{Name: "notes", Scope: storage.ProjectScope}
	people = storage.Ref{Name: "people", Scope: storage.TenantScope}
	insert = storage.Intent{Action: "rows.insert", Object: "notes"}
	look   = storage.Intent{Action: "rows.select", Object: "notes"}
)

// TestStore is what every Store does, whatever its Engine. Each case gets a Store of its own.
func TestStore(t *testing.T, open func(t *testing.T) storage.Engine) {
	cases := map[string]func(*testing.T, *World){
		"write, read, delete":               testReadWrite,
		"own writes are seen":               testOwnWrites,
		"an error writes nothing":           testErrorWritesNothing,
		"a refusal is audited":              testRefusal,
		"nobody is refused":                 testNobody,
		"one event for each mutation":       testOneEvent,
		"nothing written, nothing recorded": testIdle,
		"reads are recorded together":       testReadEvents,
		"tenants and projects are apart":    testApart,
		"counters lose no increment":        testCounters,
		"a range is a precondition":         testRange,
		"unique and look-up keys":           testTable,
		"unique keys under contention":      testUniqueRace,
		"keys rotate":                       testRotate,
		"destroyed is gone":                 testDestroy,
		"a sealed node refuses":             testSealed,
		"messages":                          testEmit,
	}
	maps.Copy(cases, troubles())
	for name, fn := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn(t, NewWorld(t, &meddler{Engine: open(t)}))
		})
	}
}

func put(t testing.TB, w *World, by storage.Actor, r storage.Ref, key, value string) {
	t.Helper()
	err := w.DB.Update(t.Context(), by, insert, func(tx storage.Tx) error { return tx.Put(r, []byte(key), []byte(value)) })
	if err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, w *World, by storage.Actor, r storage.Ref, key string) (string, error) {
	t.Helper()
	var value []byte
	err := w.DB.View(t.Context(), by, look, func(r2 storage.Reader) (err error) {
		value, err = r2.Get(r, []byte(key))
		return err
	})
	return string(value), err
}

func testReadWrite(t *testing.T, w *World) {
	by := w.Service()
	put(t, w, by, notes, "a", "one")
	put(t, w, by, notes, "b", "")
	put(t, w, by, people, "a", "other table")
	if v, err := get(t, w, by, notes, "a"); v != "one" || err != nil {
		t.Errorf("a is %q, %v", v, err)
	}
	if v, err := get(t, w, by, notes, "b"); v != "" || err != nil {
		t.Errorf("b is %q, %v", v, err)
	}
	err := w.DB.Update(t.Context(), by, insert, func(tx storage.Tx) error { return tx.Delete(notes, []byte("a")) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := get(t, w, by, notes, "a"); !storage.IsNotFound(err) {
		t.Errorf("a deleted key is %v", err)
	}
	if v, err := get(t, w, by, people, "a"); v != "other table" || err != nil {
		t.Errorf("the other table's a is %q, %v", v, err)
	}
}

func scan(r storage.Reader, kr storage.KeyRange) (all []string, err error) {
	err = r.Scan(notes, kr, func(k, v []byte) bool {
		all = append(all, string(k)+"="+string(v))
		return true
	})
	return all, err
}

func testOwnWrites(t *testing.T, w *World) {
	by := w.Service()
	for _, k := range []string{"b", "d", "f"} {
		put(t, w, by, notes, k, "old")
	}
	err := w.DB.Update(t.Context(), by, insert, func(tx storage.Tx) error {
		for _, k := range []string{"a", "d", "g"} {
			if err := tx.Put(notes, []byte(k), []byte("new")); err != nil {
				return err
			}
		}
		if err := tx.Delete(notes, []byte("b")); err != nil {
			return err
		}
		for _, c := range []struct {
			r    storage.KeyRange
			want []string
		}{
			{storage.KeyRange{}, []string{"a=new", "d=new", "f=old", "g=new"}},
			{storage.KeyRange{Reverse: true}, []string{"g=new", "f=old", "d=new", "a=new"}},
			{storage.KeyRange{From: []byte("b"), To: []byte("f")}, []string{"d=new"}},
			{storage.KeyRange{From: []byte("d"), To: []byte("g"), Reverse: true}, []string{"f=old", "d=new"}},
		} {
			if got, err := scan(tx, c.r); err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%q to %q, reverse %v: %v, %v; want %v", c.r.From, c.r.To, c.r.Reverse, got, err, c.want)
			}
		}
		if _, err := tx.Get(notes, []byte("b")); !storage.IsNotFound(err) {
			t.Errorf("a key that the transaction deleted is %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func testErrorWritesNothing(t *testing.T, w *World) {
	before := len(w.Events(t, w.Tenant, 0))
	broken := errors.New("broken")
	err := w.DB.Update(t.Context(), w.Service(), insert, func(tx storage.Tx) error {
		if err := tx.Put(notes, []byte("a"), []byte("x")); err != nil {
			return err
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("Update returned %v", err)
	}
	if _, err := get(t, w, w.Service(), notes, "a"); !storage.IsNotFound(err) {
		t.Errorf("the write of a failed transaction is there: %v", err)
	}
	if n := len(w.Events(t, w.Tenant, uint64(before))); n != 0 {
		t.Errorf("a failed transaction left %d events", n)
	}
}

func testRefusal(t *testing.T, w *World) {
	before := uint64(len(w.Events(t, w.Tenant, 0)))
	ran := false
	to := storage.Intent{Action: "project.delete", Object: "p"}
	err := w.DB.Update(t.Context(), w.Service(), to, func(storage.Tx) error { ran = true; return nil })
	if storage.FaultOf(err) != storage.Denied || ran {
		t.Errorf("a service deleting a project: %v, ran %v", err, ran)
	}
	err = w.DB.View(t.Context(), w.Service(), to, func(storage.Reader) error { ran = true; return nil })
	if storage.FaultOf(err) != storage.Denied || ran {
		t.Errorf("a service viewing for project.delete: %v, ran %v", err, ran)
	}
	// A refusal from inside: what was written before it is gone, and the notes are kept.
	err = w.DB.Update(t.Context(), w.Service(), insert, func(tx storage.Tx) error {
		tx.Note("table", "t1")
		if err := tx.Put(notes, []byte("a"), []byte("x")); err != nil {
			return err
		}
		return storage.Errorf(storage.Unauthenticated, "invalid_credentials", "no")
	})
	if storage.FaultOf(err) != storage.Unauthenticated {
		t.Errorf("the inner refusal came back as %v", err)
	}
	if _, err := get(t, w, w.Job(), notes, "a"); err == nil {
		t.Error("the write of a refused transaction is there")
	}
	events := w.Events(t, w.Tenant, before)
	// The last get was refused too: a job may not read rows.
	want := []string{"project.delete denied", "project.delete denied", "rows.insert invalid_credentials", "rows.select denied"}
	var got []string
	for _, e := range events {
		got = append(got, e.Action+" "+e.Reason)
		if e.Outcome != "denied" {
			t.Errorf("the event of a refusal says %q", e.Outcome)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("refusals left %q, want %q", got, want)
	} else if events[2].Notes["table"] != "t1" {
		t.Errorf("the refusal's notes are %v", events[2].Notes)
	}
}

func testNobody(t *testing.T, w *World) {
	err := w.DB.Update(t.Context(), storage.Actor{}, insert, func(storage.Tx) error { return nil })
	if storage.FaultOf(err) != storage.Unauthenticated {
		t.Errorf("nobody updates: %v", err)
	}
	err = w.DB.View(t.Context(), storage.Actor{}, look, func(storage.Reader) error { return nil })
	if storage.FaultOf(err) != storage.Unauthenticated {
		t.Errorf("nobody views: %v", err)
	}
}

func testOneEvent(t *testing.T, w *World) {
	before := uint64(len(w.Events(t, w.Tenant, 0)))
	for i := range 20 {
		put(t, w, w.Service(), notes, fmt.Sprint(i), "x")
	}
	if n := len(w.Events(t, w.Tenant, before)); n != 20 {
		t.Errorf("20 mutations left %d events", n)
	}
}

func testIdle(t *testing.T, w *World) {
	before := uint64(len(w.Events(t, w.Tenant, 0)))
	err := w.DB.Update(t.Context(), w.Service(), insert, func(tx storage.Tx) error {
		_, err := scan(tx, storage.KeyRange{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(w.Events(t, w.Tenant, before)); n != 0 {
		t.Errorf("an update that changed nothing left %d events", n)
	}
}

func testReadEvents(t *testing.T, w *World) {
	put(t, w, w.Service(), notes, "a", "x")
	before := uint64(len(w.Events(t, w.Tenant, 0)))
	const reads = 50
	for range reads {
		if _, err := get(t, w, w.Service(), notes, "a"); err != nil {
			t.Fatal(err)
		}
	}
	w.DB.Close() // records what has gathered
	total := 0.0
	events := w.Events(t, w.Tenant, before)
	for _, e := range events {
		if e.Action != "rows.select" || e.Object != "notes" {
			t.Errorf("an event of %s on %q", e.Action, e.Object)
		}
		n, _ := e.Notes["reads"].(float64)
		total += n
	}
	if total != reads || len(events) >= reads {
		t.Errorf("%d events say that there were %v reads; there were %d", len(events), total, reads)
	}
}

func testApart(t *testing.T, w *World) {
	tenant2, project2 := w.AddTenant(t)
	put(t, w, w.Service(), notes, "a", "first")
	put(t, w, w.Service(), people, "a", "first")
	others := map[string]storage.Actor{
		"another tenant":                        storage.ServiceActor(tenant2, project2, storage.ID{1}, storage.Origin{}),
		"another tenant naming our project":     storage.ServiceActor(tenant2, w.Project, storage.ID{1}, storage.Origin{}),
		"our tenant, a project that is not one": storage.ServiceActor(w.Tenant, project2, storage.ID{1}, storage.Origin{}),
	}
	for name, by := range others {
		if v, err := get(t, w, by, notes, "a"); err == nil {
			t.Errorf("%s reads %q", name, v)
		}
	}
	for _, name := range []string{"another tenant", "another tenant naming our project"} {
		if v, err := get(t, w, others[name], people, "a"); err == nil {
			t.Errorf("%s reads %q of the tenant", name, v)
		}
	}
	// A tenant cannot change the keys of another, nor its own.
	operator := storage.OperatorActor(tenant2, storage.ID{}, storage.ID{}, "test", storage.Origin{})
	for _, scope := range [][2]storage.ID{{w.Tenant, w.Project}, {w.Tenant, {}}, {tenant2, {}}} {
		err := w.DB.Update(t.Context(), operator, storage.Intent{Action: "project.delete"}, func(tx storage.Tx) error {
			return tx.ChangeKeys(storage.DestroyKeys, scope[0], scope[1])
		})
		if storage.FaultOf(err) != storage.Denied {
			t.Errorf("destroying the keys of %v as another tenant: %v", scope, err)
		}
	}
	if v, err := get(t, w, w.Service(), notes, "a"); v != "first" {
		t.Errorf("our own row is %q, %v", v, err)
	}
}

func testCounters(t *testing.T, w *World) {
	const workers, each = 8, 25
	var wg sync.WaitGroup
	var events = uint64(len(w.Events(t, w.Tenant, 0)))
	for range workers {
		wg.Go(func() {
			for range each {
				err := w.DB.Update(context.Background(), w.Service(), insert, func(tx storage.Tx) error {
					v, err := tx.Get(notes, []byte("n"))
					if err != nil && !storage.IsNotFound(err) {
						return err
					}
					n := 0
					if len(v) > 0 {
						if _, err := fmt.Sscan(string(v), &n); err != nil {
							return err
						}
					}
					return tx.Put(notes, []byte("n"), fmt.Append(nil, n+1))
				})
				if err != nil && storage.FaultOf(err) != storage.Conflict {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	v, err := get(t, w, w.Service(), notes, "n")
	if err != nil {
		t.Fatal(err)
	}
	done := 0
	for _, e := range w.Events(t, w.Tenant, events) {
		if e.Action == "rows.insert" {
			done++
		}
	}
	if v != fmt.Sprint(done) || done == 0 {
		t.Errorf("the counter says %s, the audit log %d", v, done)
	}
}

// testRange changes something behind a transaction that scanned ["b", "f"), once, and says whether it ran again.
func testRange(t *testing.T, w *World) {
	for _, k := range []string{"a", "c", "d", "g"} {
		put(t, w, w.Service(), notes, k, "x")
	}
	remove := func(k string) {
		err := w.DB.Update(t.Context(), w.Service(), insert, func(tx storage.Tx) error { return tx.Delete(notes, []byte(k)) })
		if err != nil {
			t.Fatal(err)
		}
	}
	operator := storage.OperatorActor(w.Tenant, w.Project, storage.ID{}, "test", storage.Origin{})
	for _, c := range []struct {
		name   string
		behind func()
		limit  int
		runs   int
	}{
		{"a key inside is new", func() { put(t, w, w.Service(), notes, "b", "x") }, 100, 2},
		{"a key inside is changed", func() { put(t, w, w.Service(), notes, "d", "y") }, 100, 2},
		{"a key inside is gone", func() { remove("b") }, 100, 2},
		{"a key inside is gone and another new", func() { remove("d"); put(t, w, w.Service(), notes, "e", "x") }, 100, 2},
		{"a key outside is new", func() { put(t, w, w.Service(), notes, "z", "x"); put(t, w, w.Service(), notes, "f", "x") }, 100, 1},
		{"a key beyond what was read is new", func() { put(t, w, w.Service(), notes, "ee", "x") }, 1, 1},
		{"the project's key is rotated", func() {
			err := w.DB.Update(t.Context(), operator, storage.Intent{Action: "key.rotate"}, func(tx storage.Tx) error {
				return tx.ChangeKeys(storage.RotateKeys, w.Tenant, w.Project)
			})
			if err != nil {
				t.Fatal(err)
			}
		}, 100, 2},
	} {
		runs := 0
		err := w.DB.Update(t.Context(), w.Service(), insert, func(tx storage.Tx) error {
			n := 0
			err := tx.Scan(notes, storage.KeyRange{From: []byte("b"), To: []byte("f")}, func(_, _ []byte) bool {
				n++
				return n < c.limit
			})
			if runs++; runs == 1 {
				c.behind()
			}
			if err != nil {
				return err
			}
			return tx.Put(notes, []byte("sum"), fmt.Append(nil, n))
		})
		if err != nil || runs != c.runs {
			t.Errorf("%s: ran %d times, %v; want %d", c.name, runs, err, c.runs)
		}
	}
}

type person struct {
	Email string   `cbor:"e"`
	Teams []string `cbor:"t"`
}

// peopleTable declares the typed table of the tests.
func peopleTable() *storage.Table[person] {
	return storage.NewTable("person", storage.TenantScope,
		storage.Unique("email", func(p *person) []byte {
			if p.Email == "" {
				return nil
			}
			return []byte(p.Email)
		}),
		storage.Lookup("team", func(p *person) (all [][]byte) {
			for _, t := range p.Teams {
				all = append(all, []byte(t))
			}
			return all
		}))
}

func testTable(t *testing.T, w *World) {
	table := peopleTable()
	update := func(fn func(storage.Tx) error) error { return w.DB.Update(t.Context(), w.Service(), insert, fn) }
	ann, bob := newID(t), newID(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(update(func(tx storage.Tx) error {
		if err := table.Put(tx, ann, person{"ann@example.com", []string{"red", "blue"}}); err != nil {
			return err
		}
		return table.Put(tx, bob, person{"bob@example.com", []string{"red"}})
	}))
	err := update(func(tx storage.Tx) error { return table.Put(tx, newID(t), person{Email: "ann@example.com"}) })
	if storage.FaultOf(err) != storage.Exists {
		t.Errorf("a second ann: %v", err)
	}
	team := func(r storage.Reader, name string) (emails []string) {
		must(table.ByLookup(r, "team", []byte(name), func(_ storage.ID, p person) bool {
			emails = append(emails, p.Email)
			return true
		}))
		slices.Sort(emails)
		return emails
	}
	view := func(fn func(storage.Reader) error) {
		t.Helper()
		must(w.DB.View(t.Context(), w.Service(), look, fn))
	}
	view(func(r storage.Reader) error {
		if got := team(r, "red"); !slices.Equal(got, []string{"ann@example.com", "bob@example.com"}) {
			t.Errorf("red is %v", got)
		}
		id, p, err := table.ByUnique(r, "email", []byte("bob@example.com"))
		if id != bob || p.Email != "bob@example.com" {
			t.Errorf("bob is %v %v", id, p)
		}
		return err
	})
	must(update(func(tx storage.Tx) error { // a changed address frees the old one; a team that was left is left
		if err := table.Put(tx, ann, person{"ann@example.org", []string{"blue", "green"}}); err != nil {
			return err
		}
		return table.Put(tx, bob, person{"ann@example.com", nil})
	}))
	must(update(func(tx storage.Tx) error { return table.Delete(tx, bob) }))
	view(func(r storage.Reader) error {
		if got := team(r, "red"); len(got) != 0 {
			t.Errorf("red is still %v", got)
		}
		if got := team(r, "green"); !slices.Equal(got, []string{"ann@example.org"}) {
			t.Errorf("green is %v", got)
		}
		for _, gone := range []string{"bob@example.com", "ann@example.com"} {
			if _, _, err := table.ByUnique(r, "email", []byte(gone)); !storage.IsNotFound(err) {
				t.Errorf("%s is still found: %v", gone, err)
			}
		}
		n := 0
		err := table.All(r, storage.ID{}, func(storage.ID, person) bool { n++; return true })
		if n != 1 {
			t.Errorf("%d people are left", n)
		}
		return err
	})
}

func testUniqueRace(t *testing.T, w *World) {
	table := peopleTable()
	var wg sync.WaitGroup
	var won, exists atomic.Int32
	for range 16 {
		id := newID(t)
		wg.Go(func() {
			err := w.DB.Update(context.Background(), w.Service(), insert, func(tx storage.Tx) error {
				return table.Put(tx, id, person{Email: "one@example.com"})
			})
			switch {
			case err == nil:
				won.Add(1)
			case storage.FaultOf(err) == storage.Exists:
				exists.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || exists.Load() != 15 {
		t.Errorf("%d got the address, %d were told that it is taken", won.Load(), exists.Load())
	}
}

func testRotate(t *testing.T, w *World) {
	for i := range 600 { // more than one batch of sealing anew
		put(t, w, w.Service(), notes, fmt.Sprint(i), fmt.Sprint("value ", i))
	}
	operator := storage.OperatorActor(w.Tenant, w.Project, storage.ID{}, "test", storage.Origin{})
	err := w.DB.Update(t.Context(), operator, storage.Intent{Action: "key.rotate"}, func(tx storage.Tx) error {
		return tx.ChangeKeys(storage.RotateKeys, w.Tenant, w.Project)
	})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := get(t, w, w.Service(), notes, "17"); v != "value 17" {
		t.Errorf("after the rotation: %q, %v", v, err)
	}
	put(t, w, w.Service(), notes, "0", "changed")
	n, err := w.DB.Reseal(t.Context(), operator)
	if err != nil || n != 599 {
		t.Fatalf("sealed %d values anew, %v; want 599", n, err)
	}
	snap, err := w.Engine.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	if versions, _, err := snap.Wrapped(w.Tenant, w.Project); len(versions) != 1 || err != nil {
		t.Errorf("%d key versions are left, %v", len(versions), err)
	}
	for i, want := range map[int]string{0: "changed", 17: "value 17", 599: "value 599"} {
		if v, err := get(t, w, w.Service(), notes, fmt.Sprint(i)); v != want {
			t.Errorf("after sealing anew, %d is %q, %v", i, v, err)
		}
	}
	if n, err := w.DB.Reseal(t.Context(), operator); n != 0 || err != nil {
		t.Errorf("a second run sealed %d, %v", n, err)
	}
}

func testDestroy(t *testing.T, w *World) {
	put(t, w, w.Service(), notes, "a", "one")
	put(t, w, w.Service(), people, "a", "stays")
	operator := storage.OperatorActor(w.Tenant, storage.ID{}, storage.ID{}, "test", storage.Origin{})
	err := w.DB.Update(t.Context(), operator, storage.Intent{Action: "project.delete"}, func(tx storage.Tx) error {
		return tx.ChangeKeys(storage.DestroyKeys, w.Tenant, w.Project)
	})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := get(t, w, w.Service(), notes, "a"); err == nil {
		t.Errorf("a destroyed project's row reads as %q", v)
	}
	err = w.DB.Update(t.Context(), w.Service(), insert, func(tx storage.Tx) error { return tx.Put(notes, []byte("b"), nil) })
	if storage.FaultOf(err) != storage.NotFound {
		t.Errorf("writing into a destroyed project: %v", err)
	}
	if v, err := get(t, w, w.Service(), people, "a"); v != "stays" {
		t.Errorf("the tenant's own is %q, %v", v, err)
	}
	system := storage.OperatorActor(storage.System, storage.ID{}, storage.ID{}, "test", storage.Origin{})
	err = w.DB.Update(t.Context(), system, storage.Intent{Action: "tenant.delete"}, func(tx storage.Tx) error {
		return tx.ChangeKeys(storage.DestroyKeys, w.Tenant, storage.ID{})
	})
	if err != nil {
		t.Fatal(err)
	}
	snap, err := w.Engine.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	if tenants, err := snap.Tenants(); err != nil || slices.Contains(tenants, w.Tenant) {
		t.Errorf("the tenants are %v, %v", tenants, err)
	}
	if spaces, err := snap.Spaces(w.Tenant, storage.ID{}); err != nil || len(spaces) != 0 {
		t.Errorf("the destroyed tenant still has %v, %v", spaces, err)
	}
}

func testSealed(t *testing.T, w *World) {
	put(t, w, w.Service(), notes, "a", "one")
	w.DB.Close()
	w.Ring.Seal()
	if _, err := get(t, w, w.Service(), notes, "a"); storage.FaultOf(err) != storage.Unavailable {
		t.Errorf("a sealed node reads: %v", err)
	}
	err := w.DB.Update(t.Context(), w.Service(), insert, func(tx storage.Tx) error { return tx.Put(notes, []byte("b"), nil) })
	if storage.FaultOf(err) != storage.Unavailable {
		t.Errorf("a sealed node writes: %v", err)
	}
}

func testEmit(t *testing.T, w *World) {
	err := w.DB.Update(t.Context(), w.Service(), insert, func(tx storage.Tx) error {
		return tx.Emit("row.inserted", []byte("canary of a message"))
	})
	if err != nil {
		t.Fatal(err)
	}
}
