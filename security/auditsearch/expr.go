package auditsearch

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/blevesearch/bleve/v2/search/query"

	"bulwark/security/audit"
)

// An expr is a part of a query. Where the index does not hold enough to decide it, it has two queries: one that finds at
// least the events that it chooses, and one that finds at most those. What lies in between is decided on the opened event.
type expr interface {
	// index returns the query that finds at least (upper) or at most (not upper) what the expr chooses. nil finds nothing,
	// and a MatchAllQuery everything: the parts that combine others look for these.
	index(upper bool) query.Query
	// exact reports whether both queries find the same.
	exact() bool
	holds(*candidate) bool
}

// A candidate is an opened event that an expr decides on.
type candidate struct {
	record *audit.Record
	schema *schema
	text   []string // its words, once they were asked for
	read   bool
}

func (c *candidate) words() []string {
	if !c.read {
		c.text, c.read = c.schema.split(textOf(c.record)), true
	}
	return c.text
}

// values returns what the event has in a field, as it is indexed but not cut.
func (c *candidate) values(field string) []string {
	if field == fieldText {
		return c.words()
	}
	return valuesOf(c.record, field)
}

// A termExpr chooses the events with a value in a field.
type termExpr struct{ field, value string }

// exact: what was cut may have lost up to a character more than the limit.
func (e termExpr) exact() bool {
	return e.field == fieldText || len(e.value) <= limitOf(e.field)-utf8.UTFMax
}

func (e termExpr) index(upper bool) query.Query {
	if !upper && !e.exact() {
		return nil
	}
	term := e.value
	if e.field != fieldText {
		term = indexed(e.field, term)
	}
	q := query.NewTermQuery(term)
	q.SetField(e.field)
	return q
}

func (e termExpr) holds(c *candidate) bool { return slices.Contains(c.values(e.field), e.value) }

// A patternExpr chooses the events with a value that a pattern with * and ? fits.
type patternExpr struct {
	field   string
	pattern string
	expr    *regexp.Regexp
}

