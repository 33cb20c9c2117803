package auditsearch

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/blevesearch/bleve/v2/search/query"

	"bulwark/security/audit"
	"bulwark/storage"
)

// Limits of a query.
const (
	defaultLimit = 50
	maxLimit     = 500
	maxQueryText = 1024
	maxFacets    = 4
)

// A compiled is a query that was found to be well-formed.
type compiled struct {
	audit.Query
	expr  allOf
	after uint64
	paged bool // after is set
}

func badQuery(field, format string, args ...any) error {
	e := storage.Errorf(storage.BadInput, "bad_query", format, args...)
	e.Field = field
	return e
}

// compile reads a query. Its errors are BadInput.
func (s *schema) compile(q audit.Query) (*compiled, error) {
	c := &compiled{Query: q}
	switch {
	case q.Limit == 0:
		c.Limit = defaultLimit
	case q.Limit < 0 || q.Limit > maxLimit:
		return nil, badQuery("limit", "limit must be between 1 and %d", maxLimit)
	}
	if q.After != "" {
		digits, ok := strings.CutPrefix(q.After, order(q.OldestFirst))
		n, err := strconv.ParseUint(digits, 32, 63)
		if !ok || err != nil {
			return nil, badQuery("after", "after must be the next of an answer to the same query in the same order")
		}
		c.after, c.paged = n, true
	}
	if len(q.Facets) > maxFacets {
		return nil, badQuery("facets", "at most %d facets can be asked for", maxFacets)
	}
	for _, f := range q.Facets {
		if !slices.Contains(facetFields(), f) {
			return nil, badQuery("facets", "facets can be counted for %s", strings.Join(facetFields(), ", "))
		}
	}
	c.expr.parts = filterExprs(&q.Filter)
	if strings.TrimSpace(q.Text) != "" {
		text, err := s.parseText(q.Text)
		if err != nil {
			return nil, err
		}
		c.expr.parts = append(c.expr.parts, text)
	}
	return c, nil
}

func order(oldestFirst bool) string {
	if oldestFirst {
		return "o"
	}
	return "n"
}

func cursor(oldestFirst bool, position uint64) string {
	return order(oldestFirst) + strconv.FormatUint(position, 32)
}

// facetFields are those with few values.
func facetFields() []string {
	return []string{fieldAction, fieldCategory, fieldKind, fieldOutcome, fieldReason}
}

func filterExprs(f *audit.Filter) []expr {
	var parts []expr
	term := func(field, value string) {
		if value != "" {
			parts = append(parts, termExpr{field, value})
		}
	}
	if prefix, ok := strings.CutSuffix(f.Action, "*"); ok {
		if prefix != "" {
			parts = append(parts, prefixExpr(prefix))
		}
	} else {
		term(fieldAction, f.Action)
	}
	term(fieldActor, f.Actor)
	term(fieldKind, f.ActorKind)
	term(fieldCategory, f.Category)
	term(fieldOutcome, f.Outcome)
	term(fieldProject, f.Project)
	term(fieldObject, f.Object)
	term(fieldAddress, f.Address)
	term(fieldSession, f.Session)
	term(fieldRequest, f.Request)
	if f.From.IsZero() && f.To.IsZero() {
		return parts
	}
	return append(parts, newTimeExpr(f.From, f.To, true, false))
}

// parseText reads bleve's query-string syntax, and refuses what would cost too much or can find nothing.
func (s *schema) parseText(text string) (expr, error) {
	if len(text) > maxQueryText {
		return nil, badQuery("text", "the query has %d bytes; at most %d are read", len(text), maxQueryText)
	}
	if !utf8.ValidString(text) {
		return nil, badQuery("text", "the query is not valid UTF-8")
	}
	parsed, err := parse(text)
	if err != nil {
		return nil, badQuery("text", "the query cannot be read: %s, near character %d. Write words, field:word, \"a phrase\", "+
			"+must, -must not, or time:>\"2006-01-02T15:04:05Z\"", syntaxMessage(err), errorPlace(text))
	}
	e, err := s.check(parsed)
	if err == nil && e == nil {
		err = badQuery("text", "the query has nothing to search for")
	}
	return e, err
}

func parse(text string) (query.Query, error) { return query.NewQueryStringQuery(text).Parse() }

func syntaxMessage(err error) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "parse error: "), "\n")
	return cut(first, 100)
}

// errorPlace finds, in characters from 1, the first clause of text that cannot be read. The parser does not say.
func errorPlace(text string) int {
	start, quoted := 0, false
	for i, r := range text {
		if r == '"' && (i == 0 || text[i-1] != '\\') {
			quoted = !quoted
		}
		if quoted || r != ' ' {
			continue
		}
		if bad(text[start:i]) {
			return place(text, start)
		}
		start = i + 1
	}
	return place(text, start)
}

func bad(clause string) bool {
	if strings.TrimSpace(clause) == "" {
		return false
	}
	_, err := parse(clause)
	return err != nil
}

func place(text string, offset int) int { return utf8.RuneCountInString(text[:offset]) + 1 }

