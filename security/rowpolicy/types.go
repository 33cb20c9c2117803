package rowpolicy

import (
	"encoding/json"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	"bulwark/storage/table"
)

// unknown is the type of a literal that nothing has given a type yet, as in PostgreSQL.
const unknown table.Type = ""

// sqlNames are the types as PostgreSQL writes them.
var sqlNames = map[table.Type]string{
	unknown:           "unknown",
	table.Text:        "text",
	table.Varchar:     "character varying",
	table.Int2:        "smallint",
	table.Int4:        "integer",
	table.Int8:        "bigint",
	table.Float4:      "real",
	table.Float8:      "double precision",
	table.Numeric:     "numeric",
	table.Bool:        "boolean",
	table.UUID:        "uuid",
	table.Date:        "date",
	table.Timestamp:   "timestamp without time zone",
	table.Timestamptz: "timestamp with time zone",
	table.JSON:        "json",
	table.JSONB:       "jsonb",
}

// A category is a family of types that compare with each other.
type category uint8

const (
	other category = iota
	textual
	numeric
	temporal
)

func categoryOf(t table.Type) category {
	switch t {
	case table.Text, table.Varchar:
		return textual
	case table.Int2, table.Int4, table.Int8, table.Numeric, table.Float4, table.Float8:
		return numeric
	case table.Date, table.Timestamp, table.Timestamptz:
		return temporal
	}
	return other
}

// rank orders the types of one category: a value of a lower rank becomes one of a higher by itself.
func rank(t table.Type) int {
	switch t {
	case table.Int2, table.Date:
		return 1
	case table.Int4, table.Timestamp:
		return 2
	case table.Int8, table.Timestamptz:
		return 3
	case table.Numeric:
		return 4
	case table.Float4:
		return 5
	case table.Float8:
		return 6
	case table.Varchar:
		return 1
	}
	return 2
}

// common returns the type in which values of a and b meet: that of the higher rank.
func common(a, b table.Type) (table.Type, bool) {
	switch {
	case a == b || b == unknown:
		return a, true
	case a == unknown:
		return b, true
	}
	if c := categoryOf(a); c == other || c != categoryOf(b) {
		return unknown, false
	}
	if rank(a) < rank(b) {
		a, b = b, a
	}
	if a == table.Float4 { // real meets every other number in double precision
		return table.Float8, true
	}
	return a, true
}

// castable reports whether an explicit cast exists; where assign is set, one that a column's default may rely on.
func castable(from, to table.Type, assign bool) bool {
	if from == to || from == unknown {
		return true
	}
	cf, ct := categoryOf(from), categoryOf(to)
	isJSON := func(t table.Type) bool { return t == table.JSON || t == table.JSONB }
	switch {
	case ct == textual:
		return true
	case cf == textual:
		return !assign
	case cf == ct && cf != other:
		return true
	case isJSON(from) && isJSON(to):
		return true
	case from == table.JSONB && (ct == numeric || to == table.Bool):
		return !assign
	case from == table.Int4 && to == table.Bool, from == table.Bool && to == table.Int4:
		return !assign
	}
	return false
}

// numberForm is what PostgreSQL's numeric reads, but for its digit separators.
var numberForm = regexp.MustCompile(`^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?$`)

var boolWords = map[string]string{
	"t": "true", "tr": "true", "tru": "true", "true": "true", "y": "true", "ye": "true", "yes": "true", "on": "true", "1": "true",
	"f": "false", "fa": "false", "fal": "false", "fals": "false", "false": "false", "n": "false", "no": "false",
	"of": "false", "off": "false", "0": "false",
}

