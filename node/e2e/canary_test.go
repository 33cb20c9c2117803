//go:build e2e

package e2e

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/zstd"
)

// A canary is a word that was typed into one field of one request.
type canary struct{ field, word string }

type canaries struct{ all []canary }

// word makes the canary of a field: a word of its own that occurs nowhere else.
func (c *canaries) word(field string) string {
	w := fmt.Sprintf("canary%02dx%s", len(c.all), strings.Repeat("quux", 2))
	c.all = append(c.all, canary{field, w})
	return w
}

// secret adds a value that the node made and that may be in no file either.
func (c *canaries) secret(field, value string) { c.all = append(c.all, canary{field, value}) }

// TestCanary types a canary into every field of every kind of request, and then reads every byte of the data folder, raw
// and after undoing any compression.
func TestCanary(t *testing.T) {
	var c canaries
	data := filepath.Join(t.TempDir(), "data")
	p := serve(t, data)
	c.type1(t, p)
	p.stop(t)
	p = p.again(t) // the log is replayed, and everything written once more
	c.type2(t, p)
	p.stop(t)
	search(t, data, c.all)
	plantedIsFound(t, c.all)
}

// type1 types into the console's commands and the clients' requests.
func (c *canaries) type1(t *testing.T, p *process) {
	t.Helper()
	c.secret("publishable key", p.PublishableKey)
	c.secret("secret key", p.SecretKey)
	cli := func(args ...string) string {
		t.Helper()
		out, errs, code := run(t, append(args, "--data", p.Data)...)
		if code != 0 {
			t.Fatalf("%v: exit code %d\n%s%s", args, code, out, errs)
		}
		return out
	}
	tenant, project, key := c.word("tenant name"), c.word("project name"), c.word("API key name")
	cli("tenant", "create", tenant)
	cli("project", "create", project, "--tenant", tenant)
	ref := p.URL[strings.LastIndex(p.URL, "/")+1:]
	cli("apikey", "create", "-p", ref, "--kind", "secret", "--name", key)
	table, column, policy := c.word("table"), c.word("column"), c.word("policy")
	sql := fmt.Sprintf(`create table %s (id uuid primary key default gen_random_uuid(), owner uuid default auth.uid(), %s text default '%s', %s jsonb);
alter table %[1]s enable row level security;
create policy %[5]s on %[1]s for all to authenticated using (owner = auth.uid() and %[2]s <> '%[6]s') with check (owner = auth.uid());`,
		table, column, c.word("column default"), c.word("column of json"), policy, c.word("policy literal"))
	file := filepath.Join(t.TempDir(), c.word("file name")+".sql")
	if err := os.WriteFile(file, []byte(sql), 0o600); err != nil {
		t.Fatal(err)
	}
	cli("sql", "apply", "-p", ref, file)

	email := c.word("e-mail, local part") + "@" + c.word("e-mail, domain") + ".example"
	pass := c.word("password")
	c.expect(t, p, http.StatusOK, "POST", "/auth/v1/signup?redirect_to="+c.word("query"), "", map[string]any{
		"email": email, "password": pass, "data": map[string]any{c.word("metadata key"): c.word("metadata value")},
		c.word("unknown field"): c.word("unknown value"),
	}, "User-Agent", c.word("user agent"), "X-Client-Info", c.word("client info"))
	body := c.expect(t, p, http.StatusOK, "POST", "/auth/v1/token?grant_type=password", "", map[string]any{"email": email, "password": pass})
	token, refresh := field(t, body, "access_token"), field(t, body, "refresh_token")
	c.secret("access token", token)
	c.secret("refresh token", refresh)
	c.expect(t, p, http.StatusBadRequest, "POST", "/auth/v1/token?grant_type=password", "", map[string]any{
		"email": c.word("unknown e-mail") + "@example.com", "password": c.word("wrong password")})
	c.expect(t, p, http.StatusBadRequest, "POST", "/auth/v1/token?grant_type=refresh_token", "", map[string]any{"refresh_token": c.word("wrong refresh token")})

	for range 20 { // enough for the background commit, the index and a split of pages
		c.expect(t, p, http.StatusCreated, "POST", "/rest/v1/"+table, token, map[string]any{column: c.word("row value")})
	}
	c.expect(t, p, http.StatusCreated, "POST", "/rest/v1/notes", token, map[string]any{"body": c.word("note body")})
	c.expect(t, p, http.StatusOK, "GET", "/rest/v1/notes?body=eq."+c.word("filter value")+"&order=body.desc", token, nil)
	c.expect(t, p, http.StatusNoContent, "PATCH", "/rest/v1/notes?body=neq."+c.word("filter of an update"), token, map[string]any{"body": c.word("updated body")})
	c.expect(t, p, http.StatusNotFound, "GET", "/rest/v1/"+c.word("unknown table"), token, nil)
	c.expect(t, p, http.StatusBadRequest, "POST", "/rest/v1/notes", token, map[string]any{c.word("unknown column"): 1})
	c.expect(t, p, http.StatusForbidden, "POST", "/rest/v1/notes", token, map[string]any{
		"user_id": "00000000-0000-4000-8000-000000000001", "body": c.word("refused body")})
	c.expect(t, p, http.StatusUnauthorized, "GET", "/rest/v1/notes", "", nil, "apikey", "sb_secret_"+c.word("unknown key"))
	c.expect(t, p, http.StatusUnauthorized, "GET", "/rest/v1/notes", c.word("malformed token"), nil)
	c.expect(t, p, http.StatusNoContent, "DELETE", "/rest/v1/notes?body=eq."+c.word("filter of a delete"), token, nil)
	cli("audit", "search", "--tenant", "demo", c.word("search text"))
	_, _, code := run(t, "sql", "apply", "-p", ref, "--data", p.Data, filepath.Join(t.TempDir(), c.word("missing file")))
	if code == 0 {
		t.Error("applying a file that is not there succeeded")
	}
}

