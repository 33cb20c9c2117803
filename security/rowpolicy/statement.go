package rowpolicy

import (
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"bulwark/storage/table"
)

// A compiler applies statements to a copy of a schema. Tables are shared with the schema that was given until they
// change: edit copies one first.
type compiler struct {
	src     *source
	rand    io.Reader
	next    *table.Schema
	changes []Change
}

func (c *compiler) statement(raw *pg.RawStmt) error {
	at := c.src.start(int(raw.StmtLocation))
	switch n := raw.Stmt.GetNode().(type) {
	case *pg.Node_CreateStmt:
		return c.createTable(at, n.CreateStmt)
	case *pg.Node_AlterTableStmt:
		return c.alterTable(at, n.AlterTableStmt)
	case *pg.Node_CreatePolicyStmt:
		return c.createPolicy(at, n.CreatePolicyStmt)
	case *pg.Node_DropStmt:
		switch n.DropStmt.RemoveType {
		case pg.ObjectType_OBJECT_TABLE:
			return c.dropTable(at, n.DropStmt)
		case pg.ObjectType_OBJECT_POLICY:
			return c.dropPolicy(at, n.DropStmt)
		}
	case *pg.Node_CreateExtensionStmt:
		return c.createExtension(at, n.CreateExtensionStmt)
	case *pg.Node_TransactionStmt:
		t := n.TransactionStmt
		switch t.Kind {
		case pg.TransactionStmtKind_TRANS_STMT_BEGIN, pg.TransactionStmtKind_TRANS_STMT_START,
			pg.TransactionStmtKind_TRANS_STMT_COMMIT:
			if len(t.Options) == 0 && !t.Chain {
				return nil // a text is one transaction anyway
			}
		}
	}
	return c.unsupported(at, tag(raw.Stmt))
}

func (c *compiler) unsupported(at int, what string) *Error {
	return c.src.errorf(at, codeUnsupported, "%s is not supported", what)
}

func (c *compiler) did(action, object string) {
	c.changes = append(c.changes, Change{Action: action, Object: object})
}

func (c *compiler) note(object, format string, args ...any) {
	c.changes = append(c.changes, Change{Action: "note", Object: object, Note: fmt.Sprintf(format, args...)})
}

// schemaOf returns the schema of a name: "public" where it has none.
func (c *compiler) schemaOf(at int, r *pg.RangeVar) (string, error) {
	if r.Catalogname != "" {
		return "", c.src.errorf(at, codeUnsupported, "cross-database references are not implemented: %q", r.Catalogname)
	}
	if r.Schemaname == "" {
		return public, nil
	}
	return r.Schemaname, nil
}

const public = "public"

func (c *compiler) find(schema, name string) int {
	return slices.IndexFunc(c.next.Tables, func(t *table.Table) bool { return t.Schema == schema && t.Name == name })
}

// edit returns a copy of the table, which stands in the next schema, to be changed.
func (c *compiler) edit(i int) *table.Table {
	t := *c.next.Tables[i]
	t.Policies = slices.Clone(t.Policies)
	c.next.Tables[i] = &t
	return &t
}

// lookup finds the table that a statement is about.
func (c *compiler) lookup(at int, r *pg.RangeVar) (int, error) {
	schema, err := c.schemaOf(at, r)
	if err != nil {
		return 0, err
	}
	i := c.find(schema, r.Relname)
	if i < 0 {
		name := r.Relname
		if r.Schemaname != "" {
			name = r.Schemaname + "." + name
		}
		return -1, c.src.errorf(location1(r.Location, at), codeNoTable, "relation %q does not exist", name)
	}
	return i, nil
}

// location1 is where a node says that it is, or at.
func location1(location int32, at int) int {
	if location > 0 {
		return int(location)
	}
	return at
}

