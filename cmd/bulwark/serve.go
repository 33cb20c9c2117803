package main

import (
	"log/slog"
	"runtime/debug"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bulwark/node"
	"bulwark/node/config"
)

// addNodeCommands adds the commands that run a node, and those of its schema.
func (a *app) addNodeCommands(root *cobra.Command) {
	root.AddCommand(a.serveCommand(), a.sqlCommand())
}

func (a *app) serveCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a node",
		Long: `Run a node on a data folder, until it is told to stop (SIGINT or SIGTERM). On an
empty folder it makes a cluster of one, whose root key is in a file next to it.

Each setting is a flag, a variable BULWARK_… and a key of the TOML file that
--config names; of these the first that is given holds.`,
		Example: `  bulwark serve --demo
  bulwark serve --data /srv/bulwark --listen 0.0.0.0:8443 --public-url https://api.example.com
  bulwark serve --config /etc/bulwark.toml`,
		Args: noArgs,
	}
	f := cmd.Flags()
	f.StringVar(&file, "config", a.env("BULWARK_CONFIG", ""), "a TOML file with settings (BULWARK_CONFIG)")
	for _, s := range config.Settings() {
		switch {
		case s.Name == "data": // a flag of every command
		case s.Bool:
			f.Bool(s.Name, s.Default == "true", s.Doc)
		default:
			f.String(s.Name, s.Default, s.Doc)
		}
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		given := map[string]string{}
		cmd.Flags().Visit(func(f *pflag.Flag) {
			if f.Name != "config" && (cmd.LocalNonPersistentFlags().Lookup(f.Name) != nil || f.Name == "data") {
				given[f.Name] = f.Value.String()
			}
		})
		cfg, err := config.Load(file, a.environ, given)
		if err != nil {
			return usage("%s", err)
		}
		// A node's live heap is a few MiB, which by default would be collected many times a second under load. GOGC decides
		// where it is set.
		if a.env("GOGC", "") == "" {
			debug.SetGCPercent(gcPercent)
		}
		return node.Run(cmd.Context(), cfg, node.Options{Version: version(), Logger: a.logger(cfg)}, a.stdout, a.json)
	}
	return cmd
}

// gcPercent lets the heap grow to four times what is live: an eighth of the CPU of a small request, for some MiB.
const gcPercent = 300

// logger writes the node's log to standard error.
func (a *app) logger(cfg config.Config) *slog.Logger {
	var level slog.Level
	// The configuration was validated: its levels are slog's.
	_ = level.UnmarshalText([]byte(cfg.LogLevel))
	options := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(a.stderr, options))
	}
	return slog.New(slog.NewTextHandler(a.stderr, options))
}
