package table_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"bulwark/storage"
	"bulwark/storage/storagetest"
	"bulwark/storage/table"
)

// A world is a store with real guards, a catalogue, and two people of one project.
type world struct {
	*storagetest.World
	cat        *table.Catalog
	alice, bob storage.Actor
	anon       storage.Actor
}

func newWorld(t testing.TB, tables ...*table.Table) *world {
	t.Helper()
	w := &world{World: storagetest.NewWorld(t, storagetest.NewEngine())}
	cat, err := table.New(table.Options{Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	w.cat = cat
	o := storage.Origin{}
	w.alice = storage.AccountActor(w.Tenant, w.Project, storage.ID{0xa1}, storage.ID{1}, []byte(`{"email":"a@example.com","app_metadata":{"level":40}}`), o)
	w.bob = storage.AccountActor(w.Tenant, w.Project, storage.ID{0xb0}, storage.ID{2}, []byte(`{}`), o)
	w.anon = storage.AnonymousActor(w.Tenant, w.Project, storage.ID{3}, o)
	w.declare(t, tables...)
	return w
}

func (w *world) declare(t testing.TB, tables ...*table.Table) {
	t.Helper()
	by := storage.OperatorActor(w.Tenant, w.Project, storage.ID{}, "test", storage.Origin{})
	err := w.DB.Update(t.Context(), by, storage.Intent{Action: "schema.apply"}, func(tx storage.Tx) error {
		s, err := table.ReadSchema(tx)
		if err != nil {
			return err
		}
		s.Tables = append(s.Tables, tables...)
		return table.SaveSchema(tx, s)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) update(t testing.TB, by storage.Actor, fn func(tx storage.Tx) (*table.Result, error)) (res *table.Result, err error) {
	t.Helper()
	err = w.DB.Update(t.Context(), by, storage.Intent{Action: "rows.write"}, func(tx storage.Tx) (err error) {
		res, err = fn(tx)
		return err
	})
	return res, err
}

func (w *world) insert(t testing.TB, by storage.Actor, name string, in table.Insertion) (*table.Result, error) {
	t.Helper()
	return w.update(t, by, func(tx storage.Tx) (*table.Result, error) { return w.cat.Insert(t.Context(), tx, name, in) })
}

func (w *world) change(t testing.TB, by storage.Actor, name string, ch table.Change) (*table.Result, error) {
	t.Helper()
	return w.update(t, by, func(tx storage.Tx) (*table.Result, error) { return w.cat.Update(t.Context(), tx, name, ch) })
}

func (w *world) remove(t testing.TB, by storage.Actor, name string, rm table.Removal) (*table.Result, error) {
	t.Helper()
	return w.update(t, by, func(tx storage.Tx) (*table.Result, error) { return w.cat.Delete(t.Context(), tx, name, rm) })
}

func (w *world) query(t testing.TB, by storage.Actor, name string, q table.Query) (res *table.Result, err error) {
	t.Helper()
	err = w.DB.View(t.Context(), by, storage.Intent{Action: "rows.select"}, func(r storage.Reader) (err error) {
		res, err = w.cat.Select(t.Context(), r, name, q)
		return err
	})
	return res, err
}

// column returns one column of every row that by sees, as JSON.
func (w *world) column(t testing.TB, by storage.Actor, name, column string) string {
	t.Helper()
	res, err := w.query(t, by, name, table.Query{Columns: []table.Output{{Column: column}}})
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, row := range res.Rows {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(row, &m); err != nil {
			t.Fatal(err)
		}
		list = append(list, string(m[column]))
	}
	return strings.Join(list, " ")
}

func rec(pairs ...string) table.Record {
	r := table.Record{}
	for i := 0; i < len(pairs); i += 2 {
		r[pairs[i]] = []byte(pairs[i+1])
	}
	return r
}

func recs(list ...table.Record) table.Insertion { return table.Insertion{Records: list} }

func code(err error) string {
	var e *storage.Error
	if errors.As(err, &e) {
		return e.Code
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func col(name string) *table.Expr { return &table.Expr{Op: table.OpColumn, Name: name} }

func lit(text string) *table.Expr { return &table.Expr{Op: table.OpConst, Value: &text} }

func typed(t table.Type, text string) *table.Expr {
	return &table.Expr{Op: table.OpConst, Type: t, Value: &text}
}

func call(name string, args ...*table.Expr) *table.Expr {
	return &table.Expr{Op: table.OpCall, Name: name, Args: args}
}

func op(o table.Op, args ...*table.Expr) *table.Expr { return &table.Expr{Op: o, Args: args} }

func castTo(t table.Type, e *table.Expr) *table.Expr {
	return &table.Expr{Op: table.OpCast, Type: t, Args: []*table.Expr{e}}
}

func owner() *table.Expr { return op(table.OpEq, call("auth.uid"), col("user_id")) }

// notes is the table of the README: each person's own rows.
func notes() *table.Table {
	return &table.Table{
		Schema: "public", Name: "notes", RLS: true,
		Columns: []table.Column{
			{Name: "id", Type: table.UUID, Default: call("gen_random_uuid")},
			{Name: "user_id", Type: table.UUID, NotNull: true, Default: call("auth.uid")},
			{Name: "body", Type: table.Text},
			{Name: "created_at", Type: table.Timestamptz, Default: call("now")},
		},
		Keys: []table.Key{{Name: "notes_pkey", Primary: true, Columns: []string{"id"}}},
		Policies: []table.Policy{
			{Name: "read", Command: table.Select, Using: owner()},
			{Name: "add", Command: table.Insert, Check: owner()},
			{Name: "edit", Command: table.Update, Using: owner()},
			{Name: "drop", Command: table.Delete, Using: owner()},
		},
	}
}

func uuid(a storage.Actor) string { return `"` + a.Subject().String() + `"` }

func TestOwnersSeeTheirOwnRows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, notes())
	for _, a := range []storage.Actor{w.alice, w.bob} {
		if _, err := w.insert(t, a, "notes", recs(rec("body", `"of `+a.Subject().String()[:2]+`"`))); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		by   storage.Actor
		want string
	}{
		{"alice", w.alice, `"of a1"`}, {"bob", w.bob, `"of b0"`}, {"anonymous", w.anon, ""},
		{"service", w.Service(), `"of a1" "of b0"`},
	} {
		if got := w.column(t, c.by, "notes", "body"); got != c.want {
			t.Errorf("%s sees %s, want %s", c.name, got, c.want)
		}
	}
	other := storage.AccountActor(w.Tenant, w.Project, storage.ID{0xcc}, storage.ID{5}, nil, storage.Origin{})
	if got := w.column(t, other, "notes", "body"); got != "" {
		t.Errorf("a third person sees %s", got)
	}
}

func TestPoliciesOnWrites(t *testing.T) {
	t.Parallel()
	w := newWorld(t, notes())
	if _, err := w.insert(t, w.alice, "notes", recs(rec("body", `"mine"`))); err != nil {
		t.Fatal(err)
	}
	if _, err := w.insert(t, w.alice, "notes", recs(rec("body", `"x"`, "user_id", uuid(w.bob)))); code(err) != "42501" {
		t.Errorf("an insert under another's id: %v", err)
	}
	if _, err := w.insert(t, w.anon, "notes", recs(rec("body", `"x"`))); code(err) != "42501" {
		t.Errorf("an anonymous insert: %v", err)
	}
	if _, err := w.change(t, w.alice, "notes", table.Change{Set: rec("user_id", uuid(w.bob))}); code(err) != "42501" {
		t.Errorf("an update that gives the row away: %v", err)
	}
	res, err := w.change(t, w.bob, "notes", table.Change{Set: rec("body", `"stolen"`)})
	if err != nil || res.Matched != 0 {
		t.Errorf("bob changed %v rows of alice, %v", res, err)
	}
	if res, err = w.remove(t, w.bob, "notes", table.Removal{}); err != nil || res.Matched != 0 {
		t.Errorf("bob deleted %v rows of alice, %v", res, err)
	}
	if got := w.column(t, w.Service(), "notes", "body"); got != `"mine"` {
		t.Errorf("the table holds %s", got)
	}
	if res, err = w.change(t, w.alice, "notes", table.Change{Set: rec("body", `"edited"`), Return: &table.Return{Columns: []table.Output{{Column: "body", As: "b"}}}}); err != nil || len(res.Rows) != 1 || string(res.Rows[0]) != `{"b":"edited"}` {
		t.Errorf("alice's own update: %v, %v", res, err)
	}
	if _, err := w.insert(t, w.Service(), "notes", recs(rec("body", `"x"`, "user_id", uuid(w.bob)))); err != nil {
		t.Errorf("the service inserts for bob: %v", err)
	}
	if res, err = w.remove(t, w.alice, "notes", table.Removal{}); err != nil || res.Matched != 1 {
		t.Errorf("alice deletes her own: %v, %v", res, err)
	}
}

func TestWithoutPolicies(t *testing.T) {
	t.Parallel()
	bare := notes()
	bare.Name, bare.Policies = "bare", nil
	open := notes()
	open.Name, open.RLS = "open", false
	w := newWorld(t, bare, open)
	for _, by := range []storage.Actor{w.anon, w.alice} {
		if got := w.column(t, by, "bare", "body"); got != "" {
			t.Errorf("row level security without a policy shows %s", got)
		}
		if _, err := w.insert(t, by, "bare", recs(rec("body", `"x"`))); code(err) != "42501" {
			t.Errorf("row level security without a policy takes a row: %v", err)
		}
		if _, err := w.query(t, by, "open", table.Query{}); code(err) != "42501" {
			t.Errorf("a table without row level security: %v", err)
		}
		if _, err := w.insert(t, by, "open", recs(rec("body", `"x"`))); code(err) != "42501" {
			t.Errorf("a table without row level security takes a row: %v", err)
		}
		if _, err := w.change(t, by, "open", table.Change{Set: rec("body", `"x"`)}); code(err) != "42501" {
			t.Errorf("a table without row level security: %v", err)
		}
		if _, err := w.remove(t, by, "open", table.Removal{}); code(err) != "42501" {
			t.Errorf("a table without row level security: %v", err)
		}
	}
	if _, err := w.insert(t, w.Service(), "open", recs(rec("body", `"x"`, "user_id", uuid(w.bob)))); err != nil {
		t.Error(err)
	}
}

// Principals that are no PostgreSQL role reach no rows, even in a transaction that they may have.
func TestOthersReachNoRows(t *testing.T) {
	t.Parallel()
	open := notes()
	open.Policies = []table.Policy{{Name: "everybody", Command: table.All, Using: typed(table.Bool, "true")}}
	w := newWorld(t, open)
	if _, err := w.insert(t, w.alice, "notes", recs(rec("body", `"x"`))); err != nil {
		t.Fatal(err)
	}
	for action, by := range map[string]storage.Actor{
		"credential.read": w.Job(),
		"schema.apply":    storage.OperatorActor(w.Tenant, w.Project, storage.ID{}, "test", storage.Origin{}),
	} {
		var res *table.Result
		err := w.DB.View(t.Context(), by, storage.Intent{Action: action}, func(r storage.Reader) (err error) {
			res, err = w.cat.Select(t.Context(), r, "notes", table.Query{})
			return err
		})
		if code(err) != "42501" || res != nil {
			t.Errorf("%s: %v, %v", action, res, err)
		}
	}
}

// Reads and writes of one catalogue at once, with the schema changing: for the race detector, and every answer is of one
// moment.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	w := newWorld(t, notes())
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for i := range 20 {
				// Two rows at a time, so that an odd number is half of a write.
				if _, err := w.insert(t, w.alice, "notes", recs(rec("body", strconv.Itoa(i)), rec("body", strconv.Itoa(i)))); err != nil {
					t.Error(err)
				}
				res, err := w.query(t, w.alice, "notes", table.Query{Order: []table.Order{{Column: "body", Desc: i%2 == 0}}})
				if err != nil || len(res.Rows)%2 != 0 {
					t.Errorf("%v, %v", res, err)
				}
			}
		})
	}
	group.Go(func() {
		for range 10 {
			w.declare(t)
		}
	})
	group.Wait()
	if res, err := w.query(t, w.alice, "notes", table.Query{Count: true}); err != nil || res.Matched != 160 {
		t.Errorf("%v, %v", res, err)
	}
}