func (c *compiler) createTable(at int, s *pg.CreateStmt) error {
	switch {
	case s.Relation.Relpersistence == "t":
		return c.unsupported(at, "CREATE TEMPORARY TABLE")
	case s.Relation.Relpersistence == "u":
		return c.unsupported(at, "CREATE UNLOGGED TABLE")
	case len(s.InhRelations) > 0 && s.Partbound == nil:
		return c.unsupported(at, "INHERITS")
	case s.Partbound != nil:
		return c.unsupported(at, "PARTITION OF")
	case s.Partspec != nil:
		return c.unsupported(at, "PARTITION BY")
	case s.OfTypename != nil:
		return c.unsupported(at, "CREATE TABLE … OF")
	case len(s.Options) > 0:
		return c.unsupported(at, "CREATE TABLE … WITH (…)")
	case s.Tablespacename != "":
		return c.unsupported(at, "TABLESPACE")
	case s.AccessMethod != "":
		return c.unsupported(at, "CREATE TABLE … USING")
	case s.Oncommit > pg.OnCommitAction_ONCOMMIT_NOOP:
		return c.unsupported(at, "ON COMMIT")
	}
	nameAt := location1(s.Relation.Location, at)
	schema, err := c.schemaOf(nameAt, s.Relation)
	if err != nil {
		return err
	}
	if schema != public {
		return c.src.errorf(nameAt, codeNoSchema, "schema %q does not exist", schema).hint("Tables live in the schema public.")
	}
	t := &table.Table{Schema: schema, Name: s.Relation.Relname}
	if c.taken(t, t.Name) {
		if s.IfNotExists {
			c.note(Name(t), "relation %q already exists, skipping", t.Name)
			return nil
		}
		return c.src.errorf(nameAt, codeDuplicateTable, "relation %q already exists", t.Name)
	}
	if len(c.next.Tables) >= MaxTables {
		return c.src.errorf(at, codeLimit, "a project can have at most %d tables", MaxTables)
	}
	if err := c.elements(t, s.TableElts); err != nil {
		return err
	}
	if t.Space, err = c.newSpace(); err != nil {
		return err
	}
	c.next.Tables = append(c.next.Tables, t)
	c.changes = append(c.changes, Change{Action: "create table", Object: Name(t), Count: len(t.Columns)})
	return nil
}

// newSpace draws the name under which a table's rows are stored.
func (c *compiler) newSpace() (string, error) {
	var b [8]byte
	if _, err := io.ReadFull(c.rand, b[:]); err != nil {
		return "", fmt.Errorf("naming a table's space: %w", err)
	}
	space := "t" + hex.EncodeToString(b[:])
	if slices.ContainsFunc(c.next.Tables, func(t *table.Table) bool { return t.Space == space }) {
		return "", fmt.Errorf("naming a table's space: the random source gave the same name twice")
	}
	return space, nil
}

// taken reports whether a table or key of t's schema, or of t itself, has the name: PostgreSQL keeps an index per key,
// and indexes share the names of tables.
func (c *compiler) taken(t *table.Table, name string) bool {
	has := func(o *table.Table) bool {
		return o.Schema == t.Schema && (o.Name == name || slices.ContainsFunc(o.Keys, func(k table.Key) bool { return k.Name == name }))
	}
	return slices.ContainsFunc(c.next.Tables, has) || len(t.Columns) > 0 && has(t)
}

func (c *compiler) elements(t *table.Table, elements []*pg.Node) error {
	var defaults []func() error
	var keys []*pg.Constraint
	for _, n := range elements {
		switch n := n.GetNode().(type) {
		case *pg.Node_ColumnDef:
			own, value, err := c.columnDef(t, n.ColumnDef)
			if err != nil {
				return err
			}
			keys = append(keys, own...)
			if value != nil {
				defaults = append(defaults, value)
			}
		case *pg.Node_Constraint:
			k := n.Constraint
			switch k.Contype {
			case pg.ConstrType_CONSTR_PRIMARY, pg.ConstrType_CONSTR_UNIQUE:
				keys = append(keys, k)
			default:
				return c.constraint(k)
			}
		case *pg.Node_TableLikeClause:
			return c.unsupported(location1(n.TableLikeClause.Relation.GetLocation(), 0), "CREATE TABLE … LIKE")
		default:
			return c.unsupported(0, "this part of CREATE TABLE")
		}
	}
	for _, value := range defaults {
		if err := value(); err != nil {
			return err
		}
	}
	return c.keys(t, keys)
}

