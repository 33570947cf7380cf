package repo

import (
	"cmp"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// A signer lets go-tuf sign with a key that may be anywhere. sigstore's own LoadSigner takes only keys whose secret it sees.
type signer struct {
	key    crypto.Signer
	public ed25519.PublicKey
	failed error // why the key did not sign, which go-tuf does not pass on
}

// Signer makes a key sign metadata, as those of a Keyring do.
func Signer(key crypto.Signer) (signature.Signer, error) { return newSigner(key) }

func newSigner(key crypto.Signer) (*signer, error) {
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok || len(public) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("use key: expected one with an ed25519 public key, found %T: make a key of that kind in the token", key.Public())
	}
	return &signer{key: key, public: public}, nil
}

// PublicKey returns the ed25519.PublicKey.
func (s *signer) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return s.public, nil
}

// SignMessage signs the message itself (RFC 8032, 5.1.6), and looks at what it got: a token that hashes first, or answers with another
// key, is found at the desk.
func (s *signer) SignMessage(message io.Reader, _ ...signature.SignOption) (sig []byte, err error) {
	defer func() { s.failed = err }()
	b, err := io.ReadAll(message)
	if err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	sig, err = s.key.Sign(rand.Reader, b, crypto.Hash(0))
	if err != nil {
		return nil, err
	}
	if !ed25519.Verify(s.public, b, sig) {
		return nil, errors.New("what the key returned is no ed25519 signature of it: the token must sign the whole message, with no hash before, by the key of that name")
	}
	return sig, nil
}

// signWith signs with the keys that are among keyIDs, and returns the ids of those. An older signature of the same key is replaced.
func signWith[T metadata.Roles](m *metadata.Metadata[T], keys []crypto.Signer, keyIDs []string) ([]string, error) {
	var by []string
	for _, key := range keys {
		s, err := newSigner(key)
		if err != nil {
			return by, err
		}
		id, err := keyID(key)
		if err != nil {
			return by, err
		}
		if !slices.Contains(keyIDs, id) {
			continue
		}
		m.Signatures = slices.DeleteFunc(m.Signatures, func(s metadata.Signature) bool { return s.KeyID == id })
		if _, err := m.Sign(s); err != nil {
			return by, fmt.Errorf("key %s: %w", Short(id), cmp.Or(s.failed, err))
		}
		by = append(by, id)
	}
	return by, nil
}

// keyID is the name of a key in metadata.
func keyID(key crypto.Signer) (string, error) {
	public, err := metadata.KeyFromPublicKey(key.Public())
	if err != nil {
		return "", fmt.Errorf("public key: %w", err)
	}
	return public.ID()
}
