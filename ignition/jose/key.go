// Package jose is the part of JSON Object Signing and Encryption that tang and clevis speak: elliptic curve keys and their
// thumbprints (RFC 7517, 7638), signed documents (RFC 7515), and encrypted ones in compact and flattened form (RFC 7516).
//
// Of the algorithms (RFC 7518) there are ES256, ES384 and ES512 for signatures, and A256GCM with the key given (dir) or agreed on
// (ECDH-ES, its Concat KDF here, the agreement itself in package tang). Everything else is refused. Base64 is the URL's alphabet,
// without padding.
//
// Whoever made a document cannot make the reader do more work than its size: no compression, no iterations, no remote keys. A point
// that is not on its curve is never calculated with.
package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha1"
	"crypto/sha256"
	_ "crypto/sha512" // of ES384 and ES512
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
)

var b64 = base64.RawURLEncoding

// Encode is base64url without padding.
func Encode(b []byte) string { return b64.EncodeToString(b) }

// Decode undoes Encode.
func Decode(s string) ([]byte, error) {
	b, err := b64.Strict().DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("decode base64url: %w", err)
	}
	return b, nil
}

// A Key is a public key on an elliptic curve, as a JWK has it.
type Key struct {
	Type   string   `json:"kty"`
	Alg    string   `json:"alg,omitempty"`
	Curve  string   `json:"crv"`
	KeyOps []string `json:"key_ops,omitempty"`
	X      string   `json:"x"`
	Y      string   `json:"y"`
}

// A Set is a JWK set.
type Set struct {
	Keys []Key `json:"keys"`
}

// ParseSet reads a JWK set. Keys that are not on a curve that this package knows are left out, as RFC 7517, 5 has it.
func ParseSet(raw []byte) (Set, error) {
	var s struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return Set{}, fmt.Errorf("parse key set: %w", err)
	}
	var set Set
	for _, r := range s.Keys {
		var k Key
		if json.Unmarshal(r, &k) != nil {
			continue
		}
		if _, err := k.Point(); err == nil {
			set.Keys = append(set.Keys, k)
		}
	}
	return set, nil
}

// May reports whether a key is for an operation: sign, verify, deriveKey. As jose(1) has it with `jwk use -r`, a key that does not
// say what it is for is for nothing.
func (k Key) May(op string) bool { return slices.Contains(k.KeyOps, op) }

// Find returns the key with a thumbprint, by SHA-256 or, as old tang servers have it, by SHA-1.
func (s Set) Find(thumbprint string) (Key, bool) {
	for _, k := range s.Keys {
		if k.Is(thumbprint) {
			return k, true
		}
	}
	return Key{}, false
}

// Is reports whether a thumbprint is the key's.
func (k Key) Is(thumbprint string) bool {
	return thumbprint != "" && (thumbprint == k.Thumbprint() || thumbprint == k.ThumbprintSHA1())
}

// Thumbprint is that of RFC 7638 by SHA-256, 43 characters long.
func (k Key) Thumbprint() string {
	sum := sha256.Sum256(k.members())
	return Encode(sum[:])
}

// ThumbprintSHA1 is that of tang servers before version 10, 27 characters long.
func (k Key) ThumbprintSHA1() string {
	sum := sha1.Sum(k.members())
	return Encode(sum[:])
}

// members are the required ones, in the order of RFC 7638, 3.2.
func (k Key) members() []byte {
	b, err := json.Marshal(struct {
		Curve string `json:"crv"`
		Type  string `json:"kty"`
		X     string `json:"x"`
		Y     string `json:"y"`
	}{k.Curve, k.Type, k.X, k.Y})
	if err != nil {
		panic(err) // four strings
	}
	return b
}

// curve knows a name of RFC 7518, 6.2.1.1, and which hash its signatures are over.
func curve(name string) (elliptic.Curve, crypto.Hash, error) {
	switch name {
	case "P-256":
		return elliptic.P256(), crypto.SHA256, nil
	case "P-384":
		return elliptic.P384(), crypto.SHA384, nil
	case "P-521":
		return elliptic.P521(), crypto.SHA512, nil
	}
	return nil, 0, fmt.Errorf("unknown curve %.20q: expected P-256, P-384 or P-521", name)
}

// A Point is on its curve, and not at infinity.
type Point struct {
	elliptic.Curve
	X, Y *big.Int
}

// Point returns the key's point.
func (k Key) Point() (Point, error) {
	if k.Type != "EC" {
		return Point{}, fmt.Errorf("wrong type of key: expected EC, found %.20q", k.Type)
	}
	c, _, err := curve(k.Curve)
	if err != nil {
		return Point{}, err
	}
	size := (c.Params().BitSize + 7) / 8
	var at [2]*big.Int
	for n, s := range []string{k.X, k.Y} {
		b, err := Decode(s)
		if err != nil {
			return Point{}, err
		}
		if len(b) != size {
			return Point{}, fmt.Errorf("wrong coordinate of %s: expected %d bytes, found %d", k.Curve, size, len(b))
		}
		at[n] = new(big.Int).SetBytes(b)
	}
	if !c.IsOnCurve(at[0], at[1]) {
		return Point{}, fmt.Errorf("the point is not on the curve %s", k.Curve)
	}
	return Point{c, at[0], at[1]}, nil
}

// Key is the JWK of a point.
func (p Point) Key() Key {
	size := (p.Params().BitSize + 7) / 8
	return Key{Type: "EC", Curve: p.Params().Name, X: Encode(p.X.FillBytes(make([]byte, size))), Y: Encode(p.Y.FillBytes(make([]byte, size)))}
}

// Shared is what two parties that have both come to this point know: its x coordinate (RFC 7518, 4.6).
func (p Point) Shared() []byte { return p.X.FillBytes(make([]byte, (p.Params().BitSize+7)/8)) }

// verify checks a signature: r and s, of the size of the curve's order each (RFC 7518, 3.4).
func (k Key) verify(alg string, signed, signature []byte) bool {
	p, err := k.Point()
	if err != nil {
		return false
	}
	_, hash, err := curve(k.Curve)
	if err != nil || alg != map[crypto.Hash]string{crypto.SHA256: "ES256", crypto.SHA384: "ES384", crypto.SHA512: "ES512"}[hash] {
		return false
	}
	size := (p.Params().BitSize + 7) / 8
	if len(signature) != 2*size {
		return false
	}
	h := hash.New()
	h.Write(signed)
	r, s := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
	return ecdsa.Verify(&ecdsa.PublicKey{Curve: p.Curve, X: p.X, Y: p.Y}, h.Sum(nil), r, s)
}
