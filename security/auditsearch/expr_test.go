package auditsearch

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bleve "github.com/blevesearch/bleve_index_api"
	"pgregory.net/rapid"

	"bulwark/security/audit"
	"bulwark/storage"
	"bulwark/storage/storagetest"
)

type oneKey struct{}

func (oneKey) IndexKey(storage.ID) (string, []byte, error) {
	sum := sha256.Sum256([]byte("key"))
	return "key", sum[:], nil
}

// drawText draws queries of what the events of TestTextIsAnEvaluation hold, and of what they do not.
func drawText(t *rapid.T, times []time.Time) string {
	words := []string{"alpha", "beta", "gamma", "rows", "insert", "missing", "note", "console"}
	word := func() string { return rapid.SampledFrom(words).Draw(t, "word") }
	at := func() string {
		when := rapid.SampledFrom(times).Draw(t, "at").Add(time.Duration(rapid.IntRange(-1, 1).Draw(t, "off")) * time.Microsecond)
		return `"` + when.UTC().Format(time.RFC3339Nano) + `"`
	}
	clauses := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
		sign := rapid.SampledFrom([]string{"", "", "+", "-"}).Draw(t, "sign")
		switch rapid.IntRange(0, 9).Draw(t, "clause") {
		case 0, 1:
			return sign + word()
		case 2:
			return sign + `"` + word() + " " + word() + `"`
		case 3:
			return sign + `"` + word() + " " + word() + " " + word() + `"`
		case 4:
			return sign + rapid.SampledFrom([]string{"lapha~1", "aplha~2", "bet~1", "gammma~1", "xyz~2", "object:objec-1~1"}).Draw(t, "fuzzy")
		case 5:
			return sign + rapid.SampledFrom([]string{"zz*", "al*", "be?a", "g*a", "r*s", "action:rows.*", "request:abcde*", "request:abcdef0?", "request:a*"}).Draw(t, "pattern")
		case 6:
			return sign + "request:" + rapid.SampledFrom([]string{"abcdef00", "abcdef01", "abcde", "abcdeffe", "a"}).Draw(t, "request")
		case 7:
			return sign + rapid.SampledFrom([]string{"time:>", "time:<", "time:>=", "time:<="}).Draw(t, "range") + at()
		case 8:
			return sign + "object:" + rapid.SampledFrom([]string{"object-1", "object-2", "none", longName + "x", longName}).Draw(t, "object")
		}
		return sign + rapid.SampledFrom([]string{"outcome:denied", "actorkind:account", "category:data", "actor:console"}).Draw(t, "field")
	}), 1, 4).Draw(t, "clauses")
	return strings.Join(clauses, " ")
}

const longName = "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" + // as long as a keyword
	"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" +
	"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" +
	"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"

