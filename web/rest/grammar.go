package rest

import (
	"strconv"
	"strings"

	"bulwark/storage/table"
)

// maxTree bounds the nesting of or=(…) and and=(…).
const maxTree = 50

// A scanner reads one parameter's text.
type scanner struct {
	text string
	at   int
}

func (s *scanner) rest() string { return s.text[s.at:] }
func (s *scanner) done() bool   { return s.at >= len(s.text) }

func (s *scanner) peek() byte {
	if s.done() {
		return 0
	}
	return s.text[s.at]
}

func (s *scanner) take(prefix string) bool {
	if !strings.HasPrefix(s.rest(), prefix) {
		return false
	}
	s.at += len(prefix)
	return true
}

func (s *scanner) spaces() {
	for !s.done() && s.peek() == ' ' {
		s.at++
	}
}

// until returns the text up to the first of stop, or all that is left.
func (s *scanner) until(stop string) string {
	i := strings.IndexAny(s.rest(), stop)
	if i < 0 {
		i = len(s.rest())
	}
	word := s.text[s.at : s.at+i]
	s.at += i
	return word
}

// quoted reads a "…" with \" and \\ in it. ok is false, and nothing is read, where there is none that is followed by one
// of stop or the end: some clients do not escape a quote inside, and such a text stands for itself.
func (s *scanner) quoted(stop string) (text string, ok bool) {
	if s.peek() != '"' {
		return "", false
	}
	var b strings.Builder
	for i := s.at + 1; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '\\' && i+1 < len(s.text):
			i++
			b.WriteByte(s.text[i])
		case c == '"':
			if i+1 < len(s.text) && strings.IndexByte(stop, s.text[i+1]) < 0 {
				return "", false
			}
			s.at = i + 1
			return b.String(), true
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

// name reads a column's name up to one of stop or a JSON arrow.
func (s *scanner) name(stop string) string {
	if name, ok := s.quoted(stop + "-"); ok {
		return name
	}
	from := s.at
	for !s.done() && strings.IndexByte(stop, s.peek()) < 0 && !strings.HasPrefix(s.rest(), "->") {
		s.at++
	}
	return strings.TrimSpace(s.text[from:s.at])
}

// field reads a column with an optional JSON path: a, a->b->>c, "a.b".
func (s *scanner) field(stop string) (*table.Expr, bool) {
	name := s.name(stop)
	if name == "" {
		return nil, false
	}
	e := &table.Expr{Op: table.OpColumn, Name: name}
	for {
		op := table.OpJSONGet
		switch {
		case s.take("->>"):
			op = table.OpJSONText
		case s.take("->"):
		default:
			return e, true
		}
		key := s.name(stop)
		if key == "" {
			return nil, false
		}
		k := &table.Expr{Op: table.OpConst, Type: table.Text, Value: &key}
		if _, err := strconv.ParseInt(key, 10, 32); err == nil {
			k.Type = table.Int4
		}
		e = &table.Expr{Op: op, Args: []*table.Expr{e, k}}
	}
}

func comparison(word string) (table.Op, bool) {
	switch word {
	case "eq":
		return table.OpEq, true
	case "neq":
		return table.OpNe, true
	case "gt":
		return table.OpGt, true
	case "gte":
		return table.OpGe, true
	case "lt":
		return table.OpLt, true
	case "lte":
		return table.OpLe, true
	case "like":
		return table.OpLike, true
	case "ilike":
		return table.OpILike, true
	case "isdistinct":
		return table.OpDistinct, true
	}
	return "", false
}

const expectOperator = `expecting "not" or operator (eq, neq, gt, gte, lt, lte, like, ilike, is, in, isdistinct)`

// condition reads [not.]op[(any|all)].value and applies it to left. nested says that the value ends at a comma or a
// bracket, as inside or=(…), rather than at the end of the text. what names the parameter in errors.
func (s *scanner) condition(left *table.Expr, nested bool, what string) (*table.Expr, error) {
	if s.take("not.") {
		e, err := s.condition1(left, nested, what)
		if err != nil {
			return nil, err
		}
		return &table.Expr{Op: table.OpNot, Args: []*table.Expr{e}}, nil
	}
	return s.condition1(left, nested, what)
}

func (s *scanner) condition1(left *table.Expr, nested bool, what string) (*table.Expr, error) {
	word := s.until(".(,)")
	modifier := ""
	if s.peek() == '(' && word != "in" {
		switch {
		case s.take("(any)"):
			modifier = "any"
		case s.take("(all)"):
			modifier = "all"
		}
	}
	if !s.take(".") {
		return nil, s.unexpected(what, expectOperator)
	}
	switch word {
	case "is":
		return s.is(left, nested, what)
	case "in":
		return s.in(left, what)
	}
	op, ok := comparison(word)
	if !ok || modifier != "" && op == table.OpNe || modifier != "" && op == table.OpDistinct {
		return nil, parseFault(what, s.text, `unexpected operator "`+shown(word)+`" `+expectOperator)
	}
	if modifier != "" {
		return s.each(op, left, modifier, what)
	}
	return compareTo(op, left, s.value(nested)), nil
}

func (s *scanner) unexpected(what, expecting string) error {
	found := "end of input"
	if !s.done() {
		r := []rune(strings.ToValidUTF8(s.rest(), "\uFFFD"))
		found = strconv.Quote(string(r[0]))
	}
	return parseFault(what, s.text, "unexpected "+found+" "+expecting)
}

// value reads an operand.
func (s *scanner) value(nested bool) string {
	if !nested {
		v := s.rest()
		s.at = len(s.text)
		return v
	}
	if v, ok := s.quoted(",)"); ok {
		return v
	}
	if v, ok := s.braces(); ok {
		return v
	}
	return s.until(",)")
}

// braces reads an array literal whole, since it holds commas of its own.
func (s *scanner) braces() (string, bool) {
	if s.peek() != '{' {
		return "", false
	}
	depth, quoted := 0, false
	for i := s.at; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 {
				v := s.text[s.at : i+1]
				s.at = i + 1
				return v, true
			}
		}
	}
	return "", false
}

