package audit_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"

	"bulwark/security/audit"
	"bulwark/storage"
)

var update = flag.Bool("update", false, "write the golden files anew")

// plainSealer keeps what it is given, with its place: the tests here look at what was sealed, not at how.
type plainSealer struct{}

func (plainSealer) Seal(dst, plain []byte, at storage.Place) []byte {
	return append(append(append(dst, at.Tenant[:]...), at.Key...), plain...)
}

func (plainSealer) Open(dst, sealed []byte, at storage.Place) ([]byte, error) {
	n := len(at.Tenant) + len(at.Key)
	if len(sealed) < n || !bytes.Equal(sealed[:16], at.Tenant[:]) || !bytes.Equal(sealed[16:n], at.Key) || at.Table != storage.AuditTable {
		return nil, errors.New("not at its place")
	}
	return append(dst, sealed[n:]...), nil
}

func (plainSealer) Blind(string, string, []byte) []byte { return make([]byte, 16) }
func (plainSealer) Current([]byte) bool                 { return true }

// counting gives 0, 1, 2, … for ever.
type counting struct{ n byte }

func (c *counting) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = c.n
		c.n++
	}
	return len(b), nil
}

func id(n byte) storage.ID { return storage.ID{0: 0x01, 6: 0x70, 8: 0x80, 15: n} }

var at = time.Date(2026, 11, 22, 5, 0, 46, 123456789, time.FixedZone("", 3600))

func goldenEvents() map[string]storage.Event {
	o := storage.Origin{Address: netip.MustParseAddr("192.0.2.7"), RequestID: "req-1"}
	account := storage.AccountActor(id(1), id(2), id(3), id(4), []byte(`{"secret":"claims"}`), o)
	return map[string]storage.Event{
		"least": {ID: id(9), Time: time.Unix(0, 0), Tenant: id(1), By: storage.JobActor(id(1), storage.ID{}, ""),
			To: storage.Intent{Action: "audit.checkpoint"}, Outcome: "ok"},
		"account": {ID: id(9), Time: at, Tenant: id(1), Project: id(2), By: account,
			To: storage.Intent{Action: "rows.insert", Object: "notes"}, Outcome: "ok"},
		"denied": {ID: id(9), Time: at, Tenant: id(1), Project: id(2), By: account,
			To: storage.Intent{Action: "apikey.revoke", Object: "k\"\\\u2028\x01é\xff"}, Outcome: "denied", Reason: "denied"},
		"ipv6": {ID: id(9), Time: at, Tenant: id(1), By: storage.OperatorActor(id(1), storage.ID{}, id(7), "console",
			storage.Origin{Address: netip.MustParseAddr("fe80::1%eth\"0")}), To: storage.Intent{Action: "project.create"}, Outcome: "ok"},
		"notes": {ID: id(9), Time: at, Tenant: id(1), By: storage.JobActor(id(1), storage.ID{}, "reseal"),
			To: storage.Intent{Action: "key.reseal"}, Outcome: "ok", Notes: []storage.Note{
				{Field: "z", Value: true}, {Field: "rows", Value: 12}, {Field: "big", Value: int64(1) << 60}, {Field: "max", Value: ^uint64(0)}, {Field: "neg", Value: int64(-5)}, {Field: "id", Value: id(5)},
				{Field: "list", Value: []string{"a", "\n"}}, {Field: "none", Value: []string{}}, {Field: "rows", Value: uint32(13)}, {Field: "text", Value: "<b>&</b>"}, {Field: "safe", Value: int64(1<<53 - 1)},
			}},
	}
}

