package storage

import (
	"net/netip"
)

// A Kind says what sort of principal an Actor is.
type Kind uint8

// The kinds of principal. The zero Kind is nobody.
const (
	Nobody    Kind = iota
	Anonymous      // a publishable key: PostgreSQL's anon
	Account        // a person with a live session: authenticated
	Service        // a secret key: service_role, inside its own project
	Operator       // the operator at the console, or with an operator token
	Job            // a node's own background work
)

var kindNames = [...]string{"nobody", "anonymous", "account", "service", "operator", "job"}

// String returns the word that the audit log uses.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// An Origin is where a request came from; it is written down, never decided on.
type Origin struct {
	Address   netip.Addr // of the socket's other end
	RequestID string     // as answered in X-Request-Id
}

// An Actor is who acts, and where. The zero Actor is nobody and may do nothing.
//
// Actors are made from proven credentials only: the constructors below are called by the packages that check one, and a
// test in package node lists those packages.
type Actor struct {
	kind    Kind
	tenant  ID
	project ID
	subject ID // the account, the API key, or the job's id
	session ID
	name    string // for jobs and operators: which
	claims  []byte
	origin  Origin
}

// AnonymousActor is the holder of a project's publishable key.
func AnonymousActor(tenant, project, key ID, o Origin) Actor {
	return Actor{kind: Anonymous, tenant: tenant, project: project, subject: key, origin: o}
}

// ServiceActor is the holder of a project's secret key.
func ServiceActor(tenant, project, key ID, o Origin) Actor {
	return Actor{kind: Service, tenant: tenant, project: project, subject: key, origin: o}
}

// AccountActor is a person with a live session. claims is the verified access token's payload (JSON), which row policies
// read as auth.jwt().
func AccountActor(tenant, project, account, session ID, claims []byte, o Origin) Actor {
	return Actor{kind: Account, tenant: tenant, project: project, subject: account, session: session, claims: claims, origin: o}
}

// OperatorActor is whoever may use the node's own socket, or holds an operator token (token is then its id), acting in
// tenant and, if not zero, project.
func OperatorActor(tenant, project, token ID, name string, o Origin) Actor {
	return Actor{kind: Operator, tenant: tenant, project: project, subject: token, name: name, origin: o}
}

// JobActor is a background job of a node.
func JobActor(tenant, project ID, name string) Actor {
	return Actor{kind: Job, tenant: tenant, project: project, name: name}
}

// Kind says what sort of principal a is.
func (a Actor) Kind() Kind { return a.kind }

// Tenant is the only tenant that a can reach.
func (a Actor) Tenant() ID { return a.tenant }

// Project is the project that a acts in, or zero: the tenant itself.
func (a Actor) Project() ID { return a.project }

// Subject is the id of the account, API key or token; zero for jobs and for the console.
func (a Actor) Subject() ID { return a.subject }

// Session is the session of an account; else zero.
func (a Actor) Session() ID { return a.session }

// Name says which job or operator a is; else "".
func (a Actor) Name() string { return a.name }

// Claims is the payload of an account's access token; nil for others. It must not be changed.
func (a Actor) Claims() []byte { return a.claims }

// Origin is where the request came from.
func (a Actor) Origin() Origin { return a.origin }

// Role is the PostgreSQL role that row policies see: "anon", "authenticated" or "service_role"; "" for others, who reach
// no rows.
func (a Actor) Role() string {
	switch a.kind {
	case Anonymous:
		return "anon"
	case Account:
		return "authenticated"
	case Service:
		return "service_role"
	}
	return ""
}

// An Intent is the one thing that a transaction is for. Access decides on it and the audit log records it, so what was
// allowed and what was written down cannot differ.
type Intent struct {
	Action string // "resource.verb", for example "apikey.revoke"
	Object string // what it is done to: an id, never what somebody typed beyond a name; sealed in the audit log
}
