//go:build unix

package cluster

import "syscall"

// freeSpace is how many bytes of the disk that dir is on this process may still write.
func freeSpace(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}
