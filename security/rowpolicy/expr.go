package rowpolicy

import (
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"bulwark/storage/table"
)

// A typed is a compiled expression, its type, and where it stands in the text.
type typed struct {
	e  *table.Expr
	t  table.Type
	at int
}

// An exprCompiler compiles the expression of one clause.
type exprCompiler struct {
	src       *source
	table     *table.Table
	isDefault bool
	nodes     int
	depth     int
}

const noOperatorHint = "No operator matches the given name and argument types. You might need to add explicit type casts."

// predicate compiles a policy's clause, which must be boolean.
func (x *exprCompiler) predicate(n *pg.Node) (*table.Expr, error) {
	v, err := x.compile(n)
	if err != nil {
		return nil, err
	}
	if v, err = x.boolean(v, "POLICY"); err != nil {
		return nil, err
	}
	return x.finish(v)
}

// value compiles a column's default and converts it as an assignment does.
func (x *exprCompiler) value(n *pg.Node, col *table.Column) (*table.Expr, error) {
	v, err := x.compile(n)
	if err != nil {
		return nil, err
	}
	if !castable(v.t, col.Type, true) {
		return nil, x.src.errorf(v.at, codeMismatch, "column %q is of type %s but default expression is of type %s",
			col.Name, sqlNames[col.Type], sqlNames[v.t]).hint("You will need to rewrite or cast the expression.")
	}
	if v, err = x.cast(v, col.Type); err != nil {
		return nil, err
	}
	if s := v.e.Value; v.e.Op == table.OpConst && s != nil && col.MaxLen > 0 && len([]rune(*s)) > col.MaxLen {
		return nil, x.src.errorf(v.at, "22001", "value too long for type character varying(%d)", col.MaxLen)
	}
	return x.finish(v)
}

func (x *exprCompiler) finish(v typed) (*table.Expr, error) {
	if depthOf(v.e) > MaxDepth {
		return nil, x.tooDeep(v.at)
	}
	return v.e, nil
}

func (x *exprCompiler) tooDeep(at int) error {
	return x.src.errorf(at, codeTooComplex, "the expression is nested more than %d deep", MaxDepth)
}

func depthOf(e *table.Expr) int {
	deepest := 0
	for _, a := range e.Args {
		deepest = max(deepest, depthOf(a))
	}
	return deepest + 1
}

func (x *exprCompiler) node(at int, t table.Type, e *table.Expr) (typed, error) {
	if x.nodes++; x.nodes > MaxNodes {
		return typed{}, x.src.errorf(at, codeTooComplex, "the expression has more than %d parts", MaxNodes)
	}
	return typed{e: e, t: t, at: at}, nil
}

func (x *exprCompiler) op(at int, t table.Type, op table.Op, args ...typed) (typed, error) {
	e := &table.Expr{Op: op}
	for _, a := range args {
		e.Args = append(e.Args, a.e)
	}
	return x.node(at, t, e)
}

func (x *exprCompiler) not(v typed, err error) (typed, error) {
	if err != nil {
		return v, err
	}
	return x.op(v.at, table.Bool, table.OpNot, v)
}

// unsupported refuses a construct by name.
func (x *exprCompiler) unsupported(at int, what string) error {
	return x.src.errorf(at, codeUnsupported, "%s is not supported", what)
}

