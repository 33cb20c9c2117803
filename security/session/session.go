// Package session keeps sessions: who is signed in, where, and for how long. It speaks supabase/auth's protocol to the
// clients, and says of every request to a project who makes it.
//
// Promise: an access token is worth nothing by itself. It counts only while its session lives, which is read from a
// linearizable snapshot each time, so a session that was ended is dead on every node at once. A refresh token is good for
// one step; one that is used again, later than a client that lost a reply would, ends the session.
package session

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"bulwark/security/account"
	"bulwark/storage"
)

// Projects is what this package needs of the directory of projects.
type Projects interface {
	// Project returns what a ref leads to, or NotFound.
	Project(ctx context.Context, ref string) (tenant, project storage.ID, err error)
	// Signing returns the ref of a project of the reader's tenant and the ES256 key that signs its access tokens.
	Signing(r storage.Reader, project storage.ID) (ref, keyID string, key *ecdsa.PrivateKey, err error)
	// SignUp returns what the project decides about new accounts.
	SignUp(r storage.Reader, project storage.ID) (open, autoConfirm bool, role string, err error)
}

// APIKeys recognises the keys of projects.
type APIKeys interface {
	// Resolve says what a presented key is in the reader's project: Anonymous or Service, with its id; or Unauthenticated.
	Resolve(r storage.Reader, presented string) (storage.Kind, storage.ID, error)
	// Alive refuses a key of the reader's project, by its id, that was revoked.
	Alive(r storage.Reader, key storage.ID) error
}

// Config is what sessions need. All fields are needed, but for those that name a default.
type Config struct {
	Store    storage.Store
	Projects Projects
	Keys     APIKeys
	Hasher   *account.Hasher
	Level    func(role string) int   // the level of a role
	Issuer   func(ref string) string // a project's auth URL, without a slash at the end: who issues its tokens
	Random   io.Reader               // of cryptographic quality; safe for concurrent use
	Logger   *slog.Logger            // hears of errors that a client is not told
	Lifetime time.Duration           // of an access token; 0 is an hour. Clients refresh 90 seconds before its end
	Version  string                  // of the program
}

// Sessions starts, refreshes, ends and proves sessions. It implements api.Callers.
type Sessions struct {
	Config
	verified *verifiedTokens
}

// New returns the sessions that the store holds.
func New(c Config) (*Sessions, error) {
	if c.Store == nil || c.Projects == nil || c.Keys == nil || c.Hasher == nil || c.Level == nil || c.Issuer == nil ||
		c.Random == nil || c.Logger == nil {
		return nil, errors.New("sessions need a store, projects, API keys, a hasher, levels, an issuer, a random source and a logger")
	}
	if c.Lifetime == 0 {
		c.Lifetime = time.Hour
	}
	if c.Lifetime < 2*time.Minute || c.Lifetime > 24*time.Hour {
		return nil, fmt.Errorf("access tokens live for %v: set it to 2 minutes to 24 hours", c.Lifetime)
	}
	return &Sessions{Config: c, verified: newVerifiedTokens(maxVerifiedBytes)}, nil
}

// record is one session. It lives in the tenant, because a person may end all of theirs from any project.
type record struct {
	Account   storage.ID `cbor:"a"`
	Project   storage.ID `cbor:"p"`
	Key       []byte     `cbor:"k"` // of its refresh tokens
	Counter   uint64     `cbor:"n"` // of the refresh token that is next
	Created   time.Time  `cbor:"c"`
	Refreshed time.Time  `cbor:"r,omitzero"` // zero: never
	Agent     string     `cbor:"u"`
	Address   string     `cbor:"i"`
	AAL       string     `cbor:"l"`
	AMR       []method   `cbor:"m"` // most recent first
}

// A method is how, and when, somebody proved who they are. The same names are used in records and in tokens.
type method struct {
	Method string `cbor:"m" json:"method"`
	At     int64  `cbor:"t" json:"timestamp"` // seconds since 1970
}

var sessions = storage.NewTable[record]("session", storage.TenantScope,
	storage.Lookup("account", func(r *record) [][]byte { return [][]byte{r.Account[:]} }),
	storage.Cached[record]())

