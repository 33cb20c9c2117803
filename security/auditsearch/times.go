package auditsearch

import (
	"strconv"
	"time"

	"github.com/blevesearch/bleve/v2/search/query"
)

// bleve's own times are sixteen terms each, eight of them found nowhere else: they took half of the index's bytes and a
// third of its work. So a time is five terms here: what is left of its microseconds after each of these shifts, which make
// about a second, a minute, an hour, three days and half a year. Inside a second, opened events are looked at.
func timeShifts() [5]uint { return [5]uint{finestTime, 26, 32, 38, 44} }

const finestTime = 20

// maxTime is above every time that is indexed, in microseconds since 1970: the year 2540. What is outside is moved to the
// nearer end.
const maxTime = 1 << 54

// timeTerm is the level and seven digits, so that the order of terms is the order of times.
func timeTerm(level int, unit uint64) string {
	const digits = 7
	s := strconv.FormatUint(unit, 32)
	b := make([]byte, 0, digits+1)
	b = append(b, byte('0'+level))
	for range digits - len(s) {
		b = append(b, '0')
	}
	return string(append(b, s...))
}

func micros(t time.Time) uint64 { return uint64(min(max(t.UnixMicro(), 0), maxTime-1)) }

// timeRange finds the times in [lo, hi), in microseconds, which are whole units of the finest level. It is nil when there are
// none, and a MatchAllQuery when that is every time.
func timeRange(lo, hi uint64) query.Query {
	if lo == 0 && hi == maxTime {
		return query.NewMatchAllQuery()
	}
	var parts []query.Query
	add := func(level int, first, end uint64) {
		if first >= end {
			return
		}
		shift := timeShifts()[level]
		yes := true
		q := query.NewTermRangeInclusiveQuery(timeTerm(level, first>>shift), timeTerm(level, (end-1)>>shift), &yes, &yes)
		q.SetField(fieldTime)
		parts = append(parts, q)
	}
	shifts := timeShifts()
	for level := range shifts {
		if level+1 == len(shifts) {
			add(level, lo, hi)
			break
		}
		unit := uint64(1) << shifts[level+1]
		up, down := (lo+unit-1)/unit*unit, hi/unit*unit
		if up >= down { // no whole unit of the next level lies in between
			add(level, lo, hi)
			break
		}
		add(level, lo, up)
		add(level, down, hi)
		lo, hi = up, down
	}
	if len(parts) == 0 {
		return nil
	}
	return query.NewDisjunctionQuery(parts)
}
