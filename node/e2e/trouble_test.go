//go:build e2e

package e2e

import (
	"bytes"
	"crypto/sha256"
	bin "encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	bbolt "go.etcd.io/bbolt"
)

// A folder is a data folder and the key file that opens it.
type folder struct{ data, key string }

// copyOf copies a folder, so that one test can damage it.
func copyOf(t testing.TB, from folder) folder {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	to := folder{data, data + ".key"}
	copyTree(t, from.data, to.data)
	b, err := os.ReadFile(from.key)
	if err == nil {
		err = os.WriteFile(to.key, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// copyTree copies the regular files of a folder, with their modes.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), info.Mode().Perm())
		case info.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(to, rel), b, info.Mode().Perm())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// state is all that is in a folder and beside it: names, modes, sizes, and what is in the files. A folder that is not there
// has none.
func state(t testing.TB, data string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(filepath.Dir(data), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		out[path] = info.Mode().String()
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(b)
			out[path] += fmt.Sprintf(" %d bytes %s", len(b), hex.EncodeToString(sum[:8]))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// changed says what differs between two states.
func changed(before, after map[string]string) (out []string) {
	for path, was := range before {
		switch is, ok := after[path]; {
		case !ok:
			out = append(out, path+" is gone")
		case is != was:
			out = append(out, path+" was "+was+" and is "+is)
		}
	}
	for path := range after {
		if _, ok := before[path]; !ok {
			out = append(out, path+" is new")
		}
	}
	slices.Sort(out)
	return out
}

// refused starts a node that must not start, and expects what the package promises: an exit code, one line that says what is
// wrong and what to do (with --json one object), and not one byte changed.
func refused(t testing.TB, data, want string, args ...string) {
	t.Helper()
	before := state(t, data)
	for _, format := range []string{"", "--json"} {
		args := append([]string{"serve", "--data", data, "--listen", "localhost:0", "--cluster-listen", "localhost:0"}, args...)
		if format != "" {
			args = append(args, format)
		}
		out, errs, code := runFor(t, 15*time.Second, args...)
		if code < 1 || code > 6 {
			t.Errorf("exit code %d\n%s%s", code, out, errs)
		}
		if out != "" {
			t.Errorf("it said on standard output: %s", out)
		}
		line := oneLine(t, errs)
		if format != "" {
			var e struct {
				Code, Message string
				Exit          int `json:"exit_code"`
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil || e.Code == "" || e.Exit != code {
				t.Errorf("with --json it said %q: %v", line, err)
			}
			line = "bulwark: " + e.Message
		}
		if !strings.HasPrefix(line, "bulwark: ") || !regexp.MustCompile(want).MatchString(line) {
			t.Errorf("it said %q, which is not like %q", line, want)
		}
		if diff := changed(before, state(t, data)); len(diff) > 0 {
			t.Errorf("it changed the folder:\n%s", strings.Join(diff, "\n"))
		}
	}
}

// oneLine returns the only line that is not of the log.
func oneLine(t testing.TB, errs string) string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(errs) {
		if !strings.HasPrefix(line, "time=") {
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
	}
	if len(lines) != 1 {
		t.Errorf("it said %d lines and not one:\n%s", len(lines), errs)
		return ""
	}
	return lines[0]
}

// runFor is run for a command that may not take longer than a time.
func runFor(t testing.TB, most time.Duration, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(binary(t), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(most, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// filled makes a data folder with a few hundred rows, and stops its node.
func filled(t testing.TB) (folder, *process, session) {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	p := serve(t, data)
	who := p.signUp(t, "somebody@example.com")
	p.insert(t, who, 300)
	p.stop(t)
	return folder{data, data + ".key"}, p, who
}

// insert inserts rows of a kilobyte in one request.
func (p *process) insert(t testing.TB, who session, n int) {
	t.Helper()
	rows := make([]map[string]string, n)
	for i := range rows {
		rows[i] = map[string]string{"body": filler(i)}
	}
	if status, b, err := p.do(t.Context(), "POST", "/rest/v1/notes", who.AccessToken, rows); err != nil || status != http.StatusCreated {
		t.Fatalf("inserting %d rows: %d %s %v", n, status, b, err)
	}
}

// TestRefusedStart starts nodes that must not start.
func TestRefusedStart(t *testing.T) {
	good, p, _ := filled(t)
	other, _, _ := filled(t)
	crashed := crashedFolder(t, good, p)
	cases := []struct {
		name    string
		from    folder
		prepare func(t *testing.T, f folder) (args []string)
		want    string
	}{
		{"wrong root key", good, func(t *testing.T, f folder) []string {
			replace(t, f.key, other.key)
			return nil
		}, `key.*(cluster|right)`},
		{"damaged root key", good, func(t *testing.T, f folder) []string {
			write(t, f.key, []byte("nonsense\n"))
			return nil
		}, `key`},
		{"no root key", good, func(t *testing.T, f folder) []string {
			// The header names the first folder's file, which must not serve a copy that has lost its own.
			b := bytes.ReplaceAll(read(t, filepath.Join(f.data, "seal.json")), []byte(good.key), []byte(f.key+"x"))
			write(t, filepath.Join(f.data, "seal.json"), resum(t, b))
			remove(t, f.key)
			return nil
		}, `key file .* is not there: put it back`},
		{"root key for others to read", good, func(t *testing.T, f folder) []string {
			if err := os.Chmod(f.key, 0o644); err != nil {
				t.Fatal(err)
			}
			return nil
		}, `can be read by others .*chmod 600`},
		{"root key inside the folder", good, func(t *testing.T, f folder) []string {
			return []string{"--key-file", filepath.Join(f.data, "key")}
		}, `inside the data folder.*put it elsewhere`},
		{"seal of a newer format", good, func(t *testing.T, f folder) []string {
			edit(t, filepath.Join(f.data, "seal.json"), `"format": 1`, `"format": 2`)
			return nil
		}, `seal.json has format 2.*newer`},
		{"damaged seal", good, func(t *testing.T, f folder) []string {
			flip(t, filepath.Join(f.data, "seal.json"), 60)
			return nil
		}, `seal.json is damaged`},
		{"empty seal", good, func(t *testing.T, f folder) []string {
			write(t, filepath.Join(f.data, "seal.json"), nil)
			return nil
		}, `seal.json is damaged`},
		{"no seal", good, func(t *testing.T, f folder) []string {
			remove(t, filepath.Join(f.data, "seal.json"))
			return nil
		}, `not empty and holds no cluster`},
		{"another cluster's seal", good, func(t *testing.T, f folder) []string {
			replace(t, filepath.Join(f.data, "seal.json"), filepath.Join(other.data, "seal.json"))
			replace(t, f.key, other.key)
			return nil
		}, `belongs to another cluster`},
		{"another cluster's database", good, func(t *testing.T, f folder) []string {
			replace(t, filepath.Join(f.data, "state.db"), filepath.Join(other.data, "state.db"))
			return nil
		}, `state.db belongs to another cluster`},
		{"another cluster's log", good, func(t *testing.T, f folder) []string {
			removeAll(t, filepath.Join(f.data, "log"))
			copyTree(t, filepath.Join(other.data, "log"), filepath.Join(f.data, "log"))
			return nil
		}, `log .* belongs to another cluster`},
		{"no database", good, func(t *testing.T, f folder) []string {
			remove(t, filepath.Join(f.data, "state.db"))
			return nil
		}, `database .* (missing|not there)`},
		{"no log", good, func(t *testing.T, f folder) []string {
			removeAll(t, filepath.Join(f.data, "log"))
			return nil
		}, `log .* missing.*restore`},
		{"no identity of the log", good, func(t *testing.T, f folder) []string {
			remove(t, filepath.Join(f.data, "log", "identity"))
			return nil
		}, `log.*restore`},
		{"no contents of the log", good, func(t *testing.T, f folder) []string {
			remove(t, filepath.Join(f.data, "log", "contents"))
			return nil
		}, `no table of contents.*restore`},
		{"no segment of the log", crashed, func(t *testing.T, f folder) []string {
			remove(t, segmentOf(t, f))
			return nil
		}, `log .*damaged: restore`},
		{"database of a newer format", good, func(t *testing.T, f folder) []string {
			newerDatabase(t, filepath.Join(f.data, "state.db"))
			return nil
		}, `written by a newer Bulwark.*upgrade this node`},
		{"identity of a newer format", good, newerSmall("identity"), `later version of bulwark: run that version`},
		{"contents of a newer format", good, newerSmall("contents"), `later version of bulwark: run that version`},
		{"mark of a newer format", good, newerSmall("mark"), `later version of bulwark: run that version`},
		{"damaged identity", good, flipAt("log/identity", 40), `identity: it is damaged: restore`},
		{"damaged contents", good, flipAt("log/contents", 40), `contents: it is damaged: restore`},
		{"damaged mark", good, flipAt("log/mark", 40), `mark: it is damaged: restore`},
		{"entry of a newer format", crashed, func(t *testing.T, f folder) []string {
			newerEntry(t, f)
			return nil
		}, `newer`},
		{"damaged entry, not yet in the database", crashed, func(t *testing.T, f folder) []string {
			frames := unpersisted(t, f)
			flip(t, segmentOf(t, f), frames[0].at+frames[0].size/2)
			return nil
		}, `log.*damaged`},
		{"damaged entry before the mark", good, func(t *testing.T, f folder) []string {
			frames := framesOf(t, f)
			flip(t, segmentOf(t, f), frames[len(frames)/2].at+60)
			return nil
		}, `log.*damaged`},
		{"first meta page", good, flipAt("state.db", 20), `state.db: it is damaged: restore.*meta page`},
		{"second meta page", good, flipAt("state.db", 16<<10+60), `state.db: it is damaged: restore.*meta page`},
		{"a branch page", good, damagedPage("branch", func(b []byte) { b[8] ^= 0x40 }), `state.db: it is damaged`},
		{"a leaf page", good, damagedPage("leaf", func(b []byte) { b[16] ^= 0x40 }), `state.db: it is damaged`},
		{"a page of zeros", good, damagedPage("leaf", func(b []byte) { clear(b) }), `state.db: it is damaged`},
		{"a branch of zeros", good, damagedPage("branch", func(b []byte) { clear(b) }), `state.db: it is damaged`},
		{"a page torn in half", good, damagedPage("leaf", func(b []byte) { clear(b[len(b)/2:]) }), `state.db: it is damaged`},
		{"a database cut short", good, cut("state.db", 64<<10), `state.db: it is damaged`},
		{"a database cut within a page", good, cut("state.db", 20<<10), `state.db: it is damaged`},
		{"an empty database", good, cut("state.db", 0), `state.db: it is damaged`},
		{"a port in use", good, func(t *testing.T, f folder) []string {
			return []string{"--listen", busy(t)}
		}, `listening on .*in use.*--listen`},
		{"a cluster port in use", good, func(t *testing.T, f folder) []string {
			return []string{"--cluster-listen", busy(t)}
		}, `listening on .*in use.*--cluster-listen`},
		{"a folder that is a file", folder{}, func(t *testing.T, f folder) []string {
			write(t, f.data, []byte("not a folder"))
			return nil
		}, `data`},
		{"a folder of something else", folder{}, func(t *testing.T, f folder) []string {
			mkdir(t, f.data)
			write(t, filepath.Join(f.data, "thesis.txt"), []byte("mine"))
			return nil
		}, `not empty and holds no cluster`},
		{"a key file that is there already", folder{}, func(t *testing.T, f folder) []string {
			write(t, f.key, []byte("the key to something"))
			return nil
		}, `exists already`},
		{"a new folder and a port in use", folder{}, func(t *testing.T, f folder) []string {
			return []string{"--listen", busy(t)}
		}, `in use`},
		{"a new folder and a seal that asks", folder{}, func(*testing.T, folder) []string {
			return []string{"--seal", "shamir"}
		}, `operator init`},
		{"an unknown setting", folder{}, func(t *testing.T, f folder) []string {
			file := filepath.Join(t.TempDir(), "bulwark.toml")
			write(t, file, []byte("listn = \"localhost:1\"\n"))
			return []string{"--config", file}
		}, `unknown setting "listn": did you mean listen`},
		{"a value that cannot work", folder{}, func(t *testing.T, f folder) []string {
			return []string{"--request-timeout", "-1s"}
		}, `request-timeout: .*not between`},
		{"a value that is no number", folder{}, func(t *testing.T, f folder) []string {
			return []string{"--max-connections", "many"}
		}, `max-connections: must be a whole number`},
		{"a configuration that is not there", folder{}, func(t *testing.T, f folder) []string {
			return []string{"--config", f.data + ".toml"}
		}, `no such file`},
		{"an unknown flag", folder{}, func(*testing.T, folder) []string {
			return []string{"--lissen", "x"}
		}, `unknown flag: --lissen`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var f folder
			if c.from.data == "" {
				data := filepath.Join(t.TempDir(), "data")
				f = folder{data, data + ".key"}
			} else {
				f = copyOf(t, c.from)
			}
			refused(t, f.data, c.want, c.prepare(t, f)...)
		})
	}
}

// TestCopyStarts shows that what TestRefusedStart damages would start without the damage, and keeps its rows.
func TestCopyStarts(t *testing.T) {
	t.Parallel()
	good, p, who := filled(t)
	crashed := crashedFolder(t, good, p)
	for _, f := range []folder{copyOf(t, good), copyOf(t, crashed)} {
		q := serve(t, f.data, "--listen", p.listen)
		if n := q.count(t, who); n < 300 {
			t.Errorf("there are %d rows", n)
		}
		q.stop(t)
	}
}

// count asks how many rows there are.
func (p *process) count(t testing.TB, who session) int {
	t.Helper()
	total := 0
	for {
		status, b, err := p.do(t.Context(), "GET", fmt.Sprintf("/rest/v1/notes?select=id&order=id&limit=1000&offset=%d", total), who.AccessToken, nil)
		if err != nil || status != http.StatusOK {
			t.Fatalf("counting the rows: %d %s %v", status, b, err)
		}
		var page []struct{ ID string }
		if err := json.Unmarshal(b, &page); err != nil {
			t.Fatal(err)
		}
		if total += len(page); len(page) < 1000 {
			return total
		}
	}
}

// crashedFolder is a copy of a folder whose node was killed when its log held entries that its database did not.
func crashedFolder(t testing.TB, good folder, p *process) folder {
	t.Helper()
	for range 20 {
		f := copyOf(t, good)
		q := serve(t, f.data)
		who := q.signUp(t, "hasty@example.com")
		for range 20 {
			q.insert(t, who, 1)
		}
		q.kill()
		if frames := unpersisted(t, f); len(frames) >= 3 {
			remove(t, filepath.Join(f.data, "bulwark.sock"))
			return f
		}
	}
	t.Fatal("the database was faster than the kill, twenty times")
	return folder{}
}

// A frame is one entry in a segment of the log: raft-wal's frame holds what package cluster encodes.
type frame struct {
	at, size int64 // of the entry in the file
	index    uint64
	commit   int64 // of the frame that commits it
	begin    int64 // of what that frame sums
}

// framesOf reads the newest segment of the log: a header of 32 bytes, then frames with a type, three zeros and a length, that
// begin at multiples of eight.
func framesOf(t testing.TB, f folder) []frame {
	t.Helper()
	b := read(t, segmentOf(t, f))
	var out []frame
	begin := int64(0)
	open := 0
	for at := int64(32); at+8 <= int64(len(b)); {
		size := int64(bin.LittleEndian.Uint32(b[at+4:]))
		switch b[at] {
		case 1:
			out = append(out, frame{at: at + 8, size: size, index: bin.BigEndian.Uint64(b[at+8:])})
			at += 8 + (size+7)/8*8
		case 3:
			for ; open < len(out); open++ {
				out[open].commit, out[open].begin = at, begin
			}
			at += 8
			begin = at
		default:
			return out
		}
	}
	return out
}

// unpersisted are the entries of the log that are not yet in the database.
func unpersisted(t testing.TB, f folder) []frame {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(f.data, "state.db"), 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var index uint64
	err = db.View(func(tx *bbolt.Tx) error {
		index = bin.BigEndian.Uint64(tx.Bucket([]byte("meta")).Get([]byte("index")))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(framesOf(t, f), func(e frame) bool { return e.index <= index })
}

// newerEntry makes the last entry of the log one of a format that nobody knows yet, with every checksum right.
func newerEntry(t testing.TB, f folder) {
	t.Helper()
	path := segmentOf(t, f)
	b := read(t, path)
	frames := unpersisted(t, f)
	e := frames[len(frames)-1]
	entry := b[e.at : e.at+e.size]
	extensions := int64(bin.BigEndian.Uint32(entry[33:]))
	entry[37+extensions] = 0x7f // the first byte of a batch is its format
	table := crc32.MakeTable(crc32.Castagnoli)
	bin.BigEndian.PutUint32(entry[e.size-4:], crc32.Checksum(entry[:e.size-4], table))
	bin.LittleEndian.PutUint32(b[e.commit+4:], crc32.Checksum(b[e.begin:e.commit], table))
	write(t, path, b)
}

// newerSmall raises the version of one of the log's small files: after a magic of 8 bytes and a kind of 4.
func newerSmall(name string) func(*testing.T, folder) []string {
	return func(t *testing.T, f folder) []string {
		path := filepath.Join(f.data, "log", name)
		b := read(t, path)
		bin.BigEndian.PutUint32(b[12:], 99)
		bin.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], crc32.MakeTable(crc32.Castagnoli)))
		write(t, path, b)
		return nil
	}
}

// newerDatabase writes a format that nobody knows yet into a database.
func newerDatabase(t testing.TB, path string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, NoFreelistSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("format"), bin.BigEndian.AppendUint64(nil, 99))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// damagedPage changes one page of a kind that is in use.
func damagedPage(kind string, change func([]byte)) func(*testing.T, folder) []string {
	return func(t *testing.T, f folder) []string {
		path := filepath.Join(f.data, "state.db")
		id, size := pageOf(t, path, kind)
		b := read(t, path)
		change(b[id*size:][:size])
		write(t, path, b)
		return nil
	}
}

// pageOf finds the fullest page of a kind, and the size of pages.
func pageOf(t testing.TB, path, kind string) (id, size int) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	size = db.Info().PageSize
	most := 1
	err = db.View(func(tx *bbolt.Tx) error {
		for n := range int(tx.Size()) / size {
			p, err := tx.Page(n)
			if err != nil || p == nil {
				return err
			}
			if p.Type == kind && p.Count > most {
				id, most = n, p.Count
			}
		}
		return nil
	})
	if err != nil || id == 0 {
		t.Fatalf("the database has no %s page: %v", kind, err)
	}
	return id, size
}

func cut(name string, size int64) func(*testing.T, folder) []string {
	return func(t *testing.T, f folder) []string {
		if err := os.Truncate(filepath.Join(f.data, name), size); err != nil {
			t.Fatal(err)
		}
		return nil
	}
}

func flipAt(name string, at int64) func(*testing.T, folder) []string {
	return func(t *testing.T, f folder) []string {
		flip(t, filepath.Join(f.data, filepath.FromSlash(name)), at)
		return nil
	}
}

// flip turns one bit over.
func flip(t testing.TB, path string, at int64) {
	t.Helper()
	b := read(t, path)
	b[at] ^= 1
	write(t, path, b)
}

func edit(t testing.TB, path, old, new string) {
	t.Helper()
	b := read(t, path)
	if !bytes.Contains(b, []byte(old)) {
		t.Fatalf("%s does not hold %q", path, old)
	}
	write(t, path, bytes.Replace(b, []byte(old), []byte(new), 1))
}

// busy is an address that somebody listens on.
func busy(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func segmentOf(t testing.TB, f folder) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(f.data, "log", "*.wal"))
	if err != nil || len(names) == 0 {
		t.Fatalf("the log has no segment: %v", err)
	}
	return names[len(names)-1]
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// write keeps the mode of a file that is there.
func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func replace(t testing.TB, path, by string) { t.Helper(); write(t, path, read(t, by)) }

func remove(t testing.TB, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func removeAll(t testing.TB, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t testing.TB, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

// resum gives a seal's header that was edited the checksum that it needs.
func resum(t testing.TB, header []byte) []byte {
	t.Helper()
	var h struct {
		Format   int             `json:"format"`
		Kind     string          `json:"kind"`
		Cluster  string          `json:"cluster"`
		Check    string          `json:"check"`
		Params   json.RawMessage `json:"params"`
		Checksum string          `json:"checksum"`
	}
	if err := json.Unmarshal(header, &h); err != nil {
		t.Fatal(err)
	}
	var params bytes.Buffer
	if err := json.Compact(&params, h.Params); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "bulwark seal header\n%d\n%s\n%s\n%s\n%s", h.Format, h.Kind, h.Cluster, h.Check, params.Bytes()))
	h.Checksum = hex.EncodeToString(sum[:8])
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// small mounts a file system of a size on a new folder. It needs root, as a disk that is full or read-only does.
func small(t testing.TB, bytes int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Fatalf("mounting a small disk: %v: this test must be able to mount, so run it as root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves no more than a number of bytes free on a disk, and returns the file that takes the rest.
func fill(t testing.TB, dir string, leave int64) string {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "ballast")
	// Somebody else may be faster to take the last of it.
	err := os.WriteFile(path, make([]byte, max(0, int64(st.Bavail)*int64(st.Bsize)-leave)), 0o600)
	if err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return path
}

// TestFullDiskAtStart starts nodes on disks that have no room, new and not new, and on one that can be read only.
func TestFullDiskAtStart(t *testing.T) {
	t.Parallel()
	disk := small(t, 128<<20)
	full := regexp.QuoteMeta("is full: ") + `.*free some`
	fill(t, disk, 32<<20)
	mkdir(t, filepath.Join(disk, "new"))
	refused(t, filepath.Join(disk, "new", "data"), full)
	good, _, _ := filled(t)
	copyTree(t, good.data, filepath.Join(disk, "old", "data"))
	key := read(t, good.key)
	write(t, filepath.Join(disk, "old", "data.key"), key)
	refused(t, filepath.Join(disk, "old", "data"), full)
	remove(t, filepath.Join(disk, "ballast"))
	if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	refused(t, filepath.Join(disk, "new", "data"), `read-only`)
	refused(t, filepath.Join(disk, "old", "data"), `read-only`)
}

// TestFullDisk fills the disk under a running node, first as far as a node watches for, then to the last byte.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := small(t, 192<<20)
	data := filepath.Join(disk, "data")
	p := serve(t, data)
	who := p.signUp(t, "somebody@example.com")
	p.insert(t, who, 100)
	acked := 100
	for _, leave := range []int64{40 << 20, 0} {
		ballast := fill(t, disk, leave)
		acked = p.refusesWrites(t, who, acked, "disk_full")
		remove(t, ballast)
		p.writesAgain(t, who)
		acked++
		if p = p.restarted(t); p.count(t, who) != acked {
			t.Errorf("there are %d rows; %d were acknowledged", p.count(t, who), acked)
		}
	}
	p.stop(t)
}

// TestDiskFillsUnderLoad takes all the room from under a node that is busy writing, faster than it can watch. It may then have
// to be started again, and says so; whatever it acknowledged is there.
func TestDiskFillsUnderLoad(t *testing.T) {
	t.Parallel()
	disk := small(t, 224<<20)
	p := serve(t, filepath.Join(disk, "data"))
	who := p.signUp(t, "somebody@example.com")
	rows := make([]map[string]string, 20)
	for i := range rows {
		rows[i] = map[string]string{"body": strings.Repeat(filler(i), 40)}
	}
	var acked, doubtful atomic.Int64
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for refused := 0; refused < 20; {
				status, b, err := p.do(t.Context(), "POST", "/rest/v1/notes", who.AccessToken, rows)
				switch {
				case err == nil && status == http.StatusCreated:
					acked.Add(int64(len(rows)))
				case err == nil && status == http.StatusServiceUnavailable:
					refused++
					doubtful.Add(int64(len(rows)))
				default:
					t.Errorf("a write was answered by %d %v %.300s", status, err, b)
					return
				}
			}
		})
	}
	wait(t, "the first rows", func() bool { return acked.Load() > 100 })
	ballast := fill(t, disk, 0)
	writers.Wait()
	if n := p.count(t, who); n < int(acked.Load()) {
		t.Errorf("%d rows can be read and %d were acknowledged", n, acked.Load())
	}
	if out, errs, code := runFor(t, 30*time.Second, "status", "--data", p.Data); code != 0 || !strings.Contains(out, "why not") {
		t.Errorf("status: exit code %d\n%s%s", code, out, errs)
	}
	remove(t, ballast)
	by := "by itself"
	wait(t, "the node to write, or to say why it does not", func() bool {
		status, _, err := p.do(t.Context(), "POST", "/rest/v1/notes", who.AccessToken, rows)
		if err == nil && status == http.StatusCreated {
			acked.Add(int64(len(rows)))
			return true
		}
		doubtful.Add(int64(len(rows)))
		out, _, code := run(t, "status", "--data", p.Data)
		by = "after a restart"
		return code == 0 && regexp.MustCompile(`(log|database): `).MatchString(out)
	})
	p.kill()
	p = p.again(t)
	n := int64(p.count(t, who))
	t.Logf("%d rows were acknowledged, %d refused or in doubt, %d are there; it writes again %s", acked.Load(), doubtful.Load(), n, by)
	if n < acked.Load() || n > acked.Load()+doubtful.Load() {
		t.Errorf("%d rows are there; %d were acknowledged, and %d refused or in doubt", n, acked.Load(), doubtful.Load())
	}
	p.writesAgain(t, who)
	p.stop(t)
}

// refusesWrites expects that a node refuses each surface's writes in its own shape, while it answers reads and its console.
// It returns how many rows there are: what the node took before it noticed is among them.
func (p *process) refusesWrites(t *testing.T, who session, rows int, code string) int {
	t.Helper()
	wait(t, "the node to notice", func() bool {
		status, _, err := p.do(t.Context(), "POST", "/rest/v1/notes", who.AccessToken, map[string]string{"body": "more"})
		if err == nil && status == http.StatusCreated {
			rows++
		}
		return err == nil && status == http.StatusServiceUnavailable
	})
	for _, r := range []struct{ path, shape string }{
		{"/rest/v1/notes", `^\{"code":"PGRST001","message":".*disk is full.*","details":null,"hint":null\}$`},
		{"/auth/v1/signup", `"error_code":".*disk is full`},
	} {
		status, header, b := p.send(t, "POST", r.path, who.AccessToken, `{"email":"late@example.com","password":"`+password+`"}`)
		if r.path == "/rest/v1/notes" {
			status, header, b = p.send(t, "POST", r.path, who.AccessToken, `{"body":"more"}`)
		}
		if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" || !regexp.MustCompile(r.shape).Match(b) {
			t.Errorf("%s: %d, Retry-After %q: %s", r.path, status, header.Get("Retry-After"), b)
		}
	}
	if n := p.count(t, who); n != rows {
		t.Errorf("%d rows can be read; %d were acknowledged", n, rows)
	}
	out, errs, exit := runFor(t, 30*time.Second, "status", "--json", "--data", p.Data)
	var s struct {
		Ready   bool
		Reasons []string
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil || exit != 0 || s.Ready || !strings.Contains(strings.Join(s.Reasons, " "), "disk") {
		t.Errorf("status: exit code %d, %v\n%s%s", exit, err, out, errs)
	}
	out, errs, exit = runFor(t, 30*time.Second, "tenant", "create", "late", "--json", "--data", p.Data)
	if exit != 3 || !strings.Contains(errs, code) {
		t.Errorf("tenant create: exit code %d\n%s%s", exit, out, errs)
	}
	if _, errs, exit := runFor(t, 30*time.Second, "tenant", "list", "--data", p.Data); exit != 0 {
		t.Errorf("tenant list: exit code %d\n%s", exit, errs)
	}
	u := strings.SplitAfterN(p.URL, "/", 4)
	resp, err := p.client.Get(strings.Join(u[:3], "") + "readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("/readyz says %d", resp.StatusCode)
	}
	return rows
}

// writesAgain expects that a node writes again by itself.
func (p *process) writesAgain(t *testing.T, who session) {
	t.Helper()
	wait(t, "the node to write again", func() bool {
		status, _, err := p.do(t.Context(), "POST", "/rest/v1/notes", who.AccessToken, map[string]string{"body": "again"})
		return err == nil && status == http.StatusCreated
	})
}

func (p *process) restarted(t *testing.T) *process {
	t.Helper()
	p.stop(t)
	return p.again(t)
}

// send is do with a body as it is, and returns the header of the answer too.
func (p *process) send(t testing.TB, method, path, token, body string) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("apikey", p.PublishableKey)
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, b
}

// wait asks again and again, for half a minute at most.
func wait(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(30 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// TestLockedFolder starts a second node on a folder that has one, which goes on undisturbed.
func TestLockedFolder(t *testing.T) {
	t.Parallel()
	p := serve(t, filepath.Join(t.TempDir(), "data"))
	who := p.signUp(t, "somebody@example.com")
	for _, format := range []string{"", "--json"} {
		args := []string{"serve", "--data", p.Data, "--listen", "localhost:0", "--cluster-listen", "localhost:0"}
		if format != "" {
			args = append(args, format)
		}
		out, errs, code := runFor(t, 15*time.Second, args...)
		if line := oneLine(t, errs); code == 0 || out != "" || !regexp.MustCompile(`in use by another bulwark process.*stop`).MatchString(line) {
			t.Errorf("exit code %d: %s%s", code, out, line)
		}
	}
	if out, errs, code := runFor(t, 15*time.Second, "operator", "init", "--data", p.Data); code != 6 {
		t.Errorf("operator init: exit code %d: %s%s", code, out, errs)
	}
	p.insert(t, who, 1)
	if out, errs, code := run(t, "status", "--data", p.Data); code != 0 || !strings.Contains(out, "ready") {
		t.Errorf("status: exit code %d: %s%s", code, out, errs)
	}
	p.stop(t)
}

// TestDamageWhileRunning damages the database under a running node: whoever meets it gets an error, nobody wrong data, and the
// node goes on.
func TestDamageWhileRunning(t *testing.T) {
	t.Parallel()
	good, _, _ := filled(t)
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, path string)
	}{
		{"values", func(t *testing.T, path string) {
			b := read(t, path)
			for _, v := range valuesOf(t, filepath.Join(good.data, "state.db")) {
				if at := bytes.Index(b, v); at >= 0 {
					at += len(v) / 2
					overwrite(t, path, at, []byte{b[at] ^ 1})
				}
			}
		}},
		{"zeros", func(t *testing.T, path string) {
			overwrite(t, path, 32<<10, make([]byte, len(read(t, path))-(32<<10)))
		}},
		{"noise", func(t *testing.T, path string) {
			b := make([]byte, len(read(t, path))-(32<<10))
			for i := range b {
				b[i] = byte(i*7 + i>>8)
			}
			overwrite(t, path, 32<<10, b)
		}},
		{"cut", func(t *testing.T, path string) {
			if err := os.Truncate(path, 48<<10); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := copyOf(t, good)
			p := serve(t, f.data)
			who := p.signIn(t, "somebody@example.com")
			if n := p.count(t, who); n != 300 {
				t.Fatalf("%d rows before the damage", n)
			}
			c.damage(t, filepath.Join(f.data, "state.db"))
			for _, path := range []string{"/rest/v1/notes?select=id,body", "/rest/v1/notes?select=id&order=created_at.desc", "/auth/v1/user"} {
				for range 3 {
					status, b, err := p.do(t.Context(), "GET", path, who.AccessToken, nil)
					if err != nil || status != http.StatusInternalServerError && status != http.StatusServiceUnavailable && status != http.StatusOK || !json.Valid(b) {
						t.Errorf("%s: %d %v %.300s", path, status, err, b)
					}
					if strings.HasPrefix(path, "/rest") && status == http.StatusOK {
						t.Errorf("%s was answered from a damaged database: %.300s", path, b)
					}
				}
			}
			if out, errs, code := runFor(t, 30*time.Second, "status", "--data", p.Data); code != 0 {
				t.Errorf("status: exit code %d\n%s%s", code, out, errs)
			}
			select {
			case <-p.ended:
				t.Errorf("the node ended\n%s", p.log)
			default:
			}
			p.kill()
		})
	}
}

// valuesOf are the large values of a database: its rows.
func valuesOf(t testing.TB, path string) (values [][]byte) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var walk func(*bbolt.Bucket) error
	walk = func(bucket *bbolt.Bucket) error {
		return bucket.ForEach(func(k, v []byte) error {
			if v == nil {
				return walk(bucket.Bucket(k))
			}
			if len(v) > 900 {
				values = append(values, bytes.Clone(v))
			}
			return nil
		})
	}
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error { return walk(b) })
	})
	if err != nil || len(values) < 300 {
		t.Fatalf("%d values, %v", len(values), err)
	}
	return values
}

