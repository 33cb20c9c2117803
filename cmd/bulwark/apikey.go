package main

import (
	"time"

	"github.com/spf13/cobra"

	"bulwark/security/apikey"
)

func (a *app) apikeyCommand() *cobra.Command {
	var ref, kind, name string
	var overlap time.Duration
	create := &cobra.Command{
		Use: "create", Short: "Create an API key of a project",
		Long:    "Create an API key of a project. A publishable key may be in a web page; a secret\nkey passes the row policies of its project and belongs on servers only. The key\nis shown once.",
		Example: "  bulwark apikey create -p REF --kind secret --name backend", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needProject(ref); err != nil {
				return err
			}
			if k := apikey.Kind(kind); k != apikey.Publishable && k != apikey.Secret {
				return usage("--kind %q is not one of publishable, secret", clean(kind))
			}
			if name == "" {
				name = kind
			}
			return a.sayNewKey(call(cmd.Context(), a, apikey.CreateKey, apikey.CreateRequest{Ref: ref, Kind: apikey.Kind(kind), Name: name}))
		},
	}
	create.Flags().StringVar(&kind, "kind", "publishable", "publishable or secret")
	create.Flags().StringVar(&name, "name", "", "to tell keys apart by (default: the kind)")

	list := &cobra.Command{
		Use: "list", Short: "List the API keys of a project", Example: "  bulwark apikey list -p REF", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needProject(ref); err != nil {
				return err
			}
			reply, err := call(cmd.Context(), a, apikey.ListKeys, apikey.ListRequest{Ref: ref})
			if err != nil {
				return err
			}
			return a.print(reply, func() error {
				return a.tableOfKeys("no API keys yet: make one with bulwark apikey create -p "+ref, reply.Keys)
			})
		},
	}
	rotate := &cobra.Command{
		Use: "rotate ID", Short: "Give an API key a new value",
		Long:    "Give an API key a new value, which is shown once. The old value stays valid for\n--overlap, so that clients can change over.",
		Example: "  bulwark apikey rotate -p REF ID --overlap 24h", Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needProject(ref); err != nil {
				return err
			}
			id, err := parseID(args[0])
			if err != nil {
				return err
			}
			return a.sayNewKey(call(cmd.Context(), a, apikey.RotateKey, apikey.RotateRequest{Ref: ref, ID: id, Overlap: int(overlap.Seconds())}))
		},
	}
	rotate.Flags().DurationVar(&overlap, "overlap", 0, "how long the old value stays valid")
	revoke := &cobra.Command{
		Use: "revoke ID", Short: "Revoke an API key at once", Example: "  bulwark apikey revoke -p REF ID", Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needProject(ref); err != nil {
				return err
			}
			id, err := parseID(args[0])
			if err != nil {
				return err
			}
			reply, err := call(cmd.Context(), a, apikey.RevokeKey, apikey.RevokeRequest{Ref: ref, ID: id})
			if err != nil {
				return err
			}
			return a.print(reply, func() error { return a.say("revoked") })
		},
	}
	for _, cmd := range []*cobra.Command{create, list, rotate, revoke} {
		cmd.Flags().StringVarP(&ref, "project", "p", "", "the project's ref")
	}
	return group("apikey", "Create, list, rotate and revoke a project's API keys", create, list, rotate, revoke)
}

func (a *app) sayNewKey(k apikey.NewKey, err error) error {
	if err != nil {
		return err
	}
	return a.print(k, func() error {
		if err := a.fields("key", k.Value, "id", k.Key.ID.String(), "kind", string(k.Key.Kind), "name", k.Key.Name); err != nil {
			return err
		}
		return a.say("\nThe key is not shown again.")
	})
}

func (a *app) tableOfKeys(empty string, list []apikey.Key) error {
	rows := make([][]string, len(list))
	for i, k := range list {
		state := "valid"
		if k.Revoked != nil {
			state = "revoked " + stamp(*k.Revoked)
		}
		rows[i] = []string{k.Name, string(k.Kind), k.Hint, k.ID.String(), stamp(k.Created), state}
	}
	return a.table(empty, []string{"NAME", "KIND", "KEY", "ID", "CREATED", "STATE"}, rows)
}