func literal(text string) *table.Expr { return &table.Expr{Op: table.OpConst, Value: &text} }

// compareTo applies an operator. In patterns * is an alias of %, which is awkward in a URL.
func compareTo(op table.Op, left *table.Expr, text string) *table.Expr {
	if op == table.OpLike || op == table.OpILike {
		text = strings.ReplaceAll(text, "*", "%")
	}
	return &table.Expr{Op: op, Args: []*table.Expr{left, literal(text)}}
}

func (s *scanner) is(left *table.Expr, nested bool, what string) (*table.Expr, error) {
	from := s.at
	one := func(op table.Op) *table.Expr { return &table.Expr{Op: op, Args: []*table.Expr{left}} }
	switch strings.ToLower(s.value(nested)) {
	case "null", "unknown":
		return one(table.OpIsNull), nil
	case "not_null":
		return &table.Expr{Op: table.OpNot, Args: []*table.Expr{one(table.OpIsNull)}}, nil
	case "true":
		return one(table.OpIsTrue), nil
	case "false":
		return one(table.OpIsFalse), nil
	}
	s.at = from
	return nil, s.unexpected(what, "expecting null, not_null, true, false or unknown")
}

// in reads in.(a,"b,c",d).
func (s *scanner) in(left *table.Expr, what string) (*table.Expr, error) {
	if !s.take("(") {
		return nil, s.unexpected(what, `expecting "("`)
	}
	e := &table.Expr{Op: table.OpIn, Args: []*table.Expr{left}}
	if s.take(")") {
		return e, nil
	}
	for {
		v, ok := s.quoted(",)")
		if !ok {
			v = s.until(",)")
		}
		e.Args = append(e.Args, literal(v))
		if s.take(")") {
			return e, nil
		}
		if !s.take(",") {
			return nil, s.unexpected(what, `expecting "," or ")"`)
		}
	}
}

