package auditsearch

import (
	"testing"
	"time"

	"github.com/blevesearch/bleve/v2/search/query"
	"pgregory.net/rapid"

	"bulwark/security/audit"
)

// finds reports whether q finds a document with this time.
func finds(t *rapid.T, q query.Query, at time.Time) bool {
	if q == nil || isAll(q) {
		return q != nil
	}
	d, ok := q.(*query.DisjunctionQuery)
	if !ok {
		t.Fatalf("the query is %T", q)
	}
	for _, p := range d.Disjuncts {
		r, ok := p.(*query.TermRangeQuery)
		if !ok {
			t.Fatalf("a part is %T", p)
		}
		for level, shift := range timeShifts() {
			if term := timeTerm(level, micros(at)>>shift); term >= r.Min && term <= r.Max {
				return true
			}
		}
	}
	return false
}

func TestTimeRange(t *testing.T) {
	t.Parallel()
	const last = 1 << 53
	rapid.Check(t, func(rt *rapid.T) {
		draw := func(name string, near time.Time) time.Time {
			if !near.IsZero() && rapid.Bool().Draw(rt, name+" near") {
				span := int64(1) << rapid.IntRange(0, 50).Draw(rt, name+" span")
				return near.Add(time.Duration(rapid.Int64Range(-span, span).Draw(rt, name)) * time.Microsecond)
			}
			return time.UnixMicro(rapid.Int64Range(0, last).Draw(rt, name))
		}
		at := draw("at", time.Time{})
		from, to := draw("from", at), draw("to", at)
		withFrom, withTo := rapid.Bool().Draw(rt, "with from"), rapid.Bool().Draw(rt, "with to")
		if rapid.Bool().Draw(rt, "sub") {
			from = from.Add(500)
			to = to.Add(500)
		}
		if rapid.IntRange(0, 5).Draw(rt, "open") == 0 {
			from = time.Time{}
		}
		if rapid.IntRange(0, 5).Draw(rt, "endless") == 0 {
			to = time.Time{}
		}
		if at.UnixMicro() < 0 || !from.IsZero() && from.UnixMicro() < 0 || !to.IsZero() && to.UnixMicro() < 0 {
			return
		}
		want := (from.IsZero() || at.After(from) || withFrom && at.Equal(from)) && (to.IsZero() || at.Before(to) || withTo && at.Equal(to))
		e := newTimeExpr(from, to, withFrom, withTo)
		upper, lower := finds(rt, e.index(true), at), finds(rt, e.index(false), at)
		if got := e.holds(&candidate{record: &audit.Record{Time: at}}); got != want || lower && !want || want && !upper || e.exact() && upper != lower {
			rt.Fatalf("%s in %s..%s (%v, %v): %v, between %v and %v, want %v", at, from, to, withFrom, withTo, got, lower, upper, want)
		}
	})
}

func FuzzParseText(f *testing.F) {
	for _, text := range []string{"", "word", `"a phrase"`, "+a -b", "field:x", `time:>"2026-01-01T00:00:00Z"`, "a~1", "a*", "/x/", "(", "1", "object:>5", `\`, `a^2`, "-5", `""`, ":", `"two words" -x`, "request:ab*", "+request:abcdef -object:é~1"} {
		f.Add(text)
	}
	s, err := newSchema()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := s.parseText(text)
		if err == nil && e == nil {
			t.Fatal("neither a query nor an error")
		}
		if err == nil {
			e.index(true)
			e.index(false)
			e.exact()
			e.holds(&candidate{record: &audit.Record{Action: "rows.insert", Request: "abc"}, schema: s})
		}
	})
}
