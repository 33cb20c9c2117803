package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"bulwark/security/access"
	"bulwark/security/account"
	"bulwark/security/apikey"
	"bulwark/security/audit"
	"bulwark/security/auditsearch"
	"bulwark/security/cert"
	"bulwark/security/rowpolicy"
	"bulwark/security/session"
	"bulwark/security/tenant"
	"bulwark/storage"
	"bulwark/storage/table"
	"bulwark/web"
	"bulwark/web/api"
	"bulwark/web/rest"
)

// parts are the subsystems over the store. They hold nothing that a sealed node may not hold, but for what forget drops.
type parts struct {
	directory *tenant.Directory
	keys      *apikey.Keys
	sessions  *session.Sessions
	tables    *table.Catalog
	sql       *rowpolicy.Service
	auth      http.Handler
	rest      http.Handler
}

// buildParts makes the subsystems and joins what they need of each other.
func (n *Node) buildParts() (p *parts, err error) {
	p = &parts{}
	if p.directory, err = tenant.New(n.store, n.opts.Random); err != nil {
		return nil, err
	}
	if p.keys, err = apikey.New(n.store, n.opts.Random); err != nil {
		return nil, err
	}
	hasher, err := account.NewHasher(n.cfg.BcryptCost)
	if err != nil {
		return nil, err
	}
	p.sessions, err = session.New(session.Config{
		Store: n.store, Projects: p.directory, Keys: p.keys, Hasher: hasher, Level: access.Level,
		Issuer: func(ref string) string { return n.ProjectURL(ref) + "/auth/v1" },
		Random: n.opts.Random, Logger: n.logger, Version: n.opts.Version,
	})
	if err != nil {
		return nil, err
	}
	p.auth = p.sessions.Handler()
	if p.sql, err = rowpolicy.New(n.store, n.opts.Random); err != nil {
		return nil, err
	}
	if p.tables, err = table.New(table.Options{Random: n.opts.Random}); err != nil {
		return nil, err
	}
	if p.rest, err = rest.New(rest.Config{Store: n.store, Callers: p.sessions, Tables: p.tables, Logger: n.logger}); err != nil {
		return nil, err
	}
	return p, nil
}

// operators proves operators: whoever may use the console, and holders of an operator token.
type operators struct{ keys *apikey.Keys }

// Operator implements api.Authenticator.
func (o operators) Operator(r *http.Request, tenant, project storage.ID) (storage.Actor, error) {
	if web.FromConsole(r) {
		return storage.OperatorActor(tenant, project, storage.ID{}, "console", api.Origin(r)), nil
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return storage.Actor{}, storage.Errorf(storage.Unauthenticated, "no_token", "this needs an operator token: send Authorization: Bearer TOKEN")
	}
	id, name, err := o.keys.Operator(r.Context(), token)
	if err != nil {
		return storage.Actor{}, err
	}
	return storage.OperatorActor(tenant, project, id, name, api.Origin(r)), nil
}

// systemName is what an operator calls the system tenant.
const systemName = "system"

// directory adds the system tenant to the directory, so that its audit log can be read too.
type directory struct{ *tenant.Directory }

// Tenant implements api.Directory.
func (d directory) Tenant(ctx context.Context, nameOrID string) (storage.ID, error) {
	if nameOrID == systemName || nameOrID == storage.System.String() {
		return storage.System, nil
	}
	return d.Directory.Tenant(ctx, nameOrID)
}

// indexKeys gives each tenant's search index a key of its own, from the root: the index is this node's, and derived.
type indexKeys struct{ n *Node }

// IndexKey implements auditsearch.KeySource.
func (k indexKeys) IndexKey(tenant storage.ID) (id string, key []byte, err error) {
	key, err = k.n.ring.Derive("search:"+tenant.String(), 32)
	return "root", key, err
}

