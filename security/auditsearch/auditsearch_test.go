package auditsearch_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"bulwark/security/audit"
	"bulwark/security/auditsearch"
	"bulwark/storage"
	"bulwark/storage/storagetest"
)

// keySource derives a key of each tenant from its generation.
type keySource struct {
	mu         sync.Mutex
	generation int
	err        error
}

func (k *keySource) IndexKey(tenant storage.ID) (string, []byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return "", nil, k.err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", tenant, k.generation))
	return fmt.Sprintf("key-%d", k.generation), sum[:], nil
}

func (k *keySource) set(generation int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.generation, k.err = generation, err
}

type lab struct {
	*storagetest.World
	index *auditsearch.Index
	keys  *keySource
	dir   string
	log   *bytes.Buffer
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{World: storagetest.NewWorld(t, storagetest.NewEngine()), keys: &keySource{}, dir: t.TempDir(), log: &bytes.Buffer{}}
	l.open(t)
	t.Cleanup(func() { l.index.Close() })
	return l
}

func (l *lab) config() auditsearch.Config {
	return auditsearch.Config{Dir: l.dir, Store: l.DB, History: l.DB, Keys: l.keys, Clock: time.Now,
		Logger: slog.New(slog.NewTextHandler(l.log, nil))}
}

func (l *lab) open(t testing.TB) {
	t.Helper()
	var err error
	if l.index, err = auditsearch.Open(l.config()); err != nil {
		t.Fatal(err)
	}
}

func (l *lab) folder() string { return filepath.Join(l.dir, l.Tenant.String()) }

func (l *lab) operator() storage.Actor {
	return storage.OperatorActor(l.Tenant, storage.ID{}, storage.ID{}, "console", storage.Origin{})
}

// act makes one event.
func (l *lab) act(t testing.TB, by storage.Actor, to storage.Intent, notes ...storage.Note) {
	t.Helper()
	err := l.DB.Update(t.Context(), by, to, func(tx storage.Tx) error {
		tx.Note("n", 1)
		for _, n := range notes {
			tx.Note(n.Field, n.Value)
		}
		return nil
	})
	if err != nil && storage.FaultOf(err) != storage.Denied {
		t.Fatal(err)
	}
}

func (l *lab) search(t testing.TB, q audit.Query) *audit.Page {
	t.Helper()
	page, err := l.index.Search(t.Context(), l.operator(), q)
	if err != nil {
		t.Fatalf("searching %+v: %v", q, err)
	}
	return page
}

func positions(p *audit.Page) []uint64 {
	out := make([]uint64, len(p.Events))
	for i, e := range p.Events {
		out[i] = e.Position
	}
	return out
}

func person(l *lab, n byte) storage.Actor {
	return storage.AccountActor(l.Tenant, l.Project, storage.ID{1, 6: 0x70, 15: n}, storage.ID{2, 15: n}, nil,
		storage.Origin{Address: netip.AddrFrom4([4]byte{192, 0, 2, n}), RequestID: fmt.Sprintf("req-%d", n)})
}

func TestSearchFindsWhatWasJustDone(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for i := range 5 {
		l.act(t, person(l, byte(i)), storage.Intent{Action: "rows.insert", Object: "notes"}, storage.Note{Field: "word", Value: fmt.Sprintf("Marker%d blue sky", i)})
		page := l.search(t, audit.Query{Text: fmt.Sprintf("marker%d", i)})
		if len(page.Events) != 1 || !bytes.Contains(page.Events[0].Event, fmt.Appendf(nil, "Marker%d", i)) {
			t.Fatalf("event %d: %+v", i, page)
		}
		if page.Events[0].Category != audit.Data || page.Indexed <= page.Events[0].Position {
			t.Errorf("event %d: %+v", i, page)
		}
	}
	for text, want := range map[string]int{
		"":                6, // with that of creating the project, and those of searches
		`"blue sky"`:      5,
		`"sky blue"`:      0,
		"marker1 marker2": 2,
		"+sky -marker1":   4,
		"mark*":           5,
		"mraker1~2":       5,
		"object:notes":    5,
		`actor:` + storage.ID{1, 6: 0x70, 15: 3}.String(): 1,
		"addr:192.0.2.2":                     1,
		"category:data":                      5,
		"outcome:denied":                     0,
		`time:>"2020-01-01T00:00:00Z" +sky`:  5,
		`+time:<"2020-01-01T00:00:00Z" +sky`: 0,
		"action:rows.*":                      5,
		"request:req-4":                      1,
	} {
		page := l.search(t, audit.Query{Text: text})
		if text != "" && len(page.Events) != want || text == "" && len(page.Events) < want {
			t.Errorf("%s: found %d, want %d", text, len(page.Events), want)
		}
	}
}

