package bolt_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bulwark/storage"
	"bulwark/storage/bolt"
	"bulwark/storage/entry"
	"bulwark/storage/storagetest"
)

// The small world that random entries live in.
var (
	tenants  = []entry.ID{entry.System, {0xaa}, {0xbb}}
	projects = []entry.ID{{}, {0x01}, {0x02}}
	tables   = []string{"a", "a#ix", "b"}
)

// world writes down all that a snapshot shows.
func world(t testing.TB, s storage.Snapshot) string {
	t.Helper()
	ids, err := s.Tenants()
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintln("revision", s.Revision(), "tenants", ids)
	for _, tenant := range tenants {
		all += storagetest.Dump(t, s, tenant, projects[1:]...)
	}
	return all
}

// randomEntry draws an entry; about half of its preconditions hold in s.
func randomEntry(t *rapid.T, s storage.Snapshot, ids []entry.ID, next *uint64) *entry.Entry {
	number := func(n int, what string) int { return rapid.IntRange(0, n-1).Draw(t, what) }
	e := &entry.Entry{Tenant: tenants[number(3, "tenant")], Revision: s.Revision()}
	if len(ids) > 0 && number(8, "again") == 0 {
		e.ID = ids[number(len(ids), "which")]
	} else {
		*next++
		binary.BigEndian.PutUint64(e.ID[:], *next)
	}
	space := func() entry.Space {
		return entry.Space{Project: projects[number(3, "project")], Table: tables[number(3, "table")]}
	}
	key := func() []byte { return []byte{'k', byte('a' + number(6, "key"))} }
	lie := func() uint64 { return uint64(max(0, number(12, "lie")-9)) }
	for range number(3, "points") {
		p := entry.Point{Space: space(), Key: key()}
		_, p.Version, _, _ = s.Get(e.Tenant, p.Space, p.Key)
		p.Version += lie()
		e.Points = append(e.Points, p)
	}
	for range number(3, "ranges") {
		r := entry.Range{Space: space()}
		if number(2, "bounded") == 0 {
			r.From, r.To = key(), key()
		}
		_ = s.Scan(e.Tenant, r.Space, r.From, r.To, false, func(_, _ []byte, _ uint64) bool { r.Count++; return true })
		r.Count += lie()
		if number(8, "old") == 0 {
			e.Revision -= min(e.Revision, 3)
		}
		e.Ranges = append(e.Ranges, r)
	}
	if number(3, "scoped") == 0 {
		sp := entry.ScopePoint{Tenant: e.Tenant, Project: projects[number(3, "scope")]}
		_, sp.Revision, _ = s.Wrapped(sp.Tenant, sp.Project)
		sp.Revision += lie()
		e.Scopes = append(e.Scopes, sp)
	}
	for range number(6, "writes") {
		w := entry.Write{Space: space(), Key: key(), Delete: number(3, "delete") == 0}
		if !w.Delete {
			w.Value = rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "value")
		}
		e.Writes = append(e.Writes, w)
	}
	for range number(4, "leaves") {
		leaf := entry.Leaf{Sealed: []byte("event")}
		binary.BigEndian.PutUint64(leaf.Hash[:], *next)
		e.Leaves = append(e.Leaves, leaf)
	}
	for range number(2, "messages") {
		e.Messages = append(e.Messages, []byte("message"))
	}
	if number(3, "keyed") == 0 {
		k := entry.KeyChange{Kind: entry.KeyKind(1 + number(3, "kind")), Tenant: e.Tenant, Project: projects[number(3, "keys of")]}
		if e.Tenant == entry.System {
			k.Tenant = tenants[number(3, "keys' tenant")]
		}
		if k.Kind == entry.PutKey {
			k.Wrapped = []byte("wrapped")
		}
		if k.Kind != entry.DestroyScope {
			k.Version = uint32(number(3, "version"))
		}
		e.Keys = append(e.Keys, k)
	}
	return e
}

// TestAgainstTheModel applies random batches to the model and to a DB that is flushed, closed and opened at random
// moments, and holds snapshots over all of it.
func TestAgainstTheModel(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		o := options(filepath.Join(folder, fmt.Sprintf("%d.db", run)))
		o.FlushInterval = time.Hour
		if rapid.Bool().Draw(rt, "committer") {
			o.FlushInterval, o.FlushBytes = time.Millisecond, 2000
		}
		db, err := bolt.Open(o)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() {
			if err := db.Check(); err != nil {
				rt.Fatal(err)
			}
			if err := db.Close(); err != nil {
				rt.Fatal(err)
			}
		}()
		model := storagetest.NewEngine()
		type pair struct{ got, want storage.Snapshot }
		var held []pair
		release := func() {
			for _, p := range held {
				if got, want := world(t, p.got), world(t, p.want); got != want {
					rt.Fatalf("a snapshot held over shows\n%s\nwant\n%s", got, want)
				}
				p.got.Release()
			}
			held = nil
		}
		defer release()
		var ids []entry.ID
		var next, index uint64
		rt.Repeat(map[string]func(*rapid.T){
			"apply": func(rt *rapid.T) {
				index += uint64(rapid.IntRange(1, 3).Draw(rt, "skip"))
				s, _ := model.Local()
				var batch []*entry.Entry
				var want []entry.Outcome
				for range rapid.IntRange(0, 4).Draw(rt, "batch") {
					e := randomEntry(rt, s, ids, &next)
					ids = append(ids, e.ID)
					o, err := model.Propose(context.Background(), e)
					if err != nil {
						rt.Fatal(err)
					}
					batch, want = append(batch, e), append(want, o)
				}
				got := db.Apply(index, batch)
				if fmt.Sprint(got) != fmt.Sprint(want) {
					rt.Fatalf("the outcomes are %v, want %v", got, want)
				}
				if again := db.Apply(index, batch); fmt.Sprint(again) != fmt.Sprint(want) {
					rt.Fatalf("the outcomes of an index applied again are %v, want %v", again, want)
				}
			},
			"flush": func(rt *rapid.T) {
				if err := db.Flush(); err != nil {
					rt.Fatal(err)
				}
				if db.Persisted() != index {
					rt.Fatalf("after a flush %d is persisted, want %d", db.Persisted(), index)
				}
			},
			"reopen": func(rt *rapid.T) {
				release()
				if err := db.Close(); err != nil {
					rt.Fatal(err)
				}
				if db, err = bolt.Open(o); err != nil {
					rt.Fatal(err)
				}
			},
			"hold": func(rt *rapid.T) {
				got, err := db.Snapshot()
				if err != nil {
					rt.Fatal(err)
				}
				want, _ := model.Local()
				held = append(held, pair{got, want})
			},
			"": func(rt *rapid.T) {
				got, err := db.Snapshot()
				if err != nil {
					rt.Fatal(err)
				}
				defer got.Release()
				want, _ := model.Local()
				if g, w := world(t, got), world(t, want); g != w {
					rt.Fatalf("the state is\n%s\nwant\n%s", g, w)
				}
			},
		})
	})
}
