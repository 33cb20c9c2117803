package audit_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bulwark/security/audit"
	"bulwark/storage"
	"bulwark/storage/storagetest"
	"bulwark/web/api"
)

// fill makes n events in the world's tenant.
func fill(t testing.TB, w *storagetest.World, n int) {
	t.Helper()
	notes := storage.Ref{Name: "notes", Scope: storage.ProjectScope}
	for i := range n {
		action := "rows.insert"
		if i%3 == 0 {
			action = "rows.delete"
		}
		err := w.DB.Update(t.Context(), w.Service(), storage.Intent{Action: action, Object: "notes"}, func(tx storage.Tx) error {
			tx.Note("row", i)
			return tx.Put(notes, fmt.Appendf(nil, "%d", i), []byte("x"))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func operator(w *storagetest.World) storage.Actor {
	return storage.OperatorActor(w.Tenant, storage.ID{}, storage.ID{}, "test", storage.Origin{})
}

func newCheckpointer(t testing.TB, w *storagetest.World) (*audit.Checkpointer, *audit.Signer) {
	t.Helper()
	s := newSigner(t, id(50), 1)
	c, err := audit.NewCheckpointer(w.DB, w.DB, s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

type exported struct {
	bytes []byte
	key   string
	did   *audit.Exported
}

func export(t testing.TB, events int, filter *audit.Filter) exported {
	t.Helper()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	fill(t, w, events)
	c, s := newCheckpointer(t, w)
	var b bytes.Buffer
	did, err := c.Export(t.Context(), operator(w), &b, filter)
	if err != nil {
		t.Fatal(err)
	}
	return exported{b.Bytes(), vkey(t, s, w.Tenant), did}
}

func verify(b []byte, keys ...string) (*audit.Report, error) {
	return audit.Verify(bytes.NewReader(b), keys...)
}

func TestExportVerifies(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 7, 300, 600} {
		x := export(t, n, nil)
		r, err := verify(x.bytes, x.key)
		if err != nil {
			t.Fatalf("%d events: %v", n, err)
		}
		if !r.OK() || !r.Trusted || r.Warning != "" || r.Events != x.did.Events || r.Events != r.Size || r.Signer != x.key ||
			r.First.IsZero() || r.Last.Before(r.First) || r.Kind != "full" {
			t.Errorf("%d events: %+v", n, r)
		}
		x = export(t, n, &audit.Filter{Action: "rows.delete"})
		r, err = verify(x.bytes, x.key)
		if err != nil {
			t.Fatalf("a part of %d events: %v", n, err)
		}
		if want := uint64((n + 2) / 3); r.Events != want || r.Size <= want || r.Kind != "part" {
			t.Errorf("a part of %d events: %+v", n, r)
		}
	}
}

func TestExportIsAnEvent(t *testing.T) {
	t.Parallel()
	x := export(t, 3, nil)
	if !bytes.Contains(x.bytes, []byte(`"action":"audit.export"`)) {
		t.Error("the export is not in the export")
	}
}

func TestExportIsRefused(t *testing.T) {
	t.Parallel()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	c, _ := newCheckpointer(t, w)
	var b bytes.Buffer
	_, err := c.Export(t.Context(), w.Service(), &b, nil)
	if storage.FaultOf(err) != storage.Denied || b.Len() > 0 {
		t.Errorf("a secret key exports the audit log: %v, %d bytes", err, b.Len())
	}
}

func TestVerifyWithoutTrust(t *testing.T) {
	t.Parallel()
	x := export(t, 3, nil)
	r, err := verify(x.bytes)
	if err != nil {
		t.Fatal(err)
	}
	if r.Trusted || !strings.Contains(r.Warning, "came from the file itself") {
		t.Errorf("the report does not warn: %+v", r)
	}
	var out bytes.Buffer
	if _, err := r.WriteTo(&out); err != nil || !strings.HasPrefix(out.String(), "WARNING") {
		t.Errorf("the printed report does not warn: %s", out.String())
	}
}

func lines(b []byte) [][]byte { return bytes.SplitAfter(b, []byte("\n")) }

func join(l [][]byte) []byte { return bytes.Join(l, nil) }

// Every change of one line is found, in a full export and in a part.
func TestVerifyFindsEveryLineMutation(t *testing.T) {
	t.Parallel()
	for name, filter := range map[string]*audit.Filter{"full": nil, "part": {Action: "rows.*"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := export(t, 9, filter)
			all := lines(x.bytes)
			all = all[:len(all)-1] // nothing follows the last line's end
			try := func(what string, i int, b []byte) {
				t.Helper()
				if bytes.Equal(b, x.bytes) {
					return
				}
				if r, err := verify(b, x.key); err == nil || r.OK() {
					t.Errorf("%s at line %d was not found", what, i+1)
				}
				if r, err := verify(b); err == nil || r.OK() {
					t.Errorf("%s at line %d was not found without a trusted key", what, i+1)
				}
			}
			for i := range all {
				try("a deletion", i, join(slices.Delete(slices.Clone(all), i, i+1)))
				try("a copy", i, join(slices.Insert(slices.Clone(all), i, all[i])))
				try("a truncation", i, join(all[:i]))
				try("a truncation inside", i, append(join(all[:i]), all[i][:len(all[i])/2]...))
				try("an empty line", i, join(slices.Insert(slices.Clone(all), i, []byte("\n"))))
				for j := range i {
					swapped := slices.Clone(all)
					swapped[i], swapped[j] = swapped[j], swapped[i]
					try("a swap", i, join(swapped))
				}
				for p := i % 7; p < len(all[i]); p += 7 {
					changed := slices.Clone(all)
					changed[i] = slices.Clone(all[i])
					changed[i][p] ^= 1
					try(fmt.Sprintf("a changed byte %d", p), i, join(changed))
				}
			}
			try("an added line", len(all), append(slices.Clone(x.bytes), all[1]...))
		})
	}
}

// forge puts another event in the place of the one in line, with its own hash.
func forge(t *testing.T, line []byte) (forged []byte, h [32]byte) {
	t.Helper()
	i := bytes.Index(line, []byte(`"event":`)) + 8
	event := bytes.Replace(line[i:len(line)-2], []byte("rows."), []byte("Rows."), 1)
	if bytes.Equal(event, line[i:len(line)-2]) {
		t.Fatalf("there is nothing to forge in %s", line)
	}
	h = audit.LeafHash(event)
	j := bytes.Index(line, []byte(`"hash":"`)) + 8
	forged = append(forged, line[:j]...)
	forged = append(forged, base64.StdEncoding.EncodeToString(h[:])...)
	return append(append(append(forged, line[j+44:i]...), event...), "}\n"...), h
}

// Who holds the key can sign other lines as a part: the proof shows that the event is not in the tree.
func TestVerifyForgedPartSignedAgain(t *testing.T) {
	t.Parallel()
	x := export(t, 9, &audit.Filter{Action: "rows.*"})
	all := lines(x.bytes)
	all[4], _ = forge(t, all[4])
	body := join(all[:len(all)-2])
	r, err := verify(x.bytes, x.key)
	if err != nil {
		t.Fatal(err)
	}
	tenant, err := storage.ParseID(r.Origin[strings.LastIndexByte(r.Origin, '/')+1:])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(body)
	signed, err := newSigner(t, id(50), 1).Sign(tenant, r.Size, r.Root,
		fmt.Sprintf("export %d %s", r.Events, base64.StdEncoding.EncodeToString(sum[:])))
	if err != nil {
		t.Fatal(err)
	}
	note, err := json.Marshal(map[string]string{"checkpoint": string(signed)})
	if err != nil {
		t.Fatal(err)
	}
	r, err = verify(append(append(body, note...), '\n'), x.key)
	if err == nil || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].What, "its proof does not lead to the root") {
		t.Errorf("%v: %v", err, r.Problems)
	}
}

// A header whose root is that of the forged events agrees with them, and not with what was signed.
func TestVerifyForgedHeader(t *testing.T) {
	t.Parallel()
	x := export(t, 9, nil)
	r, err := verify(x.bytes, x.key)
	if err != nil {
		t.Fatal(err)
	}
	all := lines(x.bytes)
	var tree audit.Tree
	for i := 1; i < len(all)-2; i++ {
		var h [32]byte
		if i == 4 {
			all[i], h = forge(t, all[i])
		} else {
			at := bytes.Index(all[i], []byte(`"hash":"`)) + 8
			raw, err := base64.StdEncoding.DecodeString(string(all[i][at : at+44]))
			if err != nil {
				t.Fatal(err)
			}
			h = [32]byte(raw)
		}
		tree.Append(h)
	}
	root := tree.Root()
	all[0] = bytes.Replace(all[0], []byte(base64.StdEncoding.EncodeToString(r.Root[:])), []byte(base64.StdEncoding.EncodeToString(root[:])), 1)
	r, err = verify(join(all), x.key)
	if err == nil || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].What, "root is not the one that the checkpoint signs") {
		t.Errorf("%v: %v", err, r.Problems)
	}
}

func TestVerifySaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	x := export(t, 12, nil)
	all := lines(x.bytes)
	replace := func(i int, old, new string) []byte {
		c := slices.Clone(all)
		c[i] = bytes.Replace(all[i], []byte(old), []byte(new), 1)
		if bytes.Equal(c[i], all[i]) {
			t.Fatalf("line %d has no %q", i+1, old)
		}
		return join(c)
	}
	forged := slices.Clone(all)
	event := all[5][bytes.Index(all[5], []byte(`"event":`))+8 : len(all[5])-2]
	event = bytes.Replace(event, []byte("rows."), []byte("Rows."), 1)
	h := audit.LeafHash(event)
	forged[5] = fmt.Appendf(nil, `{"position":4,"hash":"%s","event":%s}`+"\n", base64.StdEncoding.EncodeToString(h[:]), event)
	swapped := slices.Clone(all)
	swapped[5], swapped[6] = swapped[6], swapped[5]
	for name, try := range map[string]struct {
		export []byte
		key    string
		line   int
		what   string
	}{
		"changed":        {replace(5, "rows.", "Rows."), x.key, 6, "event 4 was changed"},
		"missing":        {join(slices.Delete(slices.Clone(all), 5, 6)), x.key, 6, "event 4 is missing before this line"},
		"reordered":      {join(swapped), x.key, 7, "event 4 is out of order"},
		"twice":          {join(slices.Insert(slices.Clone(all), 5, all[5])), x.key, 7, "stands in the export twice"},
		"forged":         {join(forged), x.key, 0, "changed together with the hashes"},
		"signature":      {replace(len(all)-2, "\\n\\n— ", "0\\n\\n— "), x.key, len(all) - 1, "wrong signature"},
		"unknown signer": {x.bytes, vkey(t, newSigner(t, id(50), 7), id(51)), len(all) - 1, "unknown signer"},
		"cut":            {join(all[:8]), x.key, 9, "ends without its checkpoint"},
		"size":           {replace(0, `"size":`, `"size":1`), x.key, 1, "the checkpoint signs a tree of"},
	} {
		r, err := verify(try.export, try.key)
		if err == nil {
			t.Errorf("%s: verified", name)
		}
		found := false
		for _, p := range r.Problems {
			found = found || p.Line == try.line && strings.Contains(p.What, try.what)
		}
		if !found {
			t.Errorf("%s: no %q at line %d in %v", name, try.what, try.line, r.Problems)
		}
	}
}