const (
	keyLength = 32
	maxAgent  = 200
	// reuse is how long after a refresh the tokens before it are still answered: the tabs of one browser refresh at once,
	// and a client may not have got its reply.
	reuse = 10 * time.Second
)

// The refusals that clients know.
var (
	errNoSession = storage.Errorf(storage.Unauthenticated, "session_not_found",
		"Session from session_id claim in JWT does not exist")
	errNoUser         = storage.Errorf(storage.Unauthenticated, "user_not_found", "User from sub claim in JWT does not exist")
	errCredentials    = storage.Errorf(storage.Unauthenticated, "invalid_credentials", "Invalid login credentials")
	errUnconfirmed    = storage.Errorf(storage.Unauthenticated, "email_not_confirmed", "Email not confirmed")
	errRefreshUnknown = storage.Errorf(storage.BadInput, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
	errRefreshUsed    = storage.Errorf(storage.BadInput, "refresh_token_already_used", "Invalid Refresh Token: Already Used")
	errSignUpClosed   = storage.Errorf(storage.Denied, "signup_disabled", "Signups not allowed for this instance")
	errSamePassword   = storage.Errorf(storage.BadInput, "same_password", "New password should be different from the old password.")
)

// Live returns nil if a session of the reader's tenant lives. It is for whoever decides about an actor in the same
// snapshot in which the actor's work is done.
func Live(r storage.Reader, session storage.ID) error {
	_, err := sessions.Get(r, session)
	if storage.IsNotFound(err) {
		return errNoSession
	}
	return err
}

// granted is a session and what its tokens are made from. Tokens are signed after the commit.
type granted struct {
	pretended bool // there is no account behind it
	id        storage.ID
	rec       record
	account   account.Account
	ref       string
	keyID     string
	key       *ecdsa.PrivateKey
	now       time.Time
}

// begin writes a session for an account that proved itself by how, in the transaction's project.
func (s *Sessions) begin(tx storage.Tx, a account.Account, how, aal string, key []byte, agent string) (granted, error) {
	now := tx.Now().UTC()
	rec := record{
		Account: a.ID, Project: tx.By().Project(), Key: key, Created: now, Agent: cut(agent, maxAgent), AAL: aal,
		AMR: []method{{how, now.Unix()}},
	}
	if o := tx.By().Origin(); o.Address.IsValid() {
		rec.Address = o.Address.String()
	}
	id := tx.NewID()
	tx.Note("session", id.String())
	if err := sessions.Put(tx, id, rec); err != nil {
		return granted{}, err
	}
	return s.grant(tx, id, rec, a)
}

func (s *Sessions) grant(r storage.Reader, id storage.ID, rec record, a account.Account) (granted, error) {
	g := granted{id: id, rec: rec, account: a, now: r.Now().UTC()}
	var err error
	g.ref, g.keyID, g.key, err = s.Projects.Signing(r, rec.Project)
	return g, err
}

func (s *Sessions) newKey() ([]byte, error) {
	key := make([]byte, keyLength)
	if _, err := io.ReadFull(s.Random, key); err != nil {
		return nil, fmt.Errorf("drawing a session's key: %w", err)
	}
	return key, nil
}

// cut makes a header's value fit for a record: at most n bytes of it, and valid UTF-8, which headers need not be and
// records must.
func cut(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "?")
}

// self is the node, reading what it takes to prove a credential.
func self(tenant, project storage.ID) storage.Actor {
	return storage.JobActor(tenant, project, "credentials")
}

var resolving = storage.Intent{Action: "credential.resolve"}

