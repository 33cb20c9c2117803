package node

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bulwark/security/keys"
	"bulwark/storage"
	"bulwark/storage/backup"
)

// saved saves a snapshot of n into a file.
func saved(t *testing.T, n *Node) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "saved.snapshot")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	by := storage.OperatorActor(storage.System, storage.ID{}, storage.ID{}, "console", storage.Origin{})
	trailer, err := n.saveSnapshot(t.Context(), by, SnapshotRequest{}, f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if trailer.Certified == nil {
		t.Error("it was not certified")
	}
	return path
}

func signedUp(c *caller) (s signedIn) {
	c.t.Helper()
	c.do(200, "POST", "/auth/v1/signup", "", map[string]string{"email": "ann@example.com", "password": "a long password"}, &s)
	return s
}

// TestSnapshotRestores saves a snapshot, changes everything, restores it into an empty folder and finds what was there.
func TestSnapshotRestores(t *testing.T) {
	t.Parallel()
	c := testConfig(t, filepath.Join(t.TempDir(), "data"))
	n := open(t, c)
	caller := newCaller(t, n)
	ann := signedUp(caller)
	caller.do(201, "POST", "/rest/v1/notes", ann.AccessToken, map[string]string{"body": "before the snapshot"}, nil)
	file := saved(t, n)
	caller.do(201, "POST", "/rest/v1/notes", ann.AccessToken, map[string]string{"body": "after it"}, nil)
	if b, err := os.ReadFile(file); err != nil || bytes.Contains(b, []byte("before the snapshot")) || bytes.Contains(b, []byte("ann@example.com")) {
		t.Errorf("the snapshot holds what was typed (%v)", err)
	}
	s, opened, err := VerifySnapshot(t.Context(), file, c.KeyFile, testLogger(t), nil)
	if err != nil || opened.Values == 0 || opened.Events == 0 || s.Header.Index == 0 {
		t.Fatalf("%v %+v", err, opened)
	}
	closed(t, n)

	// Another root key has no right to it, a damaged file is refused, and neither leaves anything.
	data := filepath.Join(t.TempDir(), "restored")
	restore := func(file, key string) error {
		_, err := Restore(t.Context(), RestoreRequest{File: file, Data: data, KeyFile: key, Advertise: "127.0.0.1:1"}, Options{Logger: testLogger(t)})
		return err
	}
	other := filepath.Join(t.TempDir(), "other.key")
	seal, err := keys.NewFileSeal(data, other)
	if err != nil {
		t.Fatal(err)
	}
	root := make([]byte, keys.RootLen)
	if _, err := rand.Read(root); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.Close(s.Header.Cluster, root); err != nil {
		t.Fatal(err)
	}
	if err := restore(file, other); storage.FaultOf(err) != storage.Denied {
		t.Errorf("with another root key: %v", err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	damaged := filepath.Join(t.TempDir(), "damaged.snapshot")
	if err := os.WriteFile(damaged, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := restore(damaged, c.KeyFile); !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("a damaged snapshot: %v", err)
	}
	if _, err := os.Stat(data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused restore left something: %v", err)
	}
	if err := restore(file, c.KeyFile); err != nil {
		t.Fatal(err)
	}
	if err := restore(file, c.KeyFile); storage.FaultOf(err) != storage.Exists {
		t.Errorf("over a folder that holds something: %v", err)
	}

	again := c
	again.Data = data
	n = open(t, again)
	caller.client.CloseIdleConnections()
	// A session may have been ended since the snapshot, so none lives on.
	caller.do(401, "GET", "/rest/v1/notes?select=body", ann.AccessToken, nil, nil)
	caller.do(200, "POST", "/auth/v1/token?grant_type=password", "", map[string]string{"email": "ann@example.com", "password": "a long password"}, &ann)
	var rows []struct{ Body string }
	if err := json.Unmarshal(caller.do(200, "GET", "/rest/v1/notes?select=body", ann.AccessToken, nil, nil), &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1 || rows[0].Body != "before the snapshot" {
		t.Errorf("the rows are %v", rows)
	}
	caller.do(201, "POST", "/rest/v1/notes", ann.AccessToken, map[string]string{"body": "life goes on"}, nil)
	by := storage.OperatorActor(storage.System, storage.ID{}, storage.ID{}, "console", storage.Origin{})
	recorded := 0
	err = n.store.Events(t.Context(), by, storage.Intent{Action: "audit.read"}, 0, func(_ uint64, _ [32]byte, event []byte) bool {
		if strings.Contains(string(event), `"snapshot.restore"`) {
			recorded++
		}
		return true
	})
	if err != nil || recorded != 1 {
		t.Errorf("the restore is in the audit log %d times: %v", recorded, err)
	}
	if _, err := os.Stat(filepath.Join(data, restoredName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the note of the restore is still there: %v", err)
	}
	closed(t, n)
	open(t, again) // it is an ordinary node
	caller.client.CloseIdleConnections()
	caller.do(200, "GET", "/rest/v1/notes?select=body", ann.AccessToken, nil, &rows)
	if len(rows) != 2 {
		t.Errorf("after a restart the rows are %v", rows)
	}
}

// TestCertificationCompares lets the copy be of another state than the database, and be damaged.
func TestCertificationCompares(t *testing.T) {
	t.Parallel()
	n := open(t, testConfig(t, filepath.Join(t.TempDir(), "data")))
	scratch := func() backup.Trailer {
		t.Helper()
		if err := n.state.Flush(); err != nil {
			t.Fatal(err)
		}
		image, err := n.state.Image()
		if err != nil {
			t.Fatal(err)
		}
		defer image.Close()
		out, err := backup.NewWriter(io.Discard, &backup.Header{})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.copyOut(t.Context(), image, out, SnapshotRequest{}); err != nil {
			t.Fatal(err)
		}
		d, err := image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return backup.Found(d)
	}
	before := scratch()
	if err := n.certify(&before); err != nil || before.Certified == nil {
		t.Fatal(err)
	}
	signedUp(newCaller(t, n))
	after := scratch()
	before.Certified = nil
	if err := n.certify(&before); err == nil || before.Certified != nil {
		t.Error("a copy of another state is certified")
	}
	b, err := os.ReadFile(n.scratch())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.scratch(), b[:len(b)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := n.certify(&after); err == nil || after.Certified != nil {
		t.Error("half a copy is certified")
	}
}

// TestScheduledSnapshots takes them one after the other and keeps the newest.
func TestScheduledSnapshots(t *testing.T) {
	t.Parallel()
	c := testConfig(t, filepath.Join(t.TempDir(), "data"))
	c.SnapshotDir, c.SnapshotEvery, c.SnapshotKeep, c.SnapshotRate = filepath.Join(t.TempDir(), "snapshots"), time.Hour, 2, 0
	n := open(t, c)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if all, err := snapshots(c.SnapshotDir); err != nil || len(all) > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no snapshot was taken")
		}
	}
	for _, name := range []string{"bulwark-20200101-000000.snapshot", "bulwark-20200102-000000.snapshot", "bulwark-20200103-000000.snapshot.partial", "mine"} {
		if err := os.WriteFile(filepath.Join(c.SnapshotDir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.forgetSnapshots(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(c.SnapshotDir)
	if err != nil || len(entries) != 3 {
		t.Fatalf("%v %v", entries, err)
	}
	all, err := snapshots(c.SnapshotDir)
	if err != nil || len(all) != 2 || all[0] != "bulwark-20200102-000000.snapshot" {
		t.Errorf("kept %v %v", all, err)
	}
	if _, _, err := VerifySnapshot(t.Context(), filepath.Join(c.SnapshotDir, all[1]), c.KeyFile, testLogger(t), nil); err != nil {
		t.Error(err)
	}
}
