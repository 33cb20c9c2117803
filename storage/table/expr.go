package table

import (
	"strings"
)

// Bounds of one expression, so that no tree from outside can exhaust the stack or a processor.
const (
	maxExprDepth = 100
	maxExprNodes = 10_000
)

// A node is an Expr whose names and types are resolved against one table.
type node struct {
	op       Op
	t        Type // "" for a literal whose type is not known yet
	col      int
	fn       string
	val      value
	args     []*node
	columns  bool // mentions a column
	volatile bool // differs from row to row without one
}

// A compiler resolves expressions against t; a nil t allows no columns.
type compiler struct {
	t     *tableInfo
	nodes int
}

// compileBool compiles a condition.
func compileBool(t *tableInfo, e *Expr) (*node, error) {
	c := compiler{t: t}
	n, err := c.compile(e, 0)
	if err != nil {
		return nil, err
	}
	return asBool(n, "WHERE")
}

// compileAs compiles an expression whose value is assigned to a column.
func compileAs(e *Expr, column *Column) (*node, error) {
	c := compiler{}
	n, err := c.compile(e, 0)
	if err != nil {
		return nil, err
	}
	if n.t == "" {
		return coerce(n, column.Type)
	}
	if n.t == column.Type {
		return n, nil
	}
	if !castable(n.t, column.Type) {
		return nil, bad(CodeBadType, "column %q is of type %s but the default expression is of type %s", column.Name, sqlName(column.Type), sqlName(n.t))
	}
	return &node{op: OpCast, t: column.Type, args: []*node{n}, columns: n.columns, volatile: n.volatile}, nil
}

func (c *compiler) compile(e *Expr, depth int) (*node, error) {
	if e == nil {
		return nil, bad(CodeBadDefinition, "an expression lacks an operand")
	}
	if c.nodes++; depth > maxExprDepth || c.nodes > maxExprNodes {
		return nil, bad(CodeTooComplex, "stack depth limit exceeded: simplify the expression")
	}
	n := &node{op: e.Op, t: e.Type, fn: e.Name}
	switch e.Op {
	case OpConst:
		return constant(e)
	case OpColumn:
		return c.column(e)
	}
	for _, a := range e.Args {
		arg, err := c.compile(a, depth+1)
		if err != nil {
			return nil, err
		}
		n.args = append(n.args, arg)
		n.columns = n.columns || arg.columns
		n.volatile = n.volatile || arg.volatile
	}
	return n, resolve(n)
}

func constant(e *Expr) (*node, error) {
	n := &node{op: OpConst, t: e.Type}
	if e.Value == nil {
		return n, nil
	}
	v, err := parseLiteral(e.Type, *e.Value)
	n.val = v
	return n, err
}

func (c *compiler) column(e *Expr) (*node, error) {
	if c.t == nil {
		return nil, bad("0A000", "cannot use column reference in DEFAULT expression")
	}
	i, ok := c.t.index[e.Name]
	if !ok {
		return nil, noColumn(c.t.Name, e.Name)
	}
	return &node{op: OpColumn, col: i, t: c.t.Columns[i].Type, columns: true}, nil
}

// resolve checks the arguments' number and types, gives literals their types, and sets n's own.
func resolve(n *node) error {
	if err := arity(n); err != nil {
		return err
	}
	switch n.op {
	case OpAnd, OpOr, OpNot, OpIsTrue, OpIsFalse:
		n.t = Bool
		for i := range n.args {
			a, err := asBool(n.args[i], strings.ToUpper(string(n.op)))
			if err != nil {
				return err
			}
			n.args[i] = a
		}
		return nil
	case OpIsNull:
		n.t = Bool
		return nil
	case OpEq, OpNe, OpLt, OpLe, OpGt, OpGe, OpDistinct:
		n.t = Bool
		return unify(n.op, n.args, 0, 1)
	case OpIn:
		n.t = Bool
		for i := 1; i < len(n.args); i++ {
			if err := unify(OpEq, n.args, 0, i); err != nil {
				return err
			}
		}
		return nil
	case OpLike, OpILike:
		n.t = Bool
		return texts(n)
	case OpConcat:
		n.t = Text
		return concatenates(n)
	case OpAdd, OpSub, OpMul, OpDiv:
		return arithmeticType(n)
	case OpJSONGet, OpJSONText:
		return jsonType(n)
	case OpCast:
		return castType(n)
	case OpCall:
		return callType(n)
	}
	return bad("0A000", "operator %q is not supported", string(n.op))
}

func arity(n *node) error {
	least, most := 2, 2
	switch n.op {
	case OpAnd, OpOr:
		least, most = 0, maxExprNodes
	case OpNot, OpIsNull, OpIsTrue, OpIsFalse, OpCast:
		least, most = 1, 1
	case OpIn:
		least, most = 1, maxExprNodes
	case OpCall:
		switch n.fn {
		case "coalesce":
			least, most = 1, maxExprNodes
		case "lower", "upper":
			least, most = 1, 1
		default:
			least, most = 0, 0
		}
	}
	if len(n.args) < least || len(n.args) > most {
		return bad(CodeNoOperator, "operator or function %s does not take %d arguments", strings.TrimSpace(string(n.op)+" "+n.fn), len(n.args))
	}
	return nil
}

func asBool(n *node, clause string) (*node, error) {
	if n.t == "" {
		return coerce(n, Bool)
	}
	if n.t != Bool {
		return nil, bad(CodeBadType, "argument of %s must be type boolean, not type %s", clause, sqlName(n.t))
	}
	return n, nil
}

