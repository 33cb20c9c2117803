package keys

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"

	"bulwark/storage"
)

// The labels of working keys: HKDF-SHA-256's info is labelPrefix and one of these. The labels of Derive start with
// labelNode, and so never meet the others.
const (
	labelPrefix = "bulwark/v1/"
	labelRows   = "rows"
	labelIndex  = "index"
	labelWrap   = "wrap"
	labelCheck  = "key check"
	labelRoot   = "root check"
	labelNode   = "node/"
)

// A wrapped key: format, version of the wrapping key, key id, key-check value, nonce, ciphertext, tag.
const (
	wrapFormat   = 1
	keyIDLen     = 16
	checkLen     = 32
	wrapHeader   = 1 + 4 + keyIDLen + checkLen
	carriedLen   = 4 + keyLen
	wrapMin      = wrapHeader + nonceLen + 2*keyLen + tagLen
	wrapMax      = wrapMin + maxCarried*carriedLen
	maxCarried   = 1000
	rootVersion  = 1 // the root key wraps as version 1
	firstVersion = 1
)

// expand is HKDF-SHA-256 (RFC 5869).
func expand(secret, salt []byte, label string) []byte {
	key, err := hkdf.Key(sha256.New, secret, salt, labelPrefix+label, keyLen)
	if err != nil {
		panic("internal error: HKDF refused 32 bytes")
	}
	return key
}

// A material is what a wrapped key holds: a scope's key of one version, and the secrets that outlive a rotation.
type material struct {
	key   []byte
	index []byte // the same in every version of a scope: blind indexes stay valid
	// carried are a tenant's older wrapping keys, by version: the keys of projects stay wrapped under the version that was
	// current when they were made, also after that version of the tenant's key is dropped.
	carried []carried
}

type carried struct {
	version uint32
	wrap    []byte
}

func (m *material) clear() {
	clear(m.key)
	clear(m.index)
	for _, c := range m.carried {
		clear(c.wrap)
	}
}

// working returns the working key of a label.
func (m *material) working(label string) *xaes {
	key := expand(m.key, nil, label)
	defer clear(key)
	return newXAES(key)
}

func (m *material) encode() []byte {
	b := make([]byte, 0, 2*keyLen+len(m.carried)*carriedLen)
	b = append(b, m.key...)
	b = append(b, m.index...)
	for _, c := range m.carried {
		b = binary.BigEndian.AppendUint32(b, c.version)
		b = append(b, c.wrap...)
	}
	return b
}

// decodeMaterial reads what encode wrote. The parts are copies.
func decodeMaterial(b []byte) *material {
	m := &material{key: bytes.Clone(b[:keyLen]), index: bytes.Clone(b[keyLen : 2*keyLen])}
	for b = b[2*keyLen:]; len(b) > 0; b = b[carriedLen:] {
		m.carried = append(m.carried, carried{binary.BigEndian.Uint32(b), bytes.Clone(b[4:carriedLen])})
	}
	return m
}

// A wrapper is a key that wraps others, and its version.
type wrapper struct {
	version uint32
	cipher  *xaes
}

// wrap seals m for the place (id, version).
func (u *unsealed) wrap(by wrapper, id scopeID, version uint32, m *material) []byte {
	plain := m.encode()
	defer clear(plain)
	b := make([]byte, 0, wrapHeader+nonceLen+len(plain)+tagLen)
	b = append(b, wrapFormat)
	b = binary.BigEndian.AppendUint32(b, by.version)
	b = b[:len(b)+keyIDLen]
	keyID := b[5:]
	u.draw(keyID)
	b = append(b, expand(plain, keyID, labelCheck)...)
	b = b[:len(b)+nonceLen]
	nonce := b[wrapHeader:]
	u.draw(nonce)
	return by.cipher.seal(b, nonce, plain, wrapData(b[:wrapHeader], id, version))
}

// wrapData is what a wrapped key is bound to: its whole header, and its place.
func wrapData(header []byte, id scopeID, version uint32) []byte {
	b := make([]byte, 0, wrapHeader+2*len(id.tenant)+4)
	b = append(b, header...)
	b = append(b, id.tenant[:]...)
	b = append(b, id.project[:]...)
	return binary.BigEndian.AppendUint32(b, version)
}

// unwrap opens a wrapped key. find returns the wrapping key of a version, or nil.
func unwrap(find func(version uint32) *xaes, id scopeID, version uint32, wrapped []byte) (*material, error) {
	if len(wrapped) > 0 && wrapped[0] != wrapFormat {
		return nil, storage.Errorf(storage.Internal, "newer_format",
			"version %d of %s has a format that this version of bulwark does not know: run the version that wrote it, or a newer one", version, id)
	}
	damaged := func(why string) error {
		return storage.Errorf(storage.Internal, "damaged_key",
			"version %d of %s cannot be opened (%s): restore the wrapped keys from a snapshot of this cluster", version, id, why)
	}
	if len(wrapped) < wrapMin || len(wrapped) > wrapMax || (len(wrapped)-wrapMin)%carriedLen != 0 {
		return nil, damaged("its length is wrong")
	}
	by := find(binary.BigEndian.Uint32(wrapped[1:5]))
	if by == nil {
		return nil, damaged("the key that wraps it is not here")
	}
	header, rest := wrapped[:wrapHeader], wrapped[wrapHeader:]
	plain, err := by.open(nil, rest[:nonceLen], rest[nonceLen:], wrapData(header, id, version))
	if err != nil {
		return nil, damaged("it is damaged, or wrapped by another key")
	}
	defer clear(plain)
	// GCM does not commit to its key: what opens under one key may be made to open under another. The check value does.
	keyID, check := header[5:5+keyIDLen], header[5+keyIDLen:]
	if subtle.ConstantTimeCompare(check, expand(plain, keyID, labelCheck)) != 1 {
		return nil, damaged("its key-check value differs")
	}
	return decodeMaterial(plain), nil
}
