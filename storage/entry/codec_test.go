package entry

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func genBytes(least, most int) *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		b := rapid.SliceOfN(rapid.Byte(), least, most).Draw(t, "bytes")
		if len(b) == 0 {
			return nil
		}
		return b
	})
}

func genList[T any](t *rapid.T, name string, draw func(t *rapid.T) T) []T {
	return rapid.Custom(func(t *rapid.T) []T {
		n := rapid.IntRange(0, 5).Draw(t, "count")
		var list []T
		for range n {
			list = append(list, draw(t))
		}
		return list
	}).Draw(t, name)
}

// genEntry draws entries as Decode returns them: nothing that is empty is other than nil.
func genEntry(t *rapid.T) *Entry {
	id := rapid.Custom(func(t *rapid.T) (id ID) {
		copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		return id
	})
	projects := []ID{{}, {1}, {2}, id.Draw(t, "project")}
	tenants := []ID{System, {7}, id.Draw(t, "tenant")}
	space := func(t *rapid.T) Space {
		return Space{rapid.SampledFrom(projects).Draw(t, "project"), rapid.StringMatching(`[a-z]{1,3}`).Draw(t, "table")}
	}
	number := rapid.Uint64()
	return &Entry{
		ID: id.Draw(t, "id"), Tenant: rapid.SampledFrom(tenants).Draw(t, "own"), Revision: number.Draw(t, "revision"),
		Points: genList(t, "points", func(t *rapid.T) Point {
			return Point{space(t), genBytes(1, 9).Draw(t, "key"), number.Draw(t, "version")}
		}),
		Ranges: genList(t, "ranges", func(t *rapid.T) Range {
			r := Range{space(t), genBytes(0, 9).Draw(t, "from"), nil, number.Draw(t, "count")}
			if rapid.Bool().Draw(t, "ends") {
				r.To = append([]byte{}, genBytes(0, 9).Draw(t, "to")...)
			}
			return r
		}),
		Scopes: genList(t, "scopes", func(t *rapid.T) ScopePoint {
			return ScopePoint{rapid.SampledFrom(tenants).Draw(t, "t"), rapid.SampledFrom(projects).Draw(t, "p"), number.Draw(t, "r")}
		}),
		Writes: genList(t, "writes", func(t *rapid.T) Write {
			w := Write{Space: space(t), Key: genBytes(1, 9).Draw(t, "key"), Delete: rapid.Bool().Draw(t, "delete")}
			if !w.Delete {
				w.Value = genBytes(0, 200).Draw(t, "value")
			}
			return w
		}),
		Leaves: genList(t, "leaves", func(t *rapid.T) (l Leaf) {
			copy(l.Hash[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "hash"))
			l.Sealed = genBytes(0, 100).Draw(t, "sealed")
			return l
		}),
		Messages: genList(t, "messages", func(t *rapid.T) []byte { return genBytes(0, 100).Draw(t, "message") }),
		Keys: genList(t, "keys", func(t *rapid.T) KeyChange {
			return KeyChange{
				KeyKind(rapid.Byte().Draw(t, "kind")), rapid.SampledFrom(tenants).Draw(t, "t"), rapid.SampledFrom(projects).Draw(t, "p"),
				rapid.Uint32().Draw(t, "version"), genBytes(0, 60).Draw(t, "wrapped"),
			}
		}),
	}
}

func TestDecodeUndoesAppend(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := genEntry(t)
		encoded := Append([]byte("before"), e)[len("before"):]
		got, err := Decode(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, e) {
			t.Fatalf("decoded %+v, want %+v", got, e)
		}
		cut := rapid.IntRange(0, len(encoded)-1).Draw(t, "cut")
		if _, err := Decode(encoded[:cut]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("an entry cut to %d of %d bytes: %v", cut, len(encoded), err)
		}
		if _, err := Decode(append(encoded, 0)); !errors.Is(err, ErrDamaged) {
			t.Fatalf("an entry with a byte after it: %v", err)
		}
	})
}

func TestDecodeBatchUndoesAppendBatch(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		entries := []*Entry{}
		var encoded [][]byte
		for range rapid.IntRange(0, 4).Draw(t, "entries") {
			e := genEntry(t)
			entries = append(entries, e)
			encoded = append(encoded, Append(nil, e))
		}
		got, err := DecodeBatch(AppendBatch(nil, encoded))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, entries) {
			t.Fatal("a batch is not the entries that were put into it")
		}
	})
}

