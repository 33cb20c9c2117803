package web

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"bulwark/storage"
)

// maxPath bounds a request's path, in bytes as sent.
const maxPath = 4096

// canonical returns the one form of a path as sent (still percent-encoded): decoded, with runs of slashes as one, since
// some clients join a base that ends in a slash with a path that starts with one. Every other second spelling of a path is
// refused, so that no guard can see one path and a surface another.
func canonical(escaped string) (string, error) {
	switch {
	case len(escaped) > maxPath:
		return "", badPath("is longer than 4096 bytes")
	case !strings.HasPrefix(escaped, "/"):
		return "", badPath("does not begin with a slash")
	}
	for i := 0; i < len(escaped); i++ {
		c := escaped[i]
		if c == '\\' {
			return "", badPath("holds a backslash")
		}
		if c != '%' || i+2 >= len(escaped) {
			continue
		}
		switch strings.ToLower(escaped[i+1 : i+3]) {
		case "2f", "5c", "2e":
			return "", badPath("holds an encoded slash, backslash or dot")
		}
	}
	path, err := url.PathUnescape(escaped)
	switch {
	case err != nil:
		return "", badPath("has a percent sign that is not followed by two hexadecimal digits")
	case !utf8.ValidString(path):
		return "", badPath("is not UTF-8")
	}
	var b strings.Builder
	b.Grow(len(path))
	for i, segment := range strings.Split(path, "/") {
		if segment == "." || segment == ".." {
			return "", badPath("holds a segment of dots")
		}
		if i == 0 {
			continue // before the first slash
		}
		// An empty segment adds nothing after the slash that is there, so that a run of slashes is one.
		if !strings.HasSuffix(b.String(), "/") {
			b.WriteByte('/')
		}
		for _, r := range segment {
			if r < ' ' || r == 0x7f {
				return "", badPath("holds a control character")
			}
		}
		b.WriteString(segment)
	}
	return b.String(), nil
}

func badPath(what string) error {
	return storage.Errorf(storage.BadInput, "bad_path", "the path %s: send it in its plain form", what)
}

// surfaceOf names the surface that a canonical path belongs to: it bounds what metrics tell apart, and decides in which
// shape an error is told.
func surfaceOf(path string) string {
	first, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch first {
	case "api", "healthz", "readyz", "metrics":
		return first
	case "p":
		_, rest, _ = strings.Cut(rest, "/")
		service, _, _ := strings.Cut(rest, "/")
		switch service {
		case "auth", "rest":
			return service
		}
		return "project"
	}
	return "other"
}
