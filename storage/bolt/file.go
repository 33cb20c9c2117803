package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	bbolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"bulwark/storage/entry"
)

// fileFormat is the version of the layout in the file; see DESIGN.md.
const fileFormat = 1

// The buckets and keys of the layout. They are constants in all but type.
var (
	metaBucket   = []byte("meta")
	keysBucket   = []byte("keys")
	recentBucket = []byte("recent")
	leavesBucket = []byte("leaves")

	formatKey   = []byte("format")
	clusterKey  = []byte("cluster")
	indexKey    = []byte("index")
	revisionKey = []byte("revision")
	treeKey     = []byte("tree")
)

func tenantBucket(id entry.ID) []byte  { return append([]byte{'t'}, id[:]...) }
func projectBucket(id entry.ID) []byte { return append([]byte{'p'}, id[:]...) }

// Info is what a database file says about itself.
type Info struct {
	Format    uint64
	ClusterID entry.ID
	Index     uint64 // of the log, up to which its entries are in the file
	Revision  uint64
	Size      int64 // bytes of the file
}

// Inspect checks a database file without changing it and says what it is. It refuses a file that is damaged, of a newer
// format, or held by another process.
func Inspect(path string) (Info, error) {
	// Opening comes first because it takes the lock: a file that somebody writes would look damaged. It reads no more than
	// the meta pages.
	file, err := openFile(path, 0, true)
	var system *os.PathError
	if errors.Is(err, ErrInUse) || errors.As(err, &system) && system.Op == "open" {
		return Info{}, err
	}
	size, checked := checkFile(path)
	if checked != nil {
		err = checked
	}
	if err != nil {
		if file != nil {
			// It is open for reading only: there is nothing that closing could lose.
			_ = file.Close()
		}
		return Info{}, damagedFile(path, err)
	}
	var info Info
	err = guard(func() error {
		return file.View(func(tx *bbolt.Tx) (err error) {
			info, err = readInfo(tx)
			return err
		})
	})
	if closing := file.Close(); err == nil && closing != nil {
		err = closing
	}
	var newer *NewerFormatError
	switch {
	case errors.As(err, &newer):
		return Info{}, fmt.Errorf("opening the database %s: %w", path, err)
	case err != nil:
		return Info{}, damagedFile(path, err)
	}
	info.Size = size
	return info, nil
}

// A NewerFormatError says that the file was written by a later version of Bulwark.
type NewerFormatError struct{ Format, Known uint64 }

func (e *NewerFormatError) Error() string {
	return fmt.Sprintf("it was written by a newer Bulwark (format %d); this one knows %d: upgrade this node", e.Format, e.Known)
}

// ErrDamaged is wrapped by the errors about a file that is not whole.
var ErrDamaged = errors.New("it is damaged: restore it from a snapshot, or let the node join anew with an empty data folder")

// ErrInUse is wrapped by the error about a file that another process holds.
var ErrInUse = errors.New("the data folder is in use by another bulwark process")

func damagedFile(path string, cause error) error {
	return fmt.Errorf("opening the database %s: %w (%w)", path, ErrDamaged, cause)
}

// readInfo reads and checks the meta bucket.
func readInfo(tx *bbolt.Tx) (Info, error) {
	var i Info
	meta := tx.Bucket(metaBucket)
	if meta == nil || tx.Bucket(keysBucket) == nil || tx.Bucket(recentBucket) == nil {
		return i, errors.New("it is no Bulwark database: a bucket is missing")
	}
	number := func(key []byte, into *uint64) error {
		v := meta.Get(key)
		if len(v) != 8 {
			return fmt.Errorf("its %s is missing", key)
		}
		*into = binary.BigEndian.Uint64(v)
		return nil
	}
	if err := number(formatKey, &i.Format); err != nil {
		return i, err
	}
	if i.Format > fileFormat {
		return i, &NewerFormatError{i.Format, fileFormat}
	}
	id := meta.Get(clusterKey)
	if len(id) != idSize {
		return i, errors.New("its cluster id is missing")
	}
	copy(i.ClusterID[:], id)
	return i, errors.Join(number(indexKey, &i.Index), number(revisionKey, &i.Revision))
}

// create makes an empty database beside its place and moves it there, so that a file in place is always whole.
func create(o Options) error {
	temp := o.Path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	file, err := bbolt.Open(temp, 0o600, &bbolt.Options{Timeout: lockTimeout, PageSize: o.PageSize})
	if err != nil {
		return err
	}
	err = file.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{keysBucket, recentBucket} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		meta, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		zero := make([]byte, 8)
		return errors.Join(
			meta.Put(formatKey, binary.BigEndian.AppendUint64(nil, fileFormat)),
			meta.Put(clusterKey, o.ClusterID[:]),
			meta.Put(indexKey, zero),
			meta.Put(revisionKey, zero),
		)
	})
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, o.Path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(o.Path))
}

