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
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/proa-os/proa/internal/durable"
)

// A Keyring holds keys, for each role those that are at hand. A role may have none: an offline key is seldom there.
//
// It is the seam for keys that are no files, and OpenKeys the place that chooses. A token's Keyring returns what its driver gives
// for each key, as far as that signs ed25519; no other code sees a private key, or needs to know where it is.
type Keyring interface {
	// Signers returns the keys of a role that can sign here. Each must have an ed25519.PublicKey and sign a whole message, which its Sign gets
	// with crypto.Hash(0).
	Signers(role string) ([]crypto.Signer, error)
	// PublicKeys returns the public keys of a role, also of those whose private part is elsewhere.
	PublicKeys(role string) ([]*metadata.Key, error)
}

// OpenKeys returns the keys in the place that a command line names (--keys): a folder, which need not be there yet. Another kind of key store, as
// a PKCS #11 token under its pkcs11: URI (RFC 7512), is a file of its own here and one more case.
func OpenKeys(place string) Keyring { return KeyDir(place) }

// OpenKey returns the one key that a command line names (--key).
func OpenKey(name string) Keyring { return KeyFile(name) }

// KeyDir is a Keyring in files: <role>-<key id>.pem, PKCS #8, ed25519, readable by their owner only. The first eight digits of
// the id do, so that folders from several desks can be laid together. Beside each lies <role>-<key id>.pub, the public key, which is all that
// a desk needs of a key that stays elsewhere.
type KeyDir string

// KeyFile is a Keyring of one private key in a file, for whichever role it is.
type KeyFile string

const (
	privateType = "PRIVATE KEY"
	publicType  = "PUBLIC KEY"
	shortID     = 8 // digits of a key id in names and tables
)

// Short is a key id as people see it.
func Short(id string) string { return id[:min(len(id), shortID)] }

// Signers returns the keys of a role in the order of their file names.
func (d KeyDir) Signers(role string) ([]crypto.Signer, error) {
	files, err := filepath.Glob(filepath.Join(string(d), role+"-*.pem"))
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	slices.Sort(files)
	var signers []crypto.Signer
	for _, f := range files {
		key, err := readKey(f)
		if err != nil {
			return nil, err
		}
		signers = append(signers, key)
	}
	return signers, nil
}

// Signers returns the key.
func (f KeyFile) Signers(string) ([]crypto.Signer, error) {
	key, err := readKey(string(f))
	if err != nil {
		return nil, err
	}
	return []crypto.Signer{key}, nil
}

// PublicKeys returns the key.
func (f KeyFile) PublicKeys(string) ([]*metadata.Key, error) {
	key, err := PublicKey(string(f))
	if err != nil {
		return nil, err
	}
	return []*metadata.Key{key}, nil
}

func readKey(name string) (ed25519.PrivateKey, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("read key %s: mode %04o lets others read it: chmod 600 it, and replace the key if others had access", name, fi.Mode().Perm())
	}
	block, err := readPEM(name, privateType)
	if err != nil {
		return nil, err
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

func readPEM(name string, kinds ...string) (*pem.Block, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || !slices.Contains(kinds, block.Type) {
		return nil, fmt.Errorf("read key %s: expected a PEM block %q", name, strings.Join(kinds, `" or "`))
	}
	return block, nil
}

// PublicKey reads the public key out of a file of a public or a private key.
func PublicKey(name string) (*metadata.Key, error) {
	block, err := readPEM(name, publicType, privateType)
	if err != nil {
		return nil, err
	}
	if block.Type == privateType {
		key, err := readKey(name)
		if err != nil {
			return nil, err
		}
		return metadata.KeyFromPublicKey(key.Public())
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", name, err)
	}
	if _, ok := key.(ed25519.PublicKey); !ok {
		return nil, fmt.Errorf("read key %s: expected an ed25519 key, found %T", name, key)
	}
	return metadata.KeyFromPublicKey(key)
}

// PublicKeys returns the public keys of a role, also of those whose private part is elsewhere.
func (d KeyDir) PublicKeys(role string) ([]*metadata.Key, error) {
	var files []string
	for _, end := range []string{".pem", ".pub"} {
		found, err := filepath.Glob(filepath.Join(string(d), role+"-*"+end))
		if err != nil {
			return nil, fmt.Errorf("read keys: %w", err)
		}
		files = append(files, found...)
	}
	slices.Sort(files)
	var keys []*metadata.Key
	seen := map[string]bool{}
	for _, f := range files {
		key, err := PublicKey(f)
		if err != nil {
			return nil, err
		}
		if id, err := key.ID(); err != nil {
			return nil, err
		} else if !seen[id] {
			keys, seen[id] = append(keys, key), true
		}
	}
	return keys, nil
}

// A NewKey is a key that was just made.
type NewKey struct {
	Role    string `json:"role"`
	ID      string `json:"key_id"`
	Private string `json:"private"` // file
	Public  string `json:"public"`  // file
}

// NewKeys makes n keys for a role. Existing files are never overwritten.
func (d KeyDir) NewKeys(role string, n int) ([]NewKey, error) {
	if !slices.Contains(Roles, role) {
		return nil, fmt.Errorf("make keys: unknown role %q: expected one of %s", role, strings.Join(Roles, ", "))
	}
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, fmt.Errorf("make keys: %w", err)
	}
	var made []NewKey
	for range n {
		k, err := d.newKey(role)
		if err != nil {
			return made, fmt.Errorf("make keys: %w", err)
		}
		made = append(made, k)
	}
	return made, nil
}

func (d KeyDir) newKey(role string) (NewKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return NewKey{}, err
	}
	key, err := metadata.KeyFromPublicKey(crypto.PublicKey(public))
	if err != nil {
		return NewKey{}, err
	}
	id, err := key.ID()
	if err != nil {
		return NewKey{}, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return NewKey{}, err
	}
	open, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return NewKey{}, err
	}
	base := filepath.Join(string(d), role+"-"+Short(id))
	k := NewKey{Role: role, ID: id, Private: base + ".pem", Public: base + ".pub"}
	if _, err := os.Lstat(k.Private); !errors.Is(err, fs.ErrNotExist) {
		return NewKey{}, fmt.Errorf("%s exists already: keys are never overwritten", k.Private)
	}
	if err := durable.WritePath(k.Private, pem.EncodeToMemory(&pem.Block{Type: privateType, Bytes: secret}), 0o600); err != nil {
		return NewKey{}, err
	}
	return k, durable.WritePath(k.Public, pem.EncodeToMemory(&pem.Block{Type: publicType, Bytes: open}), 0o644)
}
