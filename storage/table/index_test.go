package table

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"bulwark/storage"
	"bulwark/storage/storagetest"
)

// A modelRow is a row of the property test's table as plain Go values; nil is null.
type modelRow struct {
	ID int64
	A  *int64
	B  *string
	U  *string
}

func modelTable(policy *Expr) *Table {
	return &Table{
		Schema: "public", Name: "m", RLS: true,
		Columns:  []Column{{Name: "id", Type: Int8}, {Name: "a", Type: Int4}, {Name: "b", Type: Text}, {Name: "u", Type: Text}},
		Keys:     []Key{{Name: "m_pkey", Primary: true, Columns: []string{"id"}}, {Name: "m_u", Columns: []string{"u"}}},
		Policies: []Policy{{Name: "p", Command: Select, Using: policy}},
	}
}

// A truth is SQL's: 1 true, 0 false, -1 null.
type truth int

// A condition is an expression, and independently of package table what it says of a row.
type condition struct {
	e    *Expr
	says func(modelRow) truth
}

func truthOf(known, b bool) truth {
	switch {
	case !known:
		return -1
	case b:
		return 1
	}
	return 0
}

func drawLeaf(t *rapid.T) condition {
	n := rapid.Int64Range(0, 4).Draw(t, "n")
	s := rapid.SampledFrom([]string{"x", "y", "Z", ""}).Draw(t, "s")
	number, ops := strconv.FormatInt(n, 10), []Op{OpEq, OpNe, OpLt, OpLe, OpGt, OpGe}
	o := rapid.SampledFrom(ops).Draw(t, "op")
	cmp := func(c int) bool {
		return map[Op]bool{OpEq: c == 0, OpNe: c != 0, OpLt: c < 0, OpLe: c <= 0, OpGt: c > 0, OpGe: c >= 0}[o]
	}
	switch rapid.IntRange(0, 6).Draw(t, "leaf") {
	case 0:
		return condition{op(o, c("a"), l(number)), func(r modelRow) truth {
			return truthOf(r.A != nil, r.A != nil && cmp(int(*r.A-n)))
		}}
	case 1:
		return condition{op(o, l(s), c("b")), func(r modelRow) truth {
			if r.B == nil {
				return -1
			}
			return truthOf(true, cmp(map[bool]int{true: -1}[s < *r.B]+map[bool]int{true: 1}[s > *r.B]))
		}}
	case 2:
		return condition{op(OpEq, c("id"), l(number)), func(r modelRow) truth { return truthOf(true, r.ID == n) }}
	case 3:
		return condition{op(OpEq, c("u"), l("u"+number)), func(r modelRow) truth {
			return truthOf(r.U != nil, r.U != nil && *r.U == "u"+number)
		}}
	case 4:
		return condition{op(OpIsNull, c("a")), func(r modelRow) truth { return truthOf(true, r.A == nil) }}
	case 5:
		return condition{op(OpIn, c("id"), l(number), l("3"), l("1"), l("1")), func(r modelRow) truth {
			return truthOf(true, r.ID == n || r.ID == 3 || r.ID == 1)
		}}
	}
	return condition{op(OpEq, c("a"), l(number)), func(r modelRow) truth { return truthOf(r.A != nil, r.A != nil && *r.A == n) }}
}

func drawCondition(t *rapid.T, depth int) condition {
	kind := rapid.IntRange(0, 6).Draw(t, "kind")
	if depth == 0 || kind < 3 {
		return drawLeaf(t)
	}
	a, b := drawCondition(t, depth-1), drawCondition(t, depth-1)
	switch kind {
	case 3:
		return condition{op(OpNot, a.e), func(r modelRow) truth {
			if v := a.says(r); v >= 0 {
				return 1 - v
			}
			return -1
		}}
	case 4:
		return condition{op(OpOr, a.e, b.e), func(r modelRow) truth {
			x, y := a.says(r), b.says(r)
			switch {
			case x == 1 || y == 1:
				return 1
			case x == -1 || y == -1:
				return -1
			}
			return 0
		}}
	}
	return condition{op(OpAnd, a.e, b.e), func(r modelRow) truth {
		x, y := a.says(r), b.says(r)
		switch {
		case x == 0 || y == 0:
			return 0
		case x == -1 || y == -1:
			return -1
		}
		return 1
	}}
}

