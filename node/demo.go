package node

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"strconv"
	"time"

	"bulwark/security/apikey"
	"bulwark/security/tenant"
	"bulwark/storage"
	"bulwark/storage/table"
)

// A Demo is what a client of the demo project needs.
type Demo struct {
	URL            string `json:"url"`
	PublishableKey string `json:"publishable_key,omitempty"`
	SecretKey      string `json:"secret_key,omitempty"`
	CA             string `json:"ca"` // the root certificate, as PEM
}

// demoRecord remembers the demo's keys, so that each start can print them. API keys are otherwise shown once and kept as
// hashes; these guard a demo, and are sealed like every record.
type demoRecord struct {
	Ref         string `cbor:"r"` // "": begun, and not finished
	Publishable string `cbor:"p"`
	Secret      string `cbor:"s"`
}

// demoID is the one record of the table.
var demoID = storage.ID{15: 1}

const demoName = "demo"

// demoSQL is the demo's schema as an operator would apply it. Making the demo does not parse it: PostgreSQL's parser takes a
// second to load and stays in memory. demoSchema is what it compiles to, and a test holds the two together.
const demoSQL = `create table notes (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null default auth.uid(),
  body text,
  created_at timestamptz not null default now()
);
alter table notes enable row level security;
create policy "owners read" on notes for select to authenticated using ((select auth.uid()) = user_id);
create policy "owners insert" on notes for insert to authenticated with check ((select auth.uid()) = user_id);
create policy "owners update" on notes for update to authenticated using ((select auth.uid()) = user_id) with check ((select auth.uid()) = user_id);
create policy "owners delete" on notes for delete to authenticated using ((select auth.uid()) = user_id);
`

// Demo returns the demo project, and makes it on a cluster that has no tenant yet. On one that has tenants and no demo it
// returns nil: a demo with open sign-up is nothing to add to somebody's data.
func (n *Node) Demo(ctx context.Context) (*Demo, error) {
	m := demoMaker{n.parts, n.store, n.opts.Random, storage.NewTable[demoRecord](demoName, storage.TenantScope)}
	rec, err := m.find(ctx)
	if err == nil && rec.Ref == "" {
		rec, err = m.make(ctx)
	}
	if storage.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &Demo{URL: n.ProjectURL(rec.Ref), PublishableKey: rec.Publishable, SecretKey: rec.Secret, CA: string(*n.ca.Load())}, nil
}

// A demoMaker makes the demo. It takes several entries: a record without a ref says that the demo was begun, so that
// after a crash it is finished, and a tenant that somebody made by the same name is left alone.
type demoMaker struct {
	*parts
	store  storage.Store
	random io.Reader
	demos  *storage.Table[demoRecord]
}

func demoOperator(tenant, project storage.ID) storage.Actor {
	return storage.OperatorActor(tenant, project, storage.ID{}, demoName, storage.Origin{})
}

// find returns the demo's record, and begins one on a cluster without tenants. Else it is NotFound.
func (m *demoMaker) find(ctx context.Context) (rec demoRecord, err error) {
	by := demoOperator(storage.System, storage.ID{})
	err = m.store.View(ctx, by, storage.Intent{Action: "operator.demo"}, func(r storage.Reader) (err error) {
		rec, err = m.demos.Get(r, demoID)
		return err
	})
	if !storage.IsNotFound(err) {
		return rec, err
	}
	tenants, terr := m.directory.Tenants(ctx, by)
	if terr != nil || len(tenants) > 0 {
		return rec, errors.Join(terr, err)
	}
	return rec, m.keep(ctx, rec)
}

func (m *demoMaker) keep(ctx context.Context, rec demoRecord) error {
	by := demoOperator(storage.System, storage.ID{})
	return m.store.Update(ctx, by, storage.Intent{Action: "operator.demo", Object: rec.Ref}, func(tx storage.Tx) error {
		return m.demos.Put(tx, demoID, rec)
	})
}

