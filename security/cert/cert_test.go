package cert

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulwark/security/access"
	"bulwark/security/audit"
	"bulwark/storage"
	"bulwark/storage/entry"
	"bulwark/storage/storagetest"
)

var testNames = []string{"localhost", "127.0.0.1", "::1", "Node-1.Example"}

func open(t *testing.T, store storage.Store, change func(*Config)) *Manager {
	t.Helper()
	cfg := Config{Store: store, Names: testNames}
	if change != nil {
		change(&cfg)
	}
	m, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// listen accepts TLS connections and finishes their handshakes.
func listen(t *testing.T, conf *tls.Config) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", conf)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			// The client says whether the handshake went well.
			_ = c.(*tls.Conn).HandshakeContext(t.Context())
			c.Close()
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

func handshake(addr, name string, conf *tls.Config) (*tls.ConnectionState, error) {
	conf = conf.Clone()
	conf.ServerName = name
	c, err := tls.Dial("tcp", addr, conf)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	s := c.ConnectionState()
	return &s, nil
}

func (m *Manager) pool(t *testing.T) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	ca, err := m.CA(t.Context())
	if err != nil || !pool.AppendCertsFromPEM(ca) {
		t.Fatalf("CA: %v", err)
	}
	return &tls.Config{RootCAs: pool, NextProtos: []string{"h2", "http/1.1"}}
}

// TestNothingRunsAfterClose is not parallel: it looks at all goroutines.
func TestNothingRunsAfterClose(t *testing.T) {
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	m := open(t, w.DB, func(c *Config) { c.LeafLife, c.RenewalCheck = time.Second, 10*time.Millisecond })
	addr := listen(t, m.TLS(false))
	first := waitForRenewal(t, m, addr, nil)
	waitForRenewal(t, m, addr, first)
	m.Close()
	// A job of certmagic's that was cut short may need a moment for its last lines.
	until := time.Now().Add(10 * time.Second)
	for {
		buf := make([]byte, 1<<20)
		stacks := string(buf[:runtime.Stack(buf, true)])
		if !strings.Contains(stacks, "certmagic.") && !strings.Contains(stacks, "cert.(*fileStore)") {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("after Close there still runs:\n%s", stacks)
		}
		runtime.Gosched()
	}
	if err := m.files.Store(t.Context(), "x", nil); !errors.Is(err, errClosed) {
		t.Errorf("storing after Close: %v", err)
	}
}

// waitForRenewal returns the leaf that is served once it is not old.
func waitForRenewal(t *testing.T, m *Manager, addr string, old *x509.Certificate) *x509.Certificate {
	t.Helper()
	conf := m.pool(t)
	conf.Time = func() time.Time { return time.Now().Add(-time.Millisecond) }
	until := time.Now().Add(20 * time.Second)
	for {
		s, err := handshake(addr, "localhost", conf)
		if err == nil && (old == nil || s.PeerCertificates[0].SerialNumber.Cmp(old.SerialNumber) != 0) {
			return s.PeerCertificates[0]
		}
		if time.Now().After(until) {
			t.Fatalf("no new certificate is served: %v", err)
		}
	}
}

func TestHandshakes(t *testing.T) {
	t.Parallel()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	counted := &countingStore{Store: w.DB}
	m := open(t, counted, nil)
	t.Cleanup(m.Close)
	addr := listen(t, m.TLS(false))
	before := counted.calls.Load()
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "node-1.example"} {
		s, err := handshake(addr, name, m.pool(t))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if s.Version != tls.VersionTLS13 || s.NegotiatedProtocol != "http/1.1" || len(s.PeerCertificates) != 2 {
			t.Errorf("%s: version %x, protocol %q, %d certificates", name, s.Version, s.NegotiatedProtocol, len(s.PeerCertificates))
		}
	}
	if _, err := handshake(addr, "other.example", m.pool(t)); err == nil || !strings.Contains(err.Error(), "not other.example") {
		t.Errorf("another name: %v", err)
	}
	old := m.pool(t)
	if v := m.TLS(false).MinVersion; v != tls.VersionTLS12 {
		t.Errorf("the oldest version is %x", v)
	}
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if _, err := handshake(addr, "localhost", old); err == nil {
		t.Error("TLS 1.1 is taken")
	}
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if s, err := handshake(addr, "localhost", old); err != nil || s.CipherSuite == tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA {
		t.Errorf("TLS 1.2: %v", err)
	}
	old.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA}
	if _, err := handshake(addr, "localhost", old); err == nil {
		t.Error("CBC is taken")
	}
	acme := m.pool(t)
	acme.NextProtos = []string{"acme-tls/1"}
	if _, err := handshake(addr, "localhost", acme); err == nil {
		t.Error("an ACME challenge is answered")
	}
	challenge := &tls.ClientHelloInfo{ServerName: "localhost", SupportedProtos: []string{"acme-tls/1"}, Conn: &net.TCPConn{}}
	if _, err := m.certificate(challenge); err == nil {
		t.Error("an ACME challenge is answered")
	}
	if got := counted.calls.Load() - before; got != 0 {
		t.Errorf("handshakes went to the store %d times", got)
	}
	http2 := listen(t, m.TLS(true))
	if s, err := handshake(http2, "localhost", m.pool(t)); err != nil || s.NegotiatedProtocol != "h2" {
		t.Errorf("http2: %v", err)
	}
}

