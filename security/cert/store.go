package cert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"bulwark/storage"
)

// A file is one value that certmagic keeps: a certificate, its key, what is known about it.
type file struct {
	Name     string    `cbor:"n"`
	Value    []byte    `cbor:"v"`
	Modified time.Time `cbor:"m"`
}

// A lock is one named lock. It stays when it is released, so that Token only ever grows.
type lock struct {
	Name  string    `cbor:"n"`
	Token uint64    `cbor:"t"` // of the latest holder
	Until time.Time `cbor:"u"` // when the lease ends; zero when it was released
	By    owner     `cbor:"b,omitzero"`
}

// An owner is one run of one node. A node runs once at a time, so what an earlier run of it held is nobody's.
type owner struct {
	Node storage.ID `cbor:"n"`
	Run  storage.ID `cbor:"r"`
}

// held reports whether somebody else than o may still be working under the lock.
func (l *lock) held(now time.Time, o owner) bool {
	if !now.Before(l.Until) {
		return false
	}
	return l.By.Node != o.Node || l.By.Run == o.Run || o.Node.IsZero()
}

var (
	files = storage.NewTable("cert", storage.TenantScope, storage.Unique("name", func(f *file) []byte { return []byte(f.Name) }))
	locks = storage.NewTable("certlock", storage.TenantScope, storage.Unique("name", func(l *lock) []byte { return []byte(l.Name) }))
)

// lease is how long a lock holds unless it is renewed. Nothing done under a lock leaves the machine, so it takes moments;
// after a crash the other nodes wait this long, and the node itself not at all.
const lease = time.Minute

// maxFile bounds one file, in bytes.
const maxFile = 256 << 10

// errClosed is returned once the Manager is closed.
var errClosed = errors.New("the certificate store is closed")

// A fileStore is certmagic's Storage in the replicated store. Everything in it is sealed, names included.
//
// A lock is a record with a lease and a token that grows with each holder. A write is refused when the writer holds a
// lock whose token is no longer the record's: somebody else took it over, so what is being written is out of date.
type fileStore struct {
	store  storage.Store
	by     storage.Actor
	owner  owner
	ctx    context.Context // ends when the Manager closes
	poll   time.Duration   // between looks at a lock that another holds
	active sync.WaitGroup

	mu     sync.Mutex
	closed bool
	held   map[string]uint64 // lock to token
}

var (
	_ certmagic.Storage          = (*fileStore)(nil)
	_ certmagic.TryLocker        = (*fileStore)(nil)
	_ certmagic.LockLeaseRenewer = (*fileStore)(nil)
)

func newFileStore(ctx context.Context, store storage.Store, by storage.Actor, o owner) *fileStore {
	return &fileStore{store: store, by: by, owner: o, ctx: ctx, poll: 200 * time.Millisecond, held: map[string]uint64{}}
}

// begin joins ctx with the store's life, and counts the operation until end.
func (s *fileStore) begin(ctx context.Context) (context.Context, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, errClosed
	}
	s.active.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
		s.active.Done()
	}, nil
}

// close lets no operation begin, and waits for those that run; the caller has ended their context.
func (s *fileStore) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.active.Wait()
}

func (s *fileStore) view(ctx context.Context, name string, fn func(storage.Reader) error) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	return s.store.View(ctx, s.by, storage.Intent{Action: "certificate.read", Object: name}, fn)
}

func (s *fileStore) update(ctx context.Context, action, name string, fn func(storage.Tx) error) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	return s.store.Update(ctx, s.by, storage.Intent{Action: action, Object: name}, fn)
}

// checkName refuses what is not a relative slash-separated path.
func checkName(name string) error {
	if name == "" || len(name) > 512 || strings.HasPrefix(name, "/") || path.Clean(name) != name || strings.HasPrefix(name, "..") {
		return fmt.Errorf("%q is not a name of a file", name)
	}
	return nil
}

