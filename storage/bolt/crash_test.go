package bolt_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"bulwark/storage/bolt"
	"bulwark/storage/entry"
	"bulwark/storage/storagetest"
)

// victimFile is set in the environment of the process that is killed.
const victimFile = "BULWARK_TEST_VICTIM_FILE"

// TestMain lets the test binary be its own victim.
func TestMain(m *testing.M) {
	if path := os.Getenv(victimFile); path != "" {
		if err := victim(path); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// entryAt is the entry of the log's index: always the same one.
func entryAt(index uint64) *entry.Entry {
	r := rand.New(rand.NewPCG(index, 7))
	e := &entry.Entry{Tenant: tenants[1+r.IntN(2)], Messages: [][]byte{{byte(index)}}}
	binary.BigEndian.PutUint64(e.ID[:], index)
	if index%17 == 0 {
		binary.BigEndian.PutUint64(e.ID[:], index-1) // the entry before it, proposed again
	}
	space := func() entry.Space {
		return entry.Space{Project: projects[r.IntN(3)], Table: tables[r.IntN(3)]}
	}
	if r.IntN(4) == 0 {
		e.Points = []entry.Point{{Space: space(), Key: []byte{byte(r.IntN(200))}}}
	}
	for range 1 + r.IntN(8) {
		w := entry.Write{Space: space(), Key: []byte{byte(r.IntN(200))}, Delete: r.IntN(4) == 0}
		if !w.Delete {
			w.Value = make([]byte, r.IntN(2000))
			for i := range w.Value {
				w.Value[i] = byte(index)
			}
		}
		e.Writes = append(e.Writes, w)
	}
	for i := range r.IntN(3) {
		e.Leaves = append(e.Leaves, entry.Leaf{Hash: [32]byte{byte(index), byte(i)}, Sealed: []byte("event")})
	}
	switch r.IntN(40) {
	case 0:
		e.Tenant = entry.System
		e.Keys = []entry.KeyChange{{Kind: entry.DestroyScope, Tenant: tenants[1+r.IntN(2)], Project: projects[r.IntN(3)]}}
	case 1, 2, 3:
		e.Keys = []entry.KeyChange{{Kind: entry.PutKey, Tenant: e.Tenant, Project: projects[1], Version: uint32(index), Wrapped: []byte("w")}}
	}
	return e
}

// victim applies the log from where the file is, and says what it has flushed, until it is killed.
func victim(path string) error {
	o := options(path)
	o.FlushInterval = time.Millisecond
	db, err := bolt.Open(o)
	if err != nil {
		return err
	}
	fmt.Println("ready", db.Persisted())
	r := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	for index := db.Persisted() + 1; ; index++ {
		if outcomes := db.Apply(index, []*entry.Entry{entryAt(index)}); outcomes == nil {
			return db.Failed()
		}
		if r.IntN(20) == 0 {
			if err := db.Flush(); err != nil {
				return err
			}
			fmt.Println("flushed", index)
		}
	}
}

// TestKill kills a process that writes, again and again, and finds each time the state that a prefix of the log makes:
// no shorter than what it said was flushed.
func TestKill(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("kills processes for some seconds")
	}
	folder := t.TempDir()
	path := filepath.Join(folder, "state.db")
	model := storagetest.NewEngine()
	var reached uint64
	for round := range 25 {
		flushed := killVictim(t, path, time.Duration(rand.IntN(60_000))*time.Microsecond)
		// Look at a copy, so that the next victim meets the file as the kill left it.
		copied := filepath.Join(folder, fmt.Sprintf("copy-%d.db", round))
		copyFile(t, path, copied)
		db := open(t, copied)
		persisted := db.Persisted()
		if applied, _ := db.Applied(); applied != persisted || persisted < flushed || persisted < reached {
			t.Fatalf("round %d: the file holds index %d (applied %d), after it said %d", round, persisted, applied, max(flushed, reached))
		}
		for ; reached < persisted; reached++ {
			if _, err := model.Propose(context.Background(), entryAt(reached+1)); err != nil {
				t.Fatal(err)
			}
		}
		got, err := db.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		want, _ := model.Local()
		if g, w := world(t, got), world(t, want); g != w {
			t.Fatalf("round %d: at index %d the file is not what the log makes", round, persisted)
		}
		got.Release()
		if err := db.Check(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(copied); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("25 kills, %d entries", reached)
}

// killVictim runs a victim, kills it a while after it is ready, and returns the index that it last said it had flushed.
func killVictim(t *testing.T, path string, after time.Duration) (flushed uint64) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), victimFile+"="+path)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for ready := false; lines.Scan(); {
		word, number, _ := strings.Cut(lines.Text(), " ")
		n, err := strconv.ParseUint(number, 10, 64)
		if word == "error" || err != nil {
			t.Errorf("the victim says: %s", lines.Text())
		}
		if !ready {
			ready = true
			kill := time.AfterFunc(after, func() { _ = c.Process.Kill() })
			defer kill.Stop()
		}
		flushed = n
	}
	_ = c.Wait() // it was killed
	return flushed
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
