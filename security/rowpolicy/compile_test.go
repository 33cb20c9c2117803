package rowpolicy

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"bulwark/storage"
	"bulwark/storage/table"
)

var update = flag.Bool("update", false, "write the golden files")

// shared is one parser for all tests: the WebAssembly is compiled once.
var shared = sync.OnceValue(NewParser)

func names() *rand.ChaCha8 { return rand.NewChaCha8([32]byte{1}) }

func compile(t testing.TB, current *table.Schema, sql string) (*table.Schema, []Change, error) {
	t.Helper()
	return shared().Compile(t.Context(), current, sql, names())
}

func mustCompile(t testing.TB, current *table.Schema, sql string) (*table.Schema, []Change) {
	t.Helper()
	s, changes, err := compile(t, current, sql)
	if err != nil {
		t.Fatalf("compiling: %v", err)
	}
	return s, changes
}

// TestAccepted compiles each file and compares what it made, and what it says it did, with the golden file. What Dump
// writes must compile to the same schema.
func TestAccepted(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s, changes := mustCompile(t, nil, string(text))
			var got bytes.Buffer
			got.WriteString(Dump(s))
			got.WriteByte('\n')
			for _, c := range changes {
				got.WriteString("-- " + c.String())
				if c.Note != "" {
					got.WriteString(": " + c.Note)
				}
				got.WriteByte('\n')
			}
			golden := strings.TrimSuffix(file, ".sql") + ".golden"
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("got\n%s\nwant\n%s", got.Bytes(), want)
			}
			checkRoundTrip(t, s)
		})
	}
}

func checkRoundTrip(t testing.TB, s *table.Schema) {
	t.Helper()
	dump := Dump(s)
	again, _, err := compile(t, nil, dump)
	if err != nil {
		t.Fatalf("compiling what Dump wrote: %v\n%s", err, dump)
	}
	plain := func(s *table.Schema) []table.Table {
		var out []table.Table
		for _, tb := range s.Tables {
			c := *tb
			c.Space = ""
			out = append(out, c)
		}
		return out
	}
	if !reflect.DeepEqual(plain(s), plain(again)) {
		t.Errorf("Dump does not make the same schema:\n%s\nagain:\n%s", dump, Dump(again))
	}
}

// TestRefused holds each file to the error that its first line names, and to leaving the schema as it was.
func TestRefused(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/refused/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			head, _, _ := strings.Cut(string(text), "\n")
			want := strings.TrimPrefix(head, "-- ERROR ")
			s, changes, err := compile(t, nil, string(text))
			if err == nil {
				t.Fatalf("accepted; want %s", want)
			}
			if s != nil || changes != nil {
				t.Error("a refusal returned a schema or changes")
			}
			se, ok := errors.AsType[*storage.Error](err)
			if !ok || se.Fault != storage.BadInput {
				t.Fatalf("got %#v, want a BadInput", err)
			}
			if got := se.Code + " " + se.Message; got != want {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
			if _, ok := PositionOf(err); !ok {
				t.Error("no position")
			}
		})
	}
}

// TestPure compiles against a schema that must not change, whatever happens to the copy.
func TestPure(t *testing.T) {
	t.Parallel()
	s, _ := mustCompile(t, nil, `create table a (b int primary key); create policy p on a using (b = 1); create policy q on a using (b = 2);`)
	before, version := Dump(s), s.Version
	next, changes := mustCompile(t, s, `alter table a enable row level security; drop policy p on a; create policy r on a using (true);
		create policy s on a using (true); drop table a; create table a (c text);`)
	if Dump(s) != before || s.Version != version {
		t.Errorf("the given schema changed:\n%s", Dump(s))
	}
	if next.Version != version+1 || len(changes) != 6 {
		t.Errorf("version %d, %d changes", next.Version, len(changes))
	}
	if drop := changes[4]; drop.Action != "drop table" || drop.Space != s.Tables[0].Space {
		t.Errorf("the dropped table's space is not reported: %+v", drop)
	}
	if space := next.Tables[0].Space; len(space) != 17 || space[0] != 't' || strings.Contains(space, "a_") {
		t.Errorf("space %q", space)
	}
	if _, _, err := compile(t, s, "create policy z on a using (true); create trigger nope after insert on a execute function f()"); err == nil {
		t.Error("accepted")
	}
	if Dump(s) != before {
		t.Error("a refused text changed the given schema")
	}
}

// TestChunks: a long text is parsed in pieces; positions are those of the whole.
func TestChunks(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range 200 {
		b.WriteString("-- ☃ " + strings.Repeat("x", 1_000) + ";\nbegin;\n\n")
		if i == 150 {
			b.WriteString("create table a (b text default ';" + strings.Repeat("y", 3*chunk) + "');\n")
		}
	}
	good := b.String()
	s, changes := mustCompile(t, nil, good)
	if len(s.Tables) != 1 || len(changes) != 1 || len(*s.Tables[0].Columns[0].Default.Value) != 3*chunk+1 {
		t.Fatalf("%d tables, %d changes", len(s.Tables), len(changes))
	}
	for bad, want := range map[string]string{
		"  create trigger x after insert on a execute function f();": "CREATE TRIGGER is not supported (line 602, column 3)",
		"  'é' create": `syntax error at or near "'é'" (line 602, column 3)`,
		"create policy p on a using (b = 'x' and nope)": `column "nope" does not exist (line 602, column 41)`,
	} {
		_, _, err := compile(t, nil, good+bad)
		at, ok := PositionOf(err)
		if err == nil || err.Error() != want || !ok || at.Offset != len(good)+at.Column-1 {
			t.Errorf("got %v at %+v, want %s", err, at, want)
		}
	}
}

