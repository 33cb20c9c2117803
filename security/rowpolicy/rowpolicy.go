// Package rowpolicy compiles SQL, as PostgreSQL's own grammar reads it, to tables and row policies.
//
// Promise: a file of SQL is accepted as a whole or refused as a whole. What is accepted means what PostgreSQL says it
// means; whatever the subset does not support is refused by its name and position, never skipped. Compiling is pure: the
// same schema, text and random bytes give the same result, and the schema that was given is not changed.
package rowpolicy

import (
	"context"
	"errors"
	"io"
	"runtime/debug"
	"sync/atomic"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v6"
	"github.com/wasilibs/go-pgquery/parser"
	"google.golang.org/protobuf/proto"

	"bulwark/storage"
	"bulwark/storage/table"
)

// The limits of one text, one schema and one expression.
const (
	MaxText       = 1 << 20 // bytes of SQL
	MaxStatements = 1_000
	MaxTables     = 500
	MaxColumns    = 1_600   // of a table, as PostgreSQL
	MaxPolicies   = 100     // of a table
	MaxDepth      = 100     // of nested expressions, as package table
	MaxNodes      = 4_000   // of one compiled expression
	MaxTokens     = 20_000  // words and signs of one statement
	MaxWords      = 1_000   // words and signs without a comma, with those around them where they are in parentheses
	MaxSchema     = 1 << 20 // bytes of the whole schema as Dump writes it
)

// A Change is one thing that a statement did.
type Change struct {
	Action string `json:"action"`          // "create table", "enable row level security", "create policy", …, or "note"
	Object string `json:"object"`          // "public.notes", `"own notes" on public.notes`
	Count  int    `json:"count,omitempty"` // of a table's columns, where it was created
	Note   string `json:"note,omitempty"`  // why nothing was done
	Space  string `json:"-"`               // of a dropped table, so that its rows can be deleted
}

// String returns the action and its object.
func (c Change) String() string { return c.Action + " " + c.Object }

// A Parser turns text into statements, one text at a time: PostgreSQL's parser is WebAssembly, compiled when the first
// text arrives (a second or two, and some 25 MiB that stay). A process needs one Parser.
type Parser struct {
	turn    chan *state
	loading atomic.Bool
	parse   func(sql string) ([]byte, error)
}

type state struct{ warm, broken bool }

// NewParser returns a Parser. It costs nothing until it is used.
func NewParser() *Parser {
	p := &Parser{turn: make(chan *state, 1), parse: parser.ParseToProtobuf}
	p.turn <- &state{}
	return p
}

// A File is a text that PostgreSQL's grammar accepts. It may be compiled again and again.
type File struct{ stmts []stmt }

// A stmt is a statement, whose positions count from where src does.
type stmt struct {
	src *source
	raw *pg.RawStmt
}

// Parse reads a text. Errors are *Error: 42601 with PostgreSQL's own words for a syntax error, 54000 and 54001 beyond a
// limit. ctx ends the wait for another text's turn; a parse that has begun is bounded by the limits.
func (p *Parser) Parse(ctx context.Context, sql string) (*File, error) {
	if err := checkText(sql); err != nil {
		return nil, err
	}
	src, err := scan(sql, MaxStatements)
	if err != nil {
		return nil, err
	}
	st, err := p.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { p.turn <- st }()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if st.broken {
		return nil, errBroken()
	}
	f := &File{}
	for from, to := range src.chunks() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		part := src.from(from)
		raw, err := p.guarded(st, sql[from:to])
		if err != nil {
			return nil, part.parserError(err, sql[from:to])
		}
		tree := new(pg.ParseResult)
		if err := proto.Unmarshal(raw, tree); err != nil {
			return nil, part.errorf(0, codeTooComplex, "the statement is nested too deeply")
		}
		for _, s := range tree.Stmts {
			f.stmts = append(f.stmts, stmt{src: part, raw: s})
		}
	}
	return f, nil
}

