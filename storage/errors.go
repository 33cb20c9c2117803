package storage

import (
	"errors"
	"fmt"
)

// A Fault is a kind of error. There are few, and each has one meaning on every surface.
type Fault uint8

// The kinds of error.
const (
	Internal        Fault = iota // ours; the cause is for the operator's log only
	BadInput                     // the request is wrong; it will be wrong again
	Unauthenticated              // no credential, or not a valid one
	Denied                       // a valid credential that may not do this
	NotFound
	Exists   // a unique value is taken
	Conflict // others kept changing what this depends on
	TooLarge
	TooMany     // slow down
	Unavailable // no leader, sealed, stopping: try again
)

var faultNames = [...]string{"internal", "bad_input", "unauthenticated", "denied", "not_found", "exists", "conflict", "too_large", "too_many", "unavailable"}

// String returns the fault's stable name.
func (f Fault) String() string {
	if int(f) < len(faultNames) {
		return faultNames[f]
	}
	return "unknown"
}

// An Error carries a kind, a stable code, and a sentence for a person that says what to do. It never holds a secret or a
// row's content: Message may quote names of fields, never values that somebody typed.
type Error struct {
	Fault   Fault
	Code    string // stable, for programs: "email_exists"; defaults to the fault's name
	Message string // for a person
	Field   string // the field or column that it is about, if one
	Details string // more for a person, if the surface has a place for it
	Hint    string // what to do, if the surface has a place for it
	Cause   error  // for the operator's log; never shown to a client
}

// Error says the message, and the cause where there is one.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Message + ": " + e.Cause.Error()
	}
	return e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Errorf makes an Error of a kind with a code. The format must not be given secrets or content.
func Errorf(f Fault, code, format string, args ...any) *Error {
	return &Error{Fault: f, Code: code, Message: fmt.Sprintf(format, args...)}
}

// FaultOf returns the kind of err: Internal for an error that is not an *Error.
func FaultOf(err error) Fault {
	var e *Error
	if errors.As(err, &e) {
		return e.Fault
	}
	return Internal
}

// IsNotFound reports whether err says that something does not exist.
func IsNotFound(err error) bool { return err != nil && FaultOf(err) == NotFound }

// ErrNotFound is what Get returns for a key that is absent. Slices turn it into an Error that names the thing.
var ErrNotFound error = &Error{Fault: NotFound, Code: "not_found", Message: "not found"}
