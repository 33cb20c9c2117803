package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// A Report says what Verify found in an export.
type Report struct {
	Kind    string // "full" or "part"
	Origin  string // whose log it is
	Events  uint64 // in the file
	Size    uint64 // of the signed tree
	Root    [32]byte
	Signer  string    // the verifier key that checked the signature; "" when none did
	Trusted bool      // Signer was among the keys that the caller trusts
	First   time.Time // of the first event in the file
	Last    time.Time // of the last one
	// Warning is set when the caller named no key: then the signature proves nothing about who signed.
	Warning  string
	Problems []Problem
	More     int // problems beyond those
}

// A Problem is one thing that is wrong. Line 0 is the file as a whole.
type Problem struct {
	Line int
	What string
}

// String says the line and what is wrong with it.
func (p Problem) String() string {
	if p.Line == 0 {
		return p.What
	}
	return fmt.Sprintf("line %d: %s", p.Line, p.What)
}

// OK reports whether nothing is wrong.
func (r *Report) OK() bool { return len(r.Problems) == 0 }

// WriteTo prints the report for a person.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	if r.Warning != "" {
		fmt.Fprintf(&b, "WARNING: %s\n", r.Warning)
	}
	fmt.Fprintf(&b, "log      %s\nexport   %s, %d events of a log of %d\n", r.Origin, r.Kind, r.Events, r.Size)
	if !r.First.IsZero() {
		fmt.Fprintf(&b, "time     %s to %s\n", r.First.Format(TimeLayout), r.Last.Format(TimeLayout))
	}
	fmt.Fprintf(&b, "root     %s\nsigner   %s\n", base64.StdEncoding.EncodeToString(r.Root[:]), r.Signer)
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "WRONG    %s\n", p)
	}
	if r.More > 0 {
		fmt.Fprintf(&b, "WRONG    and %d more\n", r.More)
	}
	if r.OK() {
		b.WriteString("verified\n")
	} else {
		b.WriteString("NOT VERIFIED\n")
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

const (
	maxProblems = 100
	maxProof    = 64
	maxLine     = MaxEvent + maxProof*48 + 4096
)

// Verify reads an export and checks it: each event against its hash, the hashes against the signed tree, and the
// signature against the trusted verifier keys. It needs no server and no secret, and holds one line in memory. Without
// trusted keys it uses the key that stands in the file, and the Report's Warning says so.
//
// The error is nil only for an export in which nothing is wrong; the Report is never nil, and says what and where.
func Verify(r io.Reader, trusted ...string) (*Report, error) {
	v := &verification{in: bufio.NewReaderSize(r, maxLine), trusted: trusted, report: new(Report), sum: sha256.New()}
	if err := v.run(); err != nil {
		return v.report, fmt.Errorf("verifying the export: %w", err)
	}
	if !v.report.OK() {
		return v.report, fmt.Errorf("the export is not as it was signed: %s", v.report.Problems[0])
	}
	return v.report, nil
}

type verification struct {
	in      *bufio.Reader
	trusted []string
	report  *Report
	line    int
	sum     hash.Hash // of the lines before the present one
	header  exportHeader
	root    [32]byte
	tree    Tree
	next    uint64 // the position that should come next
	gaps    []gap  // positions that were passed over
	broken  bool   // the tree cannot be recomputed
}

type gap struct {
	from, to uint64 // [from, to)
	line     int
}

func (v *verification) wrong(format string, args ...any) { v.wrongAt(v.line, format, args...) }

func (v *verification) wrongAt(line int, format string, args ...any) {
	if len(v.report.Problems) == maxProblems {
		v.report.More++
		return
	}
	v.report.Problems = append(v.report.Problems, Problem{line, fmt.Sprintf(format, args...)})
}

// read returns the next line without its end; nil at the end of the file. The bytes are valid until the next call.
func (v *verification) read() ([]byte, error) {
	line, err := v.in.ReadSlice('\n')
	v.line++
	switch {
	case err == nil:
		return line[:len(line)-1], nil
	case err == io.EOF && len(line) == 0:
		return nil, nil
	case err == io.EOF:
		return nil, fmt.Errorf("line %d is cut short: the export is not whole", v.line)
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("line %d is longer than %d bytes: this is not an export", v.line, maxLine)
	}
	return nil, fmt.Errorf("reading line %d: %w", v.line, err)
}

func (v *verification) hashLine(line []byte) {
	v.sum.Write(line)
	v.sum.Write([]byte{'\n'})
}

func (v *verification) fatal(err error) error {
	v.wrongAt(0, "%v", err)
	return err
}

func (v *verification) run() error {
	line, err := v.read()
	if err != nil {
		return v.fatal(err)
	}
	if err := v.readHeader(line); err != nil {
		return v.fatal(fmt.Errorf("line 1: %w", err))
	}
	v.hashLine(line)
	for {
		line, err := v.read()
		if err != nil {
			return v.fatal(err)
		}
		if line == nil {
			v.wrong("the export ends without its checkpoint: lines are missing at its end")
			v.finish()
			return nil
		}
		if bytes.HasPrefix(line, []byte(`{"checkpoint":`)) {
			v.checkpoint(line)
			break
		}
		v.event(line)
		v.hashLine(line)
	}
	v.finish()
	line, err = v.read()
	if err != nil {
		return v.fatal(err)
	}
	if line != nil {
		v.wrong("there is more after the checkpoint")
	}
	return nil
}

func (v *verification) readHeader(line []byte) error {
	if line == nil {
		return errors.New("the file is empty")
	}
	h := &v.header
	if err := json.Unmarshal(line, h); err != nil {
		return errors.New("this is not the header of an export")
	}
	if h.Format != ExportFormat {
		return fmt.Errorf("this is not an export that this program knows: want the format %q", ExportFormat)
	}
	again, err := json.Marshal(h)
	if err != nil || !bytes.Equal(again, line) {
		return errors.New("the header was changed: it is not as an export writes it")
	}
	if h.Kind != fullExport && h.Kind != partExport || (h.Kind == partExport) != (h.Filter != nil) || h.Size > math.MaxInt64 {
		return errors.New("the header was changed: its kind, filter or size cannot be")
	}
	root, err := base64.StdEncoding.DecodeString(h.Root)
	if err != nil || len(root) != len(v.root) {
		return errors.New("the header was changed: its root is not a hash")
	}
	copy(v.root[:], root)
	v.report.Kind, v.report.Origin, v.report.Size, v.report.Root = h.Kind, h.Origin, h.Size, v.root
	return nil
}

// An eventLine is one event's line. Its slices point into the line.
type eventLine struct {
	position uint64
	hash     [32]byte
	proof    [][32]byte
	event    []byte
}

var errEventLine = errors.New("this is not an event's line as an export writes it")

func parseEventLine(line []byte) (l eventLine, err error) {
	rest, ok := bytes.CutPrefix(line, []byte(`{"position":`))
	if !ok {
		return l, errEventLine
	}
	digits, rest, ok := bytes.Cut(rest, []byte(`,"hash":"`))
	if !ok {
		return l, errEventLine
	}
	if l.position, err = strconv.ParseUint(string(digits), 10, 63); err != nil || len(digits) > 1 && digits[0] == '0' || digits[0] == '+' {
		return l, errEventLine
	}
	if l.hash, rest, ok = cutHash(rest); !ok {
		return l, errEventLine
	}
	if list, found := bytes.CutPrefix(rest, []byte(`,"proof":[`)); found {
		l.proof = [][32]byte{}
		for len(list) > 0 && list[0] == '"' {
			var h [32]byte
			if h, list, ok = cutHash(list[1:]); !ok || len(l.proof) == maxProof {
				return l, errEventLine
			}
			l.proof = append(l.proof, h)
			if after, more := bytes.CutPrefix(list, []byte(`,`)); more {
				if len(after) == 0 || after[0] != '"' {
					return l, errEventLine
				}
				list = after
			} else {
				break
			}
		}
		if rest, ok = bytes.CutPrefix(list, []byte(`]`)); !ok {
			return l, errEventLine
		}
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"event":`)); !ok {
		return l, errEventLine
	}
	if l.event, ok = bytes.CutSuffix(rest, []byte(`}`)); !ok {
		return l, errEventLine
	}
	return l, nil
}

// cutHash reads a base64 hash and the quote after it.
func cutHash(b []byte) (h [32]byte, rest []byte, ok bool) {
	const n = 44
	if len(b) <= n || b[n] != '"' {
		return h, nil, false
	}
	var raw [33]byte
	if m, err := base64.StdEncoding.Strict().Decode(raw[:], b[:n]); err != nil || m != len(h) {
		return h, nil, false
	}
	copy(h[:], raw[:])
	return h, b[n+1:], true
}

func (v *verification) event(line []byte) {
	l, err := parseEventLine(line)
	if err != nil {
		v.wrong("%v", err)
		v.broken = true
		return
	}
	v.report.Events++
	if (l.proof != nil) != (v.header.Kind == partExport) {
		v.wrong("event %d: proofs belong to a part, and only to a part", l.position)
	}
	if LeafHash(l.event) != l.hash {
		v.wrong("event %d was changed: it does not have the hash that stands beside it", l.position)
	} else if r, err := Parse(l.event); err != nil {
		v.wrong("event %d: %v", l.position, err)
	} else {
		if v.report.First.IsZero() {
			v.report.First = r.Time
		}
		v.report.Last = r.Time
	}
	if l.position >= v.header.Size {
		v.wrong("event %d was added: the signed tree has %d events", l.position, v.header.Size)
		v.broken = true
		return
	}
	if v.header.Kind == partExport {
		v.partEvent(&l)
		return
	}
	v.fullEvent(&l)
}

func (v *verification) partEvent(l *eventLine) {
	if v.report.Events > 1 && l.position < v.next {
		v.wrong("event %d is out of order: it stands after event %d", l.position, v.next-1)
	}
	v.next = max(v.next, l.position+1)
	if CheckInclusion(l.proof, v.header.Size, v.root, l.position, l.hash) != nil {
		v.wrong("event %d is not event %d of the signed tree: its proof does not lead to the root", l.position, l.position)
	}
}

func (v *verification) fullEvent(l *eventLine) {
	switch {
	case l.position == v.next:
		v.next++
		if !v.broken {
			v.tree.Append(l.hash)
		}
		return
	case l.position > v.next:
		if len(v.gaps) < maxProblems {
			v.gaps = append(v.gaps, gap{v.next, l.position, v.line})
		}
		v.next = l.position + 1
	case v.fill(l.position):
		v.wrong("event %d is out of order: it stands after event %d", l.position, v.next-1)
	default:
		v.wrong("event %d stands in the export twice", l.position)
	}
	v.broken = true
}

// fill takes a position out of the gaps, and reports whether it was in one.
func (v *verification) fill(position uint64) bool {
	for i, g := range v.gaps {
		if position < g.from || position >= g.to {
			continue
		}
		left, right := g, g
		left.to, right.from = position, position+1
		v.gaps[i] = left
		if right.from < right.to && len(v.gaps) < 2*maxProblems {
			v.gaps = append(v.gaps, right)
		}
		return true
	}
	return false
}

func (v *verification) finish() {
	if v.header.Kind == partExport {
		return
	}
	for _, g := range v.gaps {
		if g.from < g.to {
			v.wrongAt(g.line, "%s missing before this line", eventRange(g.from, g.to))
		}
	}
	if v.next < v.header.Size {
		v.wrong("%s missing at the end", eventRange(v.next, v.header.Size))
		v.broken = true
	}
	if !v.broken && v.tree.Root() != v.root {
		v.wrongAt(0, "the events are not those of the signed tree: one or more were changed together with the hashes beside them")
	}
}

func eventRange(from, to uint64) string {
	if to == from+1 {
		return fmt.Sprintf("event %d is", from)
	}
	return fmt.Sprintf("events %d to %d are", from, to-1)
}

func (v *verification) checkpoint(line []byte) {
	var last struct {
		Checkpoint string `json:"checkpoint"`
	}
	if json.Unmarshal(line, &last) != nil ||
		!bytes.Equal(append(appendString([]byte(`{"checkpoint":`), last.Checkpoint), '}'), line) {
		v.wrong("the checkpoint's line was changed: it is not as an export writes it")
		return
	}
	keys := v.trusted
	if len(keys) == 0 {
		keys = []string{v.header.Verifier}
		v.report.Warning = "no trusted key was given. The key that checks the signature came from the file itself, so whoever " +
			"made the file can have made the signature too. Give the verifier key that the log's owner handed out."
	}
	c, signer, err := OpenCheckpoint([]byte(last.Checkpoint), keys...)
	if err != nil {
		v.wrong("%s", v.signatureProblem(err))
		return
	}
	v.report.Signer, v.report.Trusted = signer, len(v.trusted) > 0
	if signer != v.header.Verifier {
		v.wrongAt(1, "the header names another verifier key than the one that signed")
	}
	if c.Origin != v.header.Origin {
		v.wrongAt(1, "the header says that this is the log %q; the checkpoint signs for %q", v.header.Origin, c.Origin)
	}
	if c.Size != v.header.Size {
		v.wrongAt(1, "the header says %d events; the checkpoint signs a tree of %d", v.header.Size, c.Size)
	}
	if c.Root != v.root {
		v.wrongAt(1, "the header's root is not the one that the checkpoint signs")
	}
	switch {
	case v.header.Kind == fullExport && len(c.Extensions) > 0:
		v.wrong("the checkpoint is that of a part, and the header says that this is a full export")
	case v.header.Kind == partExport && (len(c.Extensions) != 1 || c.Extensions[0] != exportLine(v.report.Events, v.sum)):
		v.wrong("the lines before the checkpoint are not the %s that were signed: lines were changed, dropped or added", signedCount(c.Extensions))
	}
}

func signedCount(extensions []string) string {
	if len(extensions) == 1 {
		if f := strings.Fields(extensions[0]); len(f) == 3 && f[0] == "export" {
			return f[1] + " events"
		}
	}
	return "ones"
}

func (v *verification) signatureProblem(err error) string {
	var unverified *note.UnverifiedNoteError
	var invalid *note.InvalidSignatureError
	switch {
	case errors.As(err, &unverified):
		names := make([]string, 0, len(unverified.Note.UnverifiedSigs))
		for _, s := range unverified.Note.UnverifiedSigs {
			names = append(names, fmt.Sprintf("%s+%08x", s.Name, s.Hash))
		}
		return "unknown signer: the checkpoint is signed by " + strings.Join(names, ", ") + ", which is none of the trusted keys"
	case errors.As(err, &invalid):
		return fmt.Sprintf("wrong signature: the checkpoint is not what %s+%08x signed", invalid.Name, invalid.Hash)
	}
	return err.Error()
}
