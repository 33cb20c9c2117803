package cluster

import (
	"sync"

	"github.com/hashicorp/raft"
)

// lengths knows how many bytes of entries the log holds from where on, to a sixteenth of what is kept behind a mark.
type lengths struct {
	keep int64 // bytes that stay behind a mark, for nodes that lag
	most int64 // bytes that the log may have behind a mark, whoever wants them

	mu      sync.Mutex
	total   int64
	samples []sample // in order
}

// A sample says how many bytes were written up to an entry.
type sample struct {
	index uint64
	total int64
}

// sampleEvery bounds the memory: 16 bytes for each of them.
const sampleEvery = 64 << 10

// add counts an entry that was written, and returns its bytes.
func (l *lengths) add(entry *raft.Log) int {
	n := len(entry.Data) + len(entry.Extensions) + codecHeader + 4
	l.mu.Lock()
	defer l.mu.Unlock()
	// Entries that a leader does not have are dropped, and others come in their place.
	for len(l.samples) > 0 && l.samples[len(l.samples)-1].index >= entry.Index {
		l.samples = l.samples[:len(l.samples)-1]
	}
	l.total += int64(n)
	if k := len(l.samples); k == 0 || l.total-l.samples[k-1].total >= min(sampleEvery, l.keep/16) {
		l.samples = append(l.samples, sample{entry.Index, l.total})
	}
	return n
}

// cut returns up to which entry the log is cut when a mark allows it up to to, and the entries from wanted on are wanted
// (0: none).
func (l *lengths) cut(to, wanted uint64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var kept, forced uint64
	for i, s := range l.samples {
		behind := l.total - s.total
		if behind >= l.keep {
			kept = s.index
		}
		if i > 0 && behind <= l.most && l.total-l.samples[i-1].total > l.most {
			forced = s.index
		}
	}
	at := min(to, kept)
	if wanted > 0 {
		at = min(at, wanted-1)
	}
	at = max(at, min(to, forced))
	for len(l.samples) > 1 && l.samples[1].index <= at {
		l.samples = l.samples[1:]
	}
	return at
}
