package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
	"unicode"

	"bulwark/cluster/member"
	"bulwark/security/cert"
	"bulwark/security/keys"
	"bulwark/storage"
	"bulwark/storage/entry"
)

// notHeard is how long nothing may be heard of a node before its name may be taken over.
const notHeard = 10 * time.Second

// advertised is the address that other nodes are told to call.
func (n *Node) advertised(l net.Listener) (string, error) {
	if n.cfg.ClusterAdvertise != "" {
		return n.cfg.ClusterAdvertise, nil
	}
	addr := l.Addr().String()
	if host, _, err := net.SplitHostPort(addr); err == nil {
		if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
			return addr, nil
		}
	}
	return "", fmt.Errorf("the node listens for other nodes on every address (%s), so they must be told which to call: set --cluster-advertise HOST:PORT", n.cfg.ClusterListen)
}

// name is what people call the node: --name, or the host's.
func (n *Node) name() (name string, given bool) {
	if n.cfg.Name != "" {
		return n.cfg.Name, true
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		return "node", false
	}
	host, _, _ = strings.Cut(host, ".")
	return host, false
}

// joinCluster makes this node one of the cluster that the token names: it has then a certificate, the root key under its own
// seal, and a place in the log. What a crash cuts off the same command finishes.
func (n *Node) joinCluster(ctx context.Context, addr string) error {
	text := n.cfg.Join
	if file, ok := strings.CutPrefix(text, "@"); ok {
		b, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("reading the join token: %w", err)
		}
		text = string(bytes.TrimSpace(b))
	}
	token, err := member.ParseToken(text)
	if err != nil {
		return err
	}
	seal, err := n.joinSeal()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(n.cfg.Data, 0o700); err != nil {
		return fmt.Errorf("making the data folder: %w", err)
	}
	c, err := member.Load(n.cfg.Data, n.opts.Now, n.removed)
	if storage.IsNotFound(err) {
		var id storage.ID
		if id, err = storage.NewID(n.opts.Now(), n.opts.Random); err == nil {
			c, err = member.New(n.cfg.Data, id, n.opts.Now, n.removed)
		}
	}
	if err != nil {
		return err
	}
	csr, err := c.Request()
	if err != nil {
		return err
	}
	name, given := n.name()
	req := &member.JoinRequest{
		Secret: token.Secret[:], Node: c.Node(), Name: name, NameGiven: given, Addr: addr, CSR: csr,
		Formats: [2]uint8{entry.Oldest, entry.Newest()}, Version: n.opts.Version,
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	reply, err := member.Join(ctx, token, req, n.opts.Now, func(ctx context.Context, addr string) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp", addr)
	})
	if err != nil {
		return err
	}
	defer clear(reply.Root)
	if err := c.Set(reply.Chain); err != nil {
		return err
	}
	if cluster, ok := c.Cluster(); !ok || cluster != reply.Cluster || len(reply.Root) != keys.RootLen {
		return errors.New("the cluster's answer does not belong together: is a node of another version?")
	}
	if n.header, err = keys.Protect(n.cfg.Data, seal, reply.Cluster, reply.Root); err != nil {
		return err
	}
	n.logger.Info("joined the cluster", "cluster", reply.Cluster, "node", c.Node(), "name", reply.Name)
	return nil
}

// joinSeal is the seal under which this node will keep the cluster's root key.
func (n *Node) joinSeal() (keys.Seal, error) {
	switch keys.Kind(n.cfg.Seal) {
	case keys.File:
		return keys.NewFileSeal(n.cfg.Data, n.cfg.KeyFile)
	case keys.Passphrase:
		if n.cfg.PassphraseFile != "" {
			return n.passphraseSeal(), nil
		}
		return nil, errors.New("a node that joins with the seal passphrase needs --passphrase-file, once: the root key is sealed under it at once")
	}
	return nil, fmt.Errorf("a node cannot join with the seal %s: its shares would have to be given out first; join with --seal passphrase or file", n.cfg.Seal)
}

// removed reports whether the cluster has removed a node. A sealed node knows it, too.
func (n *Node) removed(id storage.ID) bool {
	if n.state == nil {
		return false
	}
	snap, err := n.state.Snapshot()
	if err != nil {
		return false // it is stopping
	}
	defer snap.Release()
	_, _, gone, err := snap.Get(storage.System, entry.Space{Table: member.RemovedTable}, id[:])
	return gone && err == nil
}

// stillAdmitted refuses a node that was removed after it had connected.
func (n *Node) stillAdmitted(conn net.Conn) error {
	secure, ok := conn.(*tls.Conn)
	if !ok {
		return storage.Errorf(storage.Denied, "not_a_node", "only nodes may call: this connection has no certificate")
	}
	id, err := member.Peer(secure.ConnectionState())
	if err == nil && n.removed(id) {
		err = storage.Errorf(storage.Denied, "removed", "node %s was removed from the cluster", id)
	}
	return err
}

