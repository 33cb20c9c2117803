package main

import (
	"github.com/spf13/cobra"

	"bulwark/web/api"
)

func (a *app) compactCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "compact",
		Short: "Give the room that deleted data left in this node's database back to its disk",
		Long: `Give the room that deleted data left in this node's database back to its disk, while
it works. It needs as much room as the database takes until it is done. Room that
is not given back is used again by what is written later, so this is seldom needed.`,
		Example: "  bulwark operator compact", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reply, err := call(cmd.Context(), a, api.CompactRoute, api.Empty{})
			if err != nil {
				return err
			}
			return a.print(reply, func() error {
				if reply.Before == reply.After {
					return a.say("nothing to do: the database takes %s", mebibytes(reply.Before))
				}
				return a.say("compacted: %s before, %s after", mebibytes(reply.Before), mebibytes(reply.After))
			})
		},
	}
}