// signUp makes an account in the actor's project, and a session of it where addresses need no confirmation. Where they
// do, an address that is taken gets the answer, and the work, of one that is free.
func (s *Sessions) signUp(ctx context.Context, by storage.Actor, n account.New, password, agent string) (g granted, signedIn bool, err error) {
	var open bool
	var pepper account.Peppered
	err = s.Store.View(ctx, self(by.Tenant(), by.Project()), resolving, func(r storage.Reader) (err error) {
		if open, _, _, err = s.Projects.SignUp(r, by.Project()); err != nil {
			return err
		}
		pepper, err = account.Pepper(r, password)
		return err
	})
	if err != nil {
		return granted{}, false, err
	}
	if open { // else the transaction below refuses, and no time is spent on it
		if n.Hash, err = s.Hasher.Hash(ctx, pepper); err != nil {
			return granted{}, false, err
		}
	}
	key, err := s.newKey()
	if err != nil {
		return granted{}, false, err
	}
	err = s.Store.Update(ctx, by, storage.Intent{Action: "account.signup"}, func(tx storage.Tx) error {
		g, signedIn = granted{}, false
		if err := s.Alive(tx); err != nil {
			return err
		}
		open, confirm, role, err := s.Projects.SignUp(tx, by.Project())
		if err != nil {
			return err
		}
		if !open || len(n.Hash) == 0 {
			return errSignUpClosed
		}
		n.Confirmed, n.Role, signedIn = confirm, role, confirm
		a, err := account.Create(tx, n)
		if errors.Is(err, account.ErrExists) && !confirm {
			return s.pretend(tx, n, &g)
		}
		if err != nil {
			return err
		}
		tx.Note("account", a.ID.String())
		if !confirm {
			g.account = a
			return nil
		}
		a.LastSignIn = tx.Now().UTC()
		if err := account.Put(tx, a); err != nil {
			return err
		}
		g, err = s.begin(tx, a, "password", "aal1", key, agent)
		return err
	})
	return g, signedIn, err
}

// pretend answers a sign-up with an address that is taken as if it were free, so that nobody learns which addresses are. It
// is recorded, which also makes it take as long.
func (s *Sessions) pretend(tx storage.Tx, n account.New, g *granted) error {
	metadata, err := account.MergeMetadata(nil, n.Metadata)
	if err != nil {
		return err
	}
	tx.Note("taken", true)
	g.pretended = true
	now := tx.Now().UTC()
	g.account = account.Account{ID: tx.NewID(), Email: n.Email, Role: n.Role, Metadata: metadata, Created: now, Updated: now}
	return nil
}

// signIn proves a password and starts a session. Whatever is wrong, the answer and the work are the same.
func (s *Sessions) signIn(ctx context.Context, by storage.Actor, email, password, agent string) (granted, error) {
	var found account.Account
	var pepper account.Peppered
	err := s.Store.View(ctx, self(by.Tenant(), by.Project()), resolving, func(r storage.Reader) (err error) {
		if pepper, err = account.Pepper(r, password); err != nil {
			return err
		}
		found, err = account.ByEmail(r, email)
		if storage.IsNotFound(err) {
			found, err = account.Account{}, nil
		}
		return err
	})
	if err != nil {
		return granted{}, err
	}
	right, err := s.Hasher.Verify(ctx, found.Hash, pepper)
	if err != nil {
		return granted{}, err
	}
	key, err := s.newKey()
	if err != nil {
		return granted{}, err
	}
	intent := storage.Intent{Action: "session.create"}
	if !found.ID.IsZero() {
		intent.Object = found.ID.String()
	}
	var g granted
	err = s.Store.Update(ctx, by, intent, func(tx storage.Tx) error {
		if err := s.Alive(tx); err != nil {
			return err
		}
		if !right {
			return errCredentials
		}
		a, err := account.Get(tx, found.ID)
		if err != nil && !storage.IsNotFound(err) {
			return err
		}
		// The account may have changed while bcrypt ran: only the hash that was proven counts.
		if err != nil || string(a.Hash) != string(found.Hash) || !a.Assigned(by.Project()) {
			return errCredentials
		}
		if a.Confirmed.IsZero() {
			return errUnconfirmed
		}
		a.LastSignIn = tx.Now().UTC()
		if err := account.Put(tx, a); err != nil {
			return err
		}
		g, err = s.begin(tx, a, "password", "aal1", key, agent)
		return err
	})
	return g, err
}

