//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A writer inserts rows through all nodes of a cluster, and remembers which were acknowledged.
type writer struct {
	token string
	stop  chan struct{}
	done  sync.WaitGroup

	mu    sync.Mutex
	nodes []*process
	acked map[string]bool
	// gave is what failed and was not to be tried again; again is what was.
	gave  []string
	again int
	gap   time.Duration // the longest time without an acknowledgement
	last  time.Time
	next  atomic.Int64
}

func startWriting(nodes []*process, token string, clients int) *writer {
	w := &writer{token: token, stop: make(chan struct{}), nodes: slices.Clone(nodes), acked: map[string]bool{}, last: time.Now()}
	for c := range clients {
		w.done.Go(func() {
			for n := c; ; n++ {
				select {
				case <-w.stop:
					return
				default:
				}
				w.write(noteID(int(w.next.Add(1))), n)
			}
		})
	}
	return w
}

// write inserts one row, as a client does that tries again at another node: until it is acknowledged, or is there already.
func (w *writer) write(id string, at int) {
	for end := time.Now().Add(60 * time.Second); ; at++ {
		w.mu.Lock()
		p := w.nodes[at%len(w.nodes)]
		w.mu.Unlock()
		status, b, err := p.insertRow(w.token, id)
		w.mu.Lock()
		switch {
		case err == nil && (status == http.StatusCreated || status == http.StatusConflict):
			w.acked[id] = true
			w.gap = max(w.gap, time.Since(w.last))
			w.last = time.Now()
			w.mu.Unlock()
			return
		case err != nil || status == http.StatusServiceUnavailable:
			w.again++
		default:
			w.gave = append(w.gave, fmt.Sprintf("%d %.200s", status, b))
			w.mu.Unlock()
			return
		}
		late := time.Now().After(end)
		if late {
			w.gave = append(w.gave, fmt.Sprintf("not in a minute: %d %v %.200s", status, err, b))
		}
		w.mu.Unlock()
		if late {
			return
		}
	}
}

func (p *process) insertRow(token, id string) (int, []byte, error) {
	req, err := http.NewRequest("POST", p.URL+"/rest/v1/notes", strings.NewReader(fmt.Sprintf(`{"id":%q,"body":"row"}`, id)))
	if err != nil {
		return 0, nil, err
	}
	req.Header = http.Header{"Apikey": {p.PublishableKey}, "Authorization": {"Bearer " + token}, "Content-Type": {"application/json"}}
	return answered(p.client.Do(req))
}

// set replaces a node that was started again.
func (w *writer) set(at int, p *process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes[at] = p
}

// measure returns the longest time without an acknowledgement since it was last asked.
func (w *writer) measure() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	gap := max(w.gap, time.Since(w.last))
	w.gap = 0
	return gap
}

// end stops writing, and checks that every node has what was acknowledged.
func (w *writer) end(t *testing.T, nodes []*process) {
	t.Helper()
	close(w.stop)
	w.done.Wait()
	if len(w.gave) > 0 {
		t.Errorf("%d writes failed for good, the first: %s", len(w.gave), w.gave[0])
	}
	for _, p := range nodes {
		have := map[string]bool{}
		for from := 0; ; from += 1000 {
			status, b, err := p.do(t.Context(), "GET", fmt.Sprintf("/rest/v1/notes?select=id&order=id&limit=1000&offset=%d", from), w.token, nil)
			var rows []struct {
				ID string `json:"id"`
			}
			if err == nil && status == http.StatusOK {
				err = json.Unmarshal(b, &rows)
			}
			if err != nil || status != http.StatusOK {
				t.Fatalf("reading at %s: %d %v %.200s", filepath.Base(p.Data), status, err, b)
			}
			for _, r := range rows {
				if have[r.ID] {
					t.Errorf("%s holds row %s twice", filepath.Base(p.Data), r.ID)
				}
				have[r.ID] = true
			}
			if len(rows) < 1000 {
				break
			}
		}
		lost := 0
		for id := range maps.Keys(w.acked) {
			if !have[id] {
				lost++
			}
		}
		if lost > 0 {
			t.Errorf("%s lost %d of %d acknowledged rows", filepath.Base(p.Data), lost, len(w.acked))
		}
	}
	t.Logf("%d acknowledged, %d tried again", len(w.acked), w.again)
}

