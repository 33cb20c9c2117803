package keys

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"bulwark/storage"
)

// HeaderFile is the name of the seal's header in the data folder.
const HeaderFile = "seal.json"

const (
	headerFormat  = 1
	headerMaxSize = 64 << 10
)

// A Kind is a kind of seal.
type Kind string

// The kinds of seal.
const (
	File       Kind = "file"
	Passphrase Kind = "passphrase"
	Shamir     Kind = "shamir"
)

// A Seal keeps the root key between two runs of a node. Its errors are one line for the operator.
type Seal interface {
	// Kind is the word in the header.
	Kind() Kind
	// Close protects root, and returns what the header must hold to open it again.
	Close(cluster storage.ID, root []byte) (params json.RawMessage, err error)
	// Open returns the root key, which Header.Open checks. It writes nothing.
	Open(cluster storage.ID, params json.RawMessage) (root []byte, err error)
}

// A Header is the file seal.json: how a node's root key is sealed, and enough to tell the right key from another.
type Header struct {
	Format   int             `json:"format"`
	Kind     Kind            `json:"kind"`
	Cluster  storage.ID      `json:"cluster"`
	Check    string          `json:"check"`  // of the root key, in hexadecimal; says nothing about the key
	Params   json.RawMessage `json:"params"` // of the seal
	Checksum string          `json:"checksum"`
}

// Init makes a new cluster in the data folder dir: it draws a root key and a cluster id, closes seal on them and writes
// the header. It refuses a folder that has a header. What an earlier attempt left that was cut off is taken back first.
// The caller clears root.
func Init(dir string, seal Seal, rand io.Reader) (h *Header, root []byte, err error) {
	if err := headerless(dir); err != nil {
		return nil, nil, err
	}
	if err := startOver(dir, seal); err != nil {
		return nil, nil, fmt.Errorf("taking back an attempt that was cut off: %w", err)
	}
	if f, ok := seal.(*FileSeal); ok {
		if err := f.free(); err != nil {
			return nil, nil, err
		}
	}
	root = make([]byte, RootLen)
	var cluster storage.ID
	for _, b := range [][]byte{root, cluster[:]} {
		if _, err := io.ReadFull(rand, b); err != nil {
			return nil, nil, fmt.Errorf("drawing the root key: %w", err)
		}
	}
	cluster[6], cluster[8] = cluster[6]&0x0f|0x40, cluster[8]&0x3f|0x80 // a UUIDv4 (RFC 9562)
	if err = begin(dir, cluster); err == nil {
		h, err = Protect(dir, seal, cluster, root)
	}
	if terr := Tidy(dir); err == nil {
		err = terr
	}
	if err != nil {
		clear(root)
		return nil, nil, err
	}
	return h, root, nil
}