// syncFolder makes a rename durable. Windows has no such call, and needs none on NTFS.
func syncFolder(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

const lockTimeout = time.Second

// openFile opens a file that was checked.
func openFile(path string, size int64, readOnly bool) (*bbolt.DB, error) {
	options := fileOptions(size, readOnly)
	var file *bbolt.DB
	err := guard(func() (err error) {
		file, err = bbolt.Open(path, 0o600, options)
		return err
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("opening the database %s: %w: stop that one first", path, ErrInUse)
	case err != nil:
		return nil, fmt.Errorf("opening the database %s: %w", path, err)
	}
	file.AllocSize = growBy
	return file, nil
}

func fileOptions(size int64, readOnly bool) *bbolt.Options {
	options := &bbolt.Options{
		Timeout:        lockTimeout,
		ReadOnly:       readOnly,
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		// Unlike bbolt itself, fail when the file went away since it was checked.
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			return os.OpenFile(name, flag&^os.O_CREATE, mode)
		},
	}
	if !readOnly {
		options.InitialMmapSize = mapSize(size)
	}
	return options
}

// growBy is the step, in bytes, in which the file grows: each costs a sync, and on average half of one is unused.
const growBy = 4 << 20

// mapSize is how much address space to set aside. Mapping anew waits for every open snapshot, so there should be room
// for the file to grow. On Windows the file itself would grow to that size, and 32 bits have no room.
func mapSize(size int64) int {
	if strconv.IntSize < 64 || runtime.GOOS == "windows" {
		return 0
	}
	return int(max(8<<30, 4*size))
}

// guard runs fn and returns a page's fault, or bbolt's panic over a damaged page, as an error.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return fn()
}

// The layout of bbolt's meta page, which its file starts with twice: after a page header of 16 bytes, the fields magic,
// version, page size and flags (4 bytes each), root page and sequence (16), free list, high-water mark and transaction
// (8 each), and the FNV-1a checksum of those 56 bytes. Numbers are in the machine's order, little-endian on every
// platform that Bulwark is built for.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	metaHeader  = 16
	metaSummed  = 56
	metaSize    = metaHeader + metaSummed + 8
	metaPages   = 2
	minPageSize = 1 << 10
	maxPageSize = 1 << 24
	noFreelist  = 1<<64 - 1 // the list of free pages was left out
)

// alwaysRead is the size up to which every page of a file is read before it is opened.
const alwaysRead = 512 << 20

type metaPage struct {
	pageSize int64
	pages    uint64 // the high-water mark: no page from this one on is in use
	tx       uint64
	freelist uint64
	rootPage uint64
}

// checkFile looks at a database file before its pages are used: one that is mapped and not there ends the process.
func checkFile(path string) (size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close() // it was only read
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	meta, err := checkMeta(f, info.Size())
	// After a clean stop the list of free pages is there, and a large file need not be read to find them.
	if err == nil && (meta.freelist == noFreelist || info.Size() <= alwaysRead) {
		err = checkPages(f, meta)
	}
	return info.Size(), err
}

// checkMeta reads both meta pages. bbolt would go on with one, silently a transaction short; but the log may have been
// cut up to that transaction.
func checkMeta(f io.ReaderAt, size int64) (metaPage, error) {
	first, err := readMeta(f, 0)
	if err != nil {
		return metaPage{}, fmt.Errorf("its first meta page: %w", err)
	}
	second, err := readMeta(f, first.pageSize)
	if err != nil {
		return metaPage{}, fmt.Errorf("its second meta page: %w", err)
	}
	newest := first
	if second.tx > first.tx {
		newest = second
	}
	switch {
	case first.pageSize != second.pageSize || first.tx == second.tx:
		return metaPage{}, errors.New("its meta pages disagree")
	case newest.pages > uint64(size/newest.pageSize):
		return metaPage{}, fmt.Errorf("it has %d bytes and should have at least %d", size, newest.pages*uint64(newest.pageSize))
	case newest.rootPage < metaPages || newest.rootPage >= newest.pages:
		return metaPage{}, errors.New("its root page is out of bounds")
	}
	return newest, nil
}

func readMeta(f io.ReaderAt, at int64) (m metaPage, err error) {
	var b [metaSize]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return m, fmt.Errorf("it cannot be read: %w", err)
	}
	body := b[metaHeader:]
	sum := fnv.New64a()
	sum.Write(body[:metaSummed])
	switch {
	case le.Uint32(body) != boltMagic:
		return m, errors.New("it is no database")
	case le.Uint32(body[4:]) != boltVersion:
		return m, errors.New("it is of an unknown version")
	case le.Uint64(body[metaSummed:]) != sum.Sum64():
		return m, errors.New("its checksum does not match")
	}
	m = metaPage{
		pageSize: int64(le.Uint32(body[8:])),
		rootPage: le.Uint64(body[16:]),
		freelist: le.Uint64(body[32:]),
		pages:    le.Uint64(body[40:]),
		tx:       le.Uint64(body[48:]),
	}
	if m.pageSize < minPageSize || m.pageSize > maxPageSize || m.pageSize&(m.pageSize-1) != 0 {
		return m, errors.New("its page size is out of bounds")
	}
	return m, nil
}
