// Package secret keeps passwords and keys for containers: root's files, one a secret, which no image, command line or unit holds.
//
//	<dir>/<name>.json    0600, in /var/lib/proa/containers/secrets (0700): when it was made, labels, the bytes or their seal
//
// A container gets one as a file in memory that only its mount namespace has, or in its environment (package bundle); both are made at
// each start, so that a replaced secret is there at the next. Who is root on the machine has them. On a machine with a TPM they are sealed
// by it (systemd-creds(1)), so that the disk alone, or a copy, is of no use; on one without they are as safe as the disk: the key that
// systemd would seal with lies on the same one. A secret is replaced by one rename. Names are checked before they become paths.
package secret

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/runtime/named"
)

// MaxSize is how many bytes a secret may have, docker's number.
const MaxSize = 500 << 10

// Errors a caller branches on.
var (
	ErrNone   = errors.New("no such secret")
	ErrExists = errors.New("a secret with this name exists")
)

// A Secret is what its file holds.
type Secret struct {
	Name    string            `json:"name"`
	Created time.Time         `json:"created"`
	Labels  map[string]string `json:"labels,omitempty"`
	Data    []byte            `json:"data,omitempty"`
	Sealed  string            `json:"sealed,omitempty"` // instead of Data: what systemd-creds has made of it
}

// A Store is a directory of secrets.
type Store struct {
	named.Records[Secret]
	Creds string // the program systemd-creds
}

// Open opens the store and makes its directory if it is missing.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open secrets: %w", err)
	}
	return &Store{named.Records[Secret]{Dir: dir, Kind: "secret", File: ".json", None: ErrNone}, "systemd-creds"}, nil
}

// CheckName accepts what is a secret's name: a file's, and a part of --secret.
func CheckName(name string) error { return named.CheckName("secret", name) }

func (s *Store) path(name string) string { return filepath.Join(s.Dir, name+s.File) }

// Put stores a secret; one that is there is an error unless it is to be replaced.
func (s *Store) Put(v *Secret, replace bool) error {
	if err := CheckName(v.Name); err != nil {
		return err
	}
	if v.Sealed == "" {
		if err := v.checkSize(); err != nil {
			return err
		}
	}
	if _, err := os.Stat(s.path(v.Name)); err == nil && !replace {
		return fmt.Errorf("%s: %w", v.Name, ErrExists)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := durable.WritePath(s.path(v.Name), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("store secret %s: %w", v.Name, err)
	}
	return nil
}

func (v *Secret) checkSize() error {
	if len(v.Data) == 0 || len(v.Data) > MaxSize {
		return fmt.Errorf("secret %s has %d bytes: want 1 to %d", v.Name, len(v.Data), MaxSize)
	}
	return nil
}

// List returns all secrets without their bytes, sorted by name.
func (s *Store) List() ([]*Secret, error) {
	list, err := s.Records.List()
	for _, v := range list {
		v.Data, v.Sealed = nil, ""
	}
	return list, err
}

// Remove removes a secret. Containers that run keep what they were given.
func (s *Store) Remove(name string) error {
	if _, err := s.Get(name); err != nil {
		return err
	}
	root, err := os.OpenRoot(s.Dir)
	if err != nil {
		return fmt.Errorf("remove secret %s: %w", name, err)
	}
	defer root.Close()
	if err := durable.Remove(root, name+s.File); err != nil {
		return fmt.Errorf("remove secret %s: %w", name, err)
	}
	return nil
}
