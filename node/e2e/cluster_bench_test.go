//go:build bench

package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// attempt bounds one try of a write while there may be no leader: what was sent to the dead one may never be answered. Both
// clusters' clients try again as often.
const attempt = 250 * time.Millisecond

// deaths is how many leaders are killed for the median of the time until writes succeed again.
const deaths = 9

// TestBenchCluster measures three nodes on this machine beside three nodes of etcd, and a snapshot of a large database.
func TestBenchCluster(t *testing.T) {
	dir, err := os.MkdirTemp(".", ".bench-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if dir, err = filepath.Abs(dir); err != nil {
		t.Fatal(err)
	}
	table = nil
	nodes := threeNodes(t, dir)
	leader := leading(t, nodes)
	who := nodes[0].signUp(t, "bench@example.com")
	header := http.Header{
		"Apikey": {nodes[0].PublishableKey}, "Authorization": {"Bearer " + who.AccessToken}, "Content-Type": {"application/json"},
	}
	offset := 0
	insert := func(p *process, clients int) figure {
		f := load(t, p.cmd.Process.Pid, clients, span(t), func(n int) error {
			return raw(p.client, "POST", p.URL+"/rest/v1/notes", header, noteBody(offset+n), http.StatusCreated)
		})
		offset += f.Requests + clients
		return f
	}
	followers := slices.DeleteFunc(slices.Clone(nodes), func(p *process) bool { return p == leader })
	atLeader, atFollower := insert(leader, 64), insert(followers[0], 64)
	peers := threeEtcd(t, dir)
	theirs := peers.load(t, 64)
	row(t, "three nodes: insert 1 KiB, 64 clients, at the leader", fmt.Sprintf("%s; %.2f of three-node etcd's requests/s", atLeader, atLeader.Rate/theirs.Rate), "≥ 0.5 of etcd")
	row(t, "the same, at a follower", fmt.Sprintf("%s; %.2f of three-node etcd's", atFollower, atFollower.Rate/theirs.Rate), "")
	row(t, "three-node etcd put 1 KiB, 64 clients, at the leader", theirs.String(), "")

	first := noteID(1)
	read := func(p *process) float64 {
		return load(t, p.cmd.Process.Pid, 16, span(t)/2, func(n int) error {
			return raw(p.client, "GET", p.URL+"/rest/v1/notes?select=*&id=eq."+first, header, nil, http.StatusOK)
		}).Rate
	}
	var fromLeader, fromFollower []float64
	for range 3 { // in turn, because the machine's speed moves
		fromLeader, fromFollower = append(fromLeader, read(leader)), append(fromFollower, read(followers[0]))
	}
	l, f := middle(fromLeader), middle(fromFollower)
	row(t, "three nodes: get by id, 16 clients, follower beside leader", fmt.Sprintf("%.0f and %.0f requests/s: %.0f %%", f, l, 100*f/l), "≥ 70 %")

	var ours, etcds []time.Duration
	for n := range deaths {
		took := killLeader(t, nodes, header, offset+1_000_000+100_000*n)
		ours = append(ours, took)
		etcds = append(etcds, peers.killLeader(t))
	}
	t.Logf("writes again after: ours %v, etcd %v", ours, etcds)
	row(t, "three nodes: writes again after kill -9 of the leader", fmt.Sprintf("%.2f s median, %.2f s at most; etcd %.2f s median, %.2f s at most (%d each)",
		middle(ours).Seconds(), slices.Max(ours).Seconds(), middle(etcds).Seconds(), slices.Max(etcds).Seconds(), deaths), "≤ etcd")
	for _, p := range nodes {
		p.stop(t)
	}
	peers.stop()
	benchSnapshot(t, dir)
	fmt.Println("| what | measured | goal |\n|---|---|---|")
	for _, line := range table {
		fmt.Println(line)
	}
}

