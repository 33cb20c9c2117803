package storagetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"bulwark/storage"
	"bulwark/storage/entry"
)

// TestEngine holds an Engine to its contract. open returns a new, empty one each time; the engine may go on flushing,
// snapshotting and compacting as it likes meanwhile.
func TestEngine(t *testing.T, open func(t *testing.T) storage.Engine) {
	for _, c := range []struct {
		name string
		run  func(*bench)
	}{
		{"Points", testPoints},
		{"Ranges", testRanges},
		{"Scopes", testScopes},
		{"Idempotency", testIdempotency},
		{"Rules", testRules},
		{"Tenants", testTenants},
		{"Isolation", testIsolation},
		{"Scans", testScans},
		{"Audit", testAudit},
		{"Outbox", testOutbox},
		{"Keys", testKeys},
		{"DestroyProject", testDestroyProject},
		{"DestroyTenant", testDestroyTenant},
		{"DestroyAndWriteAgain", testDestroyAndWriteAgain},
		{"Changed", testChanged},
		{"Spaces", testSpaces},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(&bench{T: t, engine: open(t)})
		})
	}
}

var (
	acme   = entry.ID{0: 0xac, 15: 1}
	bravo  = entry.ID{0: 0xbb, 15: 2}
	first  = entry.ID{0: 0x01, 15: 3}
	second = entry.ID{0: 0x02, 15: 4}
	memos  = entry.Space{Project: first, Table: "memos"}
)

// A bench is one engine under test.
type bench struct {
	*testing.T
	engine storage.Engine
	ids    atomic.Uint64
}

// id returns an id that was not used before.
func (b *bench) id() entry.ID {
	id := entry.ID{0: 0xee}
	binary.BigEndian.PutUint64(id[8:], b.ids.Add(1))
	return id
}

func (b *bench) propose(e *entry.Entry) entry.Outcome {
	b.Helper()
	if e.ID.IsZero() {
		e.ID = b.id()
	}
	if e.Tenant.IsZero() {
		e.Tenant = acme
	}
	o, err := b.engine.Propose(context.Background(), e)
	if err != nil {
		b.Fatalf("Propose: %v", err)
	}
	return o
}

func (b *bench) want(status entry.Status, e *entry.Entry) entry.Outcome {
	b.Helper()
	o := b.propose(e)
	if o.Status != status {
		b.Fatalf("the outcome is %d, want %d", o.Status, status)
	}
	return o
}

func (b *bench) snapshot() storage.Snapshot {
	b.Helper()
	s, err := b.engine.Snapshot(context.Background())
	if err != nil {
		b.Fatalf("Snapshot: %v", err)
	}
	b.Cleanup(s.Release)
	return s
}

func setRow(s entry.Space, key, value string) entry.Write {
	return entry.Write{Space: s, Key: []byte(key), Value: []byte(value)}
}

func dropRow(s entry.Space, key string) entry.Write {
	return entry.Write{Space: s, Key: []byte(key), Delete: true}
}

func point(s entry.Space, key string, version uint64) entry.Point {
	return entry.Point{Space: s, Key: []byte(key), Version: version}
}

func (b *bench) get(s storage.Snapshot, tenant entry.ID, sp entry.Space, key string) (string, uint64) {
	b.Helper()
	v, version, ok, err := s.Get(tenant, sp, []byte(key))
	if err != nil {
		b.Fatalf("Get: %v", err)
	}
	if ok != (version != 0) {
		b.Fatalf("Get says ok %v and version %d", ok, version)
	}
	return string(v), version
}

// list returns "key=value" of each row of [from, to).
func (b *bench) list(s storage.Snapshot, tenant entry.ID, sp entry.Space, from, to []byte, reverse bool) []string {
	b.Helper()
	var rows []string
	err := s.Scan(tenant, sp, from, to, reverse, func(k, v []byte, _ uint64) bool {
		rows = append(rows, string(k)+"="+string(v))
		return true
	})
	if err != nil {
		b.Fatalf("Scan: %v", err)
	}
	return rows
}

func (b *bench) equal(what string, got, want any) {
	b.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		b.Fatalf("%s is %s, want %s", what, g, w)
	}
}

