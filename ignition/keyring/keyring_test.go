package keyring

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/ignition/secret"
	"github.com/proa-os/proa/internal/testenv"
)

func ring(t *testing.T, run func(context.Context, []byte, ...string) ([]byte, error)) Ring {
	dir := t.TempDir()
	return Ring{Root: dir, Credentials: dir + "/credentials", Run: run}
}

func never(context.Context, []byte, ...string) ([]byte, error) {
	return nil, errors.New("not asked for")
}

func TestCredential(t *testing.T) {
	r := ring(t, never)
	k, err := secret.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := secret.Encrypt([]byte("hunter2"), k.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Open(t.Context(), []byte(sealed)); err == nil || !strings.Contains(err.Error(), "expected a key of this machine, found none; give it the credential ignition.age-key") {
		t.Errorf("no key: got %v", err)
	}
	put := func(text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(r.Credentials, 0o700), os.WriteFile(filepath.Join(r.Credentials, Credential), []byte(text), 0o400)); err != nil {
			t.Fatal(err)
		}
	}
	put(k.Identity() + "\n")
	if got, err := r.Open(t.Context(), []byte(sealed)); string(got) != "hunter2" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	other, err := secret.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	put(other.Identity())
	if _, err := r.Open(t.Context(), []byte(sealed)); err == nil || !strings.Contains(err.Error(), "encrypt it for "+other.Recipient()) {
		t.Errorf("another key: got %v", err)
	}
	put("canary-secret")
	if _, err := r.Keys(t.Context()); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("no key at all: got %v", err)
	}
}

// The key is bound to the TPM and to no PCR: it must open after every update of the firmware, too.
func TestSealedFor(t *testing.T) {
	for _, tt := range []struct {
		tpm  error
		want string
	}{
		{nil, "encrypt --name=ignition.age-key --with-key=tpm2 --tpm2-pcrs= - -"},
		{errors.New("no TPM"), "encrypt --name=ignition.age-key --with-key=host - -"},
	} {
		var got []string
		r := ring(t, func(_ context.Context, _ []byte, args ...string) ([]byte, error) {
			if args[0] == "has-tpm2" {
				return nil, tt.tpm
			}
			got = append(got, strings.Join(args, " "))
			return []byte("sealed"), nil
		})
		if _, err := r.Create(t.Context()); err != nil || len(got) != 1 || got[0] != tt.want {
			t.Errorf("got %q, %v, want %q", got, err, tt.want)
		}
	}
}

// The real systemd-creds seals and opens, with the host's key of a directory of its own.
func TestSealed(t *testing.T) {
	if os.Geteuid() != 0 {
		testenv.Missing(t, "as an ordinary user: systemd-creds reads the host's key")
	}
	tools := testenv.Tools(t)
	hostKey := t.TempDir() + "/host.secret"
	r := ring(t, func(ctx context.Context, input []byte, args ...string) ([]byte, error) {
		if args[0] == "has-tpm2" {
			return nil, errors.New("no TPM for this test")
		}
		cmd := tools.Command(ctx, "systemd-creds", args...)
		cmd.Stdin = strings.NewReader(string(input))
		cmd.Env = append(cmd.Environ(), "SYSTEMD_CREDENTIAL_SECRET="+hostKey)
		return cmd.Output()
	})
	k, err := r.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.Create(t.Context())
	if err != nil || again.Recipient() != k.Recipient() {
		t.Errorf("a second call makes another key: %v", err)
	}
	b, err := os.ReadFile(filepath.Join(r.Root, Sealed))
	if err != nil || strings.Contains(string(b), k.Identity()) {
		t.Errorf("got %q, %v", b, err)
	}
	keys, err := r.Keys(t.Context())
	if err != nil || len(keys) != 1 || keys[0].Identity() != k.Identity() {
		t.Errorf("got %v, %v", keys, err)
	}
}