// Store implements certmagic.Storage.
func (s *fileStore) Store(ctx context.Context, name string, value []byte) error {
	if err := checkName(name); err != nil {
		return err
	}
	if len(value) > maxFile {
		return fmt.Errorf("storing %s: %d bytes are more than a certificate has", name, len(value))
	}
	value = bytes.Clone(value)
	return s.update(ctx, "certificate.write", name, func(tx storage.Tx) error {
		if err := s.fence(tx); err != nil {
			return err
		}
		id, _, err := files.ByUnique(tx, "name", []byte(name))
		if storage.IsNotFound(err) {
			id, err = tx.NewID(), nil
		}
		if err != nil {
			return err
		}
		return files.Put(tx, id, file{Name: name, Value: value, Modified: tx.Now()})
	})
}

// fence refuses when a lock that this node thinks it holds is another's by now.
func (s *fileStore) fence(tx storage.Reader) error {
	s.mu.Lock()
	held := make(map[string]uint64, len(s.held))
	for name, token := range s.held {
		held[name] = token
	}
	s.mu.Unlock()
	for name, token := range held {
		_, l, err := locks.ByUnique(tx, "name", []byte(name))
		if err != nil {
			return fmt.Errorf("looking at the lock %s: %w", name, err)
		}
		if l.Token != token {
			return storage.Errorf(storage.Conflict, "lock_lost", "the lock %s was taken over by another node", name)
		}
	}
	return nil
}

// Load implements certmagic.Storage.
func (s *fileStore) Load(ctx context.Context, name string) (value []byte, err error) {
	err = s.view(ctx, name, func(r storage.Reader) error {
		_, f, err := files.ByUnique(r, "name", []byte(name))
		value = f.Value
		return err
	})
	return value, notExist(name, err)
}

// notExist says it in certmagic's word.
func notExist(name string, err error) error {
	if storage.IsNotFound(err) {
		return &fs.PathError{Op: "load", Path: name, Err: fs.ErrNotExist}
	}
	return err
}

