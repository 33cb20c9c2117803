package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bulwark/storage"
	"bulwark/web/api"
	"bulwark/web/client"
)

// The exit codes.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitDenied      = 4
	exitNotFound    = 5
	exitConflict    = 6
)

const exitHelp = `Exit codes:
  0  done
  1  failed
  2  the command line is wrong
  3  no node answers, or it cannot serve now (sealed, no leader)
  4  not allowed
  5  not found
  6  exists already, or was changed meanwhile`

// An app is one run of the command.
type app struct {
	stdin   *os.File
	stdout  io.Writer
	stderr  io.Writer
	environ []string

	data, url, tokenFile, ca string
	json                     bool
}

// A usageError says that the command line is wrong.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usage(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// errReported says that a command has already said what failed.
var errReported = errors.New("reported")

// run executes the command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	// A command line that is wrong may not have been read as far as --json.
	a.json = a.json || slices.Contains(args, "--json")
	return a.report(err)
}

// report writes err as one line and returns its exit code.
func (a *app) report(err error) int {
	code, word := exitCode(err)
	if errors.Is(err, errReported) {
		return code
	}
	message := oneLine(err.Error())
	var e *storage.Error
	if errors.As(err, &e) && e.Code != "" {
		word = e.Code
	}
	if a.json {
		line := struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Field   string `json:"field,omitempty"`
			Hint    string `json:"hint,omitempty"`
			Exit    int    `json:"exit_code"`
		}{Code: word, Message: message, Exit: code}
		if e != nil {
			line.Field, line.Hint = e.Field, e.Hint
		}
		// Standard error is the last place to say anything.
		_ = json.NewEncoder(a.stderr).Encode(line)
		return code
	}
	if e != nil && e.Hint != "" {
		message += " (" + oneLine(e.Hint) + ")"
	}
	fmt.Fprintf(a.stderr, "bulwark: %s\n", message)
	return code
}

func exitCode(err error) (code int, word string) {
	var use *usageError
	var away *client.Unreachable
	var e *storage.Error
	switch {
	case errors.As(err, &use):
		return exitUsage, "usage"
	case errors.As(err, &away):
		return exitUnreachable, "unreachable"
	case !errors.As(err, &e):
		return exitFailure, "failed"
	}
	switch e.Fault {
	case storage.BadInput:
		if e.Code == "usage" || e.Code == "bad_url" || e.Code == "bad_path" {
			return exitUsage, "usage"
		}
	case storage.Unavailable:
		return exitUnreachable, "unavailable"
	case storage.Denied, storage.Unauthenticated:
		return exitDenied, e.Fault.String()
	case storage.NotFound:
		return exitNotFound, "not_found"
	case storage.Exists, storage.Conflict:
		return exitConflict, e.Fault.String()
	}
	return exitFailure, e.Fault.String()
}

func oneLine(s string) string { return clean(strings.Join(strings.Fields(s), " ")) }

// root returns the whole command.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "bulwark",
		Short: "A secure backend in one binary",
		Long: `Bulwark is a secure backend in one binary: sign-in, permissions, encrypted
records of many tenants, and an audit log that proves it was not altered.

Every command but serve, version, "operator init" and "audit verify" talks to
a running node: to the one on the data folder --data, through its unix socket;
or with --url to one over the network, with an operator token that is read
from BULWARK_TOKEN or --token-file.

` + exitHelp,
		Example: `  bulwark serve --demo
  bulwark status
  bulwark audit search --tenant demo`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              noArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},

		SuggestionsMinimumDistance: 2,
	}
	f := root.PersistentFlags()
	f.StringVar(&a.data, "data", a.env("BULWARK_DATA", "./bulwark-data"), "the node's data folder (BULWARK_DATA)")
	f.StringVar(&a.url, "url", a.env("BULWARK_URL", ""), "talk to the node at https://host:port instead (BULWARK_URL)")
	f.StringVar(&a.tokenFile, "token-file", "", "a file with the operator token for --url; else BULWARK_TOKEN")
	f.StringVar(&a.ca, "ca", a.env("BULWARK_CA", ""), "a file with the root certificate to trust for --url (BULWARK_CA)")
	f.BoolVar(&a.json, "json", false, "write JSON, errors included")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%s: see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(a.statusCommand(), a.operatorCommand(), a.tenantCommand(), a.projectCommand(), a.apikeyCommand(),
		a.auditCommand(), a.snapshotCommand(), a.caCommand(), a.versionCommand())
	a.addNodeCommands(root)
	return root
}

// group returns a command that has only commands below it.
func group(name, short string, below ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: name, Short: short, Args: cobra.ArbitraryArgs}
	g.AddCommand(below...)
	names := make([]string, len(below))
	for i, c := range below {
		names[i] = c.Name()
	}
	list := strings.Join(names, ", ")
	g.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage("%s has no command %q, but %s", cmd.CommandPath(), args[0], list)
		}
		return usage("%s: say which of %s", cmd.CommandPath(), list)
	}
	return g
}

// noArgs and exactly check the number of arguments, in our words.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !cmd.HasParent() {
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return usage("there is no command %q: did you mean %s?", args[0], near[0])
		}
		return usage("there is no command %q: see bulwark --help", args[0])
	}
	return usage("%s takes no argument, and got %q", cmd.CommandPath(), args[0])
}

func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usage("%s needs %s: see %[1]s --help", cmd.CommandPath(), strings.Join(names[len(args):], " and "))
		case len(args) > len(names):
			return usage("%s takes no more than %s, and got also %q", cmd.CommandPath(), strings.Join(names, " and "), args[len(names)])
		}
		return nil
	}
}

// env returns a variable of the environment, or otherwise.
func (a *app) env(name, otherwise string) string {
	for _, kv := range slices.Backward(a.environ) {
		if k, v, _ := strings.Cut(kv, "="); k == name && v != "" {
			return v
		}
	}
	return otherwise
}

// connect returns a client of the node that the flags name.
func (a *app) connect() (*client.Client, error) {
	if a.url == "" {
		return client.New(client.Options{Socket: client.SocketPath(a.data), Data: a.data})
	}
	o := client.Options{URL: a.url, Token: a.env("BULWARK_TOKEN", "")}
	if a.tokenFile != "" {
		text, err := readSmall(a.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("reading the token: %w", err)
		}
		o.Token = strings.TrimSpace(string(text))
	}
	if o.Token == "" {
		return nil, usage("--url needs an operator token: set BULWARK_TOKEN, or name a file with --token-file")
	}
	if a.ca != "" {
		pem, err := readSmall(a.ca)
		if err != nil {
			return nil, fmt.Errorf("reading the root certificate: %w", err)
		}
		o.CA = pem
	}
	return client.New(o)
}

// call calls a route of the node that the flags name.
func call[Req, Resp any](ctx context.Context, a *app, rt api.Route[Req, Resp], req Req) (Resp, error) {
	c, err := a.connect()
	if err != nil {
		var none Resp
		return none, err
	}
	defer c.Close()
	return client.Call(ctx, c, rt, req)
}

// maxSmall bounds the files that hold a secret or a certificate.
const maxSmall = 64 << 10

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAtMost(f, maxSmall, path)
}

func readAtMost(r io.Reader, most int64, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > most {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("larger than %d bytes", most)}
	}
	return b, nil
}
