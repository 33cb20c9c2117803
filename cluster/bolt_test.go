package cluster_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bulwark/cluster"
	"bulwark/storage"
	"bulwark/storage/bolt"
	"bulwark/storage/entry"
	"bulwark/storage/storagetest"
)

// onDisk is the configuration of a cluster of one over a real database in dir.
func onDisk(t testing.TB, dir string, node, id storage.ID) cluster.Config {
	t.Helper()
	db, err := bolt.Open(bolt.Options{Path: filepath.Join(dir, "data.db"), ClusterID: id, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	config := single(t, filepath.Join(dir, "log"), nil, node, id)
	config.State = db
	return config
}

func openOnDisk(t testing.TB, dir string, node, id storage.ID) *cluster.Cluster {
	t.Helper()
	config := onDisk(t, dir, node, id)
	c, err := cluster.Open(config)
	if err != nil {
		config.State.Close()
		t.Fatal(err)
	}
	return c
}

func TestStoreOverTheLog(t *testing.T) {
	t.Parallel()
	storagetest.TestStore(t, func(t *testing.T) storage.Engine {
		c := openOnDisk(t, t.TempDir(), newID(), newID())
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
		return c
	})
}

// child is set in the environment of the process that is killed.
const child = "BULWARK_TEST_KILL_DIR"

// TestMain lets the test binary be its own victim.
func TestMain(m *testing.M) {
	if dir := os.Getenv(child); dir != "" {
		if err := victim(dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

var (
	victimNode   = storage.ID{15: 7}
	victimID     = storage.ID{15: 8}
	victimTenant = storage.ID{15: 9}
)

// victim writes from many goroutines and says what was acknowledged, until it is killed. Each writer's keys grow, so that
// what it wrote can be checked without a gap.
func victim(dir string) error {
	var t fatalT
	c := openOnDisk(&t, dir, victimNode, victimID)
	run := os.Getenv(child + "_RUN")
	out := bufio.NewWriter(os.Stdout)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%s-%d-%d", run, w, i)
				o, err := c.Propose(context.Background(), put(victimTenant, key, strings.Repeat(key, 20)))
				if err != nil || o.Status != entry.Applied {
					panic(fmt.Sprint(o, err))
				}
				mu.Lock()
				fmt.Fprintln(out, key, o.Revision)
				out.Flush()
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return nil
}

// fatalT is a testing.TB outside of a test.
type fatalT struct{ testing.TB }

func (fatalT) Helper()        {}
func (fatalT) Cleanup(func()) {}
func (fatalT) Fatal(a ...any) { fmt.Println(append([]any{"error"}, a...)...); os.Exit(1) }

// TestKill kills a node under load, again and again, and finds every acknowledged entry afterwards.
func TestKill(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	dir := t.TempDir()
	acked := map[string]uint64{}
	for run := range 12 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), child+"="+dir, child+"_RUN="+strconv.Itoa(run))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		n := 0
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			key, revision, ok := strings.Cut(lines.Text(), " ")
			if !ok || key == "error" {
				t.Fatalf("run %d: %s", run, lines.Text())
			}
			if acked[key], err = strconv.ParseUint(revision, 10, 64); err != nil {
				t.Fatal(err)
			}
			if n++; n == 50+137*run {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || n < 50 {
			t.Fatalf("run %d: the victim ended by itself after %d writes: %v", run, n, err)
		}
	}
	c := openOnDisk(t, dir, victimNode, victimID)
	defer c.Close()
	s, err := c.Snapshot(within(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	revisions := map[uint64]string{}
	for key, revision := range acked {
		if other, twice := revisions[revision]; twice {
			t.Fatalf("%s and %s were acknowledged at the same revision %d", key, other, revision)
		}
		revisions[revision] = key
		if got := get(t, s, victimTenant, key); got != strings.Repeat(key, 20) {
			t.Errorf("%s was acknowledged and is %.20q", key, got)
		}
	}
	// Nothing is half there: a writer's keys have no gap.
	var all int
	next := map[string]int{}
	missing := map[string]map[int]bool{}
	err = s.Scan(victimTenant, entry.Space{Table: "t"}, nil, nil, false, func(key, value []byte, _ uint64) bool {
		all++
		k := string(key)
		cut := strings.LastIndexByte(k, '-')
		i, _ := strconv.Atoi(k[cut+1:])
		if missing[k[:cut]] == nil {
			missing[k[:cut]] = map[int]bool{}
		}
		missing[k[:cut]][i] = true
		next[k[:cut]] = max(next[k[:cut]], i+1)
		if string(value) != strings.Repeat(k, 20) {
			t.Errorf("%s is half there", k)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	for w, n := range next {
		if len(missing[w]) != n {
			t.Errorf("writer %s: %d of %d", w, len(missing[w]), n)
		}
	}
	t.Logf("%d acknowledged, %d found", len(acked), all)
	if len(acked) < 1000 {
		t.Fatalf("only %d writes were acknowledged", len(acked))
	}
}

// TestLogStaysShort writes more than the log may keep, and finds the rest in the database.
func TestLogStaysShort(t *testing.T) {
	t.Parallel()
	dir, node, id, tenant := t.TempDir(), newID(), newID(), newID()
	open := func() *cluster.Cluster {
		config := onDisk(t, dir, node, id)
		config.SegmentSize, config.MarkBytes, config.Trailing = 64<<10, 256<<10, 8
		c, err := cluster.Open(config)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := open()
	value := strings.Repeat("v", 4096)
	for i := range 1000 {
		mustPropose(t, c, put(tenant, strconv.Itoa(i), value))
	}
	s := c.Status()
	if s.Marked == 0 || s.LogBytes > 2<<20 {
		t.Fatalf("after 4 MiB of entries the log has %d bytes and its mark is at %d of %d", s.LogBytes, s.Marked, s.Last)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open()
	defer c.Close()
	snap, err := c.Snapshot(within(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	for i := range 1000 {
		if get(t, snap, tenant, strconv.Itoa(i)) != value {
			t.Fatalf("entry %d is gone", i)
		}
	}
}

// files returns every file below dir with its content.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return all
	}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// crashed returns a folder as a crash leaves it: the log holds entries that the database does not.
func crashed(t *testing.T, node, id, tenant storage.ID) string {
	t.Helper()
	dir := t.TempDir()
	c := openOnDisk(t, dir, node, id)
	for i := range 50 {
		mustPropose(t, c, put(tenant, strconv.Itoa(i), strings.Repeat("v", 200)))
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// refused opens the folder, wants an error that says all of want in one line, and not one byte changed.
func refused(t *testing.T, dir string, node, id storage.ID, want ...string) {
	t.Helper()
	config := onDisk(t, dir, node, id)
	defer config.State.Close()
	before := files(t, filepath.Join(dir, "log"))
	c, err := cluster.Open(config)
	if err == nil {
		c.Close()
		t.Fatal("it was opened")
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error has more than one line: %v", err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %v", w, err)
		}
	}
	t.Log(err)
	after := files(t, filepath.Join(dir, "log"))
	if len(before) != len(after) {
		t.Errorf("%d files became %d", len(before), len(after))
	}
	for name, b := range before {
		if after[name] != b {
			t.Errorf("%s was changed", name)
		}
	}
}

func flip(t *testing.T, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 0x10
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRefusedFolders(t *testing.T) {
	t.Parallel()
	node, id, tenant := newID(), newID(), newID()
	segment := func(dir string) string {
		all, err := filepath.Glob(filepath.Join(dir, "log", "*.wal"))
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		return all[0]
	}
	for name, test := range map[string]struct {
		break_ func(t *testing.T, dir string)
		node   storage.ID
		want   string
	}{
		"another node":     {func(*testing.T, string) {}, newID(), "belongs to node"},
		"identity damaged": {func(t *testing.T, dir string) { flip(t, dir+"/log/identity", 30) }, node, "damaged"},
		"identity missing": {func(t *testing.T, dir string) { os.Remove(dir + "/log/identity") }, node, "no identity"},
		"contents damaged": {func(t *testing.T, dir string) { flip(t, dir+"/log/contents", 60) }, node, "damaged"},
		"contents missing": {func(t *testing.T, dir string) { os.Remove(dir + "/log/contents") }, node, "damaged"},
		"mark damaged":     {func(t *testing.T, dir string) { flip(t, dir+"/log/mark", 40) }, node, "damaged"},
		"log missing":      {func(t *testing.T, dir string) { os.RemoveAll(dir + "/log") }, node, "missing"},
		"segment missing":  {func(t *testing.T, dir string) { os.Remove(segment(dir)); os.Remove(dir + "/log/mark") }, node, "has lost its segment"},
		"entry damaged":    {func(t *testing.T, dir string) { flip(t, segment(dir), 5000) }, node, "damaged"},
		"later version": {func(t *testing.T, dir string) {
			rewrite(t, dir+"/log/mark", func(b []byte) { b[15] = 9 })
		}, node, "later version"},
		"database put back": {func(t *testing.T, dir string) { os.Remove(dir + "/data.db") }, node, "older copy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := crashed(t, node, id, tenant)
			test.break_(t, dir)
			refused(t, dir, test.node, id, test.want)
		})
	}
}

// TestAnotherCluster opens a log with a database of another cluster.
func TestAnotherCluster(t *testing.T) {
	t.Parallel()
	node, tenant := newID(), newID()
	dir := crashed(t, node, newID(), tenant)
	if err := os.Remove(dir + "/data.db"); err != nil {
		t.Fatal(err)
	}
	refused(t, dir, node, newID(), "belongs to cluster")
}

// TestNoFlippedBitIsTaken flips bits of each file of the log, one at a time: the node refuses the log or holds every entry.
// Only in the last write of the log can a flipped bit not be told from a torn write; there the database and the mark, which
// this test takes away, tell.
func TestNoFlippedBitIsTaken(t *testing.T) {
	t.Parallel()
	node, id, tenant, dir := newID(), newID(), newID(), t.TempDir()
	open := func() (*cluster.Cluster, error) {
		config := single(t, dir, newMemState(), node, id)
		config.SegmentSize = 32 << 10
		return cluster.Open(config)
	}
	c, err := open()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		mustPropose(t, c, put(tenant, strconv.Itoa(i), strings.Repeat("v", 100)))
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "mark")); err != nil {
		t.Fatal(err)
	}
	good := files(t, dir)
	flips, refusals := 0, 0
	check := func(path string, at int) {
		for name := range files(t, dir) {
			os.Remove(name)
		}
		for name, b := range good {
			if err := os.WriteFile(name, []byte(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		flip(t, path, at)
		flips++
		c, err := open()
		if err != nil {
			refusals++
			return
		}
		defer c.Close()
		s, err := c.Snapshot(within(t, 10*time.Second))
		if err != nil {
			refusals++
			return
		}
		defer s.Release()
		for i := range 20 {
			if get(t, s, tenant, strconv.Itoa(i)) != strings.Repeat("v", 100) {
				t.Errorf("a flipped bit at %d of %s: entry %d is gone without a word", at, filepath.Base(path), i)
				return
			}
		}
	}
	for name, b := range good {
		used, step := len(strings.TrimRight(b, "\x00")), 24
		if strings.HasSuffix(name, ".wal") {
			// The frames' own headers begin at multiples of eight.
			used, step = strings.LastIndex(b, "vvvv")-400, 16
		}
		for at := 0; at < used; at += step {
			check(name, at)
		}
	}
	t.Logf("%d of %d flips were refused", refusals, flips)
	if flips < 100 {
		t.Errorf("only %d flips", flips)
	}
}

func rewrite(t *testing.T, path string, change func([]byte)) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	change(b)
	if err := os.WriteFile(path, cluster.Resum(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestErrorsAreOfTheirKind(t *testing.T) {
	t.Parallel()
	c := openOnDisk(t, t.TempDir(), newID(), newID())
	defer c.Close()
	big := put(newID(), "k", strings.Repeat("v", 3<<20))
	for range 2 {
		big.Writes = append(big.Writes, entry.Write{Space: big.Writes[0].Space, Key: newIDKey(), Value: big.Writes[0].Value})
	}
	_, err := c.Propose(within(t, 10*time.Second), big)
	if storage.FaultOf(err) != storage.TooLarge {
		t.Errorf("an entry of 9 MiB: %v", err)
	}
	// What no node could read must not reach the log.
	if _, err := c.Propose(within(t, 10*time.Second), put(newID(), strings.Repeat("k", 2000), "v")); storage.FaultOf(err) != storage.TooLarge {
		t.Errorf("a key of 2000 bytes: %v", err)
	}
	mustPropose(t, c, put(newID(), "k", "v"))
	bad := put(storage.ID{}, "k", "v")
	if o, err := c.Propose(within(t, 10*time.Second), bad); err != nil || o.Status != entry.Invalid {
		t.Errorf("an entry without a tenant: %+v, %v", o, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = c.Propose(ctx, put(newID(), "k", "v"))
	var doubt *storage.InDoubt
	if err != nil && !errors.As(err, &doubt) && storage.FaultOf(err) != storage.Unavailable {
		t.Errorf("a call that is over: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Propose(within(t, time.Second), put(newID(), "k", "v")); storage.FaultOf(err) != storage.Unavailable {
		t.Errorf("after Close: %v", err)
	}
	if _, err := c.Snapshot(within(t, time.Second)); storage.FaultOf(err) != storage.Unavailable {
		t.Errorf("after Close: %v", err)
	}
}

func newIDKey() []byte { id := newID(); return id[:] }
