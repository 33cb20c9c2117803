package session

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"bulwark/storage"
)

// A refresh token names a session and a number of it, and proves both with a key that only the session's record holds:
//
//	base64url( 0 ‖ session, 16 bytes ‖ counter, uvarint ‖ HMAC-SHA-256 of all before, 16 bytes ‖ SHA-256 of all before, 4 bytes )
//
// So the record of a session holds a key and a counter, however often it is refreshed, and no token is stored anywhere. The
// last four bytes tell a token that was cut or mistyped from one that is forged, before anything is read.
const (
	refreshVersion = 0
	macLength      = 16
	sumLength      = 4
	maxRefresh     = 1 + 16 + binary.MaxVarintLen64 + macLength + sumLength
)

type refreshToken struct {
	session storage.ID
	counter uint64
	mac     [macLength]byte
}

func refreshBody(session storage.ID, counter uint64) []byte {
	b := append(make([]byte, 0, maxRefresh), refreshVersion)
	b = append(b, session[:]...)
	return binary.AppendUvarint(b, counter)
}

func refreshMAC(key []byte, session storage.ID, counter uint64) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(refreshBody(session, counter))
	return h.Sum(nil)[:macLength]
}

func newRefreshToken(key []byte, session storage.ID, counter uint64) string {
	b := append(refreshBody(session, counter), refreshMAC(key, session, counter)...)
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(append(b, sum[:sumLength]...))
}

// parseRefreshToken reads what newRefreshToken wrote: each token has one form. It proves nothing; see provenBy.
func parseRefreshToken(s string) (t refreshToken, ok bool) {
	if len(s) > base64.RawURLEncoding.EncodedLen(maxRefresh) {
		return t, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) < 1+16+1+macLength+sumLength || b[0] != refreshVersion {
		return t, false
	}
	rest, sum := b[:len(b)-sumLength], b[len(b)-sumLength:]
	if want := sha256.Sum256(rest); !bytes.Equal(sum, want[:sumLength]) {
		return t, false
	}
	t.session = storage.ID(rest[1:17])
	rest = rest[17:]
	counter, n := binary.Uvarint(rest)
	if n <= 0 || len(rest) != n+macLength || !bytes.Equal(rest[:n], binary.AppendUvarint(nil, counter)) {
		return t, false
	}
	t.counter, t.mac = counter, [macLength]byte(rest[n:])
	// The decoder skips line breaks, which no token has.
	return t, base64.RawURLEncoding.EncodeToString(b) == s
}

// provenBy reports whether the session that has key made the token.
func (t *refreshToken) provenBy(key []byte) bool {
	return hmac.Equal(t.mac[:], refreshMAC(key, t.session, t.counter))
}
