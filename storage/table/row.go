package table

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
)

// A stored row is a header (format byte, and four bytes of the shape: which columns in which order) followed by a JSON
// object that has each of those columns, in that order, without white space around names and values. Where the shape is
// the table's present one the object is what a select of every column answers.
const (
	rowFormat = 1
	rowHeader = 5
)

func shapeOf(columns []Column) uint32 {
	h := fnv.New32a()
	for i := range columns {
		h.Write([]byte(columns[i].Name))
		h.Write([]byte{0})
		h.Write([]byte(columns[i].Type))
		h.Write([]byte{0})
	}
	return h.Sum32()
}

// A row gives the columns of one stored row. Columns are found by one pass over the bytes, no farther than the last
// column that was asked for.
type row struct {
	t     *tableInfo
	json  []byte
	spans []span
	found int
	at    int
}

type span struct{ from, to int }

// set makes r the row that is stored as data.
func (r *row) set(data []byte) error {
	if len(data) < rowHeader+2 || data[0] != rowFormat {
		return damaged("a row has an unknown format")
	}
	shape := binary.BigEndian.Uint32(data[1:rowHeader])
	r.json, r.spans, r.found, r.at = data[rowHeader:], r.spans[:0], 0, 1
	if shape != r.t.shape {
		return r.reshape()
	}
	return nil
}

// reshape rewrites a row of an older shape: columns that it lacks are null, those that the table lost are left out.
func (r *row) reshape() error {
	old := make(map[string][]byte)
	for at := 1; at < len(r.json) && r.json[at] != '}'; {
		name, from, to, next := member(r.json, at)
		if next < 0 {
			return damaged("a row cannot be read")
		}
		text, err := unquote(name)
		if err != nil {
			return damaged("a row cannot be read")
		}
		old[text] = r.json[from:to]
		at = next
	}
	out := []byte{'{'}
	for i := range r.t.Columns {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, r.t.quoted[i]...)
		if raw, ok := old[r.t.Columns[i].Name]; ok {
			out = append(out, raw...)
		} else {
			out = append(out, "null"...)
		}
	}
	r.json = append(out, '}')
	return nil
}

// raw returns column i's JSON.
func (r *row) raw(i int) ([]byte, error) {
	for r.found <= i {
		_, from, to, next := member(r.json, r.at)
		if next < 0 {
			return nil, damaged("a row cannot be read")
		}
		r.spans = append(r.spans, span{from, to})
		r.found, r.at = r.found+1, next
	}
	s := r.spans[i]
	return r.json[s.from:s.to], nil
}

func (r *row) value(i int) (value, error) {
	raw, err := r.raw(i)
	if err != nil {
		return value{}, err
	}
	v, err := fromStored(r.t.Columns[i].Type, raw)
	if err != nil {
		return value{}, damaged("a column cannot be read")
	}
	return v, nil
}

// member finds the member of an object that begins at at: its quoted name, its value, and where the next one begins (or
// the closing brace). next is -1 if there is none.
func member(json []byte, at int) (name []byte, from, to, next int) {
	if at >= len(json) || json[at] != '"' {
		return nil, 0, 0, -1
	}
	end := skipString(json, at)
	if end < 0 || end >= len(json) || json[end] != ':' {
		return nil, 0, 0, -1
	}
	name, from = json[at:end], end+1
	if to = skipValue(json, from); to < 0 || to >= len(json) {
		return nil, 0, 0, -1
	}
	switch json[to] {
	case ',':
		return name, from, to, to + 1
	case '}':
		return name, from, to, to
	}
	return nil, 0, 0, -1
}

// skipString returns the index after the string that begins at at, or -1.
func skipString(json []byte, at int) int {
	for i := at + 1; i < len(json); {
		n := bytes.IndexByte(json[i:], '"')
		if n < 0 {
			return -1
		}
		quote := i + n
		escapes := 0
		for quote-1-escapes > at && json[quote-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return quote + 1
		}
		i = quote + 1
	}
	return -1
}

// skipValue returns the index after the value that begins at at, or -1.
func skipValue(json []byte, at int) int {
	if at >= len(json) {
		return -1
	}
	switch json[at] {
	case '"':
		return skipString(json, at)
	case '{', '[':
		depth := 0
		for i := at; i < len(json); i++ {
			switch json[i] {
			case '"':
				if i = skipString(json, i); i < 0 {
					return -1
				}
				i--
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
		return -1
	}
	for i := at; i < len(json); i++ {
		if c := json[i]; c == ',' || c == '}' {
			return i
		}
	}
	return -1
}

// appendRow appends the stored form of a row.
func appendRow(dst []byte, t *tableInfo, values []value) []byte {
	dst = append(dst, rowFormat)
	dst = binary.BigEndian.AppendUint32(dst, t.shape)
	dst = append(dst, '{')
	for i := range t.Columns {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, t.quoted[i]...)
		dst = values[i].appendJSON(dst, t.Columns[i].Type)
	}
	return append(dst, '}')
}

// project returns the row as the answer has it: whole (nil) or the outputs asked for.
func (r *row) project(out []output) ([]byte, error) {
	if out == nil {
		return bytes.Clone(r.json), nil
	}
	dst := make([]byte, 0, 64)
	dst = append(dst, '{')
	for i := range out {
		if i > 0 {
			dst = append(dst, ',')
		}
		raw, err := r.raw(out[i].column)
		if err != nil {
			return nil, err
		}
		dst = append(append(dst, out[i].quoted...), raw...)
	}
	return append(dst, '}'), nil
}

// An output is one column of an answer, its name quoted and followed by a colon.
type output struct {
	column int
	quoted []byte
}

func quoteName(name string) []byte { return append(appendQuoted(nil, name), ':') }
