package node

import (
	"context"
	"encoding/hex"
	"io"

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
	Ref         string `cbor:"r"`
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
	by := storage.OperatorActor(storage.System, storage.ID{}, storage.ID{}, demoName, storage.Origin{})
	demos := storage.NewTable[demoRecord](demoName, storage.TenantScope)
	var rec demoRecord
	err := n.store.View(ctx, by, storage.Intent{Action: "operator.demo"}, func(r storage.Reader) (err error) {
		rec, err = demos.Get(r, demoID)
		return err
	})
	if storage.IsNotFound(err) {
		if rec, err = n.makeDemo(ctx, by, demos); err != nil || rec.Ref == "" {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	return &Demo{URL: n.ProjectURL(rec.Ref), PublishableKey: rec.Publishable, SecretKey: rec.Secret, CA: string(*n.ca.Load())}, nil
}

func (n *Node) makeDemo(ctx context.Context, by storage.Actor, demos *storage.Table[demoRecord]) (rec demoRecord, err error) {
	p := n.parts
	tenants, err := p.directory.Tenants(ctx, by)
	if err != nil || len(tenants) > 0 {
		return rec, err
	}
	t, err := p.directory.CreateTenant(ctx, by, demoName)
	if err != nil {
		return rec, err
	}
	in := storage.OperatorActor(t.ID, storage.ID{}, storage.ID{}, demoName, storage.Origin{})
	project, err := p.directory.CreateProject(ctx, in, demoName, tenant.Settings{SignUp: true, AutoConfirm: true})
	if err != nil {
		return rec, err
	}
	in = storage.OperatorActor(t.ID, project.ID, storage.ID{}, demoName, storage.Origin{})
	rec.Ref = project.Ref
	_, rec.Publishable, err = p.keys.Create(ctx, in, apikey.Publishable, demoName)
	if err != nil {
		return rec, err
	}
	if _, rec.Secret, err = p.keys.Create(ctx, in, apikey.Secret, demoName); err != nil {
		return rec, err
	}
	schema, err := demoSchema(n.opts.Random)
	if err != nil {
		return rec, err
	}
	err = n.store.Update(ctx, in, storage.Intent{Action: "schema.apply", Object: project.ID.String()}, func(tx storage.Tx) error {
		tx.Note("changes", []string{"create table public.notes"})
		return table.SaveSchema(tx, schema)
	})
	if err != nil {
		return rec, err
	}
	return rec, n.store.Update(ctx, by, storage.Intent{Action: "operator.demo", Object: project.Ref}, func(tx storage.Tx) error {
		return demos.Put(tx, demoID, rec)
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
