package tenant

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"io"
	"slices"
	"strings"
	"time"

	"bulwark/storage"
)

// directoryRecord lives in the system tenant, under the project's id.
type directoryRecord struct {
	Ref    string     `cbor:"r"`
	Tenant storage.ID `cbor:"t"`
}

var directory = storage.NewTable[directoryRecord]("directory", storage.TenantScope,
	storage.Unique("ref", func(r *directoryRecord) []byte { return []byte(r.Ref) }),
	storage.Lookup("tenant", func(r *directoryRecord) [][]byte { return [][]byte{r.Tenant[:]} }))

// projectRecord lives in its tenant, under the project's id. Key is the raw scalar of the ES256 key that signs the
// project's access tokens: it is sealed as every record is, and leaves this package as a key, never as bytes.
type projectRecord struct {
	Name     string    `cbor:"n"`
	Ref      string    `cbor:"r"`
	Created  time.Time `cbor:"c"`
	Settings Settings  `cbor:"s"`
	KeyID    string    `cbor:"i"`
	Key      []byte    `cbor:"k"`
}

var projects = storage.NewTable[projectRecord]("project", storage.TenantScope,
	storage.Unique("name", func(r *projectRecord) []byte { return []byte(r.Name) }))

// Settings are what a project decides about signing in. The zero Settings let nobody sign up.
type Settings struct {
	SignUp      bool   `cbor:"s" json:"sign_up" doc:"Whether anybody with the publishable key may sign up."`
	AutoConfirm bool   `cbor:"a" json:"auto_confirm" doc:"Whether an address counts as confirmed without a message to it."`
	DefaultRole string `cbor:"r" json:"default_role" doc:"The role of an account that signs up here; user if empty."`
}

// signUpRoles are the roles that a person may get by signing up: none that administers anything.
var signUpRoles = []string{"user", "learner", "viewer"}

func (s *Settings) check() error {
	if s.DefaultRole == "" {
		s.DefaultRole = "user"
	}
	if !slices.Contains(signUpRoles, s.DefaultRole) {
		return &storage.Error{Fault: storage.BadInput, Code: "invalid_role", Field: "default_role",
			Message: "the default role must be one of " + strings.Join(signUpRoles, ", ")}
	}
	return nil
}

// A Project is one isolated environment of a tenant.
type Project struct {
	ID       storage.ID `json:"id"`
	Ref      string     `json:"ref"`
	Name     string     `json:"name"`
	Created  time.Time  `json:"created_at"`
	Settings Settings   `json:"settings"`
}

func (r *projectRecord) project(id storage.ID) Project {
	return Project{ID: id, Ref: r.Ref, Name: r.Name, Created: r.Created, Settings: r.Settings}
}

const (
	refLength = 20
	// creating is how long making a project may take; one that is older than stale and in no directory was left behind by
	// a crash. The gap between the two is room for clocks that differ.
	creating = 30 * time.Second
	stale    = 5 * time.Minute
)

// newRef draws a project's ref: 20 random lower-case letters (94 bits), as the cloud's. One that holds "http" is drawn
// again, because clients make the address of their websocket by replacing that word in the whole URL.
func newRef(random io.Reader) (string, error) {
	for {
		ref := make([]byte, 0, refLength)
		var b [1]byte
		for len(ref) < refLength {
			if _, err := io.ReadFull(random, b[:]); err != nil {
				return "", wrap("drawing a project's ref", err)
			}
			if b[0] < 26*9 { // the largest multiple of 26 in a byte, so that each letter is as likely
				ref = append(ref, 'a'+b[0]%26)
			}
		}
		if !strings.Contains(string(ref), "http") {
			return string(ref), nil
		}
	}
}

var errNoProject = storage.Errorf(storage.NotFound, "project_not_found", "there is no such project: check the ref in the address")

