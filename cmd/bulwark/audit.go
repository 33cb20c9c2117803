package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bulwark/security/audit"
	"bulwark/web/client"
)

func (a *app) auditCommand() *cobra.Command {
	return group("audit", "Search, export and verify a tenant's audit log", a.searchCommand(), a.exportCommand(), a.verifyCommand())
}

// filterFlags are the flags that choose events.
type filterFlags struct {
	tenant, from, to string
	filter           audit.Filter
}

func (o *filterFlags) add(f *pflag.FlagSet) {
	f.StringVar(&o.tenant, "tenant", "", "the tenant's name or id, or system for what the operator did (default: the only one)")
	f.StringVar(&o.from, "from", "", "no event before it: 2026-01-31, 2026-01-31T08:00:00Z, or 24h for a day ago")
	f.StringVar(&o.to, "to", "", "no event at it or after it")
	f.StringVar(&o.filter.Actor, "actor", "", "the actor's id, or the name of a job or operator")
	f.StringVar(&o.filter.ActorKind, "actor-kind", "", "anonymous, account, service, operator or job")
	f.StringVar(&o.filter.Action, "action", "", "apikey.revoke, for example, or apikey.*")
	f.StringVar(&o.filter.Category, "category", "", "authentication, configuration, data and so on")
	f.StringVar(&o.filter.Outcome, "outcome", "", "ok or denied")
	f.StringVar(&o.filter.Project, "project", "", "a project's id")
	f.StringVar(&o.filter.Object, "object", "", "what it was done to")
	f.StringVar(&o.filter.Address, "address", "", "the IP address that the request came from")
	f.StringVar(&o.filter.Session, "session", "", "a session's id")
	f.StringVar(&o.filter.Request, "request", "", "a request's id")
}

func (o *filterFlags) read() (f audit.Filter, err error) {
	f = o.filter
	if f.From, err = readTime("from", o.from); err == nil {
		f.To, err = readTime("to", o.to)
	}
	return f, err
}

// readTime takes a date, a time, or how long ago.
func readTime(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateTime, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return time.Now().Add(-d), nil
	}
	return time.Time{}, usage("--%s %q is not a time: give 2026-01-31, 2026-01-31T08:00:00Z, or 24h for a day ago", flag, clean(text))
}