// refresh takes a session one step further. Of requests that come at once with one token, one takes the step; the others
// find it taken and are given its result.
func (s *Sessions) refresh(ctx context.Context, by storage.Actor, presented string) (granted, error) {
	t, ok := parseRefreshToken(presented)
	if !ok {
		return granted{}, errRefreshUnknown
	}
	var g granted
	err := s.Store.Update(ctx, by, storage.Intent{Action: "session.refresh", Object: t.session.String()}, func(tx storage.Tx) error {
		if err := s.Alive(tx); err != nil {
			return err
		}
		rec, err := proven(tx, &t)
		if err != nil {
			return err
		}
		a, err := account.Get(tx, rec.Account)
		if storage.IsNotFound(err) || err == nil && !a.Assigned(rec.Project) {
			return errRefreshUnknown
		}
		if err != nil {
			return err
		}
		switch {
		case t.counter == rec.Counter:
			rec.Counter++
			rec.Refreshed = tx.Now().UTC()
			if err := sessions.Put(tx, t.session, rec); err != nil {
				return err
			}
		case reused(&t, &rec, tx.Now()):
			return errRefreshUsed
		default:
			tx.Note("again", true) // nothing changes, but somebody is given tokens
		}
		g, err = s.grant(tx, t.session, rec, a)
		return err
	})
	if errors.Is(err, errRefreshUsed) {
		return granted{}, s.endReused(ctx, by, &t)
	}
	return g, err
}

// proven returns the session of a refresh token that it made, in the reader's project.
func proven(r storage.Reader, t *refreshToken) (record, error) {
	rec, err := sessions.Get(r, t.session)
	if storage.IsNotFound(err) {
		return record{}, errRefreshUnknown
	}
	if err != nil {
		return record{}, err
	}
	if rec.Project != r.By().Project() || !t.provenBy(rec.Key) || t.counter > rec.Counter {
		return record{}, errRefreshUnknown
	}
	return rec, nil
}

// reused reports whether a token is so old that somebody else must have used it: not the current one, not the one before,
// whose reply may have been lost, and not from the moment of the last refresh.
func reused(t *refreshToken, rec *record, now time.Time) bool {
	return rec.Counter-t.counter > 1 && now.Sub(rec.Refreshed) >= reuse
}

// endReused ends the session of a token that was used again. It is an act of its own in the audit log. It answers
// errRefreshUsed unless the session could not be ended.
func (s *Sessions) endReused(ctx context.Context, by storage.Actor, t *refreshToken) error {
	err := s.Store.Update(ctx, by, storage.Intent{Action: "session.reuse", Object: t.session.String()}, func(tx storage.Tx) error {
		rec, err := proven(tx, t)
		if err != nil {
			return err
		}
		tx.Note("account", rec.Account.String())
		return sessions.Delete(tx, t.session)
	})
	if err == nil || errors.Is(err, errRefreshUnknown) {
		return errRefreshUsed
	}
	return err
}

// end ends sessions of the actor's account: "local" the actor's, "global" all, "others" all but the actor's.
func (s *Sessions) end(ctx context.Context, by storage.Actor, scope string) error {
	return s.Store.Update(ctx, by, storage.Intent{Action: "session.end", Object: by.Session().String()}, func(tx storage.Tx) error {
		if err := Live(tx, by.Session()); err != nil {
			return err
		}
		tx.Note("scope", scope)
		if scope == "local" {
			return sessions.Delete(tx, by.Session())
		}
		n, err := endAll(tx, by.Subject(), func(id storage.ID) bool { return scope == "global" || id != by.Session() })
		tx.Note("sessions", n)
		return err
	})
}

// endAll ends those sessions of an account that which says, and returns how many they were.
func endAll(tx storage.Tx, account storage.ID, which func(storage.ID) bool) (int, error) {
	var ids []storage.ID
	err := sessions.ByLookup(tx, "account", account[:], func(id storage.ID, _ record) bool {
		if which(id) {
			ids = append(ids, id)
		}
		return true
	})
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		if err := sessions.Delete(tx, id); err != nil {
			return 0, err
		}
	}
	return len(ids), nil
}

// endAtOnce is how many sessions one entry ends when all are.
const endAtOnce = 500