// CreateProject makes a project of the actor's tenant.
//
// The project and the directory belong to two tenants, so no one entry can hold both. First the record and the keys are
// made in the tenant, in one entry, where it is also decided whether the actor may. Only then the directory learns the ref.
// A crash between leaves a project that nobody can reach and that no list shows; Sweep removes it.
func (d *Directory) CreateProject(ctx context.Context, by storage.Actor, name string, set Settings) (Project, error) {
	if err := checkName(name); err != nil {
		return Project{}, err
	}
	if err := set.check(); err != nil {
		return Project{}, err
	}
	// The directory would refuse it later, when the project was made already.
	if by.Tenant() == storage.System {
		return Project{}, storage.Errorf(storage.BadInput, "no_tenant", "the system tenant has no projects: name a tenant, or create one")
	}
	ctx, cancel := context.WithTimeout(ctx, creating)
	defer cancel()
	if err := d.sweep(ctx, by.Tenant()); err != nil {
		return Project{}, err
	}
	ref, err := newRef(d.random)
	if err != nil {
		return Project{}, err
	}
	key, keyID, err := newSigningKey(d.random)
	if err != nil {
		return Project{}, err
	}

	var id storage.ID
	rec := projectRecord{Name: name, Ref: ref, Settings: set, KeyID: keyID, Key: key}
	err = d.store.Update(ctx, by, storage.Intent{Action: "project.create", Object: name}, func(tx storage.Tx) error {
		id, rec.Created = tx.NewID(), tx.Now().UTC()
		tx.Note("project", id.String())
		tx.Note("ref", ref)
		err := projects.Put(tx, id, rec)
		if storage.FaultOf(err) == storage.Exists {
			return &storage.Error{Fault: storage.Exists, Code: "project_exists", Field: "name",
				Message: "the tenant has a project with this name; choose another name"}
		}
		if err != nil {
			return err
		}
		return tx.ChangeKeys(storage.CreateKeys, by.Tenant(), id)
	})
	if err != nil {
		return Project{}, err
	}
	err = d.store.Update(ctx, d.self(), storage.Intent{Action: "directory.add", Object: ref}, func(tx storage.Tx) error {
		// Read here, so that a tenant that is deleted at this moment does not leave a ref behind.
		if _, err := tenants.Get(tx, by.Tenant()); storage.IsNotFound(err) {
			return errNoTenant
		} else if err != nil {
			return err
		}
		tx.Note("project", id.String())
		tx.Note("tenant", by.Tenant().String())
		return directory.Put(tx, id, directoryRecord{Ref: ref, Tenant: by.Tenant()})
	})
	if err != nil {
		return Project{}, err
	}
	return rec.project(id), nil
}

func newSigningKey(random io.Reader) (raw []byte, keyID string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), random)
	if err != nil {
		return nil, "", wrap("generating a project's signing key", err)
	}
	if raw, err = key.Bytes(); err != nil {
		return nil, "", wrap("encoding a project's signing key", err)
	}
	var b [12]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return nil, "", wrap("drawing a key id", err)
	}
	return raw, base64.RawURLEncoding.EncodeToString(b[:]), nil
}

// Projects lists the projects of the actor's tenant, oldest first.
func (d *Directory) Projects(ctx context.Context, by storage.Actor) ([]Project, error) {
	list := []Project{}
	err := d.store.View(ctx, by, storage.Intent{Action: "project.list"}, func(r storage.Reader) error {
		return projects.All(r, storage.ID{}, func(id storage.ID, rec projectRecord) bool {
			list = append(list, rec.project(id))
			return true
		})
	})
	if err != nil {
		return nil, err
	}
	known, err := d.listed(ctx, by.Tenant())
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(p Project) bool { return known[p.ID] == "" }), nil
}

// listed returns the refs that lead to the projects of a tenant, by the project's id.
func (d *Directory) listed(ctx context.Context, tenant storage.ID) (map[storage.ID]string, error) {
	refs := map[storage.ID]string{}
	err := d.store.View(ctx, d.self(), storage.Intent{Action: "directory.list"}, func(r storage.Reader) error {
		return directory.ByLookup(r, "tenant", tenant[:], func(id storage.ID, e directoryRecord) bool {
			refs[id] = e.Ref
			return true
		})
	})
	return refs, wrap("listing the directory", err)
}

// Configure replaces the settings of the actor's project.
func (d *Directory) Configure(ctx context.Context, by storage.Actor, set Settings) (Project, error) {
	if err := set.check(); err != nil {
		return Project{}, err
	}
	var changed Project
	err := d.store.Update(ctx, by, storage.Intent{Action: "project.configure", Object: by.Project().String()}, func(tx storage.Tx) error {
		rec, err := get(tx, by.Project())
		if err != nil {
			return err
		}
		rec.Settings = set
		tx.Note("sign_up", set.SignUp)
		tx.Note("auto_confirm", set.AutoConfirm)
		tx.Note("default_role", set.DefaultRole)
		changed = rec.project(by.Project())
		return projects.Put(tx, by.Project(), rec)
	})
	return changed, err
}

// DeleteProject destroys the actor's project: its keys, and so all that they opened, in the entry that removes its
// record. From that entry on the ref leads nowhere, on any node; the directory forgets it afterwards, or Sweep does.
func (d *Directory) DeleteProject(ctx context.Context, by storage.Actor) error {
	ref, err := d.destroy(ctx, by, by.Project(), storage.Intent{Action: "project.delete", Object: by.Project().String()})
	if err != nil {
		return err
	}
	return d.remove(ctx, by.Project(), ref)
}

// destroy removes a project from its tenant.
func (d *Directory) destroy(ctx context.Context, by storage.Actor, id storage.ID, intent storage.Intent) (ref string, err error) {
	err = d.store.Update(ctx, by, intent, func(tx storage.Tx) error {
		rec, err := get(tx, id)
		if err != nil {
			return err
		}
		ref = rec.Ref
		tx.Note("ref", rec.Ref)
		tx.Note("name", rec.Name)
		if err := projects.Delete(tx, id); err != nil {
			return err
		}
		return tx.ChangeKeys(storage.DestroyKeys, by.Tenant(), id)
	})
	return ref, err
}

