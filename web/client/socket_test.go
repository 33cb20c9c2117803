package client_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bulwark/web/client"
)

func TestSocketPath(t *testing.T) {
	t.Parallel()
	if got := client.SocketPath("data"); got != filepath.Join("data", "bulwark.sock") {
		t.Errorf("a short path became %s", got)
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("d", 100), strings.Repeat("e", 100))
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	path := client.SocketPath(long)
	if path != client.SocketPath(long) {
		t.Error("the path of one folder differs from call to call")
	}
	if path == client.SocketPath(long+"x") {
		t.Error("two folders share a socket")
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatalf("%d bytes: %v", len(path), err)
	}
	l.Close()
}