func recorder(t testing.TB, random io.Reader) *audit.Recorder {
	t.Helper()
	r, err := audit.New(random)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCanonicalText(t *testing.T) {
	t.Parallel()
	for name, e := range goldenEvents() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := recorder(t, &counting{})
			leaf, err := r.Leaf(plainSealer{}, &e)
			if err != nil {
				t.Fatal(err)
			}
			text, err := r.Open(plainSealer{}, e.Tenant, leaf)
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprintf("%s\n%s\n", text, hex.EncodeToString(leaf.Hash[:]))
			path := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got  %swant %s", got, want)
			}
			rec, err := audit.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if rec.ID != e.ID || !rec.Time.Equal(e.Time.Truncate(time.Microsecond)) || rec.Action != e.To.Action {
				t.Errorf("parsed %+v", rec)
			}
			if bytes.Contains(text, []byte("claims")) {
				t.Error("the claims are in the event")
			}
		})
	}
}

func TestStringsAsRFC8785(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		object := rapid.String().Draw(rt, "object")
		e := storage.Event{Time: at, To: storage.Intent{Action: "a.b", Object: object}, Outcome: "ok",
			Notes: []storage.Note{{Field: "s", Value: object}, {Field: "n", Value: rapid.Int64().Draw(rt, "n")}}}
		text := textOf(rt, &e)
		rec, err := audit.Parse(text)
		if err != nil {
			rt.Fatalf("%s: %v", text, err)
		}
		if rec.Object != object {
			rt.Fatalf("%q became %q", object, rec.Object)
		}
		notes := jsontext.Value(text[bytes.Index(text, []byte(`"notes":`))+8 : bytes.LastIndex(text, []byte(`,"salt"`))])
		canonical := notes.Clone()
		if err := canonical.Canonicalize(); err != nil {
			rt.Fatal(err)
		}
		if !bytes.Equal(canonical, notes) {
			rt.Fatalf("%s is canonically %s", notes, canonical)
		}
	})
}

type failer interface {
	Helper()
	Fatal(...any)
}

func textOf(t failer, e *storage.Event) []byte {
	t.Helper()
	r, err := audit.New(&counting{})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := r.Leaf(plainSealer{}, e)
	if err != nil {
		t.Fatal(err)
	}
	text, err := r.Open(plainSealer{}, e.Tenant, leaf)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestTimes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		when := time.Unix(rapid.Int64Range(-62167219200, 253402300799).Draw(rt, "s"), rapid.Int64Range(0, 999999999).Draw(rt, "ns"))
		text := textOf(rt, &storage.Event{Time: when, To: storage.Intent{Action: "a.b"}, Outcome: "ok"})
		if want := `"time":"` + when.UTC().Format(audit.TimeLayout) + `"`; !bytes.Contains(text, []byte(want)) {
			rt.Fatalf("want %s in %s", want, text)
		}
	})
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	r := recorder(t, rand.Reader)
	for name, change := range map[string]func(*storage.Event){
		"float":       func(e *storage.Event) { e.Notes = []storage.Note{{Field: "f", Value: 1.5}} },
		"bytes":       func(e *storage.Event) { e.Notes = []storage.Note{{Field: "b", Value: []byte("secret")}} },
		"struct":      func(e *storage.Event) { e.Notes = []storage.Note{{Field: "s", Value: struct{ Password string }{"x"}}} },
		"error":       func(e *storage.Event) { e.Notes = []storage.Note{{Field: "e", Value: io.EOF}} },
		"nil":         func(e *storage.Event) { e.Notes = []storage.Note{{Field: "e", Value: nil}} },
		"field":       func(e *storage.Event) { e.Notes = []storage.Note{{Field: "A b", Value: 1}} },
		"empty field": func(e *storage.Event) { e.Notes = []storage.Note{{Field: "", Value: 1}} },
		"long field":  func(e *storage.Event) { e.Notes = []storage.Note{{Field: strings.Repeat("a", 65), Value: 1}} },
		"large": func(e *storage.Event) {
			e.Notes = []storage.Note{{Field: "t", Value: strings.Repeat("x", audit.MaxEvent)}}
		},
		"year": func(e *storage.Event) { e.Time = time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		e := goldenEvents()["account"]
		change(&e)
		_, err := r.Leaf(plainSealer{}, &e)
		if err == nil {
			t.Errorf("%s: a leaf was made", name)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error tells the note: %v", name, err)
		}
	}
	if _, err := audit.New(nil); err == nil {
		t.Error("a recorder without a random source")
	}
	e := goldenEvents()["account"]
	if _, err := recorder(t, strings.NewReader("short")).Leaf(plainSealer{}, &e); err == nil {
		t.Error("a leaf without a whole salt")
	}
}

