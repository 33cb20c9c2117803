// Package api makes an endpoint a typed value: a Route says its method, path, scope and types once, and the server, the
// typed client and the OpenAPI description are all made from it.
//
// Promise: a handler gets an Actor that was made from a proven credential and a request that was decoded strictly and
// within limits; it returns a reply or an error. One adapter does the rest, so that no handler can forget a check.
package api

import (
	"net/http"

	"bulwark/storage"
)

// A Scope says which tenant and project the actor of a management endpoint acts in.
type Scope uint8

// The scopes: the system tenant; the tenant in the path's {tenant}; the project in the path's {ref}.
const (
	SystemScope Scope = iota
	TenantScope
	ProjectScope
)

// A Route is one management endpoint. Fields of Req are filled from the path (`path:"ref"`), the query
// (`query:"limit"`) and else the JSON body (`json:"name"`). Doc comments for OpenAPI come from `doc:"…"` tags.
type Route[Req, Resp any] struct {
	Method  string
	Path    string // as net/http patterns: "/api/v1/projects/{ref}/apikeys/{id}"
	Scope   Scope
	Summary string
	Status  int // of success; 0 is 200, or 204 where Resp is Empty
}

// Empty is a request or reply without fields.
type Empty struct{}

// Callers finds who calls a project's surface: the actor that the request's apikey and Authorization headers prove, for
// the project whose ref is in the path (or the host). It refuses with an *storage.Error of kind Unauthenticated or NotFound.
type Callers interface {
	Caller(r *http.Request) (storage.Actor, error)

	// Alive refuses a reader whose actor's credential has ended since Caller proved it. A body may take its time to come, so
	// whoever changes something after reading one asks again, in the transaction that changes it.
	Alive(r storage.Reader) error
}