func (c *canaries) type2(t *testing.T, p *process) {
	t.Helper()
	s := p.signUp(t, c.word("second e-mail")+"@example.com")
	c.expect(t, p, http.StatusNoContent, "POST", "/auth/v1/logout?scope=global", s.AccessToken, map[string]any{})
}

func (c *canaries) expect(t *testing.T, p *process, want int, method, path, token string, body any, header ...string) []byte {
	t.Helper()
	status, b, err := p.do(t.Context(), method, path, token, body, header...)
	if err != nil || status != want {
		t.Errorf("%s %s: %d, %v; want %d\n%s", method, path, status, err, want, b)
	}
	return b
}

func field(t *testing.T, b []byte, name string) string {
	t.Helper()
	_, rest, ok := bytes.Cut(b, []byte(`"`+name+`":"`))
	if !ok {
		t.Fatalf("no %s in %s", name, b)
	}
	v, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(v)
}

// search looks for every canary in every file of a folder.
func search(t *testing.T, folder string, all []canary) {
	t.Helper()
	files, total := 0, 0
	for path, b := range contents(t, folder) {
		files++
		total += len(b)
		for _, hit := range hits(b, all) {
			t.Errorf("%s holds %s", path, hit)
		}
		for _, c := range all {
			if strings.Contains(path, c.word) {
				t.Errorf("the name %s holds the %s", path, c.field)
			}
		}
	}
	if files < 4 || total == 0 {
		t.Errorf("only %d files with %d bytes were searched", files, total)
	}
	t.Logf("%d canaries in no one of %d files, %d bytes", len(all), files, total)
}

