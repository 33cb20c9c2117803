package rowpolicy

import (
	"strings"
	"testing"

	"bulwark/storage"
	"bulwark/storage/storagetest"
	"bulwark/storage/table"
)

// TestScan holds the scanner to PostgreSQL's in what can hide words from it: what it would take for a string or comment,
// the parser would still read.
func TestScan(t *testing.T) {
	t.Parallel()
	chain := strings.Repeat("- ", 4_000) + "1"
	for name, sql := range map[string]string{
		"escape":             `select E'\\', ` + chain,
		"escaped quote":      `select E'\' ', ` + chain + ` --'`,
		"continued escape":   "select E'a'\n 'b\\' ', " + chain + " --'",
		"continued, comment": "select E'a' -- x\n 'b\\' ', " + chain + " --'",
		"plain backslash":    `select '\', ` + chain,
		"doubled":            `select '''', """", ` + chain,
		"dollar":             "select $a$ $b$ $a$, " + chain,
		"dollar in a name":   "select a$b$, " + chain + " as b$b$",
		"dollar after digit": "select 1$a$ x$a$, " + chain + " as z$a$",
		"parameter":          "select $1$a$ $1$a$, " + chain + " --$1$",
		"nested comment":     "select /* /* */ ' */ " + chain,
		"line comment":       "select 1 -- '\r, " + chain,
		"operator comment":   "select 1 +-- '\n " + chain,
		"unicode escape":     `select U&'\', ` + chain,
		"semicolon":          "select (1; " + chain,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := scan(sql, 10); err == nil {
				t.Error("the chain was not seen")
			}
		})
	}
}

// TestScanHides: words in strings and comments do not count.
func TestScanHides(t *testing.T) {
	t.Parallel()
	chain := strings.Repeat("- ", 4_000)
	for _, sql := range []string{
		"select '" + chain + "'", "select E'\\'" + chain + "'", "select $$" + chain + "$$", "select $a$" + chain + "$b$ $a$",
		"select 1 -- " + chain, "select /* /* */ " + chain + " */ 1", `select "` + chain + `"`, "select E'a'\n'\\'" + chain + "'",
		"select 1" + strings.Repeat(", - 1", 4_000), "select f" + strings.Repeat("(1", 150) + strings.Repeat(")", 150),
	} {
		if _, err := scan(sql, 10); err != nil {
			t.Errorf("%.40s: %v", sql, err)
		}
	}
}

// checkStored holds that package table takes what this package made.
func checkStored(t *testing.T, s *table.Schema) {
	t.Helper()
	if len(s.Tables) == 0 {
		return
	}
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	by := storage.OperatorActor(w.Tenant, w.Project, storage.ID{}, "test", storage.Origin{})
	err := w.DB.Update(t.Context(), by, storage.Intent{Action: "schema.apply"}, func(tx storage.Tx) error {
		return table.SaveSchema(tx, s)
	})
	if err != nil {
		t.Errorf("package table refuses what was compiled: %v\n%s", err, Dump(s))
	}
}