// columnDef adds a column. It returns the keys that its constraints ask for and what compiles its default, if it has one.
func (c *compiler) columnDef(t *table.Table, d *pg.ColumnDef) (keys []*pg.Constraint, value func() error, err error) {
	at := int(d.Location)
	if len(t.Columns) >= MaxColumns {
		return nil, nil, c.src.errorf(at, codeTooManyColumns, "tables can have at most %d columns", MaxColumns)
	}
	if columnOf(t, d.Colname) != nil {
		return nil, nil, c.src.errorf(at, codeDupColumn, "column %q specified more than once", d.Colname)
	}
	if d.CollClause != nil {
		return nil, nil, c.unsupported(int(d.CollClause.Location), "COLLATE")
	}
	if d.StorageName != "" || d.Compression != "" || len(d.Fdwoptions) > 0 {
		return nil, nil, c.unsupported(at, "a column's STORAGE, COMPRESSION or OPTIONS")
	}
	col := table.Column{Name: d.Colname}
	if col.Type, col.MaxLen, err = typeName(c.src, d.TypeName); err != nil {
		return nil, nil, err
	}
	var null, notNull bool
	var def *pg.Constraint
	for _, n := range d.Constraints {
		k := n.GetConstraint()
		switch k.GetContype() {
		case pg.ConstrType_CONSTR_NOTNULL:
			notNull = true
		case pg.ConstrType_CONSTR_NULL:
			null = true
		case pg.ConstrType_CONSTR_DEFAULT:
			if def != nil {
				return nil, nil, c.src.errorf(int(k.Location), codeSyntax, "multiple default values specified for column %q of table %q",
					col.Name, t.Name)
			}
			def = k
		case pg.ConstrType_CONSTR_PRIMARY, pg.ConstrType_CONSTR_UNIQUE:
			k.Keys = []*pg.Node{{Node: &pg.Node_String_{String_: &pg.String{Sval: col.Name}}}}
			keys = append(keys, k)
			notNull = notNull || null && k.Contype == pg.ConstrType_CONSTR_PRIMARY
		default:
			return nil, nil, c.constraint(k)
		}
	}
	if null && notNull {
		return nil, nil, c.src.errorf(at, codeSyntax, "conflicting NULL/NOT NULL declarations for column %q of table %q", col.Name, t.Name)
	}
	col.NotNull = notNull
	t.Columns = append(t.Columns, col)
	if def == nil {
		return keys, nil, nil
	}
	i := len(t.Columns) - 1
	return keys, func() (err error) {
		x := &exprCompiler{src: c.src, table: t, isDefault: true}
		t.Columns[i].Default, err = x.value(def.RawExpr, &t.Columns[i])
		return err
	}, nil
}

// constraint refuses a constraint by name.
func (c *compiler) constraint(k *pg.Constraint) error {
	at := int(k.GetLocation())
	switch k.GetContype() {
	case pg.ConstrType_CONSTR_FOREIGN:
		to := k.Pktable.GetRelname()
		if s := k.Pktable.GetSchemaname(); s != "" {
			to = s + "." + to
		}
		return c.unsupported(at, "REFERENCES "+to).
			hint("Declare the column without REFERENCES. An account's id in auth.users is what auth.uid() returns.")
	case pg.ConstrType_CONSTR_CHECK:
		return c.unsupported(at, "CHECK")
	case pg.ConstrType_CONSTR_IDENTITY:
		return c.unsupported(at, "GENERATED … AS IDENTITY").hint("Use uuid default gen_random_uuid().")
	case pg.ConstrType_CONSTR_GENERATED:
		return c.unsupported(at, "GENERATED ALWAYS AS (…) STORED")
	case pg.ConstrType_CONSTR_EXCLUSION:
		return c.unsupported(at, "EXCLUDE")
	case pg.ConstrType_CONSTR_ATTR_DEFERRABLE, pg.ConstrType_CONSTR_ATTR_DEFERRED:
		return c.unsupported(at, "DEFERRABLE")
	}
	return c.unsupported(at, "this constraint")
}

