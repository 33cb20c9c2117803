//go:build unix

package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bulwark/cluster"
	"bulwark/storage/entry"
)

// cpu is the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func openBench(b *testing.B, inFlight int) *cluster.Cluster {
	config := onDisk(b, b.TempDir(), newID(), newID())
	config.InFlight = inFlight
	c, err := cluster.Open(config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	if err := c.Ready(within(b, 10*time.Second)); err != nil {
		b.Fatal(err)
	}
	return c
}

// spread runs f b.N times on n goroutines.
func spread(b *testing.B, n int, f func(worker, i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for w := range n {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > b.N {
					return
				}
				f(w, i)
			}
		})
	}
	wg.Wait()
}

func BenchmarkPropose(b *testing.B) {
	for _, inFlight := range []int{1, 2} {
		for _, n := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("flight=%d/clients=%d", inFlight, n), func(b *testing.B) {
				c := openBench(b, inFlight)
				tenant, value := newID(), bytes.Repeat([]byte("v"), 1024)
				before, began := c.Status(), cpu(b)
				b.ResetTimer()
				spread(b, n, func(w, i int) {
					e := &entry.Entry{ID: newID(), Tenant: tenant, Writes: []entry.Write{{
						Space: entry.Space{Table: "t"}, Key: strconv.AppendInt(nil, int64(w), 10), Value: value}}}
					if _, err := c.Propose(context.Background(), e); err != nil {
						b.Error(err)
					}
				})
				b.StopTimer()
				after := c.Status()
				b.ReportMetric(float64((cpu(b)-began).Microseconds())/float64(b.N), "cpu-µs/op")
				b.ReportMetric(float64(after.Entries-before.Entries)/float64(after.Batches-before.Batches), "entries/sync")
			})
		}
	}
}

func BenchmarkSnapshot(b *testing.B) {
	for _, n := range []int{1, 16} {
		for _, writers := range []int{0, 16} {
			b.Run(fmt.Sprintf("readers=%d/writers=%d", n, writers), func(b *testing.B) {
				c := openBench(b, 2)
				ctx, cancel := context.WithCancel(context.Background())
				var wg sync.WaitGroup
				tenant := newID()
				for w := range writers {
					wg.Go(func() {
						for ctx.Err() == nil {
							c.Propose(ctx, put(tenant, strconv.Itoa(w), "v"))
						}
					})
				}
				b.ReportAllocs()
				b.ResetTimer()
				spread(b, n, func(int, int) {
					s, err := c.Snapshot(context.Background())
					if err != nil {
						b.Error(err)
						return
					}
					s.Release()
				})
				b.StopTimer()
				cancel()
				wg.Wait()
			})
		}
	}
}

// BenchmarkOpen is the time from Open to an answered Snapshot, with an empty log.
func BenchmarkOpen(b *testing.B) {
	dir, state, node, id := b.TempDir(), newMemState(), newID(), newID()
	for b.Loop() {
		c, err := cluster.Open(single(b, dir, state, node, id))
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Ready(within(b, 10*time.Second)); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