// Delete implements certmagic.Storage: a file, or all files below a prefix.
func (s *fileStore) Delete(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return s.update(ctx, "certificate.delete", name, func(tx storage.Tx) error {
		if err := s.fence(tx); err != nil {
			return err
		}
		var ids []storage.ID
		err := files.All(tx, storage.ID{}, func(id storage.ID, f file) bool {
			if f.Name == name || strings.HasPrefix(f.Name, name+"/") {
				ids = append(ids, id)
			}
			return true
		})
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := files.Delete(tx, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// Exists implements certmagic.Storage.
func (s *fileStore) Exists(ctx context.Context, name string) bool {
	_, err := s.Stat(ctx, name)
	return err == nil
}

// Stat implements certmagic.Storage.
func (s *fileStore) Stat(ctx context.Context, name string) (certmagic.KeyInfo, error) {
	info := certmagic.KeyInfo{Key: name}
	err := s.view(ctx, name, func(r storage.Reader) error {
		_, f, err := files.ByUnique(r, "name", []byte(name))
		if err == nil {
			info.Modified, info.Size, info.IsTerminal = f.Modified, int64(len(f.Value)), true
		}
		if !storage.IsNotFound(err) {
			return err
		}
		below := false
		if err := files.All(r, storage.ID{}, func(_ storage.ID, f file) bool {
			below = strings.HasPrefix(f.Name, name+"/")
			return !below
		}); err != nil {
			return err
		}
		if !below {
			return storage.ErrNotFound
		}
		return nil
	})
	if err != nil {
		return certmagic.KeyInfo{}, notExist(name, err)
	}
	return info, nil
}

// List implements certmagic.Storage: the files and folders below prefix, of one level or of all.
func (s *fileStore) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	found := map[string]bool{}
	err := s.view(ctx, prefix, func(r storage.Reader) error {
		return files.All(r, storage.ID{}, func(_ storage.ID, f file) bool {
			rest, ok := f.Name, true
			if prefix != "" {
				rest, ok = strings.CutPrefix(f.Name, prefix+"/")
			}
			if !ok {
				return true
			}
			if !recursive {
				rest, _, _ = strings.Cut(rest, "/")
				found[path.Join(prefix, rest)] = true
				return true
			}
			for rest != "." {
				found[path.Join(prefix, rest)] = true
				rest = path.Dir(rest)
			}
			return true
		})
	})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, notExist(prefix, storage.ErrNotFound)
	}
	names := make([]string, 0, len(found))
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// Lock implements certmagic.Storage. It waits for the holder to release the lock, or for its lease to end.
func (s *fileStore) Lock(ctx context.Context, name string) error {
	for {
		ok, err := s.TryLock(ctx, name)
		if ok || err != nil {
			return err
		}
		// Jitter, so that nodes that wait together do not come together.
		t := time.NewTimer(s.poll/2 + rand.N(s.poll))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-s.ctx.Done():
			t.Stop()
			return errClosed
		}
	}
}

// errHeld says inside a transaction that another holds the lock, so that it writes nothing.
var errHeld = storage.Errorf(storage.Conflict, "lock_held", "another holds the lock")

// TryLock implements certmagic.TryLocker.
func (s *fileStore) TryLock(ctx context.Context, name string) (bool, error) {
	var token uint64
	// Looking costs no entry in the log, so look first.
	err := s.view(ctx, name, func(r storage.Reader) error {
		_, l, err := locks.ByUnique(r, "name", []byte(name))
		if err == nil && l.held(r.Now(), s.owner) {
			return errHeld
		}
		if storage.IsNotFound(err) {
			return nil
		}
		return err
	})
	if err == nil {
		err = s.update(ctx, "certificate.lock", name, func(tx storage.Tx) error {
			id, l, err := locks.ByUnique(tx, "name", []byte(name))
			switch {
			case storage.IsNotFound(err):
				id, l = tx.NewID(), lock{Name: name}
			case err != nil:
				return err
			case l.held(tx.Now(), s.owner):
				return errHeld
			}
			l.Token++
			l.By = s.owner
			l.Until = tx.Now().Add(lease)
			token = l.Token
			return locks.Put(tx, id, l)
		})
	}
	if errors.Is(err, errHeld) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("taking the lock %s: %w", name, err)
	}
	s.mu.Lock()
	s.held[name] = token
	s.mu.Unlock()
	return true, nil
}

// Unlock implements certmagic.Storage. A lock that was taken over meanwhile is the other's to release.
func (s *fileStore) Unlock(ctx context.Context, name string) error {
	s.mu.Lock()
	token, ok := s.held[name]
	delete(s.held, name)
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("releasing the lock %s: it is not held", name)
	}
	return s.change(ctx, "certificate.unlock", name, token, func(_ time.Time, l *lock) { l.Until = time.Time{} })
}

// RenewLockLease implements certmagic.LockLeaseRenewer. A lease is never longer than ten minutes: what a crash leaves
// behind must end.
func (s *fileStore) RenewLockLease(ctx context.Context, name string, d time.Duration) error {
	s.mu.Lock()
	token, ok := s.held[name]
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("renewing the lock %s: it is not held", name)
	}
	lost := true
	err := s.change(ctx, "certificate.lock", name, token, func(now time.Time, l *lock) {
		lost = false
		l.Until = now.Add(min(max(d, lease), 10*time.Minute))
	})
	if err == nil && lost {
		return storage.Errorf(storage.Conflict, "lock_lost", "the lock %s was taken over by another node", name)
	}
	return err
}

// change applies fn to a lock if it is still the holder's of token.
func (s *fileStore) change(ctx context.Context, action, name string, token uint64, fn func(now time.Time, l *lock)) error {
	return s.update(ctx, action, name, func(tx storage.Tx) error {
		id, l, err := locks.ByUnique(tx, "name", []byte(name))
		if err != nil {
			return fmt.Errorf("looking at the lock %s: %w", name, err)
		}
		if l.Token != token {
			return nil
		}
		fn(tx.Now(), &l)
		return locks.Put(tx, id, l)
	})
}