func columnOf(t *table.Table, name string) *table.Column {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return &t.Columns[i]
		}
	}
	return nil
}

// keys adds the keys that a table's statement asks for, the primary key first.
func (c *compiler) keys(t *table.Table, asked []*pg.Constraint) error {
	slices.SortStableFunc(asked, func(a, b *pg.Constraint) int {
		switch primary := pg.ConstrType_CONSTR_PRIMARY; {
		case a.Contype == b.Contype:
			return 0
		case a.Contype == primary:
			return -1
		case b.Contype == primary:
			return 1
		}
		return 0
	})
	// Names that were given are taken before names are made.
	made := make([]table.Key, 0, len(asked))
	for _, k := range asked {
		key, err := c.key(t, k)
		if err != nil {
			return err
		}
		if key.Primary && len(made) > 0 && made[0].Primary {
			return c.src.errorf(int(k.Location), codeBadTable, "multiple primary keys for table %q are not allowed", t.Name)
		}
		if same := slices.IndexFunc(made, func(o table.Key) bool { return slices.Equal(o.Columns, key.Columns) }); same >= 0 && (key.Name == "" || made[same].Name == "") {
			if made[same].Name == "" {
				made[same].Name = key.Name
			}
			continue // one constraint is enough, as in PostgreSQL
		}
		made = append(made, key)
	}
	for i := range made {
		if name := made[i].Name; name != "" {
			if c.taken(t, name) {
				return c.src.errorf(int(asked[0].Location), codeDuplicateTable, "relation %q already exists", name)
			}
			t.Keys = append(t.Keys, table.Key{Name: name})
		}
	}
	for i := range made {
		if made[i].Name == "" {
			made[i].Name = c.keyName(t, &made[i])
			t.Keys = append(t.Keys, table.Key{Name: made[i].Name})
		}
	}
	t.Keys = made
	if len(made) == 0 {
		t.Keys = nil
	}
	return nil
}

func (c *compiler) key(t *table.Table, k *pg.Constraint) (table.Key, error) {
	at := int(k.Location)
	kind := "unique"
	key := table.Key{Name: k.Conname}
	if k.Contype == pg.ConstrType_CONSTR_PRIMARY {
		key.Primary, kind = true, "primary key"
	}
	switch {
	case k.NullsNotDistinct:
		return key, c.unsupported(at, "NULLS NOT DISTINCT")
	case len(k.Including) > 0:
		return key, c.unsupported(at, "INCLUDE")
	case k.Deferrable || k.Initdeferred:
		return key, c.unsupported(at, "DEFERRABLE")
	case len(k.Options) > 0 || k.Indexname != "" || k.Indexspace != "":
		return key, c.unsupported(at, "an index option of a constraint")
	}
	for _, n := range k.Keys {
		name := n.GetString_().GetSval()
		col := columnOf(t, name)
		if col == nil {
			return key, c.src.errorf(at, codeNoColumn, "column %q named in key does not exist", name)
		}
		if slices.Contains(key.Columns, name) {
			return key, c.src.errorf(at, codeDupColumn, "column %q appears twice in %s constraint", name, kind)
		}
		if col.Type == table.JSON {
			return key, c.src.errorf(at, codeNoObject, `data type json has no default operator class for access method "btree"`)
		}
		col.NotNull = col.NotNull || key.Primary
		key.Columns = append(key.Columns, name)
	}
	if len(key.Columns) > 32 {
		return key, c.src.errorf(at, codeTooManyColumns, "cannot use more than 32 columns in an index")
	}
	return key, nil
}

// keyName makes a name as PostgreSQL's ChooseIndexName: t_pkey, t_a_b_key, and a number after it where that is taken.
func (c *compiler) keyName(t *table.Table, k *table.Key) string {
	columns, label := "", "pkey"
	if !k.Primary {
		columns, label = strings.Join(k.Columns, "_"), "key"
	}
	for n := 0; ; n++ {
		suffix := label
		if n > 0 {
			suffix += strconv.Itoa(n)
		}
		if name := objectName(t.Name, columns, suffix); !c.taken(t, name) {
			return name
		}
	}
}