// plantedIsFound shows that the search would have found something: each form of a canary, written into a copy of a file.
func plantedIsFound(t *testing.T, all []canary) {
	t.Helper()
	word := []byte(all[len(all)/2].word)
	var zs, zl, gz, fl bytes.Buffer
	w, err := zstd.NewWriter(&zs)
	if err != nil {
		t.Fatal(err)
	}
	fw, err := flate.NewWriter(&fl, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []io.WriteCloser{w, zlib.NewWriter(&zl), gzip.NewWriter(&gz), fw} {
		if _, err := w.Write(bytes.Repeat(word, 3)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for form, planted := range map[string][]byte{
		"raw": word, "base64": []byte(base64.StdEncoding.EncodeToString(append([]byte("x"), word...))), "hex": []byte(hex.EncodeToString(word)),
		"UTF-16": utf16of(string(word)), "zstd": zs.Bytes(), "zlib": zl.Bytes(), "gzip": gz.Bytes(), "snappy": snappy.Encode(nil, bytes.Repeat(word, 3)),
	} {
		around := slices.Concat(bytes.Repeat([]byte{7}, 100), planted, bytes.Repeat([]byte{9}, 100))
		if len(hits(around, all)) == 0 {
			t.Errorf("a canary planted as %s is not found", form)
		}
	}
}

// hits says which canaries are in b, in which form.
func hits(b []byte, all []canary) (found []string) {
	for _, c := range all {
		for form, pattern := range forms(c.word) {
			if bytes.Contains(b, pattern) {
				found = append(found, fmt.Sprintf("the %s, as %s", c.field, form))
			}
		}
	}
	for how, plain := range inflated(b) {
		for _, c := range all {
			if bytes.Contains(plain, []byte(c.word)) {
				found = append(found, fmt.Sprintf("the %s, in %s", c.field, how))
			}
		}
	}
	return found
}

func forms(word string) map[string][]byte {
	out := map[string][]byte{
		"text": []byte(word), "hexadecimal": []byte(hex.EncodeToString([]byte(word))), "UTF-16": utf16of(word),
		"upper case": []byte(strings.ToUpper(word)),
	}
	for shift := range 3 { // base64 looks different at each of three alignments; its middle does not depend on the neighbours
		e := base64.RawStdEncoding.EncodeToString(append(make([]byte, shift), word...))
		out[fmt.Sprint("base64, shifted by ", shift)] = []byte(e[4 : len(e)-4])
	}
	return out
}

func utf16of(s string) (b []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return b
}

// inflateLimit bounds what one compressed run is undone to.
const inflateLimit = 1 << 20

// inflated undoes whatever starts like a compressed run, at every offset.
func inflated(b []byte) map[string][]byte {
	out := map[string][]byte{}
	keep := func(how string, at int, plain []byte) {
		if len(plain) > 8 {
			out[fmt.Sprintf("%s at %d", how, at)] = plain
		}
	}
	limited := func(r io.Reader) []byte {
		plain, _ := io.ReadAll(io.LimitReader(r, inflateLimit)) // a cut run is as good as a whole one
		return plain
	}
	for i := range b {
		if i > 0 && b[i] == 0 && b[i-1] == 0 {
			continue // inside a run of zeros nothing starts
		}
		rest := b[i:min(len(b), i+(64<<10))]
		switch {
		case bytes.HasPrefix(rest, []byte{0x28, 0xb5, 0x2f, 0xfd}):
			if r, err := zstd.NewReader(bytes.NewReader(rest), zstd.WithDecoderConcurrency(1)); err == nil {
				keep("zstd", i, limited(r))
				r.Close()
			}
		case bytes.HasPrefix(rest, []byte{0x1f, 0x8b, 8}):
			if r, err := gzip.NewReader(bytes.NewReader(rest)); err == nil {
				keep("gzip", i, limited(r))
			}
		case len(rest) > 2 && rest[0]&0x0f == 8 && (int(rest[0])<<8|int(rest[1]))%31 == 0:
			if r, err := zlib.NewReader(bytes.NewReader(rest)); err == nil {
				keep("zlib", i, limited(r))
			}
		}
		// A snappy block says its length, and begins with a literal.
		if n, err := snappy.DecodedLen(rest); err == nil && n >= 16 && n <= 64<<10 && snappyStart(rest) {
			if plain := snappyPrefix(rest, n); len(plain) > 8 {
				keep("snappy", i, plain)
			}
		}
	}
	return out
}

// snappyStart reports whether the tag after the length is a literal's.
func snappyStart(b []byte) bool {
	for i := range min(len(b), 4) {
		if b[i] < 0x80 {
			return i+1 < len(b) && b[i+1]&3 == 0
		}
	}
	return false
}

// snappyPrefix decodes a block of n plain bytes whose compressed length is not known, as far as it goes.
func snappyPrefix(b []byte, n int) []byte {
	i := 1
	for b[i-1] >= 0x80 {
		i++
	}
	var out []byte
	for i < len(b) && len(out) < n {
		tag := b[i]
		i++
		var length, offset int
		switch tag & 3 {
		case 0:
			length = int(tag>>2) + 1
			if extra := length - 60; extra > 0 {
				if i+extra > len(b) {
					return out
				}
				length = 0
				for k := range extra {
					length |= int(b[i+k]) << (8 * k)
				}
				length++
				i += extra
			}
			if length <= 0 || i+length > len(b) || len(out)+length > n {
				return out
			}
			out = append(out, b[i:i+length]...)
			i += length
			continue
		case 1:
			if i >= len(b) {
				return out
			}
			length, offset = int(tag>>2&7)+4, int(tag>>5)<<8|int(b[i])
			i++
		case 2:
			if i+2 > len(b) {
				return out
			}
			length, offset = int(tag>>2)+1, int(b[i])|int(b[i+1])<<8
			i += 2
		default:
			return out
		}
		if offset == 0 || offset > len(out) || len(out)+length > n {
			return out
		}
		for range length {
			out = append(out, out[len(out)-offset])
		}
	}
	return out
}

// contents reads every regular file of a folder.
func contents(t *testing.T, folder string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		out[path] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
