package table

import (
	"io"
	"math"
	"math/big"
	"strings"
	"time"
	"unicode/utf8"

	"bulwark/storage"
)

// An env is what an expression may depend on: the row, the actor, and the transaction's time.
type env struct {
	row    *row
	by     storage.Actor
	now    time.Time
	random io.Reader
}

// bind evaluates what does not depend on the row, once. What fails there is left as it is: AND and OR may never reach it.
func (v *env) bind(n *node) *node {
	if n == nil || n.op == OpConst || n.op == OpColumn {
		return n
	}
	if !n.columns && !n.volatile {
		if val, err := v.eval(n); err == nil {
			return &node{op: OpConst, t: n.t, val: val}
		}
		return n
	}
	c := *n
	c.args = make([]*node, len(n.args))
	for i, a := range n.args {
		c.args[i] = v.bind(a)
	}
	return &c
}

// holds reports whether condition n is true of the row; false and null are not.
func (v *env) holds(n *node) (bool, error) {
	if n == nil {
		return true, nil
	}
	val, err := v.eval(n)
	return err == nil && val.isTrue(), err
}

func (v *env) eval(n *node) (value, error) {
	switch n.op {
	case OpConst:
		return n.val, nil
	case OpColumn:
		return v.row.value(n.col)
	case OpAnd, OpOr:
		return v.logic(n)
	case OpCall:
		return v.call(n)
	case OpIn:
		return v.in(n)
	}
	a, err := v.eval(n.args[0])
	if err != nil {
		return value{}, err
	}
	switch n.op {
	case OpNot:
		if a.null() {
			return a, nil
		}
		return boolean(!a.isTrue()), nil
	case OpIsNull:
		return boolean(a.null()), nil
	case OpIsTrue:
		return boolean(a.isTrue()), nil
	case OpIsFalse:
		return boolean(!a.null() && !a.isTrue()), nil
	case OpCast:
		return cast(a, n.t)
	}
	b, err := v.eval(n.args[1])
	if err != nil {
		return value{}, err
	}
	if n.op == OpDistinct {
		if a.null() || b.null() {
			return boolean(a.null() != b.null()), nil
		}
		return boolean(compare(a, b) != 0), nil
	}
	if a.null() || b.null() {
		return value{}, nil
	}
	return operate(n, a, b)
}

// operate computes operators that are null where an operand is.
func operate(n *node, a, b value) (value, error) {
	switch n.op {
	case OpEq:
		return boolean(compare(a, b) == 0), nil
	case OpNe:
		return boolean(compare(a, b) != 0), nil
	case OpLt:
		return boolean(compare(a, b) < 0), nil
	case OpLe:
		return boolean(compare(a, b) <= 0), nil
	case OpGt:
		return boolean(compare(a, b) > 0), nil
	case OpGe:
		return boolean(compare(a, b) >= 0), nil
	case OpLike:
		return like(a.s, b.s)
	case OpILike:
		return like(strings.ToLower(a.s), strings.ToLower(b.s))
	case OpConcat:
		return value{k: kText, s: a.text() + b.text()}, nil
	case OpJSONGet, OpJSONText:
		return getJSON(n, a, b)
	}
	return arithmetic(n, a, b)
}

// logic is AND and OR of three-valued logic: the deciding value (false for AND, true for OR) wins over null.
func (v *env) logic(n *node) (value, error) {
	decides := n.op == OpOr
	unknown := false
	for _, a := range n.args {
		val, err := v.eval(a)
		if err != nil {
			return value{}, err
		}
		if val.null() {
			unknown = true
		} else if val.isTrue() == decides {
			return boolean(decides), nil
		}
	}
	if unknown {
		return value{}, nil
	}
	return boolean(!decides), nil
}

func (v *env) in(n *node) (value, error) {
	a, err := v.eval(n.args[0])
	if err != nil {
		return value{}, err
	}
	if len(n.args) == 1 {
		return boolean(false), nil // an empty list, which only PostgREST's in.() makes
	}
	if a.null() {
		return a, nil
	}
	unknown := false
	for _, e := range n.args[1:] {
		b, err := v.eval(e)
		if err != nil {
			return value{}, err
		}
		if b.null() {
			unknown = true
		} else if compare(a, b) == 0 {
			return boolean(true), nil
		}
	}
	if unknown {
		return value{}, nil
	}
	return boolean(false), nil
}

