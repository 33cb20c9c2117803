package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"bulwark/security/keys"
	"bulwark/storage"
	"bulwark/web/api"
)

// openSeal returns the root key where that needs nobody, and nil where an operator must give it.
func (n *Node) openSeal() ([]byte, error) {
	switch n.header.Kind {
	case keys.File:
		path := n.cfg.KeyFile
		if _, err := os.Stat(path); err != nil {
			path = "" // where the header says
		}
		seal, err := keys.NewFileSeal(n.cfg.Data, path)
		if err != nil {
			return nil, err
		}
		return n.header.Open(seal)
	case keys.Passphrase:
		if n.cfg.PassphraseFile == "" {
			return nil, nil
		}
		return n.header.Open(n.passphraseSeal())
	}
	return nil, nil
}

// passphraseSeal reads the passphrase from its file.
func (n *Node) passphraseSeal() keys.Seal {
	return keys.NewPassphraseSeal(func() ([]byte, error) {
		b, err := os.ReadFile(n.cfg.PassphraseFile)
		if err != nil {
			return nil, fmt.Errorf("reading the passphrase: %w", err)
		}
		return bytes.TrimRight(b, "\r\n"), nil
	}, n.opts.Random)
}

// Unseal takes an operator's passphrase or share, and serves when that is enough.
func (n *Node) Unseal(ctx context.Context, req api.UnsealRequest) (api.UnsealReply, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.ring.Sealed() {
		return api.UnsealReply{}, storage.Errorf(storage.Exists, "unsealed", "the node is unsealed already")
	}
	var root []byte
	var err error
	switch {
	case n.header.Kind == keys.Passphrase && req.Passphrase != "" && req.Share == "":
		root, err = n.header.Open(keys.NewPassphraseSeal(func() ([]byte, error) { return []byte(req.Passphrase), nil }, n.opts.Random))
	case n.header.Kind == keys.Shamir && req.Share != "" && req.Passphrase == "":
		var have, need int
		if n.shares == nil {
			n.shares = keys.CollectShares()
		}
		if have, need, err = n.shares.Offer(n.header, req.Share); err != nil {
			return api.UnsealReply{}, err
		}
		if have < need {
			return api.UnsealReply{Sealed: true, Shares: have, Needed: need}, nil
		}
		root, err = n.header.Open(n.shares)
		n.shares.Forget()
	case n.header.Kind == keys.File:
		root, err = n.openSeal() // sealed by hand before; the key file is still where it was
	default:
		err = storage.Errorf(storage.BadInput, "other_seal", "the root key of this node is sealed by %q: give %s", n.header.Kind, needs(n.header.Kind))
	}
	if err != nil {
		return api.UnsealReply{}, err
	}
	defer clear(root)
	if err := n.unsealLocked(ctx, root); err != nil {
		return api.UnsealReply{}, err
	}
	return api.UnsealReply{}, nil
}

func needs(k keys.Kind) string {
	if k == keys.Shamir {
		return "one share at a time"
	}
	return "the passphrase"
}

func (n *Node) unseal(ctx context.Context, root []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.unsealLocked(ctx, root)
}

func (n *Node) unsealLocked(ctx context.Context, root []byte) error {
	if err := n.header.Verify(root); err != nil {
		return err
	}
	if err := n.ring.Unseal(root); err != nil {
		return err
	}
	if err := n.startServing(ctx); err != nil {
		n.stopServing()
		n.ring.Seal()
		return err
	}
	return nil
}

// SealNow makes the node forget its root key. Clients are cut off; the console goes on.
func (n *Node) SealNow() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ring.Sealed() {
		return storage.Errorf(storage.Exists, "sealed", "the node is sealed already")
	}
	n.stopServing()
	n.store.Flush()
	n.ring.Seal()
	n.logger.Info("sealed")
	return nil
}

// writeCA leaves the root certificate in the data folder, where a client's configuration can name it.
func (n *Node) writeCA(pem []byte) error {
	path := filepath.Join(n.cfg.Data, caName)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, pem) {
		return nil
	}
	if err := os.WriteFile(path+".tmp", pem, 0o600); err != nil {
		return fmt.Errorf("writing the root certificate: %w", err)
	}
	return errors.Join(os.Rename(path+".tmp", path))
}
