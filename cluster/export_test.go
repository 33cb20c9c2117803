package cluster

import "encoding/binary"

// Resum puts the right checksum at the end of a small file.
func Resum(b []byte) []byte {
	return binary.BigEndian.AppendUint32(b[:len(b)-4:len(b)-4], castagnoli(b[:len(b)-4]))
}
