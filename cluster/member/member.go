// Package member says who belongs to the cluster: join tokens, the join itself, the nodes' certificates, and the records of
// the nodes.
//
// Promise: nobody becomes a node without a token that the cluster made, that has not expired and that no other node has used;
// no token is given to anybody but the cluster that made it, because it pins the cluster's CA; and between nodes nothing is
// said before both have shown a certificate of that CA that names them as a node of this cluster, and that was not removed.
// The root key leaves a node in the answer to such a token, and in no other way.
//
// DESIGN.md has the protocol.
package member

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"bulwark/storage"
)

// A Record is a node as the cluster's people know it.
type Record struct {
	ID     storage.ID `cbor:"i"`
	Name   string     `cbor:"n"`
	Addr   string     `cbor:"a"` // where other nodes reach it
	Joined time.Time  `cbor:"j"`
}

// A TokenRecord is what the cluster keeps of a join token: not its secret.
type TokenRecord struct {
	Hash    []byte     `cbor:"h"` // SHA-256 of the secret
	Created time.Time  `cbor:"c"`
	Expires time.Time  `cbor:"e"`
	Used    storage.ID `cbor:"u"` // the node that used it; zero: none has
	UsedBy  []byte     `cbor:"k"` // SHA-256 of that node's public key
	Name    string     `cbor:"n"` // of that node
}

var (
	records = storage.NewTable("member", storage.TenantScope,
		storage.Unique("name", func(r *Record) []byte { return []byte(strings.ToLower(r.Name)) }))
	tokens = storage.NewTable("join-token", storage.TenantScope,
		storage.Unique("secret", func(t *TokenRecord) []byte { return t.Hash }))
	// removed holds the ids of nodes that were taken out of the cluster, as keys without values: so that a sealed node can
	// read them, too.
	removed = storage.Ref{Name: RemovedTable, Scope: storage.TenantScope}
)

// RemovedTable is the system tenant's table whose keys are the ids of removed nodes.
const RemovedTable = "removed-node"

// How long a token lives.
const (
	DefaultExpiry = time.Hour
	MaxExpiry     = 7 * 24 * time.Hour
)

// A Registry keeps the records of nodes and tokens.
type Registry struct{ store storage.Store }

// NewRegistry returns the registry in store.
func NewRegistry(store storage.Store) *Registry { return &Registry{store} }

// NewToken makes a join token that pins ca (DER) and names the addresses at which a new node may ask.
func (g *Registry) NewToken(ctx context.Context, by storage.Actor, ca []byte, addrs []string, expiry time.Duration) (text string, id storage.ID, t TokenRecord, err error) {
	if expiry <= 0 || expiry > MaxExpiry {
		return "", id, t, storage.Errorf(storage.BadInput, "bad_expiry", "a join token lives up to %s: give --expires between 1m and %[1]s", MaxExpiry)
	}
	token := Token{CA: sha256.Sum256(ca), Addrs: addrs}
	if _, err := rand.Read(token.Secret[:]); err != nil {
		return "", id, t, fmt.Errorf("drawing a join token: %w", err)
	}
	hash := sha256.Sum256(token.Secret[:])
	err = g.store.Update(ctx, by, storage.Intent{Action: "member.token"}, func(tx storage.Tx) error {
		id = tx.NewID()
		t = TokenRecord{Hash: hash[:], Created: tx.Now(), Expires: tx.Now().Add(expiry)}
		tx.Note("token", id.String())
		tx.Note("expires", t.Expires.UTC().Format(time.RFC3339))
		return tokens.Put(tx, id, t)
	})
	if err != nil {
		return "", id, t, err
	}
	token.Expires = t.Expires
	return token.String(), id, t, nil
}

// A TokenInfo is a token as it is listed.
type TokenInfo struct {
	ID storage.ID
	TokenRecord
}