func testPoints(b *bench) {
	o := b.want(entry.Applied, &entry.Entry{Points: []entry.Point{point(memos, "a", 0)}, Writes: []entry.Write{setRow(memos, "a", "1")}})
	v, version := b.get(b.snapshot(), acme, memos, "a")
	b.equal("the value", v, "1")
	b.equal("the version", version, o.Revision)

	refused := b.want(entry.Conflict, &entry.Entry{
		Points: []entry.Point{point(memos, "a", 0)},
		Writes: []entry.Write{setRow(memos, "a", "2"), setRow(memos, "b", "2")},
	})
	b.equal("the revision that refused", refused.Revision, o.Revision)
	s := b.snapshot()
	b.equal("the revision after a conflict", s.Revision(), o.Revision)
	b.equal("the rows after a conflict", b.list(s, acme, memos, nil, nil, false), []string{"a=1"})

	changed := b.want(entry.Applied, &entry.Entry{
		Points: []entry.Point{point(memos, "a", o.Revision), point(memos, "b", 0)},
		Writes: []entry.Write{setRow(memos, "a", "3")},
	})
	b.want(entry.Conflict, &entry.Entry{Points: []entry.Point{point(memos, "a", o.Revision)}})
	b.want(entry.Applied, &entry.Entry{Points: []entry.Point{point(memos, "a", changed.Revision)}, Writes: []entry.Write{dropRow(memos, "a")}})
	b.want(entry.Applied, &entry.Entry{Points: []entry.Point{point(memos, "a", 0)}, Writes: []entry.Write{dropRow(memos, "a")}})
	if _, _, ok, _ := b.snapshot().Get(acme, memos, []byte("a")); ok {
		b.Fatal("a deleted key is there")
	}

	// The last write of a key counts; an empty value is a value.
	b.want(entry.Applied, &entry.Entry{Writes: []entry.Write{setRow(memos, "c", "1"), dropRow(memos, "c"), setRow(memos, "c", "")}})
	if v, _, ok, _ := b.snapshot().Get(acme, memos, []byte("c")); !ok || len(v) != 0 {
		b.Fatalf("an empty value is there: %v, with %d bytes", ok, len(v))
	}
}

func testRanges(b *bench) {
	row := func(from, to string, count, revision uint64) *entry.Entry {
		r := entry.Range{Space: memos, From: []byte(from), Count: count}
		if to != "" {
			r.To = []byte(to)
		}
		return &entry.Entry{Revision: revision, Ranges: []entry.Range{r}}
	}
	b.want(entry.Applied, row("", "", 0, 0))
	b.want(entry.Applied, &entry.Entry{Writes: []entry.Write{setRow(memos, "b", ""), setRow(memos, "d", ""), setRow(memos, "f", "")}})
	other := entry.Space{Project: first, Table: "memos2"}
	b.want(entry.Applied, &entry.Entry{Writes: []entry.Write{setRow(other, "c", ""), setRow(entry.Space{Table: "memos"}, "c", "")}})
	rev := b.snapshot().Revision()

	b.want(entry.Applied, row("", "", 3, rev))
	b.want(entry.Applied, row("b", "f", 2, rev))
	b.want(entry.Applied, row("c", "", 2, rev))
	b.want(entry.Applied, row("f", "b", 0, rev))
	b.want(entry.Conflict, row("b", "f", 1, rev))
	b.want(entry.Conflict, row("b", "f", 3, rev))
	b.want(entry.Conflict, row("", "", 3, 0))

	// One inserted outside the range does not matter; one inside does, also where another left.
	b.want(entry.Applied, &entry.Entry{Writes: []entry.Write{setRow(memos, "a", "")}})
	b.want(entry.Applied, row("b", "", 3, rev))
	b.want(entry.Applied, &entry.Entry{Writes: []entry.Write{dropRow(memos, "d"), setRow(memos, "e", "")}})
	b.want(entry.Conflict, row("b", "", 3, rev))
	rev = b.snapshot().Revision()
	b.want(entry.Applied, row("b", "", 3, rev))
	b.want(entry.Applied, &entry.Entry{Writes: []entry.Write{setRow(memos, "e", "changed")}})
	b.want(entry.Conflict, row("b", "", 3, rev))
	b.want(entry.Applied, &entry.Entry{Writes: []entry.Write{dropRow(memos, "e")}})
	b.want(entry.Conflict, row("b", "", 3, b.snapshot().Revision()))
}

