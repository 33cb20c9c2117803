// Package backup is the snapshot file: a consistent copy of the sealed database, with what proves that it is whole, whose it is,
// and that it restores.
//
// Promise: a snapshot is taken while writes go on, of one transaction. One bit changed anywhere in it is found, and a file that
// was cut short is refused: it ends with a signature over all of it, by a key that only the holder of the root key can make.
// It holds ciphertext only. DESIGN.md has the format.
package backup

import (
	"bufio"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"bulwark/storage"
	"bulwark/storage/bolt"
)

const (
	magic     = "bulwark snapshot 1\n"
	maxJSON   = 64 << 20
	chunkSize = 1 << 20

	recordData    = 'd'
	recordPause   = 'p' // nothing came for a while, because the node was certifying
	recordTrailer = 't'
)

// A Header says what a snapshot is of. It is written before the copy.
type Header struct {
	Cluster   storage.ID `json:"cluster"`
	Node      storage.ID `json:"node"`
	Version   string     `json:"version"` // of the program
	Time      time.Time  `json:"time"`
	Index     uint64     `json:"index"` // of the log: every entry up to it is inside
	Revision  uint64     `json:"revision"`
	Size      int64      `json:"size"`       // bytes of the database
	KeyCheck  string     `json:"key_check"`  // tells the right root key from another
	PublicKey []byte     `json:"public_key"` // Ed25519; the root key makes it again
}

// A Trailer says what was found in the copy. It is written after it.
type Trailer struct {
	Root      Hash       `json:"root"` // of the state: bolt.Digest
	Values    uint64     `json:"values"`
	Trees     []Tree     `json:"audit"`
	Certified *time.Time `json:"certified,omitempty"` // when the node restored the copy in itself and found the same
	Seconds   float64    `json:"seconds"`             // that the node took

}

// A Tree is the head of a tenant's audit tree.
type Tree struct {
	Tenant storage.ID `json:"tenant"`
	Size   uint64     `json:"size"`
	Root   Hash       `json:"root"`
}

// A Hash is written in hexadecimal.
type Hash [32]byte

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(b []byte) error {
	if hex.DecodedLen(len(b)) != len(h) {
		return errors.New("a hash has 64 hexadecimal digits")
	}
	_, err := hex.Decode(h[:], b)
	return err
}

// Found makes the trailer of what a digest found.
func Found(d bolt.Digest) Trailer {
	t := Trailer{Root: d.Root, Values: d.Values, Trees: []Tree{}}
	for _, tree := range d.Tenants {
		t.Trees = append(t.Trees, Tree{Tenant: tree.Tenant, Size: tree.Size, Root: tree.Root})
	}
	return t
}

// Same reports whether two trailers say the same of the state.
func (t *Trailer) Same(o *Trailer) bool {
	if t.Root != o.Root || t.Values != o.Values || len(t.Trees) != len(o.Trees) {
		return false
	}
	for i := range t.Trees {
		if t.Trees[i] != o.Trees[i] {
			return false
		}
	}
	return true
}

// ErrDamaged is wrapped by every error about a file that is not as it was written.
var ErrDamaged = errors.New("the snapshot is damaged, or is none: take another copy of it")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w (%s)", ErrDamaged, fmt.Sprintf(format, args...))
}

// A Writer writes a snapshot file. Write takes the copy's bytes.
type Writer struct {
	w     *bufio.Writer
	chain [32]byte // of the header and every chunk
	buf   []byte
}

// NewWriter writes the header.
func NewWriter(w io.Writer, h *Header) (*Writer, error) {
	b, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encoding the snapshot's header: %w", err)
	}
	s := &Writer{w: bufio.NewWriterSize(w, chunkSize+64), buf: make([]byte, 0, chunkSize), chain: sha256.Sum256(b)}
	s.w.WriteString(magic)
	s.length(len(b))
	s.w.Write(b) // a bufio.Writer keeps its first error
	return s, s.w.Flush()
}

func (s *Writer) length(n int) {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	s.w.Write(b[:])
}