// golden is an entry with each of its parts.
func golden() *Entry {
	tenant, project := ID{0xaa, 15: 1}, ID{0xbb, 15: 2}
	rows, index := Space{project, "r1"}, Space{project, "r1#ix"}
	return &Entry{
		ID: ID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, Tenant: tenant, Revision: 300,
		Points: []Point{{index, []byte("hash"), 0}, {Space{ID{}, "accounts"}, []byte("a"), 299}},
		Ranges: []Range{{rows, []byte("a"), []byte("b"), 2}, {rows, nil, nil, 128}, {rows, nil, []byte{}, 0}},
		Scopes: []ScopePoint{{tenant, project, 7}, {tenant, ID{}, 6}, {System, ID{}, 1}},
		Writes: []Write{
			{rows, []byte{0, 0, 0, 0, 0, 0, 0, 1}, []byte("a sealed row"), false},
			{index, []byte("hash"), nil, false},
			{index, []byte("gone"), nil, true},
		},
		Leaves:   []Leaf{{[32]byte{1, 31: 2}, []byte("a sealed event")}},
		Messages: [][]byte{[]byte("a sealed message"), nil},
		Keys: []KeyChange{
			{PutKey, tenant, project, 2, []byte("a wrapped key")},
			{DropKey, tenant, project, 1, nil},
			{DestroyScope, ID{0xcc}, ID{}, 0, nil},
		},
	}
}

// TestGolden holds the encoding to files that never change: what was written once must be readable for ever.
func TestGolden(t *testing.T) {
	t.Parallel()
	full := Append(nil, golden())
	for name, encoded := range map[string][]byte{
		"entry-1": full,
		"least-1": Append(nil, &Entry{ID: ID{1}, Tenant: System}),
		"batch-1": AppendBatch(nil, [][]byte{full, Append(nil, &Entry{ID: ID{1}, Tenant: System})}),
	} {
		text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
		if err != nil {
			t.Fatal(err)
		}
		want, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(encoded, want) {
			t.Errorf("%s: encoded as\n%x, want\n%x", name, encoded, want)
		}
	}
	got, err := Decode(full)
	if err != nil || !reflect.DeepEqual(got, golden()) {
		t.Fatalf("decoded %+v (%v)", got, err)
	}
}

func TestNewerFormat(t *testing.T) {
	t.Parallel()
	newer := Append(nil, golden())
	newer[0] = 7
	batch := AppendBatch(nil, nil)
	batch[0] = 7
	_, err1 := Decode(newer)
	_, err2 := DecodeBatch(batch)
	_, err3 := DecodeBatch(AppendBatch(nil, [][]byte{Append(nil, golden()), newer}))
	for _, err := range []error{err1, err2, err3} {
		var e *NewerFormatError
		if !errors.As(err, &e) || e.Format != 7 || e.Known != Format {
			t.Fatalf("a newer format gives %v", err)
		}
	}
	if want := "this entry was written by a newer Bulwark (format 7); this one knows 1: upgrade this node"; err1.Error() != want {
		t.Fatalf("the error says %q, want %q", err1, want)
	}
}

// TestNothingIsMadeFromAnUncheckedLength decodes small inputs that promise much.
func TestNothingIsMadeFromAnUncheckedLength(t *testing.T) {
	t.Parallel()
	head := append([]byte{Format}, make([]byte, 33)...) // id, tenant, revision
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}
	many := []byte{0xa0, 0x8d, 0x06} // 100,000
	for _, count := range [][]byte{huge, many} {
		for empty := range 8 {
			b := append(append(append([]byte{}, head...), make([]byte, empty)...), count...)
			if _, err := Decode(append(b, 1, 1, 1)); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrLimit) {
				t.Fatalf("count %x after %d empty parts: %v", count, empty, err)
			}
		}
		if _, err := SplitBatch(append([]byte{Format}, count...)); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrLimit) {
			t.Fatalf("a batch of %x: %v", count, err)
		}
	}
	if _, err := Decode(make([]byte, MaxEntry+1)); err == nil {
		t.Fatal("an entry that is too long is accepted")
	}
	if _, err := Decode(append([]byte{Format}, make([]byte, MaxEntry)...)); !errors.Is(err, ErrLimit) {
		t.Fatalf("an entry that is too long: %v", err)
	}
}