// startServing starts what needs the root key: the records of a new cluster, certificates, followers and jobs, and the
// clients' listener. The caller holds n.mu.
func (n *Node) startServing(ctx context.Context) error {
	if err := n.awaitLeader(ctx); err != nil {
		return err
	}
	if err := n.store.Bootstrap(ctx); err != nil {
		return fmt.Errorf("making the cluster's first record: %w", err)
	}
	certificates, err := cert.Open(ctx, cert.Config{
		Store: n.store, Node: n.id, Names: n.certificateNames(), Logger: n.logger, Clock: n.opts.Now,
	})
	if err != nil {
		return fmt.Errorf("getting the certificate: %w", err)
	}
	if err := n.enrol(ctx); err != nil {
		certificates.Close()
		return fmt.Errorf("enrolling the node: %w", err)
	}
	if err := n.recordRestore(ctx); err != nil {
		certificates.Close()
		return err
	}
	search, err := auditsearch.Open(auditsearch.Config{
		Dir: filepath.Join(n.cfg.Data, searchName), Store: n.store, History: n.store, Keys: indexKeys{n},
		Clock: n.opts.Now, Logger: n.logger,
	})
	if err == nil {
		if err = n.serveClients(ctx, certificates, search); err != nil {
			search.Close()
		}
	}
	if err != nil {
		certificates.Close()
	}
	return err
}

func (n *Node) serveClients(ctx context.Context, certificates *cert.Manager, search *auditsearch.Index) error {
	pem, err := certificates.CA(ctx)
	if err != nil {
		return err
	}
	if err := n.writeCA(pem); err != nil {
		return err
	}
	seed, err := n.ring.Derive("audit checkpoints", audit.SeedSize)
	if err != nil {
		return err
	}
	signer, err := audit.NewSigner(n.header.Cluster, seed)
	if err != nil {
		return err
	}
	checkpoints, err := audit.NewCheckpointer(n.store, n.store, signer, n.logger)
	if err != nil {
		return err
	}
	if n.client == nil { // a node that was sealed gave the port back
		if n.client, err = listen(n.cfg.Listen); err != nil {
			return err
		}
	}
	mux := n.newMux()
	n.parts.register(mux)
	audit.Register(mux, checkpoints, search)
	n.registerKeys(mux)
	n.registerMembers(mux)
	n.registerBackup(mux)
	n.registerCompact(mux)
	n.ca.Store(&pem)
	n.api.Store(mux)

	ctx, stop := context.WithCancel(context.Background())
	clients, listener := n.newServer(), n.client
	n.serving = func() {
		shutdown, cancel := context.WithTimeout(context.Background(), n.cfg.StopTimeout)
		defer cancel()
		if err := clients.Shutdown(shutdown); err != nil {
			n.logger.Warn("stopping the clients' requests", "error", err)
		}
		stop()
		n.jobs.Wait()
		n.api.Store(n.sealedMux)
		search.Close()
		certificates.Close()
		n.parts.tables.Forget()
		n.store.Forget()
		n.client = nil
	}
	n.run("serving clients", func() error { return clients.Serve(listener, certificates.TLS(n.cfg.HTTP2)) })
	n.startJobs(ctx, checkpoints, search)
	return nil
}

// stopServing stops what needs the root key. The caller holds n.mu.
func (n *Node) stopServing() {
	if n.serving != nil {
		n.serving()
		n.serving = nil
	}
}

// sayWaiting is how often a node that waits for the others says so.
const sayWaiting = 10 * time.Second

// awaitLeader returns when the cluster has a leader that this node can reach, however long that takes: the other machines may
// come up later. Meanwhile the console answers.
func (n *Node) awaitLeader(ctx context.Context) error {
	for {
		err := n.cluster.Ready(ctx)
		var e *storage.Error
		if err == nil || ctx.Err() != nil || !errors.As(err, &e) || e.Code != "no_leader" {
			return errors.Join(err, ctx.Err())
		}
		n.logger.Info("waiting for the other nodes: there is no leader yet")
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(sayWaiting):
		}
	}
}

// register puts the subsystems' endpoints on m.
func (p *parts) register(m *api.Mux) {
	p.directory.Register(m)
	p.keys.Register(m)
	p.sql.Register(m)
}

// certificateNames are what the certificate is for: this host by all its names, and what clients are told to call.
func (n *Node) certificateNames() []string {
	names := append(cert.HostNames(), n.cfg.TLSNames...)
	for _, from := range []string{n.cfg.Listen, strings.TrimPrefix(n.URL(), "https://")} {
		host, _, err := net.SplitHostPort(from)
		if err != nil {
			host = from
		}
		if host != "" && host != "0.0.0.0" && host != "::" {
			names = append(names, host)
		}
	}
	return names
}
