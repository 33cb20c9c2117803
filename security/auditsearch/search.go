package auditsearch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/blevesearch/bleve/v2/search"
	"github.com/blevesearch/bleve/v2/search/query"
	bleve "github.com/blevesearch/bleve_index_api"

	"bulwark/security/audit"
	"bulwark/storage"
)

// Search implements audit.Searcher. The store decides on the intent "audit.search" and records it; the events that are
// found are opened by the store too. The answer misses nothing that was in the log when Search was called.
func (x *Index) Search(ctx context.Context, by storage.Actor, q audit.Query) (*audit.Page, error) {
	to := storage.Intent{Action: "audit.search"}
	// The tree first, and then the view that records the search: or each search would find itself.
	size, _, err := x.cfg.History.Tree(ctx, by, to)
	if err != nil {
		return nil, err
	}
	if err := x.cfg.Store.View(ctx, by, to, func(storage.Reader) error { return nil }); err != nil {
		return nil, err
	}
	c, err := x.schema.compile(q)
	if err != nil {
		return nil, err
	}
	page := &audit.Page{Events: []audit.Found{}, Indexed: size}
	if size == 0 {
		return page, nil
	}
	s := &finder{ctx: ctx, index: x, by: by, to: to, query: c, size: size, page: page}
	for attempt := 0; ; attempt++ {
		err = x.with(ctx, by.Tenant(), size, s.run)
		// What was found to be damaged while searching is rebuilt, once.
		var bad *damaged
		if attempt > 0 || !errors.As(err, &bad) {
			break
		}
		*page = audit.Page{Events: []audit.Found{}, Indexed: size}
	}
	if err != nil {
		return nil, err
	}
	return page, nil
}

// with brings the tenant's index up to size and calls fn with it.
func (x *Index) with(ctx context.Context, tenant storage.ID, size uint64, fn func(*openIndex) error) error {
	t, err := x.of(tenant)
	if err != nil {
		return err
	}
	o, err := x.current(ctx, t, size)
	if err != nil {
		return err
	}
	err = guard(func() error { return fn(o) })
	o.inUse.RUnlock()
	var bad *damaged
	if errors.As(err, &bad) {
		o.folder.failed.CompareAndSwap(nil, &bad.cause)
	}
	return err
}

// current returns t's index with every event below size in it, held for use.
func (x *Index) current(ctx context.Context, t *tenantIndex, size uint64) (*openIndex, error) {
	x.waiting.Add(1)
	defer x.waiting.Add(-1)
	if err := t.lock(ctx); err != nil {
		return nil, err
	}
	defer t.unlock()
	if err := x.ensure(ctx, t); err != nil {
		return nil, err
	}
	t.used = x.cfg.Clock()
	for t.open.position < size {
		if ctx.Err() != nil {
			return nil, timedOut(ctx)
		}
		if err := x.step(ctx, t, size); err != nil {
			return nil, err
		}
	}
	t.open.inUse.RLock()
	return t.open, nil
}

// A finder runs one query.
type finder struct {
	ctx    context.Context
	index  *Index
	by     storage.Actor
	to     storage.Intent
	query  *compiled
	size   uint64
	page   *audit.Page
	open   *openIndex
	reader bleve.IndexReader
	upper  query.Query // finds at least what the query chooses
	exact  bool        // and nothing else
}

func (f *finder) run(o *openIndex) error {
	r, err := o.bleve.Reader()
	if err != nil {
		return &damaged{err}
	}
	defer r.Close()
	f.open, f.reader = o, r
	f.upper, f.exact = f.query.expr.index(true), f.query.expr.exact()
	// Events may have been indexed since: they count too, so that the index is looked at as it is.
	if f.size, err = r.DocCount(); err != nil {
		return &damaged{err}
	}
	f.page.Indexed = f.size
	if err := f.walk(); err != nil {
		return err
	}
	return f.count()
}

// chooses decides on an opened event.
func (f *finder) chooses(r *audit.Record) bool {
	return f.query.Filter.Match(r) && (f.exact || f.query.expr.holds(&candidate{record: r, schema: f.index.schema}))
}

// A span is [from, to) of positions.
type span struct{ from, to uint64 }

// walk looks at windows of the log in the query's order until the page is full.
func (f *finder) walk() error {
	left := span{0, f.size}
	switch {
	case f.query.paged && f.query.OldestFirst:
		left.from = min(f.query.after+1, f.size)
	case f.query.paged:
		left.to = min(f.query.after, f.size)
	}
	level := uint(smallWindow)
	for f.upper != nil && left.from < left.to {
		if err := f.ctx.Err(); err != nil {
			return timedOut(f.ctx)
		}
		w := f.window(left, level)
		positions, tooMany, err := f.find(w, level)
		if err != nil {
			return err
		}
		if tooMany && level > smallWindow {
			level -= windowStep
			continue
		}
		full, err := f.collect(positions)
		if full || err != nil {
			return err
		}
		if f.query.OldestFirst {
			left.from = w.to
		} else {
			left.to = w.from
		}
		if len(positions) < 1<<(smallWindow-windowStep) {
			level = min(level+windowStep, largeWindow)
		}
	}
	return nil
}