func middle[T int64 | float64 | time.Duration](all []T) T {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// killLeader kills the leader under writes to the others, and returns how long none was acknowledged. Then the node is
// started again.
func killLeader(t *testing.T, nodes []*process, header http.Header, from int) time.Duration {
	t.Helper()
	leader := leading(t, nodes)
	at := slices.Index(nodes, leader)
	var survivors []func(n int) error
	for _, p := range nodes {
		if p != leader {
			quick := &http.Client{Transport: p.client.Transport, Timeout: attempt}
			survivors = append(survivors, func(n int) error {
				return raw(quick, "POST", p.URL+"/rest/v1/notes", header, noteBody(n), http.StatusCreated)
			})
		}
	}
	took := gap(t, from, func() { leader.kill() }, survivors)
	again := leader.back(t)
	nodes[at] = again
	until(t, "the node to be back", func() bool { return status(t, again).Ready })
	return took
}

// gap kills, and returns the time until the first write that was begun afterwards is acknowledged by any of the writers.
func gap(t *testing.T, from int, kill func(), writers []func(n int) error) time.Duration {
	t.Helper()
	for i, w := range writers { // connections are open, sessions known
		if err := w(from + i); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	kill()
	done := make(chan time.Duration, len(writers))
	for i, w := range writers {
		go func() {
			for n := from + 100 + 1000*i; time.Since(start) < 30*time.Second; n++ {
				if w(n) == nil {
					break
				}
			}
			done <- time.Since(start)
		}()
	}
	return <-done
}

// etcdCluster is three nodes of etcd.
type etcdCluster struct {
	args  [3][]string
	nodes [3]*exec.Cmd
	urls  [3]string
}

func threeEtcd(t *testing.T, dir string) *etcdCluster {
	t.Helper()
	program := os.Getenv("ETCD")
	if program == "" {
		t.Fatal("ETCD and ETCDLOAD are not set: run make bench")
	}
	c := &etcdCluster{}
	var peers [3]string
	var initial []string
	for i := range c.urls {
		c.urls[i], peers[i] = "http://"+free(t), "http://"+free(t)
		initial = append(initial, fmt.Sprintf("n%d=%s", i, peers[i]))
	}
	for i := range c.urls {
		c.args[i] = []string{program, "--name", fmt.Sprint("n", i), "--data-dir", filepath.Join(dir, fmt.Sprint("etcd3-", i)),
			"--listen-client-urls", c.urls[i], "--advertise-client-urls", c.urls[i], "--listen-peer-urls", peers[i],
			"--initial-advertise-peer-urls", peers[i], "--initial-cluster", strings.Join(initial, ","), "--log-level", "error"}
		c.start(t, i)
	}
	t.Cleanup(c.stop)
	until(t, "etcd", func() bool { return c.put(0, 1) == nil })
	return c
}

func (c *etcdCluster) start(t *testing.T, i int) {
	t.Helper()
	c.nodes[i] = exec.Command(c.args[i][0], c.args[i][1:]...)
	if err := c.nodes[i].Start(); err != nil {
		t.Fatal(err)
	}
}

func (c *etcdCluster) stop() {
	for i, cmd := range c.nodes {
		if cmd != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			c.nodes[i] = nil
		}
	}
}

// post calls etcd's JSON gateway.
func (c *etcdCluster) post(i int, path string, body, into any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), attempt)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", c.urls[i]+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if b, err = io.ReadAll(resp.Body); err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	if err == nil && into != nil {
		err = json.Unmarshal(b, into)
	}
	return err
}

func (c *etcdCluster) put(i, n int) error {
	return c.post(i, "/v3/kv/put", map[string]string{
		"key":   base64.StdEncoding.EncodeToString([]byte(noteID(n))),
		"value": base64.StdEncoding.EncodeToString([]byte(text1k(n))),
	}, nil)
}

func (c *etcdCluster) leader(t *testing.T) (leader int) {
	t.Helper()
	leader = -1
	until(t, "etcd's leader", func() bool {
		for i := range c.urls {
			var s struct {
				Header struct {
					Member string `json:"member_id"`
				} `json:"header"`
				Leader string `json:"leader"`
			}
			if c.post(i, "/v3/maintenance/status", struct{}{}, &s) == nil && s.Leader != "" && s.Leader == s.Header.Member {
				leader = i
			}
		}
		return leader >= 0
	})
	return leader
}

