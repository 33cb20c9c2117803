// Package cert gives a node its TLS certificate: issued by the cluster's own CA, kept in the replicated store, renewed by
// certmagic.
//
// Promise: a Manager that Open returned has a valid certificate in memory, so that the first handshake finds it, and no
// handshake reads the store. No private key is ever on disk in clear: the CA's and the nodes' are sealed records of the
// system tenant. Nothing here reaches the network. After Close nothing runs.
//
// certmagic manages one certificate for a node, whose subject is derived from the names that it is for: when the names
// change it is another certificate, and nodes do not disturb each other.
package cert

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"bulwark/storage"
)

// Config is what a Manager needs. Store must be there.
type Config struct {
	Store  storage.Store
	Node   storage.ID // whose certificate it is: what an earlier run of this node locked is free
	Names  []string   // host names and addresses that the certificate is for; see HostNames
	Logger *slog.Logger
	Clock  func() time.Time // nil: time.Now

	LeafLife     time.Duration // 0 is 30 days; a certificate is renewed when a third of it is left
	RenewalCheck time.Duration // how often to look whether it is time; 0 is 10 minutes
}

// A Manager holds a node's certificate.
type Manager struct {
	root    []byte // PEM
	subject string
	magic   *certmagic.Config
	cache   *certmagic.Cache
	files   *fileStore
	cancel  context.CancelFunc
}

// Open makes or loads the cluster's CA and the node's certificate. It fails where the store is sealed or has no leader.
func Open(ctx context.Context, cfg Config) (*Manager, error) {
	if cfg.Store == nil {
		return nil, errors.New("opening the certificates: no store")
	}
	names, err := normalise(cfg.Names)
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.LeafLife == 0 {
		cfg.LeafLife = leafLife
	}
	by := storage.JobActor(storage.System, storage.ID{}, "certificates")
	a, err := loadAuthority(ctx, cfg.Store, by, cfg.Clock)
	if err != nil {
		return nil, fmt.Errorf("opening the certificate authority: %w", err)
	}
	run, err := storage.NewID(cfg.Clock(), rand.Reader)
	if err != nil {
		return nil, err
	}
	m := &Manager{root: a.pem(), subject: subjectOf(names, a.Cert)}
	life, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.files = newFileStore(life, cfg.Store, by, owner{cfg.Node, run})
	logger := newLogger(cfg.Logger)
	m.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return m.magic, nil },
		RenewCheckInterval: cfg.RenewalCheck,
		Logger:             logger,
	})
	// Each field that certmagic would else take from its global default is set here.
	m.magic = certmagic.New(m.cache, certmagic.Config{
		RenewalWindowRatio:  1.0 / 3,
		OnEvent:             func(context.Context, string, map[string]any) error { return nil },
		ShouldEmitFunc:      func(string) bool { return false },
		DefaultServerName:   m.subject,
		FallbackServerName:  m.subject, // a name that is not the node's gets its certificate, and so a clear error
		Issuers:             []certmagic.Issuer{&issuer{cfg.Store, by, m.subject, names, cfg.LeafLife, cfg.Clock}},
		KeySource:           certmagic.StandardKeyGenerator{KeyType: certmagic.P256},
		OCSP:                certmagic.OCSPConfig{DisableStapling: true},
		Storage:             m.files,
		DisableStorageCheck: true, // it would write and delete a file for each certificate
		DisableARI:          true,
		Logger:              logger,
	})
	if err := m.magic.ManageSync(ctx, []string{m.subject}); err != nil {
		m.Close()
		return nil, fmt.Errorf("getting the node's certificate: %w", err)
	}
	if err := m.tidy(ctx, cfg.Clock()); err != nil {
		cfg.Logger.Warn("old certificates could not be removed", "error", err)
	}
	return m, nil
}

// Close stops the renewal, and waits until nothing of it runs.
func (m *Manager) Close() {
	m.cancel()
	m.cache.Stop()
	m.files.close()
}

