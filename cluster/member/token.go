package member

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"bulwark/storage"
)

// A Token is what a node needs to join: which cluster, where, and the right to.
type Token struct {
	CA      [32]byte // SHA-256 of the cluster's root certificate
	Secret  [32]byte
	Expires time.Time
	Addrs   []string // of nodes that may be asked
}

const (
	tokenPrefix   = "bwj_"
	tokenVersion  = 1
	maxTokenAddrs = 16
	maxAddr       = 255 // bytes: a length is one byte
	maxToken      = 8 << 10
	checkLen      = 4
)

// String is the token as it is shown, once: version · CA · secret · expiry (8 bytes, Unix seconds) · number of addresses ·
// each with its length · the first 4 bytes of the SHA-256 of all that, so that a typing error is told from a wrong token.
func (t *Token) String() string {
	b := []byte{tokenVersion}
	b = append(b, t.CA[:]...)
	b = append(b, t.Secret[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Expires.Unix()))
	addrs := t.Addrs[:min(len(t.Addrs), maxTokenAddrs)]
	b = append(b, byte(len(addrs)))
	for _, a := range addrs {
		a = a[:min(len(a), maxAddr)]
		b = append(append(b, byte(len(a))), a...)
	}
	sum := sha256.Sum256(b)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(b, sum[:checkLen]...))
}

// ParseToken reads a token as String wrote it. Its error does not quote it.
func ParseToken(s string) (*Token, error) {
	bad := func(why string) error {
		return storage.Errorf(storage.BadInput, "bad_join_token", "the join token cannot be read: %s; copy it whole, as `bulwark operator token` printed it", why)
	}
	rest, ok := strings.CutPrefix(strings.TrimSpace(s), tokenPrefix)
	if !ok {
		return nil, bad("it does not begin with " + tokenPrefix)
	}
	if len(rest) > maxToken {
		return nil, bad("it is too long")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(rest)
	if err != nil || len(b) < 1+32+32+8+1+checkLen {
		return nil, bad("a part of it is missing or changed")
	}
	body, sum := b[:len(b)-checkLen], sha256.Sum256(b[:len(b)-checkLen])
	if string(b[len(body):]) != string(sum[:checkLen]) {
		return nil, bad("a part of it is missing or changed")
	}
	if body[0] != tokenVersion {
		return nil, bad("a newer Bulwark made it")
	}
	t := &Token{CA: [32]byte(body[1:]), Secret: [32]byte(body[33:]), Expires: time.Unix(int64(binary.BigEndian.Uint64(body[65:])), 0)}
	if t.Addrs, err = readAddrs(body[73:]); err != nil {
		return nil, bad(err.Error())
	}
	return t, nil
}

func readAddrs(b []byte) (addrs []string, err error) {
	n := int(b[0])
	b = b[1:]
	if n == 0 || n > maxTokenAddrs {
		return nil, errors.New("it names no address, or too many")
	}
	for range n {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return nil, errors.New("its addresses are cut short")
		}
		addrs = append(addrs, string(b[1:1+b[0]]))
		b = b[1+b[0]:]
	}
	if len(b) > 0 {
		return nil, errors.New("there is more behind its addresses")
	}
	return addrs, nil
}
