//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestReadme runs the README's example word for word with the package from npm, twice, and looks at what it left in the
// audit log.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```js\n(.*?)```").FindSubmatch(readme)
	if m == nil {
		t.Fatal("the README has no example")
	}
	// Beside node_modules, where the package is found.
	dir, err := os.MkdirTemp(".", ".bench-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "example.mjs")
	if err := os.WriteFile(program, m[1], 0o600); err != nil {
		t.Fatal(err)
	}
	p := serve(t, filepath.Join(t.TempDir(), "data"))
	for range 2 {
		cmd := exec.Command("node_modules/.bin/node", program)
		cmd.Env = append(os.Environ(), "PROJECT_URL="+p.URL, "PUBLISHABLE_KEY="+p.PublishableKey,
			"NODE_EXTRA_CA_CERTS="+filepath.Join(p.Data, "ca.pem"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, out, p.log)
		}
		if got := strings.TrimSpace(string(out)); got != "[ { body: 'first' }, { body: 'second' } ]" {
			t.Errorf("the example printed %s", got)
		}
	}
	out, errs, code := run(t, "audit", "search", "--data", p.Data, "--json")
	if code != 0 {
		t.Fatalf("audit search: exit code %d\n%s%s", code, out, errs)
	}
	var page struct {
		Events []struct {
			Event struct{ Action, Outcome string } `json:"event"`
		} `json:"events"`
	}
	if err := json.Unmarshal([]byte(out), &page); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var actions []string
	for _, e := range page.Events {
		actions = append(actions, e.Event.Action)
	}
	for _, want := range []string{"account.signup", "session.create", "rows.insert", "rows.select"} {
		if !slices.Contains(actions, want) {
			t.Errorf("the audit log shows no %s, but %v", want, actions)
		}
	}
}
