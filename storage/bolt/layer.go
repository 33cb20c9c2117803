package bolt

import (
	"encoding/binary"

	"github.com/tidwall/btree"

	"bulwark/storage/entry"
)

// A cell of the overlay has a flat key whose first byte says what it is. In the order of flat keys, what lives in one
// bucket is together, in the bucket's own order.
const (
	rowCell     = 1 // tenant, project, table, 0, key -> version (8 bytes, big-endian), value
	leafCell    = 2 // tenant, position (8 bytes) -> hash, sealed event
	treeCell    = 3 // tenant -> size (8 bytes), hashes of the right edge
	wrappedCell = 4 // tenant, project, version (4 bytes) -> wrapped key; without version -> revision of the last change
	recentCell  = 5 // index (8 bytes) -> outcomes
)

const idSize = len(entry.ID{})

// rowPrefix is the flat prefix of a table's rows.
func rowPrefix(dst []byte, tenant entry.ID, s entry.Space) []byte {
	dst = append(dst, rowCell)
	dst = append(dst, tenant[:]...)
	dst = append(dst, s.Project[:]...)
	dst = append(dst, s.Table...)
	return append(dst, 0)
}

func tenantKey(kind byte, tenant entry.ID) []byte {
	return append([]byte{kind}, tenant[:]...)
}

func leafKey(tenant entry.ID, position uint64) []byte {
	return binary.BigEndian.AppendUint64(tenantKey(leafCell, tenant), position)
}

func wrappedKey(tenant, project entry.ID) []byte {
	return append(tenantKey(wrappedCell, tenant), project[:]...)
}

func recentKey(index uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{recentCell}, index)
}

// A mask hides what the layers below hold of a destroyed scope: one project, or with whole the tenant and its audit log.
type mask struct {
	tenant, project entry.ID
	whole           bool
}

// A layer is what a run of entries changed. It is a function on the state below it: its masks hide scopes, then its cells
// set and remove keys. Using a layer twice is the same as using it once, which snapshots rely on.
type layer struct {
	cells    *btree.Map[string, []byte] // a nil cell is a removed key
	masks    []mask                     // appended to, never changed in place
	bytes    int                        // an estimate of the memory taken
	index    uint64                     // of the last entry inside
	revision uint64
}

func newLayer(index, revision uint64) *layer {
	return &layer{cells: &btree.Map[string, []byte]{}, index: index, revision: revision}
}

// freeze returns a copy that the writer's later changes do not reach.
func (l *layer) freeze() *layer {
	frozen := *l
	frozen.cells = l.cells.Copy()
	return &frozen
}

// cellOverhead is what a cell costs beside its bytes: two headers and its share of the tree.
const cellOverhead = 64

func (l *layer) set(key, stored []byte) {
	old, replaced := l.cells.Set(string(key), stored)
	if replaced {
		l.bytes += len(stored) - len(old)
	} else {
		l.bytes += len(key) + len(stored) + cellOverhead
	}
}

func (l *layer) forget(key string) {
	old, _ := l.cells.Delete(key)
	l.bytes -= len(key) + len(old) + cellOverhead
}

// get returns the cell of key; found with a nil cell means removed.
func (l *layer) get(key []byte) (stored []byte, found bool) {
	if l == nil || l.cells.Len() == 0 {
		return nil, false
	}
	return l.cells.Get(string(key))
}

// hides reports whether a mask of l hides the rows of (tenant, project) below it.
func (l *layer) hides(tenant, project entry.ID) bool {
	if l == nil {
		return false
	}
	for i := range l.masks {
		if m := &l.masks[i]; m.tenant == tenant && (m.whole || m.project == project) {
			return true
		}
	}
	return false
}

// hidesAudit reports whether a mask of l hides the tenant's audit log below it.
func (l *layer) hidesAudit(tenant entry.ID) bool {
	if l == nil {
		return false
	}
	for i := range l.masks {
		if m := &l.masks[i]; m.tenant == tenant && m.whole {
			return true
		}
	}
	return false
}

// destroy empties a scope: what the layer itself holds of it is dropped, and what is below it masked.
func (l *layer) destroy(m mask) {
	prefixes := [][]byte{append(tenantKey(rowCell, m.tenant), m.project[:]...)}
	if m.whole {
		prefixes = [][]byte{tenantKey(rowCell, m.tenant), tenantKey(leafCell, m.tenant), tenantKey(treeCell, m.tenant)}
	}
	for _, p := range prefixes {
		var gone []string
		l.cells.Ascend(string(p), func(key string, _ []byte) bool {
			if len(key) < len(p) || key[:len(p)] != string(p) {
				return false
			}
			gone = append(gone, key)
			return true
		})
		for _, key := range gone {
			l.forget(key)
		}
	}
	l.masks = append(l.masks[:len(l.masks):len(l.masks)], m)
}

// scopeKeys are the wrapped keys of one scope. They are replaced, never changed.
type scopeKeys struct {
	versions map[uint32][]byte
	revision uint64
}

// A keyring holds the wrapped keys of every scope, by the sixteen bytes of the tenant and of the project.
type keyring = btree.Map[string, *scopeKeys]

func ringKey(tenant, project entry.ID) string {
	return string(tenant[:]) + string(project[:])
}

// A view is a published state: the layers over bbolt, newest first, and what memory alone holds. Views are never changed.
type view struct {
	file     *handle
	active   *layer
	flushing *layer // nil when the committer rests
	keys     *keyring
	index    uint64
	revision uint64
	maxTx    int // the newest bbolt transaction that the layers may be laid over
}
