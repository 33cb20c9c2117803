package table

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"slices"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"bulwark/storage"
)

// DefaultIndexBytes is the memory that the ordered indexes of a node may take where nothing else is said.
const DefaultIndexBytes = 64 << 20

// maxSchemas bounds the compiled schemas that are kept.
const maxSchemas = 1024

// Options are what a Catalog needs from outside.
type Options struct {
	Random     io.Reader // for gen_random_uuid(); required
	IndexBytes int64     // memory for ordered indexes; 0 is DefaultIndexBytes
}

// A Catalog reads and writes the rows of every project's tables, and keeps in memory what is expensive to make: compiled
// schemas and ordered indexes. Both hold what tenants typed, so Forget drops them when a node is sealed. It is safe for
// many goroutines.
type Catalog struct {
	random  io.Reader
	indexes *indexes

	mu      sync.RWMutex
	schemas map[project]*Compiled
}

type project struct{ tenant, project storage.ID }

// New makes a Catalog. It refuses to be without a random source.
func New(o Options) (*Catalog, error) {
	if o.Random == nil {
		return nil, errors.New("a table catalogue needs a random source")
	}
	if o.IndexBytes == 0 {
		o.IndexBytes = DefaultIndexBytes
	}
	return &Catalog{random: &lockedReader{r: o.Random}, indexes: newIndexes(o.IndexBytes), schemas: map[project]*Compiled{}}, nil
}

type lockedReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (l *lockedReader) Read(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(b)
}

// Forget drops everything that is kept in memory.
func (c *Catalog) Forget() {
	c.mu.Lock()
	clear(c.schemas)
	c.mu.Unlock()
	c.indexes.forget()
}

// The schema is one sealed record. Beside it is its stamp: the version, and random bytes so that a stamp never names two
// schemas, whatever happened to the log in between. A request reads the stamp only; in an Update that read is also the
// precondition that no policy changed meanwhile.
const schemaTable = "schema"

func schemaRef() storage.Ref { return storage.Ref{Name: schemaTable, Scope: storage.ProjectScope} }
func schemaKey() []byte      { return []byte("schema") }
func stampKey() []byte       { return []byte("stamp") }

// Compiled is a schema with every policy and default resolved. It is shared, and must not be changed.
type Compiled struct {
	stamp  string
	schema *Schema
	tables map[tableName]*tableInfo
}

type tableName struct{ schema, name string }

// Version is the schema's version, 0 where nothing was declared yet.
func (c *Compiled) Version() uint64 { return c.schema.Version }

// Table returns the table of a name. It must not be changed.
func (c *Compiled) Table(schema, name string) (*Table, bool) {
	t, ok := c.tables[tableName{schema, name}]
	if !ok {
		return nil, false
	}
	return t.Table, true
}

// ReadSchema returns the schema of the reader's project, for changing it; an empty one where nothing was declared yet.
func ReadSchema(r storage.Reader) (*Schema, error) {
	record, err := r.Get(schemaRef(), schemaKey())
	if storage.IsNotFound(err) {
		return &Schema{}, nil
	}
	if err != nil {
		return nil, err
	}
	s := &Schema{}
	if err := cbor.Unmarshal(record, s); err != nil {
		return nil, damaged("the schema cannot be read")
	}
	return s, nil
}

// SaveSchema checks s as a whole, gives it the next version, gives new tables their Space and id, and stores it. A fault
// in it (a policy that names no column, operators that do not exist, two tables of one name) is an error of kind
// BadInput, and nothing is stored.
func SaveSchema(tx storage.Tx, s *Schema) error {
	before, err := ReadSchema(tx)
	if err != nil {
		return err
	}
	for _, t := range s.Tables {
		if t.Created.IsZero() {
			t.Created = tx.NewID()
		}
		if t.Space == "" {
			id := tx.NewID()
			t.Space = "t" + hex.EncodeToString(id[:])
		}
	}
	if _, err := compileSchema(s); err != nil {
		return err
	}
	s.Version = before.Version + 1
	record, err := cbor.Marshal(s)
	if err != nil {
		return damaged("the schema cannot be written")
	}
	if err := tx.Put(schemaRef(), schemaKey(), record); err != nil {
		return err
	}
	id := tx.NewID()
	return tx.Put(schemaRef(), stampKey(), append(binary.BigEndian.AppendUint64(nil, s.Version), id[:]...))
}

// LoadSchema returns the compiled schema of the reader's project: one short read, and all else from memory.
func (c *Catalog) LoadSchema(r storage.Reader) (*Compiled, error) {
	stamp, err := r.Get(schemaRef(), stampKey())
	if err != nil && !storage.IsNotFound(err) {
		return nil, err
	}
	at := project{r.By().Tenant(), r.By().Project()}
	c.mu.RLock()
	known := c.schemas[at]
	c.mu.RUnlock()
	if known != nil && known.stamp == string(stamp) {
		return known, nil
	}
	s, err := ReadSchema(r)
	if err != nil {
		return nil, err
	}
	compiled, err := compileSchema(s)
	if err != nil {
		return nil, err
	}
	compiled.stamp = string(stamp)
	c.keep(at, compiled)
	return compiled, nil
}