func testScopes(b *bench) {
	on := func(project entry.ID, rev uint64) *entry.Entry {
		return &entry.Entry{Scopes: []entry.ScopePoint{{Tenant: acme, Project: project, Revision: rev}}}
	}
	b.want(entry.Applied, on(first, 0))
	made := b.want(entry.Applied, &entry.Entry{Keys: []entry.KeyChange{
		{Kind: entry.PutKey, Tenant: acme, Project: first, Version: 1, Wrapped: []byte("w1")},
	}})
	b.want(entry.Conflict, on(first, 0))
	b.want(entry.Applied, on(first, made.Revision))
	b.want(entry.Applied, on(second, 0))
	rotated := b.want(entry.Applied, &entry.Entry{Keys: []entry.KeyChange{
		{Kind: entry.PutKey, Tenant: acme, Project: first, Version: 2, Wrapped: []byte("w2")},
	}})
	b.want(entry.Conflict, on(first, made.Revision))
	b.want(entry.Applied, on(first, rotated.Revision))
	b.want(entry.Applied, &entry.Entry{Keys: []entry.KeyChange{{Kind: entry.DestroyScope, Tenant: acme, Project: first}}})
	b.want(entry.Conflict, on(first, rotated.Revision))
	b.want(entry.Applied, on(first, 0))
}

func testIdempotency(b *bench) {
	e := &entry.Entry{ID: b.id(), Points: []entry.Point{point(memos, "a", 0)}, Writes: []entry.Write{setRow(memos, "a", "1")},
		Leaves: []entry.Leaf{{Hash: [32]byte{1}, Sealed: []byte("x")}}}
	o := b.want(entry.Applied, e)
	lost := &entry.Entry{ID: b.id(), Points: []entry.Point{point(memos, "a", 0)}}
	refused := b.want(entry.Conflict, lost)
	b.want(entry.Applied, &entry.Entry{Writes: []entry.Write{dropRow(memos, "a")}})

	b.equal("the outcome of an entry proposed again", b.propose(e), o)
	b.equal("the outcome of a conflict proposed again", b.propose(lost), refused)
	s := b.snapshot()
	b.equal("the revision", s.Revision(), o.Revision+1)
	b.equal("the rows", b.list(s, acme, memos, nil, nil, false), []string(nil))
	if size, _, _ := s.Tree(acme); size != 1 {
		b.Fatalf("the audit log has %d leaves, want 1", size)
	}
}

func testRules(b *bench) {
	key := func(k entry.KeyChange) *entry.Entry { return &entry.Entry{Keys: []entry.KeyChange{k}} }
	long := bytes.Repeat([]byte("k"), entry.MaxKey+1)
	for name, e := range map[string]*entry.Entry{
		"a table without a name":          {Writes: []entry.Write{setRow(entry.Space{}, "a", "")}},
		"a zero byte in a table's name":   {Writes: []entry.Write{setRow(entry.Space{Table: "a\x00b"}, "a", "")}},
		"an empty key":                    {Writes: []entry.Write{setRow(memos, "", "")}},
		"an empty key in a point":         {Points: []entry.Point{point(memos, "", 0)}},
		"a write into the outbox":         {Writes: []entry.Write{setRow(entry.Space{Table: entry.Outbox}, "a", "")}},
		"another tenant's key":            key(entry.KeyChange{Kind: entry.PutKey, Tenant: bravo, Project: first, Wrapped: []byte("w")}),
		"the tenant's own key":            key(entry.KeyChange{Kind: entry.PutKey, Tenant: acme, Wrapped: []byte("w")}),
		"destroying another tenant":       key(entry.KeyChange{Kind: entry.DestroyScope, Tenant: bravo}),
		"destroying its own tenant":       key(entry.KeyChange{Kind: entry.DestroyScope, Tenant: acme}),
		"a key change of an unknown kind": key(entry.KeyChange{Kind: 9, Tenant: acme, Project: first}),
		"a key put without bytes":         key(entry.KeyChange{Kind: entry.PutKey, Tenant: acme, Project: first}),
		"destroying the system": {Tenant: entry.System,
			Keys: []entry.KeyChange{{Kind: entry.DestroyScope, Tenant: entry.System}}},
	} {
		e.Leaves = []entry.Leaf{{Hash: [32]byte{1}}}
		if o := b.propose(e); o.Status != entry.Invalid || o.Revision != 0 {
			b.Fatalf("%s: the outcome is %+v", name, o)
		}
	}
	// What is above a limit may be refused before it is applied, too.
	o, err := b.engine.Propose(context.Background(), &entry.Entry{ID: b.id(), Tenant: acme,
		Writes: []entry.Write{{Space: memos, Key: long}}})
	if err == nil && o.Status != entry.Invalid {
		b.Fatalf("a key that is too long: the outcome is %+v", o)
	}
	if s := b.snapshot(); s.Revision() != 0 {
		b.Fatal("an invalid entry changed the state")
	}
}

func testTenants(b *bench) {
	for _, tenant := range []entry.ID{acme, bravo} {
		b.want(entry.Applied, &entry.Entry{Tenant: tenant, Points: []entry.Point{point(memos, "a", 0)},
			Ranges: []entry.Range{{Space: memos}},
			Writes: []entry.Write{setRow(memos, "a", tenant.String())},
			Leaves: []entry.Leaf{{Hash: [32]byte(bytes.Repeat(tenant[:], 2))}}})
	}
	s := b.snapshot()
	for _, tenant := range []entry.ID{acme, bravo} {
		b.equal("the rows", b.list(s, tenant, memos, nil, nil, false), []string{"a=" + tenant.String()})
		b.equal("the rows, backwards", b.list(s, tenant, memos, nil, nil, true), []string{"a=" + tenant.String()})
		size, edge, err := s.Tree(tenant)
		if err != nil || size != 1 || edge[0] != [32]byte(bytes.Repeat(tenant[:], 2)) {
			b.Fatalf("the audit tree of a tenant: %d leaves, %v", size, err)
		}
	}
	b.equal("the rows of the tenant itself", b.list(s, acme, entry.Space{Table: "memos"}, nil, nil, false), []string(nil))
}

func testIsolation(b *bench) {
	const writers, rounds = 4, 100
	accounts := entry.Space{Table: "accounts"}
	key := func(i int) string { return fmt.Sprintf("account-%d", i) }
	var start []entry.Write
	for i := range writers {
		start = append(start, setRow(accounts, key(i), "\x64"))
	}
	b.want(entry.Applied, &entry.Entry{Writes: start})
	frozen := b.snapshot()

	// Each writer moves one unit between two accounts, with preconditions; every snapshot must show the same sum.
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for r := range rounds {
				s, err := b.engine.Snapshot(context.Background())
				if err != nil {
					b.Error(err)
					return
				}
				from, to := key(w), key((w+1+r%(writers-1))%writers)
				fv, fver, _, err1 := s.Get(acme, accounts, []byte(from))
				tv, tver, _, err2 := s.Get(acme, accounts, []byte(to))
				sum, seen := 0, 0
				err3 := s.Scan(acme, accounts, nil, nil, r%2 == 0, func(_, v []byte, _ uint64) bool {
					sum += int(v[0])
					seen++
					return true
				})
				if err1 != nil || err2 != nil || err3 != nil || sum != writers*100 || seen != writers {
					b.Errorf("a snapshot shows %d in %d accounts (%v, %v, %v)", sum, seen, err1, err2, err3)
					s.Release()
					return
				}
				e := &entry.Entry{ID: b.id(), Tenant: acme, Revision: s.Revision(),
					Points: []entry.Point{point(accounts, from, fver), point(accounts, to, tver)},
					Writes: []entry.Write{setRow(accounts, from, string([]byte{fv[0] - 1})), setRow(accounts, to, string([]byte{tv[0] + 1}))}}
				if fv[0] == 0 || tv[0] == 255 {
					e.Writes = nil
				}
				s.Release()
				if _, err := b.engine.Propose(context.Background(), e); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for i := range writers {
		if v, version := b.get(frozen, acme, accounts, key(i)); v != "\x64" || version != 1 {
			b.Fatalf("an old snapshot shows %q at version %d", v, version)
		}
	}
}

func testScans(b *bench) {
	// Every third row in one entry each, so that some may be flushed and some not.
	model := map[string]string{}
	for round := range 3 {
		for i := round; i < 60; i += 3 {
			k := fmt.Sprintf("k%03d", i)
			w := setRow(memos, k, fmt.Sprint(round, i))
			model[k] = fmt.Sprint(round, i)
			if i%7 == 0 && round > 0 {
				before := fmt.Sprintf("k%03d", i-round)
				delete(model, before)
				b.want(entry.Applied, &entry.Entry{Writes: []entry.Write{w, dropRow(memos, before)}})
				continue
			}
			b.want(entry.Applied, &entry.Entry{Writes: []entry.Write{w}})
		}
	}
	edges := [][]byte{nil, []byte("k"), []byte("k000"), []byte("k010"), []byte("k0105"), []byte("k030"), []byte("k059"), []byte("k06"), []byte("z")}
	s := b.snapshot()
	for _, from := range edges {
		for _, to := range edges {
			var want []string
			for k, v := range model {
				if k >= string(from) && (to == nil || k < string(to)) {
					want = append(want, k+"="+v)
				}
			}
			slices.Sort(want)
			b.equal(fmt.Sprintf("[%s, %s)", from, to), b.list(s, acme, memos, from, to, false), want)
			slices.Reverse(want)
			b.equal(fmt.Sprintf("[%s, %s), backwards", from, to), b.list(s, acme, memos, from, to, true), want)
		}
	}
	b.equal("an empty range", b.list(s, acme, memos, nil, []byte{}, false), []string(nil))
	for _, reverse := range []bool{false, true} {
		n := 0
		if err := s.Scan(acme, memos, nil, nil, reverse, func(_, _ []byte, _ uint64) bool { n++; return n < 3 }); err != nil || n != 3 {
			b.Fatalf("a scan that stops visited %d rows (%v), want 3", n, err)
		}
	}
}

func testAudit(b *bench) {
	var want []tlog.Hash
	var stored trail
	for n := range 40 {
		e := &entry.Entry{}
		for i := range n%4 + 1 {
			leaf := entry.Leaf{Hash: [32]byte(tlog.RecordHash(fmt.Append(nil, n, i))), Sealed: fmt.Append(nil, "sealed", n, i)}
			e.Leaves = append(e.Leaves, leaf)
			more, err := tlog.StoredHashesForRecordHash(int64(len(want)), tlog.Hash(leaf.Hash), stored)
			if err != nil {
				b.Fatal(err)
			}
			stored.stored = append(stored.stored, more...)
			stored.leaves = append(stored.leaves, leaf)
			want = append(want, tlog.Hash(leaf.Hash))
		}
		b.want(entry.Applied, e)
		b.want(entry.Conflict, &entry.Entry{Points: []entry.Point{point(memos, "a", 7)}, Leaves: []entry.Leaf{{}}})

		s := b.snapshot()
		size, edge, err := s.Tree(acme)
		if err != nil || size != uint64(len(want)) {
			b.Fatalf("the tree has %d leaves (%v), want %d", size, err, len(want))
		}
		root, err := tlog.TreeHash(int64(len(want)), stored)
		if err != nil {
			b.Fatal(err)
		}
		if fold(edge) != root {
			b.Fatalf("the edge of %d leaves does not make the root that tlog computes", size)
		}
	}
	s := b.snapshot()
	for _, from := range []uint64{0, 1, 50, uint64(len(want)) - 1, uint64(len(want)), 1 << 40} {
		next := from
		err := s.Leaves(acme, from, func(p uint64, l entry.Leaf) bool {
			if p != next || l.Hash != stored.leaves[p].Hash || !bytes.Equal(l.Sealed, stored.leaves[p].Sealed) {
				b.Fatalf("the leaf at %d is not the one that was written at %d", p, next)
			}
			next++
			return true
		})
		if err != nil || next != max(from, uint64(len(want))) {
			b.Fatalf("the leaves from %d on end at %d (%v)", from, next, err)
		}
	}
	n := 0
	if err := s.Leaves(acme, 3, func(uint64, entry.Leaf) bool { n++; return false }); err != nil || n != 1 {
		b.Fatalf("a walk that stops visited %d leaves (%v)", n, err)
	}
	if size, edge, err := s.Tree(bravo); size != 0 || len(edge) != 0 || err != nil {
		b.Fatal("a tenant without leaves has a tree")
	}
}

// fold makes the root of an RFC 6962 tree from its right edge.
func fold(edge [][32]byte) tlog.Hash {
	if len(edge) == 0 {
		return tlog.Hash{}
	}
	root := tlog.Hash(edge[len(edge)-1])
	for i := len(edge) - 2; i >= 0; i-- {
		root = tlog.NodeHash(tlog.Hash(edge[i]), root)
	}
	return root
}

func testOutbox(b *bench) {
	outbox := entry.Space{Table: entry.Outbox}
	b.want(entry.Applied, &entry.Entry{Messages: [][]byte{[]byte("one"), []byte("two")}})
	b.want(entry.Applied, &entry.Entry{Messages: [][]byte{[]byte("three")}})
	var keys [][]byte
	var messages []string
	read := func() {
		keys, messages = nil, nil
		err := b.snapshot().Scan(acme, outbox, nil, nil, false, func(k, v []byte, _ uint64) bool {
			keys, messages = append(keys, bytes.Clone(k)), append(messages, string(v))
			return true
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	read()
	b.equal("the outbox", messages, []string{"one", "two", "three"})
	last := keys[2]
	b.want(entry.Applied, &entry.Entry{Writes: []entry.Write{
		{Space: outbox, Key: keys[0], Delete: true}, {Space: outbox, Key: keys[1], Delete: true}, {Space: outbox, Key: keys[2], Delete: true},
	}})
	b.want(entry.Applied, &entry.Entry{Messages: [][]byte{[]byte("four")}})
	read()
	b.equal("the outbox after delivery", messages, []string{"four"})
	if bytes.Compare(keys[0], last) <= 0 {
		b.Fatal("a later message's key does not grow")
	}
}

func testKeys(b *bench) {
	wrapped := func(tenant, project entry.ID) string {
		b.Helper()
		m, rev, err := b.snapshot().Wrapped(tenant, project)
		if err != nil {
			b.Fatal(err)
		}
		return fmt.Sprint(m, rev)
	}
	empty := wrapped(acme, first)
	b.equal("a scope without keys", empty, "map[] 0")
	change := func(status entry.Status, tenant entry.ID, changes ...entry.KeyChange) uint64 {
		b.Helper()
		return b.want(status, &entry.Entry{Tenant: tenant, Keys: changes}).Revision
	}
	system := change(entry.Applied, entry.System,
		entry.KeyChange{Kind: entry.PutKey, Tenant: entry.System, Version: 1, Wrapped: []byte{9}},
		entry.KeyChange{Kind: entry.PutKey, Tenant: bravo, Version: 1, Wrapped: []byte{1}},
		entry.KeyChange{Kind: entry.PutKey, Tenant: acme, Version: 1, Wrapped: []byte{2}})
	one := change(entry.Applied, acme, entry.KeyChange{Kind: entry.PutKey, Tenant: acme, Project: first, Version: 1, Wrapped: []byte{3}})
	b.equal("the tenant's keys", wrapped(acme, entry.ID{}), fmt.Sprint(map[uint32][]byte{1: {2}}, system))
	b.equal("the project's keys", wrapped(acme, first), fmt.Sprint(map[uint32][]byte{1: {3}}, one))
	held := b.snapshot()

	two := change(entry.Applied, acme, entry.KeyChange{Kind: entry.PutKey, Tenant: acme, Project: first, Version: 2, Wrapped: []byte{4}})
	b.equal("two versions", wrapped(acme, first), fmt.Sprint(map[uint32][]byte{1: {3}, 2: {4}}, two))
	change(entry.Applied, acme, entry.KeyChange{Kind: entry.DropKey, Tenant: acme, Project: first, Version: 7})
	b.equal("after dropping one that is not there", wrapped(acme, first), fmt.Sprint(map[uint32][]byte{1: {3}, 2: {4}}, two))
	three := change(entry.Applied, acme, entry.KeyChange{Kind: entry.DropKey, Tenant: acme, Project: first, Version: 1})
	b.equal("after dropping the old one", wrapped(acme, first), fmt.Sprint(map[uint32][]byte{2: {4}}, three))
	m, rev, err := held.Wrapped(acme, first)
	if err != nil {
		b.Fatal(err)
	}
	b.equal("an old snapshot's keys", fmt.Sprint(m, rev), fmt.Sprint(map[uint32][]byte{1: {3}}, one))

	tenants, err := b.snapshot().Tenants()
	if err != nil {
		b.Fatal(err)
	}
	b.equal("the tenants", tenants, []entry.ID{entry.System, acme, bravo})
	change(entry.Applied, acme, entry.KeyChange{Kind: entry.DropKey, Tenant: acme, Project: first, Version: 2})
	b.equal("after dropping the last one", wrapped(acme, first), empty)
}

// fillScopes gives each of two tenants rows in two projects and in itself, keys, leaves and a message.
func fillScopes(b *bench) {
	for _, tenant := range []entry.ID{acme, bravo} {
		b.want(entry.Applied, &entry.Entry{Tenant: entry.System, Keys: []entry.KeyChange{
			{Kind: entry.PutKey, Tenant: tenant, Version: 1, Wrapped: []byte("t")},
			{Kind: entry.PutKey, Tenant: tenant, Project: first, Version: 1, Wrapped: []byte("1")},
			{Kind: entry.PutKey, Tenant: tenant, Project: second, Version: 1, Wrapped: []byte("2")},
		}})
		for i := range 5 {
			e := &entry.Entry{Tenant: tenant, Leaves: []entry.Leaf{{Hash: [32]byte{byte(i)}}}, Messages: [][]byte{{byte(i)}}}
			for _, project := range []entry.ID{{}, first, second} {
				for _, table := range []string{"a", "b#ix"} {
					e.Writes = append(e.Writes, setRow(entry.Space{Project: project, Table: table}, fmt.Sprint(i), table))
				}
			}
			b.want(entry.Applied, e)
		}
	}
}

func testDestroyProject(b *bench) {
	fillScopes(b)
	held := b.snapshot()
	before := b.dump(acme)
	other := b.dump(bravo)
	b.want(entry.Applied, &entry.Entry{
		Writes: []entry.Write{dropRow(entry.Space{Table: "a"}, "0"), setRow(entry.Space{Project: first, Table: "c"}, "x", "written before it is destroyed")},
		Leaves: []entry.Leaf{{Hash: [32]byte{99}}},
		Keys:   []entry.KeyChange{{Kind: entry.DestroyScope, Tenant: acme, Project: first}},
	})
	s := b.snapshot()
	if names, err := s.Spaces(acme, first); err != nil || len(names) != 0 {
		b.Fatalf("a destroyed project has tables %v (%v)", names, err)
	}
	for _, reverse := range []bool{false, true} {
		b.equal("the rows of a destroyed project", b.list(s, acme, entry.Space{Project: first, Table: "a"}, nil, nil, reverse), []string(nil))
		b.equal("the rows of its sister", len(b.list(s, acme, entry.Space{Project: second, Table: "a"}, nil, nil, reverse)), 5)
		b.equal("the rows of its tenant", len(b.list(s, acme, entry.Space{Table: "a"}, nil, nil, reverse)), 4)
	}
	if m, rev, _ := s.Wrapped(acme, first); len(m) != 0 || rev != 0 {
		b.Fatal("a destroyed project has keys")
	}
	if m, _, _ := s.Wrapped(acme, second); len(m) != 1 {
		b.Fatal("its sister has no key")
	}
	if size, _, _ := s.Tree(acme); size != 6 {
		b.Fatalf("the audit log has %d leaves, want 6", size)
	}
	b.equal("the other tenant", b.dump(bravo), other)
	b.equal("an old snapshot", Dump(b, held, acme), before)
}

func testDestroyTenant(b *bench) {
	fillScopes(b)
	other := b.dump(bravo)
	destroy := func() {
		b.want(entry.Applied, &entry.Entry{Tenant: entry.System, Leaves: []entry.Leaf{{Hash: [32]byte{1}}},
			Keys: []entry.KeyChange{{Kind: entry.DestroyScope, Tenant: acme}}})
	}
	destroy()
	b.equal("a destroyed tenant", b.dump(acme), Dump(b, b.snapshot(), entry.ID{1}))
	b.equal("the other tenant", b.dump(bravo), other)
	tenants, _ := b.snapshot().Tenants()
	b.equal("the tenants", tenants, []entry.ID{bravo})
	destroy()
	b.equal("a tenant destroyed twice", b.dump(acme), Dump(b, b.snapshot(), entry.ID{1}))
}

func testDestroyAndWriteAgain(b *bench) {
	fillScopes(b)
	a := entry.Space{Project: first, Table: "a"}
	b.want(entry.Applied, &entry.Entry{
		Points: []entry.Point{},
		Keys: []entry.KeyChange{
			{Kind: entry.DestroyScope, Tenant: acme, Project: first},
			{Kind: entry.PutKey, Tenant: acme, Project: first, Version: 5, Wrapped: []byte("new")},
		},
	})
	b.want(entry.Applied, &entry.Entry{Points: []entry.Point{point(a, "1", 0)}, Ranges: []entry.Range{{Space: a}},
		Writes: []entry.Write{setRow(a, "3", "new"), dropRow(a, "4")}})
	s := b.snapshot()
	b.equal("the rows", b.list(s, acme, a, nil, nil, false), []string{"3=new"})
	b.equal("the rows, backwards", b.list(s, acme, a, nil, nil, true), []string{"3=new"})
	if m, _, _ := s.Wrapped(acme, first); len(m) != 1 || string(m[5]) != "new" {
		b.Fatal("the keys are not those that were put after the scope was destroyed")
	}
	names, err := s.Spaces(acme, first)
	if err != nil {
		b.Fatal(err)
	}
	b.equal("the tables", names, []string{"a"})

	b.want(entry.Applied, &entry.Entry{Tenant: entry.System, Keys: []entry.KeyChange{{Kind: entry.DestroyScope, Tenant: acme}}})
	b.want(entry.Applied, &entry.Entry{Leaves: []entry.Leaf{{Hash: [32]byte{7}}}})
	size, edge, err := b.snapshot().Tree(acme)
	if err != nil || size != 1 || len(edge) != 1 || edge[0] != [32]byte{7} {
		b.Fatalf("the audit log of a tenant made anew has %d leaves (%v), want 1", size, err)
	}
}

func testChanged(b *bench) {
	closed := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	now := b.snapshot().Revision()
	next, later := b.engine.Changed(now), b.engine.Changed(now+1)
	if closed(next) || closed(later) {
		b.Fatal("a change is told before it happened")
	}
	b.want(entry.Conflict, &entry.Entry{Points: []entry.Point{point(memos, "a", 9)}})
	if closed(next) {
		b.Fatal("a conflict is told as a change")
	}
	b.want(entry.Applied, &entry.Entry{Writes: []entry.Write{setRow(memos, "a", "")}})
	<-next
	if closed(later) {
		b.Fatal("a later change is told before it happened")
	}
	if !closed(b.engine.Changed(now)) {
		b.Fatal("a past change is not told")
	}
	b.want(entry.Applied, &entry.Entry{})
	<-later
}

func testSpaces(b *bench) {
	names := func(project entry.ID) []string {
		s, err := b.snapshot().Spaces(acme, project)
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	b.equal("the tables of nothing", names(first), []string(nil))
	in := func(name string) entry.Space { return entry.Space{Project: first, Table: name} }
	b.want(entry.Applied, &entry.Entry{Writes: []entry.Write{
		setRow(in("b"), "k", ""), setRow(in("a"), "k", ""), setRow(in("a#ix"), "k", ""), setRow(in("a\x01"), "k", ""), setRow(entry.Space{Table: "z"}, "k", ""),
	}})
	b.equal("the tables", names(first), []string{"a", "a\x01", "a#ix", "b"})
	b.want(entry.Applied, &entry.Entry{Writes: []entry.Write{dropRow(in("a"), "k"), setRow(in("b"), "l", "")}})
	b.equal("the tables after one was emptied", names(first), []string{"a\x01", "a#ix", "b"})
	b.equal("the tenant's own tables", names(entry.ID{}), []string{"z"})
	b.equal("a project that is not there", names(second), []string(nil))
}

func (b *bench) dump(tenant entry.ID) string {
	b.Helper()
	return Dump(b, b.snapshot(), tenant)
}

// Dump writes down everything that a snapshot shows of a tenant, in the projects that have keys or are given.
func Dump(t testing.TB, s storage.Snapshot, tenant entry.ID, projects ...entry.ID) string {
	t.Helper()
	var out bytes.Buffer
	fail := func(err error) {
		if err != nil {
			t.Fatalf("reading a snapshot: %v", err)
		}
	}
	for _, project := range append([]entry.ID{{}, first, second}, projects...) {
		keys, rev, err := s.Wrapped(tenant, project)
		fail(err)
		fmt.Fprintf(&out, "keys of %s at %d: %x\n", project, rev, keys)
		tables, err := s.Spaces(tenant, project)
		fail(err)
		for _, table := range tables {
			fmt.Fprintf(&out, "table %s of %s\n", table, project)
			var forth, back []string
			line := func(k, v []byte, version uint64) string { return fmt.Sprintf("%x = %x at %d\n", k, v, version) }
			sp := entry.Space{Project: project, Table: table}
			fail(s.Scan(tenant, sp, nil, nil, false, func(k, v []byte, version uint64) bool {
				forth = append(forth, line(k, v, version))
				got, at, ok, err := s.Get(tenant, sp, k)
				if fail(err); !ok || at != version || !bytes.Equal(got, v) {
					t.Fatalf("Get and Scan differ about a row of %s", table)
				}
				return true
			}))
			fail(s.Scan(tenant, sp, nil, nil, true, func(k, v []byte, version uint64) bool {
				back = append(back, line(k, v, version))
				return true
			}))
			for _, l := range forth {
				out.WriteString(l)
			}
			if slices.Reverse(back); !slices.Equal(forth, back) {
				t.Fatalf("the rows of %s differ forwards and backwards", table)
			}
		}
	}
	size, edge, err := s.Tree(tenant)
	fail(err)
	fmt.Fprintf(&out, "tree of %d: %x\n", size, edge)
	fail(s.Leaves(tenant, 0, func(p uint64, l entry.Leaf) bool {
		fmt.Fprintf(&out, "leaf %d: %x %x\n", p, l.Hash, l.Sealed)
		return true
	}))
	return out.String()
}