// each reads {a,b} and joins the comparisons with its elements by OR (any) or AND (all).
func (s *scanner) each(op table.Op, left *table.Expr, modifier, what string) (*table.Expr, error) {
	text, ok := s.braces()
	if !ok {
		return nil, s.unexpected(what, `expecting "{"`)
	}
	e := &table.Expr{Op: table.OpOr}
	if modifier == "all" {
		e.Op = table.OpAnd
	}
	inner := &scanner{text: text[1 : len(text)-1]}
	for inner.text != "" {
		v, ok := inner.quoted(",")
		if !ok {
			v = inner.until(",")
		}
		e.Args = append(e.Args, compareTo(op, left, v))
		if !inner.take(",") {
			break
		}
	}
	return e, nil
}

// parseFilter reads the parameter name=text.
func parseFilter(name, text string) (*table.Expr, error) {
	column := &scanner{text: name}
	left, ok := column.field(".")
	if !ok {
		return nil, parseFault("filter", name, `unexpected end of input expecting a column`)
	}
	if column.peek() == '.' {
		return nil, notEmbedded(left.Name)
	}
	if !column.done() {
		return nil, column.unexpected("filter", "expecting end of input")
	}
	s := &scanner{text: text}
	e, err := s.condition(left, false, "filter")
	if err != nil {
		return nil, err
	}
	if !s.done() {
		return nil, s.unexpected("filter", "expecting end of input")
	}
	return e, nil
}

func notEmbedded(name string) error {
	return newFault(400, codeNotEmbedded, "'"+shown(name)+"' is not an embedded resource in this request").
		hint("Verify that '" + shown(name) + "' is included in the 'select' query parameter.")
}

// parseTree reads the parameter or=(…), and=(…), not.or=(…) or not.and=(…).
func parseTree(name, text string) (*table.Expr, error) {
	s := &scanner{text: text}
	word, negated := strings.CutPrefix(name, "not.")
	e, err := s.tree(word, negated, 0)
	if err != nil {
		return nil, err
	}
	if !s.done() {
		return nil, s.unexpected("logic tree", "expecting end of input")
	}
	return e, nil
}

func (s *scanner) tree(word string, negated bool, depth int) (*table.Expr, error) {
	if depth > maxTree {
		return nil, parseFault("logic tree", s.text, "it is nested too deeply")
	}
	e := &table.Expr{Op: table.OpAnd}
	if word == "or" {
		e.Op = table.OpOr
	}
	s.spaces()
	if !s.take("(") {
		return nil, s.unexpected("logic tree", `expecting "("`)
	}
	for {
		s.spaces()
		arg, err := s.branch(depth)
		if err != nil {
			return nil, err
		}
		e.Args = append(e.Args, arg)
		s.spaces()
		if s.take(")") {
			break
		}
		if !s.take(",") {
			return nil, s.unexpected("logic tree", `expecting "," or ")"`)
		}
	}
	if negated {
		e = &table.Expr{Op: table.OpNot, Args: []*table.Expr{e}}
	}
	return e, nil
}

// branch reads one element of a tree: a condition, or a tree.
func (s *scanner) branch(depth int) (*table.Expr, error) {
	for _, start := range [...]string{"and(", "or(", "not.and(", "not.or("} {
		if strings.HasPrefix(s.rest(), start) {
			word, negated := strings.CutPrefix(start[:len(start)-1], "not.")
			s.at += len(start) - 1
			return s.tree(word, negated, depth+1)
		}
	}
	left, ok := s.field(".,()")
	if !ok {
		return nil, s.unexpected("logic tree", "expecting a column, and(…) or or(…)")
	}
	if !s.take(".") {
		return nil, s.unexpected("logic tree", `expecting "."`)
	}
	return s.condition(left, true, "logic tree")
}

