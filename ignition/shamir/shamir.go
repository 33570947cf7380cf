// Package shamir divides a key, so that any threshold of its points, and no fewer, give it back: Shamir's secret sharing, as the sss pin of
// clevis has it.
//
// The key is the constant term of a polynomial of degree threshold - 1 over a field of prime order; a point is x and the polynomial's value
// there, each as many bytes as the prime, big-endian.
package shamir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
)

// size is that of the key and the prime, in bytes: a key of A256GCM.
const size = 32

// A Field is the prime that numbers are taken modulo.
type Field struct{ p *big.Int }

// maxField is the largest prime that Recover takes, in bytes: a document of others must not make work without end.
const maxField = 512

// NewField has the largest prime below 2^256, which is 2^256 - 189. It is no secret, and any will do that is as large as the key: clevis
// takes another one each time.
func NewField() Field {
	p := new(big.Int).Lsh(big.NewInt(1), 8*size)
	return Field{p.Sub(p, big.NewInt(189))}
}

// ParseField reads the bytes of a prime. Whether it is one is not asked: who sealed the points has chosen it.
func ParseField(b []byte) (Field, error) {
	p := new(big.Int).SetBytes(b)
	if len(b) > maxField || p.BitLen() == 0 || p.BitLen() != 8*len(b) {
		return Field{}, fmt.Errorf("parse prime: expected 1 to %d bytes without a leading zero bit, found %d bytes", maxField, len(b))
	}
	return Field{p}, nil
}

// Bytes are those of the prime.
func (f Field) Bytes() []byte { return f.p.Bytes() }

func (f Field) encode(n *big.Int) []byte { return n.FillBytes(make([]byte, len(f.p.Bytes()))) }

// Split makes a key, and points of which threshold give it back.
func (f Field) Split(threshold, points int) (key []byte, list [][]byte, err error) {
	if threshold < 1 || points < threshold {
		return nil, nil, fmt.Errorf("divide key: expected a threshold of 1 to %d, found %d", points, threshold)
	}
	poly := make([]*big.Int, threshold)
	for n := range poly {
		if poly[n], err = rand.Int(rand.Reader, f.p); err != nil {
			return nil, nil, fmt.Errorf("divide key: %w", err)
		}
	}
	for len(list) < points {
		x, err := rand.Int(rand.Reader, f.p)
		if err != nil {
			return nil, nil, fmt.Errorf("divide key: %w", err)
		}
		if x.Sign() == 0 { // the value there is the key itself
			continue
		}
		y := new(big.Int)
		for n := threshold - 1; n >= 0; n-- { // Horner's method
			y.Mod(y.Add(y.Mul(y, x), poly[n]), f.p)
		}
		list = append(list, append(f.encode(x), f.encode(y)...))
	}
	return f.encode(poly[0]), list, nil
}

// Recover gives the key back, by Lagrange's interpolation at zero. Too few points, or wrong ones, give a wrong key and no error: who uses the
// key sees it.
func (f Field) Recover(points [][]byte) ([]byte, error) {
	n := len(f.p.Bytes())
	var xs, ys []*big.Int
	for _, p := range points {
		if len(p) != 2*n {
			return nil, fmt.Errorf("put key together: expected a point of %d bytes, found %d", 2*n, len(p))
		}
		xs, ys = append(xs, new(big.Int).SetBytes(p[:n])), append(ys, new(big.Int).SetBytes(p[n:]))
	}
	sum := new(big.Int)
	for i := range xs {
		term := new(big.Int).Set(ys[i])
		for j := range xs {
			if i == j {
				continue
			}
			inverse := new(big.Int).ModInverse(new(big.Int).Sub(xs[j], xs[i]), f.p)
			if inverse == nil {
				return nil, errors.New("put key together: two points are the same, or the prime is none")
			}
			term.Mod(term.Mul(term.Mul(term, xs[j]), inverse), f.p)
		}
		sum.Mod(sum.Add(sum, term), f.p)
	}
	return f.encode(sum), nil
}