func TestOneEncodingOnly(t *testing.T) {
	t.Parallel()
	tenant := bytes.Repeat([]byte{9}, 16)
	entryOf := func(parts ...[]byte) []byte {
		b := append([]byte{Format}, bytes.Repeat([]byte{1}, 16)...)
		b = append(append(b, tenant...), 5) // revision
		return append(b, bytes.Join(parts, nil)...)
	}
	a := []byte{0, 1, 'a'}
	bTable := []byte{0, 1, 'b'}
	writeTo := func(space byte) []byte { return []byte{space, 1, 'k', 0} }
	for name, c := range map[string]struct {
		b  []byte
		ok bool
	}{
		"one table":                {entryOf([]byte{1}, a, []byte{0, 0, 0, 1}, writeTo(0), []byte{0, 0, 0}), true},
		"two tables":               {entryOf([]byte{2}, a, bTable, []byte{0, 0, 0, 2}, writeTo(0), writeTo(1), []byte{0, 0, 0}), true},
		"two tables, out of order": {entryOf([]byte{2}, a, bTable, []byte{0, 0, 0, 2}, writeTo(1), writeTo(0), []byte{0, 0, 0}), false},
		"a table that is not used": {entryOf([]byte{1}, a, []byte{0, 0, 0, 0, 0, 0, 0}), false},
		"a table named twice":      {entryOf([]byte{2}, a, a, []byte{0, 0, 0, 2}, writeTo(0), writeTo(1), []byte{0, 0, 0}), false},
		"a table that is not there": {
			entryOf([]byte{1}, a, []byte{0, 0, 0, 2}, writeTo(0), writeTo(1), []byte{0, 0, 0}), false,
		},
		"a long zero":           {entryOf([]byte{0x80, 0}, make([]byte, 7)), false},
		"an unknown flag":       {entryOf([]byte{1, 4, 1, 'a', 0, 0, 0, 1}, writeTo(0), []byte{0, 0, 0}), false},
		"a zero project":        {entryOf([]byte{1, 2}, make([]byte, 16), []byte{1, 'a', 0, 0, 0, 1}, writeTo(0), []byte{0, 0, 0}), false},
		"another tenant's rows": {entryOf([]byte{1, 1}, make([]byte, 16), []byte{1, 'a', 0, 0, 0, 1}, writeTo(0), []byte{0, 0, 0}), false},
		"its own tenant, named": {entryOf([]byte{0, 0, 0, 1, 1}, tenant, []byte{0, 0, 0, 0, 0}), false},
	} {
		if e, err := Decode(c.b); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		} else if err == nil && !bytes.Equal(Append(nil, e), c.b) {
			t.Errorf("%s: it is encoded otherwise", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Append(nil, golden()))
	f.Add(Append(nil, &Entry{}))
	f.Add([]byte{})
	f.Add(append(append([]byte{Format}, make([]byte, 33)...), 0, 0xa0, 0x8d, 0x06, 1, 1)) // 100,000 points in two bytes
	f.Add([]byte{Format + 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		e, err := Decode(b)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20+uint64(len(b))*64 {
			t.Fatalf("decoding %d bytes took %d bytes of memory", len(b), used)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(Append(nil, e), b) {
			t.Fatal("what was decoded is encoded otherwise")
		}
	})
}

func FuzzDecodeBatch(f *testing.F) {
	f.Add(AppendBatch(nil, [][]byte{Append(nil, golden()), Append(nil, &Entry{})}))
	f.Add(AppendBatch(nil, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := DecodeBatch(b)
		if err != nil {
			return
		}
		var encoded [][]byte
		for _, e := range entries {
			encoded = append(encoded, Append(nil, e))
		}
		if !bytes.Equal(AppendBatch(nil, encoded), b) {
			t.Fatal("what was decoded is encoded otherwise")
		}
	})
}

func TestValidateLimits(t *testing.T) {
	t.Parallel()
	sp := Space{Table: "a"}
	with := func(change func(*Entry)) *Entry {
		e := &Entry{ID: ID{1}, Tenant: ID{2}}
		change(e)
		return e
	}
	write := func(key, value int) func(*Entry) {
		return func(e *Entry) {
			e.Writes = append(e.Writes, Write{Space: sp, Key: make([]byte, key), Value: make([]byte, value)})
		}
	}
	for name, c := range map[string]struct {
		e    *Entry
		want error
	}{
		"nothing":                      {with(func(*Entry) {}), nil},
		"no id":                        {with(func(e *Entry) { e.ID = ID{} }), ErrRule},
		"no tenant":                    {with(func(e *Entry) { e.Tenant = ID{} }), ErrRule},
		"the longest key":              {with(write(MaxKey, 0)), nil},
		"a longer key":                 {with(write(MaxKey+1, 0)), ErrLimit},
		"the longest value":            {with(write(1, MaxValue)), nil},
		"a longer value":               {with(write(1, MaxValue+1)), ErrLimit},
		"values beyond an entry":       {with(func(e *Entry) { write(1, MaxValue)(e); write(2, MaxValue)(e) }), ErrLimit},
		"the longest table":            {with(func(e *Entry) { e.Points = []Point{{Space{Table: strings.Repeat("t", MaxTable)}, []byte{1}, 0}} }), nil},
		"a longer table":               {with(func(e *Entry) { e.Points = []Point{{Space{Table: strings.Repeat("t", MaxTable+1)}, []byte{1}, 0}} }), ErrLimit},
		"a longer end of a range":      {with(func(e *Entry) { e.Ranges = []Range{{Space: sp, To: make([]byte, MaxKey+1)}} }), ErrLimit},
		"as many scopes as may be":     {with(func(e *Entry) { e.Scopes = make([]ScopePoint, MaxItems) }), nil},
		"more scopes":                  {with(func(e *Entry) { e.Scopes = make([]ScopePoint, MaxItems+1) }), ErrLimit},
		"more leaves":                  {with(func(e *Entry) { e.Leaves = make([]Leaf, MaxItems+1) }), ErrLimit},
		"a longer message":             {with(func(e *Entry) { e.Messages = [][]byte{make([]byte, MaxValue+1)} }), ErrLimit},
		"a longer sealed event":        {with(func(e *Entry) { e.Leaves = []Leaf{{Sealed: make([]byte, MaxValue+1)}} }), ErrLimit},
		"a longer wrapped key":         {with(func(e *Entry) { e.Keys = []KeyChange{{PutKey, ID{2}, ID{3}, 1, make([]byte, MaxWrapped+1)}} }), ErrLimit},
		"a delete with a value":        {with(func(e *Entry) { e.Writes = []Write{{sp, []byte{1}, []byte{1}, true}} }), ErrRule},
		"a delete from the outbox":     {with(func(e *Entry) { e.Writes = []Write{{Space{Table: Outbox}, []byte{1}, nil, true}} }), nil},
		"a project's table \"outbox\"": {with(func(e *Entry) { e.Writes = []Write{{Space{ID{3}, Outbox}, []byte{1}, nil, false}} }), nil},
		"more tables": {with(func(e *Entry) {
			for i := range MaxSpaces + 1 {
				e.Points = append(e.Points, Point{Space{ID{byte(i), byte(i >> 8)}, "t"}, []byte{1}, 0})
			}
		}), ErrLimit},
	} {
		err := c.e.Validate()
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if err == nil {
			if _, err := Decode(Append(nil, c.e)); err != nil {
				t.Errorf("%s: valid, but not decoded: %v", name, err)
			}
		}
	}
}

func BenchmarkCodec(b *testing.B) {
	e := &Entry{ID: ID{1}, Tenant: ID{2}, Revision: 5, Scopes: []ScopePoint{{ID{2}, ID{3}, 4}},
		Points: []Point{{Space{ID{3}, "r1#ix"}, make([]byte, 16), 0}},
		Writes: []Write{{Space{ID{3}, "r1"}, make([]byte, 8), make([]byte, 1150), false},
			{Space{ID{3}, "r1#ix"}, make([]byte, 16), make([]byte, 8), false}},
		Leaves: []Leaf{{Sealed: make([]byte, 350)}}}
	encoded := Append(nil, e)
	b.Run("Append", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, len(encoded))
		for b.Loop() {
			buf = Append(buf[:0], e)
		}
		b.ReportMetric(float64(len(encoded)), "bytes")
	})
	b.Run("Decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Decode(encoded); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Validate", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := e.Validate(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
