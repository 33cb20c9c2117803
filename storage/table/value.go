package table

import (
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A kind is how a value is held; several column types share one.
type kind uint8

const (
	kNull kind = iota
	kBool
	kInt
	kFloat
	kNum
	kText
	kUUID
	kDate
	kStamp   // timestamp
	kInstant // timestamptz
	kJSON
	kJSONB
)

// A value is one value of SQL. i holds bool (0, 1), integers, days and microseconds; s holds text, a UUID in canonical
// lower case, JSON as text, and for jsonb its canonical form.
type value struct {
	k kind
	i int64
	f float64
	s string
	d *decimal
}

func kindOf(t Type) kind {
	switch t {
	case Text, Varchar, "":
		return kText
	case Int2, Int4, Int8:
		return kInt
	case Float4, Float8:
		return kFloat
	case Numeric:
		return kNum
	case Bool:
		return kBool
	case UUID:
		return kUUID
	case Date:
		return kDate
	case Timestamp:
		return kStamp
	case Timestamptz:
		return kInstant
	case JSON:
		return kJSON
	case JSONB:
		return kJSONB
	}
	return kNull
}

func boolean(b bool) value {
	if b {
		return value{k: kBool, i: 1}
	}
	return value{k: kBool}
}

func (v value) null() bool   { return v.k == kNull }
func (v value) isTrue() bool { return v.k == kBool && v.i == 1 }

// parseLiteral reads a literal of type t as PostgreSQL's input function would.
func parseLiteral(t Type, text string) (value, error) {
	switch kindOf(t) {
	case kText:
		if strings.IndexByte(text, 0) >= 0 || !utf8.ValidString(text) {
			return value{}, bad(CodeBadCharacter, "text cannot hold a NUL character or bytes that are not UTF-8")
		}
		return value{k: kText, s: text}, nil
	case kBool:
		return parseBool(text)
	case kInt:
		return parseInt(t, text)
	case kFloat:
		return parseFloat(t, text)
	case kNum:
		d, ok, inRange := parseDecimal(text)
		if !ok {
			return value{}, badLiteral(t, text)
		}
		if !inRange {
			return value{}, bad(CodeOutOfRange, "value overflows numeric format")
		}
		return value{k: kNum, d: &d}, nil
	case kUUID:
		return parseUUID(text)
	case kDate, kStamp, kInstant:
		micros, ok := parseInstant(text)
		if !ok {
			return value{}, badLiteral(t, text)
		}
		if t == Date {
			return value{k: kDate, i: floorDay(micros)}, nil
		}
		return value{k: kindOf(t), i: micros}, nil
	case kJSON:
		return parseJSON(text)
	case kJSONB:
		s, err := canonicalJSON(text)
		return value{k: kJSONB, s: s}, err
	}
	return value{}, bad(CodeBadType, "type %q is not supported", string(t))
}

func parseBool(text string) (value, error) {
	word := strings.ToLower(strings.TrimSpace(text))
	switch {
	case word == "1", word == "on", word != "" && (strings.HasPrefix("true", word) || strings.HasPrefix("yes", word)):
		return boolean(true), nil
	case word == "0", word == "of", word == "off", word != "" && (strings.HasPrefix("false", word) || strings.HasPrefix("no", word)):
		return boolean(false), nil
	}
	return value{}, badLiteral(Bool, text)
}

func intBits(t Type) int {
	switch t {
	case Int2:
		return 16
	case Int4:
		return 32
	}
	return 64
}

func parseInt(t Type, text string) (value, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, intBits(t))
	if errors.Is(err, strconv.ErrRange) {
		return value{}, outOfRange(t, text)
	}
	if err != nil {
		return value{}, badLiteral(t, text)
	}
	return value{k: kInt, i: n}, nil
}