func (v *env) call(n *node) (value, error) {
	switch n.fn {
	case "auth.uid":
		if v.by.Kind() != storage.Account {
			return value{}, nil
		}
		return value{k: kUUID, s: v.by.Subject().String()}, nil
	case "auth.role":
		return value{k: kText, s: v.by.Role()}, nil
	case "auth.jwt":
		return v.jwt()
	case "now":
		return value{k: kInstant, i: v.now.UnixMicro()}, nil
	case "gen_random_uuid":
		return randomUUID(v.random)
	case "coalesce":
		for _, a := range n.args {
			if val, err := v.eval(a); err != nil || !val.null() {
				return val, err
			}
		}
		return value{}, nil
	}
	a, err := v.eval(n.args[0])
	if err != nil || a.null() {
		return a, err
	}
	if n.fn == "lower" {
		a.s = strings.ToLower(a.s)
	} else {
		a.s = strings.ToUpper(a.s)
	}
	return a, nil
}

// jwt is the verified token's payload. A key that is no token has the claims that the cloud's own key of that role would.
func (v *env) jwt() (value, error) {
	if v.by.Kind() != storage.Account {
		return value{k: kJSONB, s: `{"role":"` + v.by.Role() + `"}`}, nil
	}
	if len(v.by.Claims()) == 0 {
		return value{}, nil
	}
	s, err := canonicalJSON(string(v.by.Claims()))
	return value{k: kJSONB, s: s}, err
}

// randomUUID makes a UUID of version 4 (RFC 9562, section 5.4).
func randomUUID(random io.Reader) (value, error) {
	var id storage.ID
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return value{}, &storage.Error{Fault: storage.Internal, Code: "internal", Message: "the random source failed", Cause: err}
	}
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return value{k: kUUID, s: id.String()}, nil
}

func getJSON(n *node, a, key value) (value, error) {
	text, ok := jsonMember(a.s, key)
	if !ok {
		return value{}, nil
	}
	if n.op == OpJSONGet {
		return value{k: a.k, s: text}, nil
	}
	if text == "null" {
		return value{}, nil
	}
	s, err := unquote([]byte(text))
	return value{k: kText, s: s}, err
}

func arithmetic(n *node, a, b value) (value, error) {
	if n.op == OpDiv && (kindOf(n.t) == kFloat && b.float() == 0 || kindOf(n.t) != kFloat && b.decimal().digits == "") {
		return value{}, bad(CodeDivideByZero, "division by zero")
	}
	switch kindOf(n.t) {
	case kFloat:
		return value{k: kFloat, f: floatArithmetic(n.op, a.float(), b.float())}, nil
	case kNum:
		d, _ := a.decimal().arithmetic(n.op, b.decimal())
		if d.exp > numericWhole || d.scale > numericScale {
			return value{}, bad(CodeOutOfRange, "value overflows numeric format")
		}
		return value{k: kNum, d: &d}, nil
	}
	x, y, z := big.NewInt(a.i), big.NewInt(b.i), new(big.Int)
	switch n.op {
	case OpAdd:
		z.Add(x, y)
	case OpSub:
		z.Sub(x, y)
	case OpMul:
		z.Mul(x, y)
	default:
		z.Quo(x, y)
	}
	if !z.IsInt64() || !fits(z.Int64(), n.t) {
		return value{}, bad(CodeOutOfRange, "%s out of range", sqlName(n.t))
	}
	return value{k: kInt, i: z.Int64()}, nil
}

func floatArithmetic(op Op, a, b float64) float64 {
	switch op {
	case OpAdd:
		return a + b
	case OpSub:
		return a - b
	case OpMul:
		return a * b
	}
	return a / b
}

func fits(n int64, t Type) bool {
	bits := intBits(t)
	return bits == 64 || n >= -1<<(bits-1) && n < 1<<(bits-1)
}

