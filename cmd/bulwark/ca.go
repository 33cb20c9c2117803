package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"bulwark/web/api"
)

func (a *app) caCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "ca",
		Short:   "Print the cluster's root certificate, for clients to trust",
		Example: "  bulwark ca > bulwark-ca.pem\n  NODE_EXTRA_CA_CERTS=bulwark-ca.pem node app.js",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reply, err := call(cmd.Context(), a, api.CARoute, api.Empty{})
			if err != nil {
				return err
			}
			return a.print(reply, func() error {
				_, err := fmt.Fprint(a.stdout, reply.PEM)
				return err
			})
		},
	}
}