func TestSaltsDiffer(t *testing.T) {
	t.Parallel()
	r := recorder(t, rand.Reader)
	seen := map[[32]byte]bool{}
	for range 200 {
		e := goldenEvents()["account"]
		leaf, err := r.Leaf(plainSealer{}, &e)
		if err != nil {
			t.Fatal(err)
		}
		if seen[leaf.Hash] {
			t.Fatal("two leaves of one event have the same hash")
		}
		seen[leaf.Hash] = true
	}
}

func TestOpenChecksTheHash(t *testing.T) {
	t.Parallel()
	r := recorder(t, rand.Reader)
	e := goldenEvents()["account"]
	leaf, err := r.Leaf(plainSealer{}, &e)
	if err != nil {
		t.Fatal(err)
	}
	altered := leaf
	altered.Sealed = bytes.Replace(leaf.Sealed, []byte("req-1"), []byte("req-2"), 1)
	if bytes.Equal(altered.Sealed, leaf.Sealed) {
		t.Fatal("there is nothing to alter")
	}
	if _, err := r.Open(plainSealer{}, e.Tenant, altered); err == nil {
		t.Error("an altered event was opened")
	}
	if _, err := r.Open(plainSealer{}, id(8), leaf); err == nil {
		t.Error("an event was opened for another tenant")
	}
}

func FuzzParse(f *testing.F) {
	for _, e := range goldenEvents() {
		f.Add(textOf(f, &e))
	}
	f.Add([]byte(`{"v":2}`))
	f.Add([]byte(`{"v":1,"notes":{"a":[1]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := audit.Parse(text)
		if err == nil && r.Version != audit.Version {
			t.Error("another version was read")
		}
	})
}

func TestCategories(t *testing.T) {
	t.Parallel()
	for action, want := range map[string]audit.Category{
		"session.create": audit.Authentication, "account.signup": audit.Accounts, "apikey.revoke": audit.Credentials,
		"project.create": audit.Configuration, "rows.insert": audit.Data, "hookin.receive": audit.Webhooks,
		"audit.export": audit.AuditLog, "nothing": audit.Other, "": audit.Other, "role.grant": audit.AccessControl,
	} {
		if got := audit.CategoryOf(action); got != want {
			t.Errorf("%s is %s, want %s", action, got, want)
		}
	}
}

func BenchmarkLeaf(b *testing.B) {
	r := recorder(b, rand.Reader)
	e := insertEvent()
	var s plainSealer
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Leaf(s, &e); err != nil {
			b.Fatal(err)
		}
	}
}

// insertEvent is what inserting a row over HTTP is recorded as.
func insertEvent() storage.Event {
	e := goldenEvents()["account"]
	e.By = storage.AccountActor(id(1), id(2), id(3), id(4), nil,
		storage.Origin{Address: netip.MustParseAddr("192.0.2.7"), RequestID: "00112233445566778899aabbccddeeff"})
	e.Notes = []storage.Note{{Field: "rows", Value: 1}}
	return e
}

func TestInsertIsSmall(t *testing.T) {
	t.Parallel()
	e := insertEvent()
	leaf, err := recorder(t, rand.Reader).Leaf(plainSealer{}, &e)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(leaf.Sealed) - 16 - 32; n > 140 {
		t.Errorf("the event of inserting a row has %d bytes before it is sealed", n)
	}
}

func BenchmarkOpen(b *testing.B) {
	r := recorder(b, rand.Reader)
	e := insertEvent()
	var s plainSealer
	leaf, err := r.Leaf(s, &e)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Open(s, e.Tenant, leaf); err != nil {
			b.Fatal(err)
		}
	}
}