// drawQuery returns a query and what it should answer of rows, which are in the order of their last write.
func drawQuery(t *rapid.T, policy condition) (Query, func([]modelRow) (ids []int64, matched int64)) {
	q := Query{Columns: []Output{{Column: "id"}}, Count: rapid.Bool().Draw(t, "count")}
	filter := condition{says: func(modelRow) truth { return 1 }}
	if rapid.IntRange(0, 4).Draw(t, "filtered") > 0 {
		filter = drawCondition(t, 2)
		q.Where = filter.e
	}
	for range rapid.IntRange(0, 2).Draw(t, "terms") {
		q.Order = append(q.Order, Order{
			Column: rapid.SampledFrom([]string{"a", "b", "u", "id"}).Draw(t, "by"),
			Desc:   rapid.Bool().Draw(t, "desc"), Nulls: Nulls(rapid.IntRange(0, 2).Draw(t, "nulls")),
		})
	}
	limit := -1
	if rapid.Bool().Draw(t, "limited") {
		limit = rapid.IntRange(0, 5).Draw(t, "limit")
		q.Limit = &limit
	}
	q.Offset = rapid.IntRange(0, 3).Draw(t, "offset")
	return q, func(rows []modelRow) (ids []int64, matched int64) {
		var list []modelRow
		for _, r := range rows {
			if policy.says(r) == 1 && filter.says(r) == 1 {
				list = append(list, r)
			}
		}
		slices.SortStableFunc(list, func(x, y modelRow) int {
			for _, o := range q.Order {
				if d := modelCompare(x, y, o); d != 0 {
					return d
				}
			}
			return 0
		})
		matched = -1
		if q.Count {
			matched = int64(len(list))
		}
		list = list[min(q.Offset, len(list)):]
		if limit >= 0 {
			list = list[:min(limit, len(list))]
		}
		for _, r := range list {
			ids = append(ids, r.ID)
		}
		return ids, matched
	}
}

func modelCompare(x, y modelRow, o Order) int {
	var a, b *string
	switch o.Column {
	case "a":
		a, b = digit(x.A), digit(y.A)
	case "id":
		a, b = digit(&x.ID), digit(&y.ID)
	case "b":
		a, b = x.B, y.B
	default:
		a, b = x.U, y.U
	}
	first := o.Nulls == NullsFirst || o.Nulls == NullsDefault && o.Desc
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return map[bool]int{true: -1, false: 1}[first]
	case b == nil:
		return map[bool]int{true: 1, false: -1}[first]
	}
	d := 0
	if *a < *b {
		d = -1
	} else if *a > *b {
		d = 1
	}
	if o.Desc {
		d = -d
	}
	return d
}

// digit makes numbers of the model comparable as text: there are none below 0 or above 99.
func digit(n *int64) *string {
	if n == nil {
		return nil
	}
	s := fmt.Sprintf("%02d", *n)
	return &s
}

// A rig is the property test's store, with catalogues that have memory for indexes, none, and hardly any.
type rig struct {
	*storagetest.World
	cats  []*Catalog
	alice storage.Actor
}

func newRig(t testing.TB) *rig {
	g := &rig{World: storagetest.NewWorld(t, storagetest.NewEngine())}
	for _, budget := range []int64{1 << 20, 1, 300} {
		cat, err := New(Options{Random: rand.Reader, IndexBytes: budget})
		if err != nil {
			t.Fatal(err)
		}
		g.cats = append(g.cats, cat)
	}
	g.alice = storage.AccountActor(g.Tenant, g.Project, storage.ID{0xa1}, storage.ID{1}, nil, storage.Origin{})
	return g
}