// coerce gives an untyped literal a type.
func coerce(n *node, t Type) (*node, error) {
	if n.t != "" || n.op != OpConst {
		return n, nil
	}
	if n.val.null() {
		return &node{op: OpConst, t: t}, nil
	}
	v, err := parseLiteral(t, n.val.s)
	return &node{op: OpConst, t: t, val: v}, err
}

// unify makes args i and j comparable.
func unify(op Op, args []*node, i, j int) error {
	a, b := args[i], args[j]
	var err error
	switch {
	case a.t == "" && b.t == "":
		if args[i], err = coerce(a, Text); err == nil {
			args[j], err = coerce(b, Text)
		}
	case a.t == "":
		args[i], err = coerce(a, b.t)
	case b.t == "":
		args[j], err = coerce(b, a.t)
	}
	if err != nil {
		return err
	}
	if a, b = args[i], args[j]; !comparableTypes(a.t, b.t) {
		return noOperator(op, a.t, b.t)
	}
	return nil
}

func comparableTypes(a, b Type) bool {
	ka, kb := kindOf(a), kindOf(b)
	if ka == kJSON || kb == kJSON {
		return false
	}
	return ka == kb || numeric(ka) && numeric(kb) || temporal(ka) && temporal(kb)
}

func numeric(k kind) bool  { return k == kInt || k == kFloat || k == kNum }
func temporal(k kind) bool { return k == kDate || k == kStamp || k == kInstant }

func texts(n *node) error {
	for i := range n.args {
		a, err := coerce(n.args[i], Text)
		if err != nil {
			return err
		}
		if n.args[i] = a; kindOf(a.t) != kText {
			name := Op("~~")
			if n.op == OpILike {
				name = "~~*"
			}
			return noOperator(name, n.args[0].t, n.args[len(n.args)-1].t)
		}
	}
	return nil
}

func concatenates(n *node) error {
	some := false
	for i := range n.args {
		some = some || kindOf(n.args[i].t) == kText
		a, err := coerce(n.args[i], Text)
		if err != nil {
			return err
		}
		n.args[i] = a
	}
	if !some {
		return noOperator(n.op, n.args[0].t, n.args[1].t)
	}
	return nil
}

func arithmeticType(n *node) error {
	if err := unify(n.op, n.args, 0, 1); err != nil {
		return err
	}
	a, b := n.args[0].t, n.args[1].t
	ka, kb := kindOf(a), kindOf(b)
	switch {
	case !numeric(ka) || !numeric(kb):
		return noOperator(n.op, a, b)
	case ka == kFloat || kb == kFloat:
		n.t = Float8
	case ka == kNum || kb == kNum:
		n.t = Numeric
	case intBits(a) >= intBits(b):
		n.t = a
	default:
		n.t = b
	}
	return nil
}

func jsonType(n *node) error {
	k := kindOf(n.args[0].t)
	if k != kJSON && k != kJSONB {
		return noOperator(n.op, n.args[0].t, n.args[1].t)
	}
	key, err := coerce(n.args[1], Text)
	if err != nil {
		return err
	}
	if n.args[1] = key; kindOf(key.t) != kText && kindOf(key.t) != kInt {
		return noOperator(n.op, n.args[0].t, key.t)
	}
	n.t = n.args[0].t
	if n.op == OpJSONText {
		n.t = Text
	}
	return nil
}

func castType(n *node) error {
	if kindOf(n.t) == kNull || n.t == "" {
		return bad(CodeBadType, "type %q is not supported", string(n.t))
	}
	if n.args[0].t == "" {
		a, err := coerce(n.args[0], n.t)
		n.args[0] = a
		return err
	}
	if !castable(n.args[0].t, n.t) {
		return bad(CodeNoCast, "cannot cast type %s to %s", sqlName(n.args[0].t), sqlName(n.t))
	}
	return nil
}

func castable(from, to Type) bool {
	a, b := kindOf(from), kindOf(to)
	switch {
	case a == b, a == kText, b == kText:
		return true
	case numeric(a) && numeric(b), temporal(a) && temporal(b):
		return true
	case a == kBool && to == Int4, from == Int4 && b == kBool:
		return true
	case (a == kJSON || a == kJSONB) && (b == kJSON || b == kJSONB):
		return true
	case a == kJSONB && (numeric(b) || b == kBool):
		return true
	}
	return false
}

func callType(n *node) error {
	switch n.fn {
	case "auth.uid":
		n.t = UUID
	case "auth.role":
		n.t = Text
	case "auth.jwt":
		n.t = JSONB
	case "now":
		n.t = Timestamptz
	case "gen_random_uuid":
		n.t, n.volatile = UUID, true
	case "lower", "upper":
		n.t = Text
		a, err := coerce(n.args[0], Text)
		if err != nil {
			return err
		}
		if n.args[0] = a; kindOf(a.t) != kText {
			return bad(CodeNoOperator, "function %s(%s) does not exist", n.fn, sqlName(a.t))
		}
	case "coalesce":
		return coalesceType(n)
	default:
		return bad(CodeNoOperator, "function %s() does not exist", n.fn)
	}
	return nil
}

func coalesceType(n *node) error {
	for _, a := range n.args {
		if n.t == "" {
			n.t = a.t
		}
	}
	if n.t == "" {
		n.t = Text
	}
	for i := range n.args {
		a, err := coerce(n.args[i], n.t)
		if err != nil {
			return err
		}
		if n.args[i] = a; kindOf(a.t) != kindOf(n.t) {
			return bad(CodeBadType, "COALESCE types %s and %s cannot be matched", sqlName(n.t), sqlName(a.t))
		}
	}
	return nil
}
