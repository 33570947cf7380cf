package secret

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeCreds is a systemd-creds that has a TPM if there is a file tpm beside it: a seal is the credential's name and base64.
const fakeCreds = `#!/bin/sh
tpm=$(dirname "$0")/tpm
case $1 in
has-tpm2) [ -e "$tpm" ] ;;
encrypt) [ "$3 $4" = "--with-key=tpm2 --tpm2-pcrs=" ] && [ -e "$tpm" ] && echo "$2" && base64 ;;
decrypt) read -r name && [ -e "$tpm" ] && [ "$name" = "$2" ] && base64 -d || { echo "another TPM" >&2; exit 1; } ;;
esac
`

func TestSeal(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(filepath.Join(dir, "secrets"))
	if err != nil {
		t.Fatal(err)
	}
	s.Creds = filepath.Join(dir, "creds")
	if err := os.WriteFile(s.Creds, []byte(fakeCreds), 0o755); err != nil {
		t.Fatal(err)
	}
	if s.HasTPM(t.Context()) {
		t.Error("it has a TPM")
	}
	if err := os.WriteFile(filepath.Join(dir, "tpm"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !s.HasTPM(t.Context()) {
		t.Error("it has no TPM")
	}
	v := &Secret{Name: "db", Data: []byte("hush\x00\n")}
	if err := s.Seal(t.Context(), v); err != nil || s.Put(v, false) != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "secrets/db.json"))
	if err != nil || strings.Contains(string(b), "hush") || strings.Contains(string(b), "aHVzaAAK\"") {
		t.Errorf("stored: %s, %v", b, err)
	}
	got, err := s.Get("db")
	if err != nil {
		t.Fatal(err)
	}
	if data, err := s.Open(t.Context(), got); err != nil || string(data) != "hush\x00\n" {
		t.Errorf("got %q, %v", data, err)
	}
	got.Name = "other" // somebody has put the file in the place of another
	if data, err := s.Open(t.Context(), got); err == nil {
		t.Errorf("opened under another name: %q", data)
	}
	if list, err := s.List(); err != nil || list[0].Sealed != "" {
		t.Errorf("list: %+v, %v", list[0], err)
	}
	if err := os.Remove(filepath.Join(dir, "tpm")); err != nil {
		t.Fatal(err)
	}
	got.Name = "db"
	if _, err := s.Open(t.Context(), got); err == nil || !strings.Contains(err.Error(), "another TPM: only the TPM that sealed it opens it") {
		t.Errorf("without its TPM: %v", err)
	}
	if data, err := s.Open(t.Context(), &Secret{Name: "old", Data: []byte("plain")}); err != nil || string(data) != "plain" {
		t.Errorf("not sealed: %q, %v", data, err)
	}
	for _, bad := range []*Secret{{Name: "x"}, {Name: "x", Data: make([]byte, MaxSize+1)}, {Name: "../x", Data: []byte("x")}} {
		if err := s.Seal(t.Context(), bad); err == nil {
			t.Errorf("%.20q with %d bytes was sealed", bad.Name, len(bad.Data))
		}
	}
}
