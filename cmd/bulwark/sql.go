package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"bulwark/security/rowpolicy"
	"bulwark/storage"
)

// maxSQL bounds an SQL file, in bytes.
const maxSQL = 1 << 20

func (a *app) sqlCommand() *cobra.Command {
	var ref string
	apply := &cobra.Command{
		Use:   "apply -p REF FILE.sql",
		Short: "Apply SQL to a project's schema: tables, row level security and policies",
		Long: `Apply the statements of a file to a project's schema, all of them or none:
create table, alter table … enable row level security, create policy, and so on.
FILE.sql may be - for standard input.`,
		Example: "  bulwark sql apply -p REF schema.sql\n  echo 'drop table notes;' | bulwark sql apply -p REF -",
		Args:    exactly("FILE.sql"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needProject(ref); err != nil {
				return err
			}
			var in io.Reader = a.stdin
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			text, err := readAtMost(in, maxSQL, args[0])
			if err != nil {
				return fmt.Errorf("reading the statements: %w", err)
			}
			reply, err := a.applySQL(cmd.Context(), rowpolicy.ApplyRequest{Ref: ref, SQL: string(text)})
			if err != nil {
				return err
			}
			return a.print(reply, func() error {
				if len(reply.Changes) == 0 {
					return a.say("there was nothing to change")
				}
				for _, c := range reply.Changes {
					if err := a.say("%s", clean(c.String())); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	apply.Flags().StringVarP(&ref, "project", "p", "", "the project's ref")
	return group("sql", "Change a project's schema", apply)
}

// loadingAttempts is how often the command asks again while a slow machine loads the parser, 30 seconds each time.
const loadingAttempts = 6

func (a *app) applySQL(ctx context.Context, req rowpolicy.ApplyRequest) (reply rowpolicy.ApplyReply, err error) {
	for range loadingAttempts {
		reply, err = call(ctx, a, rowpolicy.ApplySQL, req)
		var e *storage.Error
		if !errors.As(err, &e) || e.Code != rowpolicy.CodeLoading {
			break
		}
	}
	return reply, err
}
