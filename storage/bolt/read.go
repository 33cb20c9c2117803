package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/tidwall/btree"
	bbolt "go.etcd.io/bbolt"

	"bulwark/storage/entry"
)

// errCell says that a stored row is shorter than its version.
var errCell = errors.New("a stored value is damaged: it is shorter than its version")

// A reader reads layers laid over a bbolt transaction.
type reader struct {
	layers [2]*layer // the newest first; nil where there is none
	tx     *bbolt.Tx
	begin  func() (*bbolt.Tx, error) // makes tx when it is first needed, if tx is nil
	key    []byte                    // scratch

	tables  []openTable
	above   openProject
	touched byte // the sum of what touch read, so that it is read

	keyBuf   [160]byte
	tableBuf [2]openTable
}

// init gives the reader room of its own for what most transactions need.
func (r *reader) init() { r.key, r.tables = r.keyBuf[:0], r.tableBuf[:0] }

// An openTable remembers a table's bucket (nil where it has none), since finding it costs three look-ups.
type openTable struct {
	tenant entry.ID
	space  entry.Space
	bucket *bbolt.Bucket
}

const maxOpenTables = 16

// An openProject remembers the last project's bucket and its tenant's: bbolt finds them anew each time, and most
// transactions stay in one project.
type openProject struct {
	tenant, project     entry.ID
	tenantIn, projectIn *bbolt.Bucket
}

func (r *reader) bolt() (*bbolt.Tx, error) {
	if r.tx == nil {
		tx, err := r.begin()
		if err != nil {
			return nil, err
		}
		r.tx = tx
	}
	return r.tx, nil
}

func (r *reader) table(tenant entry.ID, s entry.Space) (*bbolt.Bucket, error) {
	for i := range r.tables {
		if t := &r.tables[i]; t.tenant == tenant && t.space == s {
			return t.bucket, nil
		}
	}
	project, err := r.project(tenant, s.Project)
	if err != nil {
		return nil, err
	}
	var bucket *bbolt.Bucket
	if project != nil {
		bucket = project.Bucket([]byte(s.Table))
	}
	if len(r.tables) == maxOpenTables {
		r.tables = r.tables[:0]
	}
	r.tables = append(r.tables, openTable{tenant, s, bucket})
	return bucket, nil
}

func (r *reader) tenant(tenant entry.ID) (*bbolt.Bucket, error) {
	if r.above.tenantIn != nil && r.above.tenant == tenant {
		return r.above.tenantIn, nil
	}
	tx, err := r.bolt()
	if err != nil {
		return nil, err
	}
	b := tx.Bucket(tenantBucket(tenant))
	r.above = openProject{tenant: tenant, tenantIn: b}
	return b, nil
}

func (r *reader) project(tenant, project entry.ID) (*bbolt.Bucket, error) {
	t, err := r.tenant(tenant)
	if t == nil {
		return nil, err
	}
	if r.above.projectIn == nil || r.above.project != project {
		r.above.project, r.above.projectIn = project, t.Bucket(projectBucket(project))
	}
	return r.above.projectIn, nil
}

// row returns the stored bytes of a row: its version and value; nil for one that is absent.
func (r *reader) row(tenant entry.ID, s entry.Space, key []byte) ([]byte, error) {
	r.key = append(rowPrefix(r.key[:0], tenant, s), key...)
	for _, l := range r.layers {
		if stored, found := l.get(r.key); found {
			return stored, nil
		}
		if l.hides(tenant, s.Project) {
			return nil, nil
		}
	}
	b, err := r.table(tenant, s)
	if b == nil {
		return nil, err
	}
	stored := b.Get(key)
	if stored != nil && len(stored) < 8 {
		return nil, errCell
	}
	return stored, nil
}

// rows visits the rows of [from, to).
func (r *reader) rows(tenant entry.ID, s entry.Space, from, to []byte, reverse bool, fn func(key, stored []byte) bool) error {
	var m merge
	prefix := string(rowPrefix(nil, tenant, s))
	for _, l := range r.layers {
		m.addLayer(l, prefix, from, to, reverse)
		if l.hides(tenant, s.Project) {
			m.run(fn)
			return nil
		}
	}
	b, err := r.table(tenant, s)
	if err != nil {
		return err
	}
	m.addBucket(b, from, to, reverse)
	m.run(func(key, stored []byte) bool {
		if len(stored) < 8 {
			err = errCell
			return false
		}
		return fn(key, stored)
	})
	return err
}

// frontier returns the tenant's audit tree.
func (r *reader) frontier(tenant entry.ID) (frontier, error) {
	key := tenantKey(treeCell, tenant)
	for _, l := range r.layers {
		if stored, found := l.get(key); found {
			return decodeFrontier(stored)
		}
		if l.hidesAudit(tenant) {
			return frontier{}, nil
		}
	}
	t, err := r.tenant(tenant)
	if t == nil {
		return frontier{}, err
	}
	return decodeFrontier(t.Get(treeKey))
}

// leaves visits the audit leaves from position first on.
func (r *reader) leaves(tenant entry.ID, first uint64, fn func(key, stored []byte) bool) error {
	var m merge
	from := binary.BigEndian.AppendUint64(nil, first)
	prefix := string(tenantKey(leafCell, tenant))
	for _, l := range r.layers {
		m.addLayer(l, prefix, from, nil, false)
		if l.hidesAudit(tenant) {
			m.run(fn)
			return nil
		}
	}
	t, err := r.tenant(tenant)
	if err != nil {
		return err
	}
	if t != nil {
		m.addBucket(t.Bucket(leavesBucket), from, nil, false)
	}
	m.run(fn)
	return nil
}

