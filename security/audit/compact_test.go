package audit

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bulwark/storage"
	"bulwark/storage/entry"
)

// drawEvent draws events whose fields are like those in use, and unlike them.
func drawEvent(t *rapid.T) *storage.Event {
	id := func(name string) (id storage.ID) {
		if rapid.Bool().Draw(t, name+" set") {
			copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, name))
		}
		return id
	}
	text := rapid.OneOf(rapid.String(), rapid.SampledFrom(knownStrings()), rapid.StringMatching("[0-9a-f]{0,40}"),
		rapid.StringMatching("[0-9a-fA-F]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), rapid.StringMatching("[0-9a-f-]{36}"),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
	origin := storage.Origin{RequestID: text.Draw(t, "request")}
	switch rapid.IntRange(0, 4).Draw(t, "address") {
	case 0:
		origin.Address = netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "ip4")))
	case 1:
		origin.Address = netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "ip6")))
	case 2:
		origin.Address = netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff, 12: 192, 15: 1}).WithZone(text.Draw(t, "zone"))
	case 3:
		origin.Address = netip.MustParseAddr("fe80::1").WithZone(text.Draw(t, "zone"))
	}
	e := &storage.Event{ID: id("id"), Project: id("project"), Outcome: rapid.OneOf(rapid.Just("ok"), text).Draw(t, "outcome"),
		To: storage.Intent{Action: text.Draw(t, "action"), Object: text.Draw(t, "object")}, Reason: text.Draw(t, "reason")}
	e.Time = time.Unix(rapid.Int64Range(-62167219200, 253402300799).Draw(t, "s"), rapid.Int64Range(0, 999999999).Draw(t, "ns"))
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		e.By = storage.AnonymousActor(id("tenant"), id("at"), id("subject"), origin)
	case 1:
		e.By = storage.ServiceActor(id("tenant"), id("at"), id("subject"), origin)
	case 2:
		e.By = storage.AccountActor(id("tenant"), id("at"), id("subject"), id("session"), nil, origin)
	case 3:
		e.By = storage.OperatorActor(id("tenant"), id("at"), id("subject"), text.Draw(t, "name"), origin)
	case 4:
		e.By = storage.JobActor(id("tenant"), id("at"), text.Draw(t, "name"))
	}
	e.Notes = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) storage.Note {
		n := storage.Note{Field: rapid.OneOf(rapid.StringMatching("[a-z0-9_]{1,4}"), rapid.Just("rows")).Draw(t, "field")}
		switch rapid.IntRange(0, 13).Draw(t, "type") {
		case 0:
			n.Value = text.Draw(t, "string")
		case 1:
			n.Value = rapid.Bool().Draw(t, "bool")
		case 2:
			n.Value = rapid.Int().Draw(t, "int")
		case 3:
			n.Value = rapid.Int64().Draw(t, "int64")
		case 4:
			n.Value = rapid.Int32().Draw(t, "int32")
		case 5:
			n.Value = rapid.Int16().Draw(t, "int16")
		case 6:
			n.Value = rapid.Int8().Draw(t, "int8")
		case 7:
			n.Value = rapid.Uint().Draw(t, "uint")
		case 8:
			n.Value = rapid.Uint64().Draw(t, "uint64")
		case 9:
			n.Value = rapid.Uint32().Draw(t, "uint32")
		case 10:
			n.Value = rapid.Uint16().Draw(t, "uint16")
		case 11:
			n.Value = rapid.Uint8().Draw(t, "uint8")
		case 12:
			n.Value = storage.ID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		case 13:
			n.Value = rapid.SliceOf(text).Draw(t, "list")
		}
		return n
	}), 0, 6).Draw(t, "notes")
	return e
}

// The text that comes out of the compact form is the text, and nothing is left to the text form.
func TestCompactFormIsTheText(t *testing.T) {
	t.Parallel()
	d := newDictionary()
	var sc scratch
	rapid.Check(t, func(rt *rapid.T) {
		e := drawEvent(rt)
		salt := [saltSize]byte(rapid.SliceOfN(rapid.Byte(), saltSize, saltSize).Draw(rt, "salt"))
		text, err := sc.appendEvent(nil, e, &salt)
		if err != nil {
			rt.Fatal(err)
		}
		form := d.appendCompact(nil, e, &salt, sc.notes[:len(e.Notes)])
		again, err := d.expand(nil, form)
		if err != nil {
			rt.Fatalf("%s: %v", text, err)
		}
		if !bytes.Equal(again, text) {
			rt.Fatalf("%s\nbecame\n%s", text, again)
		}
		if len(form) >= len(text) {
			rt.Fatalf("the compact form has %d bytes, the text %d", len(form), len(text))
		}
	})
}

var updateForms = flag.Bool("update-forms", false, "write the golden file of compact forms anew")

