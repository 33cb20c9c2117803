package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	bbolt "go.etcd.io/bbolt"

	"bulwark/storage/entry"
)

// Check walks the whole file: that its pages are well formed, each in use once; that every value has its version; and that
// each tenant's audit tree is the one that its leaves make. No flush happens meanwhile. It needs no key.
func (db *DB) Check() error {
	db.committing.Lock()
	defer db.committing.Unlock()
	if db.stuck.Load() {
		return errors.New("checking the database: it failed and must be opened anew")
	}
	err := guard(func() error { return db.bolt.View(check) })
	if err != nil {
		return fmt.Errorf("checking the database: %w", err)
	}
	return nil
}

// maxFaults bounds how many faults an error lists.
const maxFaults = 10

func check(tx *bbolt.Tx) error {
	var faults []error
	for err := range tx.Check() {
		if len(faults) < maxFaults {
			faults = append(faults, err)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	if _, err := readInfo(tx); err != nil {
		return err
	}
	return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		if len(name) != 1+idSize || name[0] != 't' {
			return nil
		}
		id := entry.ID(name[1:])
		if err := checkTenant(b); err != nil {
			return fmt.Errorf("tenant %s: %w", id, err)
		}
		return nil
	})
}

func checkTenant(tenant *bbolt.Bucket) error {
	if err := checkAudit(tenant); err != nil {
		return err
	}
	return tenant.ForEachBucket(func(name []byte) error {
		if len(name) != 1+idSize || name[0] != 'p' {
			return nil
		}
		project := tenant.Bucket(name)
		return project.ForEachBucket(func(table []byte) error {
			return project.Bucket(table).ForEach(func(_, stored []byte) error {
				if len(stored) < 8 {
					return fmt.Errorf("project %s: table %q: %w", entry.ID(name[1:]), table, errCell)
				}
				return nil
			})
		})
	})
}

// checkAudit builds the tenant's tree anew from its leaves.
func checkAudit(tenant *bbolt.Bucket) error {
	var built frontier
	if leaves := tenant.Bucket(leavesBucket); leaves != nil {
		err := leaves.ForEach(func(k, stored []byte) error {
			var hash [32]byte
			if len(k) != 8 || binary.BigEndian.Uint64(k) != built.size || len(stored) < len(hash) {
				return fmt.Errorf("the audit log has no whole leaf at position %d", built.size)
			}
			copy(hash[:], stored)
			built.add(hash)
			return nil
		})
		if err != nil {
			return err
		}
	}
	kept, err := decodeFrontier(tenant.Get(treeKey))
	if err != nil {
		return err
	}
	if kept.size != built.size || !slices.Equal(kept.edge, built.edge) {
		return fmt.Errorf("the audit tree (%d leaves) is not the one that the %d leaves make", kept.size, built.size)
	}
	return nil
}
