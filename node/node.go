// Package node builds the program from its configuration, starts it and stops it: the only place where all parts meet.
//
// Promise: a node that cannot do its work says in one line what is wrong and what to do, and has then changed nothing in
// its data folder. A node that is sealed keeps its place in the log and answers its own console, and nothing else.
package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"bulwark/cluster"
	"bulwark/cluster/member"
	"bulwark/node/config"
	"bulwark/security/access"
	"bulwark/security/audit"
	"bulwark/security/keys"
	"bulwark/storage"
	"bulwark/storage/bolt"
	"bulwark/storage/entry"
	"bulwark/web"
	"bulwark/web/api"
)

// The names in a data folder, beside the seal's header.
const (
	databaseName = "state.db"
	logName      = "log"
	searchName   = "search"
	caName       = "ca.pem"
)

// Options are what a Node takes from its surroundings.
type Options struct {
	Version string
	Logger  *slog.Logger
	Now     func() time.Time // nil: time.Now
	Random  io.Reader        // nil: crypto/rand
}

func (o *Options) setDefaults() {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
}

// A Node is one running program.
type Node struct {
	cfg     config.Config
	opts    Options
	logger  *slog.Logger
	started time.Time

	header  *keys.Header
	id      storage.ID
	members *member.Registry
	// What other nodes know this one by, and where they call it.
	credentials *member.Credentials
	clusterAddr string
	stopping    atomic.Bool
	saving      sync.Mutex // held while a snapshot is saved
	registry    *prometheus.Registry
	monitor     net.Listener           // for those who monitor; nil: none
	ownName     atomic.Pointer[string] // as the cluster knows it, once that was read
	lateness    lateness
	backupFault atomic.Pointer[error] // why the last scheduled snapshot failed
	life        context.Context       // ends when the node closes
	end         context.CancelFunc

	ring    *keys.Ring
	state   *bolt.DB
	cluster *cluster.Cluster
	store   *storage.DB
	parts   *parts
	console *web.Server

	api       atomic.Pointer[api.Mux] // what the console and the clients reach below /api/
	sealedMux *api.Mux                // what of it a sealed node answers
	ca        atomic.Pointer[[]byte]  // the root certificate, as PEM

	mu      sync.Mutex   // held while the node unseals or seals
	client  net.Listener // for clients; nil after the node was sealed
	shares  *keys.ShamirSeal
	serving func() // stops what runs while the node is unsealed; nil while it is sealed

	addr    string        // of the clients' listener
	rotated chan struct{} // a project's key was rotated
	failed  chan error    // has what stopped the node
	jobs    sync.WaitGroup
	running sync.WaitGroup
}

// Open starts a node. On an empty data folder it makes a cluster of one, if the seal needs nobody to be asked. When it
// returns, the node's console answers; unless the node waits to be unsealed, its clients are served too.
func Open(ctx context.Context, cfg config.Config, o Options) (*Node, error) {
	o.setDefaults()
	if o.Logger == nil {
		return nil, errors.New("a node needs a logger")
	}
	n := &Node{
		cfg: cfg, opts: o, logger: o.Logger, started: o.Now(), ring: keys.NewRing(o.Random),
		rotated: make(chan struct{}, 1), failed: make(chan error, 8),
	}
	n.registry = prometheus.NewRegistry()
	n.life, n.end = context.WithCancel(context.Background())
	if err := n.open(ctx); err != nil {
		// What failed is what to say; that it was then not closed well adds nothing to it.
		if closing := n.Close(); closing != nil {
			n.logger.Debug("closing what was opened", "error", closing)
		}
		return nil, err
	}
	return n, nil
}

// open looks at everything before it changes anything: the ports, the root key, the database, the log.
func (n *Node) open(ctx context.Context) (err error) {
	if n.client, err = listen(n.cfg.Listen); err != nil {
		return err
	}
	n.addr = n.client.Addr().String()
	nodes, err := listen(n.cfg.ClusterListen)
	if err != nil {
		return err
	}
	if n.cfg.MetricsListen != "" {
		if n.monitor, err = listen(n.cfg.MetricsListen); err != nil {
			nodes.Close()
			return err
		}
	}
	root, err := n.openFiles(ctx, nodes)
	defer clear(root)
	if err != nil {
		nodes.Close()
		return err
	}
	n.registry.MustRegister(collector{n})
	if n.parts, err = n.buildParts(); err != nil {
		return err
	}
	if err := n.serveConsole(); err != nil {
		return err
	}
	if root == nil {
		n.logger.Info("the node is sealed: run `bulwark operator unseal`", "seal", n.header.Kind)
		return nil
	}
	return n.unseal(ctx, root)
}

func listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w: stop what uses the port, or choose another with --listen or --cluster-listen", addr, err)
	}
	return l, nil
}