// headerless refuses a folder that has a header.
func headerless(dir string) error {
	path := filepath.Join(dir, HeaderFile)
	_, err := os.Lstat(path)
	switch {
	case err == nil:
		return storage.Errorf(storage.Exists, "already_initialised",
			"%s exists already: this data folder belongs to a cluster; choose another folder with --data", path)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("looking for %s: %w", path, err)
}

// Protect closes seal on the root key of an existing cluster and writes the header into the data folder dir, as a node
// does that joins. It refuses a folder that has a header.
func Protect(dir string, seal Seal, cluster storage.ID, root []byte) (*Header, error) {
	if err := headerless(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, HeaderFile)
	params, err := seal.Close(cluster, root)
	if err != nil {
		return nil, err
	}
	h := &Header{Format: headerFormat, Kind: seal.Kind(), Cluster: cluster, Check: rootCheck(cluster, root), Params: params}
	if h.Checksum, err = h.sum(); err == nil {
		err = h.write(path)
	}
	if err != nil {
		if f, ok := seal.(*FileSeal); ok {
			f.undo()
		}
		return nil, fmt.Errorf("writing %s: %w", path, err)
	}
	return h, nil
}

// ReadHeader reads the header in the data folder dir. A folder without one is NotFound.
func ReadHeader(dir string) (*Header, error) {
	path := filepath.Join(dir, HeaderFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, storage.Errorf(storage.NotFound, "not_initialised",
			"%s is not there: run `bulwark operator init`, or name the right folder with --data", path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the seal's header: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, headerMaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	h, err := parseHeader(b)
	if err != nil {
		var e *storage.Error
		if errors.As(err, &e) {
			return nil, storage.Errorf(e.Fault, e.Code, "%s %s", path, e.Message)
		}
		return nil, err
	}
	return h, nil
}

// parseHeader reads a header. Its errors are to be read after the file's name.
func parseHeader(b []byte) (*Header, error) {
	damaged := func(why string) error {
		return storage.Errorf(storage.Internal, "damaged_header",
			"is damaged (%s): put back the file from a copy of this data folder", why)
	}
	if len(b) > headerMaxSize {
		return nil, damaged("it is too long")
	}
	var version struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, damaged("it is not JSON of the right shape")
	}
	if version.Format > headerFormat {
		return nil, storage.Errorf(storage.Internal, "newer_format",
			"has format %d, and this version of bulwark knows formats up to %d: run the version that wrote it, or a newer one", version.Format, headerFormat)
	}
	h := &Header{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(h); err != nil || h.Format != headerFormat {
		return nil, damaged("it is not JSON of the right shape")
	}
	sum, err := h.sum()
	if err != nil || sum != h.Checksum {
		return nil, damaged("its checksum differs")
	}
	switch h.Kind {
	case File, Passphrase, Shamir:
		return h, nil
	}
	return nil, damaged("its kind of seal is unknown")
}

// sum is a checksum against accidents; it is no protection against a person, and needs to be none: a changed header can
// at most make the root key be refused.
func (h *Header) sum() (string, error) {
	var params bytes.Buffer
	if err := json.Compact(&params, h.Params); err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "bulwark seal header\n%d\n%s\n%s\n%s\n%s", h.Format, h.Kind, h.Cluster, h.Check, params.Bytes()))
	return hex.EncodeToString(sum[:8]), nil
}

// write puts the header at path: whole, or not at all.
func (h *Header) write(path string) error {
	b, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+HeaderFile+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is nothing to remove
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Open opens seal with the header's parameters and returns the root key, if it is the right one. The caller clears it.
func (h *Header) Open(seal Seal) (root []byte, err error) {
	if seal.Kind() != h.Kind {
		return nil, storage.Errorf(storage.BadInput, "other_seal",
			"the root key of this data folder is sealed by %q, not by %q: set the seal's kind in the "+
				"configuration to %q", h.Kind, seal.Kind(), h.Kind)
	}
	if root, err = seal.Open(h.Cluster, h.Params); err != nil {
		return nil, err
	}
	if err := h.Verify(root); err != nil {
		clear(root)
		return nil, err
	}
	return root, nil
}

// Verify says whether root is the root key of the header's cluster.
func (h *Header) Verify(root []byte) error {
	if len(root) != RootLen || subtle.ConstantTimeCompare([]byte(rootCheck(h.Cluster, root)), []byte(h.Check)) != 1 {
		return storage.Errorf(storage.BadInput, "wrong_root_key",
			"this root key is not the one that cluster %s was made with: give the right key", h.Cluster)
	}
	return nil
}

// rootCheck is a value that tells root keys apart. It is one-way, and the root key has 256 random bits, so it may be read
// by anybody.
func rootCheck(cluster storage.ID, root []byte) string {
	return hex.EncodeToString(expand(root, cluster[:], labelRoot))
}

func damagedParams() error {
	return storage.Errorf(storage.Internal, "damaged_header",
		"%s holds parameters that no seal wrote: put back the file from a copy of this data folder", HeaderFile)
}

// readParams reads the parameters of a seal, strictly.
func readParams(params json.RawMessage, into any) error {
	d := json.NewDecoder(bytes.NewReader(params))
	d.DisallowUnknownFields()
	if d.Decode(into) != nil {
		return damagedParams()
	}
	return nil
}