// Two people may not take one value of a unique column, however close they come.
func TestUniqueRace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, notes())
	var group sync.WaitGroup
	var won atomic.Int32
	for range 8 {
		group.Go(func() {
			_, err := w.insert(t, w.alice, "notes", recs(rec("id", uuid(w.bob))))
			if err == nil {
				won.Add(1)
			} else if code(err) != "23505" {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if won.Load() != 1 {
		t.Errorf("%d inserts of one key", won.Load())
	}
}

// A row id that is taken already (two nodes may draw the same) is not written over.
func TestRowIdsAreNotReused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, notes())
	for range 3 {
		_, err := w.update(t, w.alice, func(tx storage.Tx) (*table.Result, error) {
			return w.cat.Insert(t.Context(), &fixedRows{Tx: tx}, "notes", recs(rec("body", `"x"`)))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := w.column(t, w.alice, "notes", "body"); got != `"x" "x" "x"` {
		t.Errorf("the table holds %s", got)
	}
}

// fixedRows draws the row ids 1, 2, 3, … in every transaction.
type fixedRows struct {
	storage.Tx
	last uint64
}

func (f *fixedRows) NewRow() uint64 {
	f.last++
	return f.last
}

func TestRestrictiveAndRoles(t *testing.T) {
	t.Parallel()
	docs := &table.Table{
		Schema: "public", Name: "docs", RLS: true,
		Columns: []table.Column{{Name: "id", Type: table.Int4}, {Name: "public", Type: table.Bool}, {Name: "kind", Type: table.Text}},
		Policies: []table.Policy{
			{Name: "everyone", Command: table.Select, Using: op(table.OpIsTrue, col("public"))},
			{Name: "people", Command: table.Select, Roles: []string{"authenticated"}, Using: op(table.OpEq, col("kind"), lit("a"))},
			{Name: "not secret", Command: table.All, Restrictive: true, Using: op(table.OpDistinct, col("kind"), lit("secret"))},
		},
	}
	w := newWorld(t, docs)
	_, err := w.insert(t, w.Service(), "docs", recs(
		rec("id", "1", "public", "true", "kind", `"b"`), rec("id", "2", "public", "false", "kind", `"a"`),
		rec("id", "3", "public", "true", "kind", `"secret"`), rec("id", "4", "public", "null", "kind", "null")))
	if err != nil {
		t.Fatal(err)
	}
	if got := w.column(t, w.anon, "docs", "id"); got != "1" {
		t.Errorf("anonymous sees %s", got)
	}
	if got := w.column(t, w.alice, "docs", "id"); got != "1 2" {
		t.Errorf("alice sees %s", got)
	}
	if got := w.column(t, w.Service(), "docs", "id"); got != "1 2 3 4" {
		t.Errorf("the service sees %s", got)
	}
	if _, err := w.insert(t, w.alice, "docs", recs(rec("id", "5", "kind", `"a"`))); code(err) != "42501" {
		t.Errorf("restrictive policies alone allow an insert: %v", err)
	}
}

// A write that gives rows back, or looks for them, needs the policies of SELECT as well.
func TestReturningNeedsSelect(t *testing.T) {
	t.Parallel()
	inbox := &table.Table{
		Schema: "public", Name: "inbox", RLS: true,
		Columns:  []table.Column{{Name: "id", Type: table.Int4, NotNull: true}, {Name: "body", Type: table.Text}},
		Keys:     []table.Key{{Name: "inbox_pkey", Primary: true, Columns: []string{"id"}}},
		Policies: []table.Policy{{Name: "drop in", Command: table.Insert, Check: typed(table.Bool, "true")}, {Name: "edit", Command: table.Update, Using: typed(table.Bool, "true")}, {Name: "del", Command: table.Delete, Using: typed(table.Bool, "true")}},
	}
	w := newWorld(t, inbox)
	if _, err := w.insert(t, w.anon, "inbox", recs(rec("id", "1"))); err != nil {
		t.Error(err)
	}
	in := recs(rec("id", "2"))
	in.Return = &table.Return{}
	if _, err := w.insert(t, w.anon, "inbox", in); code(err) != "42501" {
		t.Errorf("a hidden row was given back: %v", err)
	}
	res, err := w.change(t, w.anon, "inbox", table.Change{Where: op(table.OpEq, col("id"), lit("1")), Set: rec("body", `"x"`)})
	if err != nil || res.Matched != 0 {
		t.Errorf("an update found a row that its actor cannot see: %v %v", res, err)
	}
	if res, err = w.change(t, w.anon, "inbox", table.Change{Set: rec("body", `"x"`)}); err != nil || res.Matched != 1 {
		t.Errorf("an update that reads nothing: %v %v", res, err)
	}
	if res, err = w.remove(t, w.anon, "inbox", table.Removal{Where: op(table.OpEq, col("id"), lit("1"))}); err != nil || res.Matched != 0 {
		t.Errorf("a delete found a row that its actor cannot see: %v %v", res, err)
	}
	_, err = w.insert(t, w.anon, "inbox", recs(rec("id", "1")))
	var e *storage.Error
	if !errors.As(err, &e) || e.Code != "23505" || e.Details != "" {
		t.Errorf("a duplicate under policies: %#v", err)
	}
}

// A filter is not evaluated on a row that the policies hide: its error would tell of it.
func TestFilterAfterPolicy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, notes())
	if _, err := w.insert(t, w.bob, "notes", recs(rec("body", `"not a number"`))); err != nil {
		t.Fatal(err)
	}
	where := op(table.OpEq, castTo(table.Int4, col("body")), lit("1"))
	if res, err := w.query(t, w.alice, "notes", table.Query{Where: where}); err != nil || len(res.Rows) != 0 {
		t.Errorf("the filter saw a hidden row: %v", err)
	}
	if _, err := w.query(t, w.bob, "notes", table.Query{Where: where}); code(err) != "22P02" {
		t.Errorf("bob's own row: %v", err)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	people := &table.Table{
		Schema: "public", Name: "people",
		Columns: []table.Column{{Name: "id", Type: table.Int8}, {Name: "mail", Type: table.Text}, {Name: "a", Type: table.Numeric}, {Name: "b", Type: table.UUID}},
		Keys: []table.Key{
			{Name: "people_pkey", Primary: true, Columns: []string{"id"}},
			{Name: "people_mail", Columns: []string{"mail"}},
			{Name: "people_ab", Columns: []string{"a", "b"}},
		},
	}
	w := newWorld(t, people)
	s := w.Service()
	const id = `"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"`
	if _, err := w.insert(t, s, "people", recs(rec("id", "1", "mail", `"x"`, "a", "1.50", "b", id), rec("id", "2"), rec("id", "3"))); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]table.Record{
		"primary": rec("id", "1"), "unique": rec("id", "9", "mail", `"x"`),
		"equal but not identical": rec("id", "9", "a", `"1.5"`, "b", strings.ToLower(id)),
	} {
		if _, err := w.insert(t, s, "people", recs(r)); code(err) != "23505" || storage.FaultOf(err) != storage.Exists {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.insert(t, s, "people", recs(rec("id", "7"), rec("id", "7"))); code(err) != "23505" {
		t.Errorf("twice in one statement: %v", err)
	}
	if _, err := w.insert(t, s, "people", recs(rec("mail", `"y"`))); code(err) != "23502" {
		t.Errorf("a null primary key: %v", err)
	}
	if _, err := w.change(t, s, "people", table.Change{Where: op(table.OpEq, col("id"), lit("2")), Set: rec("id", "1")}); code(err) != "23505" {
		t.Errorf("an update onto a taken key: %v", err)
	}
	if _, err := w.change(t, s, "people", table.Change{Where: op(table.OpEq, col("id"), lit("1")), Set: rec("mail", `"z"`)}); err != nil {
		t.Error(err)
	}
	if _, err := w.insert(t, s, "people", recs(rec("id", "4", "mail", `"x"`))); err != nil {
		t.Errorf("a key that an update set free: %v", err)
	}
	if res, err := w.remove(t, s, "people", table.Removal{Where: op(table.OpIn, col("mail"), lit("z"), lit("none"))}); err != nil || res.Matched != 1 {
		t.Errorf("delete by a unique key: %v %v", res, err)
	}
	if _, err := w.insert(t, s, "people", recs(rec("id", "1", "mail", `"z"`))); err != nil {
		t.Errorf("keys that a delete set free: %v", err)
	}
	if got := w.column(t, s, "people", "id"); got != "2 3 4 1" {
		t.Errorf("order of last write: %s", got)
	}
}

func TestColumnTypes(t *testing.T) {
	t.Parallel()
	types := &table.Table{Schema: "public", Name: "t"}
	for _, ty := range []table.Type{table.Text, table.Varchar, table.Int2, table.Int4, table.Int8, table.Float4, table.Float8, table.Numeric,
		table.Bool, table.UUID, table.Date, table.Timestamp, table.Timestamptz, table.JSON, table.JSONB} {
		types.Columns = append(types.Columns, table.Column{Name: string(ty), Type: ty, MaxLen: 3})
	}
	w := newWorld(t, types)
	for i, c := range []struct{ column, in, want, code string }{
		{"text", `"a\"\u00e9\n"`, `"a\"é\n"`, ""},
		{"text", `{"a": 1}`, `"{\"a\": 1}"`, ""},
		{"text", `1.50`, `"1.50"`, ""},
		{"text", `"a\u0000"`, "", "22P05"},
		{"varchar", `"äöü"`, `"äöü"`, ""},
		{"varchar", `"abcd"`, "", "22001"},
		{"int2", `32768`, "", "22003"},
		{"int4", `"12"`, `12`, ""},
		{"int4", `1.0`, "", "22P02"},
		{"int8", `9223372036854775807`, `9223372036854775807`, ""},
		{"int8", `9223372036854775808`, "", "22003"},
		{"int8", `true`, "", "22P02"},
		{"float4", `0.1`, `0.1`, ""},
		{"float8", `1e400`, "", "22003"},
		{"float8", `"NaN"`, `"NaN"`, ""},
		{"float8", `"0x1p3"`, "", "22P02"},
		{"numeric", `12345678901234567890.1234567890`, `12345678901234567890.1234567890`, ""},
		{"numeric", `1e3`, `1000`, ""},
		{"numeric", `-0.000`, `0.000`, ""},
		{"numeric", `1e999999999999`, "", "22003"},
		{"bool", `"yes"`, `true`, ""},
		{"bool", `2`, "", "22P02"},
		{"uuid", `"A0EEBC999C0B4EF8BB6D6BB9BD380A11"`, `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`, ""},
		{"uuid", `"a0eebc99"`, "", "22P02"},
		{"date", `"2026-02-28"`, `"2026-02-28"`, ""},
		{"date", `"2026-02-29"`, "", "22007"},
		{"timestamp", `"2026-01-02T03:04:05.120Z"`, `"2026-01-02T03:04:05.12"`, ""},
		{"timestamptz", `"2026-01-02 03:04:05+02"`, `"2026-01-02T01:04:05+00:00"`, ""},
		{"timestamptz", `"soon"`, "", "22007"},
		{"json", `{"b": 1, "a":[ ]}`, `{"b": 1, "a":[ ]}`, ""},
		{"jsonb", `{"bb": 1.0, "a": "\u00e9"}`, `{"a":"é","bb":1.0}`, ""},
		{"jsonb", `"\u0000"`, "", "22P05"},
	} {
		res, err := w.insert(t, w.Service(), "t", table.Insertion{Records: []table.Record{rec(c.column, c.in)}, Return: &table.Return{Columns: []table.Output{{Column: c.column}}}})
		if code(err) != c.code {
			t.Errorf("%d: %s %s: error %v, want %q", i, c.column, c.in, err, c.code)
			continue
		}
		if c.code != "" {
			continue
		}
		want := `{"` + c.column + `":` + c.want + `}`
		if got := string(res.Rows[0]); got != want {
			t.Errorf("%d: %s %s gives %s, want %s", i, c.column, c.in, got, want)
		}
	}
	res, err := w.query(t, w.Service(), "t", table.Query{})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range res.Rows {
		if !json.Valid(row) {
			t.Errorf("not JSON: %s", row)
		}
	}
}

// The schema is read afresh in a transaction, and a change of it reaches the next one.
func TestSchemaChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, notes())
	if _, err := w.insert(t, w.alice, "notes", recs(rec("body", `"a"`))); err != nil {
		t.Fatal(err)
	}
	by := storage.OperatorActor(w.Tenant, w.Project, storage.ID{}, "test", storage.Origin{})
	change := func(fn func(*table.Table)) error {
		return w.DB.Update(t.Context(), by, storage.Intent{Action: "schema.apply"}, func(tx storage.Tx) error {
			s, err := table.ReadSchema(tx)
			if err != nil {
				return err
			}
			fn(s.Tables[0])
			return table.SaveSchema(tx, s)
		})
	}
	if err := change(func(n *table.Table) { n.Policies = nil }); err != nil {
		t.Fatal(err)
	}
	if got := w.column(t, w.alice, "notes", "body"); got != "" {
		t.Errorf("a dropped policy still shows %s", got)
	}
	if err := change(func(n *table.Table) {
		n.Columns = slices.Insert(n.Columns, 1, table.Column{Name: "extra", Type: table.Int4})
	}); err != nil {
		t.Fatal(err)
	}
	res, err := w.query(t, w.Service(), "notes", table.Query{})
	if err != nil || len(res.Rows) != 1 || !bytes.Contains(res.Rows[0], []byte(`"extra":null,"user_id":`)) {
		t.Errorf("a row of an older shape: %s, %v", res.Rows, err)
	}
	for name, fn := range map[string]func(*table.Table){
		"42703": func(n *table.Table) {
			n.Policies = []table.Policy{{Name: "p", Command: table.All, Using: op(table.OpEq, col("none"), lit("1"))}}
		},
		"42883": func(n *table.Table) {
			n.Policies = []table.Policy{{Name: "p", Command: table.All, Using: op(table.OpEq, col("id"), typed(table.Int4, "1"))}}
		},
		"22P02": func(n *table.Table) {
			n.Policies = []table.Policy{{Name: "p", Command: table.All, Using: op(table.OpEq, col("id"), lit("x"))}}
		},
		"42804": func(n *table.Table) { n.Policies = []table.Policy{{Name: "p", Command: table.All, Using: col("id")}} },
		"42701": func(n *table.Table) { n.Columns = append(n.Columns, n.Columns[0]) },
	} {
		if err := change(fn); code(err) != name {
			t.Errorf("a wrong schema was saved, or refused as %v, want %s", err, name)
		}
	}
}

// Another tenant's catalogue entry, rows and indexes are not reached, whatever is in memory.
func TestTenantsAreApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, notes())
	if _, err := w.insert(t, w.alice, "notes", recs(rec("body", `"canary"`))); err != nil {
		t.Fatal(err)
	}
	tenant, project := w.AddTenant(t)
	other := storage.ServiceActor(tenant, project, storage.ID{9}, storage.Origin{})
	for range 3 {
		if _, err := w.query(t, w.Service(), "notes", table.Query{Order: []table.Order{{Column: "body"}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.query(t, other, "notes", table.Query{Order: []table.Order{{Column: "body"}}}); code(err) != "PGRST205" {
			t.Errorf("another tenant reads the table: %v", err)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, notes())
	s := w.Service()
	if _, err := w.insert(t, s, "notes", recs(rec("nope", "1"))); code(err) != "PGRST204" {
		t.Error(err)
	}
	if _, err := w.change(t, s, "notes", table.Change{Set: rec("nope", "1")}); code(err) != "PGRST204" {
		t.Error(err)
	}
	if _, err := w.query(t, s, "notes", table.Query{Columns: []table.Output{{Column: "nope"}}}); code(err) != "42703" {
		t.Error(err)
	}
	if _, err := w.query(t, s, "none", table.Query{}); code(err) != "PGRST205" {
		t.Error(err)
	}
	big := `"` + strings.Repeat("x", table.MaxRowBytes) + `"`
	if _, err := w.insert(t, s, "notes", recs(rec("user_id", uuid(w.bob), "body", big))); code(err) != "54000" {
		t.Error(err)
	}
	deep := col("body")
	for range 200 {
		deep = op(table.OpConcat, deep, lit("x"))
	}
	if _, err := w.query(t, s, "notes", table.Query{Where: op(table.OpEq, deep, lit("x"))}); code(err) != "54001" {
		t.Error(err)
	}
	most := 0
	if _, err := w.insert(t, s, "notes", recs(rec("user_id", uuid(w.bob)))); err != nil {
		t.Fatal(err)
	}
	if _, err := w.remove(t, s, "notes", table.Removal{Max: &most}); code(err) != "PGRST124" {
		t.Error(err)
	}
}

func BenchmarkGetByID(b *testing.B) {
	w := newWorld(b, notes())
	body := fmt.Sprintf("%q", strings.Repeat("lorem ipsum ", 80))
	var id string
	for range 1000 {
		in := recs(rec("body", body))
		in.Return = &table.Return{Keys: true}
		res, err := w.insert(b, w.alice, "notes", in)
		if err != nil {
			b.Fatal(err)
		}
		id = res.Keys[0].Value
	}
	q := table.Query{Where: op(table.OpAnd, op(table.OpEq, col("id"), lit(id)))}
	b.Run("whole", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if res, err := w.query(b, w.alice, "notes", q); err != nil || len(res.Rows) != 1 {
				b.Fatal(res, err)
			}
		}
	})
	// The same transaction and reads, without this package: the difference is what it costs.
	b.Run("storage alone", func(b *testing.B) {
		keys := &recorder{}
		look := storage.Intent{Action: "rows.select"}
		err := w.DB.View(b.Context(), w.alice, look, func(r storage.Reader) error {
			keys.Reader = r
			_, err := w.cat.Select(b.Context(), keys, "notes", q)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			err := w.DB.View(b.Context(), w.alice, look, func(r storage.Reader) error {
				for i := range keys.refs {
					if _, err := r.Get(keys.refs[i], keys.keys[i]); err != nil {
						return err
					}
				}
				_, err := r.Blind(keys.refs[1], "notes_pkey", keys.keys[0])
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

type recorder struct {
	storage.Reader
	refs []storage.Ref
	keys [][]byte
}

func (k *recorder) Get(t storage.Ref, key []byte) ([]byte, error) {
	k.refs, k.keys = append(k.refs, t), append(k.keys, bytes.Clone(key))
	return k.Reader.Get(t, key)
}
