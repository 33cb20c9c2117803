package member

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"bulwark/storage"
)

// A JoinRequest is what a node that joins sends, once it has checked that it talks to the cluster of its token.
type JoinRequest struct {
	Secret    []byte     `json:"secret"`
	Node      storage.ID `json:"node"`
	Name      string     `json:"name"`
	NameGiven bool       `json:"name_given"`
	Addr      string     `json:"addr"`
	CSR       []byte     `json:"csr"`
	Formats   [2]uint8   `json:"formats"` // the oldest and the newest entry format that it reads
	Version   string     `json:"version"`
}

// A JoinReply makes a node of who asked.
type JoinReply struct {
	Fault   storage.Fault `json:"fault,omitempty"`
	Code    string        `json:"code,omitempty"`
	Message string        `json:"message,omitempty"`

	Cluster storage.ID `json:"cluster"`
	Name    string     `json:"name"`
	Chain   []byte     `json:"chain"` // PEM: the node's certificate, then the root
	Root    []byte     `json:"root"`  // the root key
}

// KindJoin is the byte that begins a connection of somebody who joins; see package transport.
const KindJoin byte = 3

const (
	maxMessage  = 64 << 10
	joinTimeout = 30 * time.Second
)

// Serve answers one request to join on conn, whose TLS is done, and closes it.
func Serve(ctx context.Context, conn net.Conn, admit func(context.Context, *JoinRequest) (*JoinReply, error)) error {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	if err := conn.SetDeadline(time.Now().Add(joinTimeout)); err != nil {
		return err
	}
	var req JoinRequest
	if err := readMessage(conn, &req); err != nil {
		return fmt.Errorf("reading a request to join: %w", err)
	}
	reply, err := admit(ctx, &req)
	clear(req.Secret)
	if err != nil {
		reply = &JoinReply{Fault: storage.Internal, Code: "failed", Message: "the node could not do it: its log says why"}
		var e *storage.Error
		if errors.As(err, &e) {
			reply.Fault, reply.Code, reply.Message = e.Fault, e.Code, e.Message
		}
	}
	defer clear(reply.Root)
	return errors.Join(err, writeMessage(conn, reply))
}

// Join asks the nodes that the token names, one after the other, until one has answered. A node that refuses ends it; one
// that cannot be reached, or is sealed, does not.
func Join(ctx context.Context, t *Token, req *JoinRequest, now func() time.Time, dial func(ctx context.Context, addr string) (net.Conn, error)) (*JoinReply, error) {
	var failures []error
	for _, addr := range t.Addrs {
		reply, err := ask(ctx, addr, t, req, now, dial)
		switch {
		case err != nil:
			failures = append(failures, fmt.Errorf("%s: %w", addr, err))
		case reply.Code == "":
			return reply, nil
		default:
			err := &storage.Error{Fault: reply.Fault, Code: reply.Code, Message: reply.Message}
			if reply.Fault != storage.Unavailable {
				return nil, err
			}
			failures = append(failures, fmt.Errorf("%s: %w", addr, err))
		}
	}
	return nil, fmt.Errorf("joining the cluster: no node that the token names let this one in: %w", errors.Join(failures...))
}

func ask(ctx context.Context, addr string, t *Token, req *JoinRequest, now func() time.Time, dial func(ctx context.Context, addr string) (net.Conn, error)) (*JoinReply, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	conn, err := dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	secure := tls.Client(conn, joinTLS(t.CA, now))
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if err := secure.SetDeadline(time.Now().Add(joinTimeout)); err != nil {
		return nil, err
	}
	if _, err := secure.Write([]byte{KindJoin}); err != nil {
		return nil, err
	}
	if err := writeMessage(secure, req); err != nil {
		return nil, err
	}
	reply := new(JoinReply)
	return reply, readMessage(secure, reply)
}

// A message is its length (4 bytes, big-endian) and JSON.
func writeMessage(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	defer clear(b)
	framed := append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...)
	defer clear(framed)
	_, err = w.Write(framed)
	return err
}

func readMessage(r io.Reader, into any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxMessage {
		return fmt.Errorf("a message of %d bytes is more than %d", n, maxMessage)
	}
	b := make([]byte, n)
	defer clear(b)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return errors.New("a message cannot be read: is the other side of another version?")
	}
	return nil
}
