package table

import (
	"strings"

	"bulwark/storage"
)

// Codes of this package's errors: PostgreSQL's SQLSTATE (appendix A of its manual), or PostgREST's own where the fault is
// found before PostgreSQL would see the request.
const (
	CodeDenied        = "42501"
	CodeBadLiteral    = "22P02"
	CodeBadDatetime   = "22007"
	CodeOutOfRange    = "22003"
	CodeDivideByZero  = "22012"
	CodeTooLong       = "22001"
	CodeBadCharacter  = "22P05"
	CodeBadPattern    = "22025"
	CodeUnique        = "23505"
	CodeNotNull       = "23502"
	CodeNoColumn      = "42703"
	CodeNoOperator    = "42883"
	CodeNoCast        = "42846"
	CodeBadType       = "42804"
	CodeTooComplex    = "54001"
	CodeTooLarge      = "54000"
	CodeNoTable       = "PGRST205"
	CodeNoField       = "PGRST204"
	CodeMaxAffected   = "PGRST124"
	CodeBadDefinition = "42P16"
)

// bad makes an error of kind BadInput. Unlike other errors of Bulwark, the message of one that is about a literal quotes
// that literal, as PostgreSQL does: it is the client's own and goes back to that client only.
func bad(code, format string, args ...any) *storage.Error {
	return storage.Errorf(storage.BadInput, code, format, args...)
}

// sqlName is the type's name in PostgreSQL's messages.
func sqlName(t Type) string {
	switch t {
	case "":
		return "unknown"
	case Varchar:
		return "character varying"
	case Int2:
		return "smallint"
	case Int4:
		return "integer"
	case Int8:
		return "bigint"
	case Float4:
		return "real"
	case Float8:
		return "double precision"
	case Bool:
		return "boolean"
	case Timestamp:
		return "timestamp without time zone"
	case Timestamptz:
		return "timestamp with time zone"
	}
	return string(t)
}

// literalShown bounds how much of a literal an error quotes.
const literalShown = 200

func badLiteral(t Type, text string) error {
	code := CodeBadLiteral
	switch t {
	case Date, Timestamp, Timestamptz:
		code = CodeBadDatetime
	case JSON, JSONB:
		return bad(code, "invalid input syntax for type json")
	}
	return bad(code, `invalid input syntax for type %s: "%s"`, sqlName(t), shown(text))
}

func outOfRange(t Type, text string) error {
	return bad(CodeOutOfRange, `value "%s" is out of range for type %s`, shown(text), sqlName(t))
}

func shown(text string) string {
	if len(text) > literalShown {
		text = text[:literalShown] + "…"
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

func noOperator(op Op, a, b Type) error {
	e := bad(CodeNoOperator, "operator does not exist: %s %s %s", sqlName(a), op, sqlName(b))
	e.Hint = "No operator matches the given name and argument types. You might need to add explicit type casts."
	return e
}

func denied(table string) error {
	return storage.Errorf(storage.Denied, CodeDenied, "permission denied for table %s", table)
}

func violates(table string) error {
	return storage.Errorf(storage.Denied, CodeDenied, "new row violates row-level security policy for table %q", table)
}

// The names below come from outside, so they are bounded as literals are.

func noTable(schema, name string) error {
	schema, name = shown(schema), shown(name)
	return storage.Errorf(storage.NotFound, CodeNoTable, "Could not find the table '%s.%s' in the schema cache", schema, name)
}

func noColumn(table, column string) error {
	column = shown(column)
	e := bad(CodeNoColumn, "column %s.%s does not exist", table, column)
	e.Field = column
	return e
}

func noField(table, column string) error {
	column = shown(column)
	e := bad(CodeNoField, "Could not find the '%s' column of '%s' in the schema cache", column, table)
	e.Field = column
	return e
}

// damaged says that what is stored contradicts itself: a fault of ours or of the disk, never of the client.
func damaged(what string) error {
	return storage.Errorf(storage.Internal, "table_damaged", "the table's stored form is damaged: %s; check the node's disk and restore from a snapshot", what)
}
