package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"bulwark/cluster/fsm"
	"bulwark/cluster/transport"
	"bulwark/storage"
)

// A mark says up to where the log is no longer needed, because the database holds it.
type mark struct {
	Index, Term        uint64
	Configuration      []byte // as raft encodes it
	ConfigurationIndex uint64
	// Persisted is what the database held when the mark was made. A database that holds less was put back to an older copy.
	Persisted uint64
	// Received names the file in the log's folder that is about to become the database; see Finish.
	Received string `json:",omitempty"`
	// Emptied says that the log before the mark is being thrown away, or was, and that nothing was written to it since: its
	// only segment may not be there yet, or older entries still.
	Emptied bool `json:",omitempty"`
}

const (
	markName    = "mark"
	markKind    = "mark"
	markVersion = 1
	copyPattern = "copy-*" + tmpSuffix
)

// marks is a raft.SnapshotStore that keeps one mark and no copies: a copy is made when another node asks for it, and one
// that comes from another node becomes the database.
type marks struct {
	dir    string
	state  fsm.State
	logger *slog.Logger
	room   func(size int64) error // refuses a copy that the disk has no room for
	stall  time.Duration          // a copy that brings nothing for so long is given up
	drop   func()                 // ends the connection over which it comes

	writing sync.Mutex // held while the mark is changed; taken before mu

	mu       sync.Mutex
	last     *mark
	pending  *incoming               // received, and not installed yet
	incoming *incoming               // being received
	sending  map[storage.ID]*sending // to whom
}

func openMarks(dir string, state fsm.State) (*marks, error) {
	last, err := readMark(dir)
	if err != nil {
		return nil, err
	}
	if last != nil && last.Received != "" {
		return nil, fmt.Errorf("the log in %s was left while it took over the file %s: finish that first", dir, last.Received)
	}
	return &marks{dir: dir, state: state, last: last, sending: map[storage.ID]*sending{}, drop: func() {},
		room: func(int64) error { return nil }, stall: time.Minute, logger: slog.New(slog.DiscardHandler)}, nil
}

// readMark returns nil when there is none.
func readMark(dir string) (*mark, error) {
	b, err := readSmall(dir, markName, markKind, markVersion)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	k := new(mark)
	if err := json.Unmarshal(b, k); err != nil {
		return nil, fmt.Errorf("reading %s: %w", filepath.Join(dir, markName), errDamaged)
	}
	return k, nil
}

func writeMark(dir string, k *mark) error {
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return writeSmall(dir, markName, markKind, markVersion, b)
}

// Finish finishes what a crash left of taking over another node's copy: the file that the mark names gets the database's
// name. It is called before the database is opened, and does nothing where there is nothing to finish.
func Finish(dir, database string) error {
	k, err := readMark(dir)
	if err != nil || k == nil || k.Received == "" {
		return err
	}
	if k.Received != filepath.Base(k.Received) {
		return fmt.Errorf("reading %s: %w", filepath.Join(dir, markName), errDamaged)
	}
	// It was checked and synced before the mark named it. Where it is gone, it has its new name already.
	err = os.Rename(filepath.Join(dir, k.Received), database)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = syncDir(filepath.Dir(database))
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("taking over the database that another node sent: %w", err)
	}
	k.Received = ""
	return writeMark(dir, k)
}

func (m *marks) get() *mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// set writes k and makes it the mark. The caller holds m.writing.
func (m *marks) set(k mark) error {
	if err := writeMark(m.dir, &k); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = &k
	return nil
}

// forward makes k the mark, if there is not one by now that is further: of a copy that was taken over meanwhile.
func (m *marks) forward(k mark) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	if last := m.get(); last != nil {
		if last.Index > k.Index {
			return fmt.Errorf("the mark at %d is further than %d", last.Index, k.Index)
		}
		k.Emptied = last.Emptied // until something is written
	}
	return m.set(k)
}

func (k *mark) meta() *raft.SnapshotMeta {
	return &raft.SnapshotMeta{
		Version: 1, ID: fmt.Sprintf("%d-%d", k.Term, k.Index), Index: k.Index, Term: k.Term,
		Configuration: raft.DecodeConfiguration(k.Configuration), ConfigurationIndex: k.ConfigurationIndex,
	}
}

func (m *marks) List() ([]*raft.SnapshotMeta, error) {
	if k := m.get(); k != nil {
		return []*raft.SnapshotMeta{k.meta()}, nil
	}
	return nil, nil
}