func newPattern(field, pattern string) (patternExpr, error) {
	var b strings.Builder
	b.WriteString("^(?:")
	for _, r := range pattern {
		switch r {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteByte('.')
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	b.WriteString(")$")
	x, err := regexp.Compile(b.String())
	return patternExpr{field, pattern, x}, err
}

// begins returns what stands before the first * or ?.
func (e patternExpr) begins() string {
	if i := strings.IndexAny(e.pattern, "*?"); i >= 0 {
		return e.pattern[:i]
	}
	return e.pattern
}

// Of a request's id there is only the beginning in the index.
func (e patternExpr) exact() bool { return e.field != fieldRequest }

func (e patternExpr) index(upper bool) query.Query {
	if e.exact() {
		q := query.NewWildcardQuery(e.pattern)
		q.SetField(e.field)
		return q
	}
	if !upper {
		return nil
	}
	q := query.NewPrefixQuery(indexed(e.field, e.begins()))
	q.SetField(e.field)
	return q
}

func (e patternExpr) holds(c *candidate) bool {
	return slices.ContainsFunc(c.values(e.field), func(v string) bool {
		if e.field != fieldText && e.exact() { // what was cut off is not looked at, as in the index
			v = indexed(e.field, v)
		}
		return e.expr.MatchString(v)
	})
}

// A prefixExpr chooses the events whose action begins with it.
type prefixExpr string

func (e prefixExpr) exact() bool { return len(e) < maxKeyword-utf8.UTFMax }

func (e prefixExpr) index(upper bool) query.Query {
	if !upper && !e.exact() {
		return nil
	}
	q := query.NewPrefixQuery(indexed(fieldAction, string(e)))
	q.SetField(fieldAction)
	return q
}

func (e prefixExpr) holds(c *candidate) bool { return strings.HasPrefix(c.record.Action, string(e)) }

// A fuzzyExpr chooses the events with a value that is few changes away from a word.
type fuzzyExpr struct {
	field, word string
	changes     int
}

func (e fuzzyExpr) exact() bool { return true }

func (e fuzzyExpr) index(bool) query.Query {
	q := query.NewFuzzyQuery(e.word)
	q.SetField(e.field)
	q.SetFuzziness(e.changes)
	return q
}

func (e fuzzyExpr) holds(c *candidate) bool {
	return slices.ContainsFunc(c.values(e.field), func(v string) bool {
		if e.field != fieldText {
			v = indexed(e.field, v)
		}
		return distance([]rune(e.word), []rune(v)) <= e.changes
	})
}

// distance counts the characters that are to be added, removed, replaced or swapped with their neighbour to make b of a.
func distance(a, b []rune) int {
	before, last, now := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range a {
		now[0] = i + 1
		for j := range b {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			now[j+1] = min(last[j+1]+1, now[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				now[j+1] = min(now[j+1], before[j-1]+1)
			}
		}
		before, last, now = last, now, before
	}
	return last[len(b)]
}

// A phraseExpr chooses the events whose text has these words one after the other. The index knows no order.
type phraseExpr []string

func (e phraseExpr) exact() bool { return false }

func (e phraseExpr) index(upper bool) query.Query {
	if !upper {
		return nil
	}
	return e.all().index(true)
}

func (e phraseExpr) all() allOf {
	var words allOf
	for _, w := range e {
		words.parts = append(words.parts, termExpr{fieldText, w})
	}
	return words
}

func (e phraseExpr) holds(c *candidate) bool {
	words := c.words()
	for i := 0; i+len(e) <= len(words); i++ {
		if slices.Equal(words[i:i+len(e)], e) {
			return true
		}
	}
	return false
}

// A timeExpr chooses the events of [lo, hi), in microseconds.
type timeExpr struct{ lo, hi uint64 }

func (e timeExpr) exact() bool {
	const below = 1<<finestTime - 1
	return e.lo&below == 0 && e.hi&below == 0
}

func (e timeExpr) index(upper bool) query.Query {
	if e.lo >= e.hi {
		return nil
	}
	const unit = 1 << finestTime
	lo, hi := e.lo/unit*unit, (e.hi+unit-1)/unit*unit
	if !upper {
		lo, hi = (e.lo+unit-1)/unit*unit, e.hi/unit*unit
	}
	return timeRange(lo, hi)
}

func (e timeExpr) holds(c *candidate) bool {
	t := micros(c.record.Time)
	return t >= e.lo && t < e.hi
}

// newTimeExpr reads the times from from to to; a zero time is no bound.
func newTimeExpr(from, to time.Time, withFrom, withTo bool) timeExpr {
	e := timeExpr{0, maxTime}
	if !from.IsZero() {
		e.lo = micros(from)
		if from.Nanosecond()%1000 > 0 || !withFrom {
			e.lo++
		}
	}
	if !to.IsZero() {
		e.hi = micros(to)
		if to.Nanosecond()%1000 > 0 || withTo {
			e.hi++
		}
	}
	return e
}

// An allOf chooses what every part chooses and none of none does. The zero one chooses everything.
type allOf struct{ parts, none []expr }

func (e allOf) exact() bool { return allExact(e.parts) && allExact(e.none) }

func allExact(list []expr) bool {
	return !slices.ContainsFunc(list, func(e expr) bool { return !e.exact() })
}

func isAll(q query.Query) bool {
	_, is := q.(*query.MatchAllQuery)
	return is
}

func (e allOf) index(upper bool) query.Query {
	var parts, none []query.Query
	for _, p := range e.parts {
		q := p.index(upper)
		if q == nil {
			return nil
		}
		if !isAll(q) {
			parts = append(parts, q)
		}
	}
	for _, p := range e.none {
		q := p.index(!upper) // at least what is chosen leaves out at most what is not
		if isAll(q) {
			return nil
		}
		if q != nil {
			none = append(none, q)
		}
	}
	if len(none) > 0 {
		// Everything is named, and not left to how bleve reads a query that only leaves out.
		parts = append(parts, query.NewBooleanQuery([]query.Query{query.NewMatchAllQuery()}, nil, none))
	}
	switch len(parts) {
	case 0:
		return query.NewMatchAllQuery()
	case 1:
		return parts[0]
	}
	return query.NewConjunctionQuery(parts)
}

func (e allOf) holds(c *candidate) bool {
	return !slices.ContainsFunc(e.parts, func(p expr) bool { return !p.holds(c) }) &&
		!slices.ContainsFunc(e.none, func(p expr) bool { return p.holds(c) })
}

// An anyOf chooses what at least one of its parts chooses. The empty one chooses nothing.
type anyOf []expr

func (e anyOf) exact() bool { return allExact(e) }

func (e anyOf) index(upper bool) query.Query {
	var parts []query.Query
	for _, p := range e {
		q := p.index(upper)
		if isAll(q) {
			return q
		}
		if q != nil {
			parts = append(parts, q)
		}
	}
	switch len(parts) {
	case 0:
		return nil
	case 1:
		return parts[0]
	}
	return query.NewDisjunctionQuery(parts)
}

func (e anyOf) holds(c *candidate) bool {
	return slices.ContainsFunc(e, func(p expr) bool { return p.holds(c) })
}

// valuesOf returns what a record has in a keyword field.
func valuesOf(r *audit.Record, field string) []string {
	one := func(s string) []string {
		if s == "" {
			return nil
		}
		return []string{s}
	}
	switch field {
	case fieldAction:
		return one(r.Action)
	case fieldCategory:
		return one(string(audit.CategoryOf(r.Action)))
	case fieldActor:
		return append(one(idText(r.Actor.ID)), one(r.Actor.Name)...)
	case fieldKind:
		return one(r.Actor.Kind)
	case fieldOutcome:
		return one(r.Outcome)
	case fieldReason:
		return one(r.Reason)
	case fieldProject:
		return one(idText(r.Project))
	case fieldObject:
		return one(r.Object)
	case fieldAddress:
		if r.Actor.Addr.IsValid() {
			return one(r.Actor.Addr.String())
		}
		return nil
	case fieldSession:
		return one(idText(r.Actor.Session))
	case fieldRequest:
		return one(r.Request)
	}
	panic(fmt.Sprintf("there is no field %q", field))
}
