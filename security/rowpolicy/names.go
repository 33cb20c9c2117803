package rowpolicy

import (
	"reflect"
	"strings"
	"unicode"

	pg "github.com/pganalyze/pg_query_go/v6"

	"bulwark/storage/table"
)

// unsupportedTypes are types of PostgreSQL that exist, but not here.
var unsupportedTypes = map[string]string{
	"bpchar": "character", "bytea": "", "interval": "", "time": "", "timetz": "", "money": "", "inet": "", "cidr": "", "macaddr": "", "xml": "",
	"bit": "", "varbit": "", "point": "", "line": "", "box": "", "path": "", "polygon": "", "circle": "", "lseg": "",
	"tsvector": "", "tsquery": "", "hstore": "", "citext": "", "name": "", "oid": "", "char": "", "regclass": "", "vector": "",
	"int4range": "", "int8range": "", "numrange": "", "tsrange": "", "tstzrange": "", "daterange": "", "jsonpath": "",
}

// typeName resolves a type's name and, of a varchar, its length.
func typeName(src *source, n *pg.TypeName) (table.Type, int, error) {
	at := int(n.GetLocation())
	var parts []string
	for _, p := range n.GetNames() {
		parts = append(parts, p.GetString_().GetSval())
	}
	name := strings.Join(parts, ".")
	if len(parts) == 2 && parts[0] == "pg_catalog" {
		name = parts[1]
	}
	refuse := func(what, hint string) (table.Type, int, error) {
		return unknown, 0, src.errorf(at, codeUnsupported, "%s is not supported", what).hint(hint)
	}
	switch {
	case n.GetSetof():
		return refuse("SETOF", "")
	case n.GetPctType():
		return refuse("%TYPE", "")
	case len(n.GetArrayBounds()) > 0:
		return refuse("type "+name+"[]", "Use jsonb for lists.")
	}
	t := table.Type(name)
	if _, ok := sqlNames[t]; !ok || t == unknown {
		if strings.Contains(name, "serial") {
			return refuse("type "+name, "Use uuid default gen_random_uuid().")
		}
		if shown, ok := unsupportedTypes[name]; ok {
			if shown != "" {
				name = shown
			}
			return refuse("type "+name, "")
		}
		return unknown, 0, src.errorf(at, codeNoObject, "type %q does not exist", name)
	}
	mods := n.GetTypmods()
	if len(mods) == 0 {
		return t, 0, nil
	}
	if t != table.Varchar {
		return refuse("type "+sqlNames[t]+" with a precision", "Leave the precision out.")
	}
	length := mods[0].GetAConst().GetIval().GetIval()
	if len(mods) != 1 || mods[0].GetAConst().GetIval() == nil || length < 1 || length > 10485760 {
		return unknown, 0, src.errorf(at, "22023", "length for type varchar must be between 1 and 10485760")
	}
	return t, int(length), nil
}

// location is where an expression says that it is.
func location(n *pg.Node) int {
	m := n.ProtoReflect()
	f := m.WhichOneof(m.Descriptor().Oneofs().ByName("node"))
	if f == nil {
		return 0
	}
	inner := m.Get(f).Message()
	if l := inner.Descriptor().Fields().ByName("location"); l != nil {
		return max(0, int(inner.Get(l).Int()))
	}
	return 0
}

// construct names an expression that the subset does not have.
func construct(node any) string {
	switch n := node.(type) {
	case *pg.Node_CaseExpr:
		return "CASE"
	case *pg.Node_AArrayExpr:
		return "ARRAY[…]"
	case *pg.Node_RowExpr:
		return "ROW (…)"
	case *pg.Node_MinMaxExpr:
		return strings.TrimPrefix(n.MinMaxExpr.Op.String(), "IS_")
	case *pg.Node_ParamRef:
		return "a parameter ($1)"
	case *pg.Node_AIndirection:
		return "a subscript or field selection"
	case *pg.Node_CollateClause:
		return "COLLATE"
	case *pg.Node_GroupingFunc:
		return "GROUPING"
	case *pg.Node_SetToDefault:
		return "DEFAULT in an expression"
	case nil:
		return "an empty expression"
	}
	return "this expression (" + nodeName(node) + ")"
}

