package auditsearch

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/blevesearch/bleve/v2/index/scorch"
	bleve "github.com/blevesearch/bleve_index_api"
)

// folders is the one mutable package variable here. bleve offers sealing through two functions that are set for the whole
// process and are told a file's path only; so the folder of each open index is registered here with its key, and the
// functions look it up. A path whose folder is not registered is an error: nothing is ever written or read in clear.
var folders = registry{byPath: map[string]*folder{}}

type registry struct {
	install sync.Once
	mu      sync.RWMutex
	byPath  map[string]*folder
}

// A folder is what is known of one open index: its key, and the first error of bleve's own goroutines.
type folder struct {
	keyID  string
	key    []byte
	failed atomic.Pointer[error]
}

const asyncErrors = "bulwark-audit"

// add registers a folder. One folder is open once.
func (r *registry) add(path, keyID string, key []byte) (*folder, error) {
	if keyID == "" || len(key) != sha256.Size {
		return nil, errors.New("the audit index needs a key of 32 bytes with an id")
	}
	r.install.Do(func() {
		bleve.WriterHook, bleve.ReaderHook = r.writer, r.reader
		scorch.RegistryAsyncErrorCallbacks[asyncErrors] = r.asyncError
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, open := r.byPath[path]; open {
		return nil, fmt.Errorf("the audit index in %s is open already", path)
	}
	f := &folder{keyID: keyID, key: append([]byte(nil), key...)}
	r.byPath[path] = f
	return f, nil
}

func (r *registry) remove(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.byPath[path]; f != nil {
		clear(f.key)
	}
	delete(r.byPath, path)
}

func (r *registry) find(file string) (*folder, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if f := r.byPath[filepath.Dir(file)]; file != "" && f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("sealing the audit index: %q is in no folder that is open", filepath.Base(file))
}

// asyncError hears of a failed write or merge.
func (r *registry) asyncError(err error, path string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if f := r.byPath[path]; f != nil {
		f.failed.CompareAndSwap(nil, &err)
	}
}

// aead returns the cipher of one file. Each file has a key of its own, made from its name: so a file cannot take another's
// place, and no key sees as many values as random nonces allow (2^32; NIST SP 800-38D, section 8.3).
func (r *registry) aead(file string) (cipher.AEAD, *folder, error) {
	f, err := r.find(file)
	if err != nil {
		return nil, nil, err
	}
	key, err := hkdf.Key(sha256.New, f.key, nil, "bulwark audit index file "+filepath.Base(file), 32)
	if err != nil {
		return nil, nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, nil, err
	}
	a, err := cipher.NewGCMWithRandomNonce(block)
	return a, f, err
}

// writer is bleve's WriterHook. The id that it returns is the key's: bleve stores it in clear beside what is sealed.
func (r *registry) writer(context []byte) (string, func([]byte) []byte, error) {
	a, f, err := r.aead(string(context))
	if err != nil {
		return "", nil, err
	}
	return f.keyID, func(plain []byte) []byte {
		// bleve writes lengths in front of values, and takes nothing for nothing.
		if len(plain) == 0 || isPosition(plain) {
			return plain
		}
		return a.Seal(make([]byte, 0, len(plain)+a.Overhead()), nil, plain, nil)
	}, nil
}

// reader is bleve's ReaderHook. Only data that was never in a file has neither an id nor a path, and passes as it is.
func (r *registry) reader(id string, context []byte) (func([]byte) ([]byte, error), error) {
	if id == "" && len(context) == 0 {
		return nil, nil
	}
	a, f, err := r.aead(string(context))
	if err != nil {
		return nil, err
	}
	if id != f.keyID {
		return nil, fmt.Errorf("opening the audit index: %q is not sealed under the present key", filepath.Base(string(context)))
	}
	return func(sealed []byte) ([]byte, error) {
		if len(sealed) == 0 || isPosition(sealed) {
			return sealed, nil
		}
		plain, err := a.Open(nil, nil, sealed, nil)
		if err != nil {
			// bleve flattens errors on their way: so the folder remembers.
			failed := errSealed
			f.failed.CompareAndSwap(nil, &failed)
			return nil, errSealed
		}
		return plain, nil
	}, nil
}

// isPosition reports whether b is one of the two values that bleve stores for each document: the length of its id, and its id
// with the empty rest (which snappy writes as a zero). The id is a position, and tells nothing that the number of documents
// does not; sealed, the two took more than half of what a document takes. Whatever else bleve seals is a name (which has no
// zero), or longer. What is sealed is longer too.
func isPosition(b []byte) bool {
	return len(b) == 1 && b[0] == idSize || len(b) == idSize+1 && b[idSize] == 0
}

var errSealed = errors.New("a value of the audit index does not open: it was altered, or is not of this index")
