package cert

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"time"

	"bulwark/storage"
)

// nodeLife is how long a node's certificate is good for.
const nodeLife = 90 * 24 * time.Hour

// backdated is how far a node's certificate reaches back, so that nodes whose clocks are days behind still know each other.
const backdated = 7 * 24 * time.Hour

// NodeRequest asks for the certificate by which other nodes know one.
type NodeRequest struct {
	CSR  []byte     // DER; only its public key counts
	Name *url.URL   // the node's role and identity
	Node storage.ID // for the audit log
}

// SignNode signs a node's certificate with the cluster's CA, and returns it and the root certificate as PEM. That it did is
// in the audit log before it returns.
func SignNode(ctx context.Context, store storage.Store, r NodeRequest, now time.Time) ([]byte, error) {
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, errors.New("the node's certificate request is damaged")
	}
	by := storage.JobActor(storage.System, storage.ID{}, "certificates")
	a, err := readAuthority(ctx, store, by)
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
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Bulwark"}, CommonName: "Bulwark node " + r.Node.String()},
		URIs:                  []*url.URL{r.Name},
		NotBefore:             now.Add(-backdated),
		NotAfter:              now.Add(nodeLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, root, csr.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("signing the node's certificate: %w", err)
	}
	to := storage.Intent{Action: "certificate.sign_node", Object: r.Node.String()}
	err = store.Update(ctx, by, to, func(tx storage.Tx) error {
		tx.Note("serial", hex.EncodeToString(serial.Bytes()))
		tx.Note("expires", template.NotAfter.UTC().Format(time.RFC3339))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("recording the node's certificate: %w", err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), a.pem()...), nil
}

// Authority returns the cluster's root certificate (DER).
func Authority(ctx context.Context, store storage.Store) ([]byte, error) {
	a, err := readAuthority(ctx, store, storage.JobActor(storage.System, storage.ID{}, "certificates"))
	return a.Cert, err
}
