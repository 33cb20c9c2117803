package bolt

import (
	"fmt"
	"runtime"

	"bulwark/storage"
)

// pageSize is the least size of a page of memory: a byte of each shows whether a mapped range can be read.
const pageSize = 4096

// touch reads a byte of each page of b, so that one that is not there shows here and not where b is used.
func (r *reader) touch(b []byte) {
	for i := 0; i < len(b); i += pageSize {
		r.touched += b[i]
	}
	if len(b) > 0 {
		r.touched += b[len(b)-1]
	}
}

// isFault reports whether a recovered panic is a read of memory that is not there: of a mapped page whose file was cut
// short, or whose disk cannot read it. (Package runtime/debug, SetPanicOnFault.)
func isFault(p any) bool {
	fault, ok := p.(interface {
		runtime.Error
		Addr() uintptr
	})
	return ok && fault.Addr() != 0
}

// unreadable makes the DB fail over a page that a reader could not read, or bbolt could not understand.
func (db *DB) unreadable(p any) error {
	err := fmt.Errorf("reading the database: %v", p)
	db.mu.Lock()
	defer db.mu.Unlock()
	db.fail(err)
	return &storage.Error{Fault: storage.Unavailable, Code: "database_damaged", Cause: err,
		Message: "this node's database cannot be read; its operator must restore it from a snapshot, or let the node join anew"}
}

// recovered turns a panic of the snapshot's own reading into an error.
func (s *snapshot) recovered(err *error) {
	if p := recover(); p != nil {
		*err = s.db.unreadable(p)
	}
}

// A visit is a walk that calls a function which is not ours: its panics are its caller's, but for faults, which come of
// the bytes that it was given.
type visit struct {
	db      *DB
	outside bool // in the function
}

func (v *visit) recovered(err *error) {
	p := recover()
	switch {
	case p == nil:
	case v.outside && !isFault(p):
		panic(p)
	default:
		*err = v.db.unreadable(p)
	}
}