// A search, page by page, finds what evaluating the query on each event finds, and counts it.
func TestTextIsAnEvaluation(t *testing.T) {
	t.Parallel()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	x, err := Open(Config{Dir: t.TempDir(), Store: w.DB, History: w.DB, Keys: oneKey{}, Clock: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	if len(longName) != maxKeyword {
		t.Fatalf("the long name has %d bytes", len(longName))
	}
	words := []string{"alpha", "beta", "gamma"}
	for i := range 150 {
		by := storage.AccountActor(w.Tenant, w.Project, storage.ID{1, 15: byte(i % 3)}, storage.ID{2}, nil,
			storage.Origin{Address: netip.MustParseAddr("192.0.2.1"), RequestID: []string{fmt.Sprintf("abcdef%02x", i%4), "abcde", "b"}[i%3]})
		object := []string{"object-1", "object-2", longName + "x", longName + "y"}[i%4]
		err := w.DB.Update(t.Context(), by, storage.Intent{Action: []string{"rows.insert", "apikey.revoke"}[i%2], Object: object}, func(tx storage.Tx) error {
			tx.Note("note", words[i%3]+" "+words[i/3%3]+" "+words[i/9%3])
			tx.Note("rows", i)
			return nil
		})
		if err != nil && storage.FaultOf(err) != storage.Denied {
			t.Fatal(err)
		}
	}
	by := storage.OperatorActor(w.Tenant, storage.ID{}, storage.ID{}, "console", storage.Origin{})
	if _, err := x.Search(t.Context(), by, audit.Query{}); err != nil {
		t.Fatal(err)
	}
	w.DB.Close() // what was read is written; the log grows no more
	var all []*audit.Record
	var times []time.Time
	err = w.DB.Events(t.Context(), by, storage.Intent{Action: "audit.search"}, 0, func(_ uint64, _ [32]byte, text []byte) bool {
		r, err := audit.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		all, times = append(all, r), append(times, r.Time)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	// bleve treats parts that find nothing as if they were not there, in some places.
	for text, want := range map[string]int{
		"-zz*": len(all), "-zz* -yy*": len(all), "+zz*": 0, "+zz* alpha": 0, "zz*": 0, "+zz* -alpha": 0, "+alpha -zz*": len(all),
		`-time:<"2001-01-01T00:00:00Z"`: len(all), `+time:<"2001-01-01T00:00:00Z"`: 0, `-request:zz*`: len(all), `-"zz zz"`: len(all),
	} {
		if strings.Contains(text, "+alpha") {
			want = 0
			for _, r := range all {
				if slices.Contains((&candidate{record: r, schema: x.schema}).words(), "alpha") {
					want++
				}
			}
		}
		page, err := x.Search(t.Context(), by, audit.Query{Text: text, Limit: 1})
		if err != nil || page.Total != uint64(want) || len(page.Events) != min(want, 1) {
			t.Errorf("%s: found %+v, want %d: %v", text, page, want, err)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		q := audit.Query{Text: drawText(rt, times), Limit: rapid.IntRange(1, 70).Draw(rt, "limit"), Facets: []string{fieldAction}}
		e, err := x.schema.parseText(q.Text)
		if err != nil {
			if _, searched := x.Search(context.Background(), by, q); storage.FaultOf(searched) != storage.BadInput {
				rt.Fatalf("%s: %v, and searching %v", q.Text, err, searched)
			}
			return
		}
		want := []uint64{}
		facets := map[string]int{}
		for i, r := range slices.Backward(all) {
			if e.holds(&candidate{record: r, schema: x.schema}) {
				want = append(want, uint64(i))
				facets[r.Action]++
			}
		}
		got := []uint64{}
		for {
			page, err := x.Search(context.Background(), by, q)
			if err != nil {
				rt.Fatalf("%s: %v", q.Text, err)
			}
			if page.Total != uint64(len(want)) || page.AtLeast {
				rt.Fatalf("%s: counted %d (at least: %v), want %d", q.Text, page.Total, page.AtLeast, len(want))
			}
			if len(page.Facets[fieldAction]) != len(facets) {
				rt.Fatalf("%s: facets %v, want %v", q.Text, page.Facets, facets)
			}
			for _, f := range page.Facets[fieldAction] {
				if facets[f.Value] != f.Count {
					rt.Fatalf("%s: facets %v, want %v", q.Text, page.Facets, facets)
				}
			}
			for _, f := range page.Events {
				got = append(got, f.Position)
			}
			if page.Next == "" {
				break
			}
			q.After = page.Next
		}
		if !slices.Equal(got, want) {
			rt.Fatalf("%s: found %v, want %v", q.Text, got, want)
		}
	})
}

// The evaluation itself, by example.
func TestHolds(t *testing.T) {
	t.Parallel()
	s, err := newSchema()
	if err != nil {
		t.Fatal(err)
	}
	r := &audit.Record{Action: "rows.insert", Object: "notes", Outcome: "ok", Request: "abcdef0123", Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC),
		Actor: audit.RecordActor{Kind: "account"}, Notes: map[string]any{"words": "Alpha beta", "n": int64(77), "list": []string{"gamma delta"}}}
	for text, want := range map[string]bool{
		`"alpha beta"`: true, `"beta alpha"`: false, "alpha": true, "77": false, `"gamma delta"`: true, "-alpha": false, "-omega": true,
		"omega beta": true, "+omega beta": false, "+alpha -beta": false, "request:abcdef0123": true, "request:abcdef": false,
		"request:abcdef*": true, "request:abcdee*": false, "alhpa~1": true, "alhp~1": false, "alhp~2": true, "al?ha": true, "al?a": false,
		`+time:>="2026-01-02T03:04:05.000006Z"`: true, `+time:>"2026-01-02T03:04:05.000006Z"`: false, "object:notes": true,
		"object:note": false, `-"alpha beta"`: false, `-"beta alpha"`: true, "outcome:ok": true, "actorkind:acc*": true, `"!"`: false,
	} {
		e, err := s.parseText(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := e.holds(&candidate{record: r, schema: s}); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// An index that holds fewer or more documents than its position says is made anew.
func TestNumberOfDocumentsIsThePosition(t *testing.T) {
	t.Parallel()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	var said strings.Builder
	dir := t.TempDir()
	cfg := Config{Dir: dir, Store: w.DB, History: w.DB, Keys: oneKey{}, Clock: time.Now, Logger: slog.New(slog.NewTextHandler(&said, nil))}
	by := storage.OperatorActor(w.Tenant, storage.ID{}, storage.ID{}, "console", storage.Origin{})
	search := func() *audit.Page {
		t.Helper()
		x, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		page, err := x.Search(t.Context(), by, audit.Query{})
		if err != nil {
			t.Fatal(err)
		}
		return page
	}
	for range 5 {
		err := w.DB.Update(t.Context(), w.Service(), storage.Intent{Action: "rows.insert", Object: "notes"}, func(tx storage.Tx) error {
			tx.Note("rows", 1)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	search()
	id, key, err := oneKey{}.IndexKey(w.Tenant)
	if err != nil {
		t.Fatal(err)
	}
	x := &Index{cfg: cfg}
	o, err := openFolder(filepath.Join(dir, w.Tenant.String()), id, key)
	if err != nil {
		t.Fatal(err)
	}
	// One event is forgotten: the last one's hash, and so the place in the log, is right.
	batch := bleve.NewBatch()
	batch.Delete(documentID(2))
	if err := o.bleve.Batch(batch); err != nil {
		t.Fatal(err)
	}
	if err := o.settle(); err != nil {
		t.Fatal(err)
	}
	if err := x.belongs(t.Context(), w.Tenant, o); err != nil {
		t.Fatal(err)
	}
	o.close()
	said.Reset()
	if page := search(); uint64(len(page.Events)) != page.Indexed {
		t.Errorf("found %d of %d", len(page.Events), page.Indexed)
	}
	if !strings.Contains(said.String(), "it holds") {
		t.Errorf("the log says %q", said.String())
	}
}