// A source is one ordered run of keys.
type source interface {
	// next moves on; the key is nil at the end. A nil stored is a removed key.
	next() (key, stored []byte)
}

// A merge visits the union of its sources in order. Where several have a key, the one added first counts.
type merge struct {
	reverse bool
	heads   [3]head
	n       int
}

type head struct {
	source
	key, stored []byte
}

func (m *merge) add(s source) {
	h := head{source: s}
	if h.key, h.stored = s.next(); h.key == nil {
		return
	}
	m.heads[m.n] = h
	m.n++
}

func (m *merge) addLayer(l *layer, prefix string, from, to []byte, reverse bool) {
	m.reverse = reverse
	if l == nil || l.cells.Len() == 0 {
		return
	}
	s := &layerSource{iter: l.cells.Iter(), prefix: len(prefix), reverse: reverse}
	low, high := prefix+string(from), prefix+string(to)
	if to == nil {
		high = after(prefix)
	}
	if low >= high {
		return
	}
	if !reverse {
		s.stop = high
		s.more = s.iter.Seek(low)
	} else {
		s.stop = low
		if s.iter.Seek(high) {
			s.more = s.iter.Prev()
		} else {
			s.more = s.iter.Last()
		}
	}
	m.add(s)
}

func (m *merge) addBucket(b *bbolt.Bucket, from, to []byte, reverse bool) {
	m.reverse = reverse
	if b == nil || to != nil && bytes.Compare(from, to) >= 0 {
		return
	}
	m.add(&bucketSource{cursor: b.Cursor(), from: from, to: to, reverse: reverse})
}

// run visits what is not removed, until fn returns false.
func (m *merge) run(fn func(key, stored []byte) bool) {
	for m.n > 0 {
		best := 0
		for i := 1; i < m.n; i++ {
			if c := bytes.Compare(m.heads[i].key, m.heads[best].key); c < 0 && !m.reverse || c > 0 && m.reverse {
				best = i
			}
		}
		key, stored := m.heads[best].key, m.heads[best].stored
		for i := 0; i < m.n; {
			h := &m.heads[i]
			if bytes.Equal(h.key, key) {
				if h.key, h.stored = h.next(); h.key == nil {
					copy(m.heads[i:], m.heads[i+1:m.n])
					m.n--
					continue
				}
			}
			i++
		}
		if stored != nil && !fn(key, stored) {
			return
		}
	}
}

// after returns the least key above every key that starts with prefix. The prefixes in use never end in 0xff only.
func after(prefix string) string {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]++; b[i] != 0 {
			return string(b[:i+1])
		}
	}
	return string(b)
}

type layerSource struct {
	iter    btree.MapIter[string, []byte]
	prefix  int
	stop    string
	reverse bool
	more    bool
}

func (s *layerSource) next() (key, stored []byte) {
	if !s.more {
		return nil, nil
	}
	flat := s.iter.Key()
	if s.reverse && flat < s.stop || !s.reverse && flat >= s.stop {
		s.more = false
		return nil, nil
	}
	key, stored = []byte(flat[s.prefix:]), s.iter.Value()
	if s.reverse {
		s.more = s.iter.Prev()
	} else {
		s.more = s.iter.Next()
	}
	return key, stored
}

type bucketSource struct {
	cursor   *bbolt.Cursor
	from, to []byte
	reverse  bool
	started  bool
}

func (s *bucketSource) next() (key, stored []byte) {
	switch {
	case s.started && s.reverse:
		key, stored = s.cursor.Prev()
	case s.started:
		key, stored = s.cursor.Next()
	case !s.reverse:
		key, stored = s.cursor.Seek(s.from)
	case s.to == nil:
		key, stored = s.cursor.Last()
	default:
		if key, _ = s.cursor.Seek(s.to); key == nil {
			key, stored = s.cursor.Last()
		} else {
			key, stored = s.cursor.Prev()
		}
	}
	s.started = true
	if key == nil || s.reverse && bytes.Compare(key, s.from) < 0 || !s.reverse && s.to != nil && bytes.Compare(key, s.to) >= 0 {
		return nil, nil
	}
	if stored == nil {
		stored = []byte{}
	}
	return key, stored
}

// tables adds the names of the tables that have cells under prefix (a tenant's project), be they removed ones.
func (l *layer) tables(prefix string, names map[string]bool) {
	if l == nil || l.cells.Len() == 0 {
		return
	}
	iter := l.cells.Iter()
	for more := iter.Seek(prefix); more; {
		rest, ok := strings.CutPrefix(iter.Key(), prefix)
		if !ok {
			return
		}
		table, _, _ := strings.Cut(rest, "\x00")
		names[table] = true
		more = iter.Seek(prefix + table + "\x01")
	}
}

// withRows returns, in order, which of the tables hold a row.
func (r *reader) withRows(tenant, project entry.ID, names map[string]bool) ([]string, error) {
	var found []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		err := r.rows(tenant, entry.Space{Project: project, Table: name}, nil, nil, false, func(_, _ []byte) bool {
			found = append(found, name)
			return false
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}
