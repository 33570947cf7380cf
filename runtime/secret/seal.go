package secret

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// credential is the name that a seal is bound to: one secret's bytes in the place of another's do not open.
func credential(name string) string { return "proa-secret-" + name }

// HasTPM reports whether this machine has a TPM that systemd can seal with.
func (s *Store) HasTPM(ctx context.Context) bool {
	_, err := s.creds(ctx, nil, "has-tpm2", "--quiet")
	return err == nil
}

// Seal puts the secret's bytes under a key of the machine's TPM: whoever has the disk without the machine has nothing. It is bound to no
// measurement, so that updates of the OS and of the firmware leave it alone.
func (s *Store) Seal(ctx context.Context, v *Secret) error {
	if err := CheckName(v.Name); err != nil {
		return err
	}
	if err := v.checkSize(); err != nil {
		return err
	}
	b, err := s.creds(ctx, v.Data, "encrypt", "--name="+credential(v.Name), "--with-key=tpm2", "--tpm2-pcrs=", "-", "-")
	if err != nil {
		return fmt.Errorf("seal secret %s: %w", v.Name, err)
	}
	v.Sealed, v.Data = string(b), nil
	return nil
}

// Open returns the bytes of a secret from Get.
func (s *Store) Open(ctx context.Context, v *Secret) ([]byte, error) {
	if v.Sealed == "" {
		return v.Data, nil
	}
	b, err := s.creds(ctx, []byte(v.Sealed), "decrypt", "--name="+credential(v.Name), "-", "-")
	if err != nil {
		return nil, fmt.Errorf("open secret %s: %w: only the TPM that sealed it opens it: if that was replaced or cleared, store it anew: containerctl secret create --replace %s FILE", v.Name, err, v.Name)
	}
	return b, nil
}

// creds runs systemd-creds.
func (s *Store) creds(ctx context.Context, input []byte, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, s.Creds, args...)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return nil, fmt.Errorf("systemd-creds %s: %w: %s", args[0], err, strings.TrimSpace(string(failed.Stderr)))
	}
	return out, err
}
