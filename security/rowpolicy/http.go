package rowpolicy

import (
	"context"

	"bulwark/storage"
	"bulwark/web/api"
)

// ApplySQL and ReadSQL are the management endpoints of a project's schema.
var (
	ApplySQL = api.Route[ApplyRequest, ApplyReply]{Method: "POST", Path: "/api/v1/projects/{ref}/sql",
		Scope: api.ProjectScope, Summary: "Apply SQL to a project's schema: tables, row level security and policies; all of it or none"}
	ReadSQL = api.Route[ReadRequest, ReadReply]{Method: "GET", Path: "/api/v1/projects/{ref}/sql",
		Scope: api.ProjectScope, Summary: "Read a project's schema as SQL"}
)

// Requests and replies of the endpoints.
type (
	// ApplyRequest holds the text to apply.
	ApplyRequest struct {
		Ref string `path:"ref"`
		SQL string `json:"sql" doc:"statements, as PostgreSQL's; at most 1 MiB"`
	}
	// ApplyReply says what the statements did, in their order.
	ApplyReply struct {
		Changes []Change `json:"changes"`
	}
	// ReadRequest says whose schema to read.
	ReadRequest struct {
		Ref string `path:"ref"`
	}
	// ReadReply holds the schema.
	ReadReply struct {
		SQL string `json:"sql" doc:"statements that make the schema in an empty project"`
	}
)

// Register adds the endpoints to m.
func (s *Service) Register(m *api.Mux) {
	api.Handle(m, ApplySQL, func(ctx context.Context, by storage.Actor, req ApplyRequest) (ApplyReply, error) {
		changes, err := s.Apply(ctx, by, req.SQL)
		if changes == nil {
			changes = []Change{}
		}
		return ApplyReply{Changes: changes}, err
	})
	api.Handle(m, ReadSQL, func(ctx context.Context, by storage.Actor, _ ReadRequest) (ReadReply, error) {
		sql, err := s.SQL(ctx, by)
		return ReadReply{SQL: sql}, err
	})
}
