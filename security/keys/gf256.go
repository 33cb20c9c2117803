package keys

import "io"

// The field GF(2^8) with the polynomial x^8+x^4+x^3+x+1, as in AES (FIPS 197, section 4). Multiplication goes bit by bit,
// without tables or branches that depend on the values, so that its time says nothing about a share.

func gfMul(a, b byte) byte {
	var product byte
	for range 8 {
		product ^= a & -(b & 1)
		b >>= 1
		a = a<<1 ^ 0x1b&-(a>>7)
	}
	return product
}

// gfInv returns the inverse of a as a^254; that of 0 is 0.
func gfInv(a byte) byte {
	result := byte(1)
	for i := 7; i >= 0; i-- {
		result = gfMul(result, result)
		if 254>>i&1 == 1 {
			result = gfMul(result, a)
		}
	}
	return result
}

// split returns n shares of secret, of which any k give it back and fewer say nothing about it (Shamir, "How to share a
// secret", 1979). Share i (from 0) is the value at x = i+1 of polynomials of degree k-1, one for each byte, whose constant
// terms are the secret.
func split(rand io.Reader, secret []byte, k, n int) ([][]byte, error) {
	coefficients := make([]byte, (k-1)*len(secret))
	defer clear(coefficients)
	if _, err := io.ReadFull(rand, coefficients); err != nil {
		return nil, err
	}
	shares := make([][]byte, n)
	for i := range shares {
		share := make([]byte, len(secret))
		for j := range secret {
			var y byte
			for _, c := range coefficients[j*(k-1) : (j+1)*(k-1)] {
				y = gfMul(y^c, byte(i+1))
			}
			share[j] = y ^ secret[j]
		}
		shares[i] = share
	}
	return shares, nil
}

// combine returns the secret of exactly as many shares as it takes: their polynomials' values at 0, by Lagrange. The
// points must differ and not be 0.
func combine(points []byte, shares [][]byte) []byte {
	secret := make([]byte, len(shares[0]))
	for i, xi := range points {
		weight := byte(1)
		for j, xj := range points {
			if i != j {
				weight = gfMul(weight, gfMul(xj, gfInv(xi^xj)))
			}
		}
		for b := range secret {
			secret[b] ^= gfMul(weight, shares[i][b])
		}
	}
	return secret
}
