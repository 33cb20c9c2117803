package entry

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A NewerFormatError says that an entry was written by a later version of Bulwark than this one. A node that meets one
// stops: it can neither apply the entry nor skip it.
type NewerFormatError struct {
	Format, Known byte
}

func (e *NewerFormatError) Error() string {
	return fmt.Sprintf("this entry was written by a newer Bulwark (format %d); this one knows %d: upgrade this node",
		e.Format, e.Known)
}

// ErrDamaged is wrapped by the errors that Decode and DecodeBatch return for bytes that are not an encoded entry.
var ErrDamaged = errors.New("the bytes of an entry are damaged")

func damaged(what string) error { return fmt.Errorf("%w: %s", ErrDamaged, what) }

// Flags of a scope or key change, which say what of (tenant, project) is written.
const (
	otherTenant = 1 << iota // the tenant is not the entry's own
	withProject             // the project is not zero
)

// A spaceTable numbers the spaces of an entry in order of first use.
type spaceTable struct {
	list  []Space
	index map[Space]int // only beyond a few
	last  int
}

func (t *spaceTable) add(s Space) int {
	if t.last < len(t.list) && t.list[t.last] == s {
		return t.last
	}
	if t.index != nil {
		if i, ok := t.index[s]; ok {
			t.last = i
			return i
		}
	} else {
		for i := range t.list {
			if t.list[i] == s {
				t.last = i
				return i
			}
		}
	}
	t.list = append(t.list, s)
	t.last = len(t.list) - 1
	if t.index != nil {
		t.index[s] = t.last
	} else if len(t.list) > 16 {
		t.index = make(map[Space]int, 2*len(t.list))
		for i, s := range t.list {
			t.index[s] = i
		}
	}
	return t.last
}

func (t *spaceTable) addAll(e *Entry) {
	for i := range e.Points {
		t.add(e.Points[i].Space)
	}
	for i := range e.Ranges {
		t.add(e.Ranges[i].Space)
	}
	for i := range e.Writes {
		t.add(e.Writes[i].Space)
	}
}

// Append appends the encoding of e to dst. An entry has one encoding only: equal entries have equal bytes. It does not
// check e; see Validate. DESIGN.md has the layout.
func Append(dst []byte, e *Entry) []byte { return AppendFormat(dst, Format, e) }

// AppendFormat is Append in a format from Oldest to Newest, for a cluster in which not every node reads the newest.
func AppendFormat(dst []byte, format uint8, e *Entry) []byte {
	var spaces spaceTable
	spaces.addAll(e)

	dst = append(dst, format)
	dst = append(dst, e.ID[:]...)
	dst = append(dst, e.Tenant[:]...)
	dst = binary.AppendUvarint(dst, e.Revision)

	dst = binary.AppendUvarint(dst, uint64(len(spaces.list)))
	for i := range spaces.list {
		s := &spaces.list[i]
		dst = appendScope(dst, e.Tenant, e.Tenant, s.Project)
		dst = binary.AppendUvarint(dst, uint64(len(s.Table)))
		dst = append(dst, s.Table...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.Points)))
	for i := range e.Points {
		p := &e.Points[i]
		dst = binary.AppendUvarint(dst, uint64(spaces.add(p.Space)))
		dst = appendBytes(dst, p.Key)
		dst = binary.AppendUvarint(dst, p.Version)
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.Ranges)))
	for i := range e.Ranges {
		r := &e.Ranges[i]
		dst = binary.AppendUvarint(dst, uint64(spaces.add(r.Space)))
		dst = appendBytes(dst, r.From)
		dst = appendOptional(dst, r.To, r.To != nil)
		dst = binary.AppendUvarint(dst, r.Count)
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.Scopes)))
	for i := range e.Scopes {
		s := &e.Scopes[i]
		dst = appendScope(dst, e.Tenant, s.Tenant, s.Project)
		dst = binary.AppendUvarint(dst, s.Revision)
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.Writes)))
	for i := range e.Writes {
		w := &e.Writes[i]
		dst = binary.AppendUvarint(dst, uint64(spaces.add(w.Space)))
		dst = appendBytes(dst, w.Key)
		dst = appendOptional(dst, w.Value, !w.Delete)
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.Leaves)))
	for i := range e.Leaves {
		dst = append(dst, e.Leaves[i].Hash[:]...)
		dst = appendBytes(dst, e.Leaves[i].Sealed)
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.Messages)))
	for _, m := range e.Messages {
		dst = appendBytes(dst, m)
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.Keys)))
	for i := range e.Keys {
		k := &e.Keys[i]
		dst = append(dst, byte(k.Kind))
		dst = appendScope(dst, e.Tenant, k.Tenant, k.Project)
		dst = binary.AppendUvarint(dst, uint64(k.Version))
		dst = appendBytes(dst, k.Wrapped)
	}
	return dst
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

