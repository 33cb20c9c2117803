package web

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"/", "//", "/a//b", "/a/../b", "/%2e%2e/", "/a%2Fb", "/%252f", "/a%", "/%zz", "/é", "/a\x00b", "*", "", "/..%00/", "/a/.", "/...", "/%C0%AF"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, escaped string) {
		path, err := canonical(escaped)
		if err != nil {
			return
		}
		if !strings.HasPrefix(path, "/") || strings.Contains(path, "//") || strings.ContainsAny(path, "\x00\\") || !utf8.ValidString(path) {
			t.Fatalf("%q gives %q", escaped, path)
		}
		for segment := range strings.SplitSeq(path, "/") {
			if segment == "." || segment == ".." {
				t.Fatalf("%q gives %q", escaped, path)
			}
		}
		// A canonical path is its own canonical form, as net/url sends it.
		again, err := canonical((&url.URL{Path: path}).EscapedPath())
		if err != nil || again != path {
			t.Fatalf("%q gives %q, and that gives %q, %v", escaped, path, again, err)
		}
	})
}

func TestRateLimiterForgets(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	l := newRateLimiter(1, 1, func() time.Time { return now })
	for i := range 3 * maxAddresses {
		l.allow(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if len(l.seen) > maxAddresses {
		t.Errorf("%d addresses are remembered", len(l.seen))
	}
	one, two, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8:0:1::1")
	if !l.allow(one) || l.allow(two) || !l.allow(other) {
		t.Error("an IPv6 subscriber is its /64")
	}
}
