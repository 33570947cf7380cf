// Package secret opens and makes encrypted values of configs: files in the format of age (age-encryption.org/v1; C2SP, age.md), for X25519 recipients.
//
// A config is readable by whoever can ask the platform for it, and lies in repositories and consoles. A value that is a secret is in it as
// an age file for the machine's key, which `age -a -r RECIPIENT` or `ignition secret encrypt` makes:
//
//	contents of files, key files   a source marked as encrypted (package source): data:application/age;base64,... or a URL that ends in #age
//	password hashes, ssh keys      the armored text itself
//
// Only X25519 stanzas are used; others are passed over, so that a file may be for passphrases, ssh keys or plugins too, which are not
// supported. The whole header is authenticated before the payload is looked at, and a payload that is cut off or longer than it was is an
// error. Nothing that was decrypted is returned before all of it was authenticated; values are small and held in memory.
//
// The format, in short:
//
//	age-encryption.org/v1
//	-> X25519 SHARE           a stanza for each recipient, 43 characters of base64 without padding
//	WRAPPED KEY               the file key, encrypted for the recipient, on lines of 64 characters
//	--- MAC                   HMAC-SHA-256 of all that is above
//	NONCE (16 bytes), then chunks of 64 KiB, each with its tag of ChaCha20-Poly1305; the last is marked in its nonce
//
// It is own code because the module that is the reference, which judges it in tests, would make the program a third of a megabyte larger.
package secret

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	version   = "age-encryption.org/v1\n"
	stanza    = "-> X25519 "
	footer    = "---"
	infoX     = "age-encryption.org/v1/X25519"
	armorType = "AGE ENCRYPTED FILE"
	armorHead = "-----BEGIN " + armorType + "-----"

	fileKeySize = 16
	nonceSize   = 16
	chunkSize   = 64 << 10
	maxHeader   = 64 << 10
)

// ErrNotForKey says that a file is whole as far as can be seen, and for other recipients.
var ErrNotForKey = errors.New("encrypted for another key than this machine's")

// errFormat is all that is said of a broken file: nothing of it is repeated.
var errFormat = errors.New("expected an age file (age-encryption.org/v1), found something else")

// Armored reports whether text is an armored age file, as a password hash or an ssh key never is.
func Armored(text string) bool { return strings.HasPrefix(strings.TrimSpace(text), armorHead) }

// dearmor takes the armor off, if there is one.
func dearmor(b []byte) ([]byte, error) {
	trimmed := bytes.TrimSpace(b)
	if !bytes.HasPrefix(trimmed, []byte(armorHead)) {
		return b, nil
	}
	block, rest := pem.Decode(trimmed)
	if block == nil || block.Type != armorType || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errFormat
	}
	return block.Bytes, nil
}

// header is what stands in front of the payload.
type header struct {
	shares  [][]byte // ephemeral shares of X25519 stanzas
	wrapped [][]byte // and the file key for each
	signed  []byte   // what the MAC is of
	mac     []byte
	payload []byte
}

func parse(b []byte) (*header, error) {
	b, err := dearmor(b)
	if err != nil {
		return nil, err
	}
	rest, ok := bytes.CutPrefix(b, []byte(version))
	if !ok {
		return nil, errFormat
	}
	h := &header{}
	for len(b)-len(rest) < maxHeader {
		line, after, ok := bytes.Cut(rest, []byte("\n"))
		if !ok {
			return nil, errFormat
		}
		if mac, last := bytes.CutPrefix(line, []byte(footer+" ")); last {
			h.signed = b[:len(b)-len(rest)+len(footer)]
			h.payload = after
			h.mac, err = decode(mac, sha256.Size)
			return h, err
		}
		if !bytes.HasPrefix(line, []byte("-> ")) {
			return nil, errFormat
		}
		var body []byte
		if body, rest, err = stanzaBody(after); err != nil {
			return nil, err
		}
		if share, x := bytes.CutPrefix(line, []byte(stanza)); x {
			s, err := decode(share, 32)
			if err != nil || len(body) != fileKeySize+chacha20poly1305.Overhead {
				return nil, errFormat
			}
			h.shares, h.wrapped = append(h.shares, s), append(h.wrapped, body)
		}
	}
	return nil, errFormat
}

// stanzaBody reads lines of 64 characters up to the first shorter one.
func stanzaBody(b []byte) (body, rest []byte, err error) {
	for rest = b; ; {
		line, after, ok := bytes.Cut(rest, []byte("\n"))
		if !ok || len(line) > 64 {
			return nil, nil, errFormat
		}
		part, err := base64.RawStdEncoding.Strict().DecodeString(string(line))
		if err != nil {
			return nil, nil, errFormat
		}
		body, rest = append(body, part...), after
		if len(line) < 64 {
			return body, rest, nil
		}
	}
}

func decode(text []byte, size int) ([]byte, error) {
	b, err := base64.RawStdEncoding.Strict().DecodeString(string(text))
	if err != nil || len(b) != size {
		return nil, errFormat
	}
	return b, nil
}

// Check reports whether b looks like an age file with an X25519 recipient, as far as can be said without a key.
func Check(b []byte) error {
	h, err := parse(b)
	if err != nil {
		return err
	}
	if len(h.shares) == 0 {
		return errors.New("expected an age file for an X25519 recipient (age1...), found one for others")
	}
	return nil
}

