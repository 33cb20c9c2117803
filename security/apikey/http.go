package apikey

import (
	"context"
	"time"

	"bulwark/storage"
	"bulwark/web/api"
)

// The management endpoints of a project's keys, and of the cluster's operator tokens.
var (
	ListKeys = api.Route[ListRequest, KeyList]{Method: "GET", Path: "/api/v1/projects/{ref}/apikeys",
		Scope: api.ProjectScope, Summary: "List the API keys of a project"}
	CreateKey = api.Route[CreateRequest, NewKey]{Method: "POST", Path: "/api/v1/projects/{ref}/apikeys",
		Scope: api.ProjectScope, Summary: "Create an API key; the reply is the only place that shows it", Status: 201}
	RotateKey = api.Route[RotateRequest, NewKey]{Method: "POST", Path: "/api/v1/projects/{ref}/apikeys/{id}/rotate",
		Scope: api.ProjectScope, Summary: "Give an API key a new value; the reply is the only place that shows it"}
	RevokeKey = api.Route[RevokeRequest, api.Empty]{Method: "DELETE", Path: "/api/v1/projects/{ref}/apikeys/{id}",
		Scope: api.ProjectScope, Summary: "Revoke an API key"}

	ListTokens = api.Route[api.Empty, KeyList]{Method: "GET", Path: "/api/v1/operator/tokens",
		Scope: api.SystemScope, Summary: "List the operator tokens"}
	CreateToken = api.Route[CreateTokenRequest, NewKey]{Method: "POST", Path: "/api/v1/operator/tokens",
		Scope: api.SystemScope, Summary: "Create an operator token; the reply is the only place that shows it", Status: 201}
	RotateToken = api.Route[RotateTokenRequest, NewKey]{Method: "POST", Path: "/api/v1/operator/tokens/{id}/rotate",
		Scope: api.SystemScope, Summary: "Give an operator token a new value; the reply is the only place that shows it"}
	RevokeToken = api.Route[RevokeTokenRequest, api.Empty]{Method: "DELETE", Path: "/api/v1/operator/tokens/{id}",
		Scope: api.SystemScope, Summary: "Revoke an operator token"}
)

// Requests and replies of the endpoints.
type (
	// ListRequest says whose keys to list.
	ListRequest struct {
		Ref string `path:"ref"`
	}
	// KeyList lists keys, oldest first.
	KeyList struct {
		Keys []Key `json:"keys"`
	}
	// CreateRequest says what key to create.
	CreateRequest struct {
		Ref  string `path:"ref"`
		Kind Kind   `json:"kind" doc:"publishable or secret"`
		Name string `json:"name" doc:"1 to 100 characters, to tell keys apart by"`
	}
	// NewKey is a key with its value.
	NewKey struct {
		Key   Key    `json:"key"`
		Value string `json:"value" doc:"the key itself; it is not stored and never shown again"`
	}
	// RotateRequest says which key to rotate.
	RotateRequest struct {
		Ref     string     `path:"ref"`
		ID      storage.ID `path:"id"`
		Overlap int        `json:"overlap,omitempty" doc:"seconds for which the old value stays valid; at most 2592000"`
	}
	// RevokeRequest says which key to revoke.
	RevokeRequest struct {
		Ref string     `path:"ref"`
		ID  storage.ID `path:"id"`
	}
	// CreateTokenRequest says what operator token to create.
	CreateTokenRequest struct {
		Name string `json:"name" doc:"1 to 100 characters, to tell tokens apart by"`
	}
	// RotateTokenRequest says which operator token to rotate.
	RotateTokenRequest struct {
		ID      storage.ID `path:"id"`
		Overlap int        `json:"overlap,omitempty" doc:"seconds for which the old value stays valid; at most 2592000"`
	}
	// RevokeTokenRequest says which operator token to revoke.
	RevokeTokenRequest struct {
		ID storage.ID `path:"id"`
	}
)

// Register adds the endpoints to m.
func (k *Keys) Register(m *api.Mux) {
	api.Handle(m, ListKeys, func(ctx context.Context, by storage.Actor, _ ListRequest) (KeyList, error) {
		list, err := k.List(ctx, by)
		return KeyList{list}, err
	})
	api.Handle(m, CreateKey, func(ctx context.Context, by storage.Actor, req CreateRequest) (NewKey, error) {
		return newKey(k.Create(ctx, by, req.Kind, req.Name))
	})
	api.Handle(m, RotateKey, func(ctx context.Context, by storage.Actor, req RotateRequest) (NewKey, error) {
		return newKey(k.Rotate(ctx, by, req.ID, seconds(req.Overlap)))
	})
	api.Handle(m, RevokeKey, func(ctx context.Context, by storage.Actor, req RevokeRequest) (api.Empty, error) {
		return api.Empty{}, k.Revoke(ctx, by, req.ID)
	})
	api.Handle(m, ListTokens, func(ctx context.Context, by storage.Actor, _ api.Empty) (KeyList, error) {
		list, err := k.List(ctx, by)
		return KeyList{list}, err
	})
	api.Handle(m, CreateToken, func(ctx context.Context, by storage.Actor, req CreateTokenRequest) (NewKey, error) {
		return newKey(k.Create(ctx, by, Operator, req.Name))
	})
	api.Handle(m, RotateToken, func(ctx context.Context, by storage.Actor, req RotateTokenRequest) (NewKey, error) {
		return newKey(k.Rotate(ctx, by, req.ID, seconds(req.Overlap)))
	})
	api.Handle(m, RevokeToken, func(ctx context.Context, by storage.Actor, req RevokeTokenRequest) (api.Empty, error) {
		return api.Empty{}, k.Revoke(ctx, by, req.ID)
	})
}

func newKey(key Key, value string, err error) (NewKey, error) {
	return NewKey{Key: key, Value: value}, err
}

// seconds turns a number from outside into a duration, without overflow: what is out of range stays out of range.
func seconds(n int) time.Duration {
	return time.Duration(min(max(n, -1), int(maxOverlap/time.Second)+1)) * time.Second
}