func (a *app) searchCommand() *cobra.Command {
	var o filterFlags
	var q audit.Query
	cmd := &cobra.Command{
		Use:   "search [TEXT…]",
		Short: "Search the audit log",
		Long: `Search a tenant's audit log. The newest events come first. TEXT holds words,
field:word, "phrases", +must and -must not; with none, every event is found.`,
		Example: `  bulwark audit search
  bulwark audit search --tenant acme --action 'session.*' --from 24h
  bulwark audit search --outcome denied --json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := o.read()
			if err != nil {
				return err
			}
			t, err := a.findAudited(cmd.Context(), o.tenant)
			if err != nil {
				return err
			}
			q.Filter, q.Text = filter, strings.Join(args, " ")
			page, err := call(cmd.Context(), a, audit.SearchRoute, audit.SearchRequest{Tenant: t.ID.String(), Query: q})
			if err != nil {
				return err
			}
			return a.print(page, func() error { return a.sayPage(page) })
		},
	}
	o.add(cmd.Flags())
	cmd.Flags().IntVar(&q.Limit, "limit", 50, "events on a page, at most 500")
	cmd.Flags().StringVar(&q.After, "after", "", "the page after: what the page before ended with")
	cmd.Flags().BoolVar(&q.OldestFirst, "oldest-first", false, "the oldest events first")
	return cmd
}

func (a *app) sayPage(page *audit.Page) error {
	rows := make([][]string, 0, len(page.Events))
	for _, found := range page.Events {
		r, err := audit.Parse(found.Event)
		if err != nil {
			return err
		}
		who := r.Actor.Kind
		switch {
		case r.Actor.Name != "":
			who += " " + r.Actor.Name
		case !r.Actor.ID.IsZero():
			who += " " + r.Actor.ID.String()
		}
		outcome := r.Outcome
		if r.Reason != "" {
			outcome += " (" + r.Reason + ")"
		}
		notes := ""
		if len(r.Notes) > 0 {
			notes = compact(r.Notes)
		}
		rows = append(rows, []string{stamp(r.Time), who, r.Action, outcome, r.Object, notes})
	}
	if err := a.table("no events found", []string{"TIME", "ACTOR", "ACTION", "OUTCOME", "OBJECT", "NOTES"}, rows); err != nil {
		return err
	}
	if page.Next != "" {
		return a.say("\nThere are more: --after %s", page.Next)
	}
	return nil
}

func (a *app) exportCommand() *cobra.Command {
	var o filterFlags
	var out string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Export the audit log, with what proves it",
		Long: `Export a tenant's whole audit log as lines of JSON, with the signed tree that
proves it; or with filters a part of it, with a proof for each event. Check the
file anywhere with bulwark audit verify.`,
		Example: `  bulwark audit export --tenant acme -o audit.jsonl
  bulwark audit export --tenant acme --from 2026-01-01 --to 2026-02-01 -o january.jsonl`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := o.read()
			if err != nil {
				return err
			}
			t, err := a.findAudited(cmd.Context(), o.tenant)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			write := func(w io.Writer) error {
				return client.Stream(cmd.Context(), c, audit.ExportRoute, audit.ExportRequest{Tenant: t.ID.String(), Filter: filter}, w)
			}
			if out == "" || out == "-" {
				return write(a.stdout)
			}
			size, err := writeFile(out, write)
			if err != nil {
				return err
			}
			return a.print(map[string]any{"file": out, "bytes": size}, func() error { return a.say("wrote %s (%d bytes)", out, size) })
		},
	}
	o.add(cmd.Flags())
	cmd.Flags().StringVarP(&out, "output", "o", "", "the file to write (default: standard output)")
	return cmd
}

// writeFile makes the file at path as a whole, or not at all.
func writeFile(path string, write func(io.Writer) error) (size int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".bulwark-export-*") // mode 0600
	if err != nil {
		return 0, fmt.Errorf("writing %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	b := bufio.NewWriterSize(f, 1<<16)
	if err := write(b); err != nil {
		return 0, err
	}
	if err := errors.Join(b.Flush(), f.Sync()); err != nil {
		return 0, fmt.Errorf("writing %s: %w", path, err)
	}
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("writing %s: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return 0, fmt.Errorf("writing %s: %w", path, err)
	}
	return info.Size(), os.Rename(f.Name(), path)
}

// A verifyReply is a report, for programs.
type verifyReply struct {
	OK       bool     `json:"ok"`
	Kind     string   `json:"kind"`
	Origin   string   `json:"origin"`
	Events   uint64   `json:"events"`
	Size     uint64   `json:"size"`
	Root     string   `json:"root"`
	Signer   string   `json:"signer"`
	Trusted  bool     `json:"trusted"`
	Warning  string   `json:"warning,omitempty"`
	Problems []string `json:"problems,omitempty"`
}

func (a *app) verifyCommand() *cobra.Command {
	var trusted []string
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check an exported audit log; needs no node and no key",
		Long: `Check an exported audit log: every event against its hash, the hashes against
the signed tree, and the signature. It needs no node and no secret. Give the
verifier keys that you keep apart from the node with --key; without one the key
in the file is used, which proves that the file is whole, not who made it.`,
		Example: "  bulwark audit verify audit.jsonl --key 'bulwark/…'\n  bulwark audit verify - < audit.jsonl",
		Args:    exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			var in io.Reader = a.stdin
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			report, err := audit.Verify(in, trusted...)
			if report.Origin == "" && err != nil {
				return err // it is no export at all
			}
			reply := verifyReply{OK: err == nil, Kind: report.Kind, Origin: report.Origin, Events: report.Events, Size: report.Size,
				Root: hex.EncodeToString(report.Root[:]), Signer: report.Signer, Trusted: report.Trusted, Warning: report.Warning}
			for _, p := range report.Problems {
				reply.Problems = append(reply.Problems, p.String())
			}
			printed := a.print(reply, func() error {
				var text strings.Builder
				if _, err := report.WriteTo(&text); err != nil {
					return err
				}
				for line := range strings.Lines(text.String()) {
					if err := a.say("%s", clean(strings.TrimSuffix(line, "\n"))); err != nil {
						return err
					}
				}
				return nil
			})
			return errors.Join(err, printed)
		},
	}
	cmd.Flags().StringArrayVar(&trusted, "key", nil, "a verifier key to trust; may be given more than once")
	return cmd
}