func TestVerifyIsBounded(t *testing.T) {
	t.Parallel()
	x := export(t, 1, nil)
	header := lines(x.bytes)[0]
	endless := io.MultiReader(bytes.NewReader(header), zeros{})
	if _, err := audit.Verify(endless, x.key); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("an endless line: %v", err)
	}
	many := append(slices.Clone(header), bytes.Repeat([]byte("nonsense\n"), 100000)...)
	r, err := verify(many, x.key)
	if err == nil || len(r.Problems) > 100 || r.More == 0 {
		t.Errorf("%d problems and %d more: %v", len(r.Problems), r.More, err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func FuzzVerify(f *testing.F) {
	full, part := export(f, 5, nil), export(f, 5, &audit.Filter{Action: "rows.insert"})
	f.Add(full.bytes)
	f.Add(part.bytes)
	f.Add([]byte{})
	f.Add(lines(full.bytes)[0])
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := verify(b, full.key, part.key)
		if (err == nil) != r.OK() {
			t.Fatal("the error and the report differ")
		}
		if err == nil && !bytes.Equal(b, full.bytes) && !bytes.Equal(b, part.bytes) {
			t.Errorf("verified what was never exported")
		}
		var out bytes.Buffer
		if _, err := r.WriteTo(&out); err != nil {
			t.Error(err)
		}
	})
}

func TestFilterIsWhatThePartHolds(t *testing.T) {
	t.Parallel()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	fill(t, w, 40)
	c, s := newCheckpointer(t, w)
	rapid.Check(t, func(rt *rapid.T) {
		f := &audit.Filter{
			Action:    rapid.SampledFrom([]string{"", "rows.insert", "rows.*", "project.create"}).Draw(rt, "action"),
			ActorKind: rapid.SampledFrom([]string{"", "service", "operator"}).Draw(rt, "kind"),
			Category:  rapid.SampledFrom([]string{"", "data", "configuration"}).Draw(rt, "category"),
		}
		var b bytes.Buffer
		did, err := c.Export(context.Background(), operator(w), &b, f)
		if err != nil {
			rt.Fatal(err)
		}
		var want uint64
		err = w.DB.Events(context.Background(), operator(w), storage.Intent{Action: "audit.search"}, 0, func(n uint64, _ [32]byte, text []byte) bool {
			r, err := audit.Parse(text)
			if err != nil {
				rt.Fatal(err)
			}
			if n < did.Size && f.Match(r) {
				want++
			}
			return true
		})
		if err != nil {
			rt.Fatal(err)
		}
		r, err := audit.Verify(&b, vkey(t, s, w.Tenant))
		if err != nil || r.Events != want {
			rt.Fatalf("%d events, want %d: %v", r.Events, want, err)
		}
	})
}

