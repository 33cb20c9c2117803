package audit

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"time"

	"bulwark/storage"
)

// ExportFormat is the format of exports that this code writes.
//
// An export is lines of JSON. The first is the header (see exportHeader). Then a line for each event, in the order of the
// log: {"position":n,"hash":"…","event":{…}}, where event is the canonical text, byte for byte, and hash its leaf hash in
// base64. The last line is {"checkpoint":"…"}, a signed note.
//
// A full export holds every event of the tree that the checkpoint signs: whoever reads it recomputes the root. In a part,
// each line carries the event's inclusion proof ("proof":["…"], before "event"), and the checkpoint has an extension line
// "export <events> <SHA-256 of all lines before it>", so that no line of it can be dropped.
const ExportFormat = "bulwark-audit-export/1"

// exportHeader is the first line of an export.
type exportHeader struct {
	Format   string  `json:"format"`
	Kind     string  `json:"kind"` // "full" or "part"
	Origin   string  `json:"origin"`
	Verifier string  `json:"verifier"` // for convenience: trust a key that came another way
	Size     uint64  `json:"size"`     // leaves in the tree
	Root     string  `json:"root"`     // base64
	Filter   *Filter `json:"filter,omitempty"`
}

const (
	fullExport = "full"
	partExport = "part"
)

// An Exported says what was exported.
type Exported struct {
	Events uint64
	Size   uint64
	Signed *Signed
}

// Export writes the log of the actor's tenant to w: all of it, or with a filter a part with proofs. The export itself is
// an event, and the last one of a full export unless others came at the same time. Memory stays bounded.
func (c *Checkpointer) Export(ctx context.Context, by storage.Actor, w io.Writer, filter *Filter) (*Exported, error) {
	to := storage.Intent{Action: "audit.export"}
	kind := fullExport
	if filter != nil {
		kind = partExport
	}
	err := c.store.Update(ctx, by, to, func(tx storage.Tx) error {
		tx.Note("kind", kind)
		return nil
	})
	if err != nil {
		return nil, err
	}
	size, edge, err := c.history.Tree(ctx, by, to)
	if err != nil {
		return nil, err
	}
	tree, err := NewTree(size, edge)
	if err != nil {
		return nil, err
	}
	x := &exporter{ctx: ctx, history: c.history, by: by, to: to, size: size, sum: sha256.New()}
	x.w = bufio.NewWriterSize(io.MultiWriter(w, x.sum), 64<<10)
	if err := x.header(c, tree, kind, filter); err != nil {
		return nil, err
	}
	var extensions []string
	if filter == nil {
		err = x.full()
	} else {
		err = x.part(filter)
	}
	if err == nil {
		err = x.w.Flush()
	}
	if err != nil {
		return nil, fmt.Errorf("exporting the audit log: %w", err)
	}
	if filter != nil {
		extensions = []string{exportLine(x.events, x.sum)}
	}
	s, err := c.sign(by.Tenant(), tree, extensions...)
	if err != nil {
		return nil, err
	}
	line := append(appendString([]byte(`{"checkpoint":`), string(s.Note)), '}', '\n')
	if _, err := w.Write(line); err != nil {
		return nil, fmt.Errorf("exporting the audit log: %w", err)
	}
	return &Exported{Events: x.events, Size: size, Signed: s}, nil
}

func exportLine(events uint64, sum hash.Hash) string {
	return "export " + strconv.FormatUint(events, 10) + " " + base64.StdEncoding.EncodeToString(sum.Sum(nil))
}

type exporter struct {
	ctx     context.Context
	history storage.History
	by      storage.Actor
	to      storage.Intent
	size    uint64
	w       *bufio.Writer
	sum     hash.Hash
	line    []byte
	events  uint64
}

func (x *exporter) header(c *Checkpointer, tree *Tree, kind string, filter *Filter) error {
	vkey, err := c.signer.VerifierKey(x.by.Tenant())
	if err != nil {
		return err
	}
	root := tree.Root()
	line, err := json.Marshal(exportHeader{
		Format: ExportFormat, Kind: kind, Origin: c.signer.Origin(x.by.Tenant()), Verifier: vkey,
		Size: x.size, Root: base64.StdEncoding.EncodeToString(root[:]), Filter: filter,
	})
	if err != nil {
		return fmt.Errorf("writing the export's header: %w", err)
	}
	_, err = x.w.Write(append(line, '\n'))
	return err
}

// each calls fn with every event of the tree, and fails when one of them is not there.
func (x *exporter) each(fn func(position uint64, hash [32]byte, event []byte) error) error {
	var next uint64
	var failed error
	if x.size == 0 {
		return nil
	}
	err := x.history.Events(x.ctx, x.by, x.to, 0, func(position uint64, hash [32]byte, event []byte) bool {
		if failed = x.ctx.Err(); failed != nil {
			return false
		}
		if position != next {
			failed = fmt.Errorf("event %d is missing in the log", next)
			return false
		}
		next++
		failed = fn(position, hash, event)
		return failed == nil && next < x.size
	})
	if err := errors.Join(failed, err); err != nil {
		return err
	}
	if next != x.size {
		return fmt.Errorf("event %d is missing in the log", next)
	}
	return nil
}

func (x *exporter) full() error {
	return x.each(func(position uint64, hash [32]byte, event []byte) error { return x.event(position, hash, nil, event) })
}

// part reads the log twice: once for the hashes, once for the events and their proofs.
func (x *exporter) part(filter *Filter) error {
	var p Prover
	err := x.each(func(_ uint64, hash [32]byte, _ []byte) error {
		p.Append(hash)
		return nil
	})
	if err != nil {
		return err
	}
	type chosen struct {
		position uint64
		event    []byte
	}
	var block [][32]byte
	var waiting []chosen
	return x.each(func(position uint64, hash [32]byte, event []byte) error {
		block = append(block, hash)
		r, err := Parse(event)
		if err != nil {
			return fmt.Errorf("event %d: %w", position, err)
		}
		if filter.Match(r) {
			waiting = append(waiting, chosen{position, append([]byte(nil), event...)})
		}
		if len(block) < blockSize && position+1 < x.size {
			return nil
		}
		for _, e := range waiting {
			proof, err := p.Inclusion(e.position, block)
			if err != nil {
				return err
			}
			if err := x.event(e.position, block[e.position%blockSize], proof, e.event); err != nil {
				return err
			}
		}
		block, waiting = block[:0], waiting[:0]
		return nil
	})
}

func (x *exporter) event(position uint64, hash [32]byte, proof [][32]byte, event []byte) error {
	x.line = appendEventLine(x.line[:0], position, hash, proof, event)
	x.events++
	_, err := x.w.Write(x.line)
	return err
}

func appendEventLine(b []byte, position uint64, hash [32]byte, proof [][32]byte, event []byte) []byte {
	b = strconv.AppendUint(append(b, `{"position":`...), position, 10)
	b = append(b, `,"hash":"`...)
	b = append(base64.StdEncoding.AppendEncode(b, hash[:]), '"')
	if proof != nil {
		b = append(b, `,"proof":[`...)
		for i, h := range proof {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(base64.StdEncoding.AppendEncode(append(b, '"'), h[:]), '"')
		}
		b = append(b, ']')
	}
	b = append(append(b, `,"event":`...), event...)
	return append(b, '}', '\n')
}

// ExportName is a file name for an export.
func ExportName(now time.Time) string {
	return "audit-" + now.UTC().Format("20060102T150405Z") + ".jsonl"
}
