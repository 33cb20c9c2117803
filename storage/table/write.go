package table

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"bulwark/storage"
)

// MaxWriteRows bounds the rows that one statement changes or deletes.
const MaxWriteRows = 10_000

// Insert adds rows, in their order. It fails as a whole where one of them breaks a policy or a constraint.
func (c *Catalog) Insert(ctx context.Context, tx storage.Tx, table string, in Insertion) (*Result, error) {
	w, err := c.openWrite(ctx, tx, table, in.Return)
	if err != nil {
		return nil, err
	}
	w.conditions = w.checks(Insert, in.Return != nil)
	listed, err := w.listed(in.Columns)
	if err != nil {
		return nil, err
	}
	if len(in.Records) > MaxWriteRows {
		return nil, tooManyRows()
	}
	values := make([]value, len(w.t.Columns))
	for _, record := range in.Records {
		if err := late(ctx); err != nil {
			return nil, err
		}
		if err := w.fill(values, record, listed, in.MissingDefault); err != nil {
			return nil, err
		}
		if err := w.put(values, nil); err != nil {
			return nil, err
		}
	}
	return w.finish()
}

// Update sets columns of the rows that the policies show, that match, and that the policies allow to be as they become.
// Each moves to the end of an unordered read.
func (c *Catalog) Update(ctx context.Context, tx storage.Tx, table string, ch Change) (*Result, error) {
	w, err := c.openWrite(ctx, tx, table, ch.Return)
	if err != nil {
		return nil, err
	}
	set := make(map[int]value, len(ch.Set))
	for name, raw := range ch.Set {
		i, ok := w.t.index[name]
		if !ok {
			return nil, noField(w.t.Name, name)
		}
		if set[i], err = fromClient(&w.t.Columns[i], raw); err != nil {
			return nil, err
		}
	}
	old, selects, err := w.find(c.indexes, Update, ch.Where, ch.Max)
	if err != nil || len(set) == 0 {
		return &Result{}, err
	}
	w.conditions = w.checks(Update, selects)
	values := make([]value, len(w.t.Columns))
	for _, o := range old {
		before, err := w.values(o.data)
		if err != nil {
			return nil, err
		}
		copy(values, before)
		for i, v := range set {
			values[i] = v
		}
		if err := w.put(values, &stored{o.id, before}); err != nil {
			return nil, err
		}
	}
	return w.finish()
}

// Delete removes the rows that the policies show and that match.
func (c *Catalog) Delete(ctx context.Context, tx storage.Tx, table string, rm Removal) (*Result, error) {
	w, err := c.openWrite(ctx, tx, table, rm.Return)
	if err != nil {
		return nil, err
	}
	old, _, err := w.find(c.indexes, Delete, rm.Where, rm.Max)
	if err != nil {
		return nil, err
	}
	for _, o := range old {
		before, err := w.values(o.data)
		if err != nil {
			return nil, err
		}
		for i := range w.t.keys {
			if err := w.dropKey(&w.t.keys[i], before); err != nil {
				return nil, err
			}
		}
		if err := tx.Delete(w.t.rows, rowKey(o.id)); err != nil {
			return nil, err
		}
		if err := w.done(o.data, before); err != nil {
			return nil, err
		}
	}
	return w.finish()
}

// A write is one statement that changes rows, while it runs.
type write struct {
	selection
	tx  storage.Tx
	ret *Return
	res Result
}

type found struct {
	id   uint64
	data []byte
}

type stored struct {
	id     uint64
	values []value
}

func (c *Catalog) openWrite(ctx context.Context, tx storage.Tx, table string, ret *Return) (*write, error) {
	a, err := c.open(tx, table)
	if err != nil {
		return nil, err
	}
	w := &write{selection: selection{access: a, r: tx, ctx: ctx}, tx: tx, ret: ret}
	if ret != nil {
		w.out, err = a.t.outputs(ret.Columns)
	}
	return w, err
}

