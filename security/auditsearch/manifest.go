package auditsearch

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/blevesearch/bleve/v2/index/scorch"
	segment "github.com/blevesearch/scorch_segment_api/v2"
)

// Sealing protects each value in a segment, not the segment's structure: an offset that was turned would make a search
// miss events. So a manifest of ours holds a MAC of each segment, which never changes once it is written. It is a text:
// a line "<name> <hex MAC>" for each segment, sorted, and last the hex MAC of those lines.
//
// A segment that a crash kept out of the manifest is checked by its own CRC-32, which finds accidents, not malice. The
// manifest is written after each batch, so that there are seldom any.
const manifestName = "manifest"

type manifest map[string][sha256.Size]byte

func newMAC(key []byte, what string) (hash.Hash, error) {
	k, err := hkdf.Key(sha256.New, key, nil, "bulwark audit index manifest", sha256.Size)
	if err != nil {
		return nil, err
	}
	h := hmac.New(sha256.New, k)
	h.Write([]byte(what))
	h.Write([]byte{0})
	return h, nil
}

// macFile returns the MAC of a file, and whether the CRC-32 at its end is that of what stands before it.
func macFile(path string, key []byte) (mac [sha256.Size]byte, crcHolds bool, err error) {
	h, err := newMAC(key, "segment "+filepath.Base(path))
	if err != nil {
		return mac, false, err
	}
	f, err := os.Open(path)
	if err != nil {
		return mac, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return mac, false, err
	}
	if info.Size() < 4 {
		return mac, false, errors.New("a segment is cut short")
	}
	crc := crc32.NewIEEE()
	if _, err := io.CopyN(io.MultiWriter(h, crc), f, info.Size()-4); err != nil {
		return mac, false, err
	}
	var end [4]byte
	if _, err := io.ReadFull(f, end[:]); err != nil {
		return mac, false, err
	}
	h.Write(end[:])
	h.Sum(mac[:0])
	return mac, binary.BigEndian.Uint32(end[:]) == crc.Sum32(), nil
}

func (m manifest) encode(key []byte) ([]byte, error) {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	var b bytes.Buffer
	for _, name := range names {
		mac := m[name]
		fmt.Fprintf(&b, "%s %x\n", name, mac[:])
	}
	h, err := newMAC(key, "manifest")
	if err != nil {
		return nil, err
	}
	h.Write(b.Bytes())
	fmt.Fprintf(&b, "%x\n", h.Sum(nil))
	return b.Bytes(), nil
}

var errManifest = errors.New("its manifest is not as it was written")

func decodeManifest(b, key []byte) (manifest, error) {
	m := manifest{}
	lines := strings.Split(string(b), "\n")
	for _, line := range lines[:max(len(lines)-2, 0)] {
		name, text, ok := strings.Cut(line, " ")
		mac, err := hex.DecodeString(text)
		if !ok || err != nil || len(mac) != sha256.Size {
			return nil, errManifest
		}
		m[name] = [sha256.Size]byte(mac)
	}
	again, err := m.encode(key)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(again, b) {
		return nil, errManifest
	}
	return m, nil
}

// load checks every segment in the folder against the manifest.
func checkManifest(path string, key []byte) (manifest, error) {
	b, err := os.ReadFile(filepath.Join(path, manifestName))
	if err != nil {
		return nil, errors.New("it has no manifest")
	}
	m, err := decodeManifest(b, key)
	if err != nil {
		return nil, err
	}
	files, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	seen := manifest{}
	for _, f := range files {
		if filepath.Ext(f.Name()) != ".zap" {
			continue
		}
		mac, crcHolds, err := macFile(filepath.Join(path, f.Name()), key)
		if err != nil {
			return nil, fmt.Errorf("reading a segment: %w", err)
		}
		want, listed := m[f.Name()]
		switch {
		case listed && want != mac:
			return nil, fmt.Errorf("segment %s was altered", f.Name())
		case !listed && !crcHolds:
			// A merge that a crash stopped leaves such a file, and bleve then removes it. Were it in use, opening would fail:
			// so it is put out of the way here.
			if err := os.Remove(filepath.Join(path, f.Name())); err != nil {
				return nil, err
			}
			continue
		}
		seen[f.Name()] = mac
	}
	return seen, nil
}

// settle brings the manifest up to the segments in use, if they have changed.
func (o *openIndex) settle() error {
	r, err := o.bleve.Reader()
	if err != nil {
		return fmt.Errorf("listing segments: %w", err)
	}
	defer r.Close()
	snapshot, ok := r.(*scorch.IndexSnapshot)
	if !ok {
		return errors.New("internal error: the index is not a scorch index")
	}
	now := manifest{}
	changed := o.written == nil
	for _, s := range snapshot.Segments() {
		p, ok := s.Segment().(segment.PersistedSegment)
		if !ok {
			continue
		}
		name := filepath.Base(p.Path())
		mac, known := o.macs[name]
		if !known {
			if mac, _, err = macFile(p.Path(), o.folder.key); err != nil {
				return fmt.Errorf("reading a segment: %w", err)
			}
		}
		now[name] = mac
		if _, listed := o.written[name]; !listed {
			changed = true
		}
	}
	o.macs = now
	if !changed && len(now) == len(o.written) {
		return nil
	}
	b, err := now.encode(o.folder.key)
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(o.path, manifestName), b); err != nil {
		return fmt.Errorf("writing the audit index's manifest: %w", err)
	}
	o.written = now
	return nil
}

// replaceFile puts a file in another's place, synced.
func replaceFile(path string, b []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes the names in a folder durable, where the system can.
func syncFolder(path string) error {
	if runtime.GOOS == "windows" {
		return nil // a folder cannot be synced there
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
