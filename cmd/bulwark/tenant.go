package main

import (
	"context"

	"github.com/spf13/cobra"

	"bulwark/security/tenant"
	"bulwark/storage"
	"bulwark/web/api"
)

func (a *app) tenantCommand() *cobra.Command {
	create := &cobra.Command{
		Use: "create NAME", Short: "Create a tenant", Example: "  bulwark tenant create acme", Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := call(cmd.Context(), a, tenant.CreateTenant, tenant.CreateTenantRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return a.print(t, func() error { return a.fields("tenant", t.Name, "id", t.ID.String()) })
		},
	}
	list := &cobra.Command{
		Use: "list", Short: "List the tenants", Example: "  bulwark tenant list --json", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reply, err := call(cmd.Context(), a, tenant.ListTenants, api.Empty{})
			if err != nil {
				return err
			}
			return a.print(reply, func() error {
				rows := make([][]string, len(reply.Tenants))
				for i, t := range reply.Tenants {
					rows[i] = []string{t.Name, t.ID.String(), stamp(t.Created)}
				}
				return a.table("no tenants yet: make one with bulwark tenant create NAME", []string{"TENANT", "ID", "CREATED"}, rows)
			})
		},
	}
	var sure bool
	remove := &cobra.Command{
		Use: "delete NAME", Short: "Destroy a tenant, its projects and all their data",
		Long:    "Destroy a tenant, its projects, its audit log and all their data, for ever.\nIts name is asked for again on a terminal; elsewhere --yes is needed.",
		Example: "  bulwark tenant delete acme --yes", Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.findTenant(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := a.confirm("tenant", t.Name, sure); err != nil {
				return err
			}
			reply, err := call(cmd.Context(), a, tenant.DeleteTenant, tenant.DeleteTenantRequest{Tenant: t.ID.String(), Confirm: t.Name})
			if err != nil {
				return err
			}
			return a.print(reply, func() error { return a.say("tenant %s is destroyed", clean(t.Name)) })
		},
	}
	remove.Flags().BoolVar(&sure, "yes", false, "do not ask")
	return group("tenant", "Create, list and delete tenants", create, list, remove)
}

// findTenant returns the tenant of a name or id. Without either it is the only one that there is.
func (a *app) findTenant(ctx context.Context, nameOrID string) (tenant.Tenant, error) {
	reply, err := call(ctx, a, tenant.ListTenants, api.Empty{})
	if err != nil {
		return tenant.Tenant{}, err
	}
	if nameOrID == "" && len(reply.Tenants) == 1 {
		return reply.Tenants[0], nil
	}
	if nameOrID == "" && len(reply.Tenants) > 1 {
		return tenant.Tenant{}, usage("there are %d tenants: say which with --tenant NAME", len(reply.Tenants))
	}
	for _, t := range reply.Tenants {
		if t.Name == nameOrID || t.ID.String() == nameOrID {
			return t, nil
		}
	}
	if nameOrID == "" {
		return tenant.Tenant{}, storage.Errorf(storage.NotFound, "tenant_not_found", "there are no tenants yet: make one with bulwark tenant create NAME")
	}
	return tenant.Tenant{}, storage.Errorf(storage.NotFound, "tenant_not_found", "there is no such tenant: see bulwark tenant list")
}

// systemName is what an operator calls the system tenant: it has an audit log, and nothing else that is anybody's.
const systemName = "system"

// findAudited is findTenant for the audit log.
func (a *app) findAudited(ctx context.Context, nameOrID string) (tenant.Tenant, error) {
	if nameOrID == systemName {
		return tenant.Tenant{ID: storage.System, Name: systemName}, nil
	}
	return a.findTenant(ctx, nameOrID)
}

func parseID(s string) (storage.ID, error) {
	id, err := storage.ParseID(s)
	if err != nil {
		return id, usage("%q is not an id: the list shows them", clean(s))
	}
	return id, nil
}
