package rowpolicy

import (
	"strings"
)

// scan goes over the text once, as PostgreSQL's scanner does, before the parser sees it. It notes where statements start,
// and bounds tokens and parentheses: the parser's stack is its own, and a deep tree would overflow it.
func scan(text string) (*source, error) {
	s := &source{text: text}
	depth, tokens, fresh := 0, 0, true
	for i := 0; i < len(text); {
		n, blank := token(text[i:])
		if blank {
			i += n
			continue
		}
		if text[i] != ';' && fresh {
			s.starts = append(s.starts, i)
			fresh, tokens = false, 0
		}
		tokens++
		switch text[i] {
		case '(', '[':
			depth++
		case ')', ']':
			depth = max(0, depth-1)
		case ';':
			// Inside parentheses it ends nothing that the parser could then accept.
			if depth == 0 {
				fresh = true
			}
		}
		if depth > MaxDepth {
			return nil, s.errorf(i, codeTooComplex, "parentheses are nested more than %d deep", MaxDepth)
		}
		if tokens > MaxTokens {
			return nil, s.errorf(i, codeTooComplex, "a statement can have at most %d words and signs", MaxTokens)
		}
		i += n
	}
	return s, nil
}

// token returns the length of the first token of s, which is not empty, and whether it is white space or a comment.
// Signs are tokens of one byte.
func token(s string) (n int, blank bool) {
	switch c := s[0]; {
	case strings.IndexByte(" \t\r\n\f\v", c) >= 0:
		return 1, true
	case strings.HasPrefix(s, "--"):
		if n := strings.IndexAny(s, "\r\n"); n >= 0 {
			return n, true
		}
		return len(s), true
	case strings.HasPrefix(s, "/*"):
		return comment(s), true
	case c == '\'' || c == '"':
		return quoted(s, c, false), false
	case c == '$':
		return dollar(s), false
	case wordByte(c):
		n := 1
		for n < len(s) && (wordByte(s[n]) || s[n] == '$') {
			n++
		}
		if n == 1 && n < len(s) && s[n] == '\'' && (c == 'e' || c == 'E') {
			return 1 + quoted(s[1:], '\'', true), false
		}
		return n, false
	}
	return 1, false
}

func wordByte(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}

// comment returns the length of a block comment; they nest.
func comment(s string) int {
	depth := 0
	for i := 0; i+1 < len(s); i++ {
		switch s[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			i++
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}

// quoted returns the length of a quoted token; a doubled quote is part of it.
func quoted(s string, quote byte, escapes bool) int {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && escapes:
			i++
		case s[i] == quote && i+1 < len(s) && s[i+1] == quote:
			i++
		case s[i] == quote:
			return i + 1
		}
	}
	return len(s)
}

// dollar returns the length of a dollar-quoted string, or 1 where it is none.
func dollar(s string) int {
	end := strings.IndexByte(s[1:], '$')
	if end < 0 {
		return 1
	}
	tag := s[:end+2]
	for i := 1; i < len(tag)-1; i++ {
		if !wordByte(tag[i]) || i == 1 && '0' <= tag[i] && tag[i] <= '9' {
			return 1
		}
	}
	if n := strings.Index(s[len(tag):], tag); n >= 0 {
		return n + 2*len(tag)
	}
	return len(s)
}
