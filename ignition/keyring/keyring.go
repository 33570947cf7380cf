// Package keyring finds the keys that a machine opens its config's secrets with (package secret).
//
//	system credential ignition.age-key            an identity of age, given to the machine by its hypervisor or its image: SMBIOS, fw_cfg,
//	                                              kernel command line (systemd.system-credentials(7)); systemd has put it into /run
//	/var/lib/proa/machine-key.cred                made on the machine by `ignition secret key --create`, sealed by systemd-creds: with the TPM,
//	                                              if there is one, and none of its PCRs, else with the host's key
//
// A machine may have both, one or none. The sealed file opens on no other machine. The host's key (/var/lib/systemd/credential.secret) is as
// readable as the file: without a TPM the seal only keeps a copied file from being of use.
package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/proa-os/proa/ignition/secret"
	"github.com/proa-os/proa/internal/durable"
)

// Credential is the name of the credential, and the one that the sealed file is bound to.
const Credential = "ignition.age-key"

// Sealed is the machine's own key, below the root.
const Sealed = "var/lib/proa/machine-key.cred"

// A Ring is where keys are.
type Ring struct {
	Root        string                                                                  // "/"
	Credentials string                                                                  // "/run/credentials/@system"
	Run         func(ctx context.Context, input []byte, args ...string) ([]byte, error) // systemd-creds
}

// ThisMachine is the ring of the running machine.
func ThisMachine() Ring {
	return Ring{Root: "/", Credentials: "/run/credentials/@system", Run: systemdCreds}
}

func systemdCreds(ctx context.Context, input []byte, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "systemd-creds", args...)
	cmd.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("systemd-creds %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// Keys returns the machine's keys; none is no error.
func (r Ring) Keys(ctx context.Context) (keys []secret.Key, err error) {
	b, err := os.ReadFile(filepath.Join(r.Credentials, Credential))
	if err == nil {
		k, err := secret.ParseKey(string(b))
		if err != nil {
			return nil, fmt.Errorf("credential %s: %w", Credential, err)
		}
		keys = append(keys, k)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	name := filepath.Join(r.Root, Sealed)
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return keys, nil
	}
	if b, err = r.Run(ctx, nil, "decrypt", "--name="+Credential, name, "-"); err != nil {
		return nil, fmt.Errorf("open /%s: %w", Sealed, err)
	}
	k, err := secret.ParseKey(string(b))
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", Sealed, err)
	}
	return append(keys, k), nil
}

// Create makes the machine's own key, or returns the one that is there.
func (r Ring) Create(ctx context.Context) (secret.Key, error) {
	keys, err := r.Keys(ctx)
	if err != nil || len(keys) > 0 {
		if err == nil {
			return keys[len(keys)-1], nil
		}
		return secret.Key{}, err
	}
	k, err := secret.NewKey()
	if err != nil {
		return k, err
	}
	args := []string{"encrypt", "--name=" + Credential, "--with-key=host", "-", "-"}
	if _, err := r.Run(ctx, nil, "has-tpm2", "--quiet"); err == nil {
		// Bound to the TPM alone: systemd before 258 takes PCR 7 if it is told nothing, and an update of Secure Boot's db or dbx changes that.
		args = []string{"encrypt", "--name=" + Credential, "--with-key=tpm2", "--tpm2-pcrs=", "-", "-"}
	}
	sealed, err := r.Run(ctx, []byte(k.Identity()+"\n"), args...)
	if err != nil {
		return k, fmt.Errorf("seal the machine's key: %w", err)
	}
	name := filepath.Join(r.Root, Sealed)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return k, err
	}
	return k, durable.WritePath(name, sealed, 0o600)
}

// Open opens a secret with whichever key it is for. It is what package source asks.
func (r Ring) Open(ctx context.Context, b []byte) ([]byte, error) {
	keys, err := r.Keys(ctx)
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("open a secret: expected a key of this machine, found none; give it the credential %s, or make a key on it: ignition secret key --create", Credential)
	}
	var plain []byte
	for _, k := range keys {
		if plain, err = k.Decrypt(b); !errors.Is(err, secret.ErrNotForKey) {
			break
		}
	}
	if errors.Is(err, secret.ErrNotForKey) {
		var own []string
		for _, k := range keys {
			own = append(own, k.Recipient())
		}
		return nil, fmt.Errorf("open a secret: %w; encrypt it for %s", err, strings.Join(own, " or "))
	}
	if err != nil {
		return nil, fmt.Errorf("open a secret: %w", err)
	}
	return plain, nil
}