// Write implements io.Writer.
func (s *Writer) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		part := b[:min(len(b), chunkSize-len(s.buf))]
		s.buf = append(s.buf, part...)
		b, n = b[len(part):], n+len(part)
		if len(s.buf) == chunkSize {
			if err := s.chunk(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// chunk writes what has gathered: its length, its bytes, and the hash of the hash before and the bytes.
func (s *Writer) chunk() error {
	if len(s.buf) == 0 {
		return nil
	}
	s.chain = link(s.chain, s.buf)
	s.w.WriteByte(recordData)
	s.length(len(s.buf))
	s.w.Write(s.buf)
	_, err := s.w.Write(s.chain[:])
	s.buf = s.buf[:0]
	return err
}

func link(chain [32]byte, b []byte) [32]byte {
	h := sha256.New()
	h.Write(chain[:])
	h.Write(b)
	return [32]byte(h.Sum(nil))
}

// Flush ends the copy's bytes.
func (s *Writer) Flush() error {
	if err := s.chunk(); err != nil {
		return err
	}
	return s.w.Flush()
}

// Pause says that more will come.
func (s *Writer) Pause() error {
	s.w.WriteByte(recordPause)
	return s.w.Flush()
}

// Close writes the trailer and the signature over all.
func (s *Writer) Close(t *Trailer, key ed25519.PrivateKey) error {
	if err := s.Flush(); err != nil {
		return err
	}
	b, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("encoding the snapshot's trailer: %w", err)
	}
	signed := link(s.chain, b)
	s.w.WriteByte(recordTrailer)
	s.length(len(b))
	s.w.Write(b)
	s.w.Write(ed25519.Sign(key, signed[:]))
	return s.w.Flush()
}

// A Snapshot is what Read found.
type Snapshot struct {
	Header  Header
	Trailer Trailer
}

// Read reads a whole snapshot file and checks its hashes and its signature. The copy's bytes go to sink, before they are known
// to be right as a whole: whoever uses them waits for Read to return. progress, if not nil, hears how many there are.
func Read(r io.Reader, sink io.Writer, progress func(done, size int64)) (*Snapshot, error) {
	in := bufio.NewReaderSize(r, chunkSize)
	var s Snapshot
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(in, head); err != nil || string(head) != magic {
		return nil, damaged("it does not begin as one")
	}
	b, err := readJSON(in, &s.Header)
	if err != nil {
		return nil, err
	}
	if len(s.Header.PublicKey) != ed25519.PublicKeySize || s.Header.Size < 0 {
		return nil, damaged("its header is not whole")
	}
	chain, done := sha256.Sum256(b), int64(0)
	buf := make([]byte, chunkSize)
	for {
		kind, err := in.ReadByte()
		if err != nil {
			return nil, damaged("it is cut short after %d bytes of the database", done)
		}
		switch kind {
		case recordPause:
		case recordData:
			n, err := readLength(in, chunkSize)
			if err != nil {
				return nil, err
			}
			var sum [32]byte
			_, err = io.ReadFull(in, buf[:n])
			if err == nil {
				_, err = io.ReadFull(in, sum[:])
			}
			if err != nil {
				return nil, damaged("it is cut short after %d bytes of the database", done)
			}
			if chain = link(chain, buf[:n]); chain != sum {
				return nil, damaged("the bytes from %d of the database on are not those that were written", done)
			}
			if done += int64(n); done > s.Header.Size {
				return nil, damaged("there is more of the database than its header says")
			}
			if _, err := sink.Write(buf[:n]); err != nil {
				return nil, err
			}
			if progress != nil {
				progress(done, s.Header.Size)
			}
		case recordTrailer:
			if done != s.Header.Size {
				return nil, damaged("%d of %d bytes of the database are there", done, s.Header.Size)
			}
			return &s, readTrailer(in, &s, chain)
		default:
			return nil, damaged("there is a record of an unknown kind")
		}
	}
}

func readTrailer(in *bufio.Reader, s *Snapshot, chain [32]byte) error {
	b, err := readJSON(in, &s.Trailer)
	if err != nil {
		return err
	}
	signature := make([]byte, ed25519.SignatureSize)
	if _, err := io.ReadFull(in, signature); err != nil {
		return damaged("its signature is cut short")
	}
	if signed := link(chain, b); !ed25519.Verify(s.Header.PublicKey, signed[:], signature) {
		return damaged("its signature does not hold")
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		return damaged("something follows its end")
	}
	return nil
}

func readLength(in io.Reader, most int) (int, error) {
	var b [4]byte
	if _, err := io.ReadFull(in, b[:]); err != nil {
		return 0, damaged("it is cut short")
	}
	n := binary.BigEndian.Uint32(b[:])
	if n == 0 || n > uint32(most) {
		return 0, damaged("a length is out of bounds")
	}
	return int(n), nil
}

// readJSON takes no more memory than has come.
func readJSON(in io.Reader, into any) ([]byte, error) {
	n, err := readLength(in, maxJSON)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(in, int64(n)))
	if err != nil || len(b) != n || json.Unmarshal(b, into) != nil {
		return nil, damaged("what describes it cannot be read")
	}
	return b, nil
}

// Peek reads the header alone. Nothing of it is checked.
func Peek(r io.Reader) (*Header, error) {
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(r, head); err != nil || string(head) != magic {
		return nil, damaged("it does not begin as one")
	}
	h := new(Header)
	_, err := readJSON(r, h)
	return h, err
}