// Tokens lists the tokens that were not revoked and expired no longer than a week ago, oldest first.
func (g *Registry) Tokens(ctx context.Context, by storage.Actor) (all []TokenInfo, err error) {
	err = g.store.View(ctx, by, storage.Intent{Action: "member.list"}, func(r storage.Reader) error {
		all = nil
		return tokens.All(r, storage.ID{}, func(id storage.ID, t TokenRecord) bool {
			all = append(all, TokenInfo{id, t})
			return true
		})
	})
	return all, err
}

// RevokeToken makes a token useless.
func (g *Registry) RevokeToken(ctx context.Context, by storage.Actor, id storage.ID) error {
	return g.store.Update(ctx, by, storage.Intent{Action: "member.revoke_token", Object: id.String()}, func(tx storage.Tx) error {
		if _, err := tokens.Get(tx, id); err != nil {
			if storage.IsNotFound(err) {
				return storage.Errorf(storage.NotFound, "token_not_found", "there is no join token %s: see `bulwark operator token list`", id)
			}
			return err
		}
		return tokens.Delete(tx, id)
	})
}

// List returns the nodes by name.
func (g *Registry) List(ctx context.Context, by storage.Actor) (all []Record, err error) {
	err = g.store.View(ctx, by, storage.Intent{Action: "member.list"}, func(r storage.Reader) error {
		all = nil
		return records.All(r, storage.ID{}, func(_ storage.ID, m Record) bool {
			all = append(all, m)
			return true
		})
	})
	slices.SortFunc(all, func(a, b Record) int { return strings.Compare(a.Name, b.Name) })
	return all, err
}

// Enlist brings the record of a node of the cluster up to date, and makes it for the first one, which has not joined. A node
// keeps the name that it has, unless a person gave it another that is free. It returns the record as it is then.
func (g *Registry) Enlist(ctx context.Context, by storage.Actor, m Record, named bool) (current Record, err error) {
	wanted := func(r storage.Reader) (Record, error) {
		have, err := records.Get(r, m.ID)
		if storage.IsNotFound(err) {
			have, err = Record{ID: m.ID, Name: m.Name, Joined: r.Now()}, nil
		}
		if err != nil {
			return have, err
		}
		have.Addr = m.Addr
		if named {
			have.Name = m.Name
		}
		holder, there, err := records.ByUnique(r, "name", []byte(strings.ToLower(have.Name)))
		if err == nil && holder != m.ID {
			have.Name = there.Name + "-" + m.ID.String()[:8]
		} else if storage.IsNotFound(err) {
			err = nil
		}
		return have, err
	}
	same := false
	err = g.store.View(ctx, by, storage.Intent{Action: "member.list"}, func(r storage.Reader) error {
		if current, err = wanted(r); err != nil {
			return err
		}
		have, err := records.Get(r, m.ID)
		same = err == nil && have.Name == current.Name && have.Addr == current.Addr
		return nil
	})
	if err != nil || same {
		return current, err
	}
	err = g.store.Update(ctx, by, storage.Intent{Action: "member.enlist", Object: m.ID.String()}, func(tx storage.Tx) error {
		if current, err = wanted(tx); err != nil {
			return err
		}
		tx.Note("name", current.Name)
		tx.Note("address", current.Addr)
		return records.Put(tx, m.ID, current)
	})
	return current, err
}

// A Candidate is what a node that wants to join says of itself.
type Candidate struct {
	Secret    [32]byte
	Node      storage.ID
	Name      string
	NameGiven bool // by a person; else a number may be added to it
	Addr      string
	Key       [32]byte // SHA-256 of its public key
}

