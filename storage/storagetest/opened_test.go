package storagetest

import (
	"testing"

	"bulwark/storage"
)

// TestCached holds that a table whose decoded records are remembered answers as one that is read anew each time.
func TestCached(t *testing.T) {
	t.Parallel()
	w := NewWorld(t, NewEngine())
	table := storage.NewTable("cachedperson", storage.ProjectScope,
		storage.Unique("email", func(p *person) []byte { return []byte(p.Email) }), storage.Cached[person]())
	id := newID(t)
	update := func(fn func(storage.Tx) error) {
		t.Helper()
		if err := w.DB.Update(t.Context(), w.Service(), insert, fn); err != nil {
			t.Fatal(err)
		}
	}
	email := func(r storage.Reader) string {
		t.Helper()
		p, err := table.Get(r, id)
		if storage.IsNotFound(err) {
			return "none"
		}
		if err != nil {
			t.Fatal(err)
		}
		return p.Email
	}
	seen := func() (now string) {
		t.Helper()
		for range 2 { // from the store, then from memory
			err := w.DB.View(t.Context(), w.Service(), look, func(r storage.Reader) error { now = email(r); return nil })
			if err != nil {
				t.Fatal(err)
			}
		}
		return now
	}
	want := func(what, want string) {
		t.Helper()
		if got := seen(); got != want {
			t.Errorf("%s: the record says %q, want %q", what, got, want)
		}
	}
	want("before", "none")
	update(func(tx storage.Tx) error { return table.Put(tx, id, person{Email: "a@example.com"}) })
	want("written", "a@example.com")
	update(func(tx storage.Tx) error {
		if err := table.Put(tx, id, person{Email: "b@example.com"}); err != nil {
			return err
		}
		if got := email(tx); got != "b@example.com" {
			t.Errorf("the transaction sees %q, not its own write", got)
		}
		return nil
	})
	want("changed", "b@example.com")
	// A snapshot from before a change says what was.
	err := w.DB.View(t.Context(), w.Service(), look, func(r storage.Reader) error {
		update(func(tx storage.Tx) error { return table.Put(tx, id, person{Email: "c@example.com"}) })
		want("changed behind a reader", "c@example.com")
		if got := email(r); got != "b@example.com" {
			t.Errorf("the older snapshot sees %q", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// What was read from memory is a precondition all the same.
	runs := 0
	update(func(tx storage.Tx) error {
		now := email(tx)
		if runs++; runs == 1 {
			update(func(tx storage.Tx) error { return table.Put(tx, id, person{Email: "d@example.com"}) })
		}
		return tx.Put(notes, []byte("copy"), []byte(now))
	})
	if v, err := get(t, w, w.Service(), notes, "copy"); runs != 2 || v != "d@example.com" {
		t.Errorf("ran %d times and copied %q, %v", runs, v, err)
	}
	w.DB.Forget()
	want("forgotten", "d@example.com")
	other, project := w.AddTenant(t)
	err = w.DB.View(t.Context(), storage.ServiceActor(other, project, id, storage.Origin{}), look, func(r storage.Reader) error {
		if got := email(r); got != "none" {
			t.Errorf("another tenant sees %q", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	update(func(tx storage.Tx) error { return table.Delete(tx, id) })
	want("deleted", "none")
	update(func(tx storage.Tx) error { return table.Put(tx, id, person{Email: "e@example.com"}) })
	want("written again", "e@example.com")
	w.DB.Close()
	w.Ring.Seal()
	err = w.DB.View(t.Context(), w.Service(), look, func(r storage.Reader) error { _, err := table.Get(r, id); return err })
	if storage.FaultOf(err) != storage.Unavailable {
		t.Errorf("a sealed node reads what it remembers: %v", err)
	}
}
