//go:build e2e || bench

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// binaryEnv names another program than the one under test: another version of it.
const binaryEnv = "E2E_BULWARK"

// binary is the program under test, built by the Makefile.
func binary(t testing.TB) string {
	t.Helper()
	if other := os.Getenv(binaryEnv); other != "" {
		return other
	}
	path, err := filepath.Abs("../../bin/bulwark")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	return path
}

// A demo is what `bulwark serve --demo --json` prints when it is ready.
type demo struct {
	URL            string `json:"url"`
	PublishableKey string `json:"publishable_key"`
	SecretKey      string `json:"secret_key"`
	CA             string `json:"ca"`
}

// A process is one running node.
type process struct {
	demo
	Data    string
	listen  string
	cluster string // where other nodes reach it
	cmd     *exec.Cmd
	client  *http.Client
	log     *bytes.Buffer
	ended   chan struct{}
}

// free finds a port.
func free(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// again starts a node that was killed or stopped, on the same port: its tokens name its URL.
func (p *process) again(t testing.TB, args ...string) *process {
	t.Helper()
	return serve(t, p.Data, append([]string{"--listen", p.listen}, args...)...)
}

// serve starts a node on a data folder and waits until it is ready.
func serve(t testing.TB, data string, args ...string) *process {
	t.Helper()
	p, err := tryServe(t, data, args...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tryServe(t testing.TB, data string, args ...string) (*process, error) {
	t.Helper()
	p := &process{Data: data, log: &bytes.Buffer{}, ended: make(chan struct{}), cluster: free(t)}
	if i := slices.Index(args, "--cluster-listen"); i >= 0 {
		p.cluster = args[i+1]
	}
	args = append([]string{"serve", "--demo", "--json", "--data", data, "--listen", "localhost:0", "--cluster-listen", p.cluster}, args...)
	p.cmd = exec.Command(binary(t), args...)
	p.cmd.Env = append(os.Environ(), "BULWARK_RATE_LIMIT=0")
	p.cmd.Stderr = p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	t.Cleanup(p.kill)
	line := make(chan string, 1)
	go func() {
		r := bufio.NewReader(out)
		s, _ := r.ReadString('\n')
		line <- s
		_, _ = io.Copy(io.Discard, r)
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	select {
	case s := <-line:
		if err := json.Unmarshal([]byte(s), &p.demo); err != nil {
			p.kill()
			return nil, fmt.Errorf("the node said %q: %w\n%s", s, err, p.log)
		}
	case <-time.After(60 * time.Second):
		p.kill()
		return nil, fmt.Errorf("the node was not ready in a minute\n%s", p.log)
	}
	u, err := url.Parse(p.URL)
	if err != nil {
		return nil, err
	}
	p.listen = u.Host
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(p.CA)) {
		return nil, errors.New("the node printed no root certificate")
	}
	p.client = &http.Client{
		Timeout: 60 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: pool}, MaxIdleConnsPerHost: 256, MaxConnsPerHost: 256,
		},
	}
	return p, nil
}

// kill ends the node as a power cut would end its process.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
	if p.client != nil {
		p.client.CloseIdleConnections()
	}
}

// stop ends the node as an operator would.
func (p *process) stop(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		t.Fatalf("the node did not stop in half a minute\n%s", p.log)
	}
	p.client.CloseIdleConnections()
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the node stopped with exit code %d\n%s", code, p.log)
	}
}

// do sends a request with the publishable key, and the token of a person if there is one.
func (p *process) do(ctx context.Context, method, path, token string, body any, header ...string) (int, []byte, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, p.URL+path, r)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("apikey", p.PublishableKey)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, b, err
}

// A session is what auth answers to a sign-up or sign-in.
type session struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	User         struct {
		ID string `json:"id"`
	} `json:"user"`
}

const password = "correct horse battery staple"

func (p *process) signUp(t testing.TB, email string) session {
	t.Helper()
	status, b, err := p.do(t.Context(), "POST", "/auth/v1/signup", "", map[string]string{"email": email, "password": password})
	if err != nil || status != http.StatusOK {
		t.Fatalf("signing up: %d %s %v", status, b, err)
	}
	var s session
	if err := json.Unmarshal(b, &s); err != nil || s.AccessToken == "" {
		t.Fatalf("signing up: %s %v", b, err)
	}
	return s
}

// run runs the command and returns its output and exit code.
func run(t testing.TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(binary(t), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// exported is the audit log of the demo tenant, as an auditor gets it, checked by `bulwark audit verify`.
func exported(t testing.TB, p *process) []map[string]any {
	t.Helper()
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	out, errs, code := run(t, "audit", "export", "--data", p.Data, "--tenant", "demo", "-o", file)
	if code != 0 {
		t.Fatalf("audit export: exit code %d\n%s%s", code, out, errs)
	}
	if out, errs, code := run(t, "audit", "verify", file); code != 0 {
		t.Fatalf("audit verify: exit code %d\n%s%s", code, out, errs)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var events []map[string]any
	for line := range strings.Lines(string(b)) {
		var l struct {
			Event map[string]any `json:"event"`
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		if l.Event != nil {
			events = append(events, l.Event)
		}
	}
	return events
}
