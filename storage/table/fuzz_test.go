package table

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// A literal that is accepted has a text form that is read back as an equal value, and a JSON form that is valid and is
// read back from a stored row.
func FuzzLiteral(f *testing.F) {
	types := []Type{Text, Int2, Int4, Int8, Float4, Float8, Numeric, Bool, UUID, Date, Timestamp, Timestamptz, JSON, JSONB}
	for i := range types {
		for _, s := range []string{"", "1", "-0.50", "1e5", "1e999999999", "NaN", "infinity", "true", "2026-01-02T03:04:05.6+02:30", "2026-1-2",
			"{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}", `{"a":[1,"\u00e9\u0000",null]}`, `"\ud800"`, "[[[[", "\xff", "0001-01-01 24:00:00-15"} {
			f.Add(byte(i), s)
		}
	}
	f.Fuzz(func(t *testing.T, n byte, s string) {
		ty := types[int(n)%len(types)]
		v, err := parseLiteral(ty, s)
		if err != nil || len(s) > 10_000 {
			return
		}
		if v.k != kJSON {
			again, err := parseLiteral(ty, v.text())
			if err != nil || compare(v, again) != 0 {
				t.Fatalf("%s %q is %q, which is read as %q, %v", ty, s, v.text(), again.text(), err)
			}
		}
		raw := v.appendJSON(nil, ty)
		if !json.Valid(raw) {
			t.Fatalf("%s %q is stored as %s", ty, s, raw)
		}
		if end := skipValue([]byte(string(raw)+"}"), 0); end != len(raw) {
			t.Fatalf("%s %q: its stored form ends at %d of %d", ty, s, end, len(raw))
		}
		if string(raw) == "null" {
			return // JSON's null is kept as SQL's
		}
		back, err := fromStored(ty, raw)
		if err != nil || v.k != kJSON && compare(v, back) != 0 || v.k == kJSON && back.s != v.s {
			t.Fatalf("%s %q is stored as %s, which is read as %q, %v", ty, s, raw, back.text(), err)
		}
	})
}

// The bytewise order of order keys is the order of values, and no key begins with another.
func FuzzOrder(f *testing.F) {
	types := []Type{Text, Int8, Float8, Numeric, Timestamptz, JSONB, UUID, Bool}
	f.Add(byte(0), "a", "ab")
	f.Add(byte(1), "-1", "1")
	f.Add(byte(2), "-0", "NaN")
	f.Add(byte(3), "-1.5", "-1.50")
	f.Add(byte(3), "1e-7", "100")
	f.Add(byte(3), "-10", "-1")
	f.Add(byte(5), `{"a":1}`, `[1]`)
	f.Add(byte(5), `{"a":1}`, `{"a":1.0}`)
	f.Fuzz(func(t *testing.T, n byte, x, y string) {
		ty := types[int(n)%len(types)]
		a, errA := parseLiteral(ty, x)
		b, errB := parseLiteral(ty, y)
		if errA != nil || errB != nil {
			return
		}
		ka, kb := string(a.appendOrder(nil)), string(b.appendOrder(nil))
		if got, want := strings.Compare(ka, kb), compare(a, b); got != want {
			t.Fatalf("%s: keys of %q and %q compare as %d, the values as %d", ty, x, y, got, want)
		}
		if ka != kb && strings.HasPrefix(kb, ka) {
			t.Fatalf("%s: the key of %q begins with that of %q", ty, y, x)
		}
		up, down := term{}, term{desc: true}
		if got := strings.Compare(string(down.appendKey(nil, a)), string(down.appendKey(nil, b))); got != -strings.Compare(string(up.appendKey(nil, a)), string(up.appendKey(nil, b))) {
			t.Fatalf("%s: %q and %q are not the other way round in descending order", ty, x, y)
		}
	})
}

// Whatever bytes a row has, reading it is an error or a value, never a panic.
func FuzzRow(f *testing.F) {
	info, err := compileTable(&Table{Schema: "public", Name: "t", Space: "t", Columns: []Column{{Name: "a", Type: Text}, {Name: "b", Type: JSONB}, {Name: "c", Type: Int4}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(appendRow(nil, info, []value{{k: kText, s: `x"\`}, {k: kJSONB, s: `{"a":["}"]}`}, {k: kInt, i: 3}}))
	f.Add([]byte("\x01\x00\x00\x00\x00{\"a\":\"\\u0041\",\"zz\":[1],\"c\":4}"))
	f.Add([]byte("\x01\x00\x00\x00\x00{\"a\":\"\\"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &row{t: info}
		if r.set(data) != nil {
			return
		}
		for i := range info.Columns {
			if _, err := r.value(i); err != nil {
				return
			}
		}
	})
}

// LIKE agrees with the plain recursive definition.
func FuzzLike(f *testing.F) {
	f.Add("abc", "a%c")
	f.Add("a%c", `a\%_`)
	f.Add("", "%%")
	f.Add("äb", "_b")
	f.Fuzz(func(t *testing.T, text, pattern string) {
		if len(text) > 12 || len(pattern) > 12 || !utf8.ValidString(text) || !utf8.ValidString(pattern) {
			return
		}
		got, err := like(text, pattern)
		if err != nil {
			return
		}
		if want := likeSlowly([]rune(text), []rune(pattern)); got.isTrue() != want {
			t.Fatalf("%q like %q is %v", text, pattern, got.isTrue())
		}
	})
}

func likeSlowly(text, pattern []rune) bool {
	switch {
	case len(pattern) == 0:
		return len(text) == 0
	case pattern[0] == '%':
		return likeSlowly(text, pattern[1:]) || len(text) > 0 && likeSlowly(text[1:], pattern)
	case len(text) == 0:
		return false
	case pattern[0] == '_':
		return likeSlowly(text[1:], pattern[1:])
	case pattern[0] == '\\' && len(pattern) > 1:
		return text[0] == pattern[1] && likeSlowly(text[1:], pattern[2:])
	case pattern[0] == '\\':
		return false
	}
	return text[0] == pattern[0] && likeSlowly(text[1:], pattern[1:])
}
