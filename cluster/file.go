package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A small file holds what must never be half written or silently changed: the node's identity, the log's table of contents
// with term and vote, and the mark. It is replaced as a whole: written beside itself, synced, renamed, the folder synced.
//
//	magic "bulwark\n" (8) · kind (4) · version (4) · length (4) · payload · CRC-32C of all that (4)
const (
	smallMagic  = "bulwark\n"
	smallHeader = 8 + 4 + 4 + 4
	smallLimit  = 16 << 20
	tmpSuffix   = ".tmp"
)

var errLaterVersion = errors.New("it was written by a later version of bulwark: run that version, or a newer one")

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func encodeSmall(kind string, version uint32, payload []byte) []byte {
	b := make([]byte, 0, smallHeader+len(payload)+4)
	b = append(b, smallMagic...)
	b = append(b, kind[:4]...)
	b = binary.BigEndian.AppendUint32(b, version)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, payload...)
	return binary.BigEndian.AppendUint32(b, castagnoli(b))
}

func decodeSmall(kind string, version uint32, b []byte) ([]byte, error) {
	if len(b) < smallHeader+4 || string(b[:8]) != smallMagic || string(b[8:12]) != kind[:4] {
		return nil, errDamaged
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if castagnoli(body) != sum || uint64(binary.BigEndian.Uint32(b[16:20])) != uint64(len(body)-smallHeader) {
		return nil, errDamaged
	}
	if v := binary.BigEndian.Uint32(b[12:16]); v > version {
		return nil, errLaterVersion
	}
	return body[smallHeader:], nil
}

var errDamaged = errors.New("it is damaged: restore this node from the others or from a snapshot")

// readSmall returns fs.ErrNotExist when there is no such file.
func readSmall(dir, name, kind string, version uint32) ([]byte, error) {
	path := filepath.Join(dir, name)
	if st, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	} else if st.Size() > smallLimit {
		return nil, fmt.Errorf("reading %s: %w", path, errDamaged)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	payload, err := decodeSmall(kind, version, b)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return payload, nil
}

func writeSmall(dir, name, kind string, version uint32, payload []byte) (err error) {
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path+tmpSuffix, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = f.Write(encodeSmall(kind, version, payload))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(path+tmpSuffix, path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// removeLeftovers removes what a crash left half written.
func removeLeftovers(dir string) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if strings.HasSuffix(n.Name(), tmpSuffix) && n.Type().IsRegular() {
			if err := os.Remove(filepath.Join(dir, n.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
