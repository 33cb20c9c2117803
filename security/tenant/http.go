package tenant

import (
	"context"

	"bulwark/storage"
	"bulwark/web/api"
)

// The management endpoints.
var (
	CreateTenant = api.Route[CreateTenantRequest, Tenant]{Method: "POST", Path: "/api/v1/tenants",
		Scope: api.SystemScope, Summary: "Create a tenant", Status: 201}
	ListTenants = api.Route[api.Empty, TenantList]{Method: "GET", Path: "/api/v1/tenants",
		Scope: api.SystemScope, Summary: "List tenants"}
	DeleteTenant = api.Route[DeleteTenantRequest, api.Empty]{Method: "DELETE", Path: "/api/v1/tenants/{tenant}",
		Scope: api.SystemScope, Summary: "Destroy a tenant and all its data"}
	CreateProject = api.Route[CreateProjectRequest, Project]{Method: "POST", Path: "/api/v1/tenants/{tenant}/projects",
		Scope: api.TenantScope, Summary: "Create a project", Status: 201}
	ListProjects = api.Route[ListProjectsRequest, ProjectList]{Method: "GET", Path: "/api/v1/tenants/{tenant}/projects",
		Scope: api.TenantScope, Summary: "List the projects of a tenant"}
	ConfigureProject = api.Route[ConfigureProjectRequest, Project]{Method: "PUT", Path: "/api/v1/projects/{ref}/settings",
		Scope: api.ProjectScope, Summary: "Replace the settings of a project"}
	DeleteProject = api.Route[DeleteProjectRequest, api.Empty]{Method: "DELETE", Path: "/api/v1/projects/{ref}",
		Scope: api.ProjectScope, Summary: "Destroy a project and all its data"}
)

// Requests and replies of the endpoints.
type (
	// CreateTenantRequest names the tenant to create.
	CreateTenantRequest struct {
		Name string `json:"name" doc:"1 to 63 of a-z, 0-9 and -; unique in the cluster"`
	}
	// TenantList lists tenants, oldest first.
	TenantList struct {
		Tenants []Tenant `json:"tenants"`
	}
	// DeleteTenantRequest names the tenant to destroy, twice.
	DeleteTenantRequest struct {
		Tenant  string `path:"tenant" doc:"name or id"`
		Confirm string `query:"confirm" doc:"the tenant's name, typed again"`
	}
	// CreateProjectRequest says what project to create.
	CreateProjectRequest struct {
		Tenant      string `path:"tenant" doc:"name or id"`
		Name        string `json:"name" doc:"1 to 63 of a-z, 0-9 and -; unique in the tenant"`
		SignUp      bool   `json:"sign_up,omitempty" doc:"whether anybody with the publishable key may sign up"`
		AutoConfirm bool   `json:"auto_confirm,omitempty" doc:"whether an address counts as confirmed without a message to it"`
		DefaultRole string `json:"default_role,omitempty" doc:"the role of an account that signs up here; user if empty"`
	}
	// ListProjectsRequest says whose projects to list.
	ListProjectsRequest struct {
		Tenant string `path:"tenant" doc:"name or id"`
	}
	// ProjectList lists projects, oldest first.
	ProjectList struct {
		Projects []Project `json:"projects"`
	}
	// ConfigureProjectRequest holds all settings of a project.
	ConfigureProjectRequest struct {
		Ref         string `path:"ref"`
		SignUp      bool   `json:"sign_up" doc:"whether anybody with the publishable key may sign up"`
		AutoConfirm bool   `json:"auto_confirm" doc:"whether an address counts as confirmed without a message to it"`
		DefaultRole string `json:"default_role,omitempty" doc:"the role of an account that signs up here; user if empty"`
	}
	// DeleteProjectRequest names the project to destroy.
	DeleteProjectRequest struct {
		Ref string `path:"ref"`
	}
)

// Register adds the endpoints to m.
func (d *Directory) Register(m *api.Mux) {
	api.Handle(m, CreateTenant, func(ctx context.Context, by storage.Actor, req CreateTenantRequest) (Tenant, error) {
		return d.CreateTenant(ctx, by, req.Name)
	})
	api.Handle(m, ListTenants, func(ctx context.Context, by storage.Actor, _ api.Empty) (TenantList, error) {
		list, err := d.Tenants(ctx, by)
		return TenantList{list}, err
	})
	api.Handle(m, DeleteTenant, func(ctx context.Context, by storage.Actor, req DeleteTenantRequest) (api.Empty, error) {
		return api.Empty{}, d.DeleteTenant(ctx, by, req.Tenant, req.Confirm)
	})
	api.Handle(m, CreateProject, func(ctx context.Context, by storage.Actor, req CreateProjectRequest) (Project, error) {
		return d.CreateProject(ctx, by, req.Name, Settings{SignUp: req.SignUp, AutoConfirm: req.AutoConfirm, DefaultRole: req.DefaultRole})
	})
	api.Handle(m, ListProjects, func(ctx context.Context, by storage.Actor, _ ListProjectsRequest) (ProjectList, error) {
		list, err := d.Projects(ctx, by)
		return ProjectList{list}, err
	})
	api.Handle(m, ConfigureProject, func(ctx context.Context, by storage.Actor, req ConfigureProjectRequest) (Project, error) {
		return d.Configure(ctx, by, Settings{SignUp: req.SignUp, AutoConfirm: req.AutoConfirm, DefaultRole: req.DefaultRole})
	})
	api.Handle(m, DeleteProject, func(ctx context.Context, by storage.Actor, _ DeleteProjectRequest) (api.Empty, error) {
		return api.Empty{}, d.DeleteProject(ctx, by)
	})
}
