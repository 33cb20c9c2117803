package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bulwark/web/api"
)

// joinTokenCommand makes join tokens: alone it prints one.
func (a *app) joinTokenCommand() *cobra.Command {
	var expires time.Duration
	list := &cobra.Command{
		Use: "list", Short: "List the join tokens", Example: "  bulwark operator token list", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reply, err := call(cmd.Context(), a, api.JoinTokensRoute, api.Empty{})
			if err != nil {
				return err
			}
			return a.print(reply, func() error {
				rows := make([][]string, len(reply.Tokens))
				for i, t := range reply.Tokens {
					used := t.UsedBy
					if used == "" {
						used = "nobody yet"
					}
					rows[i] = []string{t.ID, stamp(t.Created), stamp(t.Expires), used}
				}
				return a.table("no join tokens: make one with bulwark operator token", []string{"ID", "MADE", "EXPIRES", "USED BY"}, rows)
			})
		},
	}
	revoke := &cobra.Command{
		Use: "revoke ID", Short: "Make a join token useless", Example: "  bulwark operator token revoke ID", Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			reply, err := call(cmd.Context(), a, api.RevokeJoinTokenRoute, api.JoinTokenID{ID: args[0]})
			if err != nil {
				return err
			}
			return a.print(reply, func() error { return a.say("revoked") })
		},
	}
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make a token with which one new node may join the cluster",
		Long: `Make a token with which one new node may join the cluster. It is shown once, is
good for one node and for an hour (--expires), and names this cluster: the new
node will talk to no other. Whoever has it gets the cluster's root key, so hand
it over as you would a key.`,
		Example: `  bulwark operator token
  bulwark operator token --expires 15m --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reply, err := call(cmd.Context(), a, api.JoinTokenRoute, api.JoinTokenRequest{Expires: int(expires.Seconds())})
			if err != nil {
				return err
			}
			return a.print(reply, func() error {
				return a.say("%s\n\nOn the new machine, until %s UTC:\n\n  bulwark serve --join TOKEN", reply.Token, stamp(reply.Expires))
			})
		},
	}
	cmd.Flags().DurationVar(&expires, "expires", time.Hour, "how long the token is good for, at most 168h")
	cmd.AddCommand(list, revoke)
	return cmd
}

func (a *app) nodesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "nodes", Short: "List the cluster's nodes", Example: "  bulwark operator nodes", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reply, err := call(cmd.Context(), a, api.NodesRoute, api.Empty{})
			if err != nil {
				return err
			}
			return a.print(reply, func() error {
				return a.table("no nodes", []string{"NAME", "ROLE", "ADDRESS", "BEHIND", "SEEN", "VERSION", "NODE", "FAULTS"}, nodeRows(reply.Nodes))
			})
		},
	}
}

func nodeRows(nodes []api.NodeInfo) [][]string {
	rows := make([][]string, len(nodes))
	for i, n := range nodes {
		var faults []string
		for _, f := range n.Faults {
			faults = append(faults, f.Name+": "+f.Reason)
		}
		rows[i] = []string{n.Name, n.Role, n.Address, fmt.Sprint(n.Behind), seen(n), n.Version, n.Node, strings.Join(faults, "; ")}
	}
	return rows
}

// seen says how long ago a node was heard of.
func seen(n api.NodeInfo) string {
	switch {
	case n.Self:
		return "this node"
	case n.Seen == nil:
		return "never"
	}
	return max(0, time.Since(*n.Seen)).Round(time.Second).String() + " ago"
}

func (a *app) removeCommand() *cobra.Command {
	var force, sure bool
	cmd := &cobra.Command{
		Use:   "remove NODE",
		Short: "Take a node out of the cluster for good",
		Long: `Take a node out of the cluster for good: its certificate is refused from then on,
and what is on its disk is of no use to the others. To bring the machine back,
let it join anew with an empty data folder and a new token.`,
		Example: "  bulwark operator remove berlin-2",
		Args:    exactly("NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !sure && a.onTerminal() {
				answer, err := a.ask(fmt.Sprintf("Remove %s for good? Type its name again: ", clean(args[0])))
				if err != nil {
					return err
				}
				if answer != args[0] {
					return usage("that is another name: nothing was removed")
				}
			}
			reply, err := call(cmd.Context(), a, api.RemoveNodeRoute, api.RemoveNodeRequest{Node: args[0], Force: force})
			if err != nil {
				return err
			}
			return a.print(reply, func() error { return a.say("removed %s", called(reply)) })
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also when the nodes that are left cannot reach a majority")
	cmd.Flags().BoolVar(&sure, "yes", false, "do not ask")
	return cmd
}

func called(n api.NodeName) string {
	if n.Name != "" {
		return clean(n.Name)
	}
	return n.Node
}

func (a *app) promoteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "promote NODE", Short: "Give a node a vote; a new one gets it by itself once it has caught up",
		Example: "  bulwark operator promote berlin-2", Args: exactly("NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			reply, err := call(cmd.Context(), a, api.PromoteNodeRoute, api.NodeRequest{Node: args[0]})
			if err != nil {
				return err
			}
			return a.print(reply, func() error { return a.say("%s votes", called(reply)) })
		},
	}
}

func (a *app) transferCommand() *cobra.Command {
	return &cobra.Command{
		Use: "transfer-leader [NODE]", Short: "Make another node lead, before you stop this one's machine",
		Example: "  bulwark operator transfer-leader berlin-2",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exactly("NODE")(cmd, args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var req api.TransferRequest
			if len(args) == 1 {
				req.Node = args[0]
			}
			reply, err := call(cmd.Context(), a, api.TransferRoute, req)
			if err != nil {
				return err
			}
			return a.print(reply, func() error { return a.say("%s leads", called(reply)) })
		},
	}
}
