package table

import (
	"slices"

	"bulwark/storage"
)

// roles are those that policies are applied to. service_role passes them.
func roles() []string { return []string{"anon", "authenticated"} }

type roleCommand struct {
	role    string
	command Command
}

// A rule is what the policies say for one role and command: using decides which rows exist for it, check which rows it
// may write.
type rule struct{ using, check *node }

// compileRules resolves the policies for each role and command, as PostgreSQL's rewriter does (get_row_security_policies):
// permissive policies are joined by OR, restrictive ones by AND, and without a permissive one nothing passes.
func (t *tableInfo) compileRules() error {
	t.rules = map[roleCommand]rule{}
	using, check := make([]*node, len(t.Policies)), make([]*node, len(t.Policies))
	for i := range t.Policies {
		p := &t.Policies[i]
		if !slices.Contains([]Command{All, Select, Insert, Update, Delete}, p.Command) {
			return bad(CodeBadDefinition, "policy %q is for no command that exists", p.Name)
		}
		var err error
		if p.Using != nil {
			if using[i], err = compileBool(t, p.Using); err != nil {
				return err
			}
		}
		if check[i] = using[i]; p.Check != nil {
			if check[i], err = compileBool(t, p.Check); err != nil {
				return err
			}
		}
	}
	for _, role := range roles() {
		for _, command := range []Command{Select, Insert, Update, Delete} {
			r := rule{using: t.join(role, command, using), check: t.join(role, command, check)}
			t.rules[roleCommand{role, command}] = r
		}
	}
	return nil
}

// join makes one condition of the policies that apply. A policy without an expression of the kind asked for adds nothing.
func (t *tableInfo) join(role string, command Command, conditions []*node) *node {
	permissive := &node{op: OpOr, t: Bool, columns: true}
	all := &node{op: OpAnd, t: Bool, columns: true}
	for i := range t.Policies {
		p := &t.Policies[i]
		switch {
		case p.Command != command && p.Command != All, conditions[i] == nil:
		case len(p.Roles) > 0 && !slices.Contains(p.Roles, role) && !slices.Contains(p.Roles, "public"):
		case p.Restrictive:
			all.args = append(all.args, conditions[i])
		default:
			permissive.args = append(permissive.args, conditions[i])
		}
	}
	if len(permissive.args) == 0 {
		return never()
	}
	if len(permissive.args) == 1 {
		permissive = permissive.args[0]
	}
	all.args = append(all.args, permissive)
	return all
}

// An access is one operation of one actor on one table: the only way to the table's rows, and it has the policies.
type access struct {
	env
	t      *tableInfo
	schema string // the schema's stamp
	bypass bool
}

// open finds the table and refuses actors that reach none of its rows. A table without row level security is open to
// service_role only: the cloud would grant it to everybody, and here deny is the default (section 7 of the design).
func (c *Catalog) open(r storage.Reader, name string) (*access, error) {
	by := r.By()
	role := by.Role()
	if role == "" || by.Project().IsZero() {
		return nil, denied(name)
	}
	compiled, err := c.LoadSchema(r)
	if err != nil {
		return nil, err
	}
	t, ok := compiled.tables[tableName{"public", name}]
	if !ok {
		return nil, noTable("public", name)
	}
	a := &access{t: t, schema: compiled.stamp, bypass: by.Kind() == storage.Service}
	a.env = env{row: &row{t: t}, by: by, now: r.Now(), random: c.random}
	if !a.bypass && !t.RLS {
		e := storage.Errorf(storage.Denied, CodeDenied, "permission denied for table %s", name)
		e.Hint = "Enable row level security on the table and create a policy: without one it is open to secret keys only."
		return nil, e
	}
	return a, nil
}

// rule is what holds for the actor's role; a role that policies do not know gets nothing.
func (a *access) rule(command Command) rule {
	if r, ok := a.t.rules[roleCommand{a.by.Role(), command}]; ok {
		return r
	}
	return rule{using: never(), check: never()}
}

// never is the condition that no row meets.
func never() *node { return &node{op: OpConst, t: Bool, val: boolean(false)} }

// using returns the conditions of the policies that show a row to command; selects says that the command also reads
// columns, which needs the policies of SELECT as well.
func (a *access) using(command Command, selects bool) []*node {
	if a.bypass {
		return nil
	}
	list := []*node{a.bind(a.rule(command).using)}
	if selects && command != Select {
		list = append(list, a.bind(a.rule(Select).using))
	}
	return list
}

// checks returns the conditions that a new row must meet.
func (a *access) checks(command Command, selects bool) []*node {
	if a.bypass {
		return nil
	}
	list := []*node{a.bind(a.rule(command).check)}
	if selects {
		list = append(list, a.bind(a.rule(Select).using))
	}
	return list
}

// filter resolves a client's condition.
func (a *access) filter(e *Expr) (*node, error) {
	if e == nil {
		return nil, nil
	}
	n, err := compileBool(a.t, e)
	if err != nil {
		return nil, err
	}
	return a.bind(n), nil
}

// matches reports whether the row that is stored as data meets every condition, in their order: those of policies come
// first, so that a filter is never evaluated on a row that the actor may not see (its error would tell of it).
func (a *access) matches(data []byte, conditions []*node) (bool, error) {
	if err := a.row.set(data); err != nil {
		return false, err
	}
	return a.all(conditions)
}

func (a *access) all(conditions []*node) (bool, error) {
	for _, n := range conditions {
		if ok, err := a.holds(n); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}
