package table

import (
	"encoding/binary"
	"slices"

	"bulwark/storage"
)

// maxIndexTerms bounds the columns of an ordered index, and maxLookups the key values that one read looks up.
const (
	maxIndexTerms = 4
	maxLookups    = 1000
)

// facts are what the conditions, joined by AND, demand of single columns.
type facts struct {
	never  bool // a condition is false or null whatever the row
	equal  []equality
	within []membership
	ranged []int // columns with a bound
}

type equality struct {
	column int
	value  value
}

type membership struct {
	column int
	values []value
}

// learn collects the facts of one condition.
func (f *facts) learn(t *tableInfo, n *node) {
	switch n.op {
	case OpConst:
		f.never = f.never || !n.val.isTrue()
	case OpAnd:
		for _, a := range n.args {
			f.learn(t, a)
		}
	case OpIn:
		f.learnIn(t, n)
	case OpEq, OpLt, OpLe, OpGt, OpGe:
		column, literal := n.args[0], n.args[1]
		if column.op != OpColumn {
			column, literal = literal, column
		}
		if column.op != OpColumn || literal.op != OpConst {
			return
		}
		switch {
		case literal.val.null():
			f.never = true
		case n.op != OpEq:
			f.ranged = append(f.ranged, column.col)
		case literal.val.k == kindOf(t.Columns[column.col].Type):
			f.equal = append(f.equal, equality{column.col, literal.val})
		}
	}
}

func (f *facts) learnIn(t *tableInfo, n *node) {
	if n.args[0].op != OpColumn || len(n.args) > maxLookups {
		return
	}
	m := membership{column: n.args[0].col}
	for _, a := range n.args[1:] {
		if a.op != OpConst {
			return
		}
		if a.val.null() {
			continue // never true
		}
		if a.val.k != kindOf(t.Columns[m.column].Type) {
			return
		}
		m.values = append(m.values, a.val)
	}
	f.within = append(f.within, m)
}

func (f *facts) equalTo(column int) (value, bool) {
	for _, e := range f.equal {
		if e.column == column {
			return e.value, true
		}
	}
	return value{}, false
}

// plan chooses where the candidates come from. Whatever it chooses, each candidate is still tested against every
// condition, so a plan decides how much is read and never what is answered.
func (s *selection) plan(x *indexes) (source, error) {
	var f facts
	for _, n := range s.conditions {
		f.learn(s.t, n)
	}
	if f.never {
		return nothing{}, nil
	}
	if source, err := s.byKey(&f); source != nil || err != nil {
		return source, err
	}
	return s.byIndex(x, &f)
}

// byKey looks rows up by the primary key or a unique one, where the conditions fix all of its columns.
func (s *selection) byKey(f *facts) (source, error) {
	for i := range s.t.keys {
		k := &s.t.keys[i]
		if values := f.keyValues(k); values != nil {
			id, ok, err := s.lookUp(k, values)
			if err != nil || !ok {
				return nothing{}, err
			}
			return these{ids: []uint64{id}, inOrder: true}, nil
		}
		if len(k.columns) != 1 {
			continue
		}
		for _, m := range f.within {
			if m.column == k.columns[0] {
				return s.byKeys(k, m.values)
			}
		}
	}
	return nil, nil
}

func (f *facts) keyValues(k *keyInfo) []value {
	values := make([]value, 0, len(k.columns))
	for _, c := range k.columns {
		v, ok := f.equalTo(c)
		if !ok {
			return nil
		}
		values = append(values, v)
	}
	return values
}

func (s *selection) byKeys(k *keyInfo, values []value) (source, error) {
	var ids []uint64
	for _, v := range values {
		id, ok, err := s.lookUp(k, []value{v})
		if err != nil {
			return nil, err
		}
		if ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return these{ids: slices.Compact(ids)}, nil
}

// lookUp finds the id of the row that should have these values in key k. That it does have them is among the conditions
// that every candidate is tested against.
func (s *selection) lookUp(k *keyInfo, values []value) (uint64, bool, error) {
	key, err := uniqueKey(s.r, s.t, k, values)
	if err != nil {
		return 0, false, err
	}
	found, err := s.r.Get(s.t.ix, key)
	if storage.IsNotFound(err) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	if len(found) != 8 {
		return 0, false, damaged("a key's entry is not a row id")
	}
	return binary.BigEndian.Uint64(found), true, nil
}

// byIndex uses an ordered index: of the columns that are fixed, followed by those that the answer is ordered by.
func (s *selection) byIndex(x *indexes, f *facts) (source, error) {
	var terms []term
	var prefix []byte
	for _, e := range f.equal {
		if len(terms) == 2 || slices.ContainsFunc(terms, func(t term) bool { return t.column == e.column }) {
			continue
		}
		t := term{column: e.column}
		terms = append(terms, t)
		prefix = t.appendKey(prefix, e.value)
	}
	if len(terms)+len(s.order) > maxIndexTerms {
		return everything{}, nil
	}
	fixed := len(terms) > 0
	terms = append(terms, s.order...)
	// Without a fixed column an index pays only where the read may stop early.
	if len(terms) == 0 || !fixed && s.count {
		return everything{}, nil
	}
	entries, ok, err := x.get(s, terms)
	if err != nil || !ok {
		return everything{}, err
	}
	return walk{entries: entries, prefix: string(prefix)}, nil
}

// walk reads the rows that an index lists under a prefix. Entries of equal keys are in the order of row ids, which is the
// scan's; so without further terms the walk is in scan order, and with them in the order that was asked for.
type walk struct {
	entries []sortedRow
	prefix  string
}

func (walk) ordered() bool { return true }

func (w walk) each(s *selection, fn func(id uint64, data []byte) (bool, error)) error {
	at, _ := slices.BinarySearchFunc(w.entries, sortedRow{key: w.prefix}, sortedRow.compare)
	for _, e := range w.entries[at:] {
		if len(e.key) < len(w.prefix) || e.key[:len(w.prefix)] != w.prefix {
			return nil
		}
		data, err := s.fetch(e.id)
		if err != nil {
			return err
		}
		if more, err := fn(e.id, data); err != nil || !more {
			return err
		}
	}
	return nil
}

// Tags of the keys in a table's index space.
const (
	tagStamp  = 0 // one key: the table's stamp
	tagUnique = 1 // then the blind key of a unique key's values; the value is the row's id
)

// uniqueKey is where a key's values are looked up.
func uniqueKey(r storage.Reader, t *tableInfo, k *keyInfo, values []value) ([]byte, error) {
	var plain []byte
	for _, v := range values {
		plain = v.appendOrder(plain)
	}
	blind, err := r.Blind(t.ix, k.Name, plain)
	if err != nil {
		return nil, err
	}
	return append([]byte{tagUnique}, blind...), nil
}
