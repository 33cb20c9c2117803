package apikey

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// A Kind is what a key is for.
type Kind string

// The kinds of key. A publishable key may be in a web page; a secret key acts as service_role in its own project; an
// operator token acts for the operator of the cluster, over the network.
const (
	Publishable Kind = "publishable"
	Secret      Kind = "secret"
	Operator    Kind = "operator"
)

const (
	randomLength   = 22 // base62: 131 bits
	checksumLength = 8
	hintLength     = 4
	base62         = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// newBody draws the random part of a key.
func newBody(random io.Reader) (string, error) {
	body := make([]byte, 0, randomLength)
	var b [1]byte
	for len(body) < randomLength {
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return "", fmt.Errorf("drawing an API key: %w", err)
		}
		if b[0] < 62*4 { // the largest multiple of 62 in a byte, so that each character is as likely
			body = append(body, base62[b[0]%62])
		}
	}
	return string(body), nil
}

// format makes a key: sb_<kind>_<22 random characters>_<8 characters of checksum>.
func format(kind Kind, body string) string {
	stem := "sb_" + string(kind) + "_" + body
	return stem + "_" + checksum(stem)
}

// checksum tells a key that was mistyped or cut from one that is unknown, without asking the store. It is no secret and
// proves nothing.
func checksum(stem string) string {
	sum := sha256.Sum256([]byte(stem))
	n := binary.BigEndian.Uint64(sum[:8])
	var out [checksumLength]byte
	for i := range out {
		out[i] = base62[n%62]
		n /= 62
	}
	return string(out[:])
}

// parse checks the form and the checksum of a presented key.
func parse(key string) (Kind, bool) {
	for _, kind := range []Kind{Publishable, Secret, Operator} {
		rest, ok := strings.CutPrefix(key, "sb_"+string(kind)+"_")
		if !ok {
			continue
		}
		if len(rest) != randomLength+1+checksumLength || rest[randomLength] != '_' {
			return "", false
		}
		for i := range len(rest) {
			if i != randomLength && strings.IndexByte(base62, rest[i]) < 0 {
				return "", false
			}
		}
		return kind, rest[randomLength+1:] == checksum(key[:len(key)-1-checksumLength])
	}
	return "", false
}

// Looks reports whether a credential has the beginning of a key, and so is not a token of a person.
func Looks(credential string) bool { return strings.HasPrefix(credential, "sb_") }
