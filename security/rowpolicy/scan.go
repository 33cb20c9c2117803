package rowpolicy

import (
	"strings"
)

// A level is what is known of the text between an opening parenthesis and its closing one. words counts those since the
// last comma, below is the deepest of what stood in parentheses among them, and deepest that of the items before.
type level struct{ words, below, deepest int }

func (l *level) depth() int { return max(l.deepest, l.words+l.below) }

// scan goes over the text once, as PostgreSQL's scanner does, before the parser sees it. It notes where statements start,
// and bounds the text: the parser's stack is its own, some 2,800 levels of a tree deep, and it does not survive overflowing
// it. Each level of a tree costs a word or sign at least, and items between commas are beside each other: so the words on
// the way to a part bound its depth.
func scan(text string, statements int) (*source, error) {
	s := &source{text: text}
	levels, tokens, fresh := []level{{}}, 0, true
	for i := 0; i < len(text); {
		n, blank := token(text[i:])
		if blank {
			i += n
			continue
		}
		if text[i] != ';' && fresh {
			if len(s.starts) == statements {
				return nil, s.errorf(i, codeLimit, "a text can have at most %d statements: split it", statements)
			}
			s.starts = append(s.starts, i)
			fresh, tokens = false, 0
		}
		tokens++
		at := &levels[len(levels)-1]
		at.words++
		switch text[i] {
		case '(', '[':
			levels = append(levels, level{})
		case ')', ']':
			if len(levels) > 1 {
				levels = levels[:len(levels)-1]
				up := &levels[len(levels)-1]
				up.below = max(up.below, at.depth())
				at = up
			}
		case ',':
			*at = level{deepest: at.depth()}
		case ';':
			if len(levels) == 1 { // inside parentheses it ends nothing that the parser could accept
				*at, fresh = level{}, true
			}
		}
		switch {
		case len(levels) > 2*MaxDepth:
			return nil, s.errorf(i, codeTooComplex, "parentheses are nested more than %d deep", 2*MaxDepth)
		case at.words+at.below > MaxWords:
			return nil, s.errorf(i, codeTooComplex, "the expression is too complex: more than %d words and signs without a comma", MaxWords)
		case tokens > MaxTokens:
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
		name := c < '0' || c > '9' // a number does not go on with a $: there a quoted string may begin
		for n < len(s) && (wordByte(s[n]) || name && s[n] == '$') {
			n++
		}
		if n == 1 && len(s) > 1 && s[1] == '\'' && (c == 'e' || c == 'E') {
			return 1 + escaped(s[1:]), false
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

// escaped returns the length of a string with escapes. It goes on where another quote follows on a later line.
func escaped(s string) int {
	n := quoted(s, '\'', true)
	for {
		next, line := n, false
		for next < len(s) && s[next] != '\'' {
			skip, blank := token(s[next:])
			if !blank || s[next] == '/' {
				return n
			}
			line = line || s[next] == '\n' || s[next] == '\r'
			next += skip
		}
		if next == len(s) || !line {
			return n
		}
		n = next + quoted(s[next:], '\'', true)
	}
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
