package bolt

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"

	bbolt "go.etcd.io/bbolt"

	"bulwark/storage/entry"
)

// A Digest says what a file holds, wherever its pages lie: two files with the same entries applied have the same one.
type Digest struct {
	Root    [32]byte // SHA-256 over every bucket's name, key and value, in order, each with its length
	Values  uint64
	Tenants []Tree // in order of their ids
}

// A Tree is the head of a tenant's audit tree (RFC 6962).
type Tree struct {
	Tenant entry.ID
	Size   uint64
	Root   [32]byte
}

// Digest reads the whole image.
func (i *Image) Digest() (d Digest, err error) {
	err = guard(func() error {
		sum := sha256.New()
		if err := i.tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			if err := d.add(sum, name, b, 0); err != nil {
				return err
			}
			if len(name) != 1+idSize || name[0] != 't' {
				return nil
			}
			f, err := decodeFrontier(b.Get(treeKey))
			d.Tenants = append(d.Tenants, Tree{Tenant: entry.ID(name[1:]), Size: f.size, Root: f.root()})
			return err
		}); err != nil {
			return err
		}
		d.Root = [32]byte(sum.Sum(nil))
		return nil
	})
	return d, err
}

// maxNesting bounds how deep buckets lie in each other: tenant, project, table.
const maxNesting = 4

func (d *Digest) add(sum hash.Hash, name []byte, b *bbolt.Bucket, depth int) error {
	if depth > maxNesting {
		return errors.New("its buckets lie too deep in each other")
	}
	write := func(kind byte, part []byte) {
		var head [9]byte
		head[0] = kind
		binary.BigEndian.PutUint64(head[1:], uint64(len(part)))
		sum.Write(head[:])
		sum.Write(part)
	}
	write('b', name)
	err := b.ForEach(func(k, v []byte) error {
		if inside := b.Bucket(k); v == nil && inside != nil {
			return d.add(sum, k, inside, depth+1)
		}
		d.Values++
		write('k', k)
		write('v', v)
		return nil
	})
	write('e', nil)
	return err
}

// root joins the right edge of the tree to its root (RFC 6962, section 2.1); that of an empty tree is the hash of nothing.
func (f *frontier) root() [32]byte {
	if len(f.edge) == 0 {
		return sha256.Sum256(nil)
	}
	root := f.edge[len(f.edge)-1]
	for i := len(f.edge) - 2; i >= 0; i-- {
		var joined [65]byte
		joined[0] = 1
		copy(joined[1:], f.edge[i][:])
		copy(joined[33:], root[:])
		root = sha256.Sum256(joined[:])
	}
	return root
}
