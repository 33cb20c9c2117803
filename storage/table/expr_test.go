package table

import (
	"crypto/rand"
	"testing"
	"time"

	"bulwark/storage"
)

func c(name string) *Expr                 { return &Expr{Op: OpColumn, Name: name} }
func l(text string) *Expr                 { return &Expr{Op: OpConst, Value: &text} }
func ty(t Type, text string) *Expr        { return &Expr{Op: OpConst, Type: t, Value: &text} }
func nul(t Type) *Expr                    { return &Expr{Op: OpConst, Type: t} }
func op(o Op, args ...*Expr) *Expr        { return &Expr{Op: o, Args: args} }
func as(t Type, e *Expr) *Expr            { return &Expr{Op: OpCast, Type: t, Args: []*Expr{e}} }
func fn(name string, args ...*Expr) *Expr { return &Expr{Op: OpCall, Name: name, Args: args} }

func yes() *Expr     { return ty(Bool, "true") }
func no() *Expr      { return ty(Bool, "false") }
func unknown() *Expr { return nul(Bool) }

// evaluate compiles e against a table with one row, and returns the value's text, "null", or the error's code.
func evaluate(t *testing.T, e *Expr) string {
	t.Helper()
	info, err := compileTable(&Table{Schema: "public", Name: "t", Space: "t", Columns: []Column{
		{Name: "n", Type: Int4}, {Name: "s", Type: Text}, {Name: "none", Type: Int4}, {Name: "j", Type: JSONB}, {Name: "u", Type: UUID},
	}})
	if err != nil {
		t.Fatal(err)
	}
	r := &row{t: info}
	values := []value{{k: kInt, i: 7}, {k: kText, s: `a"b`}, {}, {k: kJSONB, s: `{"a":[1,"x",null],"b":{"c":true}}`}, {k: kUUID, s: "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}}
	if err := r.set(appendRow(nil, info, values)); err != nil {
		t.Fatal(err)
	}
	by := storage.AccountActor(storage.ID{1}, storage.ID{2}, storage.ID{0xa1}, storage.ID{3}, []byte(`{"role":"authenticated","app_metadata":{"level":40}}`), storage.Origin{})
	v := &env{row: r, by: by, now: time.Unix(0, 0), random: rand.Reader}
	comp := compiler{t: info}
	n, err := comp.compile(e, 0)
	if err != nil {
		return errorCode(err)
	}
	plain, err := v.eval(n)
	bound, errBound := v.eval(v.bind(n))
	if err != nil || errBound != nil {
		if errorCode(err) != errorCode(errBound) {
			t.Errorf("bound gives %v, unbound %v", errBound, err)
		}
		return errorCode(err)
	}
	if plain.null() != bound.null() || plain.text() != bound.text() {
		t.Errorf("bound gives %s, unbound %s", bound.text(), plain.text())
	}
	if plain.null() {
		return "null"
	}
	return plain.text()
}

func errorCode(err error) string {
	if e, ok := err.(*storage.Error); ok { //nolint:errorlint // they are not wrapped here
		return e.Code
	}
	return "?"
}

func TestThreeValuedLogic(t *testing.T) {
	t.Parallel()
	values := map[string]func() *Expr{"true": yes, "false": no, "null": unknown}
	and := map[string]string{
		"true true": "true", "true false": "false", "true null": "null", "false true": "false", "false false": "false", "false null": "false",
		"null true": "null", "null false": "false", "null null": "null",
	}
	or := map[string]string{
		"true true": "true", "true false": "true", "true null": "true", "false true": "true", "false false": "false", "false null": "null",
		"null true": "true", "null false": "null", "null null": "null",
	}
	for a, ea := range values {
		for b, eb := range values {
			if got := evaluate(t, op(OpAnd, ea(), eb())); got != and[a+" "+b] {
				t.Errorf("%s and %s is %s", a, b, got)
			}
			if got := evaluate(t, op(OpOr, ea(), eb())); got != or[a+" "+b] {
				t.Errorf("%s or %s is %s", a, b, got)
			}
		}
	}
}

func TestExpressions(t *testing.T) {
	t.Parallel()
	for i, test := range []struct {
		e    *Expr
		want string
	}{
		{op(OpNot, unknown()), "null"}, {op(OpNot, yes()), "false"},
		{op(OpIsTrue, unknown()), "false"}, {op(OpIsFalse, unknown()), "false"}, {op(OpIsFalse, no()), "true"}, {op(OpIsNull, c("none")), "true"},
		{op(OpEq, c("none"), l("1")), "null"}, {op(OpNe, c("none"), c("none")), "null"},
		{op(OpDistinct, c("none"), l("1")), "true"}, {op(OpDistinct, c("none"), nul("")), "false"},
		{op(OpIn, c("n"), l("1"), l("7")), "true"}, {op(OpIn, c("n"), l("1"), nul("")), "null"}, {op(OpIn, c("n"), l("7"), nul("")), "true"},
		{op(OpIn, c("n")), "false"}, {op(OpIn, c("none"), l("1")), "null"}, {op(OpNot, op(OpIn, c("n"), l("1"), nul(""))), "null"},

		{op(OpEq, c("n"), ty(Numeric, "7.00")), "true"}, {op(OpLt, c("n"), ty(Float8, "7.5")), "true"},
		{op(OpEq, c("n"), l("7.5")), "22P02"}, {op(OpEq, c("n"), l("99999999999")), "22003"},
		{op(OpEq, ty(Numeric, "9007199254740993"), ty(Numeric, "9007199254740992")), "false"},
		{op(OpEq, ty(Numeric, "1e-2"), ty(Numeric, "0.0100")), "true"}, {op(OpGt, ty(Numeric, "-1"), ty(Numeric, "-10")), "true"},
		{op(OpEq, ty(Float8, "NaN"), ty(Float8, "NaN")), "true"}, {op(OpGt, ty(Float8, "NaN"), ty(Float8, "Infinity")), "true"}, {op(OpEq, ty(Float8, "0"), ty(Float8, "-0")), "true"},
		{op(OpEq, c("u"), l("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11")), "true"}, {op(OpEq, c("u"), l("x")), "22P02"}, {op(OpEq, c("u"), c("s")), "42883"},
		{op(OpEq, c("u"), c("n")), "42883"}, {op(OpLt, l("B"), l("a")), "true"}, {op(OpEq, as(JSON, l("1")), as(JSON, l("1"))), "42883"},
		{op(OpEq, ty(Timestamptz, "2026-01-01T00:00:00+02"), ty(Timestamptz, "2025-12-31T22:00:00Z")), "true"},
		{op(OpLt, ty(Date, "2026-01-01"), ty(Timestamptz, "2026-01-01T00:00:01Z")), "true"}, {op(OpLt, ty(Timestamptz, "-infinity"), fn("now")), "true"},
		{op(OpEq, ty(JSONB, `{"a":1.0,"b":[]}`), l(`{"b":[],"a":1}`)), "true"}, {op(OpGt, ty(JSONB, `{}`), l(`[1,2]`)), "true"}, {op(OpLt, ty(JSONB, `"x"`), l(`1`)), "true"},

		{op(OpLike, l("nut"), l("n%t")), "true"}, {op(OpLike, l("nut"), l("n_")), "false"}, {op(OpLike, l("a%b"), l(`a\%b`)), "true"}, {op(OpLike, l("axb"), l(`a\%b`)), "false"},
		{op(OpLike, l("äö"), l("__")), "true"}, {op(OpLike, l("x"), l(`\`)), "22025"}, {op(OpILike, l("ÄB"), l("äb")), "true"}, {op(OpLike, l(""), l("%")), "true"},
		{op(OpLike, l("aab"), l("%ab")), "true"}, {op(OpLike, l("abab"), l("%ab%x")), "false"}, {op(OpLike, c("u"), l("a%")), "42883"},

		{op(OpAdd, c("n"), ty(Int4, "2147483647")), "22003"}, {op(OpAdd, c("n"), l("1")), "8"}, {op(OpDiv, c("n"), ty(Int4, "2")), "3"}, {op(OpDiv, c("n"), ty(Int4, "0")), "22012"},
		{op(OpDiv, ty(Int4, "-7"), ty(Int4, "2")), "-3"}, {op(OpMul, ty(Numeric, "1.5"), ty(Int4, "2")), "3.0"}, {op(OpSub, ty(Numeric, "1.05"), ty(Numeric, "0.055")), "0.995"},
		{op(OpDiv, ty(Numeric, "1"), ty(Numeric, "3")), "0.3333333333333333"}, {op(OpDiv, ty(Numeric, "2"), ty(Numeric, "-3")), "-0.6666666666666667"}, {op(OpAdd, c("s"), l("1")), "42883"},
		{op(OpConcat, c("s"), c("n")), `a"b7`}, {op(OpConcat, c("none"), l("x")), "null"}, {op(OpConcat, c("n"), c("n")), "42883"},

		{as(Int4, l("x")), "22P02"}, {as(Int4, ty(Float8, "2.5")), "2"}, {as(Int4, ty(Numeric, "2.5")), "3"}, {as(Int4, ty(Numeric, "-0.5")), "-1"}, {as(Int2, ty(Int4, "70000")), "22003"},
		{as(Text, yes()), "true"}, {as(Bool, ty(Int4, "2")), "true"}, {as(UUID, c("n")), "42846"}, {as(Text, nul("")), "null"}, {as(Date, ty(Timestamptz, "2026-01-02T03:04:05Z")), "2026-01-02"},
		{as(Int4, op(OpJSONGet, op(OpJSONGet, c("j"), l("a")), ty(Int4, "0"))), "1"}, {as(Bool, op(OpJSONGet, op(OpJSONGet, c("j"), l("b")), l("c"))), "true"},
		{as(Int4, op(OpJSONGet, c("j"), l("b"))), "22P02"},
		{op(OpJSONText, op(OpJSONGet, c("j"), l("a")), ty(Int4, "-2")), "x"}, {op(OpJSONText, op(OpJSONGet, c("j"), l("a")), ty(Int4, "2")), "null"},
		{op(OpJSONText, c("j"), l("zzz")), "null"}, {op(OpJSONGet, c("s"), l("a")), "42883"},

		{fn("auth.uid"), "a1000000-0000-0000-0000-000000000000"}, {fn("auth.role"), "authenticated"},
		{as(Int4, op(OpJSONText, op(OpJSONGet, fn("auth.jwt"), l("app_metadata")), l("level"))), "40"}, {fn("now"), "1970-01-01 00:00:00+00"},
		{fn("coalesce", c("none"), l("3"), ty(Int4, "4")), "3"}, {fn("coalesce", nul(""), nul("")), "null"}, {fn("coalesce", c("n"), c("s")), "42804"},
		{fn("upper", l("äb")), "ÄB"}, {fn("lower", c("n")), "42883"}, {fn("pg_sleep"), "42883"}, {fn("lower"), "42883"},
		{op(OpEq, op(OpEq, l("1"), l("1"))), "42883"}, {op("??", l("1")), "42883"}, {op(OpAnd, c("n")), "42804"}, {c("zzz"), "42703"},
		{op(OpOr, yes(), op(OpEq, op(OpDiv, ty(Int4, "1"), ty(Int4, "0")), l("1"))), "true"},
	} {
		if got := evaluate(t, test.e); got != test.want {
			t.Errorf("%d: %s, want %s", i, got, test.want)
		}
	}
}