// literal checks a literal's text as PostgreSQL's input function of the type does, and returns one spelling of it. The
// forms of dates are the ISO ones. A code and what is wrong come back instead where it is not one.
func literal(t table.Type, s string) (out, code, wrong string) {
	bad := func(code, what string) (string, string, string) { return "", code, what }
	trimmed := strings.TrimSpace(s)
	switch t {
	case table.Text, table.Varchar:
		return s, "", ""
	case table.Bool:
		if w := boolWords[strings.ToLower(trimmed)]; w != "" {
			return w, "", ""
		}
	case table.Int2, table.Int4, table.Int8:
		bits := map[table.Type]int{table.Int2: 16, table.Int4: 32, table.Int8: 64}[t]
		n, err := strconv.ParseInt(trimmed, 10, bits)
		if err == nil {
			return strconv.FormatInt(n, 10), "", ""
		}
		if _, ok := new(big.Int).SetString(trimmed, 10); ok {
			return bad(codeOutOfRange, "value out of range for type "+sqlNames[t])
		}
	case table.Numeric:
		if strings.EqualFold(trimmed, "nan") {
			return "NaN", "", ""
		}
		if numberForm.MatchString(trimmed) {
			return trimmed, "", ""
		}
	case table.Float4, table.Float8:
		switch strings.ToLower(trimmed) {
		case "nan":
			return "NaN", "", ""
		case "infinity", "+infinity", "inf", "+inf":
			return "Infinity", "", ""
		case "-infinity", "-inf":
			return "-Infinity", "", ""
		}
		bits := map[table.Type]int{table.Float4: 32, table.Float8: 64}[t]
		if numberForm.MatchString(trimmed) {
			n, err := strconv.ParseFloat(trimmed, bits)
			if err != nil {
				return bad(codeOutOfRange, "value out of range for type "+sqlNames[t])
			}
			return strconv.FormatFloat(n, 'g', -1, bits), "", ""
		}
	case table.UUID:
		if u, ok := uuid(trimmed); ok {
			return u, "", ""
		}
	case table.Date, table.Timestamp, table.Timestamptz:
		if out, ok := moment(t, trimmed); ok {
			return out, "", ""
		}
		return bad(codeBadDate, "invalid input syntax for type "+sqlNames[t]+" (write it as 2006-01-02T15:04:05Z)")
	case table.JSON, table.JSONB:
		if shallow(s) && json.Valid([]byte(s)) {
			return s, "", ""
		}
	}
	return bad(codeBadText, "invalid input syntax for type "+sqlNames[t])
}

// uuid reads the forms that PostgreSQL takes: braces around, and a hyphen after any group of four digits.
func uuid(s string) (string, bool) {
	if strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}") {
		s = s[1 : len(s)-1]
	}
	var digits []byte
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		switch {
		case '0' <= s[i] && s[i] <= '9':
			digits = append(digits, s[i])
		case 'a' <= c && c <= 'f':
			digits = append(digits, c)
		case s[i] == '-' && len(digits)%4 == 0 && len(digits) > 0 && len(digits) < 32 && s[i-1] != '-':
		default:
			return "", false
		}
	}
	if len(digits) != 32 {
		return "", false
	}
	d := string(digits)
	return d[:8] + "-" + d[8:12] + "-" + d[12:16] + "-" + d[16:20] + "-" + d[20:], true
}

// moment reads ISO 8601 dates and times; a time without a zone is UTC, as the server's time zone is.
func moment(t table.Type, s string) (string, bool) {
	switch w := strings.ToLower(s); w {
	case "infinity", "-infinity":
		return w, true
	}
	for _, zone := range []string{"", "Z07:00", "Z07", " Z07:00"} {
		for _, form := range []string{"2006-01-02", "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04"} {
			if zone != "" && len(form) == len("2006-01-02") {
				continue
			}
			at, err := time.Parse(form+zone, s)
			if err != nil || at.Year() < 1 {
				continue
			}
			// PostgreSQL keeps microseconds.
			switch t {
			case table.Date:
				return at.Format("2006-01-02"), true
			case table.Timestamp: // a zone is read and ignored
				return at.Round(time.Microsecond).Format("2006-01-02T15:04:05.999999"), true
			}
			return at.UTC().Round(time.Microsecond).Format("2006-01-02T15:04:05.999999Z07:00"), true
		}
	}
	return "", false
}

// shallow reports whether JSON is nested less than MaxDepth deep.
func shallow(s string) bool {
	depth, inside := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && inside:
			i++
		case c == '"':
			inside = !inside
		case inside:
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return false
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return true
}
