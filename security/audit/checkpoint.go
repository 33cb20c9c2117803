package audit

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"bulwark/storage"
)

// A Checkpoint says what a tenant's audit tree was when it had Size leaves (C2SP tlog-checkpoint). Extension lines are
// optional and signed with the rest.
type Checkpoint struct {
	Origin     string // "bulwark/<cluster id>/<tenant id>"
	Size       uint64
	Root       [32]byte
	Extensions []string
}

// Origin names one tenant's log of one cluster. It is also the name of the key that signs its checkpoints.
func Origin(cluster, tenant storage.ID) string {
	return "bulwark/" + cluster.String() + "/" + tenant.String()
}

// Text is the note's text.
func (c *Checkpoint) Text() string {
	var b strings.Builder
	b.WriteString(c.Origin)
	b.WriteByte('\n')
	b.WriteString(strconv.FormatUint(c.Size, 10))
	b.WriteByte('\n')
	b.WriteString(base64.StdEncoding.EncodeToString(c.Root[:]))
	b.WriteByte('\n')
	for _, line := range c.Extensions {
		b.WriteString(line)
		b.WriteByte('\n')
	}
	return b.String()
}

var errCheckpoint = errors.New("not a checkpoint: want an origin, a size and a base64 root hash, each on its own line")

func parseCheckpointText(text string) (*Checkpoint, error) {
	body, ok := strings.CutSuffix(text, "\n")
	if !ok {
		return nil, errCheckpoint
	}
	lines := strings.Split(body, "\n")
	if len(lines) < 3 {
		return nil, errCheckpoint
	}
	c := &Checkpoint{Origin: lines[0], Extensions: lines[3:]}
	if len(c.Extensions) == 0 {
		c.Extensions = nil
	}
	size, err := strconv.ParseUint(lines[1], 10, 64)
	if err != nil || size > math.MaxInt64 {
		return nil, errCheckpoint
	}
	c.Size = size
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != 32 {
		return nil, errCheckpoint
	}
	copy(c.Root[:], root)
	if c.Text() != text { // one text for one checkpoint: no leading zeros, no other base64
		return nil, errCheckpoint
	}
	return c, nil
}

// OpenCheckpoint checks a signed checkpoint against verifier keys ("name+hash+key") and returns what it says, and the key
// that signed it. A key may sign only for the origin that is its name.
func OpenCheckpoint(signed []byte, vkeys ...string) (c *Checkpoint, signer string, err error) {
	verifiers := make([]note.Verifier, 0, len(vkeys))
	byHash := make(map[uint32]string, len(vkeys))
	for _, k := range vkeys {
		v, err := note.NewVerifier(k)
		if err != nil {
			return nil, "", fmt.Errorf("reading a verifier key: want the form name+hash+key, as the checkpoint command prints it: %w", err)
		}
		if _, twice := byHash[v.KeyHash()]; twice {
			continue
		}
		byHash[v.KeyHash()] = k
		verifiers = append(verifiers, v)
	}
	n, err := note.Open(signed, note.VerifierList(verifiers...))
	if err != nil {
		return nil, "", fmt.Errorf("checking a checkpoint's signature: %w", err)
	}
	c, err = parseCheckpointText(n.Text)
	if err != nil {
		return nil, "", err
	}
	// The bits after a signature's last byte are not looked at by note.Open: of one checkpoint there would be several texts.
	for _, sig := range append(n.Sigs, n.UnverifiedSigs...) {
		if _, err := base64.StdEncoding.Strict().DecodeString(sig.Base64); err != nil {
			return nil, "", errors.New("checking a checkpoint: its signature's base64 is not as it was written")
		}
	}
	for _, sig := range n.Sigs {
		if sig.Name == c.Origin {
			return c, byHash[sig.Hash], nil
		}
	}
	return nil, "", fmt.Errorf("checking a checkpoint: its key is named %q, and it speaks for %q", n.Sigs[0].Name, c.Origin)
}

// SeedSize is the size of a signing seed, in bytes.
const SeedSize = ed25519.SeedSize

// A Signer signs the checkpoints of one cluster with Ed25519. The same checkpoint gives the same bytes.
type Signer struct {
	cluster storage.ID
	key     ed25519.PrivateKey
}

// NewSigner returns the Signer of a cluster from a secret seed of SeedSize bytes.
func NewSigner(cluster storage.ID, seed []byte) (*Signer, error) {
	if cluster.IsZero() {
		return nil, errors.New("the signer of checkpoints needs the cluster's id")
	}
	if len(seed) != SeedSize {
		return nil, fmt.Errorf("the signer of checkpoints needs a seed of %d bytes", SeedSize)
	}
	return &Signer{cluster: cluster, key: ed25519.NewKeyFromSeed(seed)}, nil
}

// Origin is the origin of a tenant's checkpoints.
func (s *Signer) Origin(tenant storage.ID) string { return Origin(s.cluster, tenant) }

// VerifierKey is the text with which anybody can check a tenant's checkpoints: "name+hash+key" of package note.
func (s *Signer) VerifierKey(tenant storage.ID) (string, error) {
	return note.NewEd25519VerifierKey(s.Origin(tenant), s.key.Public().(ed25519.PublicKey))
}

// Sign returns the signed note of a tenant's tree with this size and root.
func (s *Signer) Sign(tenant storage.ID, size uint64, root [32]byte, extensions ...string) ([]byte, error) {
	vkey, err := s.VerifierKey(tenant)
	if err != nil {
		return nil, fmt.Errorf("naming the checkpoint's key: %w", err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("naming the checkpoint's key: %w", err)
	}
	for _, line := range extensions {
		if line == "" || strings.Contains(line, "\n") {
			return nil, errors.New("an extension of a checkpoint is one line that is not empty")
		}
	}
	c := Checkpoint{Origin: s.Origin(tenant), Size: size, Root: root, Extensions: extensions}
	signed, err := note.Sign(&note.Note{Text: c.Text()}, noteSigner{v, s.key})
	if err != nil {
		return nil, fmt.Errorf("signing a checkpoint: %w", err)
	}
	return signed, nil
}

// A noteSigner is a note.Signer over a key that never takes the form of text.
type noteSigner struct {
	note.Verifier
	key ed25519.PrivateKey
}

func (s noteSigner) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }
