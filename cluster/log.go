package cluster

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"bulwark/storage/entry"
)

// codecID names the encoding below in the log's table of contents. A later encoding takes the next number.
const codecID uint64 = 1<<16 + 1

// A codec encodes one entry of the raft log:
//
//	index (8) · term (8) · first (8) · type (1) · time in Unix nanoseconds (8) · length of extensions (4)
//	· extensions · data · CRC-32C (4)
//
// raft-wal checks its own sums only at the tail, and only when it opens; ours is checked on every read, so that a bit that
// flipped on the disk is never taken for an entry. first is the index of the first entry that was written and synced
// together with this one; checkTail needs it.
type codec struct{ first atomic.Uint64 }

const codecHeader = 8 + 8 + 8 + 1 + 8 + 4

func (*codec) ID() uint64 { return codecID }

func (c *codec) Encode(l *raft.Log, w io.Writer) error {
	b := make([]byte, 0, codecHeader+len(l.Extensions)+len(l.Data)+4)
	b = binary.BigEndian.AppendUint64(b, l.Index)
	b = binary.BigEndian.AppendUint64(b, l.Term)
	b = binary.BigEndian.AppendUint64(b, c.first.Load())
	b = append(b, byte(l.Type))
	var at int64
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Extensions)))
	b = append(b, l.Extensions...)
	b = append(b, l.Data...)
	b = binary.BigEndian.AppendUint32(b, castagnoli(b))
	_, err := w.Write(b)
	return err
}

var errEntry = errors.New("its checksum is wrong")

// entryBody returns an encoded entry without its checksum, or nil when that is wrong.
func entryBody(b []byte) []byte {
	if len(b) < codecHeader+4 || castagnoli(b[:len(b)-4]) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return nil
	}
	return b[:len(b)-4]
}

func (*codec) Decode(b []byte, l *raft.Log) error {
	body := entryBody(b)
	if body == nil {
		return errEntry
	}
	ext := uint64(binary.BigEndian.Uint32(body[33:37]))
	if ext > uint64(len(body)-codecHeader) {
		return errEntry
	}
	*l = raft.Log{
		Index: binary.BigEndian.Uint64(body),
		Term:  binary.BigEndian.Uint64(body[8:]),
		Type:  raft.LogType(body[24]),
	}
	if at := int64(binary.BigEndian.Uint64(body[25:])); at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	// raft-wal uses b again, so what is kept is copied.
	if ext > 0 {
		l.Extensions = append([]byte(nil), body[codecHeader:codecHeader+ext]...)
	}
	if rest := body[codecHeader+ext:]; len(rest) > 0 {
		l.Data = append([]byte(nil), rest...)
	}
	return nil
}

// A contents is raft-wal's table of contents, and raft's term and vote, in one small file. raft-wal's own keeps them in a
// bbolt file, which has no checksums: a flipped bit in its meta page takes back the last vote without a word.
type contents struct {
	mu    sync.Mutex
	dir   string
	fresh bool // there was none
	data  struct {
		Log    types.PersistentState
		Stable map[string][]byte
	}
}

const (
	contentsName    = "contents"
	contentsKind    = "cont"
	contentsVersion = 1
)

func (c *contents) Load(dir string) (types.PersistentState, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dir = dir
	c.data.Stable = map[string][]byte{}
	b, err := readSmall(dir, contentsName, contentsKind, contentsVersion)
	if errors.Is(err, fs.ErrNotExist) {
		c.fresh = true
		return c.data.Log, nil
	}
	if err != nil {
		return c.data.Log, err
	}
	if err := json.Unmarshal(b, &c.data); err != nil || c.data.Stable == nil {
		return c.data.Log, fmt.Errorf("reading %s: %w", filepath.Join(dir, contentsName), errDamaged)
	}
	for _, s := range c.data.Log.Segments {
		if s.Codec > codecID {
			return c.data.Log, fmt.Errorf("reading the log in %s: %w", dir, errLaterVersion)
		}
	}
	return c.data.Log, nil
}

func (c *contents) CommitState(s types.PersistentState) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	// raft-wal v0.4.1 writes the number of its own codec here, whatever codec it was given, and refuses it when it opens.
	s.Segments = append([]types.SegmentInfo(nil), s.Segments...)
	for i := range s.Segments {
		s.Segments[i].Codec = codecID
	}
	old := c.data.Log
	c.data.Log = s
	if err := c.save(); err != nil {
		c.data.Log = old
		return err
	}
	return nil
}

func (c *contents) GetStable(key []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.data.Stable[string(key)]
	if !ok {
		return nil, nil
	}
	return append([]byte{}, v...), nil
}

func (c *contents) SetStable(key, value []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, had := c.data.Stable[string(key)]
	if value == nil {
		delete(c.data.Stable, string(key))
	} else {
		c.data.Stable[string(key)] = append([]byte{}, value...)
	}
	if err := c.save(); err != nil {
		if delete(c.data.Stable, string(key)); had {
			c.data.Stable[string(key)] = old
		}
		return err
	}
	return nil
}

func (c *contents) save() error {
	b, err := json.Marshal(&c.data)
	if err != nil {
		return err
	}
	return writeSmall(c.dir, contentsName, contentsKind, contentsVersion, b)
}

func (c *contents) Close() error { return nil }

// segments writes our codec's number into the header of each segment; see contents.CommitState.
type segments struct{ *segment.Filer }

func (s segments) Create(info types.SegmentInfo) (types.SegmentWriter, error) {
	info.Codec = codecID
	return s.Filer.Create(info)
}

// A diskLog is the log on the disk.
type diskLog struct {
	*wal.WAL
	codec *codec
}

func (d *diskLog) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

