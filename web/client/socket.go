package client

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
)

// SocketName is the name of the node's unix socket in its data folder.
const SocketName = "bulwark.sock"

// maxSocketPath is the longest path of a unix socket that every system takes, in bytes: macOS has room for 104 with the
// final zero, Linux and Windows for 108.
const maxSocketPath = 103

// SocketPath returns where the socket of the node on a data folder is: in the folder, or, where the folder's path is too
// long for a socket, a file named after the folder in the user's own cache folder: never a place that other users can
// write to. It depends on the folder's absolute path only, so that a node and a command find the same one from anywhere.
func SocketPath(data string) string {
	path := filepath.Join(data, SocketName)
	folder, err := filepath.Abs(data)
	if err != nil {
		return path
	}
	if real, err := filepath.EvalSymlinks(folder); err == nil {
		folder = real
	}
	if abs := filepath.Join(folder, SocketName); len(abs) <= maxSocketPath {
		if len(path) <= maxSocketPath {
			return path
		}
		return abs
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return path
	}
	dir := filepath.Join(cache, "bulwark")
	if os.MkdirAll(dir, 0o700) != nil {
		return path
	}
	sum := sha256.Sum256([]byte(folder))
	return filepath.Join(dir, hex.EncodeToString(sum[:8])+".sock")
}
