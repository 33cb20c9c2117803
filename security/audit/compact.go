package audit

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"net/netip"
	"strings"
	"time"

	"bulwark/storage"
)

// What is sealed begins with a byte that says its form. The text form is the canonical text itself. The compact form holds
// the same event in about a quarter of the bytes, and the text is made of it again, byte for byte, when the event is opened;
// the leaf's hash, which is over the text, then shows that it is the same. DESIGN.md has the layout.
const (
	textForm    = 0
	compactForm = 1
)

// Flags of the compact form, in two bytes, low byte first.
const (
	hasProject = 1 << iota
	hasSubject
	hasSession
	hasName
	hasObject
	hasReason
	hasRequest
	hasNotes
	wasDenied // the outcome is "denied"
	otherOutcome
	addrBits = 10 // two bits: see the constants below
	kindBits = 12 // four bits: a storage.Kind
)

// How an address is written.
const (
	noAddr = iota
	addr4
	addr16
	addrText // one with a zone
)

// How a string is written: a number whose two low bits say it, and whose other bits are a length or an index.
const (
	plainString = iota
	knownString // an index into knownStrings
	uuidString  // 16 bytes
	hexString   // so many bytes, in lower case
)

// Types of notes.
const (
	stringNote = iota
	falseNote
	trueNote
	intNote  // a zigzag varint
	uintNote // a varint, of a number above the largest int64
	listNote
)

// knownStrings are the frequent ones. The list is part of the compact form: it may grow at its end, and nothing else of it
// may change.
func knownStrings() []string {
	return strings.Fields(`
		rows.insert rows.update rows.delete rows.select rows.upsert rows reads count table name account session project tenant
		apikey kind session.create session.refresh session.end session.reuse account.signup account.read account.update
		credential.resolve directory.resolve directory.list audit.search audit.checkpoint audit.export audit-checkpoint denied
		size rows.write apikey.create apikey.list apikey.revoke apikey.rotate project.create project.list project.configure
		project.delete tenant.create tenant.list tenant.delete key.rotate key.reseal key.drop schema.apply schema.test
		certificate.read certificate.create_ca directory.add directory.remove directory.clean operator.demo cluster.create ref
		changes deleted scope sessions sessions_ended values taken password data default_role auto_confirm sign_up projects
		overlap_seconds sha256 console demo full part publishable secret operator local others global`)
}

// A dictionary is knownStrings, both ways.
type dictionary struct {
	words   []string
	numbers map[string]uint64
}

func newDictionary() *dictionary {
	d := &dictionary{words: knownStrings(), numbers: map[string]uint64{}}
	for i, w := range d.words {
		d.numbers[w] = uint64(i)
	}
	return d
}

// appendCompact appends the compact form of e. The notes are those that appendNotes left in sc: sorted, with a field
// perhaps twice.
func (d *dictionary) appendCompact(b []byte, e *storage.Event, salt *[saltSize]byte, notes []storage.Note) []byte {
	by, origin := e.By, e.By.Origin()
	flags := uint16(by.Kind()) << kindBits
	set := func(flag uint16, when bool) {
		if when {
			flags |= flag
		}
	}
	set(hasProject, !e.Project.IsZero())
	set(hasSubject, !by.Subject().IsZero())
	set(hasSession, !by.Session().IsZero())
	set(hasName, by.Name() != "")
	set(hasObject, e.To.Object != "")
	set(hasReason, e.Reason != "")
	set(hasRequest, origin.RequestID != "")
	set(hasNotes, len(notes) > 0)
	set(wasDenied, e.Outcome == "denied")
	set(otherOutcome, e.Outcome != "denied" && e.Outcome != "ok")
	a := origin.Address
	switch {
	case a.Is4():
		flags |= addr4 << addrBits
	case a.IsValid() && a.Zone() == "":
		flags |= addr16 << addrBits
	case a.IsValid():
		flags |= addrText << addrBits
	}

	b = append(b, compactForm)
	b = binary.LittleEndian.AppendUint16(b, flags)
	b = append(b, salt[:]...)
	b = append(b, e.ID[:]...)
	b = binary.AppendVarint(b, e.Time.UnixMicro()-idMicros(e.ID))
	for _, id := range [...]storage.ID{e.Project, by.Subject(), by.Session()} {
		if !id.IsZero() {
			b = append(b, id[:]...)
		}
	}
	if by.Name() != "" {
		b = d.appendString(b, by.Name())
	}
	switch {
	case a.Zone() != "":
		b = d.appendString(b, a.String())
	case a.Is4():
		as := a.As4()
		b = append(b, as[:]...)
	case a.IsValid():
		as := a.As16()
		b = append(b, as[:]...)
	}
	b = d.appendString(b, e.To.Action)
	if flags&otherOutcome != 0 {
		b = d.appendString(b, e.Outcome)
	}
	for _, s := range [...]string{e.To.Object, e.Reason, origin.RequestID} {
		if s != "" {
			b = d.appendString(b, s)
		}
	}
	if len(notes) > 0 {
		b = d.appendNotes(b, notes)
	}
	return b
}