// CA returns the cluster's root certificate as PEM, for clients to trust.
func (m *Manager) CA(context.Context) ([]byte, error) { return slices.Clone(m.root), nil }

// TLS returns the configuration for a listener: TLS 1.2 and newer, with forward secrecy and authenticated encryption only.
// Without http2 it offers HTTP/1.1 only, whose answers carry reason phrases.
func (m *Manager) TLS(http2 bool) *tls.Config {
	protocols := []string{"http/1.1"}
	if http2 {
		protocols = []string{"h2", "http/1.1"}
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: protocols,
		// Of TLS 1.2 only what TLS 1.3 would also do; the key is ECDSA.
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		GetCertificate: m.certificate,
	}
}

func (m *Manager) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	// certmagic would answer an ACME challenge, and read the store for it; this CA has none.
	if slices.Contains(hello.SupportedProtos, "acme-tls/1") {
		return nil, errors.New("no ACME challenge is expected")
	}
	return m.magic.GetCertificate(hello)
}

// tidy removes certificates that have expired: those of names that the nodes no longer have.
func (m *Manager) tidy(ctx context.Context, now time.Time) error {
	names, err := m.files.List(ctx, "certificates", true)
	if err != nil {
		return err
	}
	for _, name := range names {
		if path.Ext(name) != ".crt" {
			continue
		}
		text, err := m.files.Load(ctx, name)
		if err != nil {
			return err
		}
		block, _ := pem.Decode(text)
		if block == nil {
			continue
		}
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil || now.Before(leaf.NotAfter) || leaf.Subject.CommonName == m.subject {
			continue
		}
		if err := m.files.Delete(ctx, path.Dir(name)); err != nil {
			return err
		}
	}
	return nil
}

// subjectOf names the certificate for names under the root: another list, or another root, is another certificate.
func subjectOf(names []string, root []byte) string {
	h := sha256.New()
	h.Write(root)
	for _, name := range names {
		h.Write([]byte{0})
		h.Write([]byte(name))
	}
	return "node-" + hex.EncodeToString(h.Sum(nil)[:8]) + ".bulwark.internal"
}

// maxNames bounds the names on one certificate.
const maxNames = 200

// normalise returns names in lower case, sorted, each once.
func normalise(names []string) ([]string, error) {
	out := make([]string, 0, len(names))
	for _, name := range names {
		if a, err := netip.ParseAddr(name); err == nil {
			out = append(out, a.WithZone("").Unmap().String())
			continue
		}
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if !hostName(name) {
			return nil, storage.Errorf(storage.BadInput, "bad_tls_name", "%q is neither a host name nor an address", name)
		}
		out = append(out, name)
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if len(out) == 0 || len(out) > maxNames {
		return nil, storage.Errorf(storage.BadInput, "bad_tls_names", "a certificate is for 1 to %d names, not %d", maxNames, len(out))
	}
	return out, nil
}

// hostName reports whether s is a host name (RFC 1123) in lower case, in which the first label may be *.
func hostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for i, label := range strings.Split(s, ".") {
		if i == 0 && label == "*" && s != "*" {
			continue
		}
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
				return false
			}
		}
	}
	return true
}

// HostNames returns what clients may call this machine: localhost, the loopback addresses, its host name, and the
// addresses of its interfaces. Names that no certificate can hold are left out.
func HostNames() []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil {
		name = strings.ToLower(name)
		short, _, _ := strings.Cut(name, ".")
		for _, n := range []string{name, short} {
			if hostName(n) {
				names = append(names, n)
			}
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return names
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		// A link-local address needs a zone, which no certificate can name.
		if ip := p.Addr(); !ip.IsLoopback() && !ip.IsLinkLocalUnicast() && len(names) < maxNames/2 {
			names = append(names, ip.Unmap().String())
		}
	}
	return names
}