// find collects the rows that command may touch and that match. selects reports whether the statement reads columns, so
// that PostgreSQL would apply the policies of SELECT as well.
func (w *write) find(x *indexes, command Command, where *Expr, most *int) (list []found, selects bool, err error) {
	filter, err := w.filter(where)
	if err != nil {
		return nil, false, err
	}
	selects = w.ret != nil || mentionsColumn(where)
	w.conditions = w.using(command, selects)
	if filter != nil {
		w.conditions = append(w.conditions, filter)
	}
	source, err := w.plan(x)
	if err != nil {
		return nil, false, err
	}
	size := 0
	err = source.each(&w.selection, func(id uint64, data []byte) (bool, error) {
		ok, err := w.visit(data)
		if err != nil || !ok {
			return err == nil, err
		}
		list = append(list, found{id, bytes.Clone(data)})
		if size += len(data); size > MaxBodyBytes || len(list) > MaxWriteRows {
			return false, tooManyRows()
		}
		return true, nil
	})
	if err == nil && most != nil && len(list) > *most {
		e := bad(CodeMaxAffected, "Query result exceeds max-affected preference constraint")
		e.Details = fmt.Sprintf("The query affects %d rows", len(list))
		return nil, false, e
	}
	return list, selects, err
}

func tooManyRows() error {
	return bad(CodeTooLarge, "a statement changes at most %d rows and %d bytes: do it in parts", MaxWriteRows, MaxBodyBytes)
}

func mentionsColumn(e *Expr) bool {
	if e == nil {
		return false
	}
	if e.Op == OpColumn {
		return true
	}
	for _, a := range e.Args {
		if mentionsColumn(a) {
			return true
		}
	}
	return false
}

// listed says which columns an insert sets; nil stands for those that each record names.
func (w *write) listed(columns []string) ([]bool, error) {
	if columns == nil {
		return nil, nil
	}
	list := make([]bool, len(w.t.Columns))
	for _, name := range columns {
		i, ok := w.t.index[name]
		if !ok {
			return nil, noField(w.t.Name, name)
		}
		list[i] = true
	}
	return list, nil
}

// fill makes the values of a new row.
func (w *write) fill(values []value, record Record, listed []bool, missingDefault bool) error {
	if listed == nil {
		for name := range record {
			if _, ok := w.t.index[name]; !ok {
				return noField(w.t.Name, name)
			}
		}
	}
	for i := range w.t.Columns {
		column := &w.t.Columns[i]
		raw, given := record[column.Name]
		var v value
		var err error
		switch {
		case given && (listed == nil || listed[i]):
			v, err = fromClient(column, raw)
		case listed != nil && listed[i] && !missingDefault:
		case w.t.defaults[i] != nil:
			if v, err = w.eval(w.t.defaults[i]); err == nil {
				err = checkLength(column, v)
			}
			if (v.k == kJSON || v.k == kJSONB) && v.s == "null" {
				v = value{} // a stored row cannot tell them apart, and a client's null is SQL's
			}
		}
		if err != nil {
			return err
		}
		values[i] = v
	}
	return nil
}

func (w *write) values(data []byte) ([]value, error) {
	if err := w.row.set(data); err != nil {
		return nil, err
	}
	values := make([]value, len(w.t.Columns))
	for i := range values {
		v, err := w.row.value(i)
		if err != nil {
			return nil, err
		}
		values[i] = v
	}
	return values, nil
}

// put writes a row: a new one, or what old becomes. The order of the checks is PostgreSQL's: policies, then not-null
// constraints, then keys.
func (w *write) put(values []value, old *stored) error {
	data := appendRow(nil, w.t, values)
	if len(data)-rowHeader > MaxRowBytes {
		return tooLargeRow()
	}
	if err := w.row.set(data); err != nil {
		return err
	}
	ok, err := w.all(w.conditions)
	if err != nil {
		return err
	}
	if !ok {
		return violates(w.t.Name)
	}
	for i, required := range w.t.required {
		if required && values[i].null() {
			e := bad(CodeNotNull, "null value in column %q of relation %q violates not-null constraint", w.t.Columns[i].Name, w.t.Name)
			e.Field = w.t.Columns[i].Name
			return e
		}
	}
	id, err := w.newRow()
	if err != nil {
		return err
	}
	for i := range w.t.keys {
		if err := w.putKey(&w.t.keys[i], values, id, old); err != nil {
			return err
		}
	}
	if old != nil {
		if err := w.tx.Delete(w.t.rows, rowKey(old.id)); err != nil {
			return err
		}
	}
	if err := w.tx.Put(w.t.rows, rowKey(id), data); err != nil {
		return err
	}
	return w.done(data, values)
}

