package storage

import (
	"context"

	"bulwark/storage/entry"
)

// How much one entry seals anew: little beside an entry's limits, so that others get their turn.
const (
	resealValues = 256
	resealBytes  = 1 << 20
	resealVisits = 50 * resealValues
)

// Reseal seals anew what a scope still holds under old key versions, then drops those versions. by is a Job or the
// Operator, acting in the scope: its tenant, and its project or zero. It returns how many values it sealed. It can be
// stopped and run again at any time, also on several nodes at once; each batch is an entry with its audit event. The
// audit log and the outbox are not sealed anew: they stay under the tenant key version of their time, so a tenant's old
// versions are kept.
func (d *DB) Reseal(ctx context.Context, by Actor) (int, error) {
	total := 0
	for range maxAttempts {
		n, done, err := d.resealScope(ctx, by)
		total += n
		if err != nil || done {
			return total, err
		}
	}
	return total, Errorf(Conflict, "conflict", "the keys kept changing while values were sealed anew; try again")
}

// resealScope seals a scope's values anew and drops the old versions, unless the scope's keys have changed meanwhile: then
// what was sealed first is under an old version again, and it is not done.
func (d *DB) resealScope(ctx context.Context, by Actor) (total int, done bool, err error) {
	var spaces []string
	var began uint64
	err = d.view(ctx, by, Intent{Action: "key.reseal"}, func(t *txn) error {
		if spaces, err = t.snap.Spaces(by.tenant, by.project); err != nil {
			return err
		}
		_, began, err = t.snap.Wrapped(by.tenant, by.project)
		return err
	})
	if err != nil {
		return 0, false, err
	}
	for _, table := range spaces {
		if by.project.IsZero() && table == entry.Outbox {
			continue
		}
		n, err := d.resealTable(ctx, by, entry.Space{Project: by.project, Table: table})
		total += n
		if err != nil {
			return total, false, err
		}
	}
	if by.project.IsZero() {
		return total, true, nil
	}
	// Nothing came in under an old version behind us: the scope's revision is a precondition of every entry. A table that
	// is new since they were listed has nothing but the current one.
	err = d.Update(ctx, by, Intent{Action: "key.drop", Object: by.project.String()}, func(tx Tx) error {
		_, now, err := tx.(*txn).snap.Wrapped(by.tenant, by.project) // Update made it
		if done = now == began; err != nil || !done {
			return err
		}
		return tx.ChangeKeys(DropOldKeys, by.tenant, by.project)
	})
	return total, done, err
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
		if err != nil {
			return total, err
		}
		if total += n; next == nil {
			return total, nil
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
	visited, size := 0, 0
	err2 := t.snap.Scan(t.by.tenant, s, from, nil, false, func(key, sealed []byte, version uint64) bool {
		if visited++; n == resealValues || size >= resealBytes || visited > resealVisits {
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
		size += len(sealed)
		return true
	})
	if err == nil {
		err = err2
	}
	return n, next, err
}
