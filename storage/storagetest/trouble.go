package storagetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulwark/security/access"
	"bulwark/security/audit"
	"bulwark/storage"
	"bulwark/storage/entry"
)

// A meddler is an Engine whose proposals a test can get in the way of.
type meddler struct {
	storage.Engine
	meddle atomic.Pointer[meddling]
}

// A meddling stands before an engine's Propose.
type meddling func(ctx context.Context, e *entry.Entry, propose proposing) (entry.Outcome, error)

type proposing func(context.Context, *entry.Entry) (entry.Outcome, error)

func (m *meddler) Propose(ctx context.Context, e *entry.Entry) (entry.Outcome, error) {
	if f := m.meddle.Load(); f != nil {
		return (*f)(ctx, e, m.Engine.Propose)
	}
	return m.Engine.Propose(ctx, e)
}

// with runs fn while f stands before the engine.
func (m *meddler) with(f meddling, fn func()) {
	m.meddle.Store(&f)
	defer m.meddle.Store(nil)
	fn()
}

// troubles are the cases of TestStore in which others get in the way.
func troubles() map[string]func(*testing.T, *World) {
	return map[string]func(*testing.T, *World){
		"what was not found is a precondition": testAbsent,
		"own writes end no range":              testOwnWriteInRange,
		"a scope destroyed behind":             testDestroyedBehind,
		"a refusal keeps nothing":              testRefusalKeepsNothing,
		"a doubt is settled":                   testDoubt,
		"history of one tenant":                testHistory,
		"a context that ends":                  testContextEnds,
		"row ids":                              testRows,
		"contention":                           testContention,
		"many reads while the log is slow":     testManyReads,
		"keys rotate while values are sealed":  testRotateWhileResealing,
		"sealing anew is stopped and repeated": testResealAgain,
		"sealing anew beside writers":          testResealBesideWriters,
		"a tenant's own values sealed anew":    testResealTenant,
		"large values sealed anew":             testResealLarge,
	}
}

func (w *World) operator() storage.Actor {
	return storage.OperatorActor(w.Tenant, w.Project, storage.ID{}, "test", storage.Origin{})
}

func (w *World) changeKeys(t testing.TB, op storage.KeyOp) {
	t.Helper()
	err := w.DB.Update(context.Background(), w.operator(), storage.Intent{Action: "key.rotate"}, func(tx storage.Tx) error {
		return tx.ChangeKeys(op, w.Tenant, w.Project)
	})
	if err != nil {
		t.Error(err)
	}
}

func (w *World) snapshot(t testing.TB) storage.Snapshot {
	t.Helper()
	s, err := w.Engine.Snapshot(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Release)
	return s
}

// testAbsent makes what a transaction looked for and did not find, once, behind it.
func testAbsent(t *testing.T, w *World) {
	table := peopleTable()
	for name, c := range map[string]struct {
		look   func(storage.Tx) error
		behind func()
		runs   int
	}{
		"a key": {
			func(tx storage.Tx) error { _, err := tx.Get(notes, []byte("a")); return err },
			func() { put(t, w, w.Service(), notes, "a", "x") }, 2,
		},
		"another key": {
			func(tx storage.Tx) error { _, err := tx.Get(notes, []byte("b")); return err },
			func() { put(t, w, w.Service(), notes, "c", "x") }, 1,
		},
		"a unique key": {
			func(tx storage.Tx) error {
				_, _, err := table.ByUnique(tx, "email", []byte("new@example.com"))
				return err
			},
			func() {
				err := w.DB.Update(t.Context(), w.Service(), insert, func(tx storage.Tx) error {
					return table.Put(tx, newID(t), person{Email: "new@example.com"})
				})
				if err != nil {
					t.Error(err)
				}
			}, 2,
		},
	} {
		runs := 0
		err := w.DB.Update(t.Context(), w.Service(), insert, func(tx storage.Tx) error {
			if err := c.look(tx); err != nil && !storage.IsNotFound(err) {
				return err
			}
			if runs++; runs == 1 {
				c.behind()
			}
			return tx.Put(notes, []byte("done"), []byte(name))
		})
		if err != nil || runs != c.runs {
			t.Errorf("%s appeared behind: %d runs, %v; want %d", name, runs, err, c.runs)
		}
	}
}

