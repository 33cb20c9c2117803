package keys

import (
	"encoding/json"
	"fmt"
	"io"

	"golang.org/x/crypto/argon2"

	"bulwark/storage"
)

// A PassphraseSeal keeps the root key in the header, sealed under a key that Argon2id (RFC 9106) makes of a passphrase.
type PassphraseSeal struct {
	read func() ([]byte, error)
	rand io.Reader
}

// The cost for new headers: RFC 9106's second recommendation, 64 MiB. A header with a cost above the limits was not
// written by us, and would only use up the machine.
const (
	argonTime, argonTimeLimit         = 3, 64
	argonMemoryKiB, argonMemoryLimit  = 64 << 10, 4 << 20
	argonThreads, argonThreadsLimit   = 4, 64
	argonSaltLen                      = 16
	minPassphraseLen, maxPassphrasLen = 12, 4096
)

type passphraseParams struct {
	Time      uint32 `json:"time"`
	MemoryKiB uint32 `json:"memory_kib"`
	Threads   uint8  `json:"threads"`
	Salt      []byte `json:"salt"`
	Nonce     []byte `json:"nonce"`
	Sealed    []byte `json:"sealed"`
}

// NewPassphraseSeal returns a seal that asks read for the passphrase, exactly as typed, without the end of the line. It
// clears what it was given. rand is used by Close.
func NewPassphraseSeal(read func() ([]byte, error), rand io.Reader) *PassphraseSeal {
	return &PassphraseSeal{read: read, rand: rand}
}

// Kind is Passphrase.
func (s *PassphraseSeal) Kind() Kind { return Passphrase }

func (p *passphraseParams) cipher(passphrase []byte) *xaes {
	key := argon2.IDKey(passphrase, p.Salt, p.Time, p.MemoryKiB, p.Threads, keyLen)
	defer clear(key)
	return newXAES(key)
}

// data binds the sealed root key to its cluster. Argon2's own parameters need no binding: with others, another key comes
// out.
func (p *passphraseParams) data(cluster storage.ID) []byte {
	return fmt.Appendf(nil, "bulwark passphrase seal\n%s", cluster)
}

// Close seals root under a new passphrase of 12 bytes or more.
func (s *PassphraseSeal) Close(cluster storage.ID, root []byte) (json.RawMessage, error) {
	passphrase, err := s.read()
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	defer clear(passphrase)
	if len(passphrase) < minPassphraseLen || len(passphrase) > maxPassphrasLen {
		return nil, storage.Errorf(storage.BadInput, "bad_passphrase",
			"the passphrase must have %d to %d bytes: take some random words", minPassphraseLen, maxPassphrasLen)
	}
	p := &passphraseParams{
		Time: argonTime, MemoryKiB: argonMemoryKiB, Threads: argonThreads,
		Salt: make([]byte, argonSaltLen), Nonce: make([]byte, nonceLen),
	}
	for _, b := range [][]byte{p.Salt, p.Nonce} {
		if _, err := io.ReadFull(s.rand, b); err != nil {
			return nil, fmt.Errorf("drawing a salt: %w", err)
		}
	}
	p.Sealed = p.cipher(passphrase).seal(nil, p.Nonce, root, p.data(cluster))
	return json.Marshal(p)
}

// Open asks for the passphrase.
func (s *PassphraseSeal) Open(cluster storage.ID, params json.RawMessage) ([]byte, error) {
	p := &passphraseParams{}
	if err := readParams(params, p); err != nil {
		return nil, err
	}
	if p.Time < 1 || p.Time > argonTimeLimit || p.MemoryKiB < 8 || p.MemoryKiB > argonMemoryLimit || p.Threads < 1 || p.Threads > argonThreadsLimit ||
		len(p.Salt) != argonSaltLen || len(p.Nonce) != nonceLen || len(p.Sealed) != RootLen+tagLen {
		return nil, damagedParams()
	}
	passphrase, err := s.read()
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	defer clear(passphrase)
	if len(passphrase) > maxPassphrasLen {
		return nil, wrongPassphrase()
	}
	root, err := p.cipher(passphrase).open(nil, p.Nonce, p.Sealed, p.data(cluster))
	if err != nil {
		return nil, wrongPassphrase()
	}
	return root, nil
}

func wrongPassphrase() error {
	return storage.Errorf(storage.BadInput, "wrong_passphrase",
		"the passphrase is wrong: type it again, exactly as it was chosen")
}
