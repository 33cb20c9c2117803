package table

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxJSONDepth bounds the nesting of a json or jsonb value.
const MaxJSONDepth = 100

var errStored = errors.New("a stored row is not the JSON that was written")

// appendQuoted appends s as a JSON string.
func appendQuoted(dst []byte, s string) []byte {
	plain := true
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			plain = false
			break
		}
	}
	if plain {
		return append(append(append(dst, '"'), s...), '"')
	}
	dst, _ = jsontext.AppendQuote(dst, s) // its only error is bad UTF-8, which it replaces and parseLiteral refuses
	return dst
}

// unquote returns the text of a JSON string, and any other JSON value as it is written.
func unquote(raw []byte) (string, error) {
	if len(raw) == 0 {
		return "", errStored
	}
	if raw[0] != '"' {
		return string(raw), nil
	}
	if len(raw) < 2 || raw[len(raw)-1] != '"' {
		return "", errStored
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), nil
	}
	text, err := jsontext.AppendUnquote(nil, raw)
	if err != nil {
		return "", bad(CodeBadLiteral, "invalid input syntax for type json")
	}
	return string(text), nil
}

func parseJSON(text string) (value, error) {
	if len(text) > MaxRowBytes {
		return value{}, tooLargeRow()
	}
	text = strings.TrimSpace(text)
	if !utf8.ValidString(text) || !shallow(text) || !json.Valid([]byte(text)) {
		return value{}, badLiteral(JSON, text)
	}
	return value{k: kJSON, s: text}, nil
}

// shallow reports whether text nests at most MaxJSONDepth deep.
func shallow(text string) bool {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{', c == '[':
			if depth++; depth > MaxJSONDepth {
				return false
			}
		case c == '}', c == ']':
			depth--
		}
	}
	return true
}

// canonicalJSON returns jsonb's form of text: no white space, the last of duplicate names, names sorted by length and then
// bytewise (as jsonb stores them), numbers with their digits kept.
func canonicalJSON(text string) (string, error) {
	v, err := decodeJSON(text)
	if err != nil {
		return "", err
	}
	return string(appendCanonical(nil, v)), nil
}

func decodeJSON(text string) (any, error) {
	if len(text) > MaxRowBytes {
		return nil, tooLargeRow()
	}
	if !utf8.ValidString(text) || !shallow(text) {
		return nil, badLiteral(JSON, text)
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, badLiteral(JSON, text)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, badLiteral(JSON, text)
	}
	return v, checkJSON(v)
}

// checkJSON refuses what jsonb cannot hold: a NUL in a string, and a number out of numeric's bounds.
func checkJSON(v any) error {
	switch v := v.(type) {
	case string:
		if strings.IndexByte(v, 0) >= 0 {
			return bad(CodeBadCharacter, "unsupported Unicode escape sequence: \\u0000 cannot be converted to text")
		}
	case json.Number:
		if _, ok, inRange := parseDecimal(string(v)); !ok || !inRange {
			return bad(CodeOutOfRange, "value overflows numeric format")
		}
	case []any:
		for _, e := range v {
			if err := checkJSON(e); err != nil {
				return err
			}
		}
	case map[string]any:
		for name, e := range v {
			if err := errors.Join(checkJSON(name), checkJSON(e)); err != nil {
				return err
			}
		}
	}
	return nil
}

func appendCanonical(dst []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...)
	case bool:
		return boolean(v).appendJSON(dst, Bool)
	case json.Number:
		d, _, _ := parseDecimal(string(v))
		return append(dst, d.String()...)
	case string:
		return appendQuoted(dst, v)
	case []any:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendCanonical(dst, e)
		}
		return append(dst, ']')
	case map[string]any:
		dst = append(dst, '{')
		for i, name := range names(v) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendQuoted(dst, name), ':')
			dst = appendCanonical(dst, v[name])
		}
		return append(dst, '}')
	}
	return dst
}

func names(v map[string]any) []string {
	list := make([]string, 0, len(v))
	for name := range v {
		list = append(list, name)
	}
	slices.SortFunc(list, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	return list
}

// orderJSON appends a form of a jsonb text whose bytewise order is jsonb's (PostgreSQL's manual, 8.14.4):
// object > array > boolean > number > string > null, longer objects and arrays above shorter ones.
func orderJSON(dst []byte, text string) []byte {
	v, err := decodeJSON(text)
	if err != nil {
		return append(append(dst, text...), 0)
	}
	return appendJSONOrder(dst, v)
}

func appendJSONOrder(dst []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		return append(append(append(dst, 2), v...), 0)
	case json.Number:
		d, _, _ := parseDecimal(string(v))
		return d.appendOrder(append(dst, 3))
	case bool:
		return boolean(v).appendOrder(append(dst, 4))
	case []any:
		dst = binary.BigEndian.AppendUint32(append(dst, 5), uint32(len(v)))
		for _, e := range v {
			dst = appendJSONOrder(dst, e)
		}
		return dst
	case map[string]any:
		dst = binary.BigEndian.AppendUint32(append(dst, 6), uint32(len(v)))
		for _, name := range names(v) {
			dst = append(append(dst, name...), 0)
			dst = appendJSONOrder(dst, v[name])
		}
		return dst
	}
	return append(dst, 1)
}

// jsonMember returns the member of a JSON text that key names (an object's name, or an array's index, negative from the
// end), as JSON text.
func jsonMember(text string, key value) (string, bool) {
	var found []byte
	if key.k == kInt {
		var list []json.RawMessage
		if json.Unmarshal([]byte(text), &list) != nil {
			return "", false
		}
		at := key.i
		if at < 0 {
			at += int64(len(list))
		}
		if at < 0 || at >= int64(len(list)) {
			return "", false
		}
		found = list[at]
	} else {
		var object map[string]json.RawMessage
		if json.Unmarshal([]byte(text), &object) != nil {
			return "", false
		}
		raw, ok := object[key.s]
		if !ok {
			return "", false
		}
		found = raw
	}
	return string(found), true
}

func tooLargeRow() error {
	return bad(CodeTooLarge, "a row is limited to %d bytes of JSON: store large values as objects", MaxRowBytes)
}