// make makes what there is not yet.
func (m *demoMaker) make(ctx context.Context) (rec demoRecord, err error) {
	project, in, err := m.project(ctx)
	if err != nil {
		return rec, err
	}
	rec.Ref = project.Ref
	if err := m.schema(ctx, in); err != nil {
		return rec, err
	}
	// Keys of a begun demo were never shown, and cannot be any more.
	old, err := m.keys.List(ctx, in)
	for _, k := range old {
		if k.Revoked == nil && err == nil {
			err = m.keys.Revoke(ctx, in, k.ID)
		}
	}
	if err == nil {
		_, rec.Publishable, err = m.keys.Create(ctx, in, apikey.Publishable, demoName)
	}
	if err == nil {
		_, rec.Secret, err = m.keys.Create(ctx, in, apikey.Secret, demoName)
	}
	if err == nil {
		err = m.keep(ctx, rec)
	}
	return rec, err
}

// project returns the demo's project, and an operator in it.
func (m *demoMaker) project(ctx context.Context) (tenant.Project, storage.Actor, error) {
	system := demoOperator(storage.System, storage.ID{})
	of, err := m.directory.Tenant(ctx, demoName)
	if storage.IsNotFound(err) {
		var t tenant.Tenant
		t, err = m.directory.CreateTenant(ctx, system, demoName)
		of = t.ID
	}
	if err != nil {
		return tenant.Project{}, system, err
	}
	in, open := demoOperator(of, storage.ID{}), tenant.Settings{SignUp: true, AutoConfirm: true}
	projects, err := m.directory.Projects(ctx, in)
	if err == nil && len(projects) == 0 {
		var p tenant.Project
		p, err = m.directory.CreateProject(ctx, in, demoName, open)
		if err != nil && storage.FaultOf(err) == storage.Exists {
			// A crash left the name taken by a project without a ref, until that is swept.
			p, err = m.directory.CreateProject(ctx, in, demoName+"-"+strconv.FormatInt(time.Now().Unix(), 36), open)
		}
		projects = append(projects, p)
	}
	if err != nil {
		return tenant.Project{}, system, err
	}
	return projects[0], demoOperator(of, projects[0].ID), nil
}

// schema makes the demo's table.
func (m *demoMaker) schema(ctx context.Context, in storage.Actor) error {
	schema, err := demoSchema(m.random)
	if err != nil {
		return err
	}
	return m.store.Update(ctx, in, storage.Intent{Action: "schema.apply", Object: in.Project().String()}, func(tx storage.Tx) error {
		have, err := table.ReadSchema(tx)
		if err != nil || len(have.Tables) > 0 {
			return err
		}
		tx.Note("changes", []string{"create table public.notes"})
		return table.SaveSchema(tx, schema)
	})
}

// demoSchema is what demoSQL compiles to.
func demoSchema(random io.Reader) (*table.Schema, error) {
	space := make([]byte, 8)
	if _, err := io.ReadFull(random, space); err != nil {
		return nil, err
	}
	call := func(name string) *table.Expr { return &table.Expr{Op: table.OpCall, Name: name} }
	owner := func() *table.Expr {
		return &table.Expr{Op: table.OpEq, Args: []*table.Expr{call("auth.uid"), {Op: table.OpColumn, Name: "user_id"}}}
	}
	policy := func(name string, c table.Command, using, check *table.Expr) table.Policy {
		return table.Policy{Name: name, Command: c, Roles: []string{"authenticated"}, Using: using, Check: check}
	}
	return &table.Schema{Tables: []*table.Table{{
		Schema: "public", Name: "notes", Space: "t" + hex.EncodeToString(space), RLS: true,
		Columns: []table.Column{
			{Name: "id", Type: table.UUID, NotNull: true, Default: call("gen_random_uuid")},
			{Name: "user_id", Type: table.UUID, NotNull: true, Default: call("auth.uid")},
			{Name: "body", Type: table.Text},
			{Name: "created_at", Type: table.Timestamptz, NotNull: true, Default: call("now")},
		},
		Keys: []table.Key{{Name: "notes_pkey", Primary: true, Columns: []string{"id"}}},
		Policies: []table.Policy{
			policy("owners read", table.Select, owner(), nil),
			policy("owners insert", table.Insert, nil, owner()),
			policy("owners update", table.Update, owner(), owner()),
			policy("owners delete", table.Delete, owner(), nil),
		},
	}}}, nil
}
