package account

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"bulwark/storage"
)

// maxEmail is the longest address that SMTP can carry (RFC 5321, section 4.5.3.1.3, less the brackets), in bytes.
const maxEmail = 254

var errEmail = &storage.Error{Fault: storage.BadInput, Code: "validation_failed", Field: "email",
	Message: "Unable to validate email address: invalid format"}

// NormalEmail returns the one form under which an address is known: trimmed, lower-case, in Unicode's composed form (NFC).
// It refuses what cannot be an address. Whether one exists only a message to it can tell.
func NormalEmail(typed string) (string, error) {
	if len(typed) > 4*maxEmail || !utf8.ValidString(typed) {
		return "", errEmail
	}
	// Lower-casing may leave a form that composes further, so it goes first and composing last.
	e := norm.NFC.String(strings.ToLower(norm.NFC.String(strings.TrimSpace(typed))))
	local, domain, ok := cutLast(e, '@')
	if !ok || len(e) > maxEmail || local == "" || len(local) > 64 || strings.Contains(local, "@") || !isDomain(domain) {
		return "", errEmail
	}
	for _, c := range e {
		if unicode.IsSpace(c) || !unicode.IsGraphic(c) || strings.ContainsRune(`<>()[]\,;:"`, c) {
			return "", errEmail
		}
	}
	return e, nil
}

func cutLast(s string, sep byte) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

func isDomain(d string) bool {
	if d == "" {
		return false
	}
	for label := range strings.SplitSeq(d, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}