// check walks a parsed query and returns what is run; nil for what says nothing.
func (s *schema) check(q query.Query) (expr, error) {
	switch q := q.(type) {
	case nil:
		return nil, nil
	case *query.BooleanQuery:
		return s.checkBoolean(q)
	case *query.ConjunctionQuery:
		parts, err := s.checkAll(q.Conjuncts)
		if err != nil || len(parts) == 0 {
			return nil, err
		}
		return allOf{parts: parts}, nil
	case *query.DisjunctionQuery:
		parts, err := s.checkAll(q.Disjuncts)
		if err != nil || len(parts) == 0 {
			return nil, err
		}
		return anyOf(parts), nil
	case *query.MatchQuery:
		return s.checkMatch(q)
	case *query.MatchPhraseQuery:
		field, err := fieldOf(q.Field())
		if err != nil {
			return nil, err
		}
		if field != fieldText {
			return termExpr{field, q.MatchPhrase}, nil
		}
		words := phraseExpr(s.split(q.MatchPhrase))
		switch len(words) {
		case 0:
			return anyOf{}, nil
		case 1:
			return termExpr{fieldText, words[0]}, nil
		}
		return words, nil
	case *query.WildcardQuery:
		return checkWildcard(q)
	case *query.DateRangeQuery:
		if q.Field() != fieldTime {
			return nil, badQuery("text", "only the field time has ranges of times: write time:>\"2006-01-02T15:04:05Z\"")
		}
		return newTimeExpr(q.Start.Time, q.End.Time, isTrue(q.InclusiveStart), isTrue(q.InclusiveEnd)), nil
	case *query.NumericRangeQuery:
		if q.Field() == "" || q.Min != nil && q.Max != nil { // beside the match of a number, as text
			return nil, nil
		}
		return nil, badQuery("text", "no field has ranges of numbers")
	case *query.RegexpQuery:
		return nil, badQuery("text", "regular expressions are not supported: use words, phrases, or a prefix such as admin*")
	case *query.MatchNoneQuery:
		return anyOf{}, nil
	case *query.MatchAllQuery:
		return allOf{}, nil
	}
	return nil, badQuery("text", "a query of this kind is not supported")
}

func isTrue(b *bool) bool { return b != nil && *b }

func (s *schema) checkAll(in []query.Query) ([]expr, error) {
	var out []expr
	for _, q := range in {
		c, err := s.check(q)
		if err != nil {
			return nil, err
		}
		if c != nil {
			out = append(out, c)
		}
	}
	return out, nil
}

// checkBoolean makes what "+must should -not" chooses: should counts only where there is no must.
func (s *schema) checkBoolean(q *query.BooleanQuery) (expr, error) {
	var e allOf
	must, err := s.check(q.Must)
	if err != nil {
		return nil, err
	}
	should, err := s.check(q.Should)
	if err != nil {
		return nil, err
	}
	not, err := s.check(q.MustNot)
	if err != nil {
		return nil, err
	}
	switch {
	case must != nil:
		e.parts = []expr{must}
	case should != nil:
		e.parts = []expr{should}
	case not == nil:
		return nil, badQuery("text", "the query has nothing to search for")
	}
	if not != nil {
		e.none = []expr{not}
	}
	return e, nil
}

// fieldOf returns the field that is searched when a query names field.
func fieldOf(field string) (string, error) {
	switch {
	case field == "" || field == fieldText:
		return fieldText, nil
	case slices.Contains(keywordFields(), field):
		return field, nil
	case field == fieldTime:
		return "", badQuery("text", "the field time has ranges only: write time:>\"2006-01-02T15:04:05Z\"")
	}
	return "", badQuery("text", "there is no field %q: the fields are %s, time and text", cut(field, 40), strings.Join(keywordFields(), ", "))
}

func (s *schema) checkMatch(q *query.MatchQuery) (expr, error) {
	field, err := fieldOf(q.Field())
	if err != nil {
		return nil, err
	}
	if q.Fuzziness < 0 || q.Fuzziness > 2 {
		return nil, badQuery("text", "the number after ~ must be 1 or 2")
	}
	if field == fieldRequest && q.Fuzziness > 0 {
		return nil, badQuery("text", "the field request cannot be searched with ~: write request:abc* for what begins with abc")
	}
	words := []string{q.Match}
	if field == fieldText {
		words = s.split(q.Match)
	}
	var all allOf
	for _, w := range words {
		if q.Fuzziness == 0 {
			all.parts = append(all.parts, termExpr{field, w})
		} else {
			all.parts = append(all.parts, fuzzyExpr{field, w, q.Fuzziness})
		}
	}
	if len(words) == 0 {
		return anyOf{}, nil
	}
	return all, nil
}

func checkWildcard(q *query.WildcardQuery) (expr, error) {
	field, err := fieldOf(q.Field())
	if err != nil {
		return nil, err
	}
	if strings.ContainsRune("*?", rune(q.Wildcard[0])) {
		return nil, badQuery("text", "a word with * or ? must begin with a letter or digit: %s",
			"otherwise every word of the log would have to be looked at")
	}
	pattern := q.Wildcard
	if field == fieldText {
		pattern = strings.ToLower(pattern)
	}
	e, err := newPattern(field, pattern)
	if err != nil {
		return nil, badQuery("text", "the word %s cannot be read: %s", fmt.Sprintf("%q", cut(pattern, 40)), "check its * and ?")
	}
	return e, nil
}