func TestKeep(t *testing.T) {
	t.Parallel()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	c, s := newCheckpointer(t, w)
	keep := func(want bool) {
		t.Helper()
		did, err := c.Keep(t.Context(), w.Tenant)
		if err != nil || did != want {
			t.Errorf("kept a checkpoint: %v, %v; want %v", did, err, want)
		}
	}
	keep(true)
	keep(false) // the only new event is that of the checkpoint
	keep(false)
	fill(t, w, 1)
	keep(true)
	keep(false)
	by := storage.JobActor(w.Tenant, storage.ID{}, "test")
	note, size, err := c.Kept(t.Context(), by)
	if err != nil {
		t.Fatal(err)
	}
	opened, _, err := audit.OpenCheckpoint(note, vkey(t, s, w.Tenant))
	if err != nil || opened.Size != size {
		t.Errorf("the kept checkpoint: %+v, %v", opened, err)
	}
}

func TestRunKeepsForEveryTenant(t *testing.T) {
	t.Parallel()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	other, _ := w.AddTenant(t)
	c, _ := newCheckpointer(t, w)
	ctx, cancel := context.WithCancel(t.Context())
	tick := make(chan time.Time)
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, w.Engine, tick) }()
	tick <- time.Time{}
	tick <- time.Time{} // taken when the first is done
	cancel()
	<-done
	for _, tenant := range []storage.ID{w.Tenant, other, storage.System} {
		if _, _, err := c.Kept(t.Context(), storage.JobActor(tenant, storage.ID{}, "test")); err != nil {
			t.Errorf("tenant %s: %v", tenant, err)
		}
	}
}

// world is an Authenticator and a Directory: what package node has.
type world struct{ *storagetest.World }

func (w world) Operator(_ *http.Request, tenant, project storage.ID) (storage.Actor, error) {
	return storage.OperatorActor(tenant, project, storage.ID{}, "test", storage.Origin{}), nil
}
func (w world) Tenant(context.Context, string) (storage.ID, error) { return w.World.Tenant, nil }
func (w world) Project(context.Context, string) (storage.ID, storage.ID, error) {
	return w.World.Tenant, w.World.Project, nil
}

type nothingFound struct{}

func (nothingFound) Search(_ context.Context, _ storage.Actor, q audit.Query) (*audit.Page, error) {
	return &audit.Page{Events: []audit.Found{{Position: uint64(q.Limit), Category: "data", Event: []byte(`{"v":1}`)}}, Next: q.Text + q.Actor}, nil
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	fill(t, w, 5)
	c, s := newCheckpointer(t, w)
	m := api.NewMux(api.Config{Authenticator: world{w}, Directory: world{w}})
	audit.Register(m, c, nothingFound{})
	call := func(method, path, body string) *httptest.ResponseRecorder {
		t.Helper()
		r := httptest.NewRequest(method, "/api/v1/tenants/acme/audit/"+path, strings.NewReader(body))
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		out := httptest.NewRecorder()
		m.ServeHTTP(out, r)
		if out.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", path, out.Code, out.Body)
		}
		return out
	}
	var page audit.Page
	out := call("POST", "search", `{"text":"word","actor":"x","limit":3,"from":"2026-01-01T00:00:00Z"}`)
	if err := json.Unmarshal(out.Body.Bytes(), &page); err != nil || page.Next != "wordx" || page.Events[0].Position != 3 {
		t.Errorf("search: %s, %v", out.Body, err)
	}
	out = call("POST", "export", `{}`)
	if r, err := verify(out.Body.Bytes(), vkey(t, s, w.Tenant)); err != nil || r.Kind != "full" {
		t.Errorf("export: %v", err)
	}
	out = call("POST", "export", `{"action":"rows.*"}`)
	if r, err := verify(out.Body.Bytes(), vkey(t, s, w.Tenant)); err != nil || r.Kind != "part" || r.Events != 5 {
		t.Errorf("export of a part: %v", err)
	}
	var reply audit.CheckpointReply
	if err := json.Unmarshal(call("GET", "checkpoint", "").Body.Bytes(), &reply); err != nil {
		t.Fatal(err)
	}
	if _, _, err := audit.OpenCheckpoint([]byte(reply.Note), reply.Verifier); err != nil {
		t.Error(err)
	}
}