// Open returns a copy of the database as it is sent to another node, with the latest mark, which may be newer than the one
// asked for. The copy may be newer still: the node that takes it passes over the entries that it already holds.
//
// A node that has received a copy opens it, too: raft then calls fsm.Restore, which installs it without reading it again.
func (m *marks) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m.mu.Lock()
	k, in := m.last, m.pending
	m.mu.Unlock()
	if in != nil && in.mark.meta().ID == id {
		return in.mark.meta(), io.NopCloser(strings.NewReader("")), nil
	}
	if k == nil {
		return nil, nil, fmt.Errorf("there is no mark %q", id)
	}
	copier, ok := m.state.(fsm.Copier)
	if !ok {
		return nil, nil, errors.New("copying the database: this database cannot write a copy of itself")
	}
	index, size, image, err := copier.Copy()
	if err != nil {
		return nil, nil, err
	}
	if index < k.Index {
		return nil, nil, errors.Join(fmt.Errorf("copying the database: it holds entries up to %d, and the mark is at %d", index, k.Index), image.Close())
	}
	meta := k.meta()
	meta.Size = copySize(size)
	r, w := io.Pipe()
	out := &outgoing{PipeReader: r, done: make(chan struct{})}
	go func() {
		defer close(out.done)
		e, err := newCopyEncoder(w, size, index)
		if err == nil {
			_, err = image.WriteTo(e)
		}
		w.CloseWithError(errors.Join(err, image.Close()))
	}()
	return meta, out, nil
}

// outgoing is a copy of the database that is being read.
type outgoing struct {
	*io.PipeReader
	done chan struct{}
}

// Close returns when the database is not read any more.
func (o *outgoing) Close() error {
	err := o.PipeReader.Close()
	<-o.done
	return err
}

func (m *marks) Create(_ raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &sink{marks: m, mark: mark{Index: index, Term: term, Configuration: raft.EncodeConfiguration(c), ConfigurationIndex: cIndex}}, nil
}

// A sink makes one mark: of this node's database, or, when a copy is written to it, of the one that comes.
type sink struct {
	marks  *marks
	mark   mark
	marked bool
	done   bool
	in     *incoming
}

// Mark is fsm.Marker.
func (s *sink) Mark(persisted uint64) { s.mark.Persisted, s.marked = persisted, true }

// Write takes a part of another node's copy.
func (s *sink) Write(p []byte) (int, error) {
	if s.in == nil {
		in, err := s.marks.receive(s.mark)
		if err != nil {
			return 0, err
		}
		s.in = in
	}
	return s.in.Write(p)
}

func (s *sink) Close() error {
	if s.done {
		return nil
	}
	s.done = true
	switch {
	case s.in != nil:
		return s.in.finish()
	case !s.marked:
		return errors.New("a mark needs the index that the database has persisted")
	}
	return s.marks.forward(s.mark)
}

func (s *sink) Cancel() error {
	s.done = true
	if s.in != nil {
		s.in.giveUp()
	}
	return nil
}

func (s *sink) ID() string { return s.mark.meta().ID }

// incoming is a copy of another node's database that is being received.
type incoming struct {
	marks    *marks
	mark     mark
	file     *os.File
	decoder  *copyDecoder
	watchdog *time.Timer
	received atomic.Int64
	total    atomic.Int64
	unsynced int64
	logged   time.Time
}

// syncEvery keeps what is synced last short: raft waits for that.
const syncEvery = 32 << 20

// logEvery is how often the progress of a copy is logged.
const logEvery = 5 * time.Second

func (m *marks) receive(k mark) (*incoming, error) {
	m.forget()
	f, err := os.CreateTemp(m.dir, copyPattern)
	if err != nil {
		return nil, fmt.Errorf("receiving a copy of the database: %w", err)
	}
	in := &incoming{marks: m, mark: k, file: f, logged: time.Now()}
	in.decoder = &copyDecoder{w: f, begin: func(size int64, index uint64) error {
		in.total.Store(size)
		if index < k.Index {
			return fmt.Errorf("%w: it holds entries up to %d, and its mark is at %d", errCopy, index, k.Index)
		}
		m.logger.Info("receiving a copy of the database: this node was too far behind the log", "bytes", size, "index", index)
		return m.room(size)
	}}
	in.watchdog = time.AfterFunc(m.stall, func() {
		m.logger.Warn("a copy of the database brings nothing any more: it is given up and asked for again")
		m.drop()
	})
	m.mu.Lock()
	m.incoming = in
	m.mu.Unlock()
	return in, nil
}

func (in *incoming) Write(p []byte) (int, error) {
	in.watchdog.Reset(in.marks.stall)
	n, err := in.decoder.Write(p)
	in.received.Store(in.decoder.size - in.decoder.left)
	if in.unsynced += int64(n); err == nil && in.unsynced >= syncEvery {
		in.unsynced = 0
		err = in.file.Sync()
	}
	if now := time.Now(); now.Sub(in.logged) >= logEvery {
		in.logged = now
		in.marks.logger.Info("receiving a copy of the database", "received", in.received.Load(), "of", in.total.Load())
	}
	return n, err
}

