package plan

import (
	"errors"
	"strings"
	"testing"

	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/secret"
)

// Encrypted values of accounts pass the plan closed, and are held against its rules when they are opened.
func TestReveal(t *testing.T) {
	k, err := secret.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	quoted := func(plain string) string {
		t.Helper()
		text, err := secret.Encrypt([]byte(plain), k.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		return `"` + strings.ReplaceAll(text, "\n", `\n`) + `"`
	}
	build := func(hash, key string) ([]Op, error) {
		t.Helper()
		m, err := config.Load(t.Context(), "c.ign", []byte(`{"ignition":{"version":"3.4.0"},"passwd":{"users":[{"name":"a","passwordHash":`+hash+`,"sshAuthorizedKeys":[`+key+`,"ssh-rsa open"]}],"groups":[{"name":"g","passwordHash":`+hash+`}]}}`), nil)
		if err != nil {
			t.Fatal(err)
		}
		return Build(m)
	}
	ops, err := build(quoted("$y$hash\n"), quoted("ssh-ed25519 AAAA"))
	if err != nil {
		t.Fatal(err)
	}
	open, err := Reveal(ops, k.Decrypt)
	if err != nil {
		t.Fatal(err)
	}
	if g, u, keys := open[0].(Group), open[1].(User), open[2].(Keys); *g.PasswordHash != "$y$hash" || *u.PasswordHash != "$y$hash" || strings.Join(keys.Keys, ",") != "ssh-ed25519 AAAA,ssh-rsa open" {
		t.Errorf("got %v", open)
	}
	if u := ops[1].(User); !secret.Armored(*u.PasswordHash) {
		t.Error("the plan itself was opened")
	}
	for _, bad := range [][2]string{{"x:0:0", "k"}, {"x\ny", "k"}, {"x", "k\nssh-rsa more"}} {
		ops, err := build(quoted(bad[0]), quoted(bad[1]))
		if err != nil {
			t.Fatal(err)
		}
		var issues config.Issues
		if _, err := Reveal(ops, k.Decrypt); !errors.As(err, &issues) || issues[0].Line != 1 || strings.Contains(err.Error(), bad[0]+bad[1]) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
	if _, err := build(`"-----BEGIN AGE ENCRYPTED FILE-----\nAAAA\n-----END AGE ENCRYPTED FILE-----\n"`, quoted("x")); err == nil || !strings.Contains(err.Error(), "damaged secret") {
		t.Errorf("damaged: got %v", err)
	}
}
