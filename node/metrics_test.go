package node

import (
	"bufio"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestMetrics reads the metrics on their own port: every family is explained and named as Prometheus wants it, and no label
// says whose data it is.
func TestMetrics(t *testing.T) {
	t.Parallel()
	c := testConfig(t, filepath.Join(t.TempDir(), "data"))
	c.MetricsListen = freeAddr(t)
	n := open(t, c)
	caller := newCaller(t, n)
	who := signedUp(caller)
	caller.do(201, "POST", "/rest/v1/notes", who.AccessToken, map[string]string{"body": "one"}, nil)
	resp, err := http.Get("http://" + c.MetricsListen + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	helped, families := map[string]bool{}, map[string]bool{}
	name := regexp.MustCompile(`^[a-z_]+`)
	label := regexp.MustCompile(`"([^"]*)"`)
	uuid := regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-`)
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		line := lines.Text()
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			helped[name.FindString(rest)] = true
			continue
		}
		if !strings.HasPrefix(line, "bulwark_") {
			continue
		}
		family := name.FindString(line)
		families[family] = true
		for _, l := range label.FindAllStringSubmatch(line, -1) {
			if uuid.MatchString(l[1]) && !strings.Contains(line, "bulwark_peer_") || strings.Contains(l[1], "demo") {
				t.Errorf("a label says whose it is: %s", line)
			}
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"bulwark_raft_applied_index", "bulwark_store_file_bytes", "bulwark_sealed", "bulwark_http_requests_total"} {
		if !families[want] {
			t.Errorf("there is no %s", want)
		}
	}
	for family := range families {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(family, "_bucket"), "_sum"), "_count")
		if !helped[family] && !helped[base] {
			t.Errorf("%s is not explained", family)
		}
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/api/v1/status": 404, "/": 404} {
		resp, err := http.Get("http://" + c.MetricsListen + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	if status := caller.get(t, n.URL()+"/metrics"); status != 401 {
		t.Errorf("anybody reads the metrics on the clients' port: %d", status)
	}
}

func (c *caller) get(t *testing.T, url string) int {
	t.Helper()
	resp, err := c.client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}
