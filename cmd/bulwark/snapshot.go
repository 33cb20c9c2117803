package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bulwark/node"
	"bulwark/storage"
	"bulwark/storage/backup"
	"bulwark/web/client"
)

func (a *app) snapshotCommand() *cobra.Command {
	return group("snapshot", "Back the cluster up, check a backup, and restore it",
		a.saveCommand(), a.inspectCommand(), a.verifySnapshotCommand(), a.restoreCommand())
}

// A savedSnapshot is what a command says of a snapshot.
type savedSnapshot struct {
	File string `json:"file"`
	Size int64  `json:"bytes"`
	backup.Header
	backup.Trailer
	Opened *backup.Opened `json:"opened,omitempty"`
}

func (a *app) saveCommand() *cobra.Command {
	var req node.SnapshotRequest
	cmd := &cobra.Command{
		Use:   "save FILE",
		Short: "Save a snapshot of the whole cluster while it works",
		Long: `Save a snapshot of the whole cluster, sealed, while writes go on. The node restores
the copy in itself and compares it with its database before it signs it, which
takes as much room in its data folder as the database; --no-certify leaves that
out. The snapshot opens only with the root key: keep a copy of that elsewhere.`,
		Example: `  bulwark snapshot save /mnt/backup/bulwark.snapshot
  bulwark snapshot save monday.snapshot --rate 50`,
		Args: exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.saveSnapshot(cmd.Context(), args[0], req)
			if err != nil {
				return err
			}
			return a.print(s, func() error { return a.saySnapshot(s) })
		},
	}
	cmd.Flags().IntVar(&req.Rate, "rate", 0, "MiB a second at most; 0 is as fast as it goes")
	cmd.Flags().BoolVar(&req.Uncertain, "no-certify", false, "do not restore the copy in the node to see that it can be")
	return cmd
}

// saveSnapshot streams a snapshot into a file beside its place, checks it as it comes, and moves it there once it is whole.
func (a *app) saveSnapshot(ctx context.Context, file string, req node.SnapshotRequest) (s *savedSnapshot, err error) {
	if _, err := os.Lstat(file); err == nil {
		return nil, storage.Errorf(storage.Exists, "file_exists", "%s exists already: name another file, or move it away", clean(file))
	}
	c, err := a.connect()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	partial := file + ".partial"
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("making the snapshot's file: %w", err)
	}
	defer os.Remove(partial) // where it is whole, it has its own name
	r, w := io.Pipe()
	counted := &counter{w: io.MultiWriter(f, w)}
	streamed := make(chan error, 1)
	go func() {
		err := client.Stream(ctx, c, node.SnapshotRoute, req, counted)
		w.CloseWithError(err)
		streamed <- err
	}()
	found, err := backup.Read(r, io.Discard, a.progress("saving"))
	r.CloseWithError(err)
	if failed := <-streamed; failed != nil {
		err = failed
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(partial, file); err != nil {
		return nil, fmt.Errorf("naming the snapshot: %w", err)
	}
	return &savedSnapshot{File: file, Size: counted.n, Header: found.Header, Trailer: found.Trailer}, nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// progress shows how far something is, on a terminal.
func (a *app) progress(what string) func(done, size int64) {
	if a.json || !a.onTerminal() {
		return nil
	}
	var last time.Time
	return func(done, size int64) {
		if time.Since(last) < 200*time.Millisecond && done < size {
			return
		}
		last = time.Now()
		const width = 30
		full := int(width * done / max(size, 1))
		fmt.Fprintf(a.stderr, "\r%s [%s%s] %s of %s", what, strings.Repeat("=", full), strings.Repeat(" ", width-full), mebibytes(done), mebibytes(size))
		if done == size {
			fmt.Fprintln(a.stderr)
		}
	}
}

func (a *app) saySnapshot(s *savedSnapshot) error {
	certified := "no: it was not restored in the node"
	if s.Certified != nil {
		certified = "yes, " + stamp(*s.Certified) + ": it was restored in the node and held the same"
	}
	var events uint64
	for _, t := range s.Trees {
		events += t.Size
	}
	opened := ""
	if s.Opened != nil {
		opened = fmt.Sprintf("%d values and %d audit events", s.Opened.Values, s.Opened.Events)
	}
	return a.fields("file", s.File, "size", mebibytes(s.Size), "taken", stamp(s.Time), "cluster", s.Cluster.String(), "node", s.Node.String(),
		"log index", fmt.Sprint(s.Index), "database", mebibytes(s.Header.Size), "tenants", fmt.Sprint(len(s.Trees)-1), "values", fmt.Sprint(s.Values),
		"audit events", fmt.Sprint(events), "state", fmt.Sprintf("%x", s.Root[:]), "certified", certified, "opened", opened,
		"signed by", fmt.Sprintf("%x", s.PublicKey), "version", s.Version)
}

func (a *app) inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect FILE",
		Short: "Say what a snapshot holds; needs no node and no key",
		Long: `Say what a snapshot holds, after its hashes and its signature were checked. It needs
no node and no key. To see that it restores, use verify.`,
		Example: "  bulwark snapshot inspect monday.snapshot", Args: exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("reading the snapshot: %w", err)
			}
			defer f.Close()
			counted := &counter{w: io.Discard}
			found, err := backup.Read(io.TeeReader(f, counted), io.Discard, a.progress("reading"))
			if err != nil {
				return err
			}
			s := &savedSnapshot{File: args[0], Size: counted.n, Header: found.Header, Trailer: found.Trailer}
			return a.print(s, func() error { return a.saySnapshot(s) })
		},
	}
}

