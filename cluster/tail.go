package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// finishTail finishes what a crash left of the log's newest segment. The last write into a full segment ends with an index
// of its entries; the table of contents is told afterwards that the segment is full, and which is the next. raft-wal v0.4.1
// takes a segment with an index for full when it opens it, but does not go on to the next if the table does not say so:
// it would refuse every write from then on. It does so even where that last write is torn, and its entries do not count.
// So a whole one is entered into the table here, and a torn one is wiped.
func finishTail(dir string, files types.VFS) error {
	table := new(contents)
	log, err := table.Load(dir)
	if err != nil || len(log.Segments) == 0 {
		return err
	}
	log.Segments = append([]types.SegmentInfo(nil), log.Segments...)
	tail := &log.Segments[len(log.Segments)-1]
	if !tail.SealTime.IsZero() {
		return nil
	}
	w, err := segments{segment.NewFiler(dir, files)}.RecoverTail(*tail)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is made when the log is opened
	}
	if err != nil {
		return fmt.Errorf("opening the log in %s: %w", dir, err)
	}
	sealed, start, err := w.Sealed()
	last := w.LastIndex()
	if err := errors.Join(err, w.Close()); err != nil || !sealed {
		return err
	}
	path := filepath.Join(dir, segment.FileName(*tail))
	indexed, err := indexedEntries(path, start)
	if err != nil {
		return fmt.Errorf("opening the log in %s: %w", dir, err)
	}
	if last+1 != tail.BaseIndex+indexed {
		if last+1 < tail.BaseIndex { // nothing in it counts
			last = tail.BaseIndex - 1
		}
		if err := checkTail(dir, last); err != nil {
			return err
		}
		if err := wipeTorn(path, last+1-tail.BaseIndex); err != nil {
			return fmt.Errorf("opening the log in %s: %w", dir, err)
		}
		return nil
	}
	tail.SealTime, tail.MaxIndex, tail.IndexStart = time.Now(), last, start
	log.Segments = append(log.Segments, types.SegmentInfo{
		ID: log.NextSegmentID, BaseIndex: last + 1, MinIndex: last + 1, SizeLimit: tail.SizeLimit,
		Codec: codecID, CreateTime: time.Now(),
	})
	log.NextSegmentID++
	return table.CommitState(log)
}

// Frames of a segment beside entries; see checkTail. The index holds four bytes for each entry of the segment. A commit
// ends each write; its second half is a checksum, and nothing follows its header.
const (
	frameIndex  = 2
	frameCommit = 3
)

// indexedEntries returns how many entries the index at start lists.
func indexedEntries(path string, start uint64) (uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var frame [frameHeader]byte
	if _, err := f.ReadAt(frame[:], int64(start)-frameHeader); err != nil {
		return 0, err
	}
	return uint64(binary.LittleEndian.Uint32(frame[4:])) / 4, nil
}

// wipeTorn overwrites a segment with zeros from the end of the write with which it had that many entries.
func wipeTorn(path string, entries uint64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	var end int64
	if err == nil && entries > 0 {
		end, err = endOf(f, entries)
	}
	if err == nil {
		err = f.Truncate(end)
	}
	if err == nil {
		err = f.Truncate(st.Size())
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// endOf returns where the write ends with which a segment had that many entries.
func endOf(f *os.File, entries uint64) (int64, error) {
	var n uint64
	for at := int64(segmentHeader); ; {
		var frame [frameHeader]byte
		if _, err := f.ReadAt(frame[:], at); err != nil {
			return 0, err
		}
		at += frameHeader
		switch frame[0] {
		case frameEntry, frameIndex:
			if frame[0] == frameEntry {
				n++
			}
			at += (int64(binary.LittleEndian.Uint32(frame[4:])) + frameHeader - 1) / frameHeader * frameHeader
		case frameCommit:
			if n == entries {
				return at, nil
			}
		default:
			return 0, errDamaged
		}
	}
}
