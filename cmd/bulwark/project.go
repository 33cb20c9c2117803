package main

import (
	"github.com/spf13/cobra"

	"bulwark/node"
	"bulwark/security/tenant"
	"bulwark/web/api"
)

func (a *app) projectCommand() *cobra.Command {
	var of string
	var req tenant.CreateProjectRequest
	create := &cobra.Command{
		Use: "create NAME", Short: "Create a project",
		Long:    "Create a project in a tenant. Its ref is part of the URL that its clients use.",
		Example: "  bulwark project create shop --tenant acme --sign-up", Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.findTenant(cmd.Context(), of)
			if err != nil {
				return err
			}
			req.Tenant, req.Name = t.ID.String(), args[0]
			p, err := call(cmd.Context(), a, tenant.CreateProject, req)
			if err != nil {
				return err
			}
			status, err := call(cmd.Context(), a, api.StatusRoute, api.Empty{})
			if err != nil {
				return err
			}
			return a.print(p, func() error {
				url := status.URL + "/p/" + p.Ref
				if err := a.fields("project", p.Name, "ref", p.Ref, "url", url, "tenant", t.Name, "id", p.ID.String()); err != nil {
					return err
				}
				return a.say("\nMake its keys with: bulwark apikey create -p %s --kind publishable --name web", p.Ref)
			})
		},
	}
	create.Flags().StringVar(&of, "tenant", "", "the tenant's name or id (default: the only one)")
	create.Flags().BoolVar(&req.SignUp, "sign-up", false, "let anybody with the publishable key sign up")
	create.Flags().BoolVar(&req.AutoConfirm, "auto-confirm", false, "take an e-mail address as confirmed without a message to it")
	create.Flags().StringVar(&req.DefaultRole, "default-role", "", "the role of an account that signs up (default: user)")

	list := &cobra.Command{
		Use: "list", Short: "List the projects of a tenant", Example: "  bulwark project list --tenant acme", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := a.findTenant(cmd.Context(), of)
			if err != nil {
				return err
			}
			reply, err := call(cmd.Context(), a, tenant.ListProjects, tenant.ListProjectsRequest{Tenant: t.ID.String()})
			if err != nil {
				return err
			}
			return a.print(reply, func() error {
				rows := make([][]string, len(reply.Projects))
				for i, p := range reply.Projects {
					rows[i] = []string{p.Name, p.Ref, yes(p.Settings.SignUp), p.ID.String(), stamp(p.Created)}
				}
				return a.table("no projects yet: make one with bulwark project create NAME --tenant "+t.Name,
					[]string{"PROJECT", "REF", "SIGN-UP", "ID", "CREATED"}, rows)
			})
		},
	}
	list.Flags().StringVar(&of, "tenant", "", "the tenant's name or id (default: the only one)")

	var sure bool
	remove := &cobra.Command{
		Use: "delete REF", Short: "Destroy a project and all its data",
		Long:    "Destroy a project and all its data, for ever. Its ref is asked for again on a\nterminal; elsewhere --yes is needed.",
		Example: "  bulwark project delete abcdefghijklmnopqrst --yes", Args: exactly("REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.confirm("project", args[0], sure); err != nil {
				return err
			}
			reply, err := call(cmd.Context(), a, tenant.DeleteProject, tenant.DeleteProjectRequest{Ref: args[0]})
			if err != nil {
				return err
			}
			return a.print(reply, func() error { return a.say("project %s is destroyed", clean(args[0])) })
		},
	}
	remove.Flags().BoolVar(&sure, "yes", false, "do not ask")

	rotate := &cobra.Command{
		Use: "rotate-key REF", Short: "Give a project a new data key",
		Long: `Give a project a new data key, in one entry of the log. New writes use it at once;
what is sealed under the old key is sealed anew in the background, and then the
old key is destroyed. Nothing stops meanwhile.`,
		Example: "  bulwark project rotate-key abcdefghijklmnopqrst", Args: exactly("REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			reply, err := call(cmd.Context(), a, node.RotateKeyRoute, node.RotateKeyRequest{Ref: args[0]})
			if err != nil {
				return err
			}
			return a.print(reply, func() error {
				return a.say("project %s has a new data key; what was sealed before is sealed anew in the background", clean(args[0]))
			})
		},
	}
	return group("project", "Create, list and delete projects, and rotate their keys", create, list, remove, rotate)
}

// needProject refuses a command line without -p.
func needProject(ref string) error {
	if ref == "" {
		return usage("which project? give its ref with -p REF: bulwark project list shows them")
	}
	return nil
}
