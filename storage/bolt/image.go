package bolt

import (
	"errors"
	"fmt"
	"io"

	bbolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// An Image is the whole file as one flush left it: what another node or a backup is given. It must be closed.
type Image struct {
	Info
	tx   *bbolt.Tx
	file *handle
}

// Image returns the file as the last flush left it; call Flush first for everything that was applied.
func (db *DB) Image() (*Image, error) {
	file := db.keeper()
	if !file.acquire() {
		return nil, fmt.Errorf("copying the database: %w", berrors.ErrDatabaseNotOpen)
	}
	tx, err := file.Begin(false)
	if err != nil {
		file.release()
		return nil, fmt.Errorf("copying the database: %w", err)
	}
	i := &Image{tx: tx, file: file}
	err = guard(func() (err error) {
		i.Info, err = readInfo(tx)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("copying the database: %w", err), i.Close())
	}
	i.Size = tx.Size()
	return i, nil
}

// WriteTo writes the file, Size bytes of it, to w. Other reads and writes go on.
func (i *Image) WriteTo(w io.Writer) (n int64, err error) {
	err = guard(func() (err error) {
		n, err = i.tx.WriteTo(w)
		return err
	})
	if err != nil {
		return n, fmt.Errorf("copying the database: %w", err)
	}
	return n, nil
}

// Close ends the image. It may be called again.
func (i *Image) Close() error {
	err := i.tx.Rollback()
	if errors.Is(err, berrors.ErrTxClosed) {
		return nil
	}
	i.file.release()
	return err
}

// WriteTo writes the file as the last flush left it. Image also says which index that is.
func (db *DB) WriteTo(w io.Writer) (n int64, err error) {
	i, err := db.Image()
	if err != nil {
		return 0, err
	}
	n, err = i.WriteTo(w)
	return n, errors.Join(err, i.Close())
}

// Copy is an Image as its reader needs it who knows nothing of this package: the index that it holds, and its size.
func (db *DB) Copy() (index uint64, size int64, image interface {
	io.WriterTo
	io.Closer
}, err error) {
	i, err := db.Image()
	if err != nil {
		return 0, 0, nil, err
	}
	return i.Index, i.Size, i, nil
}