func parseFloat(t Type, text string) (value, error) {
	bits := 64
	if t == Float4 {
		bits = 32
	}
	word := strings.TrimSpace(text)
	if strings.ContainsAny(word, "xXpP_") { // Go's own syntax, not PostgreSQL's
		return value{}, badLiteral(t, text)
	}
	f, err := strconv.ParseFloat(word, bits)
	if errors.Is(err, strconv.ErrRange) {
		return value{}, outOfRange(t, text)
	}
	if err != nil {
		return value{}, badLiteral(t, text)
	}
	return value{k: kFloat, f: f}, nil
}

// parseUUID accepts PostgreSQL's spellings: upper case, braces, and a hyphen after any group of four digits or none.
func parseUUID(text string) (value, error) {
	s := text
	if len(s) > 2 && s[0] == '{' && s[len(s)-1] == '}' {
		s = s[1 : len(s)-1]
	}
	var b [36]byte
	n, digit := 0, 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '-' && digit > 0 && digit < 32 && digit%4 == 0 && s[i-1] != '-':
			continue
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f':
		case c >= 'A' && c <= 'F':
			c += 'a' - 'A'
		default:
			return value{}, badLiteral(UUID, text)
		}
		if digit == 32 {
			return value{}, badLiteral(UUID, text)
		}
		if n == 8 || n == 13 || n == 18 || n == 23 {
			b[n] = '-'
			n++
		}
		b[n] = c
		n++
		digit++
	}
	if digit != 32 || s[len(s)-1] == '-' {
		return value{}, badLiteral(UUID, text)
	}
	return value{k: kUUID, s: string(b[:])}, nil
}

// text is PostgreSQL's text form.
func (v value) text() string {
	switch v.k {
	case kBool:
		if v.i == 1 {
			return "true"
		}
		return "false"
	case kInt:
		return strconv.FormatInt(v.i, 10)
	case kFloat:
		return formatFloat(v.f, 64)
	case kNum:
		return v.d.String()
	case kDate:
		return formatDate(v.i)
	case kStamp:
		return formatInstant(v.i, Timestamp, ' ')
	case kInstant:
		return formatInstant(v.i, Timestamptz, ' ')
	}
	return v.s
}

func formatFloat(f float64, bits int) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return strconv.FormatFloat(f, 'g', -1, bits)
}

// appendJSON appends the value as PostgreSQL's row_to_json writes a column of type t.
func (v value) appendJSON(dst []byte, t Type) []byte {
	switch v.k {
	case kNull:
		return append(dst, "null"...)
	case kBool, kInt, kNum:
		return append(dst, v.text()...)
	case kFloat:
		bits := 64
		if t == Float4 {
			bits = 32
		}
		if math.IsNaN(v.f) || math.IsInf(v.f, 0) {
			return append(append(append(dst, '"'), formatFloat(v.f, bits)...), '"')
		}
		return append(dst, formatFloat(v.f, bits)...)
	case kJSON, kJSONB:
		return append(dst, v.s...)
	case kStamp:
		return append(append(append(dst, '"'), formatInstant(v.i, Timestamp, 'T')...), '"')
	case kInstant:
		return append(append(append(dst, '"'), formatInstant(v.i, Timestamptz, 'T')...), '"')
	case kUUID, kDate:
		return append(append(append(dst, '"'), v.text()...), '"')
	}
	return appendQuoted(dst, v.s)
}

// fromStored reads a column of a stored row: JSON that appendJSON wrote.
func fromStored(t Type, raw []byte) (value, error) {
	if string(raw) == "null" {
		return value{}, nil
	}
	k := kindOf(t)
	if k == kJSON || k == kJSONB {
		return value{k: k, s: string(raw)}, nil
	}
	text, err := unquote(raw)
	if err != nil {
		return value{}, err
	}
	if k == kText || k == kUUID {
		return value{k: k, s: text}, nil
	}
	return parseLiteral(t, text)
}

// fromClient reads a JSON value that a client gave for a column, as PostgreSQL's json_populate_record does.
func fromClient(c *Column, raw []byte) (value, error) {
	if string(raw) == "null" {
		return value{}, nil
	}
	if k := kindOf(c.Type); k == kJSON || k == kJSONB {
		return parseLiteral(c.Type, string(raw))
	}
	text, err := unquote(raw)
	if err != nil {
		return value{}, err
	}
	v, err := parseLiteral(c.Type, text)
	if err != nil {
		return value{}, err
	}
	return v, checkLength(c, v)
}

