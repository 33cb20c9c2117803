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
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// codecID names the encoding below in the log's table of contents. A later encoding takes the next number.
const codecID uint64 = 1<<16 + 1

// A codec encodes one entry of the raft log:
//
//	index (8) · term (8) · type (1) · time in Unix nanoseconds (8) · length of extensions (4) · extensions · data · CRC-32C (4)
//
// raft-wal checks its own sums only at the tail, and only when it opens; ours is checked on every read, so that a bit that
// flipped on the disk is never taken for an entry.
type codec struct{}

const codecHeader = 8 + 8 + 1 + 8 + 4

func (codec) ID() uint64 { return codecID }

func (codec) Encode(l *raft.Log, w io.Writer) error {
	b := make([]byte, 0, codecHeader+len(l.Extensions)+len(l.Data)+4)
	b = binary.BigEndian.AppendUint64(b, l.Index)
	b = binary.BigEndian.AppendUint64(b, l.Term)
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

func (codec) Decode(b []byte, l *raft.Log) error {
	if len(b) < codecHeader+4 {
		return errEntry
	}
	body := b[:len(b)-4]
	if castagnoli(body) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return errEntry
	}
	ext := uint64(binary.BigEndian.Uint32(body[25:29]))
	if ext > uint64(len(body)-codecHeader) {
		return errEntry
	}
	*l = raft.Log{
		Index: binary.BigEndian.Uint64(body),
		Term:  binary.BigEndian.Uint64(body[8:]),
		Type:  raft.LogType(body[16]),
	}
	if at := int64(binary.BigEndian.Uint64(body[17:])); at != 0 {
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
	mu   sync.Mutex
	dir  string
	data struct {
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

// openLog opens the log in dir, or makes an empty one, and reads every entry of it once.
func openLog(dir string, segmentSize int, logger hclog.Logger) (_ *wal.WAL, err error) {
	w, err := wal.Open(dir,
		wal.WithCodec(codec{}),
		wal.WithMetaStore(&contents{}),
		wal.WithSegmentFiler(segments{segment.NewFiler(dir, walfs.New())}),
		wal.WithSegmentSize(segmentSize),
		wal.WithLogger(logger))
	if err != nil {
		return nil, fmt.Errorf("opening the log in %s: %w", dir, err)
	}
	return w, nil
}

// checkLog reads every entry of the log once, so that a damaged one is found before raft, which panics, finds it. after is
// the index up to which the node's mark makes the log unnecessary.
func checkLog(w raft.LogStore, dir string, after uint64) error {
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
	}
	return nil
}

// logSize is the number of bytes that the log takes on the disk.
func logSize(dir string) int64 {
	names, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	var size int64
	for _, n := range names {
		if info, err := n.Info(); err == nil && strings.HasSuffix(n.Name(), ".wal") {
			size += info.Size()
		}
	}
	return size
}
