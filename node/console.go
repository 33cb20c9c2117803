package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bulwark/storage"
	"bulwark/web"
	"bulwark/web/api"
	"bulwark/web/client"
)

// serveConsole begins to answer on the unix socket in the data folder. Only the folder's owner can open it.
func (n *Node) serveConsole() error {
	n.sealedMux = n.newMux()
	n.api.Store(n.sealedMux)
	path := client.SocketPath(n.cfg.Data)
	// Whoever held the database's lock before us is gone, so a socket that is still there is nobody's.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing the old console socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("opening the console socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("closing the console socket to others: %w", err), l.Close())
	}
	n.console = n.newServer()
	n.run("serving the console", func() error { return n.console.ServeUnix(l) })
	if n.monitor != nil {
		n.run("serving metrics", func() error { return n.console.ServeMonitoring(n.monitor) })
	}
	return nil
}

// newServer returns a server of every surface. The console and the clients have one each, so that sealing stops the one.
func (n *Node) newServer() *web.Server {
	return web.New(web.Config{
		API: http.HandlerFunc(n.serveAPI), Auth: n.parts.auth, Rest: n.parts.rest,
		Authenticator: operators{n.parts.keys}, Ready: n.readiness,
		Registry: n.registry, SecurityContact: n.cfg.SecurityContact, Logger: n.logger, Now: n.opts.Now, Random: n.opts.Random,
		RequestTimeout: n.cfg.RequestTimeout, HeaderTimeout: n.cfg.HeaderTimeout, IdleTimeout: n.cfg.IdleTimeout,
		MaxBody: n.cfg.MaxBody, MaxConnections: n.cfg.MaxConnections,
		RateLimit: n.cfg.RateLimit, RateBurst: n.cfg.RateBurst, HTTP2: n.cfg.HTTP2,
	})
}

// serveAPI answers what the node can answer now. A sealed one says that it is.
func (n *Node) serveAPI(w http.ResponseWriter, r *http.Request) {
	if profile, ok := strings.CutPrefix(r.URL.Path, profilePath); ok && web.FromConsole(r) {
		serveProfile(w, r, profile)
		return
	}
	mux := n.api.Load()
	if mux == n.sealedMux && !slices.ContainsFunc(mux.Routes(), func(i api.RouteInfo) bool { return i.Path == r.URL.Path }) &&
		r.URL.Path != api.DescriptionPath {
		api.WriteError(w, r, n.logger, storage.Errorf(storage.Unavailable, "sealed",
			"the node is sealed: give its root key with `bulwark operator unseal`"))
		return
	}
	mux.ServeHTTP(w, r)
}

// profilePath is where the operator at the console, and nobody else, finds runtime profiles: "cpu", "heap", "goroutine" and
// the others that runtime/pprof knows. They hold names of functions and counts, and nothing of anybody's data.
const profilePath = "/api/v1/operator/profile/"

func serveProfile(w http.ResponseWriter, r *http.Request, profile string) {
	if profile == "cpu" {
		pprof.Profile(w, r)
		return
	}
	pprof.Handler(profile).ServeHTTP(w, r)
}

// newMux returns a mux with the endpoints of the node itself.
func (n *Node) newMux() *api.Mux {
	m := api.NewMux(api.Config{
		Authenticator: operators{n.parts.keys}, Directory: directory{n.parts.directory}, Logger: n.logger, Version: n.opts.Version,
	})
	api.Handle(m, api.StatusRoute, func(ctx context.Context, _ storage.Actor, _ api.Empty) (api.NodeStatus, error) {
		return n.Status(ctx), nil
	})
	api.Handle(m, api.NodesRoute, func(context.Context, storage.Actor, api.Empty) (api.Nodes, error) {
		return api.Nodes{Nodes: n.nodes()}, nil
	})
	api.Handle(m, api.UnsealRoute, func(ctx context.Context, by storage.Actor, req api.UnsealRequest) (api.UnsealReply, error) {
		reply, err := n.Unseal(ctx, req)
		if err == nil && !reply.Sealed {
			// It is done; that nobody could write it down is for the operator to know, and no reason to say that it failed.
			if err := n.recordSealing(ctx, by, "operator.unseal"); err != nil {
				n.logger.Error("recording that the node was unsealed", "error", err)
			}
		}
		return reply, err
	})
	api.Handle(m, api.SealRoute, func(ctx context.Context, by storage.Actor, _ api.Empty) (api.Empty, error) {
		return api.Empty{}, n.sealFor(ctx, by)
	})
	api.Handle(m, api.CARoute, func(context.Context, storage.Actor, api.Empty) (api.CAReply, error) {
		pem := n.ca.Load()
		if pem == nil {
			return api.CAReply{}, storage.Errorf(storage.Unavailable, "sealed", "the node is sealed: its certificate authority opens with `bulwark operator unseal`")
		}
		return api.CAReply{PEM: string(*pem)}, nil
	})
	return m
}

// sealFor seals the node because an operator asked for it. One at the console has his answer when it is sealed. One who came
// over the network has it before: sealing waits for the requests that run, and that is one of them.
func (n *Node) sealFor(ctx context.Context, by storage.Actor) error {
	if !n.ring.Sealed() {
		if err := n.recordSealing(ctx, by, "operator.seal"); err != nil {
			return err
		}
	}
	if by.Subject().IsZero() {
		return n.SealNow()
	}
	n.run("sealing", func() error {
		if err := n.SealNow(); err != nil {
			n.logger.Info("sealing", "error", err) // somebody else did
		}
		return nil
	})
	return nil
}

// recordSealing writes down who sealed or unsealed this node.
func (n *Node) recordSealing(ctx context.Context, by storage.Actor, action string) error {
	return n.store.Update(ctx, by, storage.Intent{Action: action, Object: n.id.String()}, func(tx storage.Tx) error {
		tx.Note("seal", string(n.header.Kind))
		return nil
	})
}

func (n *Node) progress() (have, need int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.shares.Progress(n.header)
}

func (n *Node) dataFolder() string {
	if abs, err := filepath.Abs(n.cfg.Data); err == nil {
		return abs
	}
	return n.cfg.Data
}

// URL is where clients reach the node.
func (n *Node) URL() string {
	if n.cfg.PublicURL != "" {
		return strings.TrimRight(n.cfg.PublicURL, "/")
	}
	host, _, err := net.SplitHostPort(n.cfg.Listen)
	if err != nil || host == "" || host == "0.0.0.0" || host == "::" {
		host = "localhost"
	}
	_, port, _ := net.SplitHostPort(n.addr)
	return "https://" + net.JoinHostPort(host, port)
}

// ProjectURL is what a client of a project is given.
func (n *Node) ProjectURL(ref string) string { return n.URL() + "/p/" + url.PathEscape(ref) }
