package entry

import (
	"encoding/hex"
	"errors"
)

// An ID is a UUID (RFC 9562). Record ids are of version 7, so that they grow with time.
// The zero ID names nothing: as a project it means "the tenant itself".
type ID [16]byte

// System is the tenant that holds the cluster's own records.
var System = ID{15: 1}

// IsZero reports whether id is the zero ID.
func (id ID) IsZero() bool { return id == ID{} }

// String returns the canonical form: 8-4-4-4-12 lower-case hexadecimal digits.
func (id ID) String() string {
	var b [36]byte
	hex.Encode(b[0:8], id[0:4])
	b[8] = '-'
	hex.Encode(b[9:13], id[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], id[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], id[8:10])
	b[23] = '-'
	hex.Encode(b[24:36], id[10:16])
	return string(b[:])
}

// ErrNotUUID is returned for text that is not a UUID in its canonical form.
var ErrNotUUID = errors.New("not a UUID: want the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")

// ParseID reads the canonical form, upper or lower case.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return ID{}, ErrNotUUID
	}
	compact := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:36]
	if _, err := hex.Decode(id[:], []byte(compact)); err != nil {
		return ID{}, ErrNotUUID
	}
	return id, nil
}

// MarshalText and UnmarshalText make an ID a string in JSON and CBOR.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseID(string(b))
	return err
}
