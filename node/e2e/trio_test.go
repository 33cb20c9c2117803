//go:build e2e || bench

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// threeNodes starts a cluster as the README says to.
func threeNodes(t testing.TB, dir string) []*process {
	t.Helper()
	nodes := []*process{serve(t, filepath.Join(dir, "one"), "--name", "one")}
	for _, name := range []string{"two", "three"} {
		nodes = append(nodes, join(t, nodes[0], filepath.Join(dir, name), name))
	}
	until(t, "three voters", func() bool {
		voters := 0
		for _, m := range members(t, nodes[0]) {
			if m.Voter {
				voters++
			}
		}
		return voters == len(nodes)
	})
	return nodes
}

// join starts a node that joins the cluster of another.
func join(t testing.TB, at *process, data, name string) *process {
	t.Helper()
	out, errs, code := run(t, "operator", "token", "--json", "--data", at.Data)
	var token struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal([]byte(out), &token); code != 0 || err != nil {
		t.Fatalf("making a token: exit code %d %v\n%s%s", code, err, out, errs)
	}
	p := serve(t, data, "--name", name, "--join", token.Token)
	p.as(at)
	return p
}

// as gives a node what clients know of the project, which was made at another. Each node has its own URL; the project's path
// is the same.
func (p *process) as(at *process) {
	p.PublishableKey, p.SecretKey = at.PublishableKey, at.SecretKey
	if host, _, ok := strings.Cut(strings.TrimPrefix(p.URL, "https://"), "/"); !ok {
		_, path, _ := strings.Cut(strings.TrimPrefix(at.URL, "https://"), "/")
		p.URL = "https://" + host + "/" + path
	}
}

// back starts a node of a cluster that was killed or stopped, at the same addresses.
func (p *process) back(t testing.TB) *process {
	t.Helper()
	n := p.again(t, "--name", filepath.Base(p.Data), "--cluster-listen", p.cluster)
	n.as(p)
	return n
}

func noteID(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

// answered reads an answer to its end.
func answered(resp *http.Response, err error) (int, []byte, error) {
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, b, err
}

type member struct {
	Node  string `json:"node"`
	Voter bool   `json:"voter"`
}

type nodeState struct {
	Node    string   `json:"node"`
	Role    string   `json:"role"`
	Ready   bool     `json:"ready"`
	Healthy bool     `json:"healthy"`
	Members []member `json:"members"`
}

func status(t testing.TB, p *process) (s nodeState) {
	t.Helper()
	out, _, _ := run(t, "status", "--json", "--data", p.Data)
	// A node that has just been killed says nothing.
	_ = json.Unmarshal([]byte(out), &s)
	return s
}

func members(t testing.TB, p *process) []member { return status(t, p).Members }

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

func leading(t testing.TB, nodes []*process) (leader *process) {
	t.Helper()
	until(t, "a leader", func() bool {
		for _, p := range nodes {
			if status(t, p).Role == "leader" {
				leader = p
			}
		}
		return leader != nil
	})
	return leader
}
