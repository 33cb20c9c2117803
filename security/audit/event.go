package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"bulwark/storage"
)

// Version is the version of the canonical text that this code writes.
const Version = 1

// TimeLayout is the layout of an event's time, which is UTC.
const TimeLayout = "2006-01-02T15:04:05.000000Z"

// maxSafe is the largest integer that every JSON reader keeps exactly (RFC 7493, section 2.2).
const maxSafe = 1<<53 - 1

// appendEvent appends the canonical text of e to b.
func (sc *scratch) appendEvent(b []byte, e *storage.Event, salt *[saltSize]byte) ([]byte, error) {
	if y := e.Time.UTC().Year(); y < 0 || y > 9999 {
		return b, errors.New("making an audit event: the time's year is not between 0 and 9999")
	}
	b = append(b, `{"v":1,"id":`...)
	b = appendID(b, e.ID)
	b = append(b, `,"time":"`...)
	b = appendTime(b, e.Time)
	b = append(b, '"')
	if !e.Project.IsZero() {
		b = append(b, `,"project":`...)
		b = appendID(b, e.Project)
	}
	b = append(b, `,"actor":{"kind":"`...)
	b = append(b, e.By.Kind().String()...)
	b = append(b, '"')
	if id := e.By.Subject(); !id.IsZero() {
		b = append(b, `,"id":`...)
		b = appendID(b, id)
	}
	if id := e.By.Session(); !id.IsZero() {
		b = append(b, `,"session":`...)
		b = appendID(b, id)
	}
	if n := e.By.Name(); n != "" {
		b = append(b, `,"name":`...)
		b = appendString(b, n)
	}
	if a := e.By.Origin().Address; a.IsValid() {
		b = append(b, `,"addr":`...)
		if a.Zone() != "" {
			b = appendString(b, a.String())
		} else {
			b = append(a.AppendTo(append(b, '"')), '"')
		}
	}
	b = append(b, `},"action":`...)
	b = appendString(b, e.To.Action)
	if e.To.Object != "" {
		b = append(b, `,"object":`...)
		b = appendString(b, e.To.Object)
	}
	b = append(b, `,"outcome":`...)
	b = appendString(b, e.Outcome)
	if e.Reason != "" {
		b = append(b, `,"reason":`...)
		b = appendString(b, e.Reason)
	}
	if r := e.By.Origin().RequestID; r != "" {
		b = append(b, `,"request":`...)
		b = appendString(b, r)
	}
	if len(e.Notes) > 0 {
		var err error
		if b, err = sc.appendNotes(append(b, `,"notes":{`...), e.Notes); err != nil {
			return b, fmt.Errorf("making the audit event of %q: %w", e.To.Action, err)
		}
		b = append(b, '}')
	}
	b = append(b, `,"salt":"`...)
	b = base64.RawURLEncoding.AppendEncode(b, salt[:])
	return append(b, '"', '}'), nil
}