func (g *rig) ids(ctx context.Context, r storage.Reader, cat *Catalog, q Query) ([]int64, int64, error) {
	res, err := cat.Select(ctx, r, "m", q)
	if err != nil {
		return nil, 0, err
	}
	var ids []int64
	for _, row := range res.Rows {
		var m struct{ ID int64 }
		if err := json.Unmarshal(row, &m); err != nil {
			return nil, 0, err
		}
		ids = append(ids, m.ID)
	}
	return ids, res.Matched, nil
}

// check asks each catalogue three times: a scan, a scan that builds an index, and the index.
func (g *rig) check(ctx context.Context, r storage.Reader, q Query, ids []int64, matched int64) error {
	for n, cat := range g.cats {
		for round := range 3 {
			got, count, err := g.ids(ctx, r, cat, q)
			if err != nil {
				return err
			}
			if !slices.Equal(got, ids) || count != matched {
				return fmt.Errorf("catalogue %d, round %d: got %v of %d, want %v of %d", n, round, got, count, ids, matched)
			}
		}
	}
	return nil
}

// A read answers the same with an index, without one, and as a plain model does: under policies, while rows are written,
// and on snapshots that are older than the index.
func TestIndexesAnswerAsScansDo(t *testing.T) {
	t.Parallel()
	look := storage.Intent{Action: "rows.select", Object: "m"}
	rapid.Check(t, func(rt *rapid.T) {
		g := newRig(t)
		policy := drawCondition(rt, 1)
		operator := storage.OperatorActor(g.Tenant, g.Project, storage.ID{}, "test", storage.Origin{})
		if err := g.DB.Update(t.Context(), operator, storage.Intent{Action: "schema.apply"}, func(tx storage.Tx) error {
			return SaveSchema(tx, &Schema{Tables: []*Table{modelTable(policy.e)}})
		}); err != nil {
			rt.Fatal(err)
		}
		var rows []modelRow
		for range rapid.IntRange(1, 6).Draw(rt, "rounds") {
			old := slices.Clone(rows)
			before, answerBefore := drawQuery(rt, policy)
			err := g.DB.View(t.Context(), g.alice, look, func(r storage.Reader) error {
				for range rapid.IntRange(0, 6).Draw(rt, "writes") {
					rows = g.mutate(rt, t, rows)
				}
				for range 2 {
					q, answer := drawQuery(rt, policy)
					ids, matched := answer(rows)
					if err := g.DB.View(t.Context(), g.alice, look, func(r storage.Reader) error {
						return g.check(t.Context(), r, q, ids, matched)
					}); err != nil {
						return err
					}
				}
				ids, matched := answerBefore(old)
				return g.check(t.Context(), r, before, ids, matched)
			})
			if err != nil {
				rt.Fatal(err)
			}
		}
	})
}

