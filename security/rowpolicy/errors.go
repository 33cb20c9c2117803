package rowpolicy

import (
	"errors"
	"fmt"
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

// A source is the text and where its statements start.
type source struct {
	text   string
	starts []int
}

// start returns the first token of the statement that the parser says begins at from: it counts blanks and comments in.
func (s *source) start(from int) int {
	lo, hi := 0, len(s.starts)
	for lo < hi {
		if mid := (lo + hi) / 2; s.starts[mid] < from {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(s.starts) {
		return s.starts[lo]
	}
	return min(max(from, 0), len(s.text))
}

func (s *source) position(offset int) Position {
	offset = min(max(offset, 0), len(s.text))
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
func (s *source) parserError(err error) error {
	e, ok := errors.AsType[*parser.Error](err)
	if !ok {
		return err
	}
	offset := len(s.text)
	if n := e.Cursorpos; n > 0 {
		for i := range s.text {
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