// overwrite changes a part of a file in its place, as a disk does.
func overwrite(t testing.TB, path string, at int, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(b, int64(at))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (p *process) signIn(t testing.TB, email string) (s session) {
	t.Helper()
	status, b, err := p.do(t.Context(), "POST", "/auth/v1/token?grant_type=password", "", map[string]string{"email": email, "password": password})
	if err != nil || status != http.StatusOK {
		t.Fatalf("signing in: %d %s %v", status, b, err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// cli runs a command against a node and expects an exit code; it returns what the command said on either output.
func (p *process) cli(t testing.TB, want int, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command(binary(t), append(args, "--data", p.Data)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != want {
		t.Errorf("%v: exit code %d, want %d\n%s", args, code, want, out)
	}
	return string(out)
}

// serveSealed starts a node whose root key an operator gives, and waits until its console says that it is sealed.
func serveSealed(t testing.TB, data, listen string) *process {
	t.Helper()
	p := &process{Data: data, listen: listen, log: &bytes.Buffer{}, ended: make(chan struct{})}
	p.cmd = exec.Command(binary(t), "serve", "--demo", "--json", "--data", data, "--listen", listen, "--cluster-listen", "localhost:0")
	p.cmd.Env = append(os.Environ(), "BULWARK_RATE_LIMIT=0")
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(p.kill)
	wait(t, "the console", func() bool {
		_, _, code := run(t, "status", "--data", data)
		return code == 0
	})
	p.client = &http.Client{Timeout: 10 * time.Second}
	return p
}

// isSealed expects what a sealed node says, and that it takes no clients.
func (p *process) isSealed(t testing.TB, given string) {
	t.Helper()
	if out := p.cli(t, 0, "", "status"); !strings.Contains(out, "sealed: bulwark operator unseal") || !strings.Contains(out, given) {
		t.Errorf("status says\n%s", out)
	}
	p.cli(t, 3, "", "tenant", "list")
	p.cli(t, 3, "", "apikey", "list", "-p", "abcdefghijklmnopqrst")
	if c, err := net.DialTimeout("tcp", p.listen, time.Second); err == nil {
		// A sealed node may hold its port; it must not serve on it.
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if b, _ := io.ReadAll(c); bytes.Contains(b, []byte("HTTP/1.1 200")) {
			t.Errorf("a sealed node serves clients: %s", b)
		}
	}
}

// TestShamir takes a cluster of five shares, three needed, through its life with the real command.
func TestShamir(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	out, errs, code := run(t, "operator", "init", "--data", data, "--seal", "shamir", "--shares", "5", "--threshold", "3", "--json")
	var made struct{ Shares []string }
	if err := json.Unmarshal([]byte(out), &made); err != nil || code != 0 || len(made.Shares) != 5 {
		t.Fatalf("operator init: exit code %d %v\n%s%s", code, err, out, errs)
	}
	out, _, _ = run(t, "operator", "init", "--data", data+"2", "--seal", "shamir", "--shares", "5", "--threshold", "3", "--json")
	var other struct{ Shares []string }
	if err := json.Unmarshal([]byte(out), &other); err != nil {
		t.Fatal(err)
	}
	p := serveSealed(t, data, busyFree(t))
	p.isSealed(t, "(0 of 3 shares given)")
	share := func(want int, share, say string) {
		t.Helper()
		if out := p.cli(t, want, share+"\n", "operator", "unseal"); !regexp.MustCompile(say).MatchString(out) {
			t.Errorf("it said %q, want %q", out, say)
		}
	}
	share(0, made.Shares[4], `1 of 3 shares`)
	share(1, "bulwark-share-nonsense", `share`)
	share(1, other.Shares[1], `share.*cluster|cluster.*share`)
	damaged := []byte(made.Shares[1])
	damaged[len(damaged)-3] ^= 1
	share(1, string(damaged), `share`)
	share(6, made.Shares[4], `given already.*give another`)
	p.isSealed(t, "(1 of 3 shares given)")
	share(0, made.Shares[0], `2 of 3 shares`)
	share(0, made.Shares[2], `unsealed`)
	p.cli(t, 0, "", "tenant", "create", "acme")
	share(6, made.Shares[3], `not sealed`)

	// Sealed again, nobody is served; three other shares open it, and what was there is there.
	p.cli(t, 0, "", "operator", "seal")
	p.isSealed(t, "(0 of 3 shares given)")
	for _, n := range []int{1, 3, 0} {
		share(0, made.Shares[n], ``)
	}
	if out := p.cli(t, 0, "", "tenant", "list"); !strings.Contains(out, "acme") {
		t.Errorf("the tenant is gone: %s", out)
	}
	p.stop(t)
	if text := string(slices.Concat(slices.Collect(maps.Values(contents(t, data)))...)) + p.log.String(); strings.Contains(text, made.Shares[0]) {
		t.Error("a share is in the data folder or the log")
	}
}

// busyFree is an address that nobody listens on.
func busyFree(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestPassphrase does the same with a passphrase.
func TestPassphrase(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	p := &process{Data: data}
	p.cli(t, 1, "short\n", "operator", "init", "--seal", "passphrase")
	p.cli(t, 0, password+"\n", "operator", "init", "--seal", "passphrase")
	p = serveSealed(t, data, busyFree(t))
	p.isSealed(t, "passphrase")
	if out := p.cli(t, 1, password+"x\n", "operator", "unseal"); !strings.Contains(out, "passphrase") {
		t.Errorf("it said %q", out)
	}
	p.cli(t, 2, "", "operator", "unseal")
	p.isSealed(t, "passphrase")
	p.cli(t, 0, password+"\n", "operator", "unseal")
	p.cli(t, 0, "", "tenant", "create", "acme")
	p.cli(t, 0, "", "operator", "seal")
	p.isSealed(t, "passphrase")
	p.cli(t, 0, password+"\n", "operator", "unseal")
	if out := p.cli(t, 0, "", "tenant", "list"); !strings.Contains(out, "acme") {
		t.Errorf("the tenant is gone: %s", out)
	}
	p.stop(t)
}

// TestDestroy deletes a project and a tenant: nobody gets in any more, and their rows are gone.
func TestDestroy(t *testing.T) {
	t.Parallel()
	p := serve(t, filepath.Join(t.TempDir(), "data"))
	who := p.signUp(t, "somebody@example.com")
	p.insert(t, who, 20)
	ref := p.URL[strings.LastIndex(p.URL, "/")+1:]
	p.cli(t, 2, "", "project", "delete", ref)
	if n := p.count(t, who); n != 20 {
		t.Errorf("%d rows after a deletion that was not confirmed", n)
	}
	p.cli(t, 0, "", "project", "delete", ref, "--yes")
	p.gone(t, who)
	p.cli(t, 5, "", "apikey", "list", "-p", ref)
	p.cli(t, 5, "", "project", "delete", ref, "--yes")
	p.cli(t, 0, "", "tenant", "delete", "demo", "--yes")
	p.cli(t, 5, "", "tenant", "delete", "demo", "--yes")
	if out := p.cli(t, 0, "", "tenant", "list"); strings.Contains(out, "demo") {
		t.Errorf("the tenant is still listed: %s", out)
	}
	p.stop(t)
	db, err := bbolt.Open(filepath.Join(p.Data, "state.db"), 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	buckets := 0
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
			if name[0] == 't' && len(name) == 17 {
				buckets++
			}
			return nil
		})
	})
	if err != nil || buckets != 1 {
		t.Errorf("the database has the records of %d tenants, and only the system's should be there: %v", buckets, err)
	}
}

// gone expects that a project answers nobody.
func (p *process) gone(t testing.TB, who session) {
	t.Helper()
	for _, path := range []string{"/rest/v1/notes", "/auth/v1/user"} {
		for _, key := range []string{p.PublishableKey, p.SecretKey} {
			status, b, err := p.do(t.Context(), "GET", path, who.AccessToken, nil, "apikey", key)
			if err != nil || status != http.StatusNotFound && status != http.StatusUnauthorized && status != http.StatusForbidden {
				t.Errorf("%s: %d %v %s", path, status, err, b)
			}
		}
	}
}

// TestTampering changes an export of the audit log in every way that one line allows: `bulwark audit verify` finds each.
func TestTampering(t *testing.T) {
	t.Parallel()
	p := serve(t, filepath.Join(t.TempDir(), "data"))
	who := p.signUp(t, "somebody@example.com")
	p.insert(t, who, 2)
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	p.cli(t, 0, "", "audit", "export", "--tenant", "demo", "-o", file)
	p.stop(t)
	good := read(t, file)
	lines := bytes.SplitAfter(bytes.TrimSuffix(good, []byte("\n")), []byte("\n"))
	verify := func(b []byte) (string, int) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "changed.jsonl")
		write(t, path, b)
		out, errs, code := run(t, "audit", "verify", path)
		return out + errs, code
	}
	if out, code := verify(good); code != 0 || !strings.Contains(out, "verified") {
		t.Fatalf("the export itself: exit code %d\n%s", code, out)
	}
	for n := range lines {
		for what, change := range map[string][][]byte{
			"removed":      slices.Delete(slices.Clone(lines), n, n+1),
			"doubled":      slices.Insert(slices.Clone(lines), n, lines[n]),
			"a digit more": slices.Replace(slices.Clone(lines), n, n+1, oneMore(lines[n])),
			"cut short":    slices.Replace(slices.Clone(lines), n, n+1, append(bytes.Clone(lines[n][:len(lines[n])/2]), '\n')),
			"swapped":      swapped(lines, n),
		} {
			b := slices.Concat(change...)
			if bytes.Equal(b, good) {
				continue
			}
			if out, code := verify(b); code != 1 || !regexp.MustCompile(`NOT VERIFIED|verifying the export: line \d`).MatchString(out) {
				t.Errorf("line %d of %d %s: exit code %d\n%s", n+1, len(lines), what, code, out)
			}
		}
	}
	if _, code := verify(nil); code != 1 {
		t.Errorf("an empty file: exit code %d", code)
	}
}

func swapped(lines [][]byte, n int) [][]byte {
	out := slices.Clone(lines)
	other := (n + 1) % len(out)
	out[n], out[other] = append(bytes.TrimSuffix(bytes.Clone(out[other]), []byte("\n")), '\n'), append(bytes.TrimSuffix(bytes.Clone(out[n]), []byte("\n")), '\n')
	return out
}

// oneMore raises the last digit of a line that is followed by another character.
func oneMore(line []byte) []byte {
	out := bytes.Clone(line)
	for i := len(out) - 3; i > 0; i-- {
		if c := out[i]; c >= '0' && c < '9' {
			out[i]++
			return out
		}
	}
	return append([]byte("x"), out...)
}