func (c *etcdCluster) load(t *testing.T, clients int) figure {
	t.Helper()
	leader := c.leader(t)
	pid := c.nodes[leader].Process.Pid
	before, start := cpu(t, pid), time.Now()
	out, err := exec.Command(os.Getenv("ETCDLOAD"), "-endpoint", c.urls[leader], "-clients", fmt.Sprint(clients), "-duration", span(t).String()).Output()
	if err != nil {
		t.Fatalf("loading etcd: %v", err)
	}
	return loaded(t, out, time.Since(start), cpu(t, pid)-before)
}

func (c *etcdCluster) killLeader(t *testing.T) time.Duration {
	t.Helper()
	leader := c.leader(t)
	var survivors []func(n int) error
	for i := range c.urls {
		if i != leader {
			survivors = append(survivors, func(n int) error { return c.put(i, n) })
		}
	}
	took := gap(t, 1, func() {
		_ = c.nodes[leader].Process.Kill()
		_ = c.nodes[leader].Wait()
	}, survivors)
	c.start(t, leader)
	until(t, "etcd's node to be back", func() bool { return c.put(leader, 2) == nil })
	return took
}

// benchSnapshot saves a database of a gigabyte while somebody writes, beside cp of the same file.
func benchSnapshot(t *testing.T, dir string) {
	t.Helper()
	size := int64(1 << 30)
	p := serve(t, filepath.Join(dir, "large"))
	who := p.signUp(t, "bench@example.com")
	database := filepath.Join(p.Data, "state.db")
	n := 0
	for {
		if info, err := os.Stat(database); err == nil && info.Size() >= size {
			break
		}
		rows := make([]json.RawMessage, 500)
		for i := range rows {
			rows[i] = noteBody(n + i)
		}
		n += len(rows)
		status, b, err := p.do(t.Context(), "POST", "/rest/v1/notes", who.AccessToken, rows)
		if err != nil || status != http.StatusCreated {
			t.Fatalf("filling: %d %v %s", status, err, b)
		}
	}
	var copies []time.Duration
	for range 3 {
		copies = append(copies, timed(t, func() error {
			to := filepath.Join(dir, "copy.db")
			defer os.Remove(to)
			if out, err := exec.Command("cp", database, to).CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return exec.Command("sync", to).Run()
		}))
	}
	header := http.Header{
		"Apikey": {p.PublishableKey}, "Authorization": {"Bearer " + who.AccessToken}, "Content-Type": {"application/json"},
	}
	write := func(stop <-chan struct{}) (took []time.Duration) {
		for {
			select {
			case <-stop:
				return took
			default:
			}
			n++
			took = append(took, timed(t, func() error {
				return raw(p.client, "POST", p.URL+"/rest/v1/notes", header, noteBody(n), http.StatusCreated)
			}))
		}
	}
	during := func(what func()) []time.Duration {
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			what()
		}()
		return write(stop)
	}
	quiet := during(func() { time.Sleep(span(t)) })
	save := func(args ...string) (took time.Duration, writes []time.Duration) {
		file := filepath.Join(dir, "saved.snapshot")
		defer os.Remove(file)
		writes = during(func() {
			start := time.Now()
			if out, errs, code := run(t, append([]string{"snapshot", "save", file, "--data", p.Data}, args...)...); code != 0 {
				t.Errorf("snapshot save: exit code %d\n%s%s", code, out, errs)
			}
			took = time.Since(start)
		})
		return took, writes
	}
	plain, busy := save("--no-certify")
	certified, _ := save()
	cp := middle(copies)
	row(t, "snapshot save of 1 GiB, beside cp and sync of the file", fmt.Sprintf("%.1f s, and %.1f s certified; cp %.1f s: %.1f and %.1f times", plain.Seconds(),
		certified.Seconds(), cp.Seconds(), plain.Seconds()/cp.Seconds(), certified.Seconds()/cp.Seconds()), "≤ 3 times")
	row(t, "insert 1 KiB, 1 client, while a snapshot is saved", fmt.Sprintf("%.2f ms median; %.2f ms without: %.1f times", ms(middle(busy)), ms(middle(quiet)),
		float64(middle(busy))/float64(middle(quiet))), "≤ 2 times")
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-p.ended
}

func timed(t *testing.T, fn func() error) time.Duration {
	t.Helper()
	start := time.Now()
	if err := fn(); err != nil {
		t.Error(err)
	}
	return time.Since(start)
}
