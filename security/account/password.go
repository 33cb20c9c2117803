package account

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sync/semaphore"

	"bulwark/storage"
)

// A password has 8 to 128 characters, of any kind (NIST SP 800-63B-4, section 3.1.1.2). Nothing is trimmed, folded or cut:
// it is compared exactly as it was typed.
const (
	minPassword = 8
	maxPassword = 128
)

// CheckPassword refuses a password that is too short or too long.
func CheckPassword(password string) error {
	switch n := utf8.RuneCountInString(password); {
	case n < minPassword:
		return &storage.Error{Fault: storage.BadInput, Code: "weak_password", Field: "password",
			Message: fmt.Sprintf("Password should be at least %d characters.", minPassword)}
	case n > maxPassword:
		return &storage.Error{Fault: storage.BadInput, Code: "validation_failed", Field: "password",
			Message: fmt.Sprintf("Password cannot be longer than %d characters", maxPassword)}
	}
	return nil
}

// A Peppered password is what is given to bcrypt. It is made inside a transaction, because only there is the tenant's key,
// and used outside, because bcrypt takes a quarter of a second.
type Peppered [22]byte

// Pepper returns the base64 form of the password's HMAC-SHA-256 (cut to 16 bytes) under the tenant's index key.
//
// bcrypt sees 22 bytes whatever was typed, so its limit of 72 bytes cuts nothing and a zero byte ends nothing; and a
// stolen hash cannot be tried against a dictionary without the tenant's key. 128 bits are more than any password has, and
// collisions are of no use to somebody without the key. The index key is used, under a label of its own, rather than a
// random record: it exists with the tenant, never changes when keys are rotated, and is destroyed with the tenant, so there
// is no first use to race for and nothing more to keep.
func Pepper(r storage.Reader, password string) (p Peppered, err error) {
	mac, err := r.Blind(pepperRef, "password", []byte(password))
	if err != nil {
		return p, err
	}
	if len(mac) != 16 {
		return p, errors.New("a blind key has not 16 bytes")
	}
	base64.RawURLEncoding.Encode(p[:], mac)
	return p, nil
}

var pepperRef = storage.Ref{Name: "pepper", Scope: storage.TenantScope}

// DefaultCost is bcrypt's cost where nothing else is set: about 0.3 s on one core.
const DefaultCost = 12

// A Hasher runs bcrypt, on as many cores as there are and no more: those who wait are served in the order in which they
// came, for a bounded time, and a bounded number of them.
type Hasher struct {
	cost    int
	slots   *semaphore.Weighted
	waiting atomic.Int64
	patient time.Duration
	dummy   []byte
	runs    atomic.Uint64
}

const (
	maxWaiting = 256
	maxWait    = 10 * time.Second
)

// NewHasher returns a Hasher of a bcrypt cost; 0 is DefaultCost.
func NewHasher(cost int) (*Hasher, error) {
	if cost == 0 {
		cost = DefaultCost
	}
	if cost < bcrypt.MinCost || cost > 16 {
		return nil, fmt.Errorf("the cost of password hashes is %d: set it to %d to 16", cost, bcrypt.MinCost)
	}
	// A hash that has the form and the cost of a real one and that no password has, so that an unknown account costs what a
	// known one does. Made by hand, because hashing something would cost every start of a node as much.
	dummy := fmt.Sprintf("$2a$%02d$%s", cost, ".....................................................")
	return &Hasher{
		cost:    cost,
		slots:   semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0))),
		patient: maxWait,
		dummy:   []byte(dummy),
	}, nil
}

// Hash returns the hash of a password.
func (h *Hasher) Hash(ctx context.Context, p Peppered) (hash []byte, err error) {
	busy := h.run(ctx, func() { hash, err = bcrypt.GenerateFromPassword(p[:], h.cost) })
	if busy != nil {
		return nil, busy
	}
	if err != nil {
		return nil, fmt.Errorf("hashing a password: %w", err)
	}
	return hash, nil
}

// Verify reports whether hash is that of the password. An empty hash stands for an account that does not exist or has no
// password: it takes as long, and is never right.
func (h *Hasher) Verify(ctx context.Context, hash []byte, p Peppered) (right bool, err error) {
	against := hash
	if len(against) == 0 {
		against = h.dummy
	}
	busy := h.run(ctx, func() { err = bcrypt.CompareHashAndPassword(against, p[:]) })
	switch {
	case busy != nil:
		return false, busy
	case err == nil:
		return len(hash) != 0, nil
	case errors.Is(err, bcrypt.ErrMismatchedHashAndPassword):
		return false, nil
	}
	return false, fmt.Errorf("verifying a password: %w", err)
}

// Runs is how often bcrypt has run.
func (h *Hasher) Runs() uint64 { return h.runs.Load() }

var errBusy = storage.Errorf(storage.TooMany, "over_request_rate_limit", "too many people are signing in at this moment: try again in a few seconds")

func (h *Hasher) run(ctx context.Context, fn func()) error {
	defer h.waiting.Add(-1)
	if h.waiting.Add(1) > maxWaiting {
		return errBusy
	}
	wait, cancel := context.WithTimeout(ctx, h.patient)
	defer cancel()
	if err := h.slots.Acquire(wait, 1); err != nil {
		return errBusy
	}
	defer h.slots.Release(1)
	h.runs.Add(1)
	fn()
	return nil
}