// remove takes a ref whose project is gone out of the directory, if it is still there.
func (d *Directory) remove(ctx context.Context, id storage.ID, ref string) error {
	d.forget(ref)
	err := d.store.Update(ctx, d.self(), storage.Intent{Action: "directory.remove", Object: ref}, func(tx storage.Tx) error {
		tx.Note("project", id.String())
		return directory.Delete(tx, id)
	})
	if storage.IsNotFound(err) {
		return nil
	}
	return wrap("removing a ref", err)
}

// Sweep removes what crashes left behind in any tenant: refs whose project is gone, and projects that never got their ref.
// It runs when a node starts. Running it twice, or on two nodes at once, does no more than running it once.
func (d *Directory) Sweep(ctx context.Context) error {
	var all []storage.ID
	err := d.store.View(ctx, d.self(), storage.Intent{Action: "directory.list"}, func(r storage.Reader) error {
		return tenants.All(r, storage.ID{}, func(id storage.ID, _ tenantRecord) bool {
			all = append(all, id)
			return true
		})
	})
	if err != nil {
		return wrap("listing tenants", err)
	}
	for _, tenant := range all {
		if err := d.sweep(ctx, tenant); err != nil && !storage.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// sweep mends one tenant. The directory is read before the tenant. So a ref without a project is of one that was deleted,
// because projects come first; and a project without a ref is either new or, when it is stale, left behind.
func (d *Directory) sweep(ctx context.Context, tenant storage.ID) error {
	refs, err := d.listed(ctx, tenant)
	if err != nil {
		return err
	}
	var lost []storage.ID
	job := storage.JobActor(tenant, storage.ID{}, "directory")
	err = d.store.View(ctx, job, storage.Intent{Action: "directory.list"}, func(r storage.Reader) error {
		return projects.All(r, storage.ID{}, func(id storage.ID, rec projectRecord) bool {
			if refs[id] == "" && r.Now().Sub(rec.Created) > stale {
				lost = append(lost, id)
			}
			delete(refs, id)
			return true
		})
	})
	if err != nil {
		return wrap("listing projects", err)
	}
	for _, id := range lost {
		_, err := d.destroy(ctx, job, id, storage.Intent{Action: "directory.clean", Object: id.String()})
		if err != nil && !storage.IsNotFound(err) {
			return wrap("removing an unfinished project", err)
		}
	}
	for id, ref := range refs {
		if err := d.remove(ctx, id, ref); err != nil {
			return err
		}
	}
	return nil
}

// Project returns what ref leads to, or NotFound.
//
// It is on the path of every request, so what was found is kept in memory, and found there without asking the store. That
// is right because a ref leads to the same project for ever, and because an answer opens nothing by itself: whoever asks
// goes on to read the project's record, or an API key sealed under the project's keys, in a linearizable View, and both
// are gone with the entry that deleted the project, wherever that was done. A ref that is not known is looked up each
// time, so that a project made on another node is found at once. The memory is bounded by the projects that existed
// while this node ran.
func (d *Directory) Project(ctx context.Context, ref string) (tenant, project storage.ID, err error) {
	if !isRef(ref) {
		return storage.ID{}, storage.ID{}, errNoProject
	}
	d.mu.RLock()
	p, ok := d.known[ref]
	d.mu.RUnlock()
	if ok {
		return p.tenant, p.project, nil
	}
	err = d.store.View(ctx, d.self(), storage.Intent{Action: "directory.resolve"}, func(r storage.Reader) error {
		id, e, err := directory.ByUnique(r, "ref", []byte(ref))
		if storage.IsNotFound(err) {
			return errNoProject
		}
		p = place{e.Tenant, id}
		return err
	})
	if err != nil {
		return storage.ID{}, storage.ID{}, err
	}
	d.mu.Lock()
	d.known[ref] = p
	d.mu.Unlock()
	return p.tenant, p.project, nil
}

func isRef(ref string) bool {
	if len(ref) != refLength {
		return false
	}
	for i := range len(ref) {
		if ref[i] < 'a' || ref[i] > 'z' {
			return false
		}
	}
	return true
}

func (d *Directory) forget(ref string) {
	d.mu.Lock()
	delete(d.known, ref)
	d.mu.Unlock()
}

func get(r storage.Reader, id storage.ID) (projectRecord, error) {
	rec, err := projects.Get(r, id)
	if storage.IsNotFound(err) {
		return projectRecord{}, errNoProject
	}
	return rec, err
}

// Signing returns the ref of a project of the reader's tenant, and the ES256 key that signs its access tokens.
func (d *Directory) Signing(r storage.Reader, project storage.ID) (ref, keyID string, key *ecdsa.PrivateKey, err error) {
	rec, err := get(r, project)
	if err != nil {
		return "", "", nil, err
	}
	key, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), rec.Key)
	return rec.Ref, rec.KeyID, key, wrap("reading a project's signing key", err)
}

// SignUp returns what a project of the reader's tenant decides about new accounts.
func (d *Directory) SignUp(r storage.Reader, project storage.ID) (open, autoConfirm bool, role string, err error) {
	rec, err := get(r, project)
	return rec.Settings.SignUp, rec.Settings.AutoConfirm, rec.Settings.DefaultRole, err
}
