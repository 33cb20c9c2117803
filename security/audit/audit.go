// Package audit makes the audit log's events, proves what is in the log, and checks such proofs without a server.
//
// Promise: an event's leaf hash is over one canonical JSON text, and that text says everything that the log says about
// the event. The hash tells nobody what the event says (it is salted). An export can be checked by anybody who holds a
// verifier key: whoever changes, drops, adds or moves an event of it is found out.
//
// The canonical text of an event is JSON without white space. The keys stand in this order, and a key without a value is
// left out:
//
//	v        1, the version of this format
//	id       the event's UUID
//	time     UTC, RFC 3339 with microseconds: "2006-01-02T15:04:05.000000Z"
//	project  UUID; absent when the event is about the tenant itself
//	actor    {kind, id, session, name, addr}
//	action   "resource.verb"
//	object   what it was done to
//	outcome  "ok" or "denied"
//	reason   the code of the refusal
//	request  the request's id
//	notes    {field: string, integer, true, false or list of strings}, sorted by field
//	salt     128 random bits, base64url without padding
//
// Strings are written as RFC 8785 writes them. Integers beyond ±(2^53-1) are strings.
package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"

	"bulwark/storage"
	"bulwark/storage/entry"
)

// MaxEvent is the largest canonical text of an event, in bytes.
const MaxEvent = 64 << 10

const saltSize = 16

// A Recorder makes and opens leaves. It implements storage.Audit and is safe for concurrent use.
type Recorder struct {
	mu   sync.Mutex
	rand *bufio.Reader
	bufs sync.Pool
	dict *dictionary
}

var _ storage.Audit = (*Recorder)(nil)

// New returns a Recorder that draws salts from rand, which must be a cryptographic source.
func New(rand io.Reader) (*Recorder, error) {
	if rand == nil {
		return nil, errors.New("the audit recorder needs a random source")
	}
	r := &Recorder{rand: bufio.NewReaderSize(rand, 64*saltSize), dict: newDictionary()}
	r.bufs.New = func() any { return new(scratch) }
	return r, nil
}

type scratch struct {
	buf   []byte // the text, after the leaf's prefix
	form  []byte // what is sealed
	again []byte // the text that is made of it
	notes []storage.Note
}

// Leaf returns the leaf of e: RFC 6962's leaf hash, SHA-256(0x00 || text), and the event sealed by s at
// Place{Tenant, Table: storage.AuditTable, Key: hash}. It refuses a note whose type is not one of the package comment,
// and a text above MaxEvent.
func (r *Recorder) Leaf(s storage.Sealer, e *storage.Event) (entry.Leaf, error) {
	if s == nil || e == nil {
		return entry.Leaf{}, errors.New("making an audit leaf: no sealer or no event")
	}
	var salt [saltSize]byte
	r.mu.Lock()
	_, err := io.ReadFull(r.rand, salt[:])
	r.mu.Unlock()
	if err != nil {
		return entry.Leaf{}, fmt.Errorf("drawing an audit salt: %w", err)
	}
	sc := r.bufs.Get().(*scratch)
	defer func() {
		clear(sc.notes)
		if cap(sc.buf) <= MaxEvent && cap(sc.form) <= MaxEvent {
			r.bufs.Put(sc)
		}
	}()
	// The leaf's prefix stands in front of the text, so that the two are hashed in one call.
	buf, err := sc.appendEvent(append(sc.buf[:0], 0), e, &salt)
	sc.buf = buf
	if err != nil {
		return entry.Leaf{}, err
	}
	if len(buf)-1 > MaxEvent {
		return entry.Leaf{}, storage.Errorf(storage.TooLarge, "audit_event_too_large",
			"the audit event of %q has %d bytes; at most %d fit: note less", e.To.Action, len(buf)-1, MaxEvent)
	}
	leaf := entry.Leaf{Hash: sha256.Sum256(buf)}
	sc.form = r.dict.appendCompact(sc.form[:0], e, &salt, sc.notes[:len(e.Notes)])
	sc.settle(r.dict, buf[1:])
	leaf.Sealed = s.Seal(nil, sc.form, storage.Place{Tenant: e.Tenant, Table: storage.AuditTable, Key: leaf.Hash[:]})
	return leaf, nil
}

// settle leaves the compact form where the text comes out of it again, and puts the text form in its place where not: what
// is sealed can always be opened.
func (sc *scratch) settle(d *dictionary, text []byte) {
	again, err := d.expand(sc.again[:0], sc.form)
	sc.again = again
	if err != nil || !bytes.Equal(again, text) {
		sc.form = append(append(sc.form[:0], textForm), text...)
	}
}

// Open returns the canonical text of leaf, after checking that it has the leaf's hash.
func (r *Recorder) Open(s storage.Sealer, tenant storage.ID, leaf entry.Leaf) ([]byte, error) {
	form, err := s.Open(nil, leaf.Sealed, storage.Place{Tenant: tenant, Table: storage.AuditTable, Key: leaf.Hash[:]})
	if err != nil {
		return nil, fmt.Errorf("opening an audit event: %w", err)
	}
	// The leaf's prefix stands in front of the text, so that the two are hashed in one call.
	text, err := r.dict.expand(append(make([]byte, 0, 3*len(form)+256), 0), form)
	if err != nil {
		return nil, fmt.Errorf("opening an audit event: %w", err)
	}
	if sha256.Sum256(text) != leaf.Hash {
		return nil, errors.New("opening an audit event: it does not have its leaf's hash")
	}
	return text[1:], nil
}

// LeafHash is RFC 6962's hash of a leaf (section 2.1): SHA-256(0x00 || text).
func LeafHash(text []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(text)
	var out [32]byte
	h.Sum(out[:0])
	return out
}