func checkLength(c *Column, v value) error {
	if c.Type == Varchar && c.MaxLen > 0 && v.k == kText && len(v.s) > c.MaxLen && utf8.RuneCountInString(v.s) > c.MaxLen {
		return bad(CodeTooLong, "value too long for type character varying(%d)", c.MaxLen)
	}
	return nil
}

// compare orders two values of one kind, or of two kinds of number or of time. Text is compared bytewise; NaN equals
// itself and is the greatest float, as in PostgreSQL.
func compare(a, b value) int {
	if a.k == b.k {
		switch a.k {
		case kBool, kInt, kDate, kStamp, kInstant:
			return sign(a.i, b.i)
		case kText, kUUID:
			return strings.Compare(a.s, b.s)
		case kJSONB:
			if a.s == b.s {
				return 0
			}
			return strings.Compare(string(orderJSON(nil, a.s)), string(orderJSON(nil, b.s)))
		}
	}
	switch {
	case a.temporal() && b.temporal():
		return sign(a.micros(), b.micros())
	case a.k == kFloat || b.k == kFloat:
		return compareFloats(a.float(), b.float())
	}
	return a.decimal().compare(b.decimal())
}

func sign(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func compareFloats(a, b float64) int {
	switch {
	case math.IsNaN(a) && math.IsNaN(b):
		return 0
	case math.IsNaN(a):
		return 1
	case math.IsNaN(b):
		return -1
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (v value) temporal() bool { return v.k == kDate || v.k == kStamp || v.k == kInstant }

func (v value) micros() int64 {
	if v.k == kDate {
		return dayStart(v.i)
	}
	return v.i
}

func (v value) float() float64 {
	switch v.k {
	case kInt:
		return float64(v.i)
	case kNum:
		f, _ := strconv.ParseFloat(v.d.String(), 64) // out of range is an infinity, which is what compares rightly
		return f
	}
	return v.f
}

func (v value) decimal() decimal {
	if v.k == kInt {
		d, _, _ := parseDecimal(strconv.FormatInt(v.i, 10))
		return d
	}
	return *v.d
}

// appendOrder appends a form of v whose bytewise order is compare's order, and which no other value's form begins with.
// Two values of one kind have the same form only if compare calls them equal, so it also serves as a key's canonical
// encoding.
func (v value) appendOrder(dst []byte) []byte {
	switch v.k {
	case kBool:
		return append(dst, byte(v.i))
	case kInt, kDate, kStamp, kInstant:
		return binary.BigEndian.AppendUint64(dst, uint64(v.i)^1<<63)
	case kFloat:
		return appendFloatOrder(dst, v.f)
	case kNum:
		return v.d.appendOrder(dst)
	case kJSONB:
		return orderJSON(dst, v.s)
	}
	return append(append(dst, v.s...), 0) // text holds no NUL
}

func appendFloatOrder(dst []byte, f float64) []byte {
	if math.IsNaN(f) {
		f = math.NaN() // one bit pattern, above +Inf
	}
	if f == 0 {
		f = 0 // -0 equals 0
	}
	bits := math.Float64bits(f)
	if bits>>63 == 1 {
		bits = ^bits
	} else {
		bits |= 1 << 63
	}
	return binary.BigEndian.AppendUint64(dst, bits)
}

// appendOrder: sign, exponent, digits, end; all but the sign inverted for negative numbers.
func (d decimal) appendOrder(dst []byte) []byte {
	dst = append(dst, byte(d.sign()+1))
	if d.digits == "" {
		return dst
	}
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, uint32(int32(d.exp))^1<<31)
	dst = append(append(dst, d.digits...), 0)
	if d.neg {
		invert(dst[start:])
	}
	return dst
}

func invert(b []byte) {
	for i := range b {
		b[i] = ^b[i]
	}
}
