package secret

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"strings"
)

// The two ways age writes keys: Bech32 (BIP 173) of the 32 bytes of X25519.
const (
	identityPrefix  = "AGE-SECRET-KEY-"
	recipientPrefix = "age"
)

// A Key is a machine's.
type Key struct{ private *ecdh.PrivateKey }

// NewKey makes one.
func NewKey() (Key, error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	return Key{k}, err
}

// ParseKey reads an identity of age: AGE-SECRET-KEY-1..., the one line of an identity file that is no comment.
func ParseKey(text string) (Key, error) {
	var found string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case found != "":
			return Key{}, errors.New("read key: expected one identity, found two")
		default:
			found = line
		}
	}
	b, err := bech32(found, identityPrefix)
	if err != nil {
		return Key{}, errors.New("read key: expected an identity of age (AGE-SECRET-KEY-1...), found something else")
	}
	k, err := ecdh.X25519().NewPrivateKey(b)
	return Key{k}, err
}

// Identity is the secret key as age writes it.
func (k Key) Identity() string {
	return strings.ToUpper(toBech32(strings.ToLower(identityPrefix), k.private.Bytes()))
}

// Recipient is the public key: what secrets are encrypted for.
func (k Key) Recipient() string { return toBech32(recipientPrefix, k.private.PublicKey().Bytes()) }

func parseRecipient(text string) (*ecdh.PublicKey, error) {
	b, err := bech32(text, recipientPrefix)
	if err != nil {
		return nil, errors.New("read recipient: expected an X25519 recipient of age (age1...), found something else")
	}
	return ecdh.X25519().NewPublicKey(b)
}

const alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

// polymod is the checksum of BIP 173.
func polymod(values []byte) uint32 {
	chk := uint32(1)
	for _, v := range values {
		top := chk >> 25
		chk = chk&0x1ffffff<<5 ^ uint32(v)
		for i, g := range []uint32{0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3} {
			if top>>i&1 == 1 {
				chk ^= g
			}
		}
	}
	return chk
}

// expand is the prefix as the checksum takes it, which is of lower case.
func expand(prefix string) (all []byte) {
	for _, c := range []byte(prefix) {
		all = append(all, c>>5)
	}
	all = append(all, 0)
	for _, c := range []byte(prefix) {
		all = append(all, c&31)
	}
	return all
}

var errBech32 = errors.New("expected Bech32")

// bech32 returns the 32 bytes of text, which is all in the case of its prefix.
func bech32(text, prefix string) ([]byte, error) {
	data, ok := strings.CutPrefix(text, prefix+"1")
	upper := prefix == strings.ToUpper(prefix)
	if !ok || len(data) != 52+6 || upper && text != strings.ToUpper(text) || !upper && text != strings.ToLower(text) {
		return nil, errBech32
	}
	values := make([]byte, 0, len(data))
	for _, c := range []byte(strings.ToLower(data)) {
		v := strings.IndexByte(alphabet, c)
		if v < 0 {
			return nil, errBech32
		}
		values = append(values, byte(v))
	}
	if polymod(append(expand(strings.ToLower(prefix)), values...)) != 1 {
		return nil, errBech32
	}
	return regroup(values[:52], 5, 8, false)
}

func toBech32(prefix string, b []byte) string {
	values, _ := regroup(b, 8, 5, true) // whole bytes always fit
	sum := polymod(append(append(expand(prefix), values...), 0, 0, 0, 0, 0, 0)) ^ 1
	var out strings.Builder
	out.WriteString(prefix + "1")
	for _, v := range values {
		out.WriteByte(alphabet[v])
	}
	for i := range 6 {
		out.WriteByte(alphabet[sum>>(5*(5-i))&31])
	}
	return out.String()
}

// regroup makes groups of "to" bits of groups of "from" bits. Left over bits are padded with zeros, or must be zeros.
func regroup(in []byte, from, to int, pad bool) (out []byte, err error) {
	acc, bits := 0, 0
	for _, v := range in {
		acc, bits = acc<<from|int(v), bits+from
		for ; bits >= to; bits -= to {
			out = append(out, byte(acc>>(bits-to)&(1<<to-1)))
		}
		acc &= 1<<bits - 1
	}
	switch {
	case pad && bits > 0:
		out = append(out, byte(acc<<(to-bits)))
	case !pad && (bits >= from || acc != 0):
		return nil, errBech32
	}
	return out, nil
}
