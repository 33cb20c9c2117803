package keys

import (
	"bytes"
	"crypto/rand"
	"testing"

	"pgregory.net/rapid"
)

// gfMulPlain multiplies as one does on paper: polynomials over GF(2), then the remainder.
func gfMulPlain(a, b byte) byte {
	var product uint
	for i := range 8 {
		if b>>i&1 == 1 {
			product ^= uint(a) << i
		}
	}
	for i := 14; i >= 8; i-- {
		if product>>i&1 == 1 {
			product ^= 0x11b << (i - 8)
		}
	}
	return byte(product)
}

func TestField(t *testing.T) {
	t.Parallel()
	for a := range 256 {
		for b := range 256 {
			if got, want := gfMul(byte(a), byte(b)), gfMulPlain(byte(a), byte(b)); got != want {
				t.Fatalf("%#x * %#x = %#x, want %#x", a, b, got, want)
			}
		}
		if inverse := gfInv(byte(a)); a != 0 && gfMul(byte(a), inverse) != 1 || a == 0 && inverse != 0 {
			t.Fatalf("the inverse of %#x is %#x", a, inverse)
		}
	}
}

func TestShamirVectors(t *testing.T) {
	t.Parallel()
	var vectors struct {
		Products  []struct{ A, B, Product byte }
		Divisions []struct {
			Threshold, Shares    int
			Secret, Coefficients string
			Parts                []string
		}
	}
	readVectors(t, "shamir.json", &vectors)
	for _, v := range vectors.Products {
		if got := gfMul(v.A, v.B); got != v.Product {
			t.Errorf("%#x * %#x = %#x, want %#x", v.A, v.B, got, v.Product)
		}
	}
	for _, v := range vectors.Divisions {
		secret := unhex(t, v.Secret)
		shares, err := split(bytes.NewReader(unhex(t, v.Coefficients)), secret, v.Threshold, v.Shares)
		if err != nil || len(shares) != len(v.Parts) {
			t.Fatalf("%d of %d: %d shares, %v", v.Threshold, v.Shares, len(shares), err)
		}
		for i := range shares {
			if want := unhex(t, v.Parts[i]); !bytes.Equal(shares[i], want) {
				t.Errorf("%d of %d: share %d is %x, want %x", v.Threshold, v.Shares, i+1, shares[i], want)
			}
		}
		last := len(shares) - v.Threshold
		var points []byte
		for i := range v.Threshold {
			points = append(points, byte(last+i+1))
		}
		if got := combine(points, shares[last:]); !bytes.Equal(got, secret) {
			t.Errorf("%d of %d: combined %x, want %x", v.Threshold, v.Shares, got, secret)
		}
	}
}

// Any threshold of the shares, in any order, give the secret back; one fewer give something else.
func TestAnySharesWillDo(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 20).Draw(t, "shares")
		k := rapid.IntRange(2, n).Draw(t, "threshold")
		secret := rapid.SliceOfN(rapid.Byte(), 16, 40).Draw(t, "secret")
		shares, err := split(rand.Reader, secret, k, n)
		if err != nil {
			t.Fatal(err)
		}
		indexes := make([]int, n)
		for i := range indexes {
			indexes[i] = i
		}
		chosen := rapid.Permutation(indexes).Draw(t, "chosen")[:k]
		var points []byte
		var parts [][]byte
		for _, i := range chosen {
			points, parts = append(points, byte(i+1)), append(parts, shares[i])
		}
		if got := combine(points, parts); !bytes.Equal(got, secret) {
			t.Fatalf("combined %x, want %x", got, secret)
		}
		if got := combine(points[1:], parts[1:]); bytes.Equal(got, secret) {
			t.Fatal("one share fewer than the threshold gave the secret")
		}
	})
}

// Fewer shares than the threshold fit every secret equally: over all coefficients, each value of a share comes as often.
func TestOneShareSaysNothing(t *testing.T) {
	t.Parallel()
	for _, secret := range []byte{0, 1, 0xaa} {
		var seen [256]int
		for c := range 256 {
			shares, err := split(bytes.NewReader([]byte{byte(c)}), []byte{secret}, 2, 3)
			if err != nil {
				t.Fatal(err)
			}
			seen[shares[2][0]]++
		}
		for v, n := range seen {
			if n != 1 {
				t.Fatalf("secret %d: value %d comes %d times, want once", secret, v, n)
			}
		}
	}
}
