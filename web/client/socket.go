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

// SocketPath returns where the socket of the node on a data folder is. Where the folder's path is too long for a socket,
// that is a path relative to the working folder, or else a file named after the folder in the user's own cache folder:
// never a place that other users can write to.
func SocketPath(data string) string {
	path := filepath.Join(data, SocketName)
	if len(path) <= maxSocketPath {
		return path
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, abs); err == nil && len(rel) <= maxSocketPath {
			return rel
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return path
	}
	dir := filepath.Join(cache, "bulwark")
	if os.MkdirAll(dir, 0o700) != nil {
		return path
	}
	sum := sha256.Sum256([]byte(abs))
	return filepath.Join(dir, hex.EncodeToString(sum[:8])+".sock")
}
