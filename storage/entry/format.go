package entry

import "strconv"

// Oldest is the oldest format that this version reads.
const Oldest uint8 = 1

// next is set by the linker (-X bulwark/storage/entry.next=2) in builds that test an upgrade: a version that reads one
// format more. A later format of such a build is laid out as the newest that is known.
var next string

// Newest is the newest format that this version reads.
func Newest() uint8 {
	if n, err := strconv.ParseUint(next, 10, 8); err == nil && uint8(n) > Format {
		return uint8(n)
	}
	return Format
}