// TestThreeNodes runs a cluster as the README says to, under writes to all of its nodes: the leader is killed, every node is
// restarted in turn, one is cut off for good and replaced by another of its name.
func TestThreeNodes(t *testing.T) {
	dir := t.TempDir()
	nodes := threeNodes(t, dir)
	who := nodes[0].signUp(t, "ann@example.com")
	w := startWriting(nodes, who.AccessToken, 6)
	until(t, "some rows", func() bool { return w.next.Load() > 200 })

	var gaps []time.Duration
	for range 3 {
		leader := leading(t, nodes)
		at := slices.Index(nodes, leader)
		w.measure()
		before := w.next.Load()
		leader.kill()
		until(t, "writes to go on", func() bool { return w.next.Load() > before+50 })
		gaps = append(gaps, w.measure())
		nodes[at] = leader.back(t)
		w.set(at, nodes[at])
		until(t, "the node to be well again", func() bool { return status(t, nodes[at]).Healthy })
	}
	t.Logf("without writes after kill -9 of the leader: %v", gaps)

	w.measure()
	for at, p := range nodes {
		p.stop(t)
		nodes[at] = p.back(t)
		w.set(at, nodes[at])
		until(t, "the node to be well again", func() bool { return status(t, nodes[at]).Healthy })
	}
	t.Logf("without writes in a rolling restart: %v at most", w.measure())

	// A machine is lost, and another takes its name.
	lost := nodes[2]
	lost.kill()
	w.set(2, nodes[0])
	until(t, "the others to miss it", func() bool { return !status(t, nodes[0]).Healthy })
	time.Sleep(11 * time.Second) // its name is not given away before
	fresh := join(t, nodes[0], filepath.Join(dir, "anew", "three"), "three")
	nodes[2] = fresh
	w.set(2, fresh)
	until(t, "three that are well", func() bool {
		s := status(t, nodes[0])
		return s.Healthy && len(s.Members) == 3
	})
	// The lost one comes back, and is refused.
	if back, err := tryServe(t, lost.Data, "--listen", lost.listen, "--cluster-listen", lost.cluster, "--name", "three"); err == nil {
		if s, _, err := back.insertRow(who.AccessToken, noteID(1_000_000)); err == nil && s == http.StatusCreated {
			t.Error("a node that was replaced still takes writes")
		}
		back.kill()
	}
	w.end(t, nodes)
	count := len(exported(t, nodes[0]))
	for _, p := range nodes[1:] {
		if n := len(exported(t, p)); n < count {
			t.Errorf("%s exports %d events, and another %d", filepath.Base(p.Data), n, count)
		}
	}
	for _, p := range nodes {
		p.stop(t)
	}
}

// TestTwoVersions upgrades a cluster node by node, under writes, to a version that reads one entry format more, and goes back once
// on the way. As long as one node is of the old version, entries are written that it can read; once none is, the new format is.
// (That a version refuses entries of a later format is tested beside the log.)
func TestTwoVersions(t *testing.T) {
	later := filepath.Join(t.TempDir(), "bulwark")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-X bulwark/storage/entry.next=2", "-o", later, "bulwark/cmd/bulwark")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dir := t.TempDir()
	nodes := threeNodes(t, dir)
	who := nodes[0].signUp(t, "ann@example.com")
	w := startWriting(nodes, who.AccessToken, 4)
	restart := func(at int) {
		t.Helper()
		before := w.next.Load()
		nodes[at].stop(t)
		nodes[at] = nodes[at].back(t)
		w.set(at, nodes[at])
		until(t, "all nodes to be well, and writes to go on", func() bool {
			return status(t, nodes[at]).Healthy && w.next.Load() > before+50
		})
	}
	t.Setenv(binaryEnv, later)
	for at := range nodes {
		restart(at)
		if at == 1 { // the last old node starts again: it can read all that there is
			t.Setenv(binaryEnv, "")
			restart(2)
			t.Setenv(binaryEnv, later)
		}
	}
	before := w.next.Load()
	until(t, "entries of the new format", func() bool { return w.next.Load() > before+200 })
	w.end(t, nodes)
}
