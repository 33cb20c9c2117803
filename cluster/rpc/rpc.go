// Package rpc carries many calls at a time over one connection between two nodes.
//
// Promise: frames and the calls under way are bounded, and whatever the other side sends costs no more than that. A
// *storage.Error and a *storage.InDoubt arrive as what they were. A call ends when its context does.
package rpc

import (
	"context"
	"errors"
	"net"
)

// A Handler answers a call. It runs in a goroutine of its own; ctx ends when the caller's deadline has passed, when the caller
// has given up, and when the connection breaks.
type Handler func(ctx context.Context, method string, body []byte) ([]byte, error)

// Serve answers the calls that come over conn until it breaks or ctx ends, and closes it. It returns when no handler runs
// any more.
func Serve(ctx context.Context, conn net.Conn, h Handler) error {
	return errors.New("not built")
}
