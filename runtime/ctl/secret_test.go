package ctl

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/proa-os/proa/runtime/secret"
	"github.com/proa-os/proa/runtime/store"
)

func TestAddSecret(t *testing.T) {
	for text, want := range map[string]store.Secret{
		"key":                            {Name: "key", Target: "/run/secrets/key", Mode: 0o444},
		"key,type=env":                   {Name: "key", Env: true, Target: "key", Mode: 0o444},
		"source=key,type=env,target=KEY": {Name: "key", Env: true, Target: "KEY", Mode: 0o444},
		"key,target=tls/a.pem":           {Name: "key", Target: "/run/secrets/tls/a.pem", Mode: 0o444},
		"key,target=/etc/key,uid=7,gid=8,mode=0400": {Name: "key", Target: "/etc/key", UID: 7, GID: 8, Mode: 0o400},
	} {
		var k store.Container
		if err := addSecret(&k, text); err != nil || !reflect.DeepEqual(k.Secrets[0], want) {
			t.Errorf("%s: got %+v, %v", text, k.Secrets, err)
		}
	}
	for text, want := range map[string]string{"": "secret name", "../x": "secret name", "key,mod=1": "did you mean mode=", "key,mode=999": "want a number", "key,mode=7777": "want a number",
		"key,uid=-1": "want a number", "key,type=file": "want source=", "key,target=/": "want a file", "key,target=../..": "want a file", "key,type=env,target=A=B": "name of a variable"} {
		if err := addSecret(new(store.Container), text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

// TestSecretCommands needs no root.
func TestSecretCommands(t *testing.T) {
	m := bareMachine(t)
	file := filepath.Join(m.dir, "password")
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := m.must("secret", "create", "--label", "a=b", "db", file); out != "db\n" {
		t.Errorf("create: %q", out)
	}
	m.mustFail("exists", "secret", "create", "db", file)
	m.must("secret", "create", "--replace", "db", file)
	m.mustFail("no such file", "secret", "create", "x", file+"x")
	m.mustFail("want 1 to", "secret", "create", "x", "/dev/null")
	m.mustFail("want 1 to", "secret", "create", "x", "/dev/zero")
	m.mustFail("secret name", "secret", "create", "a,b", file)
	var list []secret.Secret
	if err := json.Unmarshal([]byte(m.must("secret", "inspect", "db")), &list); err != nil || len(list) != 1 || list[0].Name != "db" || list[0].Data != nil {
		t.Errorf("inspect: %+v, %v", list, err)
	}
	if err := json.Unmarshal([]byte(m.must("secret", "inspect", "--showsecret", "db")), &list); err != nil || string(list[0].Data) != "s3cret\n" {
		t.Errorf("inspect --showsecret: %+v, %v", list, err)
	}
	// With a TPM what is stored is a seal, and everything else the same.
	m.withTPM(t)
	m.must("secret", "create", "--replace", "db", file)
	if b, err := os.ReadFile(filepath.Join(m.dir, "store/secrets/db.json")); err != nil || !strings.Contains(string(b), `"sealed":"f3perg\n"`) {
		t.Errorf("stored: %s, %v", b, err)
	}
	if out := m.must("secret", "inspect", "--showsecret", "db"); !strings.Contains(out, `"sealed_by_tpm": true`) || !strings.Contains(out, `"data": "czNjcmV0Cg=="`) {
		t.Errorf("inspect: %s", out)
	}
	m.must("secret", "create", "--replace", "--seal", "no", "db", file)
	if out := m.must("secret", "inspect", "db"); !strings.Contains(out, `"sealed_by_tpm": false`) {
		t.Errorf("inspect: %s", out)
	}
	m.mustFail("want auto, tpm or no", "secret", "create", "--seal", "yes", "x", file)
	if out := m.must("secret", "ls", "-q"); out != "db\n" {
		t.Errorf("ls: %q", out)
	}
	m.mustFail("did you mean db?", "secret", "rm", "dbb")
	m.must("secret", "rm", "--ignore", "other")
	m.must("secret", "rm", "db")
	if out := m.must("secret", "ls", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("ls --json: %q", out)
	}
}

// withTPM has systemd-creds seal, in a way that it is not hard to see through.
func (m *machine) withTPM(t *testing.T) {
	t.Helper()
	creds := "#!/bin/sh\ncase $1 in has-tpm2) ;; *) tr a-z n-za-m ;; esac\n"
	if err := os.WriteFile(filepath.Join(m.dir, "systemd-creds"), []byte(creds), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", m.dir+":"+os.Getenv("PATH"))
}

// A secret is in the container, and in nothing that stays on the machine.
func (m *machine) declaredSecret(t *testing.T) {
	const text = "very-secret-indeed"
	file := filepath.Join(m.dir, "password")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m.withTPM(t)
	m.must("secret", "create", "db", file)
	os.Remove(file)
	show := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(m.must(declare(append([]string{"--foreground", "--read-only"}, args...)...)...))
	}
	if got := show("--secret", "db", m.image(), "show", "/run/secrets/db"); got != text+" 100444 0:0" {
		t.Errorf("got %q", got)
	}
	if got := show("--secret", "db,target=/data/key,uid=33,gid=44,mode=0400", "--user", "33:44", m.image(), "show", "/data/key"); got != text+" 100400 33:44" {
		t.Errorf("got %q", got)
	}
	if got := show("--secret", "db,type=env,target=KEY", m.image(), "say", "x"); !strings.HasSuffix(got, " "+text) {
		t.Errorf("got %q", got)
	}
	m.mustFail("read-only file system", declare("--foreground", "--secret", "db", m.image(), "write", "/run/secrets/db", "x")...)
	m.mustFail("containerctl secret create none FILE", declare("--foreground", "--secret", "none", m.image(), "say", "x")...)
	err := filepath.Walk(m.dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
			return nil
		}
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), text) && path != filepath.Join(m.dir, "run/systemd-web/config.json") { // of this boot, root's only
			t.Errorf("%s holds the secret", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
