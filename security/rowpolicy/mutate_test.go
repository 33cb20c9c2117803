package rowpolicy

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bulwark/storage"
)

// TestMutations puts words of the test files into other places. Whatever comes of it is refused as bad input, or compiles
// to what package table takes and Dump can write.
func TestMutations(t *testing.T) {
	t.Parallel()
	var texts [][]string
	var all []string
	for _, pattern := range []string{"testdata/*.sql", "testdata/refused/*.sql"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var tokens []string
			for s := string(b); s != ""; {
				n, _ := token(s)
				tokens = append(tokens, s[:n])
				s = s[n:]
			}
			texts, all = append(texts, tokens), append(all, tokens...)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		tokens := slices.Clone(texts[r.IntN(len(texts))])
		for range 1 + r.IntN(4) {
			at, other := r.IntN(len(tokens)), r.IntN(len(tokens))
			switch r.IntN(3) {
			case 0:
				tokens[at] = all[r.IntN(len(all))]
			case 1:
				tokens = slices.Insert(tokens, at, " "+all[r.IntN(len(all))]+" ")
			case 2:
				tokens[at], tokens[other] = tokens[other], tokens[at]
			}
		}
		sql := strings.Join(tokens, "")
		s, _, err := compile(t, nil, sql)
		if err == nil {
			checkRoundTrip(t, s)
			checkStored(t, s)
		} else if storage.FaultOf(err) != storage.BadInput {
			t.Errorf("got %v", err)
		}
		if t.Failed() {
			t.Fatalf("the text was:\n%s", sql)
		}
	}
}