// mutate makes one random change as the service, in the store and in the model.
func (g *rig) mutate(rt *rapid.T, t testing.TB, rows []modelRow) []modelRow {
	r := modelRow{ID: rapid.Int64Range(0, 8).Draw(rt, "id")}
	record := Record{"a": []byte("null"), "b": []byte("null"), "u": []byte("null")}
	if rapid.IntRange(0, 3).Draw(rt, "has a") > 0 {
		n := rapid.Int64Range(0, 4).Draw(rt, "a")
		r.A, record["a"] = &n, strconv.AppendInt(nil, n, 10)
	}
	if rapid.IntRange(0, 3).Draw(rt, "has b") > 0 {
		s := rapid.SampledFrom([]string{"x", "y", "Z", ""}).Draw(rt, "b")
		r.B, record["b"] = &s, strconv.AppendQuote(nil, s)
	}
	if rapid.IntRange(0, 3).Draw(rt, "has u") > 0 {
		s := "u" + strconv.Itoa(rapid.IntRange(0, 4).Draw(rt, "u"))
		r.U, record["u"] = &s, strconv.AppendQuote(nil, s)
	}
	at := slices.IndexFunc(rows, func(o modelRow) bool { return o.ID == r.ID })
	clash := r.U != nil && slices.ContainsFunc(rows, func(o modelRow) bool { return o.ID != r.ID && o.U != nil && *o.U == *r.U })
	where := op(OpEq, c("id"), l(strconv.FormatInt(r.ID, 10)))
	kind := rapid.IntRange(0, 3).Draw(rt, "kind")
	cat := rapid.SampledFrom(g.cats).Draw(rt, "through")
	err := g.DB.Update(t.Context(), g.Service(), storage.Intent{Action: "rows.write", Object: "m"}, func(tx storage.Tx) error {
		var err error
		switch {
		case at < 0:
			record["id"] = strconv.AppendInt(nil, r.ID, 10)
			_, err = cat.Insert(t.Context(), tx, "m", Insertion{Records: []Record{record}})
		case kind == 0:
			_, err = cat.Delete(t.Context(), tx, "m", Removal{Where: where})
		default:
			_, err = cat.Update(t.Context(), tx, "m", Change{Where: where, Set: record})
		}
		return err
	})
	if at >= 0 && kind == 0 {
		clash = false
	}
	if clash {
		var e *storage.Error
		if !errors.As(err, &e) || e.Code != CodeUnique {
			rt.Fatalf("a taken value of a unique column: %v", err)
		}
		return rows
	}
	if err != nil {
		rt.Fatal(err)
	}
	if at >= 0 {
		rows = slices.Delete(slices.Clone(rows), at, at+1)
		if kind == 0 {
			return rows
		}
	}
	return append(slices.Clone(rows), r)
}

// The third time the same is asked of an unchanged table, only the rows that are answered are read.
func TestIndexIsUsed(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	operator := storage.OperatorActor(g.Tenant, g.Project, storage.ID{}, "test", storage.Origin{})
	if err := g.DB.Update(t.Context(), operator, storage.Intent{Action: "schema.apply"}, func(tx storage.Tx) error {
		return SaveSchema(tx, &Schema{Tables: []*Table{modelTable(yes())}})
	}); err != nil {
		t.Fatal(err)
	}
	in := Insertion{}
	for i := range 500 {
		in.Records = append(in.Records, Record{"id": strconv.AppendInt(nil, int64(i), 10), "a": strconv.AppendInt(nil, int64(i%10), 10)})
	}
	if err := g.DB.Update(t.Context(), g.Service(), storage.Intent{Action: "rows.insert"}, func(tx storage.Tx) error {
		_, err := g.cats[0].Insert(t.Context(), tx, "m", in)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	limit := 3
	q := Query{Where: op(OpEq, c("a"), l("4")), Order: []Order{{Column: "id", Desc: true}}, Limit: &limit}
	for round, most := range []int{500, 1000, 3} {
		err := g.DB.View(t.Context(), g.alice, storage.Intent{Action: "rows.select"}, func(r storage.Reader) error {
			counted := &countingReader{Reader: r}
			ids, _, err := g.ids(t.Context(), counted, g.cats[0], q)
			if !slices.Equal(ids, []int64{494, 484, 474}) {
				t.Errorf("round %d: %v", round, ids)
			}
			if counted.scanned > most || round == 2 && counted.scanned > 0 {
				t.Errorf("round %d scans %d rows", round, counted.scanned)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.DB.View(t.Context(), g.alice, storage.Intent{Action: "rows.select"}, func(r storage.Reader) error {
		_, err := g.cats[1].Select(cancelled, r, "m", Query{})
		return err
	}); storage.FaultOf(err) != storage.Unavailable {
		t.Errorf("a scan goes on after its time: %v", err)
	}
	g.cats[0].Forget()
	if g.cats[0].indexes.bytes != 0 || len(g.cats[0].schemas) != 0 {
		t.Error("something is still in memory")
	}
}

type countingReader struct {
	storage.Reader
	scanned int
}

func (c *countingReader) Scan(t storage.Ref, k storage.KeyRange, fn func(key, value []byte) bool) error {
	return c.Reader.Scan(t, k, func(key, value []byte) bool {
		c.scanned++
		return fn(key, value)
	})
}