// keep replaces what was known. Nothing depends on which schema is kept: one is used only where its stamp is the reader's.
func (c *Catalog) keep(at project, s *Compiled) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.schemas) >= maxSchemas && c.schemas[at] == nil {
		for other := range c.schemas { // any one: it is compiled again when it is next asked for
			delete(c.schemas, other)
			break
		}
	}
	c.schemas[at] = s
}

// A tableInfo is a table with names and types resolved.
type tableInfo struct {
	*Table
	shape    uint32
	quoted   [][]byte // each column's name as JSON, with the colon
	index    map[string]int
	keys     []keyInfo
	defaults []*node
	required []bool // may not be null
	rows, ix storage.Ref
	rules    map[roleCommand]rule
}

type keyInfo struct {
	*Key
	columns []int
}

func compileSchema(s *Schema) (*Compiled, error) {
	c := &Compiled{schema: s, tables: make(map[tableName]*tableInfo, len(s.Tables))}
	spaces := map[string]bool{}
	for _, t := range s.Tables {
		name := tableName{t.Schema, t.Name}
		if _, ok := c.tables[name]; ok {
			return nil, bad("42P07", "relation %q already exists", t.Name)
		}
		if spaces[t.Space] {
			return nil, damaged("two tables share their rows")
		}
		info, err := compileTable(t)
		if err != nil {
			return nil, err
		}
		c.tables[name], spaces[t.Space] = info, true
	}
	return c, nil
}

func compileTable(t *Table) (*tableInfo, error) {
	info := &tableInfo{
		Table: t, shape: shapeOf(t.Columns), index: make(map[string]int, len(t.Columns)),
		defaults: make([]*node, len(t.Columns)), required: make([]bool, len(t.Columns)),
		rows: storage.Ref{Name: t.Space, Scope: storage.ProjectScope},
		ix:   storage.Ref{Name: t.Space + "#ix", Scope: storage.ProjectScope},
	}
	if t.Name == "" || len(t.Columns) == 0 || len(t.Columns) > 1600 {
		return nil, bad(CodeBadDefinition, "a table needs a name and between 1 and 1600 columns")
	}
	for i := range t.Columns {
		column := &t.Columns[i]
		if _, ok := info.index[column.Name]; ok || column.Name == "" {
			return nil, bad("42701", "column %q specified more than once", column.Name)
		}
		if column.Type == "" || kindOf(column.Type) == kNull {
			return nil, bad("42704", "type %q does not exist", string(column.Type))
		}
		info.index[column.Name] = i
		info.quoted = append(info.quoted, quoteName(column.Name))
		info.required[i] = column.NotNull
		if column.Default != nil {
			n, err := compileAs(column.Default, column)
			if err != nil {
				return nil, err
			}
			info.defaults[i] = n
		}
	}
	for i := range t.Keys {
		if err := info.addKey(&t.Keys[i]); err != nil {
			return nil, err
		}
	}
	return info, info.compileRules()
}

func (t *tableInfo) addKey(k *Key) error {
	info := keyInfo{Key: k}
	if len(k.Columns) == 0 || len(k.Columns) > 32 {
		return bad(CodeBadDefinition, "a key needs between 1 and 32 columns")
	}
	if slices.ContainsFunc(t.keys, func(other keyInfo) bool { return other.Name == k.Name }) {
		return bad("42P07", "relation %q already exists", k.Name)
	}
	for _, name := range k.Columns {
		i, ok := t.index[name]
		if !ok {
			return bad(CodeNoColumn, "column %q named in key does not exist", name)
		}
		if t.Columns[i].Type == JSON {
			return bad("42704", "data type json has no default operator class for access method \"btree\"")
		}
		t.required[i] = t.required[i] || k.Primary
		info.columns = append(info.columns, i)
	}
	t.keys = append(t.keys, info)
	return nil
}

func (t *tableInfo) outputs(columns []Output) ([]output, error) {
	if columns == nil {
		return nil, nil
	}
	list := make([]output, 0, len(columns))
	for _, c := range columns {
		i, ok := t.index[c.Column]
		if !ok && c.Column == Star {
			for i := range t.Columns {
				list = append(list, output{i, t.quoted[i]})
			}
			continue
		}
		if !ok {
			return nil, noColumn(t.Name, c.Column)
		}
		if c.As == "" || c.As == c.Column {
			list = append(list, output{i, t.quoted[i]})
		} else {
			list = append(list, output{i, quoteName(c.As)})
		}
	}
	return list, nil
}

// clampLimit is the number of rows that a read may return.
func clampLimit(limit *int) int {
	if limit == nil {
		return MaxRows
	}
	return max(min(*limit, MaxRows), 0)
}

// window is how many rows a read must find: those skipped and those returned.
func window(offset, limit int) int {
	if offset > math.MaxInt-limit {
		return math.MaxInt
	}
	return offset + limit
}
