package auditsearch

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/blevesearch/bleve/v2/analysis"
	"github.com/blevesearch/bleve/v2/analysis/analyzer/custom"
	"github.com/blevesearch/bleve/v2/analysis/analyzer/keyword"
	"github.com/blevesearch/bleve/v2/analysis/token/lowercase"
	"github.com/blevesearch/bleve/v2/analysis/tokenizer/unicode"
	"github.com/blevesearch/bleve/v2/document"
	"github.com/blevesearch/bleve/v2/mapping"
	bleve "github.com/blevesearch/bleve_index_api"

	"bulwark/security/audit"
	"bulwark/storage"
)

// The fields of the index. All but text are keywords: a term as it is.
const (
	fieldAction   = "action"
	fieldCategory = "category"
	fieldActor    = "actor" // id and name
	fieldKind     = "actorkind"
	fieldOutcome  = "outcome"
	fieldReason   = "reason"
	fieldProject  = "project"
	fieldObject   = "object"
	fieldAddress  = "addr"
	fieldSession  = "session"
	fieldRequest  = "request"
	fieldTime     = "time"  // see timeShifts
	fieldText     = "text"  // words; where a query names no field
	fieldWindow   = "w"     // see windowTerm
	maxKeyword    = 256     // bytes of a keyword that are indexed
	maxRequest    = 5       // bytes of a request's id that are
	maxText       = 8 << 10 // bytes of text that are indexed
	textAnalyzer  = "bulwark-text"
	fieldOptions  = bleve.IndexField | bleve.SkipFreqNorm
)

// limitOf is how many bytes of a value are indexed. Requests' ids are random: whole, they took a tenth of the index. Of their
// beginning, a log of ten million events has ten of each.
func limitOf(field string) int {
	if field == fieldRequest {
		return maxRequest
	}
	return maxKeyword
}

// indexed is the term of a value.
func indexed(field, value string) string { return cut(value, limitOf(field)) }

func keywordFields() []string {
	return []string{fieldAction, fieldCategory, fieldActor, fieldKind, fieldOutcome, fieldReason, fieldProject, fieldObject,
		fieldAddress, fieldSession, fieldRequest}
}

// A schema is how documents are made and queries read.
type schema struct {
	mapping *mapping.IndexMappingImpl
	words   analysis.Analyzer
}

func newSchema() (*schema, error) {
	m := mapping.NewIndexMapping()
	err := m.AddCustomAnalyzer(textAnalyzer, map[string]any{
		"type": custom.Name, "tokenizer": unicode.Name, "token_filters": []string{lowercase.Name},
	})
	if err != nil {
		return nil, fmt.Errorf("making the audit index's mapping: %w", err)
	}
	m.DefaultAnalyzer = keyword.Name
	m.DefaultField = fieldText
	text := mapping.NewTextFieldMapping()
	text.Analyzer = textAnalyzer
	m.DefaultMapping.AddFieldMappingsAt(fieldText, text)
	return &schema{mapping: m, words: m.AnalyzerNamed(textAnalyzer)}, nil
}

// documentID is the event's position, in six bytes.
func documentID(position uint64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], position)
	return string(b[8-idSize:])
}

const idSize = 6

// positionOf reads what documentID made.
func positionOf(id string) (position uint64, ok bool) {
	var b [8]byte
	copy(b[8-idSize:], id)
	return binary.BigEndian.Uint64(b[:]), len(id) == idSize
}

// Windows are aligned ranges of positions, of four sizes. Each document has the term of each window that it is in, so that
// a search can look at the newest events first and stop when its page is full.
const (
	smallWindow = 12 // 4,096 positions
	windowStep  = 4
	largeWindow = 24
)

func windowTerm(level uint, position uint64) string {
	return string(rune('a'+level)) + strconv.FormatUint(position>>level, 32)
}

// document makes the document of one event. Nothing is stored but the id: the event is in the log.
func (s *schema) document(position uint64, r *audit.Record) *document.Document {
	d := document.NewDocument(documentID(position))
	for _, field := range keywordFields() {
		if values := valuesOf(r, field); len(values) > 0 {
			for i, v := range values {
				values[i] = indexed(field, v)
			}
			d.AddField(newTerms(field, values))
		}
	}
	windows := make([]string, 0, 4)
	for level := uint(smallWindow); level <= largeWindow; level += windowStep {
		windows = append(windows, windowTerm(level, position))
	}
	d.AddField(newTerms(fieldWindow, windows))
	shifts := timeShifts()
	times := make([]string, 0, len(shifts))
	for level, shift := range shifts {
		times = append(times, timeTerm(level, micros(r.Time)>>shift))
	}
	d.AddField(newTerms(fieldTime, times))
	if words := s.split(textOf(r)); len(words) > 0 {
		d.AddField(newTerms(fieldText, words))
	}
	return d
}

// terms is a field whose terms are known: bleve's own fields are analysed one value at a time.
type terms struct {
	name  string
	freqs bleve.TokenFrequencies
}

var _ document.Field = (*terms)(nil)

func newTerms(name string, values []string) *terms {
	freqs := make(bleve.TokenFrequencies, len(values))
	list := make([]bleve.TokenFreq, len(values))
	for i, v := range values {
		if freqs[v] == nil {
			list[i].Term = []byte(v)
			list[i].SetFrequency(1)
			freqs[v] = &list[i]
		}
	}
	return &terms{name, freqs}
}

func (t *terms) Name() string                                     { return t.name }
func (t *terms) Value() []byte                                    { return nil }
func (t *terms) ArrayPositions() []uint64                         { return nil }
func (t *terms) EncodedFieldType() byte                           { return 't' }
func (t *terms) Analyze()                                         {}
func (t *terms) Options() bleve.FieldIndexingOptions              { return fieldOptions }
func (t *terms) AnalyzedTokenFrequencies() bleve.TokenFrequencies { return t.freqs }
func (t *terms) NumPlainTextBytes() uint64                        { return 0 }
func (t *terms) Size() int                                        { return 0 }

// AnalyzedLength is the same for all: bleve writes it beside terms that one document has, and it is of no use here.
func (t *terms) AnalyzedLength() int { return 1 }

// split returns the words of a text, in order.
func (s *schema) split(text string) []string {
	tokens := s.words.Analyze([]byte(text))
	words := make([]string, len(tokens))
	for i, t := range tokens {
		words[i] = string(t.Term)
	}
	return words
}

// textOf is what a search for a word looks at: the action's words, the object, the actor's name, the reason, and of the notes
// the fields and what is text. Numbers are not, which are mere counts.
func textOf(r *audit.Record) string {
	var b strings.Builder
	add := func(s string) {
		if s != "" && b.Len() < maxText {
			if b.Len() > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(s)
		}
	}
	add(strings.ReplaceAll(r.Action, ".", " "))
	add(r.Object)
	add(r.Actor.Name)
	add(r.Reason)
	for _, field := range slices.Sorted(maps.Keys(r.Notes)) {
		add(field)
		switch v := r.Notes[field].(type) {
		case string:
			add(v)
		case []string:
			for _, s := range v {
				add(s)
			}
		}
	}
	return cut(b.String(), maxText)
}

// cut shortens s to at most n bytes, at the start of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func idText(id storage.ID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}