// appendOptional writes 0 for an absent b, else its length plus one and b.
func appendOptional(dst, b []byte, present bool) []byte {
	if !present {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, uint64(len(b))+1)
	return append(dst, b...)
}

func appendScope(dst []byte, own, tenant, project ID) []byte {
	var flags byte
	if tenant != own {
		flags |= otherTenant
	}
	if !project.IsZero() {
		flags |= withProject
	}
	dst = append(dst, flags)
	if flags&otherTenant != 0 {
		dst = append(dst, tenant[:]...)
	}
	if flags&withProject != 0 {
		dst = append(dst, project[:]...)
	}
	return dst
}

// Decode reads what AppendFormat wrote, and nothing else: what it accepts, AppendFormat writes again byte for byte. The entry's
// slices point into b, which must not change afterwards. The error is a *NewerFormatError, or wraps ErrDamaged or
// ErrLimit. Decode checks the limits that bound memory; Validate checks the rest.
func Decode(b []byte) (*Entry, error) {
	if err := checkFormat(b); err != nil {
		return nil, err
	}
	if len(b) > MaxEntry {
		return nil, limitf("it has %d bytes; at most %d are allowed", len(b), MaxEntry)
	}
	d := decoder{b: b[1:]}
	e := &Entry{}
	d.id(&e.ID)
	d.id(&e.Tenant)
	e.Revision = d.uvarint()
	d.own = e.Tenant
	d.readSpaces()

	if n := d.count("points", 4, MaxItems); n > 0 {
		e.Points = make([]Point, n)
		for i := range e.Points {
			p := &e.Points[i]
			p.Space = d.space()
			p.Key = d.bytes(MaxKey)
			p.Version = d.uvarint()
		}
	}
	if n := d.count("ranges", 4, MaxItems); n > 0 {
		e.Ranges = make([]Range, n)
		for i := range e.Ranges {
			r := &e.Ranges[i]
			r.Space = d.space()
			r.From = d.bytes(MaxKey)
			r.To, _ = d.optional(MaxKey)
			r.Count = d.uvarint()
		}
	}
	if n := d.count("scopes", 2, MaxItems); n > 0 {
		e.Scopes = make([]ScopePoint, n)
		for i := range e.Scopes {
			s := &e.Scopes[i]
			s.Tenant, s.Project = d.scope()
			s.Revision = d.uvarint()
		}
	}
	if n := d.count("writes", 4, MaxItems); n > 0 {
		e.Writes = make([]Write, n)
		for i := range e.Writes {
			w := &e.Writes[i]
			w.Space = d.space()
			w.Key = d.bytes(MaxKey)
			v, ok := d.optional(MaxValue)
			w.Delete = !ok
			if len(v) > 0 {
				w.Value = v
			}
		}
	}
	if d.err == nil && d.used != len(d.spaces) {
		d.fail("a table is named and not used")
	}
	if n := d.count("leaves", 33, MaxItems); n > 0 {
		e.Leaves = make([]Leaf, n)
		for i := range e.Leaves {
			copy(e.Leaves[i].Hash[:], d.take(32))
			e.Leaves[i].Sealed = d.bytes(MaxValue)
		}
	}
	if n := d.count("messages", 1, MaxItems); n > 0 {
		e.Messages = make([][]byte, n)
		for i := range e.Messages {
			e.Messages[i] = d.bytes(MaxValue)
		}
	}
	if n := d.count("key changes", 4, MaxItems); n > 0 {
		e.Keys = make([]KeyChange, n)
		for i := range e.Keys {
			k := &e.Keys[i]
			k.Kind = KeyKind(d.byte())
			k.Tenant, k.Project = d.scope()
			v := d.uvarint()
			if v > 1<<32-1 {
				d.fail("a key version is above 32 bits")
			}
			k.Version = uint32(v)
			k.Wrapped = d.bytes(MaxWrapped)
		}
	}
	if d.err == nil && len(d.b) > 0 {
		d.fail("bytes follow the entry")
	}
	if d.err != nil {
		return nil, d.err
	}
	return e, nil
}

func checkFormat(b []byte) error {
	switch {
	case len(b) == 0:
		return damaged("there are none")
	case b[0] == 0:
		return damaged("their format is 0")
	case b[0] > Newest():
		return &NewerFormatError{Format: b[0], Known: Newest()}
	}
	return nil
}

// A decoder reads from b until the first error, after which it returns zero values.
type decoder struct {
	b      []byte
	own    ID
	spaces []Space
	used   int // spaces met so far: each must be met first in order of its number
	err    error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = damaged(what)
	}
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail("they end too early")
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("a number is cut off")
		return 0
	}
	if n > 1 && d.b[n-1] == 0 {
		d.fail("a number is longer than it need be")
		return 0
	}
	d.b = d.b[n:]
	return v
}