// newRow draws a row id that no row has. Another node may have drawn the same: reading the key makes its absence a
// precondition.
func (w *write) newRow() (uint64, error) {
	for {
		id := w.tx.NewRow()
		_, err := w.tx.Get(w.t.rows, rowKey(id))
		if storage.IsNotFound(err) {
			return id, nil
		}
		if err != nil {
			return 0, err
		}
		if err := late(w.ctx); err != nil {
			return 0, err
		}
	}
}

// keyOf returns a row's values of a key, or nil where one is null: such a row is not unique-checked.
func keyOf(k *keyInfo, values []value) []value {
	list := make([]value, 0, len(k.columns))
	for _, c := range k.columns {
		if values[c].null() {
			return nil
		}
		list = append(list, values[c])
	}
	return list
}

func (w *write) putKey(k *keyInfo, values []value, id uint64, old *stored) error {
	next := keyOf(k, values)
	if old != nil {
		if next != nil && sameValues(next, keyOf(k, old.values)) {
			return w.setKey(k, next, id)
		}
		if err := w.dropKey(k, old.values); err != nil {
			return err
		}
	}
	if next == nil {
		return nil
	}
	_, taken, err := w.lookUp(k, next)
	if err != nil {
		return err
	}
	if taken {
		return w.duplicate(k, next)
	}
	return w.setKey(k, next, id)
}

func sameValues(a, b []value) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if compare(a[i], b[i]) != 0 {
			return false
		}
	}
	return true
}

func (w *write) setKey(k *keyInfo, values []value, id uint64) error {
	key, err := uniqueKey(w.tx, w.t, k, values)
	if err != nil {
		return err
	}
	return w.tx.Put(w.t.ix, key, binary.BigEndian.AppendUint64(nil, id))
}

func (w *write) dropKey(k *keyInfo, values []value) error {
	list := keyOf(k, values)
	if list == nil {
		return nil
	}
	key, err := uniqueKey(w.tx, w.t, k, list)
	if err != nil {
		return err
	}
	return w.tx.Delete(w.t.ix, key)
}

// duplicate is PostgreSQL's error. Only a role that passes the policies is told the values, as there.
func (w *write) duplicate(k *keyInfo, values []value) error {
	e := storage.Errorf(storage.Exists, CodeUnique, "duplicate key value violates unique constraint %q", k.Name)
	e.Field = strings.Join(k.Columns, ",")
	if w.bypass {
		texts := make([]string, len(values))
		for i, v := range values {
			texts[i] = shown(v.text())
		}
		e.Details = fmt.Sprintf("Key (%s)=(%s) already exists.", strings.Join(k.Columns, ", "), strings.Join(texts, ", "))
	}
	return e
}

// done notes a row that was written.
func (w *write) done(data []byte, values []value) error {
	w.res.Matched++
	if w.ret == nil {
		return nil
	}
	if w.ret.Keys && w.res.Keys == nil {
		for i := range w.t.keys {
			if k := &w.t.keys[i]; k.Primary {
				for _, c := range k.columns {
					w.res.Keys = append(w.res.Keys, KeyValue{w.t.Columns[c].Name, values[c].text()})
				}
			}
		}
	}
	if err := w.row.set(data); err != nil {
		return err
	}
	return w.take()
}

func (w *write) finish() (*Result, error) {
	if w.res.Matched > 0 {
		if err := touch(w.tx, w.t); err != nil {
			return nil, err
		}
	}
	w.res.Rows = w.rows
	return &w.res, nil
}