// cast converts v, which is of a type that castable allows, to t.
func cast(v value, t Type) (value, error) {
	to := kindOf(t)
	switch {
	case v.null():
		return v, nil
	case to == kInt && (numeric(v.k) || v.k == kBool):
		return castInt(v, t)
	case v.k == to:
		return v, nil
	case v.k == kText:
		return parseLiteral(t, v.s)
	case to == kText:
		return value{k: kText, s: v.text()}, nil
	case to == kFloat && numeric(v.k):
		return value{k: kFloat, f: v.float()}, nil
	case to == kNum && v.k == kInt:
		d := v.decimal()
		return value{k: kNum, d: &d}, nil
	case to == kDate && v.temporal():
		return value{k: kDate, i: floorDay(v.i)}, nil
	case temporal(to) && v.temporal():
		return value{k: to, i: v.micros()}, nil
	case to == kBool && v.k == kInt:
		return boolean(v.i != 0), nil
	case to == kJSON:
		return value{k: kJSON, s: v.s}, nil
	}
	return castText(v, t)
}

// castText goes by way of the text form: a float to numeric, json to jsonb, a jsonb scalar to a number or boolean.
func castText(v value, t Type) (value, error) {
	if v.k == kJSONB {
		if v.s == "null" {
			return value{}, nil
		}
		if isBool := v.s == "true" || v.s == "false"; isBool != (t == Bool) || !isBool && strings.IndexByte("-0123456789", v.s[0]) < 0 {
			return value{}, bad(CodeBadLiteral, "cannot cast jsonb value to type %s", sqlName(t))
		}
		if kindOf(t) == kInt {
			d, _, _ := parseDecimal(v.s)
			return castInt(value{k: kNum, d: &d}, t)
		}
	}
	return parseLiteral(t, v.text())
}

// castInt rounds: a float half to even, a numeric half away from zero, as PostgreSQL.
func castInt(v value, t Type) (value, error) {
	switch v.k {
	case kFloat:
		f := math.RoundToEven(v.f)
		if !(f >= -(1<<63) && f < 1<<63) {
			return value{}, bad(CodeOutOfRange, "%s out of range", sqlName(t))
		}
		v = value{k: kInt, i: int64(f)}
	case kNum:
		if v.d.exp > 20 {
			return value{}, bad(CodeOutOfRange, "%s out of range", sqlName(t))
		}
		n := v.d.rounded()
		if !n.IsInt64() {
			return value{}, bad(CodeOutOfRange, "%s out of range", sqlName(t))
		}
		v = value{k: kInt, i: n.Int64()}
	case kBool:
		v = value{k: kInt, i: v.i}
	}
	if !fits(v.i, t) {
		return value{}, bad(CodeOutOfRange, "%s out of range", sqlName(t))
	}
	return v, nil
}

// rounded returns d as an integer, half away from zero.
func (d decimal) rounded() *big.Int {
	n := new(big.Int)
	if d.digits == "" || d.exp < 0 {
		return n
	}
	for i := range d.exp {
		n.Mul(n, big.NewInt(10))
		n.Add(n, big.NewInt(int64(d.digit(i)-'0')))
	}
	if d.digit(d.exp) >= '5' {
		n.Add(n, big.NewInt(1))
	}
	if d.neg {
		n.Neg(n)
	}
	return n
}

// like matches with % and _ and the escape character \.
func like(text, pattern string) (value, error) {
	t, p := 0, 0
	star, mark := -1, 0
	for t < len(text) {
		if p < len(pattern) && pattern[p] == '%' {
			star, mark = p+1, t
			p++
			continue
		}
		if p < len(pattern) {
			width, step, err := matchOne(text[t:], pattern[p:])
			if err != nil {
				return value{}, err
			}
			if step > 0 {
				t, p = t+width, p+step
				continue
			}
		}
		if star < 0 {
			return boolean(false), nil
		}
		_, width := utf8.DecodeRuneInString(text[mark:])
		mark += width
		t, p = mark, star
	}
	for p < len(pattern) && pattern[p] == '%' {
		p++
	}
	return boolean(p == len(pattern)), nil
}

// matchOne matches one character; step is how much of the pattern it took, 0 where it does not match.
func matchOne(text, pattern string) (width, step int, err error) {
	_, width = utf8.DecodeRuneInString(text)
	if pattern[0] == '_' {
		return width, 1, nil
	}
	if pattern[0] == '\\' {
		if len(pattern) == 1 {
			return 0, 0, bad(CodeBadPattern, "LIKE pattern must not end with escape character")
		}
		pattern = pattern[1:]
		step = 1
	}
	_, size := utf8.DecodeRuneInString(pattern)
	if text[:width] != pattern[:size] {
		return 0, 0, nil
	}
	return width, step + size, nil
}
