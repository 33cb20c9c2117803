package keys

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"bulwark/storage"
)

// A FileSeal keeps the root key in a file of mode 0600 outside the data folder, so that a copy of the data folder does
// not carry its own key.
type FileSeal struct {
	path string // "" before Open: where the header says
	made bool
}

type fileParams struct {
	Path string `json:"path"`
}

const keyFileMagic = "bulwark-root-key-1"

// NewFileSeal returns a seal with the key file at path, which must lie outside the data folder dir. An empty path, for
// Open only, means where the header says.
func NewFileSeal(dir, path string) (*FileSeal, error) {
	if path == "" {
		return &FileSeal{}, nil
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("finding the key file: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("finding the data folder: %w", err)
	}
	inside, err := filepath.Rel(resolve(dir), resolve(path))
	if err == nil && inside != ".." && !strings.HasPrefix(inside, ".."+string(filepath.Separator)) {
		return nil, storage.Errorf(storage.BadInput, "key_inside_data",
			"the key file %s lies inside the data folder, and every copy of the data would carry its own key: "+
				"choose a place outside %s", path, dir)
	}
	return &FileSeal{path: path}, nil
}

// resolve follows the links of the longest part of an absolute path that exists.
func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	parent := filepath.Dir(path)
	if parent == path {
		return path
	}
	return filepath.Join(resolve(parent), filepath.Base(path))
}

// Kind is File.
func (s *FileSeal) Kind() Kind { return File }

// Close writes the key file, which must not exist yet.
func (s *FileSeal) Close(cluster storage.ID, root []byte) (json.RawMessage, error) {
	if s.path == "" {
		return nil, storage.Errorf(storage.BadInput, "no_key_file",
			"the file seal has no key file: name one outside the data folder")
	}
	dir := filepath.Dir(s.path)
	if err := makeFolder(dir); err != nil {
		return nil, fmt.Errorf("making the key file's folder: %w", err)
	}
	f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, s.taken()
	}
	if err != nil {
		return nil, fmt.Errorf("making the key file: %w", err)
	}
	s.made = true
	text := encodeKeyFile(cluster, root)
	defer clear(text)
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close(), syncDir(dir)); err != nil {
		s.undo()
		return nil, fmt.Errorf("writing the key file: %w", err)
	}
	return json.Marshal(fileParams{Path: s.path})
}

func (s *FileSeal) taken() error {
	return storage.Errorf(storage.Exists, "key_file_exists",
		"the key file %s exists already, and may be the only key to some data: name another file, or move it away", s.path)
}

// free refuses a path at which there is a file, before anything is made.
func (s *FileSeal) free() error {
	if _, err := os.Lstat(s.path); s.path != "" && err == nil {
		return s.taken()
	}
	return nil
}

// makeFolder makes dir and what is missing above it, durably: the key file must outlive a power cut that the data does.
func makeFolder(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeFolder(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// undo removes the key file of a cluster that did not come to be.
func (s *FileSeal) undo() {
	if s.made {
		os.Remove(s.path)
		s.made = false
	}
}

// Open reads the key file.
func (s *FileSeal) Open(cluster storage.ID, params json.RawMessage) ([]byte, error) {
	path := s.path
	if path == "" {
		var p fileParams
		if err := readParams(params, &p); err != nil {
			return nil, err
		}
		path = p.Path
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, storage.Errorf(storage.Unavailable, "key_file_missing",
			"the key file %s is not there: put it back, or name the place where it is now in the configuration", path)
	}
	if err != nil {
		return nil, storage.Errorf(storage.Unavailable, "key_file_unreadable",
			"the key file %s cannot be opened: make it readable for the user that runs bulwark, and for nobody else", path)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading the key file's mode: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, storage.Errorf(storage.BadInput, "key_file_unreadable",
			"the key file %s is not a regular file: name the file that `bulwark operator init` made", path)
	}
	if openToOthers(info) {
		return nil, storage.Errorf(storage.BadInput, "key_file_mode",
			"the key file %s can be read by others (mode %04o): run `chmod 600 %s`, and ask who may have read it", path, info.Mode().Perm(), path)
	}
	b, err := io.ReadAll(io.LimitReader(f, 1024))
	defer clear(b)
	if err != nil {
		return nil, fmt.Errorf("reading the key file: %w", err)
	}
	owner, root, err := parseKeyFile(b)
	if err != nil {
		return nil, storage.Errorf(storage.BadInput, "key_file_damaged",
			"the key file %s is damaged: put it back from its copy", path)
	}
	if owner != cluster {
		clear(root)
		return nil, storage.Errorf(storage.BadInput, "other_cluster",
			"the key file %s belongs to cluster %s, and this data folder to cluster %s: name the right key file, "+
				"or the right data folder", path, owner, cluster)
	}
	return root, nil
}

// encodeKeyFile makes the one line of a key file: a word for the format, the cluster, the key, and a checksum.
func encodeKeyFile(cluster storage.ID, root []byte) []byte {
	line := fmt.Appendf(nil, "%s %s %x", keyFileMagic, cluster, root)
	sum := sha256.Sum256(line)
	return fmt.Appendf(line, " %x\n", sum[:4])
}

var errKeyFile = errors.New("not a key file")

func parseKeyFile(b []byte) (storage.ID, []byte, error) {
	parts := strings.Fields(string(b))
	if len(parts) != 4 || parts[0] != keyFileMagic {
		return storage.ID{}, nil, errKeyFile
	}
	cluster, err := storage.ParseID(parts[1])
	if err != nil {
		return storage.ID{}, nil, errKeyFile
	}
	root, err := hex.DecodeString(parts[2])
	if err != nil || len(root) != RootLen || string(encodeKeyFile(cluster, root)) != strings.Join(parts, " ")+"\n" {
		return storage.ID{}, nil, errKeyFile
	}
	return cluster, root, nil
}
