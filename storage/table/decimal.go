package table

import (
	"math/big"
	"strings"
)

// Bounds of PostgreSQL's numeric: digits before and after the decimal point.
const (
	numericWhole = 131072
	numericScale = 16383
)

// A decimal is an exact decimal number: 0.digits × 10^exp, negative if neg. digits has no zero at either end; zero has no
// digits. scale is the number of digits to show after the point.
type decimal struct {
	neg    bool
	digits string
	exp    int
	scale  int
}

// parseDecimal reads PostgreSQL's numeric syntax without NaN and the infinities. The second result says that the text is
// such a number, the third that it is within numeric's bounds.
func parseDecimal(s string) (d decimal, ok, inRange bool) {
	s = strings.TrimSpace(s)
	rest := s
	if rest != "" && (rest[0] == '-' || rest[0] == '+') {
		d.neg = rest[0] == '-'
		rest = rest[1:]
	}
	mantissa, exponent := rest, 0
	if i := strings.IndexAny(rest, "eE"); i >= 0 {
		mantissa = rest[:i]
		if exponent, ok = parseExponent(rest[i+1:]); !ok {
			return decimal{}, false, false
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	if whole == "" && fraction == "" || !allDigits(whole) || !allDigits(fraction) {
		return decimal{}, false, false
	}
	digits := whole + fraction
	d.exp = len(whole) + exponent
	d.scale = max(len(fraction)-exponent, 0)
	trimmed := strings.TrimLeft(digits, "0")
	d.exp -= len(digits) - len(trimmed)
	d.digits = strings.TrimRight(trimmed, "0")
	if d.digits == "" {
		d.neg, d.exp = false, 0
	}
	return d, true, d.exp <= numericWhole && d.scale <= numericScale
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// parseExponent clamps, so that a giant exponent is out of range and not an overflow.
func parseExponent(s string) (int, bool) {
	neg := false
	if s != "" && (s[0] == '-' || s[0] == '+') {
		neg = s[0] == '-'
		s = s[1:]
	}
	if s == "" || !allDigits(s) {
		return 0, false
	}
	n := 0
	for i := range len(s) {
		if n < 1<<24 {
			n = n*10 + int(s[i]-'0')
		}
	}
	if neg {
		n = -n
	}
	return n, true
}

func (d decimal) String() string {
	var b strings.Builder
	if d.neg {
		b.WriteByte('-')
	}
	at := 0
	if d.exp <= 0 {
		b.WriteByte('0')
	}
	for ; at < d.exp; at++ {
		b.WriteByte(d.digit(at))
	}
	if d.scale > 0 {
		b.WriteByte('.')
		for i := range d.scale {
			b.WriteByte(d.digit(d.exp + i))
		}
	}
	return b.String()
}

// digit returns the i-th digit after the leading point of 0.digits × 10^exp.
func (d decimal) digit(i int) byte {
	if i < 0 || i >= len(d.digits) {
		return '0'
	}
	return d.digits[i]
}

func (d decimal) compare(e decimal) int {
	switch {
	case d.sign() != e.sign():
		return sign(int64(d.sign()), int64(e.sign()))
	case d.neg:
		return e.magnitude(d)
	}
	return d.magnitude(e)
}

func (d decimal) sign() int {
	switch {
	case d.digits == "":
		return 0
	case d.neg:
		return -1
	}
	return 1
}

func (d decimal) magnitude(e decimal) int {
	if d.digits == "" || e.digits == "" || d.exp == e.exp {
		return strings.Compare(d.digits, e.digits)
	}
	if d.exp < e.exp {
		return -1
	}
	return 1
}

// unscaled returns the integer d × 10^scale, for a scale that is at least the number of d's fractional digits.
func (d decimal) unscaled(scale int) *big.Int {
	n := new(big.Int)
	if d.digits == "" {
		return n
	}
	n.SetString(d.digits, 10)
	n.Mul(n, pow10(d.exp-len(d.digits)+scale))
	if d.neg {
		n.Neg(n)
	}
	return n
}

func pow10(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }

// fromScaled makes n / 10^scale, shown with that scale.
func fromScaled(n *big.Int, scale int) decimal {
	d := decimal{neg: n.Sign() < 0, scale: scale}
	text := new(big.Int).Abs(n).String()
	if text == "0" {
		return decimal{scale: scale}
	}
	d.exp = len(text) - scale
	d.digits = strings.TrimRight(text, "0")
	return d
}

// arithmetic computes a op b. Sums and products are exact; a quotient has at least 16 significant digits, as
// PostgreSQL's. It reports false for a division by zero.
func (d decimal) arithmetic(op Op, e decimal) (decimal, bool) {
	scale := max(d.scale, e.scale)
	switch op {
	case OpAdd:
		return fromScaled(new(big.Int).Add(d.unscaled(scale), e.unscaled(scale)), scale), true
	case OpSub:
		return fromScaled(new(big.Int).Sub(d.unscaled(scale), e.unscaled(scale)), scale), true
	case OpMul:
		return fromScaled(new(big.Int).Mul(d.unscaled(d.scale), e.unscaled(e.scale)), d.scale+e.scale), true
	}
	if e.digits == "" {
		return decimal{}, false
	}
	scale = min(max(scale, 16-(d.exp-e.exp)), numericScale)
	n := d.unscaled(max(scale, d.scale) + e.scale)
	shift := max(scale, d.scale) - scale
	m := e.unscaled(e.scale)
	m.Mul(m, pow10(shift))
	// Round half away from zero, as numeric does.
	quotient, rest := new(big.Int).QuoRem(n, m, new(big.Int))
	if rest.Abs(rest).Lsh(rest, 1).CmpAbs(m) >= 0 {
		if (n.Sign() < 0) != (m.Sign() < 0) {
			quotient.Sub(quotient, big.NewInt(1))
		} else {
			quotient.Add(quotient, big.NewInt(1))
		}
	}
	return fromScaled(quotient, scale), true
}
