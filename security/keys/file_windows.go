package keys

import "io/fs"

// openToOthers: Windows has no mode bits; who may read a file is set on its folder.
func openToOthers(fs.FileInfo) bool { return false }

// syncDir: Windows makes a rename durable by itself, and cannot sync a folder.
func syncDir(string) error { return nil }
