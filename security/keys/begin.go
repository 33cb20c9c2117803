package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"bulwark/storage"
)

// leftoverPrefix begins the names that making a cluster may leave in a data folder when it is cut off.
const leftoverPrefix = "." + HeaderFile + "."

// begunFile is in the data folder while a cluster is made there, and holds its id. A key file of that cluster, without a
// header beside the mark, opens nothing: the attempt that made it was cut off.
const begunFile = leftoverPrefix + "begun"

// Leftover reports whether name is of a file that making a cluster left in a data folder when it was cut off: a folder with
// nothing else is as good as empty.
func Leftover(name string) bool { return strings.HasPrefix(name, leftoverPrefix) }

// Tidy removes such files. They do no harm; a node that has its header calls it once it may write.
func Tidy(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if Leftover(e.Name()) {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// begin marks that a cluster is being made in dir.
func begin(dir string, cluster storage.ID) error {
	f, err := os.OpenFile(filepath.Join(dir, begunFile), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(cluster.String())
	return errors.Join(err, f.Sync(), f.Close(), syncDir(dir))
}

// startOver takes back what an attempt to make a cluster in dir left when it was cut off: its key file, if seal has one,
// and its other files. A key file of another cluster is not touched.
func startOver(dir string, seal Seal) error {
	b, err := os.ReadFile(filepath.Join(dir, begunFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if f, ok := seal.(*FileSeal); ok {
		if err := f.takeBack(string(b)); err != nil {
			return err
		}
	}
	return Tidy(dir)
}

// takeBack removes the key file that an attempt to make a cluster left. A power cut may have left it empty or torn, when
// it names no cluster; the attempt found no file at its path, so that one is its own too.
func (s *FileSeal) takeBack(cluster string) error {
	b, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the key file of an attempt that was cut off: %w", err)
	}
	defer clear(b)
	owner, root, err := parseKeyFile(b)
	clear(root)
	if err == nil && owner.String() != cluster {
		return nil // Close refuses it
	}
	return os.Remove(s.path)
}
