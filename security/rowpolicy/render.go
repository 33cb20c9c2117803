package rowpolicy

import (
	"strconv"
	"strings"

	"bulwark/storage/table"
)

// Name returns a table's name with its schema, as SQL: public.notes.
func Name(t *table.Table) string { return quoteIdent(t.Schema) + "." + quoteIdent(t.Name) }

// Render returns an expression as SQL that compiles to it again. Each literal says its type.
func Render(e *table.Expr) string {
	var b strings.Builder
	render(&b, e, false)
	return b.String()
}

// Dump returns the SQL that makes the schema: its tables in order, each followed by its row level security and policies.
func Dump(s *table.Schema) string {
	var b strings.Builder
	if s == nil {
		return ""
	}
	for i, t := range s.Tables {
		if i > 0 {
			b.WriteByte('\n')
		}
		dumpTable(&b, t)
	}
	return b.String()
}

func dumpTable(b *strings.Builder, t *table.Table) {
	name := Name(t)
	b.WriteString("CREATE TABLE " + name + " (")
	comma := ""
	for _, c := range t.Columns {
		b.WriteString(comma + "\n    " + quoteIdent(c.Name) + " " + sqlNames[c.Type])
		if c.MaxLen > 0 {
			b.WriteString("(" + strconv.Itoa(c.MaxLen) + ")")
		}
		if c.Default != nil {
			b.WriteString(" DEFAULT ")
			render(b, c.Default, true)
		}
		if c.NotNull {
			b.WriteString(" NOT NULL")
		}
		comma = ","
	}
	for _, k := range t.Keys {
		kind := " UNIQUE ("
		if k.Primary {
			kind = " PRIMARY KEY ("
		}
		b.WriteString(comma + "\n    CONSTRAINT " + quoteIdent(k.Name) + kind)
		for i, c := range k.Columns {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(quoteIdent(c))
		}
		b.WriteString(")")
		comma = ","
	}
	b.WriteString("\n);\n")
	if t.RLS {
		b.WriteString("ALTER TABLE " + name + " ENABLE ROW LEVEL SECURITY;\n")
	}
	if t.ForceRLS {
		b.WriteString("ALTER TABLE " + name + " FORCE ROW LEVEL SECURITY;\n")
	}
	for _, p := range t.Policies {
		dumpPolicy(b, name, &p)
	}
}

func dumpPolicy(b *strings.Builder, on string, p *table.Policy) {
	b.WriteString("CREATE POLICY " + quoteIdent(p.Name) + " ON " + on)
	if p.Restrictive {
		b.WriteString(" AS RESTRICTIVE")
	}
	b.WriteString(" FOR " + strings.ToUpper(string(p.Command)))
	for i, r := range p.Roles {
		if i == 0 {
			b.WriteString(" TO ")
		} else {
			b.WriteString(", ")
		}
		b.WriteString(quoteIdent(r))
	}
	if p.Using != nil {
		b.WriteString("\n    USING (")
		render(b, p.Using, false)
		b.WriteString(")")
	}
	if p.Check != nil {
		b.WriteString("\n    WITH CHECK (")
		render(b, p.Check, false)
		b.WriteString(")")
	}
	b.WriteString(";\n")
}

// render writes e; where it is a part of something it stands in parentheses, unless it is a name, literal or call.
func render(b *strings.Builder, e *table.Expr, part bool) {
	if e == nil {
		return
	}
	switch e.Op {
	case table.OpConst:
		renderConst(b, e)
		return
	case table.OpColumn:
		b.WriteString(quoteIdent(e.Name))
		return
	case table.OpCall:
		b.WriteString(e.Name + "(")
		renderList(b, ", ", e.Args, false)
		b.WriteString(")")
		return
	}
	if part {
		b.WriteString("(")
		defer b.WriteString(")")
	}
	switch e.Op {
	case table.OpAnd, table.OpOr:
		renderList(b, " "+strings.ToUpper(string(e.Op))+" ", e.Args, true)
	case table.OpNot:
		b.WriteString("NOT ")
		renderList(b, "", e.Args, true)
	case table.OpIsNull:
		renderList(b, "", e.Args, true)
		b.WriteString(" IS NULL")
	case table.OpIsTrue:
		renderList(b, "", e.Args, true)
		b.WriteString(" IS TRUE")
	case table.OpIsFalse:
		renderList(b, "", e.Args, true)
		b.WriteString(" IS FALSE")
	case table.OpDistinct:
		renderList(b, " IS DISTINCT FROM ", e.Args, true)
	case table.OpLike, table.OpILike:
		renderList(b, " "+strings.ToUpper(string(e.Op))+" ", e.Args, true)
	case table.OpIn:
		renderList(b, "", e.Args[:min(1, len(e.Args))], true)
		b.WriteString(" IN (")
		renderList(b, ", ", e.Args[min(1, len(e.Args)):], false)
		b.WriteString(")")
	case table.OpCast:
		renderList(b, "", e.Args, true)
		b.WriteString("::" + sqlNames[e.Type])
	default:
		renderList(b, " "+string(e.Op)+" ", e.Args, true)
	}
}

func renderList(b *strings.Builder, between string, args []*table.Expr, part bool) {
	for i, a := range args {
		if i > 0 {
			b.WriteString(between)
		}
		render(b, a, part)
	}
}

func renderConst(b *strings.Builder, e *table.Expr) {
	switch {
	case e.Value == nil:
		b.WriteString("NULL")
	case e.Type == table.Bool:
		b.WriteString(strings.ToUpper(*e.Value))
		return
	case e.Type == table.Int4 && !strings.HasPrefix(*e.Value, "-"):
		b.WriteString(*e.Value)
		return
	default:
		b.WriteString(quoteText(*e.Value))
	}
	if e.Type != unknown {
		b.WriteString("::" + sqlNames[e.Type])
	}
}

// quoteText writes a string literal, which reads the same whatever standard_conforming_strings says.
func quoteText(s string) string {
	q := strings.ReplaceAll(s, "'", "''")
	if strings.Contains(q, `\`) {
		return "E'" + strings.ReplaceAll(q, `\`, `\\`) + "'"
	}
	return "'" + q + "'"
}

// quoteIdent writes a name: bare only where no keyword can be meant.
func quoteIdent(s string) string {
	bare := s != "" && (s[0] == '_' || 'a' <= s[0] && s[0] <= 'z') && !keywords[s]
	for i := 0; i < len(s) && bare; i++ {
		c := s[i]
		bare = c == '_' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
	}
	if bare {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}
