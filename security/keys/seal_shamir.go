package keys

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"

	"bulwark/storage"
)

// A ShamirSeal keeps the root key nowhere: it gives out shares, some of which together are the key. It is safe for
// concurrent use, since shares come from several people.
type ShamirSeal struct {
	rand              io.Reader
	threshold, shares int

	mu    sync.Mutex
	given []string // by Close
	got   []Share  // by Offer
}

type shamirParams struct {
	Threshold int    `json:"threshold"`
	Shares    int    `json:"shares"`
	Set       []byte `json:"set"` // names this division, so that shares of two are not mixed
}

const (
	shareFormat  = 1
	sharePrefix  = "bulwark-share-"
	setLen       = 4
	shareSumLen  = 4
	shareLen     = 3 + 16 + setLen + RootLen + shareSumLen
	maxShares    = 255
	maxShareText = 512
)

// NewShamirSeal returns a seal that divides the root key into shares, of which threshold open it again: 2 to 255.
func NewShamirSeal(threshold, shares int, rand io.Reader) (*ShamirSeal, error) {
	if threshold < 2 || shares < threshold || shares > maxShares {
		return nil, storage.Errorf(storage.BadInput, "bad_shares",
			"%d of %d shares cannot be: take a threshold of at least 2, and at least as many shares, up to %d", threshold, shares, maxShares)
	}
	return &ShamirSeal{rand: rand, threshold: threshold, shares: shares}, nil
}

// CollectShares returns a seal to be opened by shares, which are given to Offer.
func CollectShares() *ShamirSeal { return &ShamirSeal{} }

// Kind is Shamir.
func (s *ShamirSeal) Kind() Kind { return Shamir }

// Close divides root. Shares returns the result.
func (s *ShamirSeal) Close(cluster storage.ID, root []byte) (json.RawMessage, error) {
	if s.rand == nil {
		return nil, storage.Errorf(storage.Internal, "bad_shares", "a seal that collects shares cannot be closed")
	}
	set := make([]byte, setLen)
	if _, err := io.ReadFull(s.rand, set); err != nil {
		return nil, fmt.Errorf("drawing the shares' name: %w", err)
	}
	parts, err := split(s.rand, root, s.threshold, s.shares)
	if err != nil {
		return nil, fmt.Errorf("drawing the shares: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = nil
	for i, part := range parts {
		share := Share{Index: i + 1, Threshold: s.threshold, Cluster: cluster, set: [setLen]byte(set), secret: [RootLen]byte(part)}
		s.given = append(s.given, share.encode())
		clear(part)
	}
	return json.Marshal(shamirParams{Threshold: s.threshold, Shares: s.shares, Set: set})
}

// Shares returns the shares that Close made, once: to be shown to the operator and forgotten.
func (s *ShamirSeal) Shares() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	given := s.given
	s.given = nil
	return given
}

// Offer takes one share, and returns how many there are and how many it takes. When there are enough, Header.Open opens.
func (s *ShamirSeal) Offer(h *Header, text string) (have, need int, err error) {
	p, err := readShamirParams(h.Params)
	if err != nil {
		return 0, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have, need = len(s.got), p.Threshold
	share, err := ParseShare(text)
	if err != nil {
		return have, need, err
	}
	if share.Cluster != h.Cluster {
		return have, need, storage.Errorf(storage.BadInput, "other_cluster",
			"this share belongs to cluster %s, and this node to cluster %s: give a share of this cluster", share.Cluster, h.Cluster)
	}
	if string(share.set[:]) != string(p.Set) || share.Threshold != p.Threshold || share.Index > p.Shares {
		return have, need, storage.Errorf(storage.BadInput, "other_shares",
			"share %d is of another division of this cluster's key: give a share that was made together with "+
				"this node's seal", share.Index)
	}
	for _, other := range s.got {
		if other.Index == share.Index {
			return have, need, storage.Errorf(storage.Exists, "duplicate_share",
				"share %d was given already (have %d of %d): give another one", share.Index, have, need)
		}
	}
	if have < need {
		s.got = append(s.got, share)
	}
	return len(s.got), need, nil
}

// Forget drops the shares that were offered.
func (s *ShamirSeal) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
}

func (s *ShamirSeal) forget() {
	clear(s.got)
	s.got = nil
}

// Open combines the shares that were offered, and forgets them.
func (s *ShamirSeal) Open(_ storage.ID, params json.RawMessage) ([]byte, error) {
	p, err := readShamirParams(params)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.got) < p.Threshold {
		return nil, storage.Errorf(storage.Unavailable, "more_shares",
			"have %d of %d shares: give %d more with `bulwark operator unseal`", len(s.got), p.Threshold, p.Threshold-len(s.got))
	}
	var points []byte
	var parts [][]byte
	for i := range s.got {
		points = append(points, byte(s.got[i].Index))
		parts = append(parts, s.got[i].secret[:])
	}
	root := combine(points, parts)
	s.forget()
	return root, nil
}