func TestSearchIsDecidedAndRecorded(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	_, err := l.index.Search(t.Context(), person(l, 1), audit.Query{})
	if storage.FaultOf(err) != storage.Denied {
		t.Errorf("an account searches the audit log: %v", err)
	}
	if _, err := l.index.Search(t.Context(), storage.Actor{}, audit.Query{}); storage.FaultOf(err) != storage.Unauthenticated {
		t.Errorf("nobody searches the audit log: %v", err)
	}
	page := l.search(t, audit.Query{Text: "+action:audit.search +outcome:denied"})
	if len(page.Events) != 1 {
		t.Errorf("the refusal is not in the log: %+v", page)
	}
	other, _ := l.AddTenant(t)
	by := storage.OperatorActor(other, storage.ID{}, storage.ID{}, "console", storage.Origin{})
	page, err = l.index.Search(t.Context(), by, audit.Query{Text: "denied"})
	if err != nil || len(page.Events) != 0 {
		t.Errorf("another tenant's events: %+v, %v", page, err)
	}
	l.DB.Close() // writes the read events
	l.World.DB.Close()
	found := false
	for _, e := range l.Events(t, l.Tenant, 0) {
		found = found || e.Action == "audit.search" && e.Outcome == "ok"
	}
	if !found {
		t.Error("the search is not in the log")
	}
}

func TestBadQueries(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for text, want := range map[string]string{
		`one "two`:                       "near character 5",
		`one two:`:                       "near character 5",
		`nosuch:x`:                       `no field "nosuch"`,
		`/.*/`:                           "regular expressions",
		`*x`:                             "must begin with",
		`action:?x`:                      "must begin with",
		`n:>5`:                           "ranges of numbers",
		`action:>"2026-01-01T00:00:00Z"`: "only the field time",
		`time:yesterday`:                 "ranges only",
		`word~9`:                         "must be 1 or 2",
		strings.Repeat("x", 2000):        "at most 1024",
		"\xff":                           "UTF-8",
		`time:>"yesterday"`:              "near character 1",
	} {
		_, err := l.index.Search(t.Context(), l.operator(), audit.Query{Text: text})
		if storage.FaultOf(err) != storage.BadInput || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for name, q := range map[string]audit.Query{
		"limit":  {Limit: 501},
		"minus":  {Limit: -1},
		"after":  {After: "x1"},
		"order":  {After: "n1", OldestFirst: true},
		"facets": {Facets: []string{"object"}},
	} {
		if _, err := l.index.Search(t.Context(), l.operator(), q); storage.FaultOf(err) != storage.BadInput {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Search and a walk over all events with audit.Filter must agree, page by page, in both orders.
func TestSearchIsAFilter(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	actions := []string{"rows.insert", "rows.delete", "session.create", "apikey.revoke"}
	for i := range 120 {
		l.act(t, person(l, byte(i%7)), storage.Intent{Action: actions[i%4], Object: fmt.Sprintf("object-%d", i%5)})
	}
	l.search(t, audit.Query{})
	l.DB.Close() // the read events are written; from here on the log grows no more, as reads by jobs are not recorded
	type event struct {
		position uint64
		record   *audit.Record
	}
	var all []event
	err := l.DB.Events(t.Context(), l.operator(), storage.Intent{Action: "audit.search"}, 0, func(n uint64, _ [32]byte, text []byte) bool {
		r, err := audit.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, event{n, r})
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	pick := func(rt *rapid.T, name string, values ...string) string {
		return rapid.SampledFrom(append(values, "")).Draw(rt, name)
	}
	rapid.Check(t, func(rt *rapid.T) {
		f := audit.Filter{
			Action:    pick(rt, "action", "rows.insert", "rows.*", "apikey.revoke", "*"),
			Actor:     pick(rt, "actor", storage.ID{1, 6: 0x70, 15: 3}.String(), "console"),
			ActorKind: pick(rt, "kind", "account", "operator"),
			Category:  pick(rt, "category", "data", "authentication"),
			Outcome:   pick(rt, "outcome", "ok", "denied"),
			Object:    pick(rt, "object", "object-1", "object-2"),
			Address:   pick(rt, "address", "192.0.2.3"),
			Session:   pick(rt, "session", storage.ID{2, 15: 3}.String()),
			Request:   pick(rt, "request", "req-3"),
			Project:   pick(rt, "project", l.Project.String()),
		}
		if rapid.Bool().Draw(rt, "from") {
			f.From = all[rapid.IntRange(0, len(all)-1).Draw(rt, "first")].record.Time
		}
		if rapid.Bool().Draw(rt, "to") {
			f.To = all[rapid.IntRange(0, len(all)-1).Draw(rt, "last")].record.Time
		}
		q := audit.Query{Filter: f, Limit: rapid.IntRange(1, 60).Draw(rt, "limit"), OldestFirst: rapid.Bool().Draw(rt, "oldest"),
			Facets: []string{"outcome"}}
		want := []uint64{}
		for _, e := range all {
			if f.Match(e.record) {
				want = append(want, e.position)
			}
		}
		total := len(want)
		if !q.OldestFirst {
			slices.Reverse(want)
		}
		got := []uint64{}
		for {
			page, err := l.index.Search(context.Background(), l.operator(), q)
			if err != nil {
				rt.Fatal(err)
			}
			counted := 0
			for _, v := range page.Facets["outcome"] {
				counted += v.Count
			}
			if counted != total || page.Total != uint64(total) || page.AtLeast {
				rt.Fatalf("facets count %d events and the page %d of %d", counted, page.Total, total)
			}
			got = append(got, positions(page)...)
			if len(page.Events) > q.Limit {
				rt.Fatalf("a page of %d events, and the limit is %d", len(page.Events), q.Limit)
			}
			if page.Next == "" {
				break
			}
			q.After = page.Next
		}
		if !slices.Equal(got, want) {
			rt.Fatalf("found %v, want %v", got, want)
		}
	})
}

func TestNothingInClear(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	canaries := []string{"canaryobject", "canaryword", "canaryaction", "canaryrequest", "canarylist", "canaryfield", "192.0.2.77"}
	by := storage.AccountActor(l.Tenant, l.Project, storage.ID{1}, storage.ID{2}, nil,
		storage.Origin{Address: netip.MustParseAddr("192.0.2.77"), RequestID: "canaryrequest"})
	for i := range 3 {
		for range 300 {
			l.act(t, by, storage.Intent{Action: "rows.canaryaction", Object: "canaryobject"},
				storage.Note{Field: "canaryfield", Value: "a canaryword here"}, storage.Note{Field: "list", Value: []string{"canarylist"}})
		}
		if got := l.search(t, audit.Query{Text: "canaryword", Limit: 500}); len(got.Events) == 0 {
			t.Fatalf("round %d: the canary is not found by searching", i)
		}
	}
	scan := func() int {
		files := 0
		err := filepath.WalkDir(l.dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) || err == nil && d.IsDir() {
				return nil
			}
			if err != nil {
				return err
			}
			b, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) { // merged away
				return nil
			}
			if err != nil {
				return err
			}
			files++
			for _, text := range [][]byte{[]byte(path), b, inflated(b)} {
				for _, c := range canaries {
					if bytes.Contains(bytes.ToLower(text), []byte(c)) {
						t.Errorf("%s is in %s", c, filepath.Base(path))
					}
				}
			}
			// bleve's own field names would be there too, were anything in clear.
			if filepath.Ext(path) == ".zap" && (bytes.Contains(b, []byte("actorkind")) || bytes.Contains(b, []byte("category"))) {
				t.Errorf("names of fields are in clear in %s", filepath.Base(path))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	if scan() < 3 {
		t.Error("there are hardly any files")
	}
	l.index.Close()
	scan()
	l.open(t)
}

// inflated tries snappy and zstd at every place where a block could begin.
func inflated(b []byte) []byte {
	var out []byte
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<24))
	if err != nil {
		return nil
	}
	defer d.Close()
	magic := []byte{0x28, 0xb5, 0x2f, 0xfd}
	for i := bytes.Index(b, magic); i >= 0; {
		if text, err := d.DecodeAll(b[i:], nil); err == nil {
			out = append(out, text...)
		}
		next := bytes.Index(b[i+1:], magic)
		if next < 0 {
			break
		}
		i += next + 1
	}
	for i := range min(len(b), 1<<16) {
		if n, err := snappy.DecodedLen(b[i:]); err == nil && n < 1<<16 {
			if text, err := snappy.Decode(nil, b[i:]); err == nil {
				out = append(out, text...)
			}
		}
	}
	return out
}

// Whatever happens to the files, the answer is the same.
func TestDamageIsRebuilt(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for i := range 40 {
		l.act(t, person(l, byte(i)), storage.Intent{Action: "rows.insert", Object: fmt.Sprint(i)}, storage.Note{Field: "w", Value: "needle"})
	}
	want := positions(l.search(t, audit.Query{Text: "needle"}))
	if len(want) != 40 {
		t.Fatalf("%d events", len(want))
	}
	files := func(pattern string) []string {
		m, err := filepath.Glob(filepath.Join(l.folder(), pattern))
		if err != nil || len(m) == 0 {
			t.Fatalf("no %s: %v", pattern, err)
		}
		return m
	}
	change := func(path string, fn func([]byte) []byte) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, fn(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	half := func(b []byte) []byte { return b[:len(b)/2] }
	flipAt := func(part float64) func([]byte) []byte {
		return func(b []byte) []byte { b[int(part*float64(len(b)-1))] ^= 0x10; return b }
	}
	type damage struct {
		name    string
		do      func()
		rebuilt string // "yes", "no", or "" where bleve may have an older state to go on from
	}
	// segment is a segment in use: the first that the manifest lists.
	segment := func() string {
		b, err := os.ReadFile(files("manifest")[0])
		if err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(string(b), " ")
		return filepath.Join(l.folder(), name)
	}
	cases := []damage{
		{"nothing", func() {}, "no"},
		{"all lost", func() { os.RemoveAll(l.dir) }, "no"}, // a new index needs no words
		{"root lost", func() { os.Remove(files("root.bolt")[0]) }, "no"},
		{"root cut", func() { change(files("root.bolt")[0], func(b []byte) []byte { return b[:8192] }) }, "yes"},
		{"root empty", func() { change(files("root.bolt")[0], func([]byte) []byte { return nil }) }, "yes"},
		{"segment lost", func() { os.Remove(segment()) }, ""},
		{"segment cut", func() { change(segment(), half) }, "yes"},
		{"segment empty", func() { change(segment(), func([]byte) []byte { return nil }) }, "yes"},
		{"manifest lost", func() { os.Remove(files("manifest")[0]) }, "yes"},
		{"manifest cut", func() { change(files("manifest")[0], half) }, "yes"},
		{"manifest flipped", func() { change(files("manifest")[0], flipAt(0.5)) }, "yes"},
		{"key changed", func() { l.keys.set(1, nil) }, "yes"},
	}
	for i := range 10 {
		cases = append(cases, damage{fmt.Sprintf("segment flipped %d", i),
			func() { change(segment(), flipAt(float64(i)/9)) }, "yes"})
	}
	for _, c := range cases {
		l.index.Close()
		c.do()
		l.log.Reset()
		l.open(t)
		got := positions(l.search(t, audit.Query{Text: "needle"}))
		if !slices.Equal(got, want) {
			t.Errorf("%s: found %v", c.name, got)
		}
		if said := strings.Contains(l.log.String(), "rebuilding"); said && c.rebuilt == "no" || !said && c.rebuilt == "yes" {
			t.Errorf("%s: rebuilt: %v, want %s: %s", c.name, said, c.rebuilt, l.log)
		}
	}
	// A flip in bleve's own database may stay without effect, but never changes an answer.
	for i := range 15 {
		l.index.Close()
		change(files("root.bolt")[0], flipAt(float64(i)/14))
		l.open(t)
		if got := positions(l.search(t, audit.Query{Text: "needle"})); !slices.Equal(got, want) {
			t.Errorf("root flipped %d: found %v", i, got)
		}
	}
}

func TestAnIndexOfAnotherLogIsRebuilt(t *testing.T) {
	t.Parallel()
	a, b := newLab(t), newLab(t)
	for i := range 10 {
		a.act(t, person(a, 1), storage.Intent{Action: "rows.insert", Object: fmt.Sprint(i)})
		b.act(t, person(b, 1), storage.Intent{Action: "rows.delete", Object: fmt.Sprint(i)})
	}
	a.search(t, audit.Query{})
	a.index.Close()
	// The same files under the other tenant's name, and its key: only the log can tell.
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", a.Tenant, 0))
	stolen := &fixedKey{sum[:]}
	if err := os.Rename(a.folder(), b.folder()); err != nil {
		t.Fatal(err)
	}
	cfg := b.config()
	cfg.Keys = stolen
	x, err := auditsearch.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	page, err := x.Search(t.Context(), b.operator(), audit.Query{Text: "action:rows.delete"})
	if err != nil || len(page.Events) != 10 {
		t.Errorf("found %d: %v", len(page.Events), err)
	}
	if !strings.Contains(b.log.String(), "not of this log") {
		t.Errorf("the log says %s", b.log)
	}
	a.open(t)
}

type fixedKey struct{ key []byte }

func (k *fixedKey) IndexKey(storage.ID) (string, []byte, error) {
	return "key-0", bytes.Clone(k.key), nil
}

func TestWithoutKey(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.act(t, person(l, 1), storage.Intent{Action: "rows.insert", Object: "x"})
	l.search(t, audit.Query{})
	l.index.Close()
	before := listing(t, l.folder())
	sealed := storage.Errorf(storage.Unavailable, "sealed", "the node is sealed")
	l.keys.set(0, sealed)
	l.open(t)
	if _, err := l.index.Search(t.Context(), l.operator(), audit.Query{}); !errors.Is(err, sealed) {
		t.Errorf("a search on a sealed node: %v", err)
	}
	if after := listing(t, l.folder()); !slices.Equal(after, before) {
		t.Errorf("a sealed node changed the index: %v became %v", before, after)
	}
}

func listing(t *testing.T, dir string) (out []string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		out = append(out, f.Name()+" "+hex.EncodeToString(sum[:]))
	}
	return out
}

func TestFollow(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.index.Close()
	cfg := l.config()
	cfg.Gather, cfg.Idle, cfg.Duty = time.Millisecond, time.Millisecond, 1
	var err error
	if l.index, err = auditsearch.Open(cfg); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		l.act(t, person(l, byte(i)), storage.Intent{Action: "rows.insert", Object: "x"})
	}
	snap, err := l.Engine.Local()
	if err != nil {
		t.Fatal(err)
	}
	want := snap.Revision()
	snap.Release()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.index.Follow(ctx, l.Engine) }()
	deadline, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for l.index.Reached() < want {
		select {
		case <-deadline.Done():
			t.Fatalf("reached %d of %d: %s", l.index.Reached(), want, l.log)
		case <-poll.C:
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("following ended with %v", err)
	}
	if page := l.search(t, audit.Query{Text: "object:x"}); len(page.Events) != 20 {
		t.Errorf("found %d", len(page.Events))
	}
}

func TestDestroyedTenantsIndexGoes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.search(t, audit.Query{})
	system := storage.OperatorActor(storage.System, storage.ID{}, storage.ID{}, "test", storage.Origin{})
	err := l.DB.Update(t.Context(), system, storage.Intent{Action: "tenant.delete"}, func(tx storage.Tx) error {
		return tx.ChangeKeys(storage.DestroyKeys, l.Tenant, storage.ID{})
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- l.index.Follow(ctx, l.Engine) }()
	deadline, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		if _, err := os.Stat(l.folder()); errors.Is(err, fs.ErrNotExist) {
			break
		}
		select {
		case <-deadline.Done():
			t.Fatal("the index of a tenant that is no more is still there")
		case <-poll.C:
		}
	}
	cancel()
	<-done
	// It does not come back: a search finds nothing and makes none, and what one left that was at it goes in the next round.
	if page, err := l.index.Search(t.Context(), l.operator(), audit.Query{}); err == nil && len(page.Events) > 0 {
		t.Errorf("a tenant that is no more was searched: %+v", page)
	}
	if _, err := os.Stat(l.folder()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a search made the index of a tenant that is no more: %v", err)
	}
	if err := os.MkdirAll(l.folder(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.index.Round(t.Context(), l.Engine); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(l.folder()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the index of a tenant that is no more is there again: %v", err)
	}
}

func TestConcurrentSearches(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 15 {
				word := fmt.Sprintf("g%di%d", g, i)
				l.act(t, person(l, byte(g)), storage.Intent{Action: "rows.insert", Object: word})
				page, err := l.index.Search(context.Background(), l.operator(), audit.Query{Text: "object:" + word})
				if err != nil || len(page.Events) != 1 {
					t.Errorf("%s: %v", word, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestOpenNeedsItsParts(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for name, change := range map[string]func(*auditsearch.Config){
		"folder":  func(c *auditsearch.Config) { c.Dir = "" },
		"store":   func(c *auditsearch.Config) { c.Store = nil },
		"history": func(c *auditsearch.Config) { c.History = nil },
		"keys":    func(c *auditsearch.Config) { c.Keys = nil },
		"clock":   func(c *auditsearch.Config) { c.Clock = nil },
		"logger":  func(c *auditsearch.Config) { c.Logger = nil },
		"duty":    func(c *auditsearch.Config) { c.Duty = 2 },
	} {
		c := l.config()
		change(&c)
		if _, err := auditsearch.Open(c); err == nil {
			t.Errorf("opened without %s", name)
		}
	}
}

// BenchmarkIndex says what indexing costs: µs of one core and bytes on disk for each event.
func BenchmarkIndex(b *testing.B) {
	words := strings.Fields("alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau")
	for name, act := range map[string]func(l *lab, i, k int){
		"inserts": func(l *lab, _, k int) { l.insert(b, k) },
		"texts": func(l *lab, i, k int) {
			l.act(b, person(l, byte(k%50)), storage.Intent{Action: []string{"rows.insert", "rows.update", "session.create"}[k%3], Object: fmt.Sprintf("obj-%d", i)},
				storage.Note{Field: "text", Value: strings.Join([]string{words[k%19], words[(k+3)%19], words[(k*7)%19]}, " ")})
		},
	} {
		b.Run(name, func(b *testing.B) {
			l := newLab(b)
			for i := range max(b.N, 20000) {
				var pick [1]byte
				rand.Read(pick[:])
				act(l, i, int(pick[0]))
			}
			b.ResetTimer()
			before := cpuTime()
			page := l.search(b, audit.Query{})
			spent := cpuTime() - before
			b.StopTimer()
			l.index.Close()
			b.ReportMetric(float64(spent.Microseconds())/float64(page.Indexed), "cpu-µs/event")
			b.ReportMetric(float64(folderSize(b, l.folder()))/float64(page.Indexed), "bytes/event")
			l.open(b)
		})
	}
}

// What is on disk settles near what the events take, however few were indexed at a time; a row's insert takes 200 bytes.
func TestDiskUseSettles(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for range 60 {
		for i := range 100 {
			l.insert(t, i)
		}
		l.search(t, audit.Query{})
	}
	page := l.search(t, audit.Query{})
	l.index.Close()
	grown := folderSize(t, l.folder())
	if err := os.RemoveAll(l.folder()); err != nil {
		t.Fatal(err)
	}
	l.open(t)
	l.search(t, audit.Query{}) // all at once
	l.index.Close()
	ideal := folderSize(t, l.folder())
	l.open(t)
	// How far the merging is behind when the index is closed depends on the machine; that it goes on does not.
	if grown > 3*ideal || uint64(ideal) > 200*page.Indexed {
		t.Errorf("%d events take %d bytes; indexed at once, they take %d", page.Indexed, grown, ideal)
	}
	t.Logf("%d bytes for each event, %d at once", grown/int64(page.Indexed), ideal/int64(page.Indexed))
}

// insert makes the event that inserting a row over HTTP leaves.
func (l *lab) insert(t testing.TB, k int) {
	t.Helper()
	var request [16]byte
	rand.Read(request[:])
	by := storage.AccountActor(l.Tenant, l.Project, storage.ID{1, 6: 0x70, 15: byte(k % 50)}, storage.ID{2, 15: byte(k % 50)}, nil,
		storage.Origin{Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(k % 50)}), RequestID: hex.EncodeToString(request[:])})
	l.act(t, by, storage.Intent{Action: "rows.insert", Object: "notes"}, storage.Note{Field: "rows", Value: 1})
}

func folderSize(t testing.TB, dir string) (size int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}