// openFiles opens everything in the data folder, and makes what a new one needs. It returns the root key, where that needs
// nobody to be asked; the caller clears it.
func (n *Node) openFiles(ctx context.Context, nodes net.Listener) (root []byte, err error) {
	if err := cluster.CheckDisk(n.cfg.Data); err != nil {
		return nil, err
	}
	if n.clusterAddr, err = n.advertised(nodes); err != nil {
		return nil, err
	}
	fresh, err := n.openHeader(ctx)
	if err != nil {
		return nil, err
	}
	if root, err = n.openSeal(); err != nil {
		return nil, err
	}
	voters, err := n.openIdentity(fresh)
	if err != nil {
		return root, err
	}
	if err := n.checkDatabase(); err != nil {
		return root, err
	}
	if err := cluster.Finish(filepath.Join(n.cfg.Data, logName), filepath.Join(n.cfg.Data, databaseName)); err != nil {
		return root, err
	}
	n.state, err = bolt.Open(bolt.Options{
		Path: filepath.Join(n.cfg.Data, databaseName), ClusterID: n.header.Cluster, Logger: n.logger, PageSize: pageSize,
	})
	if err != nil {
		return root, err
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	n.cluster, err = cluster.Open(cluster.Config{
		Cluster: n.header.Cluster, Node: n.id, Dir: filepath.Join(n.cfg.Data, logName), State: n.state,
		Voters:   voters,
		Listener: nodes, Advertise: n.clusterAddr,
		ServerTLS: n.credentials.ServerTLS(), ClientTLS: n.credentials.ClientTLS(), Join: n.answerJoin, Admit: n.stillAdmitted,
		Extra: n.extra, Faults: n.faults, Clock: n.opts.Now,
		Heartbeat: n.cfg.ElectionTimeout, Election: n.cfg.ElectionTimeout, Lease: n.cfg.ElectionTimeout * 4 / 5,
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", addr)
		},
		Logger: n.logger,
	})
	if err != nil {
		return root, errors.Join(err, n.state.Close())
	}
	if err := keys.Tidy(n.cfg.Data); err != nil {
		n.logger.Warn("removing what making the cluster left", "error", err)
	}
	recorder, err := audit.New(n.opts.Random)
	if err != nil {
		return root, err
	}
	n.store, err = storage.Open(n.cluster, storage.Guards{
		Access: access.New(), Keys: n.ring, Audit: recorder, Clock: n.opts.Now, Rand: n.opts.Random, Logger: n.logger,
	})
	n.members = member.NewRegistry(n.store)
	return root, err
}

// pageSize of the database: rows of about a kilobyte leave a fifth of a small page empty.
const pageSize = 16 << 10

// openHeader reads the seal's header, or makes a cluster in an empty folder.
func (n *Node) openHeader(ctx context.Context) (fresh bool, err error) {
	n.header, err = keys.ReadHeader(n.cfg.Data)
	if !storage.IsNotFound(err) {
		if err == nil && n.cfg.Join != "" {
			n.logger.Info("the data folder is of a cluster already: the join token is not used")
		}
		return false, err
	}
	joins := n.cfg.Join != ""
	names, err := os.ReadDir(n.cfg.Data)
	made := errors.Is(err, fs.ErrNotExist)
	if err != nil && !made {
		return false, fmt.Errorf("reading the data folder: %w", err)
	}
	if slices.ContainsFunc(names, func(e fs.DirEntry) bool {
		return !keys.Leftover(e.Name()) && (!joins || e.Name() != member.FileName && e.Name() != member.FileName+".tmp")
	}) {
		return false, fmt.Errorf("the folder %s is not empty and holds no cluster: name the right one with --data, or an empty one to make a cluster", n.cfg.Data)
	}
	if joins {
		return false, n.joinCluster(ctx, n.clusterAddr)
	}
	if n.cfg.Seal != string(keys.File) {
		return false, fmt.Errorf("the data folder %s is empty: make a cluster with the seal %s by `bulwark operator init --data %[1]s --seal %[2]s`, then start it", n.cfg.Data, n.cfg.Seal)
	}
	seal, err := keys.NewFileSeal(n.cfg.Data, n.cfg.KeyFile)
	if err != nil {
		return false, err
	}
	if err := os.MkdirAll(n.cfg.Data, 0o700); err != nil {
		return false, fmt.Errorf("making the data folder: %w", err)
	}
	header, root, err := keys.Init(n.cfg.Data, seal, n.opts.Random)
	if err != nil {
		if made {
			// It is empty; if it cannot be removed, that harms nobody.
			_ = os.Remove(n.cfg.Data)
		}
		return false, err
	}
	clear(root) // it is read back, as at every later start
	n.header = header
	n.logger.Info("made a cluster of one", "cluster", header.Cluster, "key_file", n.cfg.KeyFile)
	return true, nil
}

