package tuf

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

// key is a public key as metadata has it (section 4.2). The kinds are those of the specification: ed25519, ecdsa, rsa.
type key struct {
	Type   string `json:"keytype"`
	Scheme string `json:"scheme"`
	Value  struct {
		Public string `json:"public"`
	} `json:"keyval"`
}

var errUnusable = errors.New("the role above names no usable keys")

// public returns a key that crypto can use. Key type and scheme must belong together, and to the key.
func (k *key) public() (crypto.PublicKey, error) {
	if k.Type == "ed25519" && k.Scheme == "ed25519" {
		b, err := hex.DecodeString(k.Value.Public)
		if err != nil || len(b) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("ed25519 key: want %d bytes in hexadecimal", ed25519.PublicKeySize)
		}
		return ed25519.PublicKey(b), nil
	}
	block, _ := pem.Decode([]byte(k.Value.Public))
	if block == nil {
		return nil, fmt.Errorf("%.20s key: want PEM", k.Type)
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%.20s key: %w", k.Type, err)
	}
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		if (k.Type == "ecdsa" || k.Type == k.Scheme) && k.Scheme == scheme(pub) {
			return pub, nil
		}
	case *rsa.PublicKey:
		if k.Type == "rsa" && k.Scheme == "rsassa-pss-sha256" {
			return pub, nil
		}
	}
	return nil, fmt.Errorf("key type %.20q with scheme %.20q and a %T", k.Type, k.Scheme, pub)
}

const p256, p384 = "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384"

// scheme is how a key of this curve signs; empty if it does not.
func scheme(pub *ecdsa.PublicKey) string {
	switch pub.Curve {
	case elliptic.P256():
		return p256
	case elliptic.P384():
		return p384
	}
	return ""
}

// signs reports whether sig is a signature of message by pub.
func signs(pub crypto.PublicKey, message []byte, sig string) bool {
	b, err := hex.DecodeString(sig)
	if err != nil {
		return false
	}
	digest := sha256.Sum256(message)
	switch pub := pub.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(pub, message, b)
	case *ecdsa.PublicKey:
		if scheme(pub) == p384 {
			long := sha512.Sum384(message)
			return ecdsa.VerifyASN1(pub, long[:], b)
		}
		return ecdsa.VerifyASN1(pub, digest[:], b)
	case *rsa.PublicKey:
		return rsa.VerifyPSS(pub, crypto.SHA256, digest[:], b, nil) == nil
	}
	return false
}

// signers counts the keys of a role that have signed: keys, not their names, so that one key under two names counts once; and the names. A key
// of a kind that we do not know cannot have signed.
func signers(keys map[string]*key, r *role, payload []byte, signatures []signature) (n, names int, err error) {
	usable := 0
	good := map[string]bool{}
	for _, id := range r.KeyIDs {
		k := keys[id]
		if k == nil {
			continue
		}
		pub, err := k.public()
		if err != nil {
			continue
		}
		usable++
		name, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			continue
		}
		for _, s := range signatures {
			if s.KeyID == id && signs(pub, payload, s.Sig) {
				good[string(name)] = true
				names++
			}
		}
	}
	if usable == 0 || r.Threshold < 1 {
		return 0, 0, errUnusable
	}
	return len(good), names, nil
}