// compile compiles one node. The text bounds the depth of what the parser made; this bounds it again for the stack here.
func (x *exprCompiler) compile(n *pg.Node) (typed, error) {
	if x.depth++; x.depth > 2*MaxDepth {
		return typed{}, x.tooDeep(location(n))
	}
	defer func() { x.depth-- }()
	switch n := n.GetNode().(type) {
	case *pg.Node_AConst:
		return x.constant(n.AConst)
	case *pg.Node_ColumnRef:
		return x.column(n.ColumnRef)
	case *pg.Node_TypeCast:
		return x.explicitCast(n.TypeCast)
	case *pg.Node_BoolExpr:
		return x.logic(n.BoolExpr)
	case *pg.Node_NullTest:
		v, err := x.compile(n.NullTest.Arg)
		if err != nil {
			return v, err
		}
		if v, err = x.known(v); err != nil {
			return v, err
		}
		v, err = x.op(v.at, table.Bool, table.OpIsNull, v)
		if n.NullTest.Nulltesttype == pg.NullTestType_IS_NOT_NULL {
			return x.not(v, err)
		}
		return v, err
	case *pg.Node_BooleanTest:
		return x.truth(n.BooleanTest)
	case *pg.Node_CoalesceExpr:
		return x.coalesce(n.CoalesceExpr)
	case *pg.Node_AExpr:
		return x.operator(n.AExpr)
	case *pg.Node_FuncCall:
		return x.call(n.FuncCall)
	case *pg.Node_SqlvalueFunction:
		f := n.SqlvalueFunction
		if f.Op == pg.SQLValueFunctionOp_SVFOP_CURRENT_TIMESTAMP {
			return x.node(int(f.Location), table.Timestamptz, &table.Expr{Op: table.OpCall, Name: "now"})
		}
		return typed{}, x.unsupported(int(f.Location), strings.TrimPrefix(f.Op.String(), "SVFOP_"))
	case *pg.Node_SubLink:
		return x.subselect(n.SubLink)
	}
	return typed{}, x.unsupported(location(n), construct(n.GetNode()))
}

func (x *exprCompiler) constant(c *pg.A_Const) (typed, error) {
	at := int(c.Location)
	if c.Isnull {
		return x.node(at, unknown, &table.Expr{Op: table.OpConst})
	}
	text, t := "", unknown
	switch v := c.Val.(type) {
	case *pg.A_Const_Ival:
		text, t = strconv.Itoa(int(v.Ival.Ival)), table.Int4
	case *pg.A_Const_Fval:
		text, t = v.Fval.Fval, table.Numeric
		text = strings.ReplaceAll(text, "_", "")
		base := 10
		if len(text) > 1 && text[0] == '0' && strings.IndexByte("xXoObB", text[1]) >= 0 {
			base = 0
		}
		if n, err := strconv.ParseInt(text, base, 64); err == nil { // more than an integer holds
			text, t = strconv.FormatInt(n, 10), table.Int8
		}
		if _, code, wrong := literal(t, text); wrong != "" {
			return typed{}, x.src.errorf(at, code, "%s", wrong)
		}
	case *pg.A_Const_Boolval:
		text, t = strconv.FormatBool(v.Boolval.Boolval), table.Bool
	case *pg.A_Const_Sval:
		text = v.Sval.Sval
	case *pg.A_Const_Bsval:
		return typed{}, x.unsupported(at, "a bit string")
	}
	return x.node(at, t, &table.Expr{Op: table.OpConst, Type: t, Value: &text})
}

func (x *exprCompiler) column(c *pg.ColumnRef) (typed, error) {
	at := int(c.Location)
	var path []string
	for _, f := range c.Fields {
		s := f.GetString_()
		if s == nil {
			return typed{}, x.unsupported(at, "* in an expression")
		}
		path = append(path, s.Sval)
	}
	if x.isDefault {
		return typed{}, x.src.errorf(at, codeUnsupported, "cannot use column reference in DEFAULT expression")
	}
	name := path[len(path)-1]
	switch {
	case len(path) == 2 && path[0] != x.table.Name,
		len(path) == 3 && (path[0] != x.table.Schema || path[1] != x.table.Name),
		len(path) > 3:
		return typed{}, x.src.errorf(at, codeNoTable, "missing FROM-clause entry for table %q", path[len(path)-2]).
			hint("A policy can name the columns of its own table only.")
	}
	for i := range x.table.Columns {
		if col := &x.table.Columns[i]; col.Name == name {
			return x.node(at, col.Type, &table.Expr{Op: table.OpColumn, Name: name})
		}
	}
	if len(path) > 1 {
		return typed{}, x.src.errorf(at, codeNoColumn, "column %s.%s does not exist", x.table.Name, name)
	}
	return typed{}, x.src.errorf(at, codeNoColumn, "column %q does not exist", name)
}

func (x *exprCompiler) explicitCast(c *pg.TypeCast) (typed, error) {
	t, length, err := typeName(x.src, c.TypeName)
	if err != nil {
		return typed{}, err
	}
	if length != 0 {
		return typed{}, x.unsupported(int(c.TypeName.Location), "a cast to a type with a length")
	}
	v, err := x.compile(c.Arg)
	if err != nil {
		return v, err
	}
	if !castable(v.t, t, false) {
		return typed{}, x.src.errorf(int(c.Location), codeCannotCast, "cannot cast type %s to %s", sqlNames[v.t], sqlNames[t])
	}
	return x.cast(v, t)
}

// cast converts v to t. A literal is read as the type at once, so that a wrong one is refused here and not on each row.
func (x *exprCompiler) cast(v typed, t table.Type) (typed, error) {
	if v.t == t {
		return v, nil
	}
	if v.e.Op == table.OpConst {
		if v.e.Value == nil {
			return typed{e: &table.Expr{Op: table.OpConst, Type: t}, t: t, at: v.at}, nil
		}
		out, code, wrong := literal(t, *v.e.Value)
		switch {
		case wrong == "" && (v.t == unknown || categoryOf(v.t) == categoryOf(t) && categoryOf(t) != temporal && categoryOf(t) != other):
			return typed{e: &table.Expr{Op: table.OpConst, Type: t, Value: &out}, t: t, at: v.at}, nil
		case wrong != "" && v.t == unknown:
			return v, x.src.errorf(v.at, code, "%s", wrong)
		}
	}
	return x.node(v.at, t, &table.Expr{Op: table.OpCast, Type: t, Args: []*table.Expr{v.e}})
}

// known gives a literal that nothing else gave a type to the type text.
func (x *exprCompiler) known(v typed) (typed, error) {
	if v.t == unknown {
		return x.cast(v, table.Text)
	}
	return v, nil
}

func (x *exprCompiler) boolean(v typed, of string) (typed, error) {
	if v.t != unknown && v.t != table.Bool {
		return v, x.src.errorf(v.at, codeMismatch, "argument of %s must be type boolean, not type %s", of, sqlNames[v.t])
	}
	return x.cast(v, table.Bool)
}

// meet brings values to one type in which they compare; false where there is none.
func (x *exprCompiler) meet(vs ...typed) (table.Type, bool, error) {
	t := unknown
	for _, v := range vs {
		var ok bool
		if t, ok = common(t, v.t); !ok {
			return t, false, nil
		}
	}
	if t == unknown {
		t = table.Text
	}
	if categoryOf(t) == numeric {
		t = x.narrow(t, vs)
	}
	for i, v := range vs {
		if categoryOf(v.t) == textual && categoryOf(t) == textual {
			continue // they are the same bytes
		}
		var err error
		if vs[i], err = x.cast(v, t); err != nil {
			return t, true, err
		}
	}
	return t, true, nil
}

// narrow returns the type of what is not a literal, where every literal fits it: the column then stays bare, and an
// index can serve it. The result is the same.
func (x *exprCompiler) narrow(t table.Type, vs []typed) table.Type {
	own := unknown
	for _, v := range vs {
		if v.e.Op != table.OpConst {
			var ok bool
			if own, ok = common(own, v.t); !ok {
				return t
			}
		}
	}
	if own == unknown || own == table.Float4 {
		return t
	}
	for _, v := range vs {
		if v.e.Op == table.OpConst && v.e.Value != nil {
			if _, _, wrong := literal(own, *v.e.Value); wrong != "" {
				return t
			}
		}
	}
	return own
}

func (x *exprCompiler) logic(b *pg.BoolExpr) (typed, error) {
	op, name := table.OpAnd, "AND"
	switch b.Boolop {
	case pg.BoolExprType_OR_EXPR:
		op, name = table.OpOr, "OR"
	case pg.BoolExprType_NOT_EXPR:
		op, name = table.OpNot, "NOT"
	}
	args := make([]typed, 0, len(b.Args))
	for _, a := range b.Args {
		v, err := x.compile(a)
		if err != nil {
			return v, err
		}
		if v, err = x.boolean(v, name); err != nil {
			return v, err
		}
		if v.e.Op == op && op != table.OpNot { // a and (b and c) is one list, as the grammar makes of (a and b) and c
			for _, a := range v.e.Args {
				args = append(args, typed{e: a, t: table.Bool, at: v.at})
			}
			continue
		}
		args = append(args, v)
	}
	return x.op(int(b.Location), table.Bool, op, args...)
}

