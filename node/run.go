package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"bulwark/node/config"
)

// Run opens a node, says on out what a client needs once it is ready, and closes it when ctx ends or the node fails. With
// asJSON what it says is one line: a Demo, where there is no demo project without its keys.
func Run(ctx context.Context, cfg config.Config, o Options, out io.Writer, asJSON bool) error {
	n, err := Open(ctx, cfg, o)
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil // it was told to stop while it waited
	}
	if err != nil {
		return err
	}
	err = n.announce(ctx, out, asJSON)
	if err == nil {
		err = n.Wait(ctx)
	}
	return errors.Join(err, n.Close())
}

// announce says what a client needs.
func (n *Node) announce(ctx context.Context, out io.Writer, asJSON bool) error {
	if n.ring.Sealed() {
		if asJSON {
			return json.NewEncoder(out).Encode(map[string]any{"sealed": true, "data": n.dataFolder()})
		}
		_, err := fmt.Fprintf(out, "Bulwark is running, sealed. Give its root key with:\n\n  bulwark operator unseal --data %s\n", n.cfg.Data)
		return err
	}
	d := &Demo{URL: n.URL(), CA: string(*n.ca.Load())}
	if n.cfg.Demo {
		demo, err := n.Demo(ctx)
		if err != nil {
			return fmt.Errorf("making the demo: %w", err)
		}
		if demo != nil {
			d = demo
		}
	}
	if asJSON {
		return json.NewEncoder(out).Encode(d)
	}
	return n.say(out, d)
}

func (n *Node) say(out io.Writer, d *Demo) error {
	ca := filepath.Join(n.cfg.Data, caName)
	if _, err := fmt.Fprintf(out, "Bulwark is ready at %s\n\n", n.URL()); err != nil {
		return err
	}
	if d.PublishableKey != "" {
		_, err := fmt.Fprintf(out, "  project URL       %s\n  publishable key   %s\n  secret key        %s   (for servers only)\n",
			d.URL, d.PublishableKey, d.SecretKey)
		if err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "  root certificate  %s\n\nA client in Node.js trusts it with:\n\n  export NODE_EXTRA_CA_CERTS=%s\n\n", ca, ca)
	if err == nil && n.cfg.Demo && d.PublishableKey == "" {
		_, err = fmt.Fprintln(out, "There are tenants already, so no demo was made.")
	}
	return err
}
