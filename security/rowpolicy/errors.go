package rowpolicy

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/wasilibs/go-pgquery/parser"

	"bulwark/storage"
)

// SQLSTATE codes (PostgreSQL, appendix A).
const (
	codeUnsupported    = "0A000"
	codeSyntax         = "42601"
	codeDuplicateTable = "42P07"
	codeNoTable        = "42P01"
	codeNoColumn       = "42703"
	codeDupColumn      = "42701"
	codeDuplicate      = "42710"
	codeNoObject       = "42704"
	codeMismatch       = "42804"
	codeNoFunction     = "42883"
	codeCannotCast     = "42846"
	codeBadTable       = "42P16"
	codeNoSchema       = "3F000"
	codeBadText        = "22P02"
	codeOutOfRange     = "22003"
	codeBadDate        = "22007"
	codeLimit          = "54000"
	codeTooComplex     = "54001"
	codeTooManyColumns = "54011"
)

// A Position is a place in the text. Line and Column count from 1, Column in characters; Offset counts bytes from 0.
type Position struct {
	Line   int `json:"line"`
	Column int `json:"column"`
	Offset int `json:"offset"`
}

// An Error is a refusal and where it is. Err.Code is the SQLSTATE; Err.Message ends with the position.
type Error struct {
	Err *storage.Error
	At  Position
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the *storage.Error.
func (e *Error) Unwrap() error { return e.Err }

// maxNear bounds a quoted message of the parser, in bytes.
const maxNear = 200

// A source is the text and where its statements start. Offsets that are given to it count from base.
type source struct {
	text   string
	starts []int
	base   int
}

// from returns the source with offsets that count from base.
func (s *source) from(base int) *source { return &source{text: s.text, starts: s.starts, base: base} }

// chunk is how much text the parser is given at once, if statements are not longer: its memory only ever grows.
const chunk = 64 << 10

// chunks yields the text in pieces that end between statements.
func (s *source) chunks() iter.Seq2[int, int] {
	return func(yield func(from, to int) bool) {
		from := 0
		for i, at := range s.starts {
			end := len(s.text)
			if i+1 < len(s.starts) {
				end = s.starts[i+1]
			}
			if end-from > chunk && at > from {
				if !yield(from, at) {
					return
				}
				from = at
			}
		}
		if from < len(s.text) {
			yield(from, len(s.text))
		}
	}
}

// start returns the first token of the statement that the parser says begins at from: it counts blanks and comments in.
func (s *source) start(from int) int {
	i, _ := slices.BinarySearch(s.starts, s.base+from)
	if i < len(s.starts) {
		return s.starts[i] - s.base
	}
	return from
}

func (s *source) position(offset int) Position {
	offset = min(max(s.base+offset, 0), len(s.text))
	before := s.text[:offset]
	line := strings.LastIndexByte(before, '\n') + 1
	return Position{
		Line:   strings.Count(before, "\n") + 1,
		Column: utf8.RuneCountInString(before[line:]) + 1,
		Offset: offset,
	}
}

func (s *source) errorf(offset int, code, format string, args ...any) *Error {
	at := s.position(offset)
	return &Error{At: at, Err: storage.Errorf(storage.BadInput, code, "%s (line %d, column %d)",
		fmt.Sprintf(format, args...), at.Line, at.Column)}
}

func (e *Error) hint(text string) *Error {
	e.Err.Hint = text
	return e
}

// parserError gives PostgreSQL's words for a syntax error, with the position. Its cursor counts characters from 1.
func (s *source) parserError(err error, text string) error {
	e, ok := errors.AsType[*parser.Error](err)
	if !ok {
		return err
	}
	offset := len(text)
	if n := e.Cursorpos; n > 0 {
		for i := range text {
			if n--; n == 0 {
				offset = i
				break
			}
		}
	}
	code, message := codeSyntax, e.Message
	if strings.HasPrefix(message, "memory exhausted") {
		code = codeTooComplex
	}
	// An unclosed quote has the rest of the text as its token.
	if len(message) > maxNear {
		message = strings.ToValidUTF8(message[:maxNear], "") + "…"
	}
	return s.errorf(offset, code, "%s", message)
}
