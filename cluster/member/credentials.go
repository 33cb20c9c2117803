package member

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"bulwark/storage"
)

// FileName is the file in the data folder that holds the node's key and, once it has one, its certificate and the
// cluster's root certificate. It is in clear, because a node replicates before anybody has unsealed it: what it opens is the
// log, which is sealed.
const FileName = "node.pem"

// The protocols between nodes, as TLS negotiates them (RFC 7301).
const (
	NodeProtocol = "bulwark-node/1" // both sides are nodes
	JoinProtocol = "bulwark-join/1" // the client has a join token, and no certificate yet
)

// URI names a node in its certificate: its role and its identity.
func URI(cluster, node storage.ID) *url.URL {
	return &url.URL{Scheme: "bulwark", Host: cluster.String(), Path: "/node/" + node.String()}
}

// Credentials are what a node shows to others, and how it looks at theirs. They may be empty at first.
type Credentials struct {
	path    string
	now     func() time.Time
	removed func(storage.ID) bool
	key     *ecdsa.PrivateKey
	node    storage.ID
	current atomic.Pointer[identity]
}

// An identity is a certificate that is in use.
type identity struct {
	cluster storage.ID
	shown   tls.Certificate
	leaf    *x509.Certificate
	root    *x509.Certificate
}

// Load reads the credentials in a data folder. A folder without any is NotFound. removed says whether a node was removed
// from the cluster.
func Load(dir string, now func() time.Time, removed func(storage.ID) bool) (*Credentials, error) {
	path := filepath.Join(dir, FileName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &storage.Error{Fault: storage.NotFound, Code: "no_credentials", Message: "this node has no certificate of the cluster yet"}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the node's certificate: %w", err)
	}
	c := &Credentials{path: path, now: now, removed: removed}
	if err := c.read(b); err != nil {
		return nil, fmt.Errorf("reading %s: %w: put it back, or let the node join anew", path, err)
	}
	return c, nil
}

// New draws a node's key and keeps it in the data folder, without a certificate.
func New(dir string, node storage.ID, now func() time.Time, removed func(storage.ID) bool) (*Credentials, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("drawing the node's key: %w", err)
	}
	c := &Credentials{path: filepath.Join(dir, FileName), now: now, removed: removed, key: key, node: node}
	return c, c.write(nil)
}

const (
	keyBlock  = "PRIVATE KEY"
	certBlock = "CERTIFICATE"
	nodeName  = "Node" // the header of the key's block that names the node
)

func (c *Credentials) read(b []byte) error {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != keyBlock {
		return errors.New("it holds no key")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return errors.New("its key is damaged")
	}
	c.key = key
	if c.node, err = storage.ParseID(block.Headers[nodeName]); err != nil {
		return errors.New("it does not name its node")
	}
	if len(bytes.TrimSpace(rest)) == 0 {
		return nil
	}
	id, err := c.identity(rest)
	if err != nil {
		return err
	}
	c.current.Store(id)
	return nil
}

// identity checks that a chain is for this node's key and id.
func (c *Credentials) identity(chain []byte) (*identity, error) {
	certificate, rest := pem.Decode(chain)
	if certificate == nil || certificate.Type != certBlock {
		return nil, errors.New("it holds no certificate")
	}
	authority, rest := pem.Decode(rest)
	if authority == nil || authority.Type != certBlock || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("it does not hold the cluster's root certificate")
	}
	leaf, err := x509.ParseCertificate(certificate.Bytes)
	if err != nil {
		return nil, errors.New("its certificate is damaged")
	}
	root, err := x509.ParseCertificate(authority.Bytes)
	if err != nil {
		return nil, errors.New("its root certificate is damaged")
	}
	cluster, node, err := named(leaf)
	if err != nil {
		return nil, err
	}
	if node != c.node || !c.key.PublicKey.Equal(leaf.PublicKey) {
		return nil, errors.New("its certificate is for another node")
	}
	if err := leaf.CheckSignatureFrom(root); err != nil {
		return nil, errors.New("its certificate is not of its root certificate")
	}
	return &identity{
		cluster: cluster, leaf: leaf, root: root,
		shown: tls.Certificate{Certificate: [][]byte{leaf.Raw, root.Raw}, PrivateKey: c.key, Leaf: leaf},
	}, nil
}

