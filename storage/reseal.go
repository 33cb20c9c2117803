package storage

import (
	"context"

	"bulwark/storage/entry"
)

// resealBatch is how many values one entry seals anew: small beside an entry's limit, so that others get their turn.
const resealBatch = 256

// Reseal seals anew what a scope still holds under old key versions, then drops those versions. by is a Job or the
// Operator, acting in the scope: its tenant, and its project or zero. It returns how many values it sealed. It can be
// stopped and run again at any time; each batch is an entry with its audit event. The audit log is not sealed anew: its
// events stay under the tenant key version of their time, so a tenant's old versions are kept.
func (d *DB) Reseal(ctx context.Context, by Actor) (int, error) {
	total := 0
	spaces, err := d.spaces(ctx, by)
	if err != nil {
		return 0, err
	}
	for _, table := range spaces {
		n, err := d.resealTable(ctx, by, entry.Space{Project: by.project, Table: table})
		total += n
		if err != nil {
			return total, err
		}
	}
	if by.project.IsZero() {
		return total, nil
	}
	// A transaction that read before the rotation may have put something into a table behind us: it cannot, the scope's
	// revision is a precondition of every entry. But a table may be new since we listed them; it is under the new key.
	err = d.Update(ctx, by, Intent{Action: "key.drop", Object: by.project.String()}, func(tx Tx) error {
		return tx.ChangeKeys(DropOldKeys, by.tenant, by.project)
	})
	return total, err
}

func (d *DB) spaces(ctx context.Context, by Actor) (names []string, err error) {
	err = d.view(ctx, by, Intent{Action: "key.reseal"}, func(t *txn) error {
		names, err = t.snap.Spaces(by.tenant, by.project)
		return err
	})
	return names, err
}

func (d *DB) resealTable(ctx context.Context, by Actor, s entry.Space) (int, error) {
	total := 0
	var from []byte
	for {
		var n int
		var next []byte
		to := Intent{Action: "key.reseal", Object: s.Table}
		err := d.Update(ctx, by, to, func(tx Tx) error {
			t := tx.(*txn) // Update made it
			var err error
			n, next, err = t.reseal(s, from)
			if n > 0 {
				tx.Note("values", n)
			}
			return err
		})
		total += n
		if err != nil || next == nil {
			return total, err
		}
		from = next
	}
}

// reseal rewrites the values of a table that are under an old key version, from a key on. It returns how many, and where
// to go on: nil at the table's end.
func (t *txn) reseal(s entry.Space, from []byte) (n int, next []byte, err error) {
	k, err := t.sealer(s.Project)
	if err != nil {
		return 0, nil, err
	}
	visited := 0
	err2 := t.snap.Scan(t.by.tenant, s, from, nil, false, func(key, sealed []byte, version uint64) bool {
		if visited++; n == resealBatch || visited > 50*resealBatch {
			next = append([]byte{}, key...)
			return false
		}
		if len(sealed) == 0 || k.Current(sealed) {
			return true
		}
		var plain []byte
		if plain, err = t.open(s, key, sealed); err != nil {
			return false
		}
		key = append([]byte{}, key...)
		t.entry.Points = append(t.entry.Points, entry.Point{Space: s, Key: key, Version: version})
		t.write(entry.Write{Space: s, Key: key, Value: k.Seal(nil, plain, t.place(s, key))})
		n++
		return true
	})
	if err == nil {
		err = err2
	}
	return n, next, err
}
