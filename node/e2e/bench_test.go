//go:build bench

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The bench measures the built binary as a process of its own: server CPU for each request, and ratios to what was measured
// beside it in the same run. It prints the README's table. Nothing in it fails for being slow.

// span is how long one measurement lasts; BENCHTIME says it.
func span(t testing.TB) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(os.Getenv("BENCHTIME"))
	if err != nil {
		return 10 * time.Second
	}
	return d
}

// cpu is the time that a process has computed.
func cpu(t testing.TB, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * (time.Second / 100)
}

func rss(t testing.TB, pid int) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	return kb / 1024
}

// A figure is what one load measured.
type figure struct {
	Requests int
	CPU      time.Duration // of the server, for each request
	Rate     float64       // requests a second
	P50, P99 time.Duration
}

func (f figure) String() string {
	return fmt.Sprintf("%d µs CPU, %.0f requests/s, p50 %.2f ms, p99 %.2f ms", f.CPU.Microseconds(), f.Rate,
		float64(f.P50.Microseconds())/1000, float64(f.P99.Microseconds())/1000)
}

// load runs request from a number of clients for a while, and measures the process that serves them.
func load(t testing.TB, pid, clients int, d time.Duration, request func(n int) error) figure {
	t.Helper()
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	var next atomic.Int64
	before, start := cpu(t, pid), time.Now()
	for range clients {
		wg.Go(func() {
			var mine []time.Duration
			for time.Since(start) < d {
				at := time.Now()
				if err := request(int(next.Add(1))); err != nil {
					t.Error(err)
					return
				}
				mine = append(mine, time.Since(at))
			}
			mu.Lock()
			took = append(took, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	elapsed, used := time.Since(start), cpu(t, pid)-before
	slices.Sort(took)
	if len(took) == 0 {
		t.Fatal("no request was answered")
	}
	return figure{
		Requests: len(took), CPU: used / time.Duration(len(took)), Rate: float64(len(took)) / elapsed.Seconds(),
		P50: took[len(took)/2], P99: took[len(took)*99/100],
	}
}

var table []string

func row(t testing.TB, what, figure, goal string) {
	t.Helper()
	line := fmt.Sprintf("| %s | %s | %s |", what, figure, goal)
	t.Log(line)
	table = append(table, line)
}

// raw sends one prepared request on a client and discards the answer: the client's own cost is small and the same for all.
func raw(c *http.Client, method, url string, header http.Header, body []byte, want int) error {
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequest(method, url, r)
	if err != nil {
		return err
	}
	req.Header = header
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != want {
		err = fmt.Errorf("%s %s: %s %s", method, url, resp.Status, b)
	}
	return err
}

func noteBody(n int) []byte {
	// A row of 1 KiB as JSON: an id, an owner, a time and text.
	return fmt.Appendf(nil, `{"id":"%s","body":"%s"}`, noteID(n), text1k(n))
}

func text1k(n int) string {
	b := make([]byte, 860)
	x := uint32(n)*2654435761 + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[x>>16%36]
	}
	return string(b)
}

func TestBench(t *testing.T) {
	// On the disk of the checkout, not on a tmpfs.
	dir, err := os.MkdirTemp(".", ".bench-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if dir, err = filepath.Abs(dir); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s, %d cores, %s", runtime.Version(), runtime.NumCPU(), span(t))
	sync1 := syncTime(t, dir)
	p := serve(t, filepath.Join(dir, "data"))
	time.Sleep(5 * time.Second) // what idle means: everything that starts has started
	row(t, "idle, one tenant: resident", fmt.Sprintf("%.0f MiB", rss(t, p.cmd.Process.Pid)), "< 60 MiB")
	who := p.signUp(t, "bench@example.com")
	header := http.Header{
		"Apikey": {p.PublishableKey}, "Authorization": {"Bearer " + who.AccessToken}, "Content-Type": {"application/json"},
	}
	base := size(t, p.Data)
	offset := 0
	insert := func(clients int) figure {
		f := load(t, p.cmd.Process.Pid, clients, span(t), func(n int) error {
			return raw(p.client, "POST", p.URL+"/rest/v1/notes", header, noteBody(offset+n), http.StatusCreated)
		})
		offset += f.Requests + clients
		return f
	}
	one := insert(1)
	row(t, "insert 1 KiB, 1 client: median", fmt.Sprintf("%.2f ms; one fdatasync here %.2f ms", ms(one.P50), ms(sync1)), "≤ fdatasync + 1 ms")
	sixteen := insert(16)
	row(t, "insert 1 KiB, 16 clients", sixteen.String(), "≤ 300 µs CPU")
	sixtyfour := insert(64)
	inserted := one.Requests + sixteen.Requests + sixtyfour.Requests
	etcd16, etcd64 := etcd(t, dir, 16), etcd(t, dir, 64)
	row(t, "etcd put 1 KiB, 16 clients", etcd16.String(), "")
	row(t, "etcd put 1 KiB, 64 clients", etcd64.String(), "")
	row(t, "insert 1 KiB, 64 clients", fmt.Sprintf("%s; %.2f of etcd's requests/s", sixtyfour, sixtyfour.Rate/etcd64.Rate), "≥ 0.5 of etcd")

	first := noteID(1)
	get := load(t, p.cmd.Process.Pid, 16, span(t), func(n int) error {
		return raw(p.client, "GET", p.URL+"/rest/v1/notes?select=*&id=eq."+first, header, nil, http.StatusOK)
	})
	status, answer, err := p.do(t.Context(), "GET", "/rest/v1/notes?select=*&id=eq."+first, who.AccessToken, nil)
	if err != nil || status != 200 || len(answer) < 900 {
		t.Fatalf("getting a row: %d %v %s", status, err, answer)
	}
	bare := bareHandler(t, answer)
	row(t, "get by id, 16 clients", get.String(), "≤ 130 µs CPU")
	row(t, "bare net/http handler, the same bytes over TLS", fmt.Sprintf("%s; we take %.1f times its CPU", bare, float64(get.CPU)/float64(bare.CPU)), "≤ 4 times")

	// Everything that is derived is derived: the index has every event.
	if out, errs, code := run(t, "audit", "search", "--data", p.Data, "--tenant", "demo", "--limit", "1"); code != 0 {
		t.Fatalf("%s%s", out, errs)
	}
	p.stop(t)
	used := size(t, p.Data) - base
	row(t, "on disk for each row, index and audit event included", fmt.Sprintf("%d bytes (%d rows)", used/int64(inserted), inserted), "< 2,048")
	fill(t, dir)
	fmt.Println("| what | measured | goal |\n|---|---|---|")
	for _, line := range table {
		fmt.Println(line)
	}
}

// fill makes a database of 100,000 rows and measures a start on it.
func fill(t *testing.T, dir string) {
	t.Helper()
	p := serve(t, filepath.Join(dir, "full"))
	who := p.signUp(t, "bench@example.com")
	for n := 0; n < 100_000; n += 500 {
		rows := make([]json.RawMessage, 500)
		for i := range rows {
			rows[i] = noteBody(n + i)
		}
		status, b, err := p.do(t.Context(), "POST", "/rest/v1/notes", who.AccessToken, rows)
		if err != nil || status != http.StatusCreated {
			t.Fatalf("filling: %d %v %s", status, err, b)
		}
	}
	p.stop(t)
	var took []time.Duration
	for range 5 {
		start := time.Now()
		p = p.again(t)
		took = append(took, time.Since(start))
		p.stop(t)
	}
	slices.Sort(took)
	row(t, "start to ready on 100,000 rows", fmt.Sprintf("%.2f s (median of 5)", took[2].Seconds()), "≤ 0.5 s")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// syncTime is the median of a write of 4 KiB and an fdatasync, into a preallocated file.
func syncTime(t *testing.T, dir string) time.Duration {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := bytes.Repeat([]byte{1}, 4096)
	const blocks = 500
	for range blocks {
		if _, err := f.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	var took []time.Duration
	for i := range int64(blocks) {
		start := time.Now()
		if _, err := f.WriteAt(block, i*4096); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// size adds up what the files of a folder take on the disk. The log's segments are taken from the disk at once and given
// back in a ring, so they are left out of what a row costs.
func size(t *testing.T, folder string) (total int64) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(path, filepath.Join(folder, "log")) {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			total += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return total
}

// etcd measures a peer on the same disk. ETCD and ETCDLOAD name its programs, which .ci/bench builds.
func etcd(t *testing.T, dir string, clients int) figure {
	t.Helper()
	program, loader := os.Getenv("ETCD"), os.Getenv("ETCDLOAD")
	if program == "" || loader == "" {
		t.Fatal("ETCD and ETCDLOAD are not set: run make bench")
	}
	client, peer := "http://"+free(t), "http://"+free(t)
	cmd := exec.Command(program, "--data-dir", filepath.Join(dir, fmt.Sprint("etcd", clients)), "--listen-client-urls", client,
		"--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", "default="+peer, "--log-level", "error")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		resp, err := http.Get(client + "/health")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
	}
	before, start := cpu(t, cmd.Process.Pid), time.Now()
	out, err := exec.Command(loader, "-endpoint", client, "-clients", fmt.Sprint(clients), "-duration", span(t).String()).Output()
	if err != nil {
		t.Fatalf("loading etcd: %v", err)
	}
	return loaded(t, out, time.Since(start), cpu(t, cmd.Process.Pid)-before)
}

// loaded is what etcdload measured, with the server's CPU.
func loaded(t *testing.T, out []byte, elapsed, used time.Duration) figure {
	t.Helper()
	var r struct {
		Requests int
		P50us    int64 `json:"p50_us"`
		P99us    int64 `json:"p99_us"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	return figure{Requests: r.Requests, CPU: used / time.Duration(r.Requests), Rate: float64(r.Requests) / elapsed.Seconds(),
		P50: time.Duration(r.P50us) * time.Microsecond, P99: time.Duration(r.P99us) * time.Microsecond}
}

// bareEnv makes this program serve the bytes of a file, and nothing else.
const bareEnv = "BULWARK_BENCH_BARE"

// bareHandler measures a handler that does nothing, in a process of its own.
func bareHandler(t *testing.T, answer []byte) figure {
	t.Helper()
	file := filepath.Join(t.TempDir(), "answer")
	if err := os.WriteFile(file, answer, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestBare$")
	cmd.Env = append(os.Environ(), bareEnv+"="+file)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	var url string
	if _, err := fmt.Fscan(out, &url); err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 256, // the bare server's certificate is nobody's
	}}
	defer c.CloseIdleConnections()
	return load(t, cmd.Process.Pid, 16, span(t), func(int) error {
		return raw(c, "GET", url, http.Header{}, nil, http.StatusOK)
	})
}

// TestBare is the bare server, when it is started as one.
func TestBare(t *testing.T) {
	file := os.Getenv(bareEnv)
	if file == "" {
		t.Skip("this is a server that TestBench starts")
	}
	answer, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = w.Write(answer)
	}))
	s.EnableHTTP2 = false
	s.StartTLS()
	fmt.Println(s.URL)
	select {}
}

// profile asks the node for a CPU profile of itself, through its console.
func profile(t testing.TB, p *process, file string, d time.Duration) {
	socket := filepath.Join(p.Data, "bulwark.sock")
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", socket)
	}}}
	defer c.CloseIdleConnections()
	resp, err := c.Get(fmt.Sprintf("http://console/api/v1/operator/profile/cpu?seconds=%d", int(d.Seconds())))
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("the profile: %s %v %.200s", resp.Status, err, b)
	}
}