// window is the next aligned window of what is left.
func (f *finder) window(left span, level uint) span {
	if f.query.OldestFirst {
		return span{left.from, min(left.to, (left.from>>level+1)<<level)}
	}
	return span{max(left.from, (left.to-1)>>level<<level), left.to}
}

// find returns the positions in w that the query finds, in the query's order; or tooMany.
func (f *finder) find(w span, level uint) (positions []uint64, tooMany bool, err error) {
	window := query.NewTermQuery(windowTerm(level, w.from))
	window.SetField(fieldWindow)
	const most = 1 << smallWindow
	err = f.each(both(window, f.upper), func(id bleve.IndexInternalID) (bool, error) {
		p, err := f.position(id)
		if err != nil {
			return false, err
		}
		if p >= w.from && p < w.to {
			positions = append(positions, p)
		}
		tooMany = len(positions) > most
		return !tooMany, nil
	})
	if err != nil || tooMany {
		return nil, tooMany, err
	}
	slices.Sort(positions)
	if !f.query.OldestFirst {
		slices.Reverse(positions)
	}
	return positions, false, nil
}

// both finds what a and b find.
func both(a, b query.Query) query.Query {
	if isAll(b) {
		return a
	}
	return query.NewConjunctionQuery([]query.Query{a, b})
}

func (f *finder) position(id bleve.IndexInternalID) (uint64, error) {
	text, err := f.reader.ExternalID(id)
	p, ok := positionOf(text)
	if err != nil || !ok {
		return 0, &damaged{errors.Join(errors.New("a document has no position"), err)}
	}
	return p, nil
}

// each calls fn with every document that q finds, until it returns false.
func (f *finder) each(q query.Query, fn func(bleve.IndexInternalID) (bool, error)) error {
	s, err := q.Searcher(f.ctx, f.reader, f.index.schema.mapping, search.SearcherOptions{Score: "none"})
	if err != nil {
		return f.startError(err)
	}
	defer s.Close()
	sc := &search.SearchContext{DocumentMatchPool: search.NewDocumentMatchPool(s.DocumentMatchPoolSize()+1, 0), IndexReader: f.reader}
	for n := 0; ; n++ {
		if n%1024 == 0 && f.ctx.Err() != nil {
			return timedOut(f.ctx)
		}
		m, err := s.Next(sc)
		if err != nil {
			return f.searchError(err)
		}
		if m == nil {
			return nil
		}
		more, err := fn(m.IndexInternalID)
		if err != nil || !more {
			return err
		}
		sc.DocumentMatchPool.Put(m)
	}
}

func (f *finder) searchError(err error) error {
	if f.ctx.Err() != nil {
		return timedOut(f.ctx)
	}
	return &damaged{err}
}

// startError tells an index that does not open its values from a query that bleve refuses: only the former is a reason to
// rebuild, or anybody who may search could ask for that.
func (f *finder) startError(err error) error {
	if f.ctx.Err() == nil && f.open.folder.failed.Load() == nil {
		return badQuery("text", "the query cannot be run: use fewer words with * or ~, and write more of each")
	}
	return f.searchError(err)
}

// collect opens the events at positions and adds those that the filter chooses, until the page is full.
func (f *finder) collect(positions []uint64) (full bool, err error) {
	for len(positions) > 0 {
		missing := f.query.Limit - len(f.page.Events)
		part := positions[:min(len(positions), missing+1)] // one more than fits says whether there is a next page
		positions = positions[len(part):]
		events, err := f.texts(part)
		if err != nil {
			return false, err
		}
		for i, p := range part {
			r, err := audit.Parse(events[i])
			if err != nil {
				return false, fmt.Errorf("event %d: %w", p, err)
			}
			if !f.chooses(r) {
				continue
			}
			if len(f.page.Events) == f.query.Limit {
				f.page.Next = cursor(f.query.OldestFirst, f.page.Events[f.query.Limit-1].Position)
				return true, nil
			}
			f.page.Events = append(f.page.Events, audit.Found{Position: p, Category: audit.CategoryOf(r.Action), Event: events[i]})
		}
	}
	return false, nil
}

// nearby is how many events are read and dropped rather than asking the store once more.
const nearby = 128

// texts returns the texts of the events at positions, which are in the query's order.
func (f *finder) texts(positions []uint64) ([][]byte, error) {
	sorted := slices.Clone(positions)
	slices.Sort(sorted)
	found := make(map[uint64][]byte, len(sorted))
	for len(sorted) > 0 {
		before := len(found)
		err := f.index.cfg.History.Events(f.ctx, f.by, f.to, sorted[0], func(position uint64, _ [32]byte, event []byte) bool {
			if position != sorted[0] {
				return position < sorted[0]
			}
			found[position] = slices.Clone(event)
			sorted = sorted[1:]
			return len(sorted) > 0 && sorted[0]-position <= nearby
		})
		if err != nil {
			return nil, err
		}
		if len(found) == before {
			return nil, &damaged{fmt.Errorf("it names event %d, which is not in the log", sorted[0])}
		}
	}
	out := make([][]byte, len(positions))
	for i, p := range positions {
		out[i] = found[p]
	}
	return out, nil
}

