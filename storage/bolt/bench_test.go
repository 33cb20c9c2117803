package bolt_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"bulwark/storage/bolt"
	"bulwark/storage/entry"
)

var (
	benchRows  = entry.Space{Project: projects[1], Table: "r0123456789abcdef"}
	benchIndex = entry.Space{Project: projects[1], Table: "r0123456789abcdef#ix"}
)

// rowEntry creates a row of 1 KiB, sealed, with one index key and its audit leaf.
func rowEntry(r *rand.Rand, n uint64) *entry.Entry {
	random := func(size int) []byte {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	e := &entry.Entry{Tenant: tenants[1], Revision: n}
	copy(e.ID[:], random(16))
	row := binary.BigEndian.AppendUint64(nil, n)
	key := random(16)
	e.Scopes = []entry.ScopePoint{{Tenant: e.Tenant, Project: benchRows.Project}}
	e.Points = []entry.Point{{Space: benchIndex, Key: key}}
	e.Writes = []entry.Write{{Space: benchRows, Key: row, Value: random(1170)}, {Space: benchIndex, Key: key, Value: random(36)}}
	e.Leaves = []entry.Leaf{{Hash: [32]byte(random(32)), Sealed: random(350)}}
	return e
}

func BenchmarkApply(b *testing.B) {
	for _, size := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("Batch%d", size), func(b *testing.B) {
			db := open(b, filepath.Join(b.TempDir(), "state.db"))
			r := rand.New(rand.NewPCG(1, 1))
			var pool []*entry.Entry
			for n := range uint64(20_000) {
				pool = append(pool, rowEntry(r, n+1))
			}
			b.ReportAllocs()
			b.ResetTimer()
			next := 0
			for i := range b.N {
				batch := make([]*entry.Entry, size)
				for j := range batch {
					e := *pool[next%len(pool)]
					// The pool comes around: make what must differ differ.
					binary.LittleEndian.PutUint64(e.ID[:], uint64(next))
					e.Writes = append([]entry.Write(nil), e.Writes...)
					e.Writes[0].Key = binary.BigEndian.AppendUint64(nil, uint64(next+1))
					if next >= len(pool) {
						e.Points, e.Writes = nil, e.Writes[:1]
					}
					batch[j] = &e
					next++
				}
				for _, o := range db.Apply(uint64(i+1), batch) {
					if o.Status != entry.Applied {
						b.Fatal("not applied")
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(next), "µs/entry")
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func BenchmarkSnapshotGet(b *testing.B) {
	for _, where := range []string{"file", "overlay"} {
		b.Run(where, func(b *testing.B) {
			o := options(filepath.Join(b.TempDir(), "state.db"))
			o.FlushInterval = 1 << 40
			db, err := bolt.Open(o)
			if err != nil {
				b.Fatal(err)
			}
			r := rand.New(rand.NewPCG(1, 1))
			const rows = 2000
			for n := range uint64(rows) {
				db.Apply(n+1, []*entry.Entry{rowEntry(r, n)})
			}
			if where == "file" {
				if err := db.Flush(); err != nil {
					b.Fatal(err)
				}
				db.Apply(rows+1, []*entry.Entry{rowEntry(r, rows)})
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				s, err := db.Snapshot()
				if err != nil {
					b.Fatal(err)
				}
				if _, _, ok, err := s.Get(tenants[1], benchRows, binary.BigEndian.AppendUint64(nil, uint64(i%rows))); !ok || err != nil {
					b.Fatal("the row is not there", err)
				}
				s.Release()
			}
			b.StopTimer()
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkSpace writes 50,000 rows, flushed every 200, and reports what each takes in the file.
func BenchmarkSpace(b *testing.B) {
	for _, page := range []int{4096, 8192, 16384} {
		b.Run(fmt.Sprintf("Page%d", page), func(b *testing.B) {
			for range b.N {
				o := options(filepath.Join(b.TempDir(), "state.db"))
				o.PageSize, o.FlushInterval = page, 1<<40
				db, err := bolt.Open(o)
				if err != nil {
					b.Fatal(err)
				}
				r := rand.New(rand.NewPCG(1, 1))
				const rows = 50_000
				for n := range uint64(rows) {
					if db.Apply(n+1, []*entry.Entry{rowEntry(r, n+1)}) == nil {
						b.Fatal(db.Failed())
					}
					if n%200 == 199 {
						if err := db.Flush(); err != nil {
							b.Fatal(err)
						}
					}
				}
				s := db.Stats()
				b.ReportMetric(float64(s.FileSize)/rows, "B/row")
				b.ReportMetric(float64(s.UsedSize-int64(s.FreePages*s.PageSize))/rows, "B/row-used")
				if err := db.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
