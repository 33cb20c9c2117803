package table

import (
	"container/heap"
	"context"
	"encoding/binary"
	"slices"

	"bulwark/storage"
)

// Select reads the rows that the policies show to the reader's actor and that match q.
func (c *Catalog) Select(ctx context.Context, r storage.Reader, table string, q Query) (*Result, error) {
	a, err := c.open(r, table)
	if err != nil {
		return nil, err
	}
	filter, err := a.filter(q.Where)
	if err != nil {
		return nil, err
	}
	out, err := a.t.outputs(q.Columns)
	if err != nil {
		return nil, err
	}
	order, err := a.terms(q.Order)
	if err != nil {
		return nil, err
	}
	s := &selection{
		access: a, r: r, ctx: ctx, out: out, order: order, count: q.Count,
		offset: max(q.Offset, 0), limit: clampLimit(q.Limit), conditions: a.using(Select, true),
	}
	if filter != nil {
		s.conditions = append(s.conditions, filter)
	}
	return s.run(c.indexes)
}

// A selection is one read while it runs.
type selection struct {
	*access
	r             storage.Reader
	ctx           context.Context
	conditions    []*node // the policies', then the filter
	order         []term
	out           []output
	offset, limit int
	count         bool

	matched int64
	rows    [][]byte
	bytes   int
	visits  int
}

func (s *selection) run(x *indexes) (*Result, error) {
	source, err := s.plan(x)
	if err != nil {
		return nil, err
	}
	if s.limit == 0 && !s.count {
		source = nothing{}
	}
	if len(s.order) > 0 && !source.ordered() {
		err = s.sorted(source)
	} else {
		err = s.streamed(source)
	}
	if err != nil {
		return nil, err
	}
	res := &Result{Rows: s.rows, Matched: -1}
	if s.count {
		res.Matched = s.matched
	}
	return res, nil
}

// streamed takes rows as the source gives them.
func (s *selection) streamed(source source) error {
	return source.each(s, func(_ uint64, data []byte) (bool, error) {
		ok, err := s.visit(data)
		if err != nil || !ok {
			return err == nil, err
		}
		s.matched++
		if s.matched > int64(s.offset) && len(s.rows) < s.limit {
			if err := s.take(); err != nil {
				return false, err
			}
		}
		return s.count || len(s.rows) < s.limit, nil
	})
}

// sorted keeps the keys of the first rows in order, and reads those rows again at the end.
func (s *selection) sorted(source source) error {
	top := &topRows{most: window(s.offset, s.limit)}
	err := source.each(s, func(id uint64, data []byte) (bool, error) {
		ok, err := s.visit(data)
		if err != nil || !ok {
			return err == nil, err
		}
		s.matched++
		key, err := s.orderKey(nil, s.order)
		if err != nil {
			return false, err
		}
		return true, top.add(sortedRow{string(key), id})
	})
	if err != nil {
		return err
	}
	list := top.list
	slices.SortFunc(list, sortedRow.compare)
	for _, e := range list[min(s.offset, len(list)):] {
		data, err := s.fetch(e.id)
		if err != nil {
			return err
		}
		if err := s.row.set(data); err != nil {
			return err
		}
		if err := s.take(); err != nil {
			return err
		}
	}
	return nil
}

// visit reports whether the row matches; now and then it looks whether the request still has time.
func (s *selection) visit(data []byte) (bool, error) {
	if s.visits++; s.visits%128 == 0 {
		if err := late(s.ctx); err != nil {
			return false, err
		}
	}
	return s.matches(data, s.conditions)
}

func late(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return &storage.Error{Fault: storage.Unavailable, Code: "timeout", Cause: err,
			Message: "the request's time ran out: ask for less, or by a key, and try again"}
	}
	return nil
}

func (s *selection) take() error {
	b, err := s.row.project(s.out)
	if err != nil {
		return err
	}
	if s.bytes += len(b); s.bytes > MaxBodyBytes {
		return bad(CodeTooLarge, "the answer is larger than %d bytes: ask for fewer rows or columns", MaxBodyBytes)
	}
	s.rows = append(s.rows, b)
	return nil
}

// fetch reads a row that an index or a sort named in this same snapshot.
func (s *selection) fetch(id uint64) ([]byte, error) {
	data, err := s.r.Get(s.t.rows, rowKey(id))
	if storage.IsNotFound(err) {
		return nil, damaged("an index names a row that does not exist")
	}
	return data, err
}

func rowKey(id uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 0, 8), id) }

// A source gives candidate rows: every row that can match is among them.
type source interface {
	// ordered reports whether they come in the order that the selection asks for, rather than in that of their ids.
	ordered() bool
	each(s *selection, fn func(id uint64, data []byte) (bool, error)) error
}

