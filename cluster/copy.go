package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A copy of a database travels as
//
//	magic "bulwark\n" (8) · "copy" (4) · version (4) · bytes of the file (8) · index that it holds (8) · CRC-32C (4)
//
// and the file in chunks of 1 MiB, each with the CRC-32C of everything before it (4). So a flipped bit, a lost or repeated
// chunk, and a cut are seen before the file is used; a database's pages have no checksums of their own.
const (
	copyKind    = "copy"
	copyVersion = 1
	copyHeader  = 8 + 4 + 4 + 8 + 8 + 4
	copyChunk   = 1 << 20
	copyLimit   = 1 << 50
)

var errCopy = errors.New("the copy of the database was damaged or cut on its way")

// copySize is how many bytes the copy of a file of size bytes takes on its way.
func copySize(size int64) int64 { return copyHeader + size + 4*((size+copyChunk-1)/copyChunk) }

func castagnoliUpdate(sum uint32, b []byte) uint32 {
	return crc32.Update(sum, crc32.MakeTable(crc32.Castagnoli), b)
}

// A copyEncoder writes a file of a known size as it travels.
type copyEncoder struct {
	w     io.Writer
	left  int64
	chunk int
	sum   uint32
}

func newCopyEncoder(w io.Writer, size int64, index uint64) (*copyEncoder, error) {
	b := append([]byte(smallMagic), copyKind...)
	b = binary.BigEndian.AppendUint32(b, copyVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(size))
	b = binary.BigEndian.AppendUint64(b, index)
	b = binary.BigEndian.AppendUint32(b, castagnoli(b))
	_, err := w.Write(b)
	return &copyEncoder{w: w, left: size, sum: castagnoli(b)}, err
}

func (e *copyEncoder) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		m := int(min(int64(len(p)), int64(copyChunk-e.chunk), e.left))
		if m == 0 {
			return n, errors.New("the database's file is longer than it said")
		}
		if _, err := e.w.Write(p[:m]); err != nil {
			return n, err
		}
		e.sum = castagnoliUpdate(e.sum, p[:m])
		e.chunk, e.left = e.chunk+m, e.left-int64(m)
		if e.chunk == copyChunk || e.left == 0 {
			if _, err := e.w.Write(binary.BigEndian.AppendUint32(nil, e.sum)); err != nil {
				return n, err
			}
			e.chunk = 0
		}
		n, p = n+m, p[m:]
	}
	return n, nil
}

// A copyDecoder writes to w the file that comes in.
type copyDecoder struct {
	w     io.Writer
	begin func(size int64, index uint64) error // called once, with what the header says

	part  []byte // of the header, or of a checksum
	begun bool
	size  int64
	left  int64
	chunk int
	sum   uint32
}

func (d *copyDecoder) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		var m int
		switch {
		case !d.begun:
			m, err = d.header(p)
		case d.chunk == copyChunk || d.left == 0 && d.chunk > 0:
			m, err = d.check(p)
		case d.left == 0:
			return n, fmt.Errorf("%w: it is longer than it said", errCopy)
		default:
			m, err = d.w.Write(p[:min(int64(len(p)), int64(copyChunk-d.chunk), d.left)])
			d.sum = castagnoliUpdate(d.sum, p[:m])
			d.chunk, d.left = d.chunk+m, d.left-int64(m)
		}
		n, p = n+m, p[m:]
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// take collects size bytes in d.part; it returns them once they are there.
func (d *copyDecoder) take(p []byte, size int) (whole []byte, n int) {
	n = min(len(p), size-len(d.part))
	if d.part = append(d.part, p[:n]...); len(d.part) < size {
		return nil, n
	}
	whole, d.part = d.part, nil
	return whole, n
}

func (d *copyDecoder) header(p []byte) (n int, err error) {
	b, n := d.take(p, copyHeader)
	if b == nil {
		return n, nil
	}
	size := binary.BigEndian.Uint64(b[16:])
	switch {
	case string(b[:8]) != smallMagic || string(b[8:12]) != copyKind,
		binary.BigEndian.Uint32(b[copyHeader-4:]) != castagnoli(b[:copyHeader-4]), size == 0, size > copyLimit:
		return n, errCopy
	case binary.BigEndian.Uint32(b[12:]) > copyVersion:
		return n, fmt.Errorf("taking over the database: %w", errLaterVersion)
	}
	d.begun, d.size, d.left, d.sum = true, int64(size), int64(size), castagnoli(b)
	return n, d.begin(d.size, binary.BigEndian.Uint64(b[24:]))
}

func (d *copyDecoder) check(p []byte) (n int, err error) {
	b, n := d.take(p, 4)
	if b == nil {
		return n, nil
	}
	if binary.BigEndian.Uint32(b) != d.sum {
		return n, errCopy
	}
	d.chunk = 0
	return n, nil
}

// done says whether everything came.
func (d *copyDecoder) done() error {
	if !d.begun || d.left > 0 || d.chunk > 0 {
		return errCopy
	}
	return nil
}
