package entry

import (
	"errors"
	"fmt"
	"strings"
)

// The limits of one entry. They bound what a decoder allocates, and what one log entry costs every node.
const (
	MaxEntry   = 8 << 20 // bytes of one encoded entry
	MaxBatch   = 64 << 20
	MaxKey     = 512     // bytes of a key, at least one
	MaxValue   = 4 << 20 // bytes of a value, sealed event or message
	MaxWrapped = 4 << 10 // bytes of a wrapped key
	MaxTable   = 128     // bytes of a table's name, at least one
	MaxItems   = 100_000 // points, ranges, scopes, writes, leaves, messages or key changes: of each
	MaxSpaces  = 4_096   // different spaces
	MaxEntries = 65_536  // entries of a batch
)

// How long an engine remembers the outcome of an entry, so that proposing it again applies it once: for this many
// indexes of the log, and never more than this many outcomes (whole batches, the oldest first, are forgotten beyond it).
const (
	RecentIndexes  = 8_192
	RecentOutcomes = 262_144
)

// Outbox is the table of the tenant (with a zero Project) in which an entry's messages are kept until they were
// delivered. A message's key is the revision that emitted it (8 bytes, big-endian) and its place in the entry (4 bytes).
// An entry may only delete from it.
const Outbox = "outbox"

// IndexSuffix ends the name of a table whose keys come in random order (HMACs), which an engine may store differently.
const IndexSuffix = "#ix"

// ErrLimit is wrapped by the errors that Validate and Decode return for an entry above a limit.
var ErrLimit = errors.New("an entry is above a limit")

// ErrRule is wrapped by the errors that Validate returns for an entry that breaks a rule of its format.
var ErrRule = errors.New("an entry breaks a rule of its format")

func limitf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrLimit, fmt.Sprintf(format, args...))
}

func rulef(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRule, fmt.Sprintf(format, args...))
}

// Validate reports whether e keeps the limits and the rules of the format. An engine answers an entry that does not with
// Invalid; whoever makes entries calls it before proposing. It looks at e alone, never at the state.
func (e *Entry) Validate() error {
	switch {
	case e.ID.IsZero():
		return rulef("it has no id")
	case e.Tenant.IsZero():
		return rulef("it has no tenant")
	}
	if err := e.checkCounts(); err != nil {
		return err
	}
	size := 64
	for i := range e.Points {
		p := &e.Points[i]
		if err := p.Space.validate(); err != nil {
			return err
		}
		if err := validKey(p.Key); err != nil {
			return err
		}
		size += len(p.Key) + 16
	}
	for i := range e.Ranges {
		r := &e.Ranges[i]
		if err := r.Space.validate(); err != nil {
			return err
		}
		if len(r.From) > MaxKey || len(r.To) > MaxKey {
			return limitf("a range's end is longer than a key may be (%d bytes)", MaxKey)
		}
		size += len(r.From) + len(r.To) + 24
	}
	size += len(e.Scopes) * 44
	for i := range e.Writes {
		w := &e.Writes[i]
		if err := w.Space.validate(); err != nil {
			return err
		}
		if err := validKey(w.Key); err != nil {
			return err
		}
		switch {
		case len(w.Value) > MaxValue:
			return limitf("a value has %d bytes; at most %d are allowed", len(w.Value), MaxValue)
		case w.Delete && len(w.Value) > 0:
			return rulef("a delete carries a value")
		case !w.Delete && w.Project.IsZero() && w.Table == Outbox:
			return rulef("the outbox takes messages only")
		}
		size += len(w.Key) + len(w.Value) + 16
	}
	for i := range e.Leaves {
		if len(e.Leaves[i].Sealed) > MaxValue {
			return limitf("a sealed event has %d bytes; at most %d are allowed", len(e.Leaves[i].Sealed), MaxValue)
		}
		size += len(e.Leaves[i].Sealed) + 40
	}
	for _, m := range e.Messages {
		if len(m) > MaxValue {
			return limitf("a message has %d bytes; at most %d are allowed", len(m), MaxValue)
		}
		size += len(m) + 8
	}
	for i := range e.Keys {
		if err := e.Keys[i].validate(e.Tenant); err != nil {
			return err
		}
		size += len(e.Keys[i].Wrapped) + 48
	}
	spaces, bytes := e.countSpaces()
	if spaces > MaxSpaces {
		return limitf("it touches %d tables; at most %d are allowed", spaces, MaxSpaces)
	}
	if size+bytes > MaxEntry {
		return limitf("it has about %d bytes; at most %d are allowed", size+bytes, MaxEntry)
	}
	return nil
}

func (e *Entry) checkCounts() error {
	for _, c := range [...]struct {
		what string
		n    int
	}{
		{"points", len(e.Points)}, {"ranges", len(e.Ranges)}, {"scopes", len(e.Scopes)}, {"writes", len(e.Writes)},
		{"leaves", len(e.Leaves)}, {"messages", len(e.Messages)}, {"key changes", len(e.Keys)},
	} {
		if c.n > MaxItems {
			return limitf("it has %d %s; at most %d are allowed", c.n, c.what, MaxItems)
		}
	}
	return nil
}

// countSpaces counts the different spaces, and the bytes that their table takes.
func (e *Entry) countSpaces() (n, bytes int) {
	var t spaceTable
	t.addAll(e)
	for _, s := range t.list {
		bytes += len(s.Table) + 19
	}
	return len(t.list), bytes
}

func (s *Space) validate() error {
	switch {
	case s.Table == "":
		return rulef("a table has no name")
	case len(s.Table) > MaxTable:
		return limitf("a table's name has %d bytes; at most %d are allowed", len(s.Table), MaxTable)
	case strings.IndexByte(s.Table, 0) >= 0:
		return rulef("a table's name holds a zero byte")
	}
	return nil
}

func validKey(key []byte) error {
	if len(key) == 0 {
		return rulef("a key is empty")
	}
	if len(key) > MaxKey {
		return limitf("a key has %d bytes; at most %d are allowed", len(key), MaxKey)
	}
	return nil
}

func (k *KeyChange) validate(tenant ID) error {
	if tenant != System && (k.Tenant != tenant || k.Project.IsZero()) {
		return rulef("it changes keys that are not those of its tenant's projects")
	}
	if k.Tenant.IsZero() {
		return rulef("a key change has no tenant")
	}
	switch k.Kind {
	case PutKey:
		if len(k.Wrapped) == 0 {
			return rulef("a wrapped key is empty")
		}
		if len(k.Wrapped) > MaxWrapped {
			return limitf("a wrapped key has %d bytes; at most %d are allowed", len(k.Wrapped), MaxWrapped)
		}
		return nil
	case DestroyScope:
		if k.Tenant == System && k.Project.IsZero() {
			return rulef("the system tenant cannot be destroyed")
		}
	case DropKey:
	default:
		return rulef("a key change is of an unknown kind (%d)", k.Kind)
	}
	if len(k.Wrapped) > 0 {
		return rulef("a key is removed and given at once")
	}
	return nil
}
