package auditsearch

import (
	"testing"
	"time"

	"github.com/blevesearch/bleve/v2/search/query"
	"pgregory.net/rapid"
)

// holds reports whether q finds a document with this time.
func holds(t *rapid.T, q query.Query, at time.Time) bool {
	d, ok := q.(*query.DisjunctionQuery)
	if !ok {
		return false
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
		if got := holds(rt, timeRange(from, to, withFrom, withTo), at); got != want {
			rt.Fatalf("%s in %s..%s (%v, %v): %v, want %v", at, from, to, withFrom, withTo, got, want)
		}
	})
}

func FuzzParseText(f *testing.F) {
	for _, text := range []string{"", "word", `"a phrase"`, "+a -b", "field:x", `time:>"2026-01-01T00:00:00Z"`, "a~1", "a*", "/x/", "(", "1", "object:>5", `\`, `a^2`, "-5", `""`, ":"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q, err := parseText(text)
		if err == nil && q == nil {
			t.Error("neither a query nor an error")
		}
	})
}
