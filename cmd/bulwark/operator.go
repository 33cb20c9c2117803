package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"bulwark/security/apikey"
	"bulwark/security/keys"
	"bulwark/storage"
	"bulwark/web/api"
	"bulwark/web/client"
)

func (a *app) operatorCommand() *cobra.Command {
	return group("operator", "Make a cluster, unseal and seal it, and manage its nodes and operators' tokens",
		a.initCommand(), a.unsealCommand(), a.sealCommand(), a.joinTokenCommand(), a.nodesCommand(), a.removeCommand(),
		a.promoteCommand(), a.transferCommand(), a.compactCommand(), a.apiTokenCommand())
}

// initOptions say how a new cluster's root key is kept.
type initOptions struct {
	seal, keyFile, passphraseFile string
	shares, threshold             int
}

func (a *app) initCommand() *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a cluster in an empty data folder",
		Long: `Make a cluster in an empty data folder: draw its root key, and seal it.

  file        the key is in a file next to the data folder; the node starts by itself
  passphrase  the key is sealed by a passphrase, which an operator gives at each start
  shamir      the key is divided into shares; --threshold of them open it at each start

No node may be running. bulwark serve makes a cluster with the seal file by itself.`,
		Example: `  bulwark operator init --data /srv/bulwark --seal shamir --shares 5 --threshold 3
  bulwark operator init --data /srv/bulwark --seal passphrase --passphrase-file /run/secret`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return a.initialise(o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.seal, "seal", "file", "file, passphrase or shamir")
	f.StringVar(&o.keyFile, "key-file", "", "the key file to make, outside the data folder (default: the data folder's name and .key)")
	f.StringVar(&o.passphraseFile, "passphrase-file", "", "a file with the passphrase, - for standard input (default: ask on the terminal)")
	f.IntVar(&o.shares, "shares", 5, "how many shares to make")
	f.IntVar(&o.threshold, "threshold", 3, "how many shares open the root key")
	return cmd
}

// An initReply is what operator init says.
type initReply struct {
	Cluster   storage.ID `json:"cluster"`
	Data      string     `json:"data"`
	Seal      string     `json:"seal"`
	KeyFile   string     `json:"key_file,omitempty"`
	Threshold int        `json:"threshold,omitzero"`
	Shares    []string   `json:"shares,omitempty"`
}

func (a *app) initialise(o initOptions) error {
	reply := initReply{Data: a.data, Seal: o.seal}
	seal, err := a.newSeal(o, &reply)
	if err != nil {
		return err
	}
	made, err := emptyFolder(a.data)
	if err != nil {
		return err
	}
	header, root, err := keys.Init(a.data, seal, rand.Reader)
	if err != nil {
		if made {
			// It is empty; if it cannot be removed, that harms nobody.
			_ = os.Remove(a.data)
		}
		return err
	}
	clear(root)
	reply.Cluster = header.Cluster
	if s, ok := seal.(*keys.ShamirSeal); ok {
		reply.Shares, reply.Threshold = s.Shares(), o.threshold
	}
	return a.print(reply, func() error { return a.sayInitialised(reply) })
}

func (a *app) sayInitialised(r initReply) error {
	if err := a.fields("cluster", r.Cluster.String(), "data", r.Data, "seal", r.Seal, "key file", r.KeyFile); err != nil {
		return err
	}
	if len(r.Shares) > 0 {
		if err := a.say("\nGive each share to another person. Any %d of them open the cluster; they are not shown again.\n", r.Threshold); err != nil {
			return err
		}
		for _, share := range r.Shares {
			if err := a.say("%s", share); err != nil {
				return err
			}
		}
	}
	return a.say("\nStart the node with: bulwark serve --data %s", r.Data)
}

func (a *app) newSeal(o initOptions, reply *initReply) (keys.Seal, error) {
	switch keys.Kind(o.seal) {
	case keys.File:
		reply.KeyFile = o.keyFile
		if reply.KeyFile == "" {
			abs, err := filepath.Abs(a.data)
			if err != nil {
				return nil, fmt.Errorf("finding the data folder: %w", err)
			}
			reply.KeyFile = abs + ".key"
		}
		return keys.NewFileSeal(a.data, reply.KeyFile)
	case keys.Passphrase:
		passphrase, err := a.secret(o.passphraseFile, "New passphrase: ")
		if err != nil {
			return nil, err
		}
		if o.passphraseFile == "" && a.onTerminal() {
			again, err := a.secret("", "Again: ")
			if err != nil {
				return nil, err
			}
			if string(again) != string(passphrase) {
				return nil, usage("the two are not the same: nothing was made")
			}
			clear(again)
		}
		return keys.NewPassphraseSeal(func() ([]byte, error) { return passphrase, nil }, rand.Reader), nil
	case keys.Shamir:
		return keys.NewShamirSeal(o.threshold, o.shares, rand.Reader)
	}
	return nil, usage("--seal %q is not one of file, passphrase, shamir", clean(o.seal))
}