// Bounds of a facet.
const (
	maxFacetTerms  = 200
	maxFacetValues = 20
)

// Bounds of counting.
const (
	maxCounted = 200_000 // events that are counted in the index, where it cannot be asked for the number
	maxOpened  = 2_000   // events that are opened only to be counted
)

// count sets the page's Total and Facets. What the index decides is counted there, and the rest is opened.
func (f *finder) count() error {
	if len(f.query.Facets) > 0 {
		f.page.Facets = map[string][]audit.Facet{}
	}
	for _, field := range f.query.Facets {
		f.page.Facets[field] = []audit.Facet{}
	}
	if f.upper == nil {
		return nil
	}
	lower := f.query.expr.index(false)
	if lower != nil {
		if err := f.countIndexed(lower); err != nil {
			return err
		}
	}
	if !f.exact {
		if err := f.countOpened(lower); err != nil {
			return err
		}
	}
	for field, counts := range f.page.Facets {
		slices.SortStableFunc(counts, func(a, b audit.Facet) int {
			return cmp.Or(b.Count-a.Count, strings.Compare(a.Value, b.Value))
		})
		f.page.Facets[field] = counts[:min(len(counts), maxFacetValues)]
	}
	return nil
}

func (f *finder) countIndexed(q query.Query) error {
	n, whole, err := f.number(q, maxCounted)
	if err != nil {
		return err
	}
	f.page.Total += n
	f.page.AtLeast = f.page.AtLeast || !whole
	for _, field := range f.query.Facets {
		values, err := f.terms(field)
		if err != nil {
			return err
		}
		for _, v := range values {
			term := query.NewTermQuery(v)
			term.SetField(field)
			n, whole, err := f.number(both(term, q), maxCounted)
			if err != nil {
				return err
			}
			if n > 0 {
				f.page.Facets[field] = append(f.page.Facets[field], audit.Facet{Value: v, Count: int(n)})
			}
			f.page.AtLeast = f.page.AtLeast || !whole
		}
	}
	return nil
}

// number counts what q finds, up to most.
func (f *finder) number(q query.Query, most uint64) (n uint64, whole bool, err error) {
	switch q := q.(type) {
	case *query.MatchAllQuery:
		return f.size, true, nil
	case *query.TermQuery:
		r, err := f.reader.TermFieldReader(f.ctx, []byte(q.Term), q.Field(), false, false, false)
		if err != nil {
			return 0, false, f.searchError(err)
		}
		n := r.Count()
		return n, true, r.Close()
	}
	whole = true
	err = f.each(q, func(bleve.IndexInternalID) (bool, error) {
		if n == most {
			whole = false
			return false, nil
		}
		n++
		return true, nil
	})
	return n, whole, err
}

// countOpened opens what the index leaves undecided: what upper finds and lower does not.
func (f *finder) countOpened(lower query.Query) error {
	q := f.upper
	if lower != nil {
		q = query.NewBooleanQuery([]query.Query{f.upper}, nil, []query.Query{lower})
	}
	var undecided []uint64
	err := f.each(q, func(id bleve.IndexInternalID) (bool, error) {
		if len(undecided) == maxOpened {
			f.page.AtLeast = true
			return false, nil
		}
		p, err := f.position(id)
		undecided = append(undecided, p)
		return true, err
	})
	if err != nil {
		return err
	}
	slices.Sort(undecided)
	for part := range slices.Chunk(undecided, 100) {
		events, err := f.texts(part)
		if err != nil {
			return err
		}
		for i := range part {
			r, err := audit.Parse(events[i])
			if err != nil {
				return fmt.Errorf("event %d: %w", part[i], err)
			}
			if f.chooses(r) {
				f.page.Total++
				f.tally(r)
			}
		}
	}
	return nil
}

// tally counts an event's values.
func (f *finder) tally(r *audit.Record) {
	for _, field := range f.query.Facets {
		for _, v := range valuesOf(r, field) {
			counts := f.page.Facets[field]
			i := slices.IndexFunc(counts, func(c audit.Facet) bool { return c.Value == v })
			if i < 0 {
				counts, i = append(counts, audit.Facet{Value: v}), len(counts)
			}
			counts[i].Count++
			f.page.Facets[field] = counts
		}
	}
}

func (f *finder) terms(field string) (out []string, err error) {
	d, err := f.reader.FieldDict(field)
	if err != nil {
		return nil, &damaged{err}
	}
	defer d.Close()
	for len(out) < maxFacetTerms {
		e, err := d.Next()
		if err != nil {
			return nil, &damaged{err}
		}
		if e == nil {
			break
		}
		out = append(out, e.Term)
	}
	return out, nil
}