// parseOrder reads col.asc|desc[.nullsfirst|.nullslast],….
func parseOrder(text string) ([]table.Order, error) {
	s := &scanner{text: text}
	var list []table.Order
	for {
		s.spaces()
		column, ok := s.field(".,(")
		if !ok {
			return nil, s.unexpected("order", "expecting a column")
		}
		if s.peek() == '(' {
			return nil, notEmbedded(column.Name)
		}
		if column.Op != table.OpColumn {
			return nil, parseFault("order", text, "ordering by a part of a JSON column is not supported")
		}
		o := table.Order{Column: column.Name}
		if err := s.direction(&o); err != nil {
			return nil, err
		}
		list = append(list, o)
		s.spaces()
		if s.done() {
			return list, nil
		}
		if !s.take(",") {
			return nil, s.unexpected("order", `expecting "," or end of input`)
		}
	}
}

func (s *scanner) direction(o *table.Order) error {
	const expecting = "expecting asc, desc, nullsfirst or nullslast"
	for place := 0; s.take("."); place++ {
		from := s.at
		switch word := strings.TrimSpace(s.until(".,")); {
		case place == 0 && word == "asc":
		case place == 0 && word == "desc":
			o.Desc = true
		case place <= 1 && word == "nullsfirst":
			o.Nulls = table.NullsFirst
			place = 1
		case place <= 1 && word == "nullslast":
			o.Nulls = table.NullsLast
			place = 1
		default:
			s.at = from
			return s.unexpected("order", expecting)
		}
	}
	return nil
}

// parseSelect reads a select list; nil stands for *. from is the table, for errors.
func parseSelect(text, from string) ([]table.Output, error) {
	s := &scanner{text: text}
	list := []table.Output{}
	for s.spaces(); !s.done(); {
		if s.take("*") {
			list = append(list, table.Output{Column: table.Star})
		} else {
			out, err := s.output(from)
			if err != nil {
				return nil, err
			}
			list = append(list, out)
		}
		s.spaces()
		if s.done() {
			break
		}
		if !s.take(",") {
			return nil, s.unexpected("select parameter", `expecting "," or end of input`)
		}
		if s.spaces(); s.done() {
			return nil, s.unexpected("select parameter", "expecting a column")
		}
	}
	if len(list) == 1 && list[0].Column == table.Star {
		return nil, nil
	}
	return list, nil
}

// output reads [alias:]column. What else PostgREST takes here is refused by what it is.
func (s *scanner) output(from string) (table.Output, error) {
	if s.take("...") {
		name := s.name("!(,")
		return table.Output{}, noRelationship(from, name)
	}
	name := s.name(":,.(!")
	out := table.Output{Column: name}
	if s.peek() == ':' && !strings.HasPrefix(s.rest(), "::") {
		s.at++
		s.spaces()
		out.As = name
		out.Column = s.name(":,.(!")
	}
	switch {
	case out.Column == "" && s.peek() != '(':
		return out, s.unexpected("select parameter", "expecting a column")
	case s.peek() == '!' || s.peek() == '(' && out.Column != "count":
		return out, noRelationship(from, out.Column)
	case s.peek() == '(' || s.peek() == '.':
		return out, newFault(400, codeAggregate, "Use of aggregate functions is not allowed")
	case strings.HasPrefix(s.rest(), "::"):
		return out, parseFault("select parameter", s.text, "casts are not supported here")
	case strings.HasPrefix(s.rest(), "->"):
		return out, parseFault("select parameter", s.text, "selecting a part of a JSON column is not supported: select the column")
	}
	return out, nil
}

func noRelationship(from, to string) error {
	return newFault(400, codeRelationship, "Could not find a relationship between '"+shown(from)+"' and '"+shown(to)+"' in the schema cache").
		details("Searched for a foreign key relationship between '" + shown(from) + "' and '" + shown(to) + "' in the schema 'public', but no matches were found.")
}

// parseColumns reads columns=a,"b".
func parseColumns(text string) ([]string, error) {
	s := &scanner{text: text}
	list := []string{}
	for {
		s.spaces()
		name := s.name(",")
		if name == "" {
			return nil, s.unexpected("columns parameter", "expecting a column")
		}
		list = append(list, name)
		s.spaces()
		if s.done() {
			return list, nil
		}
		if !s.take(",") {
			return nil, s.unexpected("columns parameter", `expecting "," or end of input`)
		}
	}
}