// testOwnWriteInRange leaves a scan at an own write that lies behind everything else, and puts a key before it, behind the
// transaction.
func testOwnWriteInRange(t *testing.T, w *World) {
	for _, reverse := range []bool{false, true} {
		space := fmt.Sprint(reverse, "-")
		key := func(s string) []byte { return []byte(space + s) }
		own, behind := "z", "m"
		if reverse {
			own, behind = "b", "d"
		}
		put(t, w, w.Service(), notes, string(key("f")), "x")
		runs := 0
		var seen []string
		err := w.DB.Update(t.Context(), w.Service(), insert, func(tx storage.Tx) error {
			if err := tx.Put(notes, key(own), []byte("mine")); err != nil {
				return err
			}
			seen = nil
			err := tx.Scan(notes, storage.KeyRange{From: key(""), To: key("~"), Reverse: reverse}, func(k, _ []byte) bool {
				seen = append(seen, strings.TrimPrefix(string(k), space))
				return len(seen) < 2
			})
			if runs++; runs == 1 {
				put(t, w, w.Service(), notes, string(key(behind)), "x")
			}
			return err
		})
		if want := []string{"f", behind}; err != nil || runs != 2 || !slices.Equal(seen, want) {
			t.Errorf("reverse %v: ran %d times and saw %q at last, %v; want %q", reverse, runs, seen, err, want)
		}
	}
}

// testDestroyedBehind destroys a project behind a transaction that only puts into it.
func testDestroyedBehind(t *testing.T, w *World) {
	write := func(behind func()) (runs int, err error) {
		err = w.DB.Update(t.Context(), w.Service(), insert, func(tx storage.Tx) error {
			if runs++; runs == 1 {
				defer behind()
			}
			return tx.Put(notes, []byte("a"), []byte("late"))
		})
		return runs, err
	}
	destroy := func() { w.changeKeys(t, storage.DestroyKeys) }
	if runs, err := write(destroy); storage.FaultOf(err) != storage.NotFound || runs > 2 {
		t.Errorf("putting into a project that was destroyed behind: %d runs, %v", runs, err)
	}
	if spaces, err := w.snapshot(t).Spaces(w.Tenant, w.Project); err != nil || len(spaces) != 0 {
		t.Errorf("the destroyed project holds %v, %v", spaces, err)
	}
	w.changeKeys(t, storage.CreateKeys)
	runs, err := write(func() { destroy(); w.changeKeys(t, storage.CreateKeys) })
	if err != nil || runs != 2 {
		t.Errorf("putting into a project that was made anew behind: %d runs, %v", runs, err)
	}
	if v, err := get(t, w, w.Service(), notes, "a"); v != "late" || err != nil {
		t.Errorf("what was put reads as %q, %v", v, err)
	}
}

func testRefusalKeepsNothing(t *testing.T, w *World) {
	before := Dump(t, w.snapshot(t), w.Tenant, w.Project)
	leaves, _, err := w.snapshot(t).Tree(w.Tenant)
	if err != nil {
		t.Fatal(err)
	}
	err = w.DB.Update(t.Context(), w.operator(), storage.Intent{Action: "key.rotate"}, func(tx storage.Tx) error {
		return errors.Join(tx.Put(notes, []byte("a"), []byte("x")), tx.Emit("topic", []byte("x")),
			tx.ChangeKeys(storage.RotateKeys, w.Tenant, w.Project),
			storage.Errorf(storage.Denied, "not_yours", "no"))
	})
	if storage.FaultOf(err) != storage.Denied {
		t.Errorf("the refusal came back as %v", err)
	}
	after := Dump(t, w.snapshot(t), w.Tenant, w.Project)
	cut := func(s string) string { return s[:strings.Index(s, "tree of ")] }
	if cut(before) != cut(after) {
		t.Errorf("a refused transaction left something:\n%s\nbefore:\n%s", cut(after), cut(before))
	}
	if n, _, err := w.snapshot(t).Tree(w.Tenant); n != leaves+1 || err != nil {
		t.Errorf("a refusal left %d events, %v; want one", n-leaves, err)
	}
}