// idMicros is the time in a UUID of version 7 (RFC 9562, section 5.7), in microseconds. That of an event is hardly a
// millisecond away. Whatever another id holds is taken away and put back.
func idMicros(id storage.ID) int64 {
	return int64(binary.BigEndian.Uint64(id[:8])>>16) * 1000
}

// appendNotes writes how many there are, and each one's field, type and value.
func (d *dictionary) appendNotes(b []byte, notes []storage.Note) []byte {
	n := 0
	for i := range notes {
		if i+1 == len(notes) || notes[i+1].Field != notes[i].Field {
			n++
		}
	}
	b = binary.AppendUvarint(b, uint64(n))
	for i := range notes {
		if i+1 < len(notes) && notes[i+1].Field == notes[i].Field {
			continue
		}
		b = d.appendString(b, notes[i].Field)
		switch v := notes[i].Value.(type) {
		case string:
			b = d.appendString(append(b, stringNote), v)
		case bool:
			if v {
				b = append(b, trueNote)
			} else {
				b = append(b, falseNote)
			}
		case int:
			b = appendIntNote(b, int64(v))
		case int64:
			b = appendIntNote(b, v)
		case int32:
			b = appendIntNote(b, int64(v))
		case int16:
			b = appendIntNote(b, int64(v))
		case int8:
			b = appendIntNote(b, int64(v))
		case uint:
			b = appendUintNote(b, uint64(v))
		case uint64:
			b = appendUintNote(b, v)
		case uint32:
			b = appendUintNote(b, uint64(v))
		case uint16:
			b = appendUintNote(b, uint64(v))
		case uint8:
			b = appendUintNote(b, uint64(v))
		case storage.ID:
			b = append(append(b, stringNote, uuidString), v[:]...)
		case []string:
			b = binary.AppendUvarint(append(b, listNote), uint64(len(v)))
			for _, s := range v {
				b = d.appendString(b, s)
			}
		}
	}
	return b
}

func appendIntNote(b []byte, v int64) []byte { return binary.AppendVarint(append(b, intNote), v) }

func appendUintNote(b []byte, v uint64) []byte {
	if v > math.MaxInt64 {
		return binary.AppendUvarint(append(b, uintNote), v)
	}
	return appendIntNote(b, int64(v))
}

func (d *dictionary) appendString(b []byte, s string) []byte {
	if n, ok := d.numbers[s]; ok {
		return binary.AppendUvarint(b, n<<2|knownString)
	}
	start := len(b)
	if len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' {
		b = append(b, uuidString)
		if b, ok := appendHex(b, s[:8], s[9:13], s[14:18], s[19:23], s[24:]); ok {
			return b
		}
		b = b[:start]
	}
	if len(s) >= 4 && len(s)%2 == 0 {
		b = binary.AppendUvarint(b, uint64(len(s)/2)<<2|hexString)
		if b, ok := appendHex(b, s); ok {
			return b
		}
		b = b[:start]
	}
	b = binary.AppendUvarint(b, uint64(len(s))<<2+plainString)
	return append(b, s...)
}

// appendHex appends what the parts say in lower-case hexadecimal, if they do.
func appendHex(b []byte, parts ...string) ([]byte, bool) {
	for _, s := range parts {
		for i := 0; i < len(s); i += 2 {
			hi, ok1 := hexDigit(s[i])
			lo, ok2 := hexDigit(s[i+1])
			if !ok1 || !ok2 {
				return b, false
			}
			b = append(b, hi<<4|lo)
		}
	}
	return b, true
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}

var errCompact = errors.New("what was sealed is not an event")

// expand appends the canonical text of what was sealed. Bytes that were never sealed may give an error or any text: the
// caller compares its hash.
func (d *dictionary) expand(b, sealed []byte) ([]byte, error) {
	if len(sealed) == 0 || len(sealed) > MaxEvent+1 {
		return b, errCompact
	}
	switch sealed[0] {
	case textForm:
		return append(b, sealed[1:]...), nil
	case compactForm:
		x := expander{dictionary: d, in: sealed[1:], out: b, limit: len(b) + MaxEvent}
		x.event()
		if x.failed || len(x.in) > 0 || len(x.out) > x.limit {
			return b, errCompact
		}
		return x.out, nil
	}
	return b, errors.New("what was sealed has a form that this program does not know: use a newer program")
}

// An expander reads in and writes out, until it has failed.
type expander struct {
	*dictionary
	in     []byte
	out    []byte
	limit  int // of out's length
	failed bool
}

