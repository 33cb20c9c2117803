package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"bulwark/web/api"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Say what state the node is in",
		Example: "  bulwark status\n  bulwark status --json --data /srv/bulwark",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := call(cmd.Context(), a, api.StatusRoute, api.Empty{})
			if err != nil {
				return err
			}
			return a.print(s, func() error {
				seal := s.Seal + ", open"
				if s.Sealed {
					seal = s.Seal + ", sealed: bulwark operator unseal"
				}
				if s.Sealed && s.Needed > 0 {
					seal += fmt.Sprintf(" (%d of %d shares given)", s.Shares, s.Needed)
				}
				err := a.fields("ready", yes(s.Ready), "why not", strings.Join(s.Reasons, "; "), "seal", seal, "url", s.URL,
					"data", s.Data, "node", s.Node, "cluster", s.Cluster, "role", s.Role, "leader", s.Leader,
					"term", fmt.Sprint(s.Term), "applied", fmt.Sprint(s.Applied), "started", stamp(s.Started), "version", s.Version)
				if err != nil || len(s.Members) < 2 {
					return err
				}
				rows := make([][]string, len(s.Members))
				for i, m := range s.Members {
					rows[i] = []string{m.Node, m.Address, yes(m.Voter)}
				}
				return a.table("", []string{"NODE", "ADDRESS", "VOTES"}, rows)
			})
		},
	}
}