// answerJoin answers a connection of somebody who has a token to join.
func (n *Node) answerJoin(conn net.Conn) {
	if err := member.Serve(n.life, conn, n.admit); err != nil {
		n.logger.Warn("refusing a node that wants to join", "address", conn.RemoteAddr().String(), "error", err)
	}
}

// admit makes a node of a candidate.
func (n *Node) admit(ctx context.Context, req *member.JoinRequest) (*member.JoinReply, error) {
	if n.ring.Sealed() {
		return nil, storage.Errorf(storage.Unavailable, "sealed", "the node that was asked is sealed: unseal it, or ask another")
	}
	if err := checkCandidate(req); err != nil {
		return nil, err
	}
	hash, err := member.KeyHash(req.CSR)
	if err != nil {
		return nil, err
	}
	m, replaced, err := n.members.Admit(ctx, member.Candidate{
		Secret: [32]byte(req.Secret), Node: req.Node, Name: req.Name, NameGiven: req.NameGiven, Addr: req.Addr, Key: hash,
	}, n.alive)
	if err != nil {
		return nil, err
	}
	if !replaced.IsZero() {
		if err := n.cluster.Remove(ctx, replaced); err != nil {
			return nil, fmt.Errorf("removing the node that is replaced: %w", err)
		}
	}
	chain, err := cert.SignNode(ctx, n.store, cert.NodeRequest{
		CSR: req.CSR, Name: member.URI(n.header.Cluster, req.Node), Node: req.Node,
	}, n.opts.Now())
	if err != nil {
		return nil, err
	}
	if err := n.cluster.Add(ctx, req.Node, req.Addr); err != nil {
		return nil, fmt.Errorf("adding the node to the log: %w", err)
	}
	reply := &member.JoinReply{Cluster: n.header.Cluster, Name: m.Name, Chain: chain}
	err = n.ring.HandOver(func(root []byte) { reply.Root = bytes.Clone(root) })
	n.logger.Info("a node joins", "node", req.Node, "name", m.Name, "address", req.Addr)
	return reply, err
}

func checkCandidate(req *member.JoinRequest) error {
	bad := func(format string, args ...any) error {
		return storage.Errorf(storage.BadInput, "bad_join", format, args...)
	}
	printable := func(r rune) bool { return r > ' ' && unicode.IsPrint(r) }
	if len(req.Secret) != 32 || req.Node.IsZero() {
		return bad("the request to join is damaged: is the node of another version?")
	}
	if req.Name == "" || len(req.Name) > 64 || strings.ContainsFunc(req.Name, func(r rune) bool { return !printable(r) }) {
		return bad("a node's name has 1 to 64 printable characters without spaces: choose another --name")
	}
	host, port, err := net.SplitHostPort(req.Addr)
	if err != nil || host == "" || port == "" || port == "0" || len(req.Addr) > 255 {
		return bad("other nodes cannot call %q: set --cluster-advertise HOST:PORT", req.Addr)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return bad("other nodes cannot call %q: set --cluster-advertise HOST:PORT", req.Addr)
	}
	if req.Formats[1] < entry.Oldest || req.Formats[0] > entry.Newest() {
		return bad("the node reads entries of format %d to %d, and this cluster writes %d to %d: install the cluster's version of Bulwark on it",
			req.Formats[0], req.Formats[1], entry.Oldest, entry.Newest())
	}
	return nil
}

// alive reports whether a node was heard from of late. One that has just started knows nothing yet, and takes nobody for gone.
func (n *Node) alive(id storage.ID) bool {
	now := n.opts.Now()
	if id == n.id || now.Sub(n.started) < notHeard {
		return true
	}
	return now.Sub(n.cluster.Peers()[id].At) < notHeard
}

// enrol sees that the node has a certificate by which others know it, and a record. The caller has the root key.
func (n *Node) enrol(ctx context.Context) error {
	if n.credentials.Due() {
		csr, err := n.credentials.Request()
		if err != nil {
			return err
		}
		chain, err := cert.SignNode(ctx, n.store, cert.NodeRequest{CSR: csr, Name: member.URI(n.header.Cluster, n.id), Node: n.id}, n.opts.Now())
		if err != nil {
			return err
		}
		if err := n.credentials.Set(chain); err != nil {
			return err
		}
	}
	name, given := n.name()
	m, err := n.members.Enlist(ctx, storage.JobActor(storage.System, storage.ID{}, "members"),
		member.Record{ID: n.id, Name: name, Addr: n.clusterAddr}, given)
	if err == nil {
		n.ownName.Store(&m.Name)
	}
	return err
}

// renewEvery is how often a node looks whether its certificate is to be renewed.
const renewEvery = time.Hour

// keepEnrolled renews the certificate until ctx ends.
func (n *Node) keepEnrolled(ctx context.Context) error {
	ticker := time.NewTicker(renewEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if !n.credentials.Due() {
			continue
		}
		if err := n.enrol(ctx); err != nil && ctx.Err() == nil {
			n.logger.Warn("renewing the node's certificate", "error", err, "expires", n.credentials.Expires())
		}
	}
}