// openIdentity finds out which node this is, and returns the voters of the cluster that it makes, if it makes one. A node
// that joined has a certificate before it has a log, and makes none.
func (n *Node) openIdentity(fresh bool) (voters []cluster.Voter, err error) {
	n.credentials, err = member.Load(n.cfg.Data, n.opts.Now, n.removed)
	if err != nil && !storage.IsNotFound(err) {
		return nil, err
	}
	of, id, err := cluster.Identity(filepath.Join(n.cfg.Data, logName))
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case missing && n.credentials != nil:
		id, of, err = n.credentials.Node(), n.header.Cluster, nil
	case missing:
		id, err = storage.NewID(n.opts.Now(), n.opts.Random)
		of = n.header.Cluster
	}
	if err != nil {
		return nil, err
	}
	if fresh && !missing || of != n.header.Cluster {
		return nil, fmt.Errorf("the log in %s belongs to another cluster (%s, not %s): use its own data folder", n.cfg.Data, of, n.header.Cluster)
	}
	joined := false
	if n.credentials != nil {
		if n.credentials.Node() != id {
			return nil, fmt.Errorf("the certificate in %s belongs to another node (%s, not %s): put back this node's own", filepath.Join(n.cfg.Data, member.FileName), n.credentials.Node(), id)
		}
		_, joined = n.credentials.Cluster()
	} else if n.credentials, err = member.New(n.cfg.Data, id, n.opts.Now, n.removed); err != nil {
		return nil, err
	}
	n.id = id
	if !joined { // where the log has its configuration already, this one is not used
		voters = []cluster.Voter{{ID: id, Addr: n.clusterAddr}}
	}
	return voters, nil
}

// checkDatabase refuses to make a database beside a log that has one: it was lost, and an empty one would not be it.
func (n *Node) checkDatabase() error {
	path := filepath.Join(n.cfg.Data, databaseName)
	_, err := os.Lstat(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return nil // it is there, or opening it says what is wrong
	}
	if _, _, err := cluster.Identity(filepath.Join(n.cfg.Data, logName)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("the database %s is not there, but its log is: put it back, or restore this node from a snapshot", path)
}

// Sealed reports whether the node waits for its root key.
func (n *Node) Sealed() bool { return n.ring.Sealed() }

// Wait returns when the node has failed, with what failed it, or when ctx ends, with nil.
func (n *Node) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-n.failed:
		return err
	case <-n.cluster.Failed():
	}
	err := n.cluster.Err()
	var newer *entry.NewerFormatError
	if errors.As(err, &newer) || errors.Is(err, entry.ErrDamaged) {
		return err
	}
	// A disk that refuses writes must not take reading and the console with it.
	n.logger.Error("the node goes on without its log: what it holds can be read, and nothing changed; mend the cause and start it again", "error", err)
	select {
	case <-ctx.Done():
		return nil
	case err := <-n.failed:
		return err
	}
}

// Close stops the node: it takes no more requests, finishes those that run, and leaves a database that needs no replay.
func (n *Node) Close() error {
	var errs []error
	n.stopping.Store(true) // a load balancer may look
	if n.cluster != nil && n.leads() {
		n.handOver()
	}
	n.end()
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.StopTimeout)
	defer cancel()
	if n.console != nil {
		errs = append(errs, n.console.Shutdown(ctx))
	}
	n.mu.Lock()
	n.stopServing()
	if n.client != nil {
		n.client.Close() // it never came to serving
	}
	if n.monitor != nil {
		n.monitor.Close()
	}
	n.mu.Unlock()
	n.running.Wait()
	if n.store != nil {
		n.store.Close()
	}
	if n.cluster != nil {
		errs = append(errs, n.cluster.Close())
	}
	n.ring.Seal()
	return errors.Join(errs...)
}

// handOver lets another node lead while this one still serves, so that a write never waits for an election.
func (n *Node) handOver() {
	ctx, cancel := context.WithTimeout(context.Background(), handOverTime)
	defer cancel()
	if err := n.cluster.TransferLeadership(ctx, storage.ID{}); err != nil {
		n.logger.Debug("handing leadership over", "error", err) // there may be nobody
	}
}

const handOverTime = 2 * time.Second

// run runs fn until it returns; an error stops the node.
func (n *Node) run(what string, fn func() error) {
	n.running.Go(func() {
		if err := fn(); err != nil && !errors.Is(err, context.Canceled) {
			n.logger.Error("stopped: "+what, "error", err)
			select {
			case n.failed <- fmt.Errorf("%s: %w", what, err):
			default:
			}
		}
	})
}
