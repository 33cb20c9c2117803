package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// bbolt ends the process over a page that makes no sense, in a goroutine where nobody can stop it. So the pages are
// walked with plain reads before the file is mapped. A page starts with a header of 16 bytes: its number (8), flags (2),
// count of elements (2) and of the pages that follow it as one (4). Elements of 16 bytes come next; where their keys and
// values are is relative to the element. A branch's element is: position, key size (4 each), page (8). A leaf's is:
// flags, position, key size, value size (4 each). A value that is a bucket starts with its root page (8) and sequence (8);
// with a zero root its only page follows, without a number of its own.
const (
	pageHeader  = 16
	elementSize = 16

	branchFlag   = 0x01
	leafFlag     = 0x02
	freelistFlag = 0x10
	bucketFlag   = 0x01 // of a leaf's element

	maxDepth = 64
)

// A walker checks the structure of a file: that each page says what it is, holds its elements, in order, within the bounds
// that its parent gives, and is used once.
type walker struct {
	file io.ReaderAt
	meta metaPage
	used []uint64 // a bit for each page
}

var le = binary.LittleEndian

// checkPages walks every page that is in use.
func checkPages(f io.ReaderAt, m metaPage) error {
	w := walker{file: f, meta: m, used: make([]uint64, m.pages/64+1)}
	if err := w.page(m.rootPage, nil, nil, 0); err != nil {
		return err
	}
	if m.freelist == noFreelist {
		return nil
	}
	return w.freelist()
}

// read returns page number and those that belong to it.
func (w *walker) read(number uint64) ([]byte, error) {
	if number < metaPages || number >= w.meta.pages {
		return nil, fmt.Errorf("page %d is out of bounds", number)
	}
	size := w.meta.pageSize
	p := make([]byte, size)
	if _, err := w.file.ReadAt(p, int64(number)*size); err != nil {
		return nil, fmt.Errorf("page %d cannot be read: %w", number, err)
	}
	if le.Uint64(p) != number {
		return nil, fmt.Errorf("page %d says that it is page %d", number, le.Uint64(p))
	}
	follow := uint64(le.Uint32(p[12:]))
	if follow >= w.meta.pages-number {
		return nil, fmt.Errorf("page %d reaches beyond the end", number)
	}
	for n := number; n <= number+follow; n++ {
		if w.used[n/64]&(1<<(n%64)) != 0 {
			return nil, fmt.Errorf("page %d is used twice", n)
		}
		w.used[n/64] |= 1 << (n % 64)
	}
	if follow > 0 {
		p = append(p, make([]byte, int64(follow)*size)...)
		if _, err := w.file.ReadAt(p[size:], int64(number+1)*size); err != nil {
			return nil, fmt.Errorf("page %d cannot be read: %w", number, err)
		}
	}
	return p, nil
}

// page checks a page and all below it. Its keys must be in [low, high); a nil high is no bound.
func (w *walker) page(number uint64, low, high []byte, depth int) error {
	p, err := w.read(number)
	if err != nil {
		return err
	}
	if err := w.elements(p, low, high, depth); err != nil {
		return fmt.Errorf("page %d: %w", number, err)
	}
	return nil
}

var errElement = errors.New("an element is out of bounds")

// part returns size bytes of p from at on.
func part(p []byte, at, size uint64) ([]byte, error) {
	if at > uint64(len(p)) || size > uint64(len(p))-at {
		return nil, errElement
	}
	return p[at : at+size], nil
}

func (w *walker) elements(p []byte, low, high []byte, depth int) error {
	if depth > maxDepth {
		return errors.New("the tree is too deep")
	}
	flags, count := le.Uint16(p[8:]), uint64(le.Uint16(p[10:]))
	if flags != branchFlag && flags != leafFlag {
		return errors.New("it is neither branch nor leaf")
	}
	if flags == branchFlag && count == 0 {
		return errors.New("it is a branch without children")
	}
	if pageHeader+count*elementSize > uint64(len(p)) {
		return errElement
	}
	var keys [][]byte // a branch's
	var children []uint64
	var last []byte
	for i := range count {
		at := pageHeader + i*elementSize
		e := p[at : at+elementSize]
		pos, size := uint64(le.Uint32(e)), uint64(le.Uint32(e[4:]))
		if flags == leafFlag {
			pos, size = uint64(le.Uint32(e[4:])), uint64(le.Uint32(e[8:]))
		}
		key, err := part(p, at+pos, size)
		if err != nil {
			return err
		}
		if i > 0 && bytes.Compare(last, key) >= 0 || bytes.Compare(key, low) < 0 || high != nil && bytes.Compare(key, high) >= 0 {
			return errors.New("its keys are out of order")
		}
		last = key
		if flags == branchFlag {
			keys, children = append(keys, key), append(children, le.Uint64(e[8:]))
			continue
		}
		value, err := part(p, at+pos+size, uint64(le.Uint32(e[12:])))
		if err != nil {
			return err
		}
		switch le.Uint32(e) {
		case 0:
		case bucketFlag:
			if err := w.bucket(value, depth); err != nil {
				return err
			}
		default:
			return errors.New("an element has unknown flags")
		}
	}
	for i, child := range children {
		end := high
		if i+1 < len(keys) {
			end = keys[i+1]
		}
		if err := w.page(child, keys[i], end, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) bucket(value []byte, depth int) error {
	if len(value) < 16 {
		return errElement
	}
	if root := le.Uint64(value); root != 0 {
		return w.page(root, nil, nil, depth+1)
	}
	inline := value[16:]
	if len(inline) < pageHeader || le.Uint16(inline[8:]) != leafFlag {
		return errors.New("a bucket inside it is no leaf")
	}
	return w.elements(inline, nil, nil, depth+1)
}

// freelist checks that the free pages are in order, and free.
func (w *walker) freelist() error {
	p, err := w.read(w.meta.freelist)
	if err != nil {
		return err
	}
	if le.Uint16(p[8:]) != freelistFlag {
		return errors.New("the list of free pages is none")
	}
	count, ids := uint64(le.Uint16(p[10:])), p[pageHeader:]
	if count == 0xffff {
		count, ids = le.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids)/8) {
		return errElement
	}
	var last uint64
	for i := range count {
		n := le.Uint64(ids[8*i:])
		if n <= last || n < metaPages || n >= w.meta.pages || w.used[n/64]&(1<<(n%64)) != 0 {
			return fmt.Errorf("page %d cannot be free", n)
		}
		last = n
	}
	return nil
}