// countingStore counts the transactions of a Store.
type countingStore struct {
	storage.Store
	calls atomic.Int64
}

func (c *countingStore) View(ctx context.Context, by storage.Actor, to storage.Intent, fn func(storage.Reader) error) error {
	c.calls.Add(1)
	return c.Store.View(ctx, by, to, fn)
}

func (c *countingStore) Update(ctx context.Context, by storage.Actor, to storage.Intent, fn func(storage.Tx) error) error {
	c.calls.Add(1)
	return c.Store.Update(ctx, by, to, fn)
}

func leafOf(t *testing.T, m *Manager) *x509.Certificate {
	t.Helper()
	c, err := m.certificate(&tls.ClientHelloInfo{ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf
}

func TestTheSameAfterARestart(t *testing.T) {
	t.Parallel()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	first := open(t, w.DB, nil)
	leaf := leafOf(t, first)
	first.Close()
	second := open(t, w.DB, nil)
	t.Cleanup(second.Close)
	if !bytes.Equal(first.root, second.root) || !leaf.Equal(leafOf(t, second)) {
		t.Error("a restart made another certificate")
	}
	other := open(t, w.DB, func(c *Config) { c.Names = append(slices.Clone(testNames), "10.1.2.3") })
	t.Cleanup(other.Close)
	if !bytes.Equal(first.root, other.root) || leaf.Equal(leafOf(t, other)) || leafOf(t, other).VerifyHostname("10.1.2.3") != nil {
		t.Error("a further name needs another certificate of the same root")
	}
}

func TestManyNodesMakeOneRoot(t *testing.T) {
	t.Parallel()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	managers := make([]*Manager, 3)
	var wg sync.WaitGroup
	for i := range managers {
		wg.Go(func() {
			m, err := Open(t.Context(), Config{Store: w.DB, Names: testNames})
			if err != nil {
				t.Error(err)
				return
			}
			managers[i] = m
		})
	}
	wg.Wait()
	for _, m := range managers {
		if m == nil {
			t.FailNow()
		}
		t.Cleanup(m.Close)
		if !bytes.Equal(m.root, managers[0].root) || !leafOf(t, m).Equal(leafOf(t, managers[0])) {
			t.Error("nodes that start together have different certificates")
		}
	}
	written := 0
	for _, e := range w.Events(t, storage.System, 0) {
		if e.Action == "certificate.write" && strings.HasSuffix(e.Object, ".key") {
			written++
		}
	}
	if written != 1 {
		t.Errorf("%d keys were made", written)
	}
}

// TestExpiredOnesAreRemoved starts with one list of names, and much later with another.
func TestExpiredOnesAreRemoved(t *testing.T) {
	t.Parallel()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	first := open(t, w.DB, func(c *Config) { c.Names = []string{"old.example"}; c.LeafLife = time.Hour })
	first.Close()
	second := open(t, w.DB, func(c *Config) { c.Clock = func() time.Time { return time.Now().Add(2 * time.Hour) } })
	t.Cleanup(second.Close)
	names, err := second.files.List(t.Context(), "certificates/bulwark", false)
	if err != nil || len(names) != 1 || !strings.Contains(names[0], second.subject) {
		t.Errorf("there are %v, %v", names, err)
	}
}

// TestSealed looks at the state itself for what must not be in it.
func TestSealed(t *testing.T) {
	t.Parallel()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	m := open(t, w.DB, nil)
	t.Cleanup(m.Close)
	snap, err := w.Engine.Local()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	spaces, err := snap.Spaces(storage.System, storage.ID{})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, space := range spaces {
		err := snap.Scan(storage.System, entry.Space{Table: space}, nil, nil, false, func(key, value []byte, _ uint64) bool {
			seen++
			for _, clear := range []string{"BEGIN", "Bulwark CA", "localhost", "certificates/", m.subject} {
				if bytes.Contains(value, []byte(clear)) || bytes.Contains(key, []byte(clear)) {
					t.Errorf("table %s holds %q in clear", space, clear)
				}
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 5 {
		t.Errorf("only %d keys were looked at", seen)
	}
}

func TestBadConfigs(t *testing.T) {
	t.Parallel()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	for _, cfg := range []Config{
		{Names: testNames},
		{Store: w.DB},
		{Store: w.DB, Names: []string{"bad name"}},
		{Store: w.DB, Names: []string{"https://x"}},
		{Store: w.DB, Names: slices.Repeat([]string{""}, 3)},
	} {
		if m, err := Open(t.Context(), cfg); err == nil {
			m.Close()
			t.Errorf("%v was taken", cfg.Names)
		}
	}
	if _, err := normalise(HostNames()); err != nil {
		t.Errorf("this machine's own names: %v", err)
	}
}

// fake is a clock that a test moves.
type fake struct{ at atomic.Int64 }

func (f *fake) now() time.Time          { return time.Unix(0, f.at.Load()) }
func (f *fake) advance(d time.Duration) { f.at.Add(int64(d)) }

// twoNodes are two nodes' stores over one state, with one clock.
func twoNodes(t *testing.T) (a, b *fileStore, clock *fake) {
	t.Helper()
	w := storagetest.NewWorld(t, storagetest.NewEngine())
	clock = &fake{}
	clock.at.Store(time.Now().UnixNano())
	recorder, err := audit.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	db, err := storage.Open(w.Engine, storage.Guards{Access: access.New(), Keys: w.Ring, Audit: recorder, Clock: clock.now,
		Rand: rand.Reader, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	by := storage.JobActor(storage.System, storage.ID{}, "certificates")
	a = newFileStore(t.Context(), db, by, owner{storage.ID{1}, storage.ID{11}})
	b = newFileStore(t.Context(), db, by, owner{storage.ID{2}, storage.ID{12}})
	a.poll, b.poll = time.Millisecond, time.Millisecond
	return a, b, clock
}

// TestLockOfAnEarlierRun holds that a node need not wait for what it locked before it was killed, and that others do.
func TestLockOfAnEarlierRun(t *testing.T) {
	t.Parallel()
	a, b, _ := twoNodes(t)
	ctx := t.Context()
	take := func(who string, s *fileStore, want bool) {
		t.Helper()
		if ok, err := s.TryLock(ctx, "issue"); ok != want || err != nil {
			t.Errorf("%s: taken %v, %v; want %v", who, ok, err, want)
		}
	}
	take("a node", a, true)
	take("the same run again", a, false)
	take("another node", b, false)
	restarted := newFileStore(ctx, a.store, a.by, owner{a.owner.Node, storage.ID{13}})
	take("the node's next run", restarted, true)
	take("another node, after the next run", b, false)
	if err := a.Store(ctx, "x", []byte("late")); err == nil {
		t.Error("the earlier run still writes under a lock that was taken over")
	}
	if err := restarted.Unlock(ctx, "issue"); err != nil {
		t.Error(err)
	}
	take("another node, after the release", b, true)
}

func TestFiles(t *testing.T) {
	t.Parallel()
	a, b, _ := twoNodes(t)
	ctx := t.Context()
	for _, name := range []string{"x/a/1", "x/a/2", "x/b", "xx/c"} {
		if err := a.Store(ctx, name, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Store(ctx, "x/b", []byte("new")); err != nil {
		t.Fatal(err)
	}
	if v, err := b.Load(ctx, "x/b"); err != nil || string(v) != "new" {
		t.Errorf("load: %q, %v", v, err)
	}
	for _, name := range []string{"x", "nothing"} {
		if _, err := b.Load(ctx, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("loading %s: %v", name, err)
		}
	}
	if info, err := b.Stat(ctx, "x/a/1"); err != nil || !info.IsTerminal || info.Size != 5 || info.Modified.IsZero() {
		t.Errorf("stat of a file: %+v, %v", info, err)
	}
	if info, err := b.Stat(ctx, "x/a"); err != nil || info.IsTerminal {
		t.Errorf("stat of a folder: %+v, %v", info, err)
	}
	if _, err := b.Stat(ctx, "x/c"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat of nothing: %v", err)
	}
	if !b.Exists(ctx, "x") || !b.Exists(ctx, "xx/c") || b.Exists(ctx, "y") {
		t.Error("exists is wrong")
	}
	for _, c := range []struct {
		prefix    string
		recursive bool
		want      string
	}{
		{"x", false, "x/a x/b"}, {"x", true, "x/a x/a/1 x/a/2 x/b"}, {"", false, "x xx"}, {"x/a", true, "x/a/1 x/a/2"},
	} {
		got, err := b.List(ctx, c.prefix, c.recursive)
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("list %q: %v, %v", c.prefix, got, err)
		}
	}
	if _, err := b.List(ctx, "y", true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("list of nothing: %v", err)
	}
	if err := b.Delete(ctx, "x/a"); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(ctx, "x/a"); err != nil {
		t.Errorf("deleting again: %v", err)
	}
	if got, err := a.List(ctx, "", true); err != nil || strings.Join(got, " ") != "x x/b xx xx/c" {
		t.Errorf("after deleting a folder: %v, %v", got, err)
	}
	for _, name := range []string{"", "/x", "../x", "a//b", "a/../b", strings.Repeat("x", 600)} {
		if a.Store(ctx, name, nil) == nil {
			t.Errorf("the name %q was taken", name)
		}
	}
	if a.Store(ctx, "big", make([]byte, maxFile+1)) == nil {
		t.Error("a file without bounds was taken")
	}
}

func TestLocks(t *testing.T) {
	t.Parallel()
	a, b, clock := twoNodes(t)
	ctx := t.Context()
	if err := a.Lock(ctx, "l"); err != nil {
		t.Fatal(err)
	}
	if ok, err := b.TryLock(ctx, "l"); ok || err != nil {
		t.Fatalf("a held lock: %v, %v", ok, err)
	}
	if ok, err := a.TryLock(ctx, "l"); ok || err != nil {
		t.Fatalf("a lock that the node itself holds: %v, %v", ok, err)
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := b.Lock(short, "l"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting in vain: %v", err)
	}
	got := make(chan error)
	go func() { got <- b.Lock(ctx, "l") }()
	if err := a.Unlock(ctx, "l"); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if a.Unlock(ctx, "l") == nil {
		t.Error("a lock was released twice")
	}

	// The holder is gone for longer than its lease: another takes over, and the holder's writes are refused.
	clock.advance(lease / 2)
	if err := b.RenewLockLease(ctx, "l", time.Hour); err != nil {
		t.Fatal(err)
	}
	clock.advance(9 * time.Minute)
	if ok, err := a.TryLock(ctx, "l"); ok || err != nil {
		t.Errorf("a renewed lock: %v, %v", ok, err)
	}
	clock.advance(2 * time.Minute)
	if ok, err := a.TryLock(ctx, "l"); !ok || err != nil {
		t.Fatalf("a lock whose lease is over: %v, %v", ok, err)
	}
	if err := b.Store(ctx, "late", []byte("x")); storage.FaultOf(err) != storage.Conflict {
		t.Errorf("a write by who lost the lock: %v", err)
	}
	if err := b.Delete(ctx, "late"); storage.FaultOf(err) != storage.Conflict {
		t.Errorf("a delete by who lost the lock: %v", err)
	}
	if err := b.RenewLockLease(ctx, "l", lease); storage.FaultOf(err) != storage.Conflict {
		t.Errorf("a renewal by who lost the lock: %v", err)
	}
	if err := a.Store(ctx, "late", []byte("x")); err != nil {
		t.Errorf("a write by the holder: %v", err)
	}
	if err := b.Unlock(ctx, "l"); err != nil {
		t.Error(err)
	}
	if ok, err := b.TryLock(ctx, "l"); ok || err != nil {
		t.Error("who lost the lock released it for the holder")
	}
	if err := b.Store(ctx, "fresh", nil); err != nil {
		t.Errorf("a write without locks: %v", err)
	}
}

func TestLocksExclude(t *testing.T) {
	t.Parallel()
	a, b, _ := twoNodes(t)
	var inside, most atomic.Int32
	var wg sync.WaitGroup
	for i := range 6 {
		s := []*fileStore{a, b}[i%2]
		wg.Go(func() {
			for range 3 {
				if err := s.Lock(t.Context(), "l"); err != nil {
					t.Error(err)
					return
				}
				most.Store(max(most.Load(), inside.Add(1)))
				runtime.Gosched()
				inside.Add(-1)
				if err := s.Unlock(t.Context(), "l"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if most.Load() != 1 {
		t.Errorf("%d held the lock at once", most.Load())
	}
}