// begin waits for the parser's turn, and loads it for the first text. Loading is not the request's: on a slow machine it
// outlasts a request's time, and whoever asks again finds it further on.
func (p *Parser) begin(ctx context.Context) (*state, error) {
	if err := ctx.Err(); err != nil {
		return nil, err // nobody waits any more: nothing is loaded for them
	}
	for {
		select {
		case st := <-p.turn:
			if st.warm || st.broken {
				return st, nil
			}
			p.loading.Store(true)
			go p.load(st)
		case <-ctx.Done():
			if p.loading.Load() {
				return nil, errLoading()
			}
			return nil, ctx.Err()
		}
	}
}

// load compiles the WebAssembly, by having it read a text, and gives the turn back.
func (p *Parser) load(st *state) {
	defer func() {
		p.loading.Store(false)
		p.turn <- st
	}()
	// An error other than a trap, which leaves the parser broken, comes again with the text that is to be read.
	_, _ = p.guarded(st, "select 1")
	st.warm = !st.broken
	// Compiling leaves some 200 MiB of garbage; a small node cannot wait for it to go by itself.
	debug.FreeOSMemory()
}

// CodeLoading is the code of the error that asks to try again because the parser is still being loaded.
const CodeLoading = "sql_parser_loading"

func errLoading() error {
	return storage.Errorf(storage.Unavailable, CodeLoading,
		"the SQL parser is being loaded, which takes a slow machine a while: try again in a moment")
}

// guarded runs the parser. A trap inside it (its stack overflows, its memory ends) leaves the instance in a state in
// which it may read a text wrongly, and the library would use it again: so no other text is read until a restart.
func (p *Parser) guarded(st *state, sql string) (raw []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			st.broken = true
			raw, err = nil, errBroken()
		}
	}()
	return p.parse(sql)
}

func errBroken() error {
	return storage.Errorf(storage.Unavailable, "sql_parser_stopped",
		"the SQL parser stopped at a text that it could not read: restart this node before applying SQL again")
}

func checkText(sql string) error {
	if len(sql) > MaxText {
		return storage.Errorf(storage.TooLarge, codeLimit, "the SQL text is larger than %d bytes: split it", MaxText)
	}
	src := &source{text: sql}
	for i := 0; i < len(sql); {
		r, n := utf8.DecodeRuneInString(sql[i:])
		if r == 0 || r == utf8.RuneError && n == 1 {
			// The parser takes a C string: it would not see what follows a zero byte.
			return src.errorf(i, "22021", `invalid byte sequence for encoding "UTF8": 0x%02x`, sql[i])
		}
		i += n
	}
	return nil
}

// Compile is Parse, then Compile of the File.
func (p *Parser) Compile(ctx context.Context, current *table.Schema, sql string, rand io.Reader) (*table.Schema, []Change, error) {
	f, err := p.Parse(ctx, sql)
	if err != nil {
		return nil, nil, err
	}
	return f.Compile(ctx, current, rand)
}

// Compile applies the statements to a copy of current (nil is empty) and returns it and what changed. rand names the
// spaces of new tables. Errors are *Error, but for those of ctx and rand.
func (f *File) Compile(ctx context.Context, current *table.Schema, rand io.Reader) (*table.Schema, []Change, error) {
	c := &compiler{rand: rand, next: &table.Schema{}}
	if current != nil {
		c.next.Version = current.Version
		c.next.Tables = append([]*table.Table(nil), current.Tables...)
	}
	c.next.Version++
	for _, s := range f.stmts {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		c.src = s.src
		if err := c.statement(s.raw); err != nil {
			return nil, nil, err
		}
	}
	dump := Dump(c.next)
	if len(dump) > MaxSchema {
		return nil, nil, storage.Errorf(storage.TooLarge, codeLimit,
			"the project's schema would be larger than %d bytes: drop tables or policies first", MaxSchema)
	}
	if _, err := scan(dump, len(dump)); err != nil { // what is accepted can be written out and read again
		return nil, nil, storage.Errorf(storage.BadInput, codeTooComplex,
			"a table or policy is too complex once its types are written out: make it simpler, or split it")
	}
	return c.next, c.changes, nil
}

// PositionOf returns where in the text err is, if it says so.
func PositionOf(err error) (Position, bool) {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.At, true
	}
	return Position{}, false
}
