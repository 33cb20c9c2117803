// Package table keeps application tables: their schema, their rows as sealed JSON, and one predicate tree to which row
// policies and request filters both compile.
//
// Promise: a read or write of rows always carries the policies of the actor's role; there is no call that leaves them
// out. The result of a query is the same with and without an index.
package table

import "bulwark/storage"

// A Type is a column type, by PostgreSQL's own name.
type Type string

// The column types.
const (
	Text        Type = "text"
	Varchar     Type = "varchar"
	Int2        Type = "int2"
	Int4        Type = "int4"
	Int8        Type = "int8"
	Float4      Type = "float4"
	Float8      Type = "float8"
	Numeric     Type = "numeric"
	Bool        Type = "bool"
	UUID        Type = "uuid"
	Date        Type = "date"
	Timestamp   Type = "timestamp"
	Timestamptz Type = "timestamptz"
	JSON        Type = "json"
	JSONB       Type = "jsonb"
)

// A Schema is all that a project declared. It is one sealed record; Version grows with each change.
type Schema struct {
	Version uint64   `cbor:"v"`
	Tables  []*Table `cbor:"t"`
}

// A Table is one declared table. Space is the random name under which its rows are stored: Name was typed by somebody,
// and is sealed with the schema.
type Table struct {
	Schema   string     `cbor:"s"` // "public"
	Name     string     `cbor:"n"`
	Space    string     `cbor:"p"`
	Columns  []Column   `cbor:"c"`
	Keys     []Key      `cbor:"k"` // the primary key first, where there is one
	RLS      bool       `cbor:"r"`
	ForceRLS bool       `cbor:"f"`
	Policies []Policy   `cbor:"o"`
	Resource string     `cbor:"e"` // the resource its permissions are checked under; "" is Name
	Created  storage.ID `cbor:"i"`
}

// A Column is one column. Default is nil where there is none.
type Column struct {
	Name    string `cbor:"n"`
	Type    Type   `cbor:"t"`
	MaxLen  int    `cbor:"m,omitempty"` // of a varchar, in characters
	NotNull bool   `cbor:"x"`
	Default *Expr  `cbor:"d,omitempty"`
}

// A Key is a primary key or a unique constraint.
type Key struct {
	Name    string   `cbor:"n"`
	Primary bool     `cbor:"p"`
	Columns []string `cbor:"c"`
}

// A Command is what a policy is for.
type Command string

// The commands. All stands for each of the others.
const (
	All    Command = "all"
	Select Command = "select"
	Insert Command = "insert"
	Update Command = "update"
	Delete Command = "delete"
)

// A Policy is one row policy, as PostgreSQL's CREATE POLICY. Using and Check are nil where they were not given.
type Policy struct {
	Name        string   `cbor:"n"`
	Command     Command  `cbor:"c"`
	Restrictive bool     `cbor:"r"`
	Roles       []string `cbor:"o"` // empty: public, every role
	Using       *Expr    `cbor:"u,omitempty"`
	Check       *Expr    `cbor:"k,omitempty"`
}

// An Op is the kind of an expression's node.
type Op string

// The operators. The comparison operators have PostgreSQL's three-valued logic.
const (
	OpConst    Op = "const"    // Value, of Type ("" is PostgreSQL's unknown literal; a nil Value is null)
	OpColumn   Op = "col"      // Name
	OpCall     Op = "call"     // Name: "auth.uid", "auth.jwt", "auth.role", "gen_random_uuid", "now", "coalesce", "lower", "upper"; Args
	OpAnd      Op = "and"      // Args
	OpOr       Op = "or"       // Args
	OpNot      Op = "not"      // Args[0]
	OpEq       Op = "="        // Args[0], Args[1]; so are the five below
	OpNe       Op = "<>"       //
	OpLt       Op = "<"        //
	OpLe       Op = "<="       //
	OpGt       Op = ">"        //
	OpGe       Op = ">="       //
	OpIsNull   Op = "isnull"   // Args[0]
	OpIsTrue   Op = "istrue"   // Args[0]; null is not true
	OpIsFalse  Op = "isfalse"  // Args[0]
	OpDistinct Op = "distinct" // IS DISTINCT FROM
	OpIn       Op = "in"       // Args[0] in Args[1:]
	OpLike     Op = "like"     // Args[0] like Args[1]
	OpILike    Op = "ilike"    //
	OpCast     Op = "cast"     // Args[0] as Type
	OpJSONGet  Op = "->"       // Args[0] -> Args[1]
	OpJSONText Op = "->>"      // Args[0] ->> Args[1]
	OpAdd      Op = "+"        //
	OpSub      Op = "-"        //
	OpMul      Op = "*"        //
	OpDiv      Op = "/"        //
	OpConcat   Op = "||"       //
)

// An Expr is a node of the one tree to which row policies, defaults and request filters compile.
type Expr struct {
	Op    Op      `cbor:"o"`
	Name  string  `cbor:"n,omitempty"`
	Type  Type    `cbor:"t,omitempty"`
	Value *string `cbor:"v,omitempty"` // the literal's text, as PostgreSQL would read it
	Args  []*Expr `cbor:"a,omitempty"`
}