// finish keeps the copy for install, when all of it came.
func (in *incoming) finish() error {
	in.watchdog.Stop()
	err := in.decoder.done()
	if err == nil {
		err = in.file.Sync()
	}
	if err == nil {
		err = in.file.Close()
	}
	if err != nil {
		in.giveUp()
		return err
	}
	in.marks.mu.Lock()
	defer in.marks.mu.Unlock()
	in.marks.pending = in
	return nil
}

func (in *incoming) giveUp() {
	in.watchdog.Stop()
	in.file.Close() // what was written is thrown away
	if err := os.Remove(in.file.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		in.marks.logger.Warn("removing a copy of the database", "error", err)
	}
	in.leave()
}

// leave ends the copy and leaves its file where it is.
func (in *incoming) leave() {
	in.marks.mu.Lock()
	defer in.marks.mu.Unlock()
	if in.marks.incoming == in {
		in.marks.incoming = nil
	}
	if in.marks.pending == in {
		in.marks.pending = nil
	}
}

// forget throws away a copy that was received and never installed.
func (m *marks) forget() {
	m.mu.Lock()
	in := m.pending
	m.mu.Unlock()
	if in != nil {
		in.giveUp()
	}
}

// install is the state machine's fsm.Installer. A crash at any point of it leaves a node that starts: first the mark names
// the received file, then that gets the database's name, then the mark stops naming it. See Finish.
func (m *marks) install() (index, term uint64, err error) {
	m.writing.Lock()
	defer m.writing.Unlock()
	m.mu.Lock()
	in, old := m.pending, m.last
	m.mu.Unlock()
	if in == nil {
		return 0, 0, errors.New("no copy was received")
	}
	named := false // by the mark: the file must stay, for Finish
	defer func() {
		if named {
			in.leave()
		} else {
			in.giveUp()
		}
	}()
	began := time.Now()
	k := in.mark
	k.Emptied = true // raft empties the log next
	if index, _ = m.state.Applied(); index >= k.Index {
		// The state came that far while the copy was under way, and may be ahead of it: it is kept.
		if err := m.state.Flush(); err != nil {
			return 0, 0, err
		}
		if k.Persisted = m.state.Persisted(); k.Persisted < index {
			return 0, 0, fmt.Errorf("the database holds entries up to %d and should hold them up to %d", k.Persisted, index)
		}
		return index, k.Term, m.set(k)
	}
	restorer, ok := m.state.(fsm.Restorer)
	if !ok {
		return 0, 0, errors.New("this database cannot take over another node's copy")
	}
	path := in.file.Name()
	if index, err = restorer.CheckCopy(path); err != nil {
		return 0, 0, err
	}
	if index < k.Index {
		return 0, 0, fmt.Errorf("%w: it holds entries up to %d, and its mark is at %d", errCopy, index, k.Index)
	}
	k.Persisted, k.Received = index, filepath.Base(path)
	named = true
	err = m.set(k)
	if err == nil {
		err = restorer.Restore(path)
	}
	if err != nil {
		if m.state.Failed() == nil {
			back := m.back(old)
			named = back != nil
			err = errors.Join(err, back)
		}
		return 0, 0, err
	}
	k.Received = ""
	if err := m.set(k); err != nil {
		return 0, 0, err
	}
	m.logger.Info("took over a copy of the database", "index", index, "bytes", in.total.Load(), "took", time.Since(began))
	return index, k.Term, nil
}