// write replaces the file as a whole.
func (c *Credentials) write(chain []byte) error {
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		return fmt.Errorf("encoding the node's key: %w", err)
	}
	defer clear(der)
	b := pem.EncodeToMemory(&pem.Block{Type: keyBlock, Headers: map[string]string{nodeName: c.node.String()}, Bytes: der})
	defer clear(b)
	if err := replaceFile(c.path, append(b, chain...)); err != nil {
		return fmt.Errorf("writing the node's certificate: %w", err)
	}
	return nil
}

func replaceFile(path string, b []byte) error {
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Node returns the node whose credentials these are.
func (c *Credentials) Node() storage.ID { return c.node }

// Cluster returns the cluster that gave the certificate; false while there is none.
func (c *Credentials) Cluster() (storage.ID, bool) {
	id := c.current.Load()
	if id == nil {
		return storage.ID{}, false
	}
	return id.cluster, true
}

// Expires returns when the certificate ends; zero while there is none.
func (c *Credentials) Expires() time.Time {
	if id := c.current.Load(); id != nil {
		return id.leaf.NotAfter
	}
	return time.Time{}
}

// Due reports whether it is time for a new certificate: there is none, or a third of its life is left.
func (c *Credentials) Due() bool {
	id := c.current.Load()
	if id == nil {
		return true
	}
	return c.now().After(id.leaf.NotAfter.Add(-id.leaf.NotAfter.Sub(id.leaf.NotBefore) / 3))
}

// Request returns a certificate request (DER) for the node's key.
func (c *Credentials) Request() ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, c.key)
	if err != nil {
		return nil, fmt.Errorf("making the certificate request: %w", err)
	}
	return der, nil
}

// KeyHash returns the SHA-256 of the public key of a certificate request, and checks that its sender holds the key.
func KeyHash(csr []byte) (hash [32]byte, err error) {
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil || r.CheckSignature() != nil {
		return hash, storage.Errorf(storage.BadInput, "bad_request", "the certificate request is damaged: is the node of another version?")
	}
	return sha256.Sum256(r.RawSubjectPublicKeyInfo), nil
}

// Set takes a new certificate (PEM: it, then the root) into use and keeps it.
func (c *Credentials) Set(chain []byte) error {
	id, err := c.identity(chain)
	if err != nil {
		return fmt.Errorf("the cluster's answer: %w", err)
	}
	if err := c.write(chain); err != nil {
		return err
	}
	c.current.Store(id)
	return nil
}

// named returns the cluster and node that a certificate is for. A certificate without exactly one name of a node, such as
// one for clients, is none.
func named(leaf *x509.Certificate) (cluster, node storage.ID, err error) {
	if len(leaf.URIs) != 1 || len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) > 0 {
		return cluster, node, errors.New("it is no certificate of a node")
	}
	u := leaf.URIs[0]
	if cluster, err = storage.ParseID(u.Host); err == nil && len(u.Path) > len("/node/") {
		node, err = storage.ParseID(u.Path[len("/node/"):])
	}
	if err != nil || *u != *URI(cluster, node) {
		return cluster, node, errors.New("it is no certificate of a node")
	}
	return cluster, node, nil
}

// errNone is what others hear of a node that has no certificate.
var errNone = errors.New("this node has no certificate of the cluster yet")

