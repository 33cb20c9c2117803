package main

import (
	"fmt"
	"slices"
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
				if err := a.say("%s\n", clean(s.Verdict)); err != nil {
					return err
				}
				if len(s.Nodes) > 1 {
					rows := nodeRows(s.Nodes)
					for i := range rows {
						rows[i] = slices.Delete(rows[i], 6, 7) // ids are for operator nodes
					}
					if err := a.table("", []string{"NAME", "ROLE", "ADDRESS", "BEHIND", "SEEN", "VERSION", "FAULTS"}, rows); err != nil {
						return err
					}
					if err := a.say(""); err != nil {
						return err
					}
				}
				return a.fields("ready", yes(s.Ready), "why not", strings.Join(s.Reasons, "; "), "seal", seal, "url", s.URL,
					"data", s.Data, "database", mebibytes(s.DatabaseBytes), "log", mebibytes(s.LogBytes), "certificate until", stamp(s.Certificate),
					"node", s.Node, "cluster", s.Cluster, "role", s.Role, "leader", s.Leader,
					"term", fmt.Sprint(s.Term), "applied", fmt.Sprint(s.Applied), "started", stamp(s.Started), "version", s.Version)
			})
		},
	}
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