func readShamirParams(params json.RawMessage) (*shamirParams, error) {
	p := &shamirParams{}
	if err := readParams(params, p); err != nil {
		return nil, err
	}
	if p.Threshold < 2 || p.Shares < p.Threshold || p.Shares > maxShares || len(p.Set) != setLen {
		return nil, damagedParams()
	}
	return p, nil
}

// A Share is one of the parts of a root key.
type Share struct {
	Index     int // from 1
	Threshold int
	Cluster   storage.ID
	set       [setLen]byte
	secret    [RootLen]byte
}

// shareText is base32 (RFC 4648) without padding: it can be read aloud and typed in any case.
func shareText() *base32.Encoding { return base32.StdEncoding.WithPadding(base32.NoPadding) }

func (s *Share) encode() string {
	b := make([]byte, 0, shareLen)
	b = append(b, shareFormat, byte(s.Threshold), byte(s.Index))
	b = append(b, s.Cluster[:]...)
	b = append(b, s.set[:]...)
	b = append(b, s.secret[:]...)
	b = append(b, shareSum(b)...)
	return sharePrefix + strings.ToLower(shareText().EncodeToString(b))
}

func shareSum(b []byte) []byte {
	sum := sha256.Sum256(append([]byte("bulwark share\n"), b...))
	return sum[:shareSumLen]
}

// ParseShare reads a share's text, in upper or lower case, with or without spaces and dashes between its letters.
func ParseShare(text string) (Share, error) {
	mistyped := storage.Errorf(storage.BadInput, "bad_share",
		"this is not a whole share, or a letter of it is wrong: copy it again, from %q to its end", sharePrefix)
	if len(text) > maxShareText {
		return Share{}, mistyped
	}
	compact := strings.ToLower(strings.Join(strings.Fields(text), ""))
	letters, ok := strings.CutPrefix(compact, sharePrefix)
	if !ok {
		return Share{}, mistyped
	}
	letters = strings.ToUpper(strings.ReplaceAll(letters, "-", ""))
	b, err := shareText().DecodeString(letters)
	if err != nil || len(b) < shareSumLen || shareText().EncodeToString(b) != letters {
		return Share{}, mistyped
	}
	body := b[:len(b)-shareSumLen]
	if string(shareSum(body)) != string(b[len(body):]) {
		return Share{}, mistyped
	}
	if len(body) > 0 && body[0] > shareFormat {
		return Share{}, storage.Errorf(storage.BadInput, "newer_format",
			"this share has a format that this version of bulwark does not know: run the version that made it, or a newer one")
	}
	if len(b) != shareLen || body[0] != shareFormat || body[1] < 2 || body[2] == 0 {
		return Share{}, mistyped
	}
	s := Share{Index: int(body[2]), Threshold: int(body[1])}
	rest := body[3:]
	rest = rest[copy(s.Cluster[:], rest):]
	rest = rest[copy(s.set[:], rest):]
	copy(s.secret[:], rest)
	clear(b)
	return s, nil
}
