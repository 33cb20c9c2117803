package audit

import (
	"context"
	"io"

	"bulwark/storage"
	"bulwark/web/api"
)

// The endpoints of a tenant's audit log. What is searched for stands in the body, so that it is in no access log.
var (
	SearchRoute = api.Route[SearchRequest, *Page]{
		Method: "POST", Path: "/api/v1/tenants/{tenant}/audit/search", Scope: api.TenantScope, Summary: "Search the audit log"}
	ExportRoute = api.Route[ExportRequest, api.Empty]{
		Method: "POST", Path: "/api/v1/tenants/{tenant}/audit/export", Scope: api.TenantScope,
		Summary: "Export the audit log, or with a filter a part of it with proofs, as lines of JSON"}
	CheckpointRoute = api.Route[CheckpointRequest, CheckpointReply]{
		Method: "GET", Path: "/api/v1/tenants/{tenant}/audit/checkpoint", Scope: api.TenantScope,
		Summary: "Sign the audit log's tree as it is now"}
)

// ExportType is the media type of an export.
const ExportType = "application/jsonl"

// A SearchRequest is a Query of one tenant's log.
type SearchRequest struct {
	Tenant string `path:"tenant" doc:"the tenant's id or name"`
	Query
}

// An ExportRequest is a full export when its Filter is zero.
type ExportRequest struct {
	Tenant string `path:"tenant" doc:"the tenant's id or name"`
	Filter
}

// A CheckpointRequest names the tenant.
type CheckpointRequest struct {
	Tenant string `path:"tenant" doc:"the tenant's id or name"`
}

// A CheckpointReply is a signed checkpoint and the key that checks it.
type CheckpointReply struct {
	Origin   string `json:"origin" doc:"whose log it is: bulwark/<cluster>/<tenant>"`
	Size     uint64 `json:"size" doc:"events in the log"`
	Note     string `json:"checkpoint" doc:"a C2SP signed note"`
	Verifier string `json:"verifier" doc:"the key that checks the note: keep it where the node cannot change it"`
}

// Register puts the audit log's endpoints on m.
func Register(m *api.Mux, c *Checkpointer, s Searcher) {
	api.Handle(m, SearchRoute, func(ctx context.Context, by storage.Actor, req SearchRequest) (*Page, error) {
		return s.Search(ctx, by, req.Query)
	})
	api.HandleStream(m, ExportRoute, ExportType, func(ctx context.Context, by storage.Actor, req ExportRequest, w io.Writer) error {
		var filter *Filter
		if req.Filter != (Filter{}) {
			filter = &req.Filter
		}
		_, err := c.Export(ctx, by, w, filter)
		return err
	})
	api.Handle(m, CheckpointRoute, func(ctx context.Context, by storage.Actor, _ CheckpointRequest) (CheckpointReply, error) {
		s, err := c.Current(ctx, by)
		if err != nil {
			return CheckpointReply{}, err
		}
		return CheckpointReply{Origin: s.Origin, Size: s.Size, Note: string(s.Note), Verifier: s.Verifier}, nil
	})
}