// EndEvery ends every session of the actor's tenant, and returns how many they were: after a restore, when those that were ended
// since the snapshot would come back.
func (s *Sessions) EndEvery(ctx context.Context, by storage.Actor) (total int, err error) {
	for {
		ended := 0
		err := s.Store.Update(ctx, by, storage.Intent{Action: "session.end_every", Object: by.Tenant().String()}, func(tx storage.Tx) error {
			var ids []storage.ID
			err := sessions.All(tx, storage.ID{}, func(id storage.ID, _ record) bool {
				ids = append(ids, id)
				return len(ids) < endAtOnce
			})
			if err != nil {
				return err
			}
			for _, id := range ids {
				if err := sessions.Delete(tx, id); err != nil {
					return err
				}
			}
			ended = len(ids)
			tx.Note("sessions", ended)
			return nil
		})
		if total += ended; err != nil || ended < endAtOnce {
			return total, err
		}
	}
}

// me returns the account of an actor whose session lives.
func me(r storage.Reader) (account.Account, error) {
	if err := Live(r, r.By().Session()); err != nil {
		return account.Account{}, err
	}
	a, err := account.Get(r, r.By().Subject())
	if storage.IsNotFound(err) {
		return account.Account{}, errNoUser
	}
	return a, err
}

// update changes the actor's own account. A new password ends the account's other sessions.
func (s *Sessions) update(ctx context.Context, by storage.Actor, body *credentialsBody) (account.Account, error) {
	var email string
	if body.Email != "" {
		var err error
		if email, err = account.NormalEmail(body.Email); err != nil {
			return account.Account{}, err
		}
	}
	if _, err := account.MergeMetadata(nil, body.Data); err != nil {
		return account.Account{}, err
	}
	var proved, hash []byte
	if body.Password != "" {
		var err error
		if proved, hash, err = s.newPassword(ctx, by, body); err != nil && !errors.Is(err, errCredentials) {
			return account.Account{}, err
		}
	}
	var a account.Account
	err := s.Store.Update(ctx, by, storage.Intent{Action: "account.update", Object: by.Subject().String()}, func(tx storage.Tx) (err error) {
		if a, err = me(tx); err != nil {
			return err
		}
		if body.Password != "" && hash == nil {
			return errCredentials // the current password was wrong: refused here, so that it is recorded
		}
		if email != "" && email != a.Email {
			return invalid("email", "Changing the address is not offered by this server")
		}
		if body.Data != nil {
			if a.Metadata, err = account.MergeMetadata(a.Metadata, body.Data); err != nil {
				return err
			}
			tx.Note("data", true)
		}
		if hash != nil {
			if string(a.Hash) != string(proved) {
				return storage.Errorf(storage.Conflict, "conflict", "The password was changed at the same moment: try again")
			}
			a.Hash = hash
			n, err := endAll(tx, a.ID, func(id storage.ID) bool { return id != by.Session() })
			if err != nil {
				return err
			}
			tx.Note("password", true)
			tx.Note("sessions_ended", n)
		}
		if body.Data == nil && hash == nil {
			return nil
		}
		a.Updated = tx.Now().UTC()
		return account.Put(tx, a)
	})
	return a, err
}

// newPassword returns the hash of the password that the actor wants, and the one it is to replace.
func (s *Sessions) newPassword(ctx context.Context, by storage.Actor, body *credentialsBody) (old, hash []byte, err error) {
	if err := account.CheckPassword(body.Password); err != nil {
		return nil, nil, err
	}
	var wanted, current account.Peppered
	err = s.Store.View(ctx, self(by.Tenant(), by.Project()), resolving, func(r storage.Reader) (err error) {
		if wanted, err = account.Pepper(r, body.Password); err != nil {
			return err
		}
		if current, err = account.Pepper(r, body.CurrentPassword); err != nil {
			return err
		}
		a, err := account.Get(r, by.Subject())
		if storage.IsNotFound(err) {
			return errNoUser
		}
		old = a.Hash
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if body.CurrentPassword != "" {
		right, err := s.Hasher.Verify(ctx, old, current)
		if err != nil {
			return nil, nil, err
		}
		if !right {
			return nil, nil, errCredentials
		}
	}
	same, err := s.Hasher.Verify(ctx, old, wanted)
	if err != nil {
		return nil, nil, err
	}
	if same {
		return nil, nil, errSamePassword
	}
	hash, err = s.Hasher.Hash(ctx, wanted)
	return old, hash, err
}
