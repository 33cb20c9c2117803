package web

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// A deadline is a request's context. It ends after a time that can be moved on, which a context.WithTimeout's cannot.
type deadline struct {
	context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	at     atomic.Pointer[time.Time]
}

func newDeadline(parent context.Context, d time.Duration) *deadline {
	c := &deadline{}
	c.Context, c.cancel = context.WithCancelCause(parent)
	at := time.Now().Add(d)
	c.at.Store(&at)
	c.timer = time.AfterFunc(d, func() { c.cancel(context.DeadlineExceeded) })
	return c
}

// Deadline says when the request's time is up, as far as is known now.
func (c *deadline) Deadline() (time.Time, bool) { return *c.at.Load(), true }

func (c *deadline) extend(at time.Time) {
	if c.timer.Reset(time.Until(at)) {
		c.at.Store(&at)
		return
	}
	c.timer.Stop() // it had fired
}

func (c *deadline) stop() {
	c.timer.Stop()
	c.cancel(context.Canceled)
}

// A response notes what was answered, and can move its request's deadline on.
type response struct {
	http.ResponseWriter
	deadline *deadline
	timeout  time.Duration
	status   int
	started  bool
}

func (w *response) WriteHeader(status int) {
	if status >= 200 && !w.started {
		w.status, w.started = status, true
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	if !w.started {
		w.status, w.started = http.StatusOK, true
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets an http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Extend gives the request its full time again: for an answer that is long, and moves.
func (w *response) Extend() {
	at := time.Now().Add(w.timeout)
	w.deadline.extend(at)
	rc := http.NewResponseController(w.ResponseWriter)
	// A connection that has no deadlines cannot be held open by one.
	_ = rc.SetReadDeadline(at)
	_ = rc.SetWriteDeadline(at.Add(afterDeadline))
}

// describePanic says what a panic was about, without the values that its text may hold.
func describePanic(v any) string {
	if e, ok := v.(runtime.Error); ok {
		return e.Error()
	}
	return fmt.Sprintf("of type %T", v)
}

// stack is the panicking goroutine's stack: functions and lines, and addresses for arguments.
func stack() string { return string(debug.Stack()) }