func (a *app) verifySnapshotCommand() *cobra.Command {
	var keyFile string
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Prove that a snapshot is whole and restores; with the key file, that every value opens",
		Long: `Restore a snapshot into a scratch file beside it, walk all of its database, build the
audit trees anew from their events, and compare that with what the snapshot says.
It needs no node and no key. With --key-file the snapshot must be signed by that
root key, and every value and audit event in it must open.`,
		Example: `  bulwark snapshot verify monday.snapshot
  bulwark snapshot verify monday.snapshot --key-file /srv/bulwark.key`,
		Args: exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			found, opened, err := node.VerifySnapshot(cmd.Context(), args[0], keyFile, a.quiet(), a.progress("verifying"))
			if err != nil {
				return err
			}
			info, err := os.Stat(args[0])
			if err != nil {
				return err
			}
			s := &savedSnapshot{File: args[0], Size: info.Size(), Header: found.Header, Trailer: found.Trailer, Opened: opened}
			return a.print(s, func() error {
				if err := a.saySnapshot(s); err != nil {
					return err
				}
				return a.say("\nThe snapshot is whole, and restores.")
			})
		},
	}
	cmd.Flags().StringVar(&keyFile, "key-file", "", "the root key's file: open every value, too")
	return cmd
}

// quiet is a logger for work that says what failed by its error.
func (a *app) quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (a *app) restoreCommand() *cobra.Command {
	var keyFile, advertise string
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a data folder from a snapshot",
		Long: `Make the data folder --data from a snapshot. The folder must be empty or not there,
and the root key must be the one that signed the snapshot. What is made is a
cluster of one with everything that the snapshot holds; start it with bulwark
serve, and let other nodes join it anew, with empty data folders.`,
		Example: "  bulwark snapshot restore monday.snapshot --data /srv/bulwark --key-file /srv/bulwark.key",
		Args:    exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if keyFile == "" {
				keyFile = strings.TrimRight(a.data, "/") + ".key"
			}
			r, err := node.Restore(cmd.Context(), node.RestoreRequest{
				File: args[0], Data: a.data, Advertise: advertise, KeyFile: keyFile, Progress: a.progress("restoring"),
			}, node.Options{Version: version(), Logger: a.quiet()})
			if err != nil {
				return err
			}
			return a.print(r, func() error {
				return a.say("restored %d values of %d tenants, as they were at %s (log index %d)\n\n  bulwark serve --data %s", r.Values, r.Tenants-1, stamp(r.Taken), r.Index, clean(a.data))
			})
		},
	}
	cmd.Flags().StringVar(&keyFile, "key-file", "", "the root key's file (default: the data folder's name and .key)")
	cmd.Flags().StringVar(&advertise, "cluster-advertise", "localhost:8444", "HOST:PORT at which other nodes will reach this one")
	return cmd
}