func (x *exprCompiler) truth(b *pg.BooleanTest) (typed, error) {
	v, err := x.compile(b.Arg)
	if err != nil {
		return v, err
	}
	name := strings.ReplaceAll(b.Booltesttype.String(), "_", " ")
	if v, err = x.boolean(v, name); err != nil {
		return v, err
	}
	switch b.Booltesttype {
	case pg.BoolTestType_IS_TRUE:
		return x.op(v.at, table.Bool, table.OpIsTrue, v)
	case pg.BoolTestType_IS_NOT_TRUE:
		return x.not(x.op(v.at, table.Bool, table.OpIsTrue, v))
	case pg.BoolTestType_IS_FALSE:
		return x.op(v.at, table.Bool, table.OpIsFalse, v)
	case pg.BoolTestType_IS_NOT_FALSE:
		return x.not(x.op(v.at, table.Bool, table.OpIsFalse, v))
	case pg.BoolTestType_IS_UNKNOWN:
		return x.op(v.at, table.Bool, table.OpIsNull, v)
	case pg.BoolTestType_IS_NOT_UNKNOWN:
		return x.not(x.op(v.at, table.Bool, table.OpIsNull, v))
	}
	return v, x.unsupported(v.at, name)
}

func (x *exprCompiler) list(nodes []*pg.Node) ([]typed, error) {
	var out []typed
	for _, n := range nodes {
		v, err := x.compile(n)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func (x *exprCompiler) coalesce(c *pg.CoalesceExpr) (typed, error) {
	args, err := x.list(c.Args)
	if err != nil {
		return typed{}, err
	}
	t := unknown
	for _, v := range args {
		met, ok := common(t, v.t)
		if !ok {
			return v, x.src.errorf(v.at, codeMismatch, "COALESCE types %s and %s cannot be matched", sqlNames[t], sqlNames[v.t])
		}
		t = met
	}
	if t == unknown {
		t = table.Text
	}
	for i, v := range args {
		if args[i], err = x.cast(v, t); err != nil {
			return v, err
		}
	}
	e := &table.Expr{Op: table.OpCall, Name: "coalesce"}
	for _, v := range args {
		e.Args = append(e.Args, v.e)
	}
	return x.node(int(c.Location), t, e)
}

func (x *exprCompiler) subselect(s *pg.SubLink) (typed, error) {
	at := int(s.Location)
	if x.isDefault {
		return typed{}, x.src.errorf(at, codeUnsupported, "cannot use subquery in DEFAULT expression")
	}
	const hint = "A sub-select can wrap one expression without FROM, as in (select auth.uid())."
	switch s.SubLinkType {
	case pg.SubLinkType_EXPR_SUBLINK:
	case pg.SubLinkType_EXISTS_SUBLINK:
		return typed{}, x.src.errorf(at, codeUnsupported, "EXISTS (SELECT …) is not supported").hint(hint)
	case pg.SubLinkType_ARRAY_SUBLINK:
		return typed{}, x.unsupported(at, "ARRAY (SELECT …)")
	default:
		return typed{}, x.src.errorf(at, codeUnsupported, "IN, ANY or ALL (SELECT …) is not supported").hint(hint)
	}
	q := s.Subselect.GetSelectStmt()
	if q == nil || len(q.TargetList) != 1 || len(q.FromClause)+len(q.DistinctClause)+len(q.GroupClause)+len(q.WindowClause)+
		len(q.ValuesLists)+len(q.SortClause)+len(q.LockingClause) != 0 || q.IntoClause != nil || q.WhereClause != nil ||
		q.HavingClause != nil || q.LimitOffset != nil || q.LimitCount != nil || q.WithClause != nil ||
		q.Op != pg.SetOperation_SETOP_NONE {
		return typed{}, x.src.errorf(at, codeUnsupported, "this sub-select is not supported").hint(hint)
	}
	v, err := x.compile(q.TargetList[0].GetResTarget().GetVal())
	if err != nil {
		return v, err
	}
	return x.known(v)
}

// calls are the functions without arguments, by their qualified names.
var calls = map[string]struct {
	name string
	t    table.Type
}{
	"auth.uid":                    {"auth.uid", table.UUID},
	"auth.jwt":                    {"auth.jwt", table.JSONB},
	"auth.role":                   {"auth.role", table.Text},
	"gen_random_uuid":             {"gen_random_uuid", table.UUID},
	"pg_catalog.gen_random_uuid":  {"gen_random_uuid", table.UUID},
	"extensions.gen_random_uuid":  {"gen_random_uuid", table.UUID},
	"uuid_generate_v4":            {"gen_random_uuid", table.UUID},
	"public.uuid_generate_v4":     {"gen_random_uuid", table.UUID},
	"extensions.uuid_generate_v4": {"gen_random_uuid", table.UUID},
	"now":                         {"now", table.Timestamptz},
	"pg_catalog.now":              {"now", table.Timestamptz},
}

func (x *exprCompiler) call(f *pg.FuncCall) (typed, error) {
	at := int(f.Location)
	var path []string
	for _, n := range f.Funcname {
		path = append(path, n.GetString_().GetSval())
	}
	name := strings.Join(path, ".")
	if len(f.AggOrder) > 0 || f.AggFilter != nil || f.Over != nil || f.AggWithinGroup || f.AggStar || f.AggDistinct || f.FuncVariadic {
		return typed{}, x.unsupported(at, "function "+name+" in this form")
	}
	if known, ok := calls[name]; ok {
		if len(f.Args) != 0 {
			return typed{}, x.src.errorf(at, codeNoFunction, "function %s takes no arguments", name)
		}
		return x.node(at, known.t, &table.Expr{Op: table.OpCall, Name: known.name})
	}
	switch strings.TrimPrefix(name, "pg_catalog.") {
	case "lower", "upper":
		args, err := x.list(f.Args)
		if err != nil {
			return typed{}, err
		}
		if len(args) != 1 || args[0].t != unknown && categoryOf(args[0].t) != textual {
			return typed{}, x.src.errorf(at, codeNoFunction, "function %s takes one argument of type text", name)
		}
		v, err := x.known(args[0])
		if err != nil {
			return v, err
		}
		return x.node(at, table.Text, &table.Expr{Op: table.OpCall, Name: path[len(path)-1], Args: []*table.Expr{v.e}})
	case "current_setting", "auth.email":
		return typed{}, x.src.errorf(at, codeUnsupported, "function %s is not supported", name).
			hint("auth.jwt() holds the claims: auth.jwt() ->> 'email', auth.jwt() ->> 'sub'.")
	}
	return typed{}, x.unsupported(at, "function "+name)
}

var comparisons = map[string]table.Op{
	"=": table.OpEq, "<>": table.OpNe, "<": table.OpLt, "<=": table.OpLe, ">": table.OpGt, ">=": table.OpGe,
}

var arithmetic = map[string]table.Op{"+": table.OpAdd, "-": table.OpSub, "*": table.OpMul, "/": table.OpDiv}

func (x *exprCompiler) operator(a *pg.A_Expr) (typed, error) {
	at := int(a.Location)
	name := ""
	for i, n := range a.Name {
		s := n.GetString_().GetSval()
		if i < len(a.Name)-1 && s != "pg_catalog" {
			return typed{}, x.unsupported(at, "an operator of schema "+s)
		}
		name = s
	}
	switch a.Kind {
	case pg.A_Expr_Kind_AEXPR_OP:
		return x.binary(at, name, a)
	case pg.A_Expr_Kind_AEXPR_IN:
		return x.in(at, name, a)
	case pg.A_Expr_Kind_AEXPR_DISTINCT, pg.A_Expr_Kind_AEXPR_NOT_DISTINCT:
		l, r, err := x.pair(a)
		if err != nil {
			return l, err
		}
		v, err := x.compare(at, "=", table.OpDistinct, l, r)
		if a.Kind == pg.A_Expr_Kind_AEXPR_NOT_DISTINCT {
			return x.not(v, err)
		}
		return v, err
	case pg.A_Expr_Kind_AEXPR_LIKE, pg.A_Expr_Kind_AEXPR_ILIKE:
		return x.like(at, name, a)
	case pg.A_Expr_Kind_AEXPR_BETWEEN, pg.A_Expr_Kind_AEXPR_NOT_BETWEEN:
		v, err := x.between(at, a)
		if a.Kind == pg.A_Expr_Kind_AEXPR_NOT_BETWEEN {
			return x.not(v, err)
		}
		return v, err
	}
	what := map[pg.A_Expr_Kind]string{
		pg.A_Expr_Kind_AEXPR_OP_ANY:          name + " ANY (array)",
		pg.A_Expr_Kind_AEXPR_OP_ALL:          name + " ALL (array)",
		pg.A_Expr_Kind_AEXPR_NULLIF:          "NULLIF",
		pg.A_Expr_Kind_AEXPR_SIMILAR:         "SIMILAR TO",
		pg.A_Expr_Kind_AEXPR_BETWEEN_SYM:     "BETWEEN SYMMETRIC",
		pg.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM: "NOT BETWEEN SYMMETRIC",
	}[a.Kind]
	return typed{}, x.unsupported(at, what)
}

func (x *exprCompiler) pair(a *pg.A_Expr) (l, r typed, err error) {
	if l, err = x.compile(a.Lexpr); err != nil {
		return l, r, err
	}
	r, err = x.compile(a.Rexpr)
	return l, r, err
}

func (x *exprCompiler) noOperator(at int, name string, l, r typed) error {
	return x.src.errorf(at, codeNoFunction, "operator does not exist: %s %s %s", sqlNames[l.t], name, sqlNames[r.t]).hint(noOperatorHint)
}

func (x *exprCompiler) compare(at int, name string, op table.Op, l, r typed) (typed, error) {
	vs := []typed{l, r}
	t, ok, err := x.meet(vs...)
	if err != nil {
		return l, err
	}
	if !ok || t == table.JSON {
		return l, x.noOperator(at, name, l, r)
	}
	return x.op(at, table.Bool, op, vs...)
}

func (x *exprCompiler) binary(at int, name string, a *pg.A_Expr) (typed, error) {
	if a.Lexpr == nil {
		return x.sign(at, name, a)
	}
	l, r, err := x.pair(a)
	if err != nil {
		return l, err
	}
	if op, ok := comparisons[name]; ok {
		return x.compare(at, name, op, l, r)
	}
	if op, ok := arithmetic[name]; ok {
		for _, t := range []table.Type{l.t, r.t} {
			if categoryOf(t) == temporal || t == table.JSONB {
				return l, x.unsupported(at, "operator "+name+" on "+sqlNames[t])
			}
		}
		t, ok := common(l.t, r.t)
		if !ok || categoryOf(t) != numeric {
			return l, x.noOperator(at, name, l, r)
		}
		if l, err = x.cast(l, t); err != nil {
			return l, err
		}
		if r, err = x.cast(r, t); err != nil {
			return r, err
		}
		return x.op(at, t, op, l, r)
	}
	switch name {
	case "||":
		return x.concat(at, l, r)
	case "->", "->>":
		return x.member(at, name, l, r)
	}
	return l, x.unsupported(at, "operator "+name)
}

func (x *exprCompiler) sign(at int, name string, a *pg.A_Expr) (typed, error) {
	v, err := x.compile(a.Rexpr)
	if err != nil {
		return v, err
	}
	if name != "-" && name != "+" {
		return v, x.unsupported(at, "operator "+name)
	}
	if categoryOf(v.t) != numeric {
		return v, x.src.errorf(at, codeNoFunction, "operator does not exist: %s %s", name, sqlNames[v.t]).hint(noOperatorHint)
	}
	if name == "+" {
		return v, nil
	}
	if v.e.Op == table.OpConst && v.e.Value != nil {
		s := "-" + *v.e.Value
		if rest, ok := strings.CutPrefix(s, "--"); ok {
			s = rest
		}
		if out, _, wrong := literal(v.t, s); wrong == "" {
			return x.node(at, v.t, &table.Expr{Op: table.OpConst, Type: v.t, Value: &out})
		}
	}
	minusOne := "-1"
	k, err := x.node(at, v.t, &table.Expr{Op: table.OpConst, Type: v.t, Value: &minusOne})
	if err != nil {
		return v, err
	}
	return x.op(at, v.t, table.OpMul, k, v)
}

func (x *exprCompiler) concat(at int, l, r typed) (typed, error) {
	isText := func(t table.Type) bool { return t == unknown || categoryOf(t) == textual }
	if l.t == table.JSONB && (r.t == table.JSONB || r.t == unknown) || r.t == table.JSONB && l.t == unknown {
		return l, x.unsupported(at, "operator || on jsonb")
	}
	if !isText(l.t) && !isText(r.t) {
		return l, x.noOperator(at, "||", l, r)
	}
	var err error
	if l, err = x.cast(l, table.Text); err != nil {
		return l, err
	}
	if r, err = x.cast(r, table.Text); err != nil {
		return r, err
	}
	return x.op(at, table.Text, table.OpConcat, l, r)
}

func (x *exprCompiler) member(at int, name string, l, r typed) (typed, error) {
	if l.t != table.JSON && l.t != table.JSONB {
		return l, x.noOperator(at, name, l, r)
	}
	var err error
	switch {
	case r.t == unknown:
		r, err = x.cast(r, table.Text)
	case r.t == table.Int2:
		r, err = x.cast(r, table.Int4)
	case r.t != table.Int4 && categoryOf(r.t) != textual:
		return l, x.noOperator(at, name, l, r)
	}
	if err != nil {
		return r, err
	}
	if name == "->" {
		return x.op(at, l.t, table.OpJSONGet, l, r)
	}
	return x.op(at, table.Text, table.OpJSONText, l, r)
}

func (x *exprCompiler) in(at int, name string, a *pg.A_Expr) (typed, error) {
	l, err := x.compile(a.Lexpr)
	if err != nil {
		return l, err
	}
	if a.Rexpr.GetList() == nil {
		return l, x.unsupported(at, "this form of IN")
	}
	vs, err := x.list(a.Rexpr.GetList().Items)
	if err != nil {
		return l, err
	}
	for _, v := range vs {
		if t, ok := common(l.t, v.t); !ok || t == table.JSON {
			return l, x.noOperator(at, name, l, v)
		}
	}
	vs = append([]typed{l}, vs...)
	t, ok, err := x.meet(vs...)
	if err != nil {
		return l, err
	}
	if !ok || t == table.JSON {
		return l, x.noOperator(at, name, l, vs[1])
	}
	v, err := x.op(at, table.Bool, table.OpIn, vs...)
	if name == "<>" {
		return x.not(v, err)
	}
	return v, err
}

func (x *exprCompiler) like(at int, name string, a *pg.A_Expr) (typed, error) {
	if f := a.Rexpr.GetFuncCall(); f != nil && len(f.Funcname) == 2 && f.Funcname[1].GetString_().GetSval() == "like_escape" {
		return typed{}, x.unsupported(at, "LIKE … ESCAPE")
	}
	l, r, err := x.pair(a)
	if err != nil {
		return l, err
	}
	for _, v := range []*typed{&l, &r} {
		if v.t != unknown && categoryOf(v.t) != textual {
			return l, x.noOperator(at, name, l, r)
		}
	}
	if l, err = x.known(l); err != nil {
		return l, err
	}
	if r, err = x.known(r); err != nil {
		return r, err
	}
	op := table.OpLike
	if a.Kind == pg.A_Expr_Kind_AEXPR_ILIKE {
		op = table.OpILike
	}
	v, err := x.op(at, table.Bool, op, l, r)
	if strings.HasPrefix(name, "!") {
		return x.not(v, err)
	}
	return v, err
}

// between is two comparisons, as PostgreSQL makes it: the left side is compiled twice, and counted twice.
func (x *exprCompiler) between(at int, a *pg.A_Expr) (typed, error) {
	bounds := a.Rexpr.GetList().GetItems()
	if len(bounds) != 2 {
		return typed{}, x.unsupported(at, "this form of BETWEEN")
	}
	var sides [2]typed
	for i, name := range []string{">=", "<="} {
		l, err := x.compile(a.Lexpr)
		if err != nil {
			return l, err
		}
		r, err := x.compile(bounds[i])
		if err != nil {
			return r, err
		}
		if sides[i], err = x.compare(at, name, comparisons[name], l, r); err != nil {
			return l, err
		}
	}
	return x.op(at, table.Bool, table.OpAnd, sides[:]...)
}