// Decrypt returns what is in an age file, armored or not. An error says nothing of its contents.
func (k Key) Decrypt(b []byte) ([]byte, error) {
	h, err := parse(b)
	if err != nil {
		return nil, err
	}
	for n, share := range h.shares {
		fileKey, err := k.unwrap(share, h.wrapped[n])
		if err != nil {
			continue // for somebody else
		}
		if !hmac.Equal(h.mac, headerMAC(fileKey, h.signed)) {
			return nil, errors.New("expected an age file whose header is authentic, found one that was changed")
		}
		return open(fileKey, h.payload)
	}
	return nil, ErrNotForKey
}

func (k Key) unwrap(share, wrapped []byte) ([]byte, error) {
	public, err := ecdh.X25519().NewPublicKey(share)
	if err != nil {
		return nil, err
	}
	shared, err := k.private.ECDH(public)
	if err != nil {
		return nil, err
	}
	wrap, err := wrapKey(shared, share, k.private.PublicKey().Bytes())
	if err != nil {
		return nil, err
	}
	return seal(wrap).Open(nil, make([]byte, chacha20poly1305.NonceSize), wrapped, nil)
}

func wrapKey(shared, share, recipient []byte) ([]byte, error) {
	return hkdf.Key(sha256.New, shared, append(bytes.Clone(share), recipient...), infoX, chacha20poly1305.KeySize)
}

func headerMAC(fileKey, signed []byte) []byte {
	key, err := hkdf.Key(sha256.New, fileKey, nil, "header", sha256.Size)
	if err != nil {
		panic(err) // only for lengths that HKDF cannot make
	}
	m := hmac.New(sha256.New, key)
	m.Write(signed)
	return m.Sum(nil)
}

// aead is the cipher of all parts.
type aead interface {
	Seal(dst, nonce, plain, additional []byte) []byte
	Open(dst, nonce, sealed, additional []byte) ([]byte, error)
}

func seal(key []byte) aead {
	a, err := chacha20poly1305.New(key)
	if err != nil {
		panic(err) // only for keys of another size
	}
	return a
}

func payloadKey(fileKey, nonce []byte) aead {
	key, err := hkdf.Key(sha256.New, fileKey, nonce, "payload", chacha20poly1305.KeySize)
	if err != nil {
		panic(err) // only for lengths that HKDF cannot make
	}
	return seal(key)
}

// chunkNonce is a counter of eleven bytes, big endian, and a byte that is 1 for the last chunk.
func chunkNonce(n int, last bool) []byte {
	nonce := make([]byte, chacha20poly1305.NonceSize)
	for i := 10; n > 0; i-- {
		nonce[i] = byte(n)
		n >>= 8
	}
	if last {
		nonce[11] = 1
	}
	return nonce
}

func open(fileKey, payload []byte) ([]byte, error) {
	if len(payload) < nonceSize {
		return nil, errFormat
	}
	a := payloadKey(fileKey, payload[:nonceSize])
	payload = payload[nonceSize:]
	plain := []byte{}
	for n := 0; ; n++ {
		size := min(len(payload), chunkSize+chacha20poly1305.Overhead)
		last := size == len(payload)
		if last && n > 0 && size == chacha20poly1305.Overhead {
			return nil, errFormat // an empty chunk can only be the first
		}
		var err error
		if plain, err = a.Open(plain, chunkNonce(n, last), payload[:size], nil); err != nil {
			return nil, errors.New("expected an age file that is whole and unchanged, found one that is not")
		}
		if payload = payload[size:]; last {
			return plain, nil
		}
	}
}

// Encrypt makes an armored age file for recipients (age1...).
func Encrypt(plain []byte, recipients ...string) (string, error) {
	fileKey := make([]byte, fileKeySize)
	nonce := make([]byte, nonceSize)
	for _, b := range [][]byte{fileKey, nonce} {
		if _, err := rand.Read(b); err != nil {
			return "", err
		}
	}
	var out bytes.Buffer
	out.WriteString(version)
	for _, r := range recipients {
		public, err := parseRecipient(r)
		if err != nil {
			return "", err
		}
		ephemeral, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			return "", err
		}
		shared, err := ephemeral.ECDH(public)
		if err != nil {
			return "", fmt.Errorf("recipient %s: %w", r, err)
		}
		share := ephemeral.PublicKey().Bytes()
		wrap, err := wrapKey(shared, share, public.Bytes())
		if err != nil {
			return "", err
		}
		wrapped := seal(wrap).Seal(nil, make([]byte, chacha20poly1305.NonceSize), fileKey, nil)
		fmt.Fprintf(&out, "%s%s\n%s\n", stanza, base64.RawStdEncoding.EncodeToString(share), base64.RawStdEncoding.EncodeToString(wrapped))
	}
	out.WriteString(footer)
	mac := headerMAC(fileKey, out.Bytes())
	fmt.Fprintf(&out, " %s\n", base64.RawStdEncoding.EncodeToString(mac))
	out.Write(nonce)
	a := payloadKey(fileKey, nonce)
	for n := 0; ; n++ {
		size := min(len(plain), chunkSize)
		last := size == len(plain)
		out.Write(a.Seal(nil, chunkNonce(n, last), plain[:size], nil))
		if plain = plain[size:]; last {
			break
		}
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: armorType, Bytes: out.Bytes()})), nil
}