// check looks at what the other side has shown. The root's own dates do not matter: it is known by its key.
func (c *Credentials) check(state tls.ConnectionState, use x509.ExtKeyUsage) error {
	id := c.current.Load()
	if id == nil {
		return errNone
	}
	if state.Version < tls.VersionTLS13 || state.NegotiatedProtocol != NodeProtocol {
		return errors.New("it does not speak the protocol of nodes")
	}
	if len(state.PeerCertificates) == 0 {
		return errors.New("it has shown no certificate")
	}
	_, err := checkLeaf(state.PeerCertificates[0], id.root, id.cluster, use, c.now())
	if err != nil {
		return err
	}
	_, node, err := named(state.PeerCertificates[0])
	if err == nil && c.removed(node) {
		err = fmt.Errorf("node %s was removed from the cluster", node)
	}
	return err
}

// checkLeaf checks a node's certificate against the root of its cluster. A zero cluster is any.
func checkLeaf(leaf, root *x509.Certificate, cluster storage.ID, use x509.ExtKeyUsage, now time.Time) (storage.ID, error) {
	if err := leaf.CheckSignatureFrom(root); err != nil {
		return storage.ID{}, errors.New("its certificate is not of this cluster's authority")
	}
	of, node, err := named(leaf)
	if err != nil {
		return node, err
	}
	if of != cluster && !cluster.IsZero() {
		return node, errors.New("its certificate is of another cluster")
	}
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return node, fmt.Errorf("its certificate is for %s to %s: does a clock go wrong?", leaf.NotBefore.UTC().Format(time.DateOnly), leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	for _, u := range leaf.ExtKeyUsage {
		if u == use {
			return node, nil
		}
	}
	return node, errors.New("its certificate is not for this use")
}

// Peer returns the node at the other end of a checked connection.
func Peer(state tls.ConnectionState) (storage.ID, error) {
	if len(state.PeerCertificates) == 0 {
		return storage.ID{}, errors.New("it has shown no certificate")
	}
	_, node, err := named(state.PeerCertificates[0])
	return node, err
}

// ServerTLS is for the connections that a node takes: of nodes, which must show a certificate, and of those that join,
// which have none.
func (c *Credentials) ServerTLS() *tls.Config {
	base := &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true}
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		id := c.current.Load()
		if id == nil {
			return nil, errNone
		}
		conf := &tls.Config{
			MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, Certificates: []tls.Certificate{id.shown},
		}
		if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == JoinProtocol {
			conf.NextProtos = []string{JoinProtocol}
			return conf, nil
		}
		conf.NextProtos = []string{NodeProtocol}
		conf.ClientAuth = tls.RequireAnyClientCert
		conf.VerifyConnection = func(state tls.ConnectionState) error { return c.check(state, x509.ExtKeyUsageClientAuth) }
		return conf, nil
	}
	return base
}

// ClientTLS is for the connections that a node makes to others.
func (c *Credentials) ClientTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{NodeProtocol}, SessionTicketsDisabled: true,
		// Nodes are known by the name in their certificate, not by where they are: VerifyConnection checks all of it.
		InsecureSkipVerify: true,
		VerifyConnection:   func(state tls.ConnectionState) error { return c.check(state, x509.ExtKeyUsageServerAuth) },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			id := c.current.Load()
			if id == nil {
				return nil, errNone
			}
			return &id.shown, nil
		},
	}
}

// joinTLS is for a node that has a token: it knows the cluster by the hash of its root certificate.
func joinTLS(ca [32]byte, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{JoinProtocol},
		// The token pins the root: VerifyConnection checks all of it.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if state.NegotiatedProtocol != JoinProtocol {
				return errors.New("it does not speak the protocol of joining")
			}
			if len(state.PeerCertificates) != 2 || sha256.Sum256(state.PeerCertificates[1].Raw) != ca {
				return errors.New("it is not of the cluster that the token is for")
			}
			_, err := checkLeaf(state.PeerCertificates[0], state.PeerCertificates[1], storage.ID{}, x509.ExtKeyUsageServerAuth, now())
			return err
		},
	}
}
