package jose

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// KeySize is that of A256GCM, in bytes.
const KeySize = 32

// A Sealed document is a JWE: something encrypted for whoever can come by its key, which its header says how. It has no encrypted key of its own.
type Sealed struct {
	Header []byte // decoded JSON

	protected           string
	iv, ciphertext, tag []byte
}

// Seal encrypts a text. The header is what the reader needs to find the key; alg, enc and, for ECDH-ES, epk are the caller's too.
func Seal(header any, key, text []byte) (*Sealed, error) {
	raw, err := json.Marshal(header)
	if err != nil {
		return nil, fmt.Errorf("seal document: %w", err)
	}
	a, err := aead(key)
	if err != nil {
		return nil, fmt.Errorf("seal document: %w", err)
	}
	s := &Sealed{Header: raw, protected: Encode(raw), iv: make([]byte, a.NonceSize())}
	if _, err := rand.Read(s.iv); err != nil {
		return nil, err
	}
	out := a.Seal(nil, s.iv, text, []byte(s.protected))
	s.ciphertext, s.tag = out[:len(text)], out[len(text):]
	return s, nil
}

// ParseSealed reads a JWE in compact form (RFC 7516, 7.1).
func ParseSealed(text string) (*Sealed, error) {
	p := strings.Split(strings.TrimSpace(text), ".")
	if len(p) != 5 {
		return nil, fmt.Errorf("parse sealed document: expected five parts between dots, found %d", len(p))
	}
	return sealed(p[0], p[1], p[2], p[3], p[4])
}

func sealed(protected, key, iv, ciphertext, tag string) (s *Sealed, err error) {
	if key != "" {
		return nil, errors.New("parse sealed document: it has an encrypted key of its own; expected one whose key is given or agreed on")
	}
	s = &Sealed{protected: protected}
	for _, part := range []struct {
		to   *[]byte
		from string
	}{{&s.Header, protected}, {&s.iv, iv}, {&s.ciphertext, ciphertext}, {&s.tag, tag}} {
		if *part.to, err = Decode(part.from); err != nil {
			return nil, fmt.Errorf("parse sealed document: %w", err)
		}
	}
	return s, nil
}

// String is the compact form.
func (s *Sealed) String() string {
	return s.protected + ".." + Encode(s.iv) + "." + Encode(s.ciphertext) + "." + Encode(s.tag)
}

// flattened is the JSON form of RFC 7516, 7.2.2, in which a LUKS2 token of clevis has it.
type flattened struct {
	Ciphertext string `json:"ciphertext"`
	Key        string `json:"encrypted_key"`
	IV         string `json:"iv"`
	Protected  string `json:"protected"`
	Tag        string `json:"tag"`
}

// MarshalJSON is the flattened form.
func (s *Sealed) MarshalJSON() ([]byte, error) {
	return json.Marshal(flattened{Ciphertext: Encode(s.ciphertext), IV: Encode(s.iv), Protected: s.protected, Tag: Encode(s.tag)})
}

// UnmarshalJSON reads the flattened form.
func (s *Sealed) UnmarshalJSON(raw []byte) error {
	var f flattened
	if err := json.Unmarshal(raw, &f); err != nil {
		return err
	}
	parsed, err := sealed(f.Protected, f.Key, f.IV, f.Ciphertext, f.Tag)
	if err == nil {
		*s = *parsed
	}
	return err
}

// Open decrypts with the key.
func (s *Sealed) Open(key []byte) ([]byte, error) {
	a, err := aead(key)
	if err != nil {
		return nil, fmt.Errorf("open sealed document: %w", err)
	}
	if len(s.iv) != a.NonceSize() || len(s.tag) != a.Overhead() {
		return nil, fmt.Errorf("open sealed document: expected %d bytes of nonce and %d of tag, found %d and %d", a.NonceSize(), a.Overhead(), len(s.iv), len(s.tag))
	}
	text, err := a.Open(nil, s.iv, append(append([]byte(nil), s.ciphertext...), s.tag...), []byte(s.protected))
	if err != nil {
		return nil, errors.New("open sealed document: it was not sealed with this key, or is damaged")
	}
	return text, nil
}

func aead(key []byte) (cipher.AEAD, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("expected a key of %d bytes, found %d", KeySize, len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Derive is the Concat KDF of RFC 7518, 4.6.2, for a key of A256GCM.
func Derive(shared, partyU, partyV []byte) []byte {
	return derive("A256GCM", KeySize, shared, partyU, partyV)
}

// derive makes keys of no more than one hash.
func derive(alg string, size int, shared, partyU, partyV []byte) []byte {
	h := sha256.New()
	number := func(n int) { h.Write(binary.BigEndian.AppendUint32(nil, uint32(n))) }
	number(1)
	h.Write(shared)
	for _, part := range [][]byte{[]byte(alg), partyU, partyV} {
		number(len(part))
		h.Write(part)
	}
	number(8 * size)
	return h.Sum(nil)[:size]
}
