package rowpolicy

import (
	"context"
	"errors"
	"io"

	"bulwark/storage"
	"bulwark/storage/entry"
	"bulwark/storage/table"
)

// purgeBatch is how many keys of a dropped table one entry deletes.
const purgeBatch = 500

// maxNoted bounds the changes that an audit event names; it always says how many there were.
const maxNoted = 100

// A Service applies SQL to the schema of the actor's project.
type Service struct {
	store  storage.Store
	parser *Parser
	rand   io.Reader // names the spaces of new tables; safe for concurrent use
}

// New returns a Service. It refuses to be without a store or a random source.
func New(store storage.Store, rand io.Reader) (*Service, error) {
	if store == nil || rand == nil {
		return nil, errors.New("applying SQL needs a store and a random source")
	}
	return &Service{store: store, parser: NewParser(), rand: rand}, nil
}

// droppedRef lists the spaces of tables that were dropped and still hold keys.
func droppedRef() storage.Ref {
	return storage.Ref{Name: "schema_dropped", Scope: storage.ProjectScope}
}

// Apply compiles the text against the project's schema and saves the result, in one entry with its audit event: all of
// the text's statements, or none. Afterwards it deletes the rows of dropped tables; what a crash leaves of that, Purge
// deletes. Errors are those of Parse and Compile, and of the store.
func (s *Service) Apply(ctx context.Context, by storage.Actor, sql string) ([]Change, error) {
	if by.Project().IsZero() {
		return nil, storage.Errorf(storage.BadInput, "no_project", "SQL is applied to a project: name one")
	}
	file, err := s.parser.Parse(ctx, sql)
	if err != nil {
		return nil, err
	}
	var changes []Change
	dropped := false
	err = s.store.Update(ctx, by, intent("schema.apply", by), func(tx storage.Tx) error {
		changes, dropped = nil, false
		current, err := table.ReadSchema(tx)
		if err != nil {
			return err
		}
		next, did, err := file.Compile(ctx, current, s.rand)
		if err != nil {
			return err
		}
		stored := make(map[string]bool, len(current.Tables))
		for _, t := range current.Tables {
			stored[t.Space] = true
		}
		for _, c := range did {
			if !stored[c.Space] {
				continue // not a drop, or of a table that the same text created
			}
			if err := tx.Put(droppedRef(), []byte(c.Space), nil); err != nil {
				return err
			}
			dropped = true
		}
		if changed(did) {
			if err := table.SaveSchema(tx, next); err != nil {
				return err
			}
		}
		note(tx, did)
		changes = did
		return nil
	})
	if err != nil {
		return nil, err
	}
	if dropped {
		if err := s.Purge(ctx, by); err != nil {
			// The tables are gone, whatever became of their rows: nothing can reach them.
			changes = append(changes, Change{Action: "note", Object: "dropped rows", Note: "they are deleted later"})
		}
	}
	return changes, nil
}

func intent(action string, by storage.Actor) storage.Intent {
	return storage.Intent{Action: action, Object: by.Project().String()}
}

func changed(changes []Change) bool {
	for _, c := range changes {
		if c.Action != "note" {
			return true
		}
	}
	return false
}

// note adds what was done to the audit event: how much, and the first of it by name.
func note(tx storage.Tx, changes []Change) {
	count := 0
	names := []string{}
	for _, c := range changes {
		if c.Action == "note" {
			continue
		}
		if count++; count <= maxNoted {
			names = append(names, c.String())
		}
	}
	tx.Note("count", count)
	tx.Note("changes", names)
}

// Purge deletes the rows of the project's dropped tables, a batch an entry, until none is left. It writes nothing where
// there is nothing to delete.
func (s *Service) Purge(ctx context.Context, by storage.Actor) error {
	for {
		left := false
		err := s.store.View(ctx, by, intent("schema.read", by), func(r storage.Reader) error {
			return r.Scan(droppedRef(), storage.KeyRange{}, func(_, _ []byte) bool {
				left = true
				return false
			})
		})
		if err != nil || !left {
			return err
		}
		if err := s.store.Update(ctx, by, intent("schema.purge", by), purge); err != nil {
			return err
		}
	}
}

// purge deletes at most purgeBatch keys of the first dropped table, and forgets the table with its last.
func purge(tx storage.Tx) error {
	space, err := firstKeys(tx, droppedRef(), 1)
	if err != nil || len(space) == 0 {
		return err
	}
	deleted := 0
	for _, name := range []string{string(space[0]), string(space[0]) + entry.IndexSuffix} {
		ref := storage.Ref{Name: name, Scope: storage.ProjectScope}
		keys, err := firstKeys(tx, ref, purgeBatch-deleted)
		if err != nil {
			return err
		}
		for _, k := range keys {
			if err := tx.Delete(ref, k); err != nil {
				return err
			}
		}
		deleted += len(keys)
	}
	tx.Note("deleted", deleted)
	if deleted < purgeBatch {
		return tx.Delete(droppedRef(), space[0])
	}
	return nil
}

func firstKeys(r storage.Reader, ref storage.Ref, most int) (keys [][]byte, err error) {
	if most <= 0 {
		return nil, nil
	}
	err = r.Scan(ref, storage.KeyRange{}, func(key, _ []byte) bool {
		keys = append(keys, append([]byte(nil), key...))
		return len(keys) < most
	})
	return keys, err
}

// SQL returns the project's schema as SQL (see Dump).
func (s *Service) SQL(ctx context.Context, by storage.Actor) (sql string, err error) {
	err = s.store.View(ctx, by, intent("schema.read", by), func(r storage.Reader) error {
		schema, err := table.ReadSchema(r)
		if err == nil {
			sql = Dump(schema)
		}
		return err
	})
	return sql, err
}
