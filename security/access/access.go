// Package access decides who may do what.
//
// Promise: every transaction of the store is decided here before it begins, and what no rule allows is refused. A rule
// names an action and the kinds of principal that may do it; row policies decide on rows afterwards, never instead.
package access

import (
	"strings"

	"bulwark/storage"
)

// kinds is a set of kinds of principal.
type kinds uint8

func set(ks ...storage.Kind) (s kinds) {
	for _, k := range ks {
		s |= 1 << k
	}
	return s
}

func (s kinds) has(k storage.Kind) bool { return s&(1<<k) != 0 }

// A Guard holds the rules. It implements storage.Access and is safe for concurrent use.
type Guard struct {
	actions   map[string]kinds // "resource.verb"
	resources map[string]kinds // "resource": its verbs that have no rule of their own
}

// New returns the guard with the built-in rules.
func New() *Guard {
	var (
		clients = set(storage.Anonymous, storage.Account, storage.Service)
		signIn  = set(storage.Anonymous, storage.Account, storage.Service)
		person  = set(storage.Account)
		manage  = set(storage.Operator)
		node    = set(storage.Job)
		ours    = set(storage.Operator, storage.Job)
	)
	return &Guard{
		actions: map[string]kinds{
			"account.signup":    signIn,
			"account.read":      person,
			"account.update":    person,
			"session.create":    signIn,
			"session.refresh":   signIn,
			"session.reuse":     signIn, // a refresh token that was used again ends its session
			"session.read":      person,
			"session.end":       person,
			"session.end_every": node,
			"audit.checkpoint":  ours,
			"audit.index":       node,
			"key.rotate":        manage,
			"schema.read":       ours,
			"schema.purge":      ours,
		},
		resources: map[string]kinds{
			"rows":        clients,
			"tenant":      manage,
			"project":     manage,
			"apikey":      manage,
			"operator":    manage,
			"schema":      manage,
			"audit":       manage,
			"key":         ours,
			"cluster":     ours,
			"member":      ours,
			"snapshot":    ours,
			"certificate": node,
			"directory":   node,
			"credential":  node,
		},
	}
}

// Decide implements storage.Access.
func (g *Guard) Decide(_ storage.Reader, by storage.Actor, to storage.Intent) error {
	allowed, ok := g.actions[to.Action]
	if !ok {
		resource, _, _ := strings.Cut(to.Action, ".")
		allowed = g.resources[resource]
	}
	if by.Kind() != storage.Nobody && allowed.has(by.Kind()) {
		return nil
	}
	return storage.Errorf(storage.Denied, "denied", "%s may not %s", article(by.Kind()), to.Action)
}

func article(k storage.Kind) string {
	switch k {
	case storage.Anonymous, storage.Account, storage.Operator:
		return "an " + k.String() + " principal"
	}
	return "a " + k.String() + " principal"
}
