package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bulwark/security/access"
	"bulwark/storage"
)

// imports is the statement of who may import whom among our own packages: DESIGN's direction cmd → node → (slices, web,
// cluster) → storage, written out. A package that is not listed may not exist; an edge that is not listed may not either.
// A change here belongs in a commit that says why.
const imports = `
storage/entry:
storage: storage/entry
storage/bolt: storage storage/entry
storage/backup: storage storage/entry storage/bolt
storage/table: storage
storage/storagetest: storage storage/entry security/access security/audit security/keys

cluster/member: storage
cluster/memnet:
cluster/transport:
cluster/fsm: storage storage/entry
cluster/rpc: storage storage/entry
cluster: storage storage/entry cluster/fsm cluster/rpc cluster/transport

web/api: storage
web/client: storage web/api
web/rest: storage storage/table web/api
web: storage web/api

security/access: storage
security/account: storage web/api
security/apikey: storage web/api
security/audit: storage storage/entry web/api
security/auditsearch: storage storage/entry web/api security/audit
security/cert: storage
security/keys: storage storage/entry
security/rowpolicy: storage storage/entry storage/table web/api
security/session: storage web/api security/account
security/tenant: storage web/api
`

// anything lists the packages that may import what they need: the wiring, the commands over it, and test benches.
var anything = []string{"node", "node/config", "node/nodetest", "node/e2e", "cmd/bulwark"}

// never lists edges that stay forbidden even for them. cmd wires nothing itself.
var never = map[string][]string{
	"cmd/bulwark": {"cluster", "cluster/fsm", "storage/bolt", "storage/storagetest"},
	"node":        {"storage/storagetest", "cluster/memnet"},
}

// actorMakers lists the packages that check a credential and so may make an Actor from it.
var actorMakers = map[string][]string{
	"AnonymousActor": {"security/apikey", "security/session", "node"},
	"ServiceActor":   {"security/apikey", "security/session", "node"},
	"AccountActor":   {"security/session", "node"},
	"OperatorActor":  {"security/apikey", "node"},
	"JobActor":       {"storage", "cluster/member", "security/audit", "security/auditsearch", "security/cert", "security/session", "security/tenant", "security/apikey", "node"},
}

type listed struct {
	ImportPath string
	Dir        string
	Imports    []string
}

func TestImportPolicy(t *testing.T) {
	t.Parallel()
	policy := map[string][]string{}
	for line := range strings.Lines(imports) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		if ok {
			policy[name] = strings.Fields(rest)
		}
	}
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, "bulwark/")
		allowed, ok := policy[name]
		free := slices.Contains(anything, name)
		if !ok && !free {
			t.Errorf("package %s is in no line of the import policy", name)
			continue
		}
		for _, i := range p.Imports {
			i, ours := strings.CutPrefix(i, "bulwark/")
			if !ours {
				continue
			}
			if (!free && !slices.Contains(allowed, i)) || slices.Contains(never[name], i) {
				t.Errorf("package %s imports %s, which the import policy does not allow", name, i)
			}
		}
	}
}

// TestActorMakers holds that an Actor is made only where a credential was proven.
func TestActorMakers(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, "bulwark/")
		for _, path := range sources(t, p) {
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				id, ok := n.(*ast.Ident)
				if !ok {
					return true
				}
				makers, is := actorMakers[id.Name]
				if is && name != "storage" && !slices.Contains(makers, name) && !strings.HasSuffix(name, "test") {
					t.Errorf("package %s makes an actor with %s, and is not one that proves credentials", name, id.Name)
				}
				return true
			})
		}
	}
}

// sources lists a package's files without its tests.
func sources(t *testing.T, p listed) (paths []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.Dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f, "_test.go") {
			paths = append(paths, f)
		}
	}
	return paths
}

// TestTopLevel holds the layout: vertical slices below these folders, and nothing else beside them.
func TestTopLevel(t *testing.T) {
	t.Parallel()
	want := []string{"Makefile", "README.md", "SECURITY.md", "cluster", "cmd", "go.mod", "go.sum", "node", "security", "storage", "web"}
	ignored := []string{"bin", "dist", "bulwark-data", "bulwark-data.key"} // what the Makefile's own commands leave
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(ignored, e.Name()) {
			got = append(got, e.Name())
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the top level holds %v, want %v", got, want)
	}
}

func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Imports", "bulwark/...")
	cmd.Stderr = os.Stderr
	cmd.Dir = filepath.Join("..")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// TestIntents holds that each action that the code names is somebody's: an action that no rule allows would be refused to
// everybody, and nobody would notice before a customer did.
func TestIntents(t *testing.T) {
	t.Parallel()
	literal := regexp.MustCompile(`(?:Action: |intent\(|Intent\()"([a-z]+\.[a-z]+)"`)
	guard := access.New()
	id := storage.ID{1}
	actors := []storage.Actor{
		storage.AnonymousActor(id, id, id, storage.Origin{}), storage.AccountActor(id, id, id, id, nil, storage.Origin{}),
		storage.ServiceActor(id, id, id, storage.Origin{}), storage.OperatorActor(id, id, id, "", storage.Origin{}), storage.JobActor(id, id, ""),
	}
	found := 0
	for _, p := range packages(t) {
		for _, f := range sources(t, p) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range literal.FindAllSubmatch(b, -1) {
				found++
				to := storage.Intent{Action: string(m[1])}
				if !slices.ContainsFunc(actors, func(a storage.Actor) bool { return guard.Decide(nil, a, to) == nil }) {
					t.Errorf("%s: nobody may %s", f, to.Action)
				}
			}
		}
	}
	if found < 30 {
		t.Errorf("only %d actions were found: does the pattern still fit?", found)
	}
}
