// Package tang asks tang servers: for the keys they advertise, and for their part of a key that only who reaches the server can make.
//
// A server has signing keys and exchange keys, and signs its list of both, the advertisement, with all its signing keys. A client that
// knows the thumbprint of one signing key trusts the list. With an exchange key s*G and a key pair of its own, c and c*G, it locks
// something with c*s*G, keeps c*G and forgets c. Later it sends the server c*G + e*G with a passing key e, so that the server learns
// nothing of what it opens; the answer is s*(c*G + e*G), of which e*(s*G) is taken away again (McCallum and Relyea's exchange, tang(8)).
//
// Two requests of HTTP, both small: GET URL/adv/THUMBPRINT and POST URL/rec/THUMBPRINT. An answer is never believed to be short, quick
// or well-formed; what it says is held against curves and signatures. Redirections are not followed: the thumbprint is of one server.
package tang

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strings"

	"github.com/proa-os/proa/ignition/jose"
)

// Get fetches the advertisement of a server. It is not checked: see Check.
func Get(ctx context.Context, server, thumbprint string) ([]byte, error) {
	return request(ctx, "GET", join(server, "adv", thumbprint), nil)
}

// join appends path elements to a base URL.
func join(server string, elements ...string) string {
	for _, e := range elements {
		server = strings.TrimSuffix(server, "/") + "/" + url.PathEscape(e)
	}
	return server
}

// ErrThumbprint is why an advertisement is not trusted whose signatures are right.
var ErrThumbprint = errors.New("the trusted key did not sign the advertisement")

// Check reads an advertisement. All of its signing keys must have signed it, and one of them must have the thumbprint; an empty one trusts any.
func Check(advertisement []byte, thumbprint string) (set jose.Set, raw []byte, err error) {
	signed, err := jose.ParseSigned(advertisement)
	if err != nil {
		return set, nil, err
	}
	if set, err = jose.ParseSet(signed.Payload); err != nil {
		return set, nil, err
	}
	var signers []string
	trusted := thumbprint == ""
	for _, k := range set.Keys {
		if !k.May("verify") {
			continue
		}
		if !signed.SignedBy(k) {
			return set, nil, fmt.Errorf("wrong signature: the advertisement is not signed by its key %s", k.Thumbprint())
		}
		signers = append(signers, k.Thumbprint())
		trusted = trusted || k.Is(thumbprint)
	}
	if len(signers) == 0 {
		return set, nil, errors.New("the advertisement has no signing key of a kind that is known here (ES256, ES384, ES512)")
	}
	if !trusted {
		return set, nil, fmt.Errorf("%w: expected %s, found %s", ErrThumbprint, thumbprint, strings.Join(signers, ", "))
	}
	return set, signed.Payload, nil
}

// Exchange returns the first exchange key of a set, without what would say that it is for exchanges.
func Exchange(set jose.Set) (jose.Key, error) {
	for _, k := range set.Keys {
		if k.May("deriveKey") {
			return jose.Key{Type: k.Type, Curve: k.Curve, X: k.X, Y: k.Y}, nil
		}
	}
	return jose.Key{}, errors.New("the advertisement has no exchange key")
}

// Lock makes a passing key pair: its public half, which is kept, and what it shares with an exchange key.
func Lock(server jose.Key) (public jose.Key, shared []byte, err error) {
	s, err := server.Point()
	if err != nil {
		return jose.Key{}, nil, err
	}
	secret, pair, err := generate(s.Curve)
	if err != nil {
		return jose.Key{}, nil, err
	}
	return pair.Key(), multiply(s, secret).Shared(), nil
}

// Unlock asks the server for its part, and returns what Lock did.
func Unlock(ctx context.Context, address, thumbprint string, server, public jose.Key) ([]byte, error) {
	s, err := server.Point()
	if err != nil {
		return nil, fmt.Errorf("exchange key: %w", err)
	}
	c, err := public.Point()
	if err != nil {
		return nil, fmt.Errorf("own key: %w", err)
	}
	if server.Curve != public.Curve {
		return nil, fmt.Errorf("expected two keys on one curve, found %s and %s", server.Curve, public.Curve)
	}
	secret, e, err := generate(s.Curve)
	if err != nil {
		return nil, err
	}
	blinded, err := add(c, e)
	if err != nil {
		return nil, err
	}
	question := blinded.Key()
	question.Alg, question.KeyOps = "ECMR", []string{"deriveKey"}
	body, err := json.Marshal(question)
	if err != nil {
		return nil, err
	}
	answer, err := request(ctx, "POST", join(address, "rec", thumbprint), body)
	if err != nil {
		return nil, err
	}
	var k jose.Key
	if err := json.NewDecoder(bytes.NewReader(answer)).Decode(&k); err != nil {
		return nil, fmt.Errorf("parse the server's answer: %w", err)
	}
	if k.Curve != server.Curve {
		return nil, fmt.Errorf("wrong answer of the server: expected a point on %s, found one on %.20q", server.Curve, k.Curve)
	}
	r, err := k.Point()
	if err != nil {
		return nil, fmt.Errorf("wrong answer of the server: %w", err)
	}
	shared, err := add(r, negate(multiply(s, secret)))
	if err != nil {
		return nil, fmt.Errorf("wrong answer of the server: %w", err)
	}
	return shared.Shared(), nil
}

// The calculations go through crypto/elliptic, whose curves of NIST are crypto/ecdh's constant-time ones; crypto/ecdh itself cannot add.

func generate(c elliptic.Curve) ([]byte, jose.Point, error) {
	for {
		n, err := rand.Int(rand.Reader, c.Params().N)
		if err != nil {
			return nil, jose.Point{}, fmt.Errorf("make key: %w", err)
		}
		if n.Sign() == 0 {
			continue
		}
		secret := n.FillBytes(make([]byte, (c.Params().N.BitLen()+7)/8))
		x, y := c.ScalarBaseMult(secret)
		return secret, jose.Point{Curve: c, X: x, Y: y}, nil
	}
}

// multiply stays away from infinity: the order of these curves is prime, and no secret is zero.
func multiply(p jose.Point, secret []byte) jose.Point {
	x, y := p.ScalarMult(p.X, p.Y, secret)
	return jose.Point{Curve: p.Curve, X: x, Y: y}
}

func negate(p jose.Point) jose.Point {
	return jose.Point{Curve: p.Curve, X: p.X, Y: new(big.Int).Sub(p.Params().P, p.Y)}
}

func add(p, q jose.Point) (jose.Point, error) {
	x, y := p.Add(p.X, p.Y, q.X, q.Y)
	if x.Sign() == 0 && y.Sign() == 0 { // crypto/elliptic's word for infinity
		return jose.Point{}, errors.New("the sum of two points is at infinity")
	}
	return jose.Point{Curve: p.Curve, X: x, Y: y}, nil
}