// StoreLogs is called by one goroutine at a time.
func (d *diskLog) StoreLogs(logs []*raft.Log) error {
	if len(logs) > 0 {
		d.codec.first.Store(logs[0].Index)
	}
	return d.WAL.StoreLogs(logs)
}

// openLog opens the log in dir, or makes an empty one.
func openLog(dir string, files types.VFS, segmentSize int, logger hclog.Logger) (*diskLog, error) {
	// raft-wal syncs the folder when it first syncs a segment that it made. A process that ended between the two leaves a
	// segment whose name nobody syncs any more.
	if err := syncDir(dir); err != nil {
		return nil, fmt.Errorf("opening the log in %s: %w", dir, err)
	}
	if err := finishTail(dir, files); err != nil {
		return nil, err
	}
	c := new(codec)
	w, err := wal.Open(dir,
		wal.WithCodec(c),
		wal.WithMetaStore(&contents{}),
		wal.WithSegmentFiler(segments{segment.NewFiler(dir, files)}),
		wal.WithSegmentSize(segmentSize),
		wal.WithLogger(logger))
	if err != nil {
		return nil, fmt.Errorf("opening the log in %s: %w", dir, err)
	}
	return &diskLog{WAL: w, codec: c}, nil
}

// segmentFiles returns the segments of the log in order.
func segmentFiles(dir string) ([]string, error) { return filepath.Glob(filepath.Join(dir, "*.wal")) }

// What checkTail needs to know of raft-wal's segments: a header, then frames that begin at multiples of eight bytes with a
// type, three zeros, and the length of what follows in little-endian.
const (
	segmentHeader = 32
	frameHeader   = 8
	frameEntry    = 1
)

// checkTail looks for synced entries behind the end of the log. When it opens, raft-wal takes the first frame of the newest
// segment that it cannot read for the torn end of the last write, and forgets what follows. But each write is synced before
// the next one begins: an entry behind the end that was not part of the very next write shows that the one before it was
// whole, so that what broke it was damage.
func checkTail(dir string, last uint64) error {
	names, err := segmentFiles(dir)
	if err != nil || len(names) == 0 {
		return err
	}
	tail := names[len(names)-1]
	f, err := os.Open(tail)
	if err != nil {
		return fmt.Errorf("opening the log in %s: %w", dir, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("opening the log in %s: %w", dir, err)
	}
	window, start := make([]byte, 256<<10), int64(0)
	n := 0
	for at := int64(segmentHeader); at+frameHeader <= st.Size(); {
		if at+frameHeader > start+int64(n) {
			start = at
			if n, err = f.ReadAt(window, start); n < frameHeader {
				return fmt.Errorf("reading the log in %s: %w", dir, err)
			}
		}
		frame := window[at-start:][:frameHeader]
		size := int64(binary.LittleEndian.Uint32(frame[4:]))
		if frame[0] != frameEntry || frame[1]|frame[2]|frame[3] != 0 || size < codecHeader+4 || at+frameHeader+size > st.Size() {
			at += frameHeader
			continue
		}
		b := make([]byte, size)
		if _, err := f.ReadAt(b, at+frameHeader); err != nil {
			return fmt.Errorf("reading the log in %s: %w", dir, err)
		}
		body := entryBody(b)
		if body == nil {
			at += frameHeader
			continue
		}
		index, first := binary.BigEndian.Uint64(body), binary.BigEndian.Uint64(body[16:])
		if index > last && first > last+1 {
			return fmt.Errorf("the log in %s can be read up to entry %d, but goes on to %d or further: %w", dir, last, index, errDamaged)
		}
		at += frameHeader + (size+frameHeader-1)/frameHeader*frameHeader
	}
	return nil
}

// checkLog reads every entry of the log once, so that a damaged one is found before raft, which panics, finds it. after is
// the index up to which the node's mark makes the log unnecessary. each is called with every entry.
func checkLog(w raft.LogStore, dir string, after, applied uint64, each func(*raft.Log)) error {
	first, err := w.FirstIndex()
	if err != nil {
		return err
	}
	last, err := w.LastIndex()
	if err != nil {
		return err
	}
	if last != 0 && first > after+1 {
		return fmt.Errorf("the log in %s begins at entry %d, but the database needs it from %d on: %w", dir, first, after+1, errDamaged)
	}
	var term uint64
	for i := first; i <= last && last != 0; i++ {
		var l raft.Log
		if err := w.GetLog(i, &l); err != nil {
			return fmt.Errorf("the log in %s, entry %d: %w; %w", dir, i, err, errDamaged)
		}
		if l.Index != i || l.Term < term || l.Term == 0 {
			return fmt.Errorf("the log in %s, entry %d: it is another entry; %w", dir, i, errDamaged)
		}
		term = l.Term
		each(&l)
		if err := checkFormat(&l, applied); err != nil {
			return fmt.Errorf("the log in %s, entry %d: %w", dir, i, err)
		}
	}
	return checkTail(dir, last)
}

// checkFormat makes sure that this version can read an entry which the database, that holds entries up to applied, still
// needs. The state machine would stop over it, too: but by then the log has been written to.
func checkFormat(l *raft.Log, applied uint64) error {
	if l.Type != raft.LogCommand || len(l.Data) == 0 || l.Index <= applied {
		return nil
	}
	_, err := entry.DecodeBatch(l.Data)
	var newer *entry.NewerFormatError
	switch {
	case errors.As(err, &newer):
		return newer
	case err != nil:
		return fmt.Errorf("%w; %w", err, errDamaged)
	}
	return nil
}

// logSize is the number of bytes that the log takes on the disk.
func logSize(dir string) int64 {
	names, err := segmentFiles(dir)
	if err != nil {
		return 0
	}
	var size int64
	for _, n := range names {
		if info, err := os.Stat(n); err == nil {
			size += info.Size()
		}
	}
	return size
}