func (x *expander) event() {
	head := x.take(2)
	salt := x.take(saltSize)
	id := x.id()
	delta := x.varint()
	if x.failed {
		return
	}
	flags := binary.LittleEndian.Uint16(head)
	when := time.UnixMicro(idMicros(id) + delta)
	if y := when.UTC().Year(); y < 0 || y > 9999 {
		x.fail()
		return
	}
	x.text(`{"v":1,"id":`)
	x.out = appendID(x.out, id)
	x.text(`,"time":"`)
	x.out = appendTime(x.out, when)
	x.text(`"`)
	if flags&hasProject != 0 {
		x.text(`,"project":`)
		x.out = appendID(x.out, x.id())
	}
	x.text(`,"actor":{"kind":"`)
	x.text(storage.Kind(flags >> kindBits).String())
	x.text(`"`)
	if flags&hasSubject != 0 {
		x.text(`,"id":`)
		x.out = appendID(x.out, x.id())
	}
	if flags&hasSession != 0 {
		x.text(`,"session":`)
		x.out = appendID(x.out, x.id())
	}
	x.field(flags&hasName, `,"name":`)
	x.address(flags >> addrBits & 3)
	x.text(`},"action":`)
	x.string()
	// The outcome stands after the object, and what says it may stand before.
	outcome := "ok"
	if flags&wasDenied != 0 {
		outcome = "denied"
	}
	var other []byte
	if flags&otherOutcome != 0 {
		start := len(x.out)
		x.string()
		other = append(other, x.out[start:]...)
		x.out = x.out[:start]
	}
	x.field(flags&hasObject, `,"object":`)
	x.text(`,"outcome":`)
	if other != nil {
		x.out = append(x.out, other...)
	} else {
		x.out = appendString(x.out, outcome)
	}
	x.field(flags&hasReason, `,"reason":`)
	x.field(flags&hasRequest, `,"request":`)
	if flags&hasNotes != 0 {
		x.notes()
	}
	if x.failed {
		return
	}
	x.text(`,"salt":"`)
	x.out = base64.RawURLEncoding.AppendEncode(x.out, salt)
	x.text(`"}`)
}

func (x *expander) address(how uint16) {
	if how == noAddr {
		return
	}
	x.text(`,"addr":`)
	if how == addrText {
		x.string()
		return
	}
	n := 4
	if how == addr16 {
		n = 16
	}
	if a, ok := netip.AddrFromSlice(x.take(n)); ok {
		x.out = append(a.AppendTo(append(x.out, '"')), '"')
	}
}

func (x *expander) notes() {
	x.text(`,"notes":{`)
	for i, n := 0, x.uvarint(); uint64(i) < n && !x.failed; i++ {
		if i > 0 {
			x.text(`,`)
		}
		x.string()
		x.text(`:`)
		kind := x.take(1)
		if x.failed {
			return
		}
		switch kind[0] {
		case stringNote:
			x.string()
		case falseNote:
			x.text("false")
		case trueNote:
			x.text("true")
		case intNote:
			x.out = appendInt(x.out, x.varint())
		case uintNote:
			x.out = appendUint(x.out, x.uvarint())
		case listNote:
			x.text(`[`)
			for i, n := 0, x.uvarint(); uint64(i) < n && !x.failed; i++ {
				if i > 0 {
					x.text(`,`)
				}
				x.string()
			}
			x.text(`]`)
		default:
			x.fail()
		}
	}
	x.text(`}`)
}

func (x *expander) fail() { x.failed, x.in = true, nil }

func (x *expander) text(s string) { x.out = append(x.out, s...) }

func (x *expander) field(present uint16, key string) {
	if present != 0 {
		x.text(key)
		x.string()
	}
}

// take returns the next n bytes, or nil.
func (x *expander) take(n int) []byte {
	if n > len(x.in) || len(x.out) > x.limit {
		x.fail()
		return nil
	}
	b := x.in[:n]
	x.in = x.in[n:]
	return b
}

func (x *expander) id() (id storage.ID) {
	copy(id[:], x.take(len(id)))
	return id
}

func (x *expander) uvarint() uint64 {
	v, n := binary.Uvarint(x.in)
	if n <= 0 {
		x.fail()
		return 0
	}
	x.in = x.in[n:]
	return v
}

func (x *expander) varint() int64 {
	v := x.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

// string reads a string and writes it as JSON.
func (x *expander) string() {
	v := x.uvarint()
	n := v >> 2
	if x.failed || n > MaxEvent {
		x.fail()
		return
	}
	switch v & 3 {
	case plainString:
		x.out = appendString(x.out, x.take(int(n)))
	case knownString:
		if n >= uint64(len(x.words)) {
			x.fail()
			return
		}
		x.out = append(append(append(x.out, '"'), x.words[n]...), '"')
	case uuidString:
		x.out = appendID(x.out, x.id())
	case hexString:
		x.out = append(hex.AppendEncode(append(x.out, '"'), x.take(int(n))), '"')
	}
}
