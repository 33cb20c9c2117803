// Package client calls the management API of a node through the very Route values that the server is made from.
//
// Promise: a call returns what the handler returned, or the *storage.Error that it returned, with the same kind and code;
// a node that cannot be reached is an Unreachable error, which says what to do. The token is sent to the configured node
// only, and over TLS only.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"bulwark/storage"
	"bulwark/web/api"
)

// Options says which node to call: Socket, or URL with Token.
type Options struct {
	Socket string // the path of the node's unix socket
	Data   string // the node's data folder, for messages; "" is the socket's folder
	URL    string // "https://host:port"
	Token  string // an operator token
	CA     []byte // PEM of the cluster's root certificate; nil is the system's trust
}

// A Client calls one node. It is safe for concurrent use.
type Client struct {
	base  string
	token string
	opts  Options
	http  *http.Client
}

// maxReply bounds a reply that is read as a whole.
const maxReply = 64 << 20

// An Unreachable error says that no node answered. Its text says what to do.
type Unreachable struct {
	Message string
	Cause   error
}

func (e *Unreachable) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Unreachable) Unwrap() error { return e.Cause }

// New returns a client. It does not connect.
func New(o Options) (*Client, error) {
	c := &Client{opts: o, token: o.Token}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	tr := &http.Transport{ResponseHeaderTimeout: time.Minute, IdleConnTimeout: time.Minute, DisableCompression: true}
	c.http = &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	switch {
	case o.Socket != "" && o.URL != "":
		return nil, storage.Errorf(storage.BadInput, "usage", "give a data folder or a URL, not both")
	case o.Socket != "":
		c.base = "http://bulwark"
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", o.Socket)
		}
		return c, nil
	case o.URL == "":
		return nil, storage.Errorf(storage.BadInput, "usage", "which node? give a data folder or a URL")
	}
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, storage.Errorf(storage.BadInput, "bad_url", "the URL must have the form https://host:port")
	}
	c.base = "https://" + u.Host + strings.TrimSuffix(u.EscapedPath(), "/")
	tr.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	tr.Proxy = http.ProxyFromEnvironment
	tr.DialContext = dialer.DialContext
	if o.CA != nil {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(o.CA) {
			return nil, storage.Errorf(storage.BadInput, "bad_ca", "the CA file holds no certificate: make it with bulwark ca")
		}
		tr.TLSClientConfig.RootCAs = pool
	}
	return c, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Call calls a route and returns its reply.
func Call[Req, Resp any](ctx context.Context, c *Client, rt api.Route[Req, Resp], req Req) (Resp, error) {
	var out Resp
	resp, err := send(ctx, c, rt, req)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return out, nil
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != "application/json" {
		return out, notBulwark()
	}
	if err := json.UnmarshalRead(io.LimitReader(resp.Body, maxReply), &out); err != nil {
		return out, fmt.Errorf("reading the reply: %w", err)
	}
	return out, nil
}

// Stream calls a route whose reply is a stream, and copies it to w. An error means that w holds a part only.
func Stream[Req any](ctx context.Context, c *Client, rt api.Route[Req, api.Empty], req Req, w io.Writer) error {
	resp, err := send(ctx, c, rt, req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("reading the reply (what was written is a part only): %w", err)
	}
	return nil
}

func send[Req, Resp any](ctx context.Context, c *Client, rt api.Route[Req, Resp], req Req) (*http.Response, error) {
	r, err := api.NewRequest(ctx, c.base, rt, req)
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		defer resp.Body.Close()
		return nil, api.ReadError(resp)
	}
	return resp, nil
}

func notBulwark() error {
	return storage.Errorf(storage.Internal, "not_bulwark", "what answered is not a Bulwark node: check the address")
}

// explain says what a failed connection means to somebody at a terminal.
func (c *Client) explain(err error) error {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case c.opts.Socket != "":
		return c.explainSocket(err)
	case errors.As(err, &unknown):
		return &Unreachable{"the certificate of " + c.base + " is not signed by an authority that is trusted here: " +
			"give the cluster's root with --ca FILE (bulwark ca prints it)", err}
	case errors.As(err, &host):
		return &Unreachable{"the certificate of " + c.base + " is for another name: use one of the node's own names", err}
	case errors.Is(err, context.DeadlineExceeded):
		return &Unreachable{"the node at " + c.base + " did not answer in time", err}
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return &Unreachable{fmt.Sprintf("no node answers at %s (%v): check the address, and that it is running", c.base, op.Err), err}
	}
	return &Unreachable{fmt.Sprintf("no node answers at %s: check the address, and that it is running", c.base), err}
}

func (c *Client) explainSocket(err error) error {
	data := c.opts.Data
	if data == "" {
		data = filepath.Dir(c.opts.Socket)
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return &Unreachable{"the node on " + data + " does not let this user in: use the account that runs it", err}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return &Unreachable{"no node is running on " + data + ": start it with bulwark serve --data " + data, err}
	case errors.Is(err, context.DeadlineExceeded):
		return &Unreachable{"the node on " + data + " did not answer in time", err}
	}
	return &Unreachable{"no node answers on " + data + ": start it with bulwark serve --data " + data, err}
}
