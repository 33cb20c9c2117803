package table

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Instants are microseconds since 1970 in UTC, dates are days since then. The ends of int64 are the infinities.
const (
	endless      = math.MaxInt64
	beginless    = math.MinInt64
	microsPerDay = 24 * 60 * 60 * 1_000_000
	firstInstant = -719_162 * microsPerDay // the first of January of the year 1
)

// parseInstant reads ISO 8601 as PostgreSQL's input does: a date, then optionally a time and a zone. A text without a
// zone is in UTC, which is the session's zone here.
func parseInstant(text string) (micros int64, ok bool) {
	s := strings.TrimSpace(text)
	switch strings.ToLower(s) {
	case "infinity":
		return endless, true
	case "-infinity":
		return beginless, true
	case "epoch":
		return 0, true
	}
	year, s, ok := digits(s, 4, 6)
	if !ok || !skip(&s, '-') {
		return 0, false
	}
	month, s, ok := digits(s, 1, 2)
	if !ok || !skip(&s, '-') {
		return 0, false
	}
	day, s, ok := digits(s, 1, 2)
	if !ok || month < 1 || month > 12 || day < 1 || year < 1 || year > 290000 {
		return 0, false
	}
	date := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	if date.Day() != day {
		return 0, false
	}
	micros = date.Unix() * 1_000_000
	if s == "" {
		return micros, true
	}
	if s[0] != 'T' && s[0] != 't' && s[0] != ' ' {
		return 0, false
	}
	clock, s, ok := parseClock(strings.TrimLeft(s[1:], " "))
	if !ok {
		return 0, false
	}
	zone, ok := parseZone(strings.TrimSpace(s))
	micros += clock - zone
	return micros, ok && micros >= firstInstant // a zone may push the first day into a year that has no form here
}

func parseClock(s string) (micros int64, rest string, ok bool) {
	hour, s, ok := digits(s, 1, 2)
	if !ok || hour > 24 || !skip(&s, ':') {
		return 0, "", false
	}
	minute, s, ok := digits(s, 2, 2)
	if !ok || minute > 59 {
		return 0, "", false
	}
	micros = int64(hour*3600+minute*60) * 1_000_000
	if skip(&s, ':') {
		var second int
		if second, s, ok = digits(s, 2, 2); !ok || second > 60 {
			return 0, "", false
		}
		micros += int64(second) * 1_000_000
		if skip(&s, '.') {
			n := 0
			for n < len(s) && s[n] >= '0' && s[n] <= '9' {
				n++
			}
			fraction, err := strconv.ParseFloat("0."+s[:n]+"0", 64)
			if err != nil {
				return 0, "", false
			}
			micros += int64(math.RoundToEven(fraction * 1e6))
			s = s[n:]
		}
	}
	return micros, s, micros <= microsPerDay
}

// parseZone returns the zone's distance east of UTC in microseconds.
func parseZone(s string) (int64, bool) {
	switch strings.ToUpper(s) {
	case "", "Z", "UTC", "GMT":
		return 0, true
	}
	sign := int64(1)
	if s[0] == '-' {
		sign = -1
	} else if s[0] != '+' {
		return 0, false
	}
	hour, s, ok := digits(s[1:], 1, 2)
	if !ok || hour > 15 {
		return 0, false
	}
	minute := 0
	if s != "" {
		skip(&s, ':')
		if minute, s, ok = digits(s, 2, 2); !ok || minute > 59 || s != "" {
			return 0, false
		}
	}
	return sign * int64(hour*3600+minute*60) * 1_000_000, true
}

// digits reads between least and most decimal digits.
func digits(s string, least, most int) (n int, rest string, ok bool) {
	i := 0
	for i < len(s) && i < most && s[i] >= '0' && s[i] <= '9' {
		n = n*10 + int(s[i]-'0')
		i++
	}
	return n, s[i:], i >= least
}

func skip(s *string, c byte) bool {
	if *s == "" || (*s)[0] != c {
		return false
	}
	*s = (*s)[1:]
	return true
}

func floorDay(micros int64) int64 {
	if micros == endless || micros == beginless {
		return micros
	}
	day := micros / microsPerDay
	if micros%microsPerDay < 0 {
		day--
	}
	return day
}

func dayStart(day int64) int64 {
	if day == endless || day == beginless {
		return day
	}
	return day * microsPerDay
}

// formatInstant writes what PostgreSQL's to_json does: ISO 8601 with a T; sep is ' ' for its text form.
func formatInstant(micros int64, t Type, sep byte) string {
	if micros == endless {
		return "infinity"
	}
	if micros == beginless {
		return "-infinity"
	}
	at := time.UnixMicro(micros).UTC()
	s := at.AppendFormat(make([]byte, 0, 40), "2006-01-02")
	s = append(s, sep)
	s = at.AppendFormat(s, "15:04:05.999999")
	if t == Timestamptz {
		if s = append(s, "+00"...); sep == 'T' {
			s = append(s, ":00"...)
		}
	}
	return string(s)
}

func formatDate(day int64) string {
	if day == endless {
		return "infinity"
	}
	if day == beginless {
		return "-infinity"
	}
	return time.Unix(day*86400, 0).UTC().Format("2006-01-02")
}