// objectName joins the parts with underscores in at most 63 bytes, cutting the longer of the first two (PostgreSQL's
// makeObjectName).
func objectName(a, b, label string) string {
	room := 63 - len(label) - 1
	if b != "" {
		room--
	}
	la, lb := len(a), len(b)
	for la+lb > room {
		if la > lb {
			la--
		} else {
			lb--
		}
	}
	name := strings.ToValidUTF8(a[:la], "")
	if b != "" {
		name += "_" + strings.ToValidUTF8(b[:lb], "")
	}
	return name + "_" + label
}

func (c *compiler) alterTable(at int, s *pg.AlterTableStmt) error {
	if s.Objtype != pg.ObjectType_OBJECT_TABLE {
		return c.unsupported(at, "ALTER "+strings.ReplaceAll(strings.TrimPrefix(s.Objtype.String(), "OBJECT_"), "_", " "))
	}
	actions := map[pg.AlterTableType]string{
		pg.AlterTableType_AT_EnableRowSecurity:  "enable row level security",
		pg.AlterTableType_AT_DisableRowSecurity: "disable row level security",
		pg.AlterTableType_AT_ForceRowSecurity:   "force row level security",
		pg.AlterTableType_AT_NoForceRowSecurity: "no force row level security",
	}
	for _, n := range s.Cmds {
		if kind := n.GetAlterTableCmd().GetSubtype(); actions[kind] == "" {
			return c.unsupported(at, "ALTER TABLE … "+words(strings.TrimPrefix(kind.String(), "AT_")))
		}
	}
	i, err := c.lookup(at, s.Relation)
	if err != nil {
		if s.MissingOk && i < 0 {
			c.note(s.Relation.Relname, "relation %q does not exist, skipping", s.Relation.Relname)
			return nil
		}
		return err
	}
	t := c.edit(i)
	for _, n := range s.Cmds {
		kind := n.GetAlterTableCmd().GetSubtype()
		switch kind {
		case pg.AlterTableType_AT_EnableRowSecurity:
			t.RLS = true
		case pg.AlterTableType_AT_DisableRowSecurity:
			t.RLS = false
		case pg.AlterTableType_AT_ForceRowSecurity:
			t.ForceRLS = true
		case pg.AlterTableType_AT_NoForceRowSecurity:
			t.ForceRLS = false
		}
		c.did(actions[kind], Name(t))
	}
	return nil
}

func (c *compiler) createPolicy(at int, s *pg.CreatePolicyStmt) error {
	p := table.Policy{Name: s.PolicyName, Command: table.Command(s.CmdName), Restrictive: !s.Permissive}
	switch p.Command {
	case table.Select, table.Delete:
		if s.WithCheck != nil {
			return c.src.errorf(at, codeSyntax, "WITH CHECK cannot be applied to SELECT or DELETE")
		}
	case table.Insert:
		if s.Qual != nil {
			return c.src.errorf(at, codeSyntax, "only WITH CHECK expression allowed for INSERT")
		}
	case table.All, table.Update:
	default:
		return c.unsupported(at, "a policy for this command")
	}
	i, err := c.lookup(at, s.Table)
	if err != nil {
		return err
	}
	t := c.next.Tables[i]
	if p.Roles, err = c.roles(at, s.Roles); err != nil {
		return err
	}
	if slices.ContainsFunc(t.Policies, func(o table.Policy) bool { return o.Name == p.Name }) {
		return c.src.errorf(at, codeDuplicate, "policy %q for table %q already exists", p.Name, t.Name)
	}
	if len(t.Policies) >= MaxPolicies {
		return c.src.errorf(at, codeLimit, "a table can have at most %d policies", MaxPolicies)
	}
	if s.Qual != nil {
		if p.Using, err = (&exprCompiler{src: c.src, table: t}).predicate(s.Qual); err != nil {
			return err
		}
	}
	if s.WithCheck != nil {
		if p.Check, err = (&exprCompiler{src: c.src, table: t}).predicate(s.WithCheck); err != nil {
			return err
		}
	}
	t = c.edit(i)
	t.Policies = append(t.Policies, p)
	c.did("create policy", quoteIdent(p.Name)+" on "+Name(t))
	return nil
}