// back puts the mark back to what it was.
func (m *marks) back(old *mark) error {
	if old != nil {
		return m.set(*old)
	}
	if err := os.Remove(filepath.Join(m.dir, markName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	m.mu.Lock()
	m.last = nil
	m.mu.Unlock()
	return syncDir(m.dir)
}

// finishEmptying empties a log that a crash left with entries from before the database was taken over from another node.
// One that goes on from the mark as the other node's does is kept: its entries may have been acknowledged.
func (c *Cluster) finishEmptying() error {
	k := c.marks.get()
	if k == nil || !k.Emptied {
		return nil
	}
	first, err := c.wal.FirstIndex()
	if err != nil {
		return err
	}
	last, err := c.wal.LastIndex()
	if err != nil || last == 0 || first > k.Index {
		return err
	}
	if last > k.Index {
		var l raft.Log
		if err := c.wal.GetLog(k.Index, &l); err != nil || l.Term == k.Term {
			return err
		}
	}
	return c.wal.DeleteRange(first, last)
}

// emptying notes that the whole log is about to go; filled, that it has entries again.
func (m *marks) emptying() error { return m.setEmptied(true) }
func (m *marks) filled() error   { return m.setEmptied(false) }

func (m *marks) setEmptied(to bool) error {
	if k := m.get(); k == nil || k.Emptied == to {
		return nil
	}
	m.writing.Lock()
	defer m.writing.Unlock()
	k := m.get()
	changed := *k
	changed.Emptied = to
	return m.set(changed)
}

// Install says how much of another node's copy this node has received; ok is false when it is not being fed one.
func (c *Cluster) Install() (received, total int64, ok bool) {
	c.marks.mu.Lock()
	in := c.marks.incoming
	c.marks.mu.Unlock()
	if in == nil {
		return 0, 0, false
	}
	return in.received.Load(), in.total.Load(), true
}

// A Transfer is a copy of this node's database that is being sent to another node.
type Transfer struct {
	Node        storage.ID
	Sent, Total int64 // bytes
}

// sending is a Transfer as it goes on.
type sending struct {
	io.Reader
	sent   atomic.Int64
	total  int64
	to     storage.ID
	logger *slog.Logger
	logged time.Time
}

func (s *sending) Read(p []byte) (n int, err error) {
	n, err = s.Reader.Read(p)
	s.sent.Add(int64(n))
	if now := time.Now(); now.Sub(s.logged) >= logEvery {
		s.logged = now
		s.logger.Info("sending a copy of the database", "node", s.to, "sent", s.sent.Load(), "of", s.total)
	}
	return n, err
}

// Transfers are the copies of this node's database that are under way to others.
func (c *Cluster) Transfers() []Transfer {
	c.marks.mu.Lock()
	defer c.marks.mu.Unlock()
	var all []Transfer
	for id, s := range c.marks.sending {
		all = append(all, Transfer{Node: id, Sent: s.sent.Load(), Total: s.total})
	}
	slices.SortFunc(all, func(a, b Transfer) int { return bytes.Compare(a.Node[:], b.Node[:]) })
	return all
}

// A sender is the transport that raft sees: it counts what is sent of copies.
type sender struct {
	*transport.Transport
	marks *marks
}

func (t sender) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	to, err := storage.ParseID(string(id))
	if err != nil {
		return err
	}
	s := &sending{Reader: data, total: args.Size, to: to, logger: t.marks.logger, logged: time.Now()}
	t.marks.mu.Lock()
	t.marks.sending[to] = s
	t.marks.mu.Unlock()
	defer func() {
		t.marks.mu.Lock()
		defer t.marks.mu.Unlock()
		delete(t.marks.sending, to)
	}()
	return t.Transport.InstallSnapshot(id, target, args, resp, s)
}

// keepShort marks the database and drops the log before the mark whenever enough was written since the last time.
func (c *Cluster) keepShort(ctx context.Context) {
	defer c.running.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.full:
		}
		c.store.written.Store(0)
		if err := await(c, c.raft.Snapshot()); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && ctx.Err() == nil {
			c.logger.Warn("marking the log", "error", err)
		}
	}
}

// lastMark marks the database before the node stops, so that the next start has nothing to replay. It may fail: then there
// is something to replay.
func (c *Cluster) lastMark() {
	done := make(chan error, 1)
	go func() { done <- c.raft.Snapshot().Error() }()
	timer := time.NewTimer(c.config.NoLeader)
	defer timer.Stop()
	select {
	case err := <-done:
		if err != nil {
			c.logger.Debug("marking the log before stopping", "error", err)
		}
	case <-c.failed:
	case <-timer.C:
		c.logger.Warn("the database takes long to flush: the next start will replay the log")
	}
}

// Entries calls fn with the committed commands of the log from an index on, in order, until it returns false. at is when
// the leader took the entry, by its clock; data is the caller's. Where the log does not go back so far there is an error
// (Unavailable, code "log_cut"). Writes and cuts of the log go on meanwhile.
func (c *Cluster) Entries(from uint64, fn func(index, term uint64, at time.Time, data []byte) bool) error {
	commit := c.raft.CommitIndex()
	for i := max(from, 1); i <= commit; i++ {
		var l raft.Log
		err := c.wal.GetLog(i, &l)
		switch {
		case errors.Is(err, raft.ErrLogNotFound):
			return storage.Errorf(storage.Unavailable, "log_cut", "the log no longer holds entry %d: begin again from a snapshot", i)
		case err == nil && l.Index != i:
			err = errors.New("it is another entry")
		}
		if err != nil && c.isClosing() {
			return storage.Errorf(storage.Unavailable, "stopping", "the node is stopping")
		}
		if err != nil {
			return c.store.refuse(fmt.Errorf("reading the log, entry %d: %w", i, err))
		}
		if l.Type == raft.LogCommand && len(l.Data) > 0 && !fn(l.Index, l.Term, l.AppendedAt, l.Data) {
			return nil
		}
	}
	return nil
}

func (c *Cluster) isClosing() bool {
	select {
	case <-c.closing:
		return true
	default:
		return false
	}
}
