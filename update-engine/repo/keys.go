package repo

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// A Keyring holds the private keys that are at hand. A role may have none: an offline key is seldom there.
type Keyring interface {
	Signers(role string) ([]signature.Signer, error)
}

// KeyDir is a Keyring in files: <role>-<n>.pem, PKCS #8, ed25519, readable by their owner only.
type KeyDir string

const keyType = "PRIVATE KEY"

// Signers returns the keys of a role in the order of their file names.
func (d KeyDir) Signers(role string) ([]signature.Signer, error) {
	files, err := filepath.Glob(filepath.Join(string(d), role+"-*.pem"))
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	slices.Sort(files)
	var signers []signature.Signer
	for _, f := range files {
		key, err := readKey(f)
		if err != nil {
			return nil, err
		}
		s, err := signature.LoadED25519Signer(key)
		if err != nil {
			return nil, fmt.Errorf("read key %s: %w", f, err)
		}
		signers = append(signers, s)
	}
	return signers, nil
}

func readKey(name string) (ed25519.PrivateKey, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("read key %s: mode %04o lets others read it: chmod 600 it, and replace the key if others had access", name, fi.Mode().Perm())
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != keyType {
		return nil, fmt.Errorf("read key %s: expected a PEM block %q", name, keyType)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", name, err)
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read key %s: expected an ed25519 key, found %T", name, key)
	}
	return ed, nil
}

// NewKeys makes n keys for a role. Existing files are never overwritten.
func (d KeyDir) NewKeys(role string, n int) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("make keys: %w", err)
	}
	for i := range n {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return fmt.Errorf("make keys: %w", err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return fmt.Errorf("make keys: %w", err)
		}
		name := filepath.Join(string(d), fmt.Sprintf("%s-%d.pem", role, i+1))
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make keys: %s exists already: keys are never overwritten, choose an empty folder", name)
		}
		if err != nil {
			return fmt.Errorf("make keys: %w", err)
		}
		err = pem.Encode(f, &pem.Block{Type: keyType, Bytes: der})
		if err == nil {
			err = f.Sync()
		}
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return fmt.Errorf("make key %s: %w", name, err)
		}
	}
	return nil
}

// publicKeys returns the TUF keys of the signers.
func publicKeys(signers []signature.Signer) ([]*metadata.Key, error) {
	var keys []*metadata.Key
	for _, s := range signers {
		pub, err := s.PublicKey()
		if err != nil {
			return nil, fmt.Errorf("public key: %w", err)
		}
		key, err := metadata.KeyFromPublicKey(crypto.PublicKey(pub))
		if err != nil {
			return nil, fmt.Errorf("public key: %w", err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// signWith signs with the signers whose keys are among keyIDs, and returns how many those are. An older signature of the
// same key is replaced.
func signWith[T metadata.Roles](m *metadata.Metadata[T], signers []signature.Signer, keyIDs []string) (int, error) {
	keys, err := publicKeys(signers)
	if err != nil {
		return 0, err
	}
	n := 0
	for i, key := range keys {
		id, err := key.ID()
		if err != nil {
			return n, err
		}
		if !slices.Contains(keyIDs, id) {
			continue
		}
		m.Signatures = slices.DeleteFunc(m.Signatures, func(s metadata.Signature) bool { return s.KeyID == id })
		if _, err := m.Sign(signers[i]); err != nil {
			return n, fmt.Errorf("sign: %w", err)
		}
		n++
	}
	return n, nil
}