// tags are the statements whose name is not that of their node.
var tags = map[string]string{
	"CreateTrigStmt": "CREATE TRIGGER", "CreateEventTrigStmt": "CREATE EVENT TRIGGER", "AlterEventTrigStmt": "ALTER EVENT TRIGGER",
	"CreateSeqStmt": "CREATE SEQUENCE", "AlterSeqStmt": "ALTER SEQUENCE", "IndexStmt": "CREATE INDEX", "ViewStmt": "CREATE VIEW",
	"RuleStmt": "CREATE RULE", "CreateEnumStmt": "CREATE TYPE", "CompositeTypeStmt": "CREATE TYPE", "CreateRangeStmt": "CREATE TYPE",
	"AlterEnumStmt": "ALTER TYPE", "CreateTableAsStmt": "CREATE TABLE AS", "CreateFdwStmt": "CREATE FOREIGN DATA WRAPPER",
	"CommentStmt": "COMMENT ON", "VariableSetStmt": "SET", "VariableShowStmt": "SHOW", "CreatedbStmt": "CREATE DATABASE",
	"DropdbStmt": "DROP DATABASE", "SecLabelStmt": "SECURITY LABEL", "RenameStmt": "ALTER … RENAME", "AlterOwnerStmt": "ALTER … OWNER TO",
	"AlterObjectSchemaStmt": "ALTER … SET SCHEMA", "AlterObjectDependsStmt": "ALTER … DEPENDS ON", "GrantRoleStmt": "GRANT or REVOKE",
	"RefreshMatViewStmt": "REFRESH MATERIALIZED VIEW", "ConstraintsSetStmt": "SET CONSTRAINTS", "DeclareCursorStmt": "DECLARE",
	"ClosePortalStmt": "CLOSE", "CheckPointStmt": "CHECKPOINT", "CreateStatsStmt": "CREATE STATISTICS", "AlterStatsStmt": "ALTER STATISTICS",
	"CreateAmStmt": "CREATE ACCESS METHOD", "CreatePlangStmt": "CREATE LANGUAGE", "CreateOpClassStmt": "CREATE OPERATOR CLASS",
	"CreateOpFamilyStmt": "CREATE OPERATOR FAMILY", "PlassignStmt": "an assignment", "AlterRoleSetStmt": "ALTER ROLE",
	"CreateForeignServerStmt": "CREATE SERVER", "AlterDatabaseSetStmt": "ALTER DATABASE", "ReturnStmt": "RETURN",
	"AlterTsdictionaryStmt": "ALTER TEXT SEARCH DICTIONARY", "AlterTsconfigurationStmt": "ALTER TEXT SEARCH CONFIGURATION",
}

// tag names a statement as PostgreSQL's command tags do, where the grammar tells.
func tag(n *pg.Node) string {
	name := nodeName(n.GetNode())
	switch n := n.GetNode().(type) {
	case *pg.Node_DropStmt:
		return "DROP " + strings.ReplaceAll(strings.TrimPrefix(n.DropStmt.RemoveType.String(), "OBJECT_"), "_", " ")
	case *pg.Node_CommentStmt:
		return "COMMENT ON " + strings.ReplaceAll(strings.TrimPrefix(n.CommentStmt.Objtype.String(), "OBJECT_"), "_", " ")
	case *pg.Node_TransactionStmt:
		t := n.TransactionStmt
		s := strings.ReplaceAll(strings.TrimPrefix(t.Kind.String(), "TRANS_STMT_"), "_", " ")
		if t.Chain {
			return s + " AND CHAIN"
		}
		if len(t.Options) > 0 {
			return s + " with transaction modes"
		}
		return s
	case *pg.Node_CreateFunctionStmt:
		if n.CreateFunctionStmt.IsProcedure {
			return "CREATE PROCEDURE"
		}
	case *pg.Node_GrantStmt:
		if !n.GrantStmt.IsGrant {
			return "REVOKE"
		}
	case *pg.Node_DefineStmt:
		return "CREATE " + strings.ReplaceAll(strings.TrimPrefix(n.DefineStmt.Kind.String(), "OBJECT_"), "_", " ")
	}
	if s := tags[name]; s != "" {
		return s
	}
	return words(strings.TrimSuffix(name, "Stmt"))
}

// nodeName is the grammar's own name of a node.
func nodeName(node any) string {
	if node == nil {
		return "nothing"
	}
	return strings.TrimPrefix(reflect.TypeOf(node).Elem().Name(), "Node_")
}

// words splits a name in camel case into upper-case words.
func words(s string) string {
	var b strings.Builder
	for i, r := range s {
		if i > 0 && unicode.IsUpper(r) {
			b.WriteByte(' ')
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}