// appendNotes writes the notes sorted by field. Of two notes of one field the later counts.
func (sc *scratch) appendNotes(b []byte, notes []storage.Note) ([]byte, error) {
	sc.notes = append(sc.notes[:0], notes...)
	if len(notes) > 1 {
		slices.SortStableFunc(sc.notes, func(x, y storage.Note) int { return strings.Compare(x.Field, y.Field) })
	}
	first := true
	for i, n := range sc.notes {
		if i+1 < len(sc.notes) && sc.notes[i+1].Field == n.Field {
			continue
		}
		if !fieldName(n.Field) {
			return b, errors.New("a note's field must be 1 to 64 of a-z, 0-9 and _")
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(append(append(b, '"'), n.Field...), '"', ':')
		switch v := n.Value.(type) {
		case string:
			b = appendString(b, v)
		case bool:
			b = strconv.AppendBool(b, v)
		case int:
			b = appendInt(b, int64(v))
		case int64:
			b = appendInt(b, v)
		case int32:
			b = appendInt(b, int64(v))
		case int16:
			b = appendInt(b, int64(v))
		case int8:
			b = appendInt(b, int64(v))
		case uint:
			b = appendUint(b, uint64(v))
		case uint64:
			b = appendUint(b, v)
		case uint32:
			b = appendUint(b, uint64(v))
		case uint16:
			b = appendUint(b, uint64(v))
		case uint8:
			b = appendUint(b, uint64(v))
		case storage.ID:
			b = appendID(b, v)
		case []string:
			b = append(b, '[')
			for i, s := range v {
				if i > 0 {
					b = append(b, ',')
				}
				b = appendString(b, s)
			}
			b = append(b, ']')
		default:
			return b, fmt.Errorf("note %q has type %T: note a string, a bool, an integer, an ID or a []string", n.Field, n.Value)
		}
	}
	return b, nil
}

func fieldName(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

func appendInt(b []byte, v int64) []byte {
	if v > maxSafe || v < -maxSafe {
		return append(strconv.AppendInt(append(b, '"'), v, 10), '"')
	}
	return strconv.AppendInt(b, v, 10)
}

func appendUint(b []byte, v uint64) []byte {
	if v > math.MaxInt64 {
		return append(strconv.AppendUint(append(b, '"'), v, 10), '"')
	}
	return appendInt(b, int64(v))
}

func appendID(b []byte, id storage.ID) []byte {
	b = append(b, '"')
	b = hex.AppendEncode(b, id[0:4])
	b = append(b, '-')
	b = hex.AppendEncode(b, id[4:6])
	b = append(b, '-')
	b = hex.AppendEncode(b, id[6:8])
	b = append(b, '-')
	b = hex.AppendEncode(b, id[8:10])
	b = append(b, '-')
	b = hex.AppendEncode(b, id[10:16])
	return append(b, '"')
}

// appendTime is t.UTC().AppendFormat(b, TimeLayout), at a third of its cost.
func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	b = append(b, byte('0'+year/1000), byte('0'+year/100%10))
	b = append(appendTwo(b, year%100), '-')
	b = append(appendTwo(b, int(month)), '-')
	b = append(appendTwo(b, day), 'T')
	b = append(appendTwo(b, hour), ':')
	b = append(appendTwo(b, minute), ':')
	b = append(appendTwo(b, second), '.')
	micro := t.Nanosecond() / 1000
	b = appendTwo(b, micro/10000)
	b = appendTwo(b, micro/100%100)
	return append(appendTwo(b, micro%100), 'Z')
}

func appendTwo(b []byte, n int) []byte { return append(b, byte('0'+n/10), byte('0'+n%10)) }

// appendString writes s as RFC 8785, section 3.2.2.2, does. What is not UTF-8 becomes U+FFFD.
func appendString[S string | []byte](b []byte, s S) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := decodeRune(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[start:i]...), "\uFFFD"...)
				start = i + 1
			}
			i += n
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, '\\', 'b')
		case '\t':
			b = append(b, '\\', 't')
		case '\n':
			b = append(b, '\\', 'n')
		case '\f':
			b = append(b, '\\', 'f')
		case '\r':
			b = append(b, '\\', 'r')
		default:
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}

func decodeRune[S string | []byte](s S) (rune, int) {
	// No character is longer than four bytes: the conversion stays on the stack.
	return utf8.DecodeRuneInString(string(s[:min(len(s), utf8.UTFMax)]))
}

// A Record is an event as the log tells it.
type Record struct {
	Version int            `json:"v"`
	ID      storage.ID     `json:"id"`
	Time    time.Time      `json:"time"`
	Project storage.ID     `json:"project,omitzero"`
	Actor   RecordActor    `json:"actor"`
	Action  string         `json:"action"`
	Object  string         `json:"object,omitempty"`
	Outcome string         `json:"outcome"`
	Reason  string         `json:"reason,omitempty"`
	Request string         `json:"request,omitempty"`
	Notes   map[string]any `json:"notes,omitempty"` // string, int64, bool or []string
	Salt    string         `json:"salt"`
}

// A RecordActor says who acted.
type RecordActor struct {
	Kind    string     `json:"kind"`
	ID      storage.ID `json:"id,omitzero"`
	Session storage.ID `json:"session,omitzero"`
	Name    string     `json:"name,omitempty"`
	Addr    netip.Addr `json:"addr,omitzero"`
}

// Parse reads the canonical text of an event. A text of a version that this code does not know is refused.
func Parse(text []byte) (*Record, error) {
	if len(text) > MaxEvent {
		return nil, fmt.Errorf("reading an audit event: it has %d bytes, more than %d", len(text), MaxEvent)
	}
	if !bytes.HasPrefix(text, []byte(`{"v":1,`)) {
		if err := checkVersion(text); err != nil {
			return nil, err
		}
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	d.UseNumber()
	r := new(Record)
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("reading an audit event: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("reading an audit event: there is more after the event")
	}
	if r.Version != Version { // said twice
		return nil, errors.New("reading an audit event: it has two versions")
	}
	for field, v := range r.Notes {
		plain, err := noteValue(v)
		if err != nil {
			return nil, fmt.Errorf("reading note %q of an audit event: %w", field, err)
		}
		r.Notes[field] = plain
	}
	return r, nil
}

// checkVersion tells a newer version from what is not an event.
func checkVersion(text []byte) error {
	var head struct {
		Version int `json:"v"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return fmt.Errorf("reading an audit event: %w", err)
	}
	if head.Version != Version {
		return fmt.Errorf("reading an audit event: it has version %d and this program knows version %d: use a newer program",
			head.Version, Version)
	}
	return nil
}

func noteValue(v any) (any, error) {
	switch v := v.(type) {
	case string, bool:
		return v, nil
	case json.Number:
		return v.Int64()
	case []any:
		list := make([]string, len(v))
		for i, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, errors.New("a list holds something that is not a string")
			}
			list[i] = s
		}
		return list, nil
	}
	return nil, errors.New("it is neither a string, an integer, a boolean nor a list of strings")
}