// take returns the next n bytes, or nil.
func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.fail("they end too early")
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// bytes returns a counted string of bytes; nil for an empty one.
func (d *decoder) bytes(limit int) []byte {
	n := d.uvarint()
	if n > uint64(limit) {
		d.over("a string of %d bytes; at most %d are allowed", n, limit)
		return nil
	}
	if n == 0 {
		return nil
	}
	return d.take(int(n))
}

func (d *decoder) optional(limit int) (b []byte, present bool) {
	n := d.uvarint()
	if n == 0 {
		return nil, false
	}
	if n-1 > uint64(limit) {
		d.over("a string of %d bytes; at most %d are allowed", n-1, limit)
		return nil, false
	}
	b = d.take(int(n - 1))
	return b, d.err == nil
}

func (d *decoder) over(format string, args ...any) {
	if d.err == nil {
		d.err = limitf("it holds "+format, args...)
	}
	d.b = nil
}

// count reads a number of items that take at least size bytes each, so that what is made for them is bounded by the
// bytes at hand.
func (d *decoder) count(what string, size, limit int) int {
	n := d.uvarint()
	if n > uint64(limit) {
		d.over("%d %s; at most %d are allowed", n, what, limit)
		return 0
	}
	if n*uint64(size) > uint64(len(d.b)) {
		d.fail("more " + what + " are counted than there is room for")
		return 0
	}
	return int(n)
}

func (d *decoder) id(id *ID) { copy(id[:], d.take(len(id))) }

func (d *decoder) scope() (tenant, project ID) {
	flags := d.byte()
	if flags&^(otherTenant|withProject) != 0 {
		d.fail("a scope has unknown flags")
		return
	}
	tenant = d.own
	if flags&otherTenant != 0 {
		if d.id(&tenant); tenant == d.own {
			d.fail("a scope names the entry's own tenant")
		}
	}
	if flags&withProject != 0 {
		if d.id(&project); project.IsZero() {
			d.fail("a scope names a zero project")
		}
	}
	return tenant, project
}

func (d *decoder) readSpaces() {
	n := d.count("tables", 3, MaxSpaces)
	if n == 0 {
		return
	}
	d.spaces = make([]Space, n)
	seen := spaceTable{list: make([]Space, 0, n)}
	for i := range d.spaces {
		tenant, project := d.scope()
		name := d.bytes(MaxTable)
		if d.err != nil {
			return
		}
		s := Space{Project: project, Table: string(name)}
		if tenant != d.own {
			d.fail("a table is of another tenant")
			return
		}
		if seen.add(s) != i {
			d.fail("a table is named twice")
			return
		}
		d.spaces[i] = s
	}
}

func (d *decoder) space() Space {
	i := d.uvarint()
	if i >= uint64(len(d.spaces)) || i > uint64(d.used) {
		d.fail("a table's number is out of order")
		return Space{}
	}
	if i == uint64(d.used) {
		d.used++
	}
	return d.spaces[i]
}

// AppendBatch appends the payload of one raft log entry: many encoded entries, which group commit put together. Its format is
// the newest of theirs.
func AppendBatch(dst []byte, entries [][]byte) []byte {
	format := Oldest
	for _, e := range entries {
		if len(e) > 0 {
			format = max(format, e[0])
		}
	}
	dst = append(dst, format)
	dst = binary.AppendUvarint(dst, uint64(len(entries)))
	for _, e := range entries {
		dst = appendBytes(dst, e)
	}
	return dst
}

// SplitBatch returns the encoded entries of a batch without decoding them. They point into b.
func SplitBatch(b []byte) ([][]byte, error) {
	if err := checkFormat(b); err != nil {
		return nil, err
	}
	if len(b) > MaxBatch {
		return nil, limitf("a batch has %d bytes; at most %d are allowed", len(b), MaxBatch)
	}
	d := decoder{b: b[1:]}
	n := d.count("entries", 2, MaxEntries)
	entries := make([][]byte, n)
	for i := range entries {
		entries[i] = d.bytes(MaxEntry)
	}
	if d.err == nil && len(d.b) > 0 {
		d.fail("bytes follow the batch")
	}
	if d.err != nil {
		return nil, d.err
	}
	return entries, nil
}

// DecodeBatch reads what AppendBatch wrote. The entries point into b, which must not change afterwards. Errors are those
// of Decode.
func DecodeBatch(b []byte) ([]*Entry, error) {
	raw, err := SplitBatch(b)
	if err != nil {
		return nil, err
	}
	entries := make([]*Entry, len(raw))
	for i, r := range raw {
		if entries[i], err = Decode(r); err != nil {
			return nil, fmt.Errorf("entry %d of a batch of %d: %w", i+1, len(raw), err)
		}
	}
	return entries, nil
}
