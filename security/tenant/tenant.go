// Package tenant keeps the tenants of a cluster, their projects, and the directory that leads from a project's ref to
// both.
//
// Promise: a tenant's record and its keys are made in one entry and are gone in one entry. A ref leads somewhere only
// when everything behind it exists, and to nothing from the moment at which a deletion was acknowledged: what it led to
// was sealed under keys that no node has any more. Refs are never used twice.
package tenant

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"sync"
	"time"

	"bulwark/storage"
)

// tenantRecord lives in the system tenant, under the tenant's id.
type tenantRecord struct {
	Name    string    `cbor:"n"`
	Created time.Time `cbor:"c"`
}

var tenants = storage.NewTable[tenantRecord]("tenant", storage.TenantScope,
	storage.Unique("name", func(r *tenantRecord) []byte { return []byte(r.Name) }))

// A Tenant is one customer organisation.
type Tenant struct {
	ID      storage.ID `json:"id"`
	Name    string     `json:"name"`
	Created time.Time  `json:"created_at"`
}

// A Directory creates, lists, finds and deletes tenants and projects.
type Directory struct {
	store  storage.Store
	random io.Reader

	mu    sync.RWMutex
	known map[string]place // by ref; see Project
}

// A place is what a ref leads to.
type place struct{ tenant, project storage.ID }

// New returns the directory that store holds. random gives refs and signing keys; it must be safe for concurrent use.
func New(store storage.Store, random io.Reader) (*Directory, error) {
	if store == nil || random == nil {
		return nil, errors.New("a tenant directory needs a store and a random source")
	}
	return &Directory{store: store, random: random, known: map[string]place{}}, nil
}

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Names that would be read as the cluster itself, as a path, or as a built-in role.
var reserved = []string{
	"admin", "administrator", "anon", "api", "auth", "authenticated", "bulwark", "cluster", "localhost", "operator", "public",
	"root", "service-role", "super-admin", "system", "tenant", "www",
}

// checkName refuses what is not a name: 1 to 63 of a-z, 0-9 and "-", not at either end "-", not reserved, and not the
// form of an id, so that a path may hold a name or an id.
func checkName(name string) error {
	if !nameForm.MatchString(name) {
		return badName("a name has 1 to 63 of the characters a-z, 0-9 and -, and does not start or end with -")
	}
	if slices.Contains(reserved, name) {
		return badName("this name is reserved; choose another one")
	}
	if _, err := storage.ParseID(name); err == nil {
		return badName("a name may not have the form of an id; choose another one")
	}
	return nil
}

func badName(message string) error {
	return &storage.Error{Fault: storage.BadInput, Code: "invalid_name", Message: message, Field: "name"}
}

var errNoTenant = storage.Errorf(storage.NotFound, "tenant_not_found", "there is no such tenant: list them to see which exist")

// CreateTenant makes a tenant and its keys in one entry. by acts in the system tenant.
func (d *Directory) CreateTenant(ctx context.Context, by storage.Actor, name string) (Tenant, error) {
	if err := checkName(name); err != nil {
		return Tenant{}, err
	}
	var made Tenant
	err := d.store.Update(ctx, by, storage.Intent{Action: "tenant.create", Object: name}, func(tx storage.Tx) error {
		if err := inSystem(tx); err != nil {
			return err
		}
		made = Tenant{ID: tx.NewID(), Name: name, Created: tx.Now().UTC()}
		err := tenants.Put(tx, made.ID, tenantRecord{Name: name, Created: made.Created})
		if storage.FaultOf(err) == storage.Exists {
			return &storage.Error{Fault: storage.Exists, Code: "tenant_exists", Field: "name",
				Message: "a tenant with this name exists; choose another name"}
		}
		if err != nil {
			return err
		}
		tx.Note("tenant", made.ID.String())
		return tx.ChangeKeys(storage.CreateKeys, made.ID, storage.ID{})
	})
	if err != nil {
		return Tenant{}, err
	}
	return made, nil
}

// Tenants lists the tenants in the order in which they were made. by acts in the system tenant.
func (d *Directory) Tenants(ctx context.Context, by storage.Actor) ([]Tenant, error) {
	list := []Tenant{}
	err := d.store.View(ctx, by, storage.Intent{Action: "tenant.list"}, func(r storage.Reader) error {
		if err := inSystem(r); err != nil {
			return err
		}
		return tenants.All(r, storage.ID{}, func(id storage.ID, rec tenantRecord) bool {
			list = append(list, Tenant{ID: id, Name: rec.Name, Created: rec.Created})
			return true
		})
	})
	return list, err
}

// Tenant finds a tenant by its name or its id. It answers whom a path speaks of, before anybody has acted, so the node
// itself reads.
func (d *Directory) Tenant(ctx context.Context, nameOrID string) (storage.ID, error) {
	var id storage.ID
	err := d.store.View(ctx, d.self(), storage.Intent{Action: "directory.resolve"}, func(r storage.Reader) (err error) {
		id, _, err = find(r, nameOrID)
		return err
	})
	return id, err
}

func find(r storage.Reader, nameOrID string) (storage.ID, tenantRecord, error) {
	id, err := storage.ParseID(nameOrID)
	var rec tenantRecord
	if err == nil {
		rec, err = tenants.Get(r, id)
	} else {
		id, rec, err = tenants.ByUnique(r, "name", []byte(nameOrID))
	}
	if storage.IsNotFound(err) {
		return storage.ID{}, tenantRecord{}, errNoTenant
	}
	return id, rec, err
}

// DeleteTenant destroys a tenant: its keys, and so all that they opened, its projects and its audit log, in the entry
// that removes its record and its refs. confirm is its name, typed again. by acts in the system tenant.
func (d *Directory) DeleteTenant(ctx context.Context, by storage.Actor, nameOrID, confirm string) error {
	var refs []string
	err := d.store.Update(ctx, by, storage.Intent{Action: "tenant.delete", Object: nameOrID}, func(tx storage.Tx) error {
		refs = refs[:0]
		if err := inSystem(tx); err != nil {
			return err
		}
		id, rec, err := find(tx, nameOrID)
		if err != nil {
			return err
		}
		if confirm != rec.Name {
			return &storage.Error{Fault: storage.BadInput, Code: "confirmation_needed", Field: "confirm",
				Message: "deleting a tenant destroys all its data for ever: repeat its name in confirm"}
		}
		var projects []storage.ID
		err = directory.ByLookup(tx, "tenant", id[:], func(project storage.ID, e directoryRecord) bool {
			projects, refs = append(projects, project), append(refs, e.Ref)
			return true
		})
		if err != nil {
			return err
		}
		for _, project := range projects {
			if err := directory.Delete(tx, project); err != nil {
				return err
			}
		}
		if err := tenants.Delete(tx, id); err != nil {
			return err
		}
		tx.Note("tenant", id.String())
		tx.Note("name", rec.Name)
		tx.Note("projects", len(projects))
		return tx.ChangeKeys(storage.DestroyKeys, id, storage.ID{})
	})
	if err != nil {
		return err
	}
	for _, ref := range refs {
		d.forget(ref)
	}
	return nil
}

// inSystem refuses an actor that is not bound to the system tenant, whose tables these are.
func inSystem(r storage.Reader) error {
	if r.By().Tenant() != storage.System {
		return storage.Errorf(storage.Denied, "not_operator", "only the operator of the cluster may do this")
	}
	return nil
}

// self is the node itself, reading the directory to find out whom a request speaks of, or mending it.
func (d *Directory) self() storage.Actor {
	return storage.JobActor(storage.System, storage.ID{}, "directory")
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