// What is on a disk today must open tomorrow: the form of every kind of field is written down.
func TestCompactFormStays(t *testing.T) {
	t.Parallel()
	id := func(n byte) storage.ID { return storage.ID{0: 0x01, 6: 0x70, 8: 0x80, 15: n} }
	when := time.Date(2026, 11, 22, 4, 0, 46, 123456789, time.UTC)
	v4 := storage.Origin{Address: netip.MustParseAddr("192.0.2.7"), RequestID: "00112233445566778899aabbccddeeff"}
	v6 := storage.Origin{Address: netip.MustParseAddr("2001:db8::1"), RequestID: "req-1"}
	zone := storage.Origin{Address: netip.MustParseAddr("fe80::1%eth0")}
	events := []storage.Event{
		{ID: id(9), Time: when, By: storage.AccountActor(id(1), id(2), id(3), id(4), nil, v4), Project: id(2),
			To: storage.Intent{Action: "rows.insert", Object: "notes"}, Outcome: "ok", Notes: []storage.Note{{Field: "rows", Value: 1}}},
		{ID: id(9), Time: when, By: storage.ServiceActor(id(1), id(2), id(3), v6), Project: id(2),
			To: storage.Intent{Action: "own.action", Object: id(7).String()}, Outcome: "denied", Reason: "denied"},
		{ID: id(9), Time: when, By: storage.OperatorActor(id(1), id(2), id(3), "console", zone),
			To: storage.Intent{Action: "tenant.create"}, Outcome: "other", Notes: []storage.Note{
				{Field: "a", Value: "text"}, {Field: "b", Value: false}, {Field: "c", Value: true}, {Field: "d", Value: -1},
				{Field: "e", Value: ^uint64(0)}, {Field: "f", Value: []string{"x", "abcd"}}, {Field: "g", Value: id(8)}}},
	}
	salt := [saltSize]byte{1, 2, 3}
	d := newDictionary()
	var got strings.Builder
	for i := range events {
		var sc scratch
		text, err := sc.appendEvent(nil, &events[i], &salt)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "%x\n%s\n", d.appendCompact(nil, &events[i], &salt, sc.notes), text)
	}
	words := strings.Join(knownStrings(), " ")
	fmt.Fprintln(&got, words)
	path := filepath.Join("testdata", "compact.golden")
	if *updateForms {
		if err := os.WriteFile(path, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
	// And what was written opens, whatever is written today.
	lines := strings.Split(string(want), "\n")
	for i := 0; i < 2*len(events); i += 2 {
		form, err := hex.DecodeString(lines[i])
		if err != nil {
			t.Fatal(err)
		}
		if text, err := d.expand(nil, form); err != nil || string(text) != lines[i+1] {
			t.Errorf("opened %s, %v", text, err)
		}
	}
}

// inClear seals nothing: it shows what would be sealed.
type inClear struct{}

func (inClear) Seal(dst, plain []byte, _ storage.Place) []byte { return append(dst, plain...) }
func (inClear) Open(dst, sealed []byte, _ storage.Place) ([]byte, error) {
	return append(dst, sealed...), nil
}
func (inClear) Blind(string, string, []byte) []byte { return nil }
func (inClear) Current([]byte) bool                 { return true }

func TestTextForm(t *testing.T) {
	t.Parallel()
	r, err := New(strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	e := &storage.Event{Time: time.Unix(1, 0), To: storage.Intent{Action: "a.b"}, Outcome: "ok"}
	var salt [saltSize]byte
	var sc scratch
	text, err := sc.appendEvent(nil, e, &salt)
	if err != nil {
		t.Fatal(err)
	}
	for name, form := range map[string][]byte{
		"of another event": r.dict.appendCompact(nil, &storage.Event{To: e.To, Outcome: "ok"}, &salt, nil),
		"none":             nil,
		"cut":              r.dict.appendCompact(nil, e, &salt, nil)[:30],
	} {
		sc.form = form
		sc.settle(r.dict, text)
		leaf := entry.Leaf{Hash: LeafHash(text), Sealed: sc.form}
		if got, err := r.Open(inClear{}, storage.ID{}, leaf); err != nil || !bytes.Equal(got, text) {
			t.Errorf("a compact form %s: opened %q, %v", name, got, err)
		}
	}
	for name, form := range map[string][]byte{
		"empty":        {},
		"another form": append([]byte{2}, text...),
		"too long":     append([]byte{textForm}, make([]byte, MaxEvent+1)...),
		"more":         append(r.dict.appendCompact(nil, e, &salt, nil), 0),
	} {
		if _, err := r.dict.expand(nil, form); err == nil {
			t.Errorf("%s: it was read", name)
		}
	}
}

func FuzzExpand(f *testing.F) {
	d := newDictionary()
	var salt [saltSize]byte
	for _, notes := range [][]storage.Note{nil, {{Field: "rows", Value: 1}}, {{Field: "list", Value: []string{"a", "b"}}, {Field: "z", Value: true}}} {
		by := storage.AccountActor(storage.ID{1}, storage.ID{2}, storage.ID{3}, storage.ID{4}, nil,
			storage.Origin{Address: netip.MustParseAddr("192.0.2.7"), RequestID: "abcdef"})
		f.Add(d.appendCompact(nil, &storage.Event{Time: time.Unix(1, 0), By: by, To: storage.Intent{Action: "rows.insert", Object: "o"}, Outcome: "ok"}, &salt, notes))
	}
	f.Add([]byte{textForm, '{', '}'})
	f.Add(binary.AppendUvarint([]byte{compactForm}, 1<<62))
	f.Fuzz(func(t *testing.T, form []byte) {
		text, err := d.expand(nil, form)
		if len(text) > MaxEvent || err != nil && len(text) > 0 {
			t.Errorf("%d bytes, %v", len(text), err)
		}
		if err == nil && form[0] == compactForm && !json.Valid(text) {
			t.Errorf("%s is not JSON", text)
		}
	})
}