func TestRandomFails(t *testing.T) {
	t.Parallel()
	if _, _, err := shared().Compile(t.Context(), nil, "create table a (b int)", strings.NewReader("short")); err == nil {
		t.Error("accepted without randomness")
	}
}

func TestContextEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := shared().Compile(ctx, nil, "create table a (b int)", names()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestLimits are texts that must be refused with a code, and must leave the parser fit for the next text.
func TestLimits(t *testing.T) {
	t.Parallel()
	const head = "create table t (i int, b bool); create policy p on t using ("
	for name, c := range map[string]struct{ sql, code string }{
		"text":           {strings.Repeat(" ", MaxText+1), codeLimit},
		"zero byte":      {"create table a (b int); \x00 drop table a", "22021"},
		"not UTF-8":      {"create table a (b text default '\xff')", "22021"},
		"parentheses":    {head + strings.Repeat("(", 10_000) + "true" + strings.Repeat(")", 10_000) + ")", codeTooComplex},
		"1 MiB of (":     {strings.Repeat("(", MaxText), codeTooComplex},
		"1 MiB of +":     {head + strings.Repeat("i+", MaxText/2-100) + "i = 1)", codeTooComplex},
		"1 MiB of or":    {head + strings.Repeat("b or ", MaxText/5-100) + "b)", codeTooComplex},
		"1 MiB of not":   {head + strings.Repeat("not ", MaxText/4-100) + "b)", codeTooComplex},
		"1 MiB of casts": {head + "b" + strings.Repeat("::bool", MaxText/6-100) + ")", codeTooComplex},
		"5,000 +":        {head + strings.Repeat("i+", 5_000) + "i = 1)", codeTooComplex},
		"4,000 not":      {head + strings.Repeat("not ", 4_000) + "b)", codeTooComplex},
		"300 not":        {head + strings.Repeat("not ", 300) + "b)", codeTooComplex},
		"4,000 -":        {head + strings.Repeat("- ", 4_000) + "i = 1)", codeTooComplex},
		"4,000 casts":    {head + "b" + strings.Repeat("::bool", 3_000) + ")", codeTooComplex},
		"4,000 is null":  {head + "b" + strings.Repeat(" is null", 4_000) + ")", codeTooComplex},
		"4,000 unions":   {"select 1" + strings.Repeat(" union select 1", 2_000), codeTooComplex},
		"4,000 joins":    {"select 1 from a" + strings.Repeat(" cross join a", 2_000), codeTooComplex},
		"900 -":          {head + strings.Repeat("- ", 900) + "i = 1)", codeTooComplex},
		"150 not":        {head + strings.Repeat("not ", 150) + "b)", codeTooComplex},
		"490 +":          {head + strings.Repeat("i+", 480) + "i = 1)", codeTooComplex},
		"900 is null":    {head + "b" + strings.Repeat(" isnull", 900) + ")", codeTooComplex},
		"nested chains":  {head + strings.Repeat("(- - - - ", 350) + "i" + strings.Repeat(")", 350) + " = 1)", codeTooComplex},
		"between":        {head + strings.Repeat("(", 40) + "b" + strings.Repeat(" between false and true)", 40) + ")", codeTooComplex},
		"statements":     {strings.Repeat("begin;", MaxStatements+1), codeLimit},
		"columns":        {"create table t (" + strings.Repeat("a text,", MaxColumns+10) + "b int)", codeDupColumn},
		"tables":         {manyTables(MaxTables + 1), codeLimit},
		"JSON":           {"create table t (j jsonb default '" + strings.Repeat("[", 300) + strings.Repeat("]", 300) + "')", codeBadText},
		"unclosed quote": {"select '" + strings.Repeat("x", 100_000), codeSyntax},
		"policies": {"create table t (b bool);" + func() string {
			var b strings.Builder
			for i := range MaxPolicies + 1 {
				b.WriteString("create policy p" + string(rune('a'+i/10)) + string(rune('a'+i%10)) + " on t using (b);")
			}
			return b.String()
		}(), codeLimit},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := compile(t, nil, c.sql)
			se, ok := errors.AsType[*storage.Error](err)
			if !ok || se.Code != c.code {
				t.Fatalf("got %.300v, want %s", err, c.code)
			}
			if len(se.Message) > 400 {
				t.Errorf("the message has %d bytes", len(se.Message))
			}
			mustCompile(t, nil, "create table a (b int)")
		})
	}
}

func manyTables(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("create table t" + string(rune('a'+i/100)) + string(rune('a'+i/10%10)) + string(rune('a'+i%10)) + " (a int);")
	}
	return b.String()
}

// TestTrapStopsParser: after a trap the parser's memory is not to be trusted; it must refuse, not misread.
func TestTrapStopsParser(t *testing.T) {
	t.Parallel()
	p := NewParser()
	p.parse = func(string) ([]byte, error) { panic("wasm error: unreachable") }
	for range 2 {
		_, _, err := p.Compile(t.Context(), nil, "create table a (b int)", names())
		if storage.FaultOf(err) != storage.Unavailable {
			t.Fatalf("got %v", err)
		}
		p.parse = func(string) ([]byte, error) {
			t.Error("the parser was used again")
			return nil, nil
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, pattern := range []string{"testdata/*.sql", "testdata/refused/*.sql"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(text))
		}
	}
	// Compiling the WebAssembly takes longer under the fuzzer than one input may.
	if _, err := shared().Parse(f.Context(), "begin"); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		s, _, err := compile(t, nil, sql)
		switch {
		case err == nil:
			checkRoundTrip(t, s)
			checkStored(t, s)
		case storage.FaultOf(err) == storage.Internal || storage.FaultOf(err) == storage.Unavailable:
			t.Errorf("got %v", err)
		}
	})
}