// Admit consumes the token of a candidate and writes its record, in one entry. alive says whether a node was heard from of
// late. A name of a node that is not alive is taken over: that node is then removed, and returned as replaced.
func (g *Registry) Admit(ctx context.Context, c Candidate, alive func(storage.ID) bool) (m Record, replaced storage.ID, err error) {
	hash := sha256.Sum256(c.Secret[:])
	// The secret is the credential; until it is found there is nobody to act for.
	by := storage.JobActor(storage.System, storage.ID{}, "join")
	err = g.store.Update(ctx, by, storage.Intent{Action: "member.join", Object: c.Node.String()}, func(tx storage.Tx) error {
		replaced = storage.ID{}
		id, t, err := tokens.ByUnique(tx, "secret", hash[:])
		if storage.IsNotFound(err) {
			return errToken("it is not known here, or was revoked")
		}
		if err != nil {
			return err
		}
		switch again := t.Used == c.Node && [32]byte(t.UsedBy) == c.Key; {
		case !tx.Now().Before(t.Expires):
			return errToken("it has expired")
		case !t.Used.IsZero() && !again:
			return errToken("another node has used it")
		case again:
			if m, err = records.Get(tx, c.Node); err == nil {
				m.Addr = c.Addr
				return records.Put(tx, c.Node, m)
			}
			return errToken("the node that used it was removed")
		}
		if _, err := tx.Get(removed, c.Node[:]); err == nil {
			return errToken("this node was removed")
		}
		if m, replaced, err = g.name(tx, c, alive); err != nil {
			return err
		}
		t.Used, t.UsedBy, t.Name = c.Node, c.Key[:], m.Name
		if err := tokens.Put(tx, id, t); err != nil {
			return err
		}
		tx.Note("name", m.Name)
		tx.Note("address", m.Addr)
		tx.Note("token", id.String())
		if !replaced.IsZero() {
			tx.Note("replaces", replaced.String())
		}
		return records.Put(tx, c.Node, m)
	})
	return m, replaced, err
}

func errToken(why string) error {
	return storage.Errorf(storage.Denied, "bad_join_token", "the join token does not hold: %s; make another with `bulwark operator token` on a node of the cluster", why)
}

// maxNames bounds the numbers that are tried behind a name.
const maxNames = 100

// name finds the candidate's name. A node of that name that is gone is removed.
func (g *Registry) name(tx storage.Tx, c Candidate, alive func(storage.ID) bool) (m Record, replaced storage.ID, err error) {
	m = Record{ID: c.Node, Name: c.Name, Addr: c.Addr, Joined: tx.Now()}
	for n := 2; ; n++ {
		id, _, err := records.ByUnique(tx, "name", []byte(strings.ToLower(m.Name)))
		switch {
		case storage.IsNotFound(err), err == nil && id == c.Node:
			return m, storage.ID{}, nil
		case err != nil:
			return m, storage.ID{}, err
		case !alive(id):
			return m, id, errors.Join(records.Delete(tx, id), tx.Put(removed, id[:], nil))
		case c.NameGiven || n > maxNames:
			return m, storage.ID{}, storage.Errorf(storage.Exists, "name_taken",
				"a node named %s is in the cluster and alive: choose another --name, or stop or remove that one first", m.Name)
		}
		m.Name = fmt.Sprintf("%s-%d", c.Name, n)
	}
}

// Remove forgets a node, and remembers that it was removed: its certificate is refused from then on.
func (g *Registry) Remove(ctx context.Context, by storage.Actor, id storage.ID) error {
	return g.store.Update(ctx, by, storage.Intent{Action: "member.remove", Object: id.String()}, func(tx storage.Tx) error {
		if m, err := records.Get(tx, id); err == nil {
			tx.Note("name", m.Name)
			if err := records.Delete(tx, id); err != nil {
				return err
			}
		} else if !storage.IsNotFound(err) {
			return err
		}
		return tx.Put(removed, id[:], nil)
	})
}

// Note records an operation on a member that the log itself carries out: promote, transfer-leader.
func (g *Registry) Note(ctx context.Context, by storage.Actor, action string, id storage.ID) error {
	return g.store.Update(ctx, by, storage.Intent{Action: action, Object: id.String()}, func(tx storage.Tx) error {
		tx.Note("node", id.String())
		return nil
	})
}