// nothing is the source where no row can match.
type nothing struct{}

func (nothing) ordered() bool { return true }

func (nothing) each(*selection, func(uint64, []byte) (bool, error)) error { return nil }

// everything reads each row of the table.
type everything struct{}

func (everything) ordered() bool { return false }

func (everything) each(s *selection, fn func(id uint64, data []byte) (bool, error)) (err error) {
	scan := s.r.Scan(s.t.rows, storage.KeyRange{}, func(key, data []byte) bool {
		if len(key) != 8 {
			err = damaged("a row has no proper id")
			return false
		}
		var more bool
		more, err = fn(binary.BigEndian.Uint64(key), data)
		return more && err == nil
	})
	if err == nil {
		err = scan
	}
	return err
}

// these reads rows by id.
type these struct {
	ids     []uint64
	inOrder bool
}

func (t these) ordered() bool { return t.inOrder }

func (t these) each(s *selection, fn func(id uint64, data []byte) (bool, error)) error {
	for _, id := range t.ids {
		data, err := s.fetch(id)
		if err != nil {
			return err
		}
		if more, err := fn(id, data); err != nil || !more {
			return err
		}
	}
	return nil
}

// A term is one Order, resolved.
type term struct {
	column     int
	desc       bool
	nullsFirst bool
}

func (a *access) terms(order []Order) ([]term, error) {
	if len(order) > maxExprDepth {
		return nil, bad(CodeTooComplex, "ORDER BY has more than %d terms", maxExprDepth)
	}
	list := make([]term, 0, len(order))
	for _, o := range order {
		i, ok := a.t.index[o.Column]
		if !ok {
			return nil, noColumn(a.t.Name, o.Column)
		}
		if a.t.Columns[i].Type == JSON {
			e := bad(CodeNoOperator, "could not identify an ordering operator for type json")
			e.Hint = "Use an explicit ordering operator or modify the query."
			return nil, e
		}
		list = append(list, term{i, o.Desc, o.Nulls == NullsFirst || o.Nulls == NullsDefault && o.Desc})
	}
	return list, nil
}

// The byte before a value in an order key: null sorts before or after it.
const (
	nullBefore = 0
	notNull    = 1
	nullAfter  = 2
)

// orderKey appends the row's sort key: its bytewise order is the order that terms ask for.
func (a *access) orderKey(dst []byte, terms []term) ([]byte, error) {
	for _, t := range terms {
		v, err := a.row.value(t.column)
		if err != nil {
			return nil, err
		}
		dst = t.appendKey(dst, v)
	}
	return dst, nil
}

func (t term) appendKey(dst []byte, v value) []byte {
	if v.null() {
		if t.nullsFirst {
			return append(dst, nullBefore)
		}
		return append(dst, nullAfter)
	}
	dst = append(dst, notNull)
	from := len(dst)
	dst = v.appendOrder(dst)
	if t.desc {
		invert(dst[from:])
	}
	return dst
}

type sortedRow struct {
	key string
	id  uint64
}

func (a sortedRow) compare(b sortedRow) int {
	switch {
	case a.key < b.key:
		return -1
	case a.key > b.key:
		return 1
	case a.id < b.id:
		return -1
	case a.id > b.id:
		return 1
	}
	return 0
}

// topRows keeps the least rows of all that were added: a heap with the greatest on top.
type topRows struct {
	most  int
	bytes int
	list  []sortedRow
}

func (h *topRows) Len() int           { return len(h.list) }
func (h *topRows) Less(i, j int) bool { return h.list[i].compare(h.list[j]) > 0 }
func (h *topRows) Swap(i, j int)      { h.list[i], h.list[j] = h.list[j], h.list[i] }
func (h *topRows) Push(x any)         { h.list = append(h.list, x.(sortedRow)) }

func (h *topRows) Pop() any {
	last := h.list[len(h.list)-1]
	h.list = h.list[:len(h.list)-1]
	return last
}

func (h *topRows) add(r sortedRow) error {
	if h.most == 0 {
		return nil
	}
	if len(h.list) == h.most {
		if r.compare(h.list[0]) >= 0 {
			return nil
		}
		h.bytes += len(r.key) - len(h.list[0].key)
		h.list[0] = r
		heap.Fix(h, 0)
	} else {
		h.bytes += len(r.key) + sortedRowBytes
		heap.Push(h, r)
	}
	if h.bytes > MaxSortBytes {
		return bad(CodeTooLarge, "sorting this takes more than %d bytes: add a filter, or ask for a lower offset", MaxSortBytes)
	}
	return nil
}

// sortedRowBytes is what a sortedRow takes beside its key.
const sortedRowBytes = 24
