package cert

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/caddyserver/certmagic"

	"bulwark/storage"
)

// An authority is the cluster's CA: one sealed record of the system tenant.
type authority struct {
	Name string `cbor:"n"` // always rootName; its unique key makes the record the only one
	Cert []byte `cbor:"c"` // DER
	Key  []byte `cbor:"k"` // PKCS #8, DER
}

const rootName = "root"

var authorities = storage.NewTable("ca", storage.TenantScope, storage.Unique("name", func(a *authority) []byte { return []byte(a.Name) }))

// Lifetimes. The root outlives what people plan for. A leaf is short-lived, since nothing revokes it.
const (
	rootLife = 10 * 365 * 24 * time.Hour
	leafLife = 30 * 24 * time.Hour
)

// loadAuthority returns the cluster's CA, and makes it where there is none. Of nodes that make one at the same time, one
// wins, and all return that one.
func loadAuthority(ctx context.Context, store storage.Store, by storage.Actor, now func() time.Time) (authority, error) {
	a, err := readAuthority(ctx, store, by)
	if !storage.IsNotFound(err) {
		return a, err
	}
	fresh, err := newAuthority(now())
	if err != nil {
		return authority{}, err
	}
	err = store.Update(ctx, by, storage.Intent{Action: "certificate.create_ca", Object: rootName}, func(tx storage.Tx) error {
		_, there, err := authorities.ByUnique(tx, "name", []byte(rootName))
		if err == nil {
			a = there
			return nil
		}
		if !storage.IsNotFound(err) {
			return err
		}
		a = fresh
		fingerprint := sha256.Sum256(fresh.Cert)
		tx.Note("sha256", hex.EncodeToString(fingerprint[:]))
		return authorities.Put(tx, tx.NewID(), fresh)
	})
	if err != nil {
		return authority{}, fmt.Errorf("storing the cluster's certificate authority: %w", err)
	}
	return a, nil
}

func readAuthority(ctx context.Context, store storage.Store, by storage.Actor) (a authority, err error) {
	err = store.View(ctx, by, storage.Intent{Action: "certificate.read", Object: rootName}, func(r storage.Reader) error {
		_, a, err = authorities.ByUnique(r, "name", []byte(rootName))
		return err
	})
	return a, err
}

func newAuthority(now time.Time) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, fmt.Errorf("making the root's key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return authority{}, fmt.Errorf("encoding the root's key: %w", err)
	}
	// The name tells two clusters' roots apart in a list of trusted roots.
	id := sha256.Sum256(public)
	serial, err := newSerial()
	if err != nil {
		return authority{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Bulwark"}, CommonName: "Bulwark CA " + hex.EncodeToString(id[:4])},
		NotBefore:             now.Add(-time.Hour), // clients' clocks differ
		NotAfter:              now.Add(rootLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SubjectKeyId:          id[:20],
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return authority{}, fmt.Errorf("signing the root certificate: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return authority{}, fmt.Errorf("encoding the root's key: %w", err)
	}
	return authority{Name: rootName, Cert: der, Key: pkcs8}, nil
}

// newSerial draws 127 bits (RFC 5280, section 4.1.2.2: positive, at most 20 bytes).
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("drawing a serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

func (a authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Cert})
}

// open returns the root certificate and its key.
func (a authority) open() (root *x509.Certificate, key any, err error) {
	if root, err = x509.ParseCertificate(a.Cert); err != nil {
		return nil, nil, fmt.Errorf("parsing the root certificate: %w", err)
	}
	if key, err = x509.ParsePKCS8PrivateKey(a.Key); err != nil {
		return nil, nil, errors.New("the root's key is damaged")
	}
	return root, key, nil
}

// An issuer signs the certificate of one managed subject with the cluster's CA. It is certmagic's Issuer. The CA's key is
// read when it is needed and not kept.
type issuer struct {
	store   storage.Store
	by      storage.Actor
	subject string   // what certmagic manages: the common name
	names   []string // what the certificate is for
	life    time.Duration
	now     func() time.Time
}

// IssuerKey implements certmagic.Issuer.
func (i *issuer) IssuerKey() string { return "bulwark" }

// Issue implements certmagic.Issuer. The names are the node's own: those of the request are only compared.
func (i *issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("checking the certificate request: %w", err)
	}
	if len(csr.DNSNames) != 1 || csr.DNSNames[0] != i.subject || len(csr.IPAddresses)+len(csr.EmailAddresses)+len(csr.URIs) > 0 {
		return nil, errors.New("the certificate request is not for this node's subject")
	}
	a, err := readAuthority(ctx, i.store, i.by)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate authority: %w", err)
	}
	root, key, err := a.open()
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := i.now()
	template := &x509.Certificate{
		SerialNumber: serial,
		// certmagic finds a certificate again by its first name, which is this one.
		Subject:               pkix.Name{Organization: []string{"Bulwark"}, CommonName: i.subject},
		NotBefore:             now.Add(-min(5*time.Minute, i.life/10)), // clients' clocks differ
		NotAfter:              now.Add(i.life),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, name := range i.names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, root, csr.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate: %w", err)
	}
	// The root goes along: a client that pins it by its fingerprint must see it.
	chain := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), a.pem()...)
	return &certmagic.IssuedCertificate{Certificate: chain}, nil
}