// testDoubt answers proposals with a doubt, before and after they are applied.
func testDoubt(t *testing.T, w *World) {
	m := w.Engine.(*meddler)
	doubt := &storage.InDoubt{Cause: errors.New("the leader changed")}
	refusal := storage.Errorf(storage.Unavailable, "not_leader", "another node leads")
	for name, c := range map[string]struct {
		first bool  // the first proposal is applied
		then  error // the answer to all others; nil: theirs
		code  string
	}{
		"applied":                     {first: true},
		"not applied":                 {},
		"applied, then doubt":         {true, doubt, "in_doubt"},
		"applied, then a refusal":     {true, refusal, "in_doubt"},
		"not applied, then a refusal": {false, refusal, "in_doubt"},
	} {
		before := uint64(len(w.Events(t, w.Tenant, 0)))
		ids := map[entry.ID]int{}
		var err error
		m.with(func(ctx context.Context, e *entry.Entry, propose proposing) (entry.Outcome, error) {
			if len(e.Writes) == 0 { // events of reads
				return propose(ctx, e)
			}
			ids[e.ID]++
			if len(ids) == 1 && ids[e.ID] == 1 {
				if c.first {
					if _, err := propose(ctx, e); err != nil {
						t.Error(err)
					}
				}
				return entry.Outcome{}, doubt
			}
			if c.then != nil {
				return entry.Outcome{}, c.then
			}
			return propose(ctx, e)
		}, func() {
			err = w.DB.Update(t.Context(), w.Service(), insert, func(tx storage.Tx) error {
				v, err := tx.Get(notes, []byte(name))
				if err != nil && !storage.IsNotFound(err) {
					return err
				}
				return tx.Put(notes, []byte(name), append(v, 'x'))
			})
		})
		var e *storage.Error
		switch {
		case c.code == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.code != "" && (!errors.As(err, &e) || e.Code != c.code || e.Fault != storage.Unavailable):
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
		for id, n := range ids {
			if len(ids) != 1 || n < 2 || n > 100 {
				t.Errorf("%s: %s was proposed %d times, %d others", name, id, n, len(ids)-1)
			}
		}
		want, events := "", 0
		if c.first || c.then == nil {
			want, events = "x", 1
		}
		if v, err := get(t, w, w.Service(), notes, name); v != want || want != "" && err != nil {
			t.Errorf("%s: the value is %q, %v; want %q", name, v, err, want)
		}
		n := 0
		for _, e := range w.Events(t, w.Tenant, before) {
			if e.Action == "rows.insert" {
				n++
			}
		}
		if n != events {
			t.Errorf("%s: %d events, want %d", name, n, events)
		}
	}
}

func testHistory(t *testing.T, w *World) {
	tenant2, project2 := w.AddTenant(t)
	put(t, w, w.Service(), notes, "a", "x")
	other := storage.ServiceActor(tenant2, project2, storage.ID{1}, storage.Origin{})
	err := w.DB.Update(t.Context(), other, storage.Intent{Action: "rows.insert", Object: "theirs"}, func(tx storage.Tx) error {
		return tx.Put(notes, []byte("a"), []byte("x"))
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range w.Events(t, w.Tenant, 0) {
		if e.Object == "theirs" {
			t.Error("another tenant's event is in our history")
		}
	}
	search := storage.Intent{Action: "audit.search"}
	for _, tenant := range []storage.ID{w.Tenant, tenant2} {
		by := storage.OperatorActor(tenant, storage.ID{}, storage.ID{}, "test", storage.Origin{})
		size, edge, err := w.DB.Tree(t.Context(), by, search)
		if err != nil {
			t.Fatal(err)
		}
		held, heldEdge, err := w.snapshot(t).Tree(tenant)
		if err != nil || size > held || size == held && !slices.Equal(edge, heldEdge) {
			t.Errorf("the tree of %s has %d leaves, and %d in the engine, %v", tenant, size, held, err)
		}
	}
	for name, by := range map[string]storage.Actor{"nobody": {}, "a secret key": w.Service()} {
		err := w.DB.Events(t.Context(), by, search, 0, func(uint64, [32]byte, []byte) bool {
			t.Errorf("%s is shown an event", name)
			return false
		})
		if f := storage.FaultOf(err); f != storage.Unauthenticated && f != storage.Denied {
			t.Errorf("%s reads the history: %v", name, err)
		}
		if _, _, err := w.DB.Tree(t.Context(), by, search); err == nil {
			t.Errorf("%s reads the tree", name)
		}
	}
}

func testContextEnds(t *testing.T, w *World) {
	m := w.Engine.(*meddler)
	before := len(w.Events(t, w.Tenant, 0))
	want := func(name, code string, err error) {
		t.Helper()
		var e *storage.Error
		if !errors.As(err, &e) || e.Fault != storage.Unavailable || code != "" && e.Code != code {
			t.Errorf("a context that ends %s: %v", name, err)
		}
	}
	write := func(tx storage.Tx) error { return tx.Put(notes, []byte("a"), []byte("x")) }

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	want("before", "", w.DB.Update(ended, w.Service(), insert, write))

	ctx, cancel := context.WithCancel(t.Context())
	want("inside", "timeout", w.DB.Update(ctx, w.Service(), insert, func(tx storage.Tx) error {
		cancel()
		return write(tx)
	}))
	ctx, cancel = context.WithCancel(t.Context())
	m.with(func(ctx context.Context, e *entry.Entry, propose proposing) (entry.Outcome, error) {
		cancel()
		return entry.Outcome{Status: entry.Conflict}, nil
	}, func() { want("between conflicts", "timeout", w.DB.Update(ctx, w.Service(), insert, write)) })

	if _, err := get(t, w, w.Service(), notes, "a"); !storage.IsNotFound(err) {
		t.Errorf("something was written: %v", err)
	}
	if n := len(w.Events(t, w.Tenant, uint64(before))); n != 0 {
		t.Errorf("%d events", n)
	}
	ctx, cancel = context.WithCancel(t.Context())
	m.with(func(ctx context.Context, e *entry.Entry, propose proposing) (entry.Outcome, error) {
		cancel()
		return entry.Outcome{}, &storage.InDoubt{Cause: ctx.Err()}
	}, func() { want("while in doubt", "in_doubt", w.DB.Update(ctx, w.Service(), insert, write)) })
}

// again opens a second Store over the world's engine: another node's, with a clock of its own.
func (w *World) again(t testing.TB, clock func() time.Time) *storage.DB {
	t.Helper()
	recorder, err := audit.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	db, err := storage.Open(w.Engine, storage.Guards{
		Access: access.New(), Keys: w.Ring, Audit: recorder, Clock: clock, Rand: rand.Reader,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// testRows draws row ids at once, under a clock that is set back.
func testRows(t *testing.T, w *World) {
	var ticks atomic.Int64
	start := time.Now()
	db := w.again(t, func() time.Time { return start.Add(-time.Duration(ticks.Add(1)) * time.Second) })
	var mu sync.Mutex
	drawn := map[uint64]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			last := uint64(0)
			err := db.Update(context.Background(), w.Service(), insert, func(tx storage.Tx) error {
				for range 200 {
					id := tx.NewRow()
					if id <= last {
						t.Errorf("row id %d came after %d", id, last)
					}
					last = id
					mu.Lock()
					if drawn[id] {
						t.Errorf("row id %d was given twice", id)
					}
					drawn[id] = true
					mu.Unlock()
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// testContention lets 64 writers change one key: whoever is told of success has changed it, and hardly anybody gives up.
func testContention(t *testing.T, w *World) {
	const writers, each = 64, 4
	var wg sync.WaitGroup
	var done, gaveUp atomic.Int32
	var runs atomic.Int64
	start := time.Now()
	for range writers {
		wg.Go(func() {
			for range each {
				err := w.DB.Update(context.Background(), w.Service(), insert, func(tx storage.Tx) error {
					runs.Add(1)
					v, err := tx.Get(notes, []byte("n"))
					if err != nil && !storage.IsNotFound(err) {
						return err
					}
					return tx.Put(notes, []byte("n"), append(v, 'x'))
				})
				switch {
				case err == nil:
					done.Add(1)
				case storage.FaultOf(err) == storage.Conflict:
					gaveUp.Add(1)
				default:
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d done, %d gave up, %d runs in %v", done.Load(), gaveUp.Load(), runs.Load(), time.Since(start))
	if v, err := get(t, w, w.Service(), notes, "n"); int32(len(v)) != done.Load() || err != nil {
		t.Errorf("the value counts %d, and %d succeeded, %v", len(v), done.Load(), err)
	}
	if gaveUp.Load() > writers*each/100 {
		t.Errorf("%d of %d gave up", gaveUp.Load(), writers*each)
	}
}

var otherNotes = storage.Ref{Name: "other_notes", Scope: storage.ProjectScope}

// onReseal runs fn once, when the first batch of values sealed anew is proposed, and then proposes it.
func onReseal(fn func()) meddling {
	var once sync.Once
	return func(ctx context.Context, e *entry.Entry, propose proposing) (entry.Outcome, error) {
		out, err := propose(ctx, e)
		if len(e.Writes) > 0 && len(e.Keys) == 0 {
			once.Do(fn)
		}
		return out, err
	}
}

// testRotateWhileResealing rotates a project's key once more when one table is sealed anew and another is not.
func testRotateWhileResealing(t *testing.T, w *World) {
	put(t, w, w.Service(), notes, "a", "first table")
	put(t, w, w.Service(), otherNotes, "a", "second table")
	w.changeKeys(t, storage.RotateKeys)
	var n int
	var err error
	w.Engine.(*meddler).with(onReseal(func() { w.changeKeys(t, storage.RotateKeys) }), func() {
		n, err = w.DB.Reseal(t.Context(), w.operator())
	})
	if err != nil || n < 3 {
		t.Errorf("sealed %d values anew, %v; want 3", n, err)
	}
	for ref, want := range map[storage.Ref]string{notes: "first table", otherNotes: "second table"} {
		if v, err := get(t, w, w.Service(), ref, "a"); v != want {
			t.Errorf("%s reads as %q, %v", ref.Name, v, err)
		}
	}
	if versions, _, err := w.snapshot(t).Wrapped(w.Tenant, w.Project); len(versions) != 1 || err != nil {
		t.Errorf("%d key versions are left, %v", len(versions), err)
	}
}

// testResealAgain stops sealing anew after one batch, and runs it again: on two nodes at once.
func testResealAgain(t *testing.T, w *World) {
	err := w.DB.Update(t.Context(), w.Service(), insert, func(tx storage.Tx) error {
		for i := range 600 {
			if err := tx.Put(notes, fmt.Appendf(nil, "%03d", i), fmt.Append(nil, "value ", i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.changeKeys(t, storage.RotateKeys)
	ctx, cancel := context.WithCancel(t.Context())
	w.Engine.(*meddler).with(onReseal(cancel), func() {
		if n, err := w.DB.Reseal(ctx, w.operator()); err == nil || n == 0 || n == 600 {
			t.Errorf("stopped, it sealed %d values anew, %v", n, err)
		}
	})
	if versions, _, err := w.snapshot(t).Wrapped(w.Tenant, w.Project); len(versions) != 2 || err != nil {
		t.Errorf("stopped, it left %d key versions, %v", len(versions), err)
	}
	var wg sync.WaitGroup
	for _, db := range []*storage.DB{w.DB, w.again(t, time.Now)} {
		wg.Go(func() {
			if _, err := db.Reseal(context.Background(), w.operator()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if versions, _, err := w.snapshot(t).Wrapped(w.Tenant, w.Project); len(versions) != 1 || err != nil {
		t.Errorf("%d key versions are left, %v", len(versions), err)
	}
	for i := range 600 {
		if v, err := get(t, w, w.Service(), notes, fmt.Sprintf("%03d", i)); v != fmt.Sprint("value ", i) {
			t.Fatalf("value %d reads as %q, %v", i, v, err)
		}
	}
}

func testResealBesideWriters(t *testing.T, w *World) {
	for i := range 50 {
		put(t, w, w.Service(), notes, fmt.Sprint(i), "0")
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var done atomic.Int64
	for range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				err := w.DB.Update(context.Background(), w.Service(), insert, func(tx storage.Tx) error {
					v, err := tx.Get(notes, fmt.Append(nil, i%50))
					if err != nil {
						return err
					}
					var n int
					if _, err := fmt.Sscan(string(v), &n); err != nil {
						return err
					}
					return tx.Put(notes, fmt.Append(nil, i%50), fmt.Append(nil, n+1))
				})
				if err == nil {
					done.Add(1)
				} else if storage.FaultOf(err) != storage.Conflict {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 5 {
		w.changeKeys(t, storage.RotateKeys)
		if _, err := w.DB.Reseal(t.Context(), w.operator()); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	var sum int64
	for i := range 50 {
		v, err := get(t, w, w.Service(), notes, fmt.Sprint(i))
		var n int64
		if _, scanned := fmt.Sscan(v, &n); err != nil || scanned != nil {
			t.Fatalf("%d reads as %q, %v", i, v, err)
		}
		sum += n
	}
	if sum != done.Load() {
		t.Errorf("%d changes succeeded, and %d are there", done.Load(), sum)
	}
	if versions, _, err := w.snapshot(t).Wrapped(w.Tenant, w.Project); len(versions) != 1 || err != nil {
		t.Errorf("%d key versions are left, %v", len(versions), err)
	}
}

// testResealTenant seals a tenant's own values anew, with messages waiting in its outbox.
func testResealTenant(t *testing.T, w *World) {
	put(t, w, w.Service(), people, "a", "one")
	testEmit(t, w)
	system := storage.OperatorActor(storage.System, storage.ID{}, storage.ID{}, "test", storage.Origin{})
	err := w.DB.Update(t.Context(), system, storage.Intent{Action: "key.rotate"}, func(tx storage.Tx) error {
		return tx.ChangeKeys(storage.RotateKeys, w.Tenant, storage.ID{})
	})
	if err != nil {
		t.Fatal(err)
	}
	by := storage.OperatorActor(w.Tenant, storage.ID{}, storage.ID{}, "test", storage.Origin{})
	events := len(w.Events(t, w.Tenant, 0))
	if n, err := w.DB.Reseal(t.Context(), by); n != 1 || err != nil {
		t.Errorf("sealed %d values anew, %v; want 1", n, err)
	}
	if v, err := get(t, w, w.Service(), people, "a"); v != "one" {
		t.Errorf("it reads as %q, %v", v, err)
	}
	put(t, w, w.Service(), notes, "a", "in the project")
	if v, err := get(t, w, w.Service(), notes, "a"); v != "in the project" {
		t.Errorf("the project's reads as %q, %v", v, err)
	}
	if n := len(w.Events(t, w.Tenant, 0)); n <= events {
		t.Errorf("%d events can be opened, %d could before", n, events)
	}
}

// testResealLarge seals values anew that together are larger than an entry may be.
func testResealLarge(t *testing.T, w *World) {
	value := bytes.Repeat([]byte("large "), 1<<16)
	const count = 24
	for i := range count {
		put(t, w, w.Service(), notes, fmt.Sprintf("%02d", i), string(value))
	}
	if count*len(value) <= entry.MaxEntry {
		t.Fatal("the values fit into one entry")
	}
	w.changeKeys(t, storage.RotateKeys)
	if n, err := w.DB.Reseal(t.Context(), w.operator()); n != count || err != nil {
		t.Errorf("sealed %d values anew, %v; want %d", n, err, count)
	}
	if v, err := get(t, w, w.Service(), notes, "07"); v != string(value) {
		t.Errorf("a value of %d bytes reads as one of %d, %v", len(value), len(v), err)
	}
}

// testManyReads reads many things while no event can be recorded: what gathers is bounded, and none is lost.
func testManyReads(t *testing.T, w *World) {
	const reads, most = 7000, 4*256 + 4096
	before := uint64(len(w.Events(t, w.Tenant, 0)))
	w.DB.Flush()
	slow := make(chan struct{})
	done := make(chan struct{}, reads)
	w.Engine.(*meddler).with(func(ctx context.Context, e *entry.Entry, propose proposing) (entry.Outcome, error) {
		<-slow
		return propose(ctx, e)
	}, func() {
		go func() {
			for n := range reads {
				to := storage.Intent{Action: "rows.select", Object: fmt.Sprint(n)}
				if err := w.DB.View(context.Background(), w.Service(), to, func(storage.Reader) error { return nil }); err != nil {
					t.Error(err)
				}
				done <- struct{}{}
			}
		}()
		for range most {
			<-done
		}
		left := reads - most
		select {
		case <-done:
			left--
			t.Errorf("more than %d events gather", most)
		case <-time.After(50 * time.Millisecond):
		}
		close(slow)
		for range left {
			<-done
		}
		w.DB.Flush()
	})
	seen := 0
	for _, e := range w.Events(t, w.Tenant, before) {
		if e.Action == "rows.select" {
			seen++
		}
	}
	if seen != reads {
		t.Errorf("%d of %d reads are recorded", seen, reads)
	}
}