// roles returns the roles that a policy is for; none is public.
func (c *compiler) roles(at int, nodes []*pg.Node) ([]string, error) {
	var out []string
	everyone := false
	for _, n := range nodes {
		r := n.GetRoleSpec()
		switch r.GetRoletype() {
		case pg.RoleSpecType_ROLESPEC_PUBLIC:
			everyone = true
		case pg.RoleSpecType_ROLESPEC_CSTRING:
			if !slices.Contains([]string{"anon", "authenticated", "service_role"}, r.Rolename) {
				return nil, c.src.errorf(location1(r.Location, at), codeNoObject, "role %q does not exist", r.Rolename).
					hint("The roles are anon, authenticated and service_role.")
			}
			if !slices.Contains(out, r.Rolename) {
				out = append(out, r.Rolename)
			}
		default:
			return nil, c.unsupported(location1(r.GetLocation(), at), strings.TrimPrefix(r.GetRoletype().String(), "ROLESPEC_")+" as a policy's role")
		}
	}
	if everyone {
		return nil, nil
	}
	return out, nil
}

// path returns the parts of a dropped object's name.
func path(n *pg.Node) []string {
	var parts []string
	for _, item := range n.GetList().GetItems() {
		parts = append(parts, item.GetString_().GetSval())
	}
	return parts
}

func (c *compiler) dropTable(at int, s *pg.DropStmt) error {
	for _, n := range s.Objects {
		parts := path(n)
		schema, name := public, parts[len(parts)-1]
		if len(parts) > 1 {
			schema = parts[len(parts)-2]
		}
		i := c.find(schema, name)
		if len(parts) > 2 {
			return c.unsupported(at, "a database's name before a table's")
		}
		if i < 0 {
			if s.MissingOk {
				c.note(strings.Join(parts, "."), "table %q does not exist, skipping", name)
				continue
			}
			return c.src.errorf(at, codeNoTable, "table %q does not exist", strings.Join(parts, "."))
		}
		t := c.next.Tables[i]
		c.next.Tables = slices.Delete(slices.Clone(c.next.Tables), i, i+1)
		c.changes = append(c.changes, Change{Action: "drop table", Object: Name(t), Space: t.Space})
	}
	return nil
}

func (c *compiler) dropPolicy(at int, s *pg.DropStmt) error {
	for _, n := range s.Objects {
		parts := path(n)
		if len(parts) < 2 || len(parts) > 3 {
			return c.unsupported(at, "a database's name before a table's")
		}
		schema, name, policy := public, parts[len(parts)-2], parts[len(parts)-1]
		if len(parts) == 3 {
			schema = parts[0]
		}
		i := c.find(schema, name)
		if i < 0 {
			if s.MissingOk {
				c.note(quoteIdent(policy), "relation %q does not exist, skipping", name)
				continue
			}
			return c.src.errorf(at, codeNoTable, "relation %q does not exist", strings.Join(parts[:len(parts)-1], "."))
		}
		j := slices.IndexFunc(c.next.Tables[i].Policies, func(p table.Policy) bool { return p.Name == policy })
		if j < 0 {
			if s.MissingOk {
				c.note(quoteIdent(policy), "policy %q for table %q does not exist, skipping", policy, name)
				continue
			}
			return c.src.errorf(at, codeNoObject, "policy %q for table %q does not exist", policy, name)
		}
		t := c.edit(i)
		t.Policies = slices.Delete(t.Policies, j, j+1)
		if len(t.Policies) == 0 {
			t.Policies = nil
		}
		c.did("drop policy", quoteIdent(policy)+" on "+Name(t))
	}
	return nil
}

func (c *compiler) createExtension(at int, s *pg.CreateExtensionStmt) error {
	switch s.Extname {
	case "pgcrypto", "uuid-ossp":
		c.note("extension "+quoteIdent(s.Extname), "built in: gen_random_uuid() and uuid_generate_v4() need no extension")
		return nil
	}
	return c.unsupported(at, "extension "+s.Extname)
}