// emptyFolder makes the data folder, or sees that it holds nothing but what an attempt left that was cut off.
func emptyFolder(data string) (made bool, err error) {
	entries, err := os.ReadDir(data)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(data, 0o700); err != nil {
			return false, fmt.Errorf("making the data folder: %w", err)
		}
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the data folder: %w", err)
	}
	if slices.ContainsFunc(entries, func(e os.DirEntry) bool { return !keys.Leftover(e.Name()) }) {
		return false, storage.Errorf(storage.Exists, "not_empty",
			"the folder %s is not empty: a cluster is made in an empty one, so name another with --data", data)
	}
	return false, nil
}

func (a *app) unsealCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "unseal",
		Short: "Give a sealed node its passphrase, or one share of its root key",
		Long: `Give a sealed node its passphrase, or one share of its root key. It is asked
for on the terminal, or read from a file or standard input. With the seal shamir
each person gives a share, one after the other, until there are enough.`,
		Example: `  bulwark operator unseal
  bulwark operator unseal --file /run/secret --data /srv/bulwark`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			s, err := client.Call(cmd.Context(), c, api.StatusRoute, api.Empty{})
			if err != nil {
				return err
			}
			var req api.UnsealRequest
			switch {
			case !s.Sealed:
				return storage.Errorf(storage.Exists, "not_sealed", "the node is not sealed: there is nothing to do")
			case s.Seal == string(keys.Shamir):
				share, err := a.secret(file, "Share: ")
				if err != nil {
					return err
				}
				req.Share = string(share)
			case s.Seal == string(keys.Passphrase):
				passphrase, err := a.secret(file, "Passphrase: ")
				if err != nil {
					return err
				}
				req.Passphrase = string(passphrase)
			}
			reply, err := client.Call(cmd.Context(), c, api.UnsealRoute, req)
			if err != nil {
				return err
			}
			return a.print(reply, func() error {
				if reply.Sealed {
					return a.say("%d of %d shares given", reply.Shares, reply.Needed)
				}
				return a.say("unsealed")
			})
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "a file with the passphrase or share, - for standard input (default: ask on the terminal)")
	cmd.Flags().StringVar(&file, "passphrase-file", "", "the same as --file")
	cmd.Flags().StringVar(&file, "share-file", "", "the same as --file")
	return cmd
}

func (a *app) sealCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "seal",
		Short:   "Make the node forget its root key; clients are cut off until it is unsealed",
		Example: "  bulwark operator seal",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reply, err := call(cmd.Context(), a, api.SealRoute, api.Empty{})
			if err != nil {
				return err
			}
			return a.print(reply, func() error { return a.say("sealed") })
		},
	}
}

func (a *app) apiTokenCommand() *cobra.Command {
	var overlap time.Duration
	create := &cobra.Command{
		Use: "create NAME", Short: "Make an operator token, for --url", Example: "  bulwark operator api-token create laptop",
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.sayNewKey(call(cmd.Context(), a, apikey.CreateToken, apikey.CreateTokenRequest{Name: args[0]}))
		},
	}
	list := &cobra.Command{
		Use: "list", Short: "List the operator tokens", Example: "  bulwark operator api-token list", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reply, err := call(cmd.Context(), a, apikey.ListTokens, api.Empty{})
			if err != nil {
				return err
			}
			return a.print(reply, func() error {
				return a.tableOfKeys("no operator tokens: make one with bulwark operator api-token create NAME", reply.Keys)
			})
		},
	}
	rotate := &cobra.Command{
		Use: "rotate ID", Short: "Give an operator token a new value", Example: "  bulwark operator api-token rotate ID --overlap 1h",
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseID(args[0])
			if err != nil {
				return err
			}
			return a.sayNewKey(call(cmd.Context(), a, apikey.RotateToken, apikey.RotateTokenRequest{ID: id, Overlap: int(overlap.Seconds())}))
		},
	}
	rotate.Flags().DurationVar(&overlap, "overlap", 0, "how long the old value stays valid")
	revoke := &cobra.Command{
		Use: "revoke ID", Short: "Revoke an operator token", Example: "  bulwark operator api-token revoke ID", Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseID(args[0])
			if err != nil {
				return err
			}
			reply, err := call(cmd.Context(), a, apikey.RevokeToken, apikey.RevokeTokenRequest{ID: id})
			if err != nil {
				return err
			}
			return a.print(reply, func() error { return a.say("revoked") })
		},
	}
	return group("api-token", "Operator tokens, for commands over the network", create, list, rotate, revoke)
}
