package rpc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"time"

	"bulwark/storage"
	"bulwark/storage/entry"
)

// A frame is, in this order: the length of what follows it (4 bytes, big-endian) · kind (1) · id (8) · payload.
//
//	call    milliseconds until the deadline (4; 0: none) · length of the method (1) · method · body
//	answer  body
//	failure in doubt (1) · fault (1) · code, message, field, details, hint, cause: each a length (4) and the bytes
//	cancel, ping and pong have no payload
type frame struct {
	kind    byte
	id      uint64
	head    []byte // before payload, so that a body need not be copied
	payload []byte

	sent bool // guarded by the outbox: it was handed to the connection
}

const (
	kindCall byte = iota + 1
	kindAnswer
	kindFailure
	kindCancel
	kindPing
	kindPong
)

// MaxBody bounds what one call or answer carries.
const MaxBody = entry.MaxBatch

const (
	frameHeader = 4 + 1 + 8
	maxHead     = 4 + 1 + 255
	maxPayload  = MaxBody + maxHead
	chunk       = 1 << 20 // what is taken from memory before it has come
)

// readFrame reads one frame. What it allocates is bounded by what has come.
func readFrame(r *bufio.Reader) (*frame, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(h[:])) - (frameHeader - 4)
	if n < 0 || n > maxPayload {
		return nil, fmt.Errorf("%w: it says that it has %d bytes", errFrame, n)
	}
	f := &frame{kind: h[4], id: binary.BigEndian.Uint64(h[5:])}
	for int64(len(f.payload)) < n {
		had := len(f.payload)
		grown := make([]byte, min(n, max(chunk, 2*int64(had))))
		copy(grown, f.payload)
		f.payload = grown
		if _, err := io.ReadFull(r, f.payload[had:]); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func callFrame(id uint64, patience time.Duration, method string, body []byte) *frame {
	head := make([]byte, 0, 5+len(method))
	var ms uint32
	if patience > 0 {
		ms = uint32(min(max(patience.Milliseconds(), 1), math.MaxUint32))
	}
	head = binary.BigEndian.AppendUint32(head, ms)
	head = append(head, byte(len(method)))
	head = append(head, method...)
	return &frame{kind: kindCall, id: id, head: head, payload: body}
}

func splitCall(b []byte) (patience time.Duration, method string, body []byte, err error) {
	if len(b) < 5 || len(b) < 5+int(b[4]) {
		return 0, "", nil, errFrame
	}
	patience = time.Duration(binary.BigEndian.Uint32(b)) * time.Millisecond
	n := 5 + int(b[4])
	return patience, string(b[5:n]), b[n:], nil
}

// failure is the frame of an error that a handler answered.
func failure(id uint64, err error) *frame {
	return &frame{kind: kindFailure, id: id, payload: appendError(nil, err)}
}

// longest bounds each text of an error.
const longest = 4 << 10

func appendError(b []byte, err error) []byte {
	var doubt *storage.InDoubt
	var flag byte
	if errors.As(err, &doubt) {
		flag, err = 1, doubt.Cause
	}
	var e *storage.Error
	if !errors.As(err, &e) {
		e = &storage.Error{Fault: storage.Internal, Code: "internal", Message: "that node could not do it", Cause: err}
	}
	cause := ""
	if e.Cause != nil {
		cause = e.Cause.Error()
	}
	b = append(b, flag, byte(e.Fault))
	for _, s := range []string{e.Code, e.Message, e.Field, e.Details, e.Hint, cause} {
		s = s[:min(len(s), longest)]
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return b
}

// readError undoes appendError. What is not an error's encoding is in doubt: the call was answered, and nobody can tell how.
func readError(b []byte) error {
	garbled := &storage.InDoubt{Cause: errFrame}
	if len(b) < 2 || b[0] > 1 {
		return garbled
	}
	e := &storage.Error{Fault: storage.Fault(b[1])}
	doubt := b[0] == 1
	b = b[2:]
	var cause string
	for _, s := range []*string{&e.Code, &e.Message, &e.Field, &e.Details, &e.Hint, &cause} {
		if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
			return garbled
		}
		n := 4 + int(binary.BigEndian.Uint32(b))
		*s, b = string(b[4:n]), b[n:]
	}
	if len(b) > 0 {
		return garbled
	}
	if cause != "" {
		e.Cause = errors.New(cause)
	}
	if doubt {
		return &storage.InDoubt{Cause: e}
	}
	return e
}

// An outbox gathers frames while a write is under way, so that the next write carries all of them.
type outbox struct {
	mu      sync.Mutex
	waiting []*frame
	closed  bool
	wake    chan struct{} // has room for one
	done    chan struct{} // closed with closed
}

func newOutbox() *outbox {
	return &outbox{wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// add reports whether the frame will be written unless the connection breaks.
func (o *outbox) add(f *frame) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	o.waiting = append(o.waiting, f)
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return true
}

// take removes f, unless it was handed to the connection.
func (o *outbox) take(f *frame) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f.sent {
		return false
	}
	for i, w := range o.waiting {
		if w == f {
			o.waiting = append(o.waiting[:i], o.waiting[i+1:]...)
			break
		}
	}
	return true
}

func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.closed = true
		close(o.done)
	}
}

// write writes what is added until the outbox is closed or the connection refuses.
func (o *outbox) write(conn net.Conn) error {
	w := bufio.NewWriterSize(conn, 64<<10)
	for {
		select {
		case <-o.wake:
		case <-o.done:
			return nil
		}
		o.mu.Lock()
		frames := o.waiting
		o.waiting = nil
		for _, f := range frames {
			f.sent = true
		}
		o.mu.Unlock()
		if len(frames) == 0 {
			continue
		}
		if err := conn.SetWriteDeadline(time.Now().Add(stuck)); err != nil {
			return err
		}
		for _, f := range frames {
			if err := f.writeTo(w); err != nil {
				return err
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
}

func (f *frame) writeTo(w *bufio.Writer) error {
	var h [frameHeader]byte
	binary.BigEndian.PutUint32(h[:], uint32(frameHeader-4+len(f.head)+len(f.payload)))
	h[4] = f.kind
	binary.BigEndian.PutUint64(h[5:], f.id)
	w.Write(h[:])
	w.Write(f.head)
	_, err := w.Write(f.payload) // a bufio.Writer keeps its first error
	return err
}
