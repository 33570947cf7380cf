package repo_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/plan"
	"github.com/proa-os/proa/update-engine/repo"
	"github.com/proa-os/proa/update-engine/tuf"
)

// A sealed key signs and shows its public key, as one in a token does; nobody sees the private one.
type sealed struct {
	public crypto.PublicKey
	sign   func(message []byte, o crypto.SignerOpts) ([]byte, error)
}

func (s *sealed) Public() crypto.PublicKey { return s.public }

func (s *sealed) Sign(_ io.Reader, message []byte, o crypto.SignerOpts) ([]byte, error) {
	return s.sign(message, o)
}

func newSealed(t *testing.T) *sealed {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &sealed{public, func(message []byte, o crypto.SignerOpts) ([]byte, error) {
		return private.Sign(rand.Reader, message, o)
	}}
}

// A token is a Keyring that is no folder: one key of each role.
type token map[string]crypto.Signer

func newToken(t *testing.T) token {
	k := token{}
	for _, role := range repo.Roles {
		k[role] = newSealed(t)
	}
	return k
}

func (k token) Signers(role string) ([]crypto.Signer, error) { return []crypto.Signer{k[role]}, nil }

func (k token) PublicKeys(role string) ([]*metadata.Key, error) {
	key, err := metadata.KeyFromPublicKey(k[role].Public())
	return []*metadata.Key{key}, err
}

// A repository all of whose keys are in a token is founded, releases, changes a key and is read by the machine's client.
func TestKeysInAToken(t *testing.T) {
	t.Parallel()
	keys := newToken(t)
	d := &repo.Desk{Dir: filepath.Join(t.TempDir(), "repo"), Keys: keys, Now: careful(t).Now}
	publish := func(edit *repo.PlanEdit) {
		t.Helper()
		if _, by, err := d.Sign(); err != nil || len(by) == 0 {
			t.Fatalf("signed by %v, %v", by, err)
		}
		if _, err := d.PublishStaged(edit); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.FoundWith(keys, 1); err != nil {
		t.Fatal(err)
	}
	publish(nil)
	stage(t, d, "1.0.0")
	publish(&repo.PlanEdit{Channel: "stable", Version: "1.0.0"})
	next := newSealed(t)
	public, err := metadata.KeyFromPublicKey(next.Public())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Rotate(repo.Rotation{Role: "targets", Add: []*metadata.Key{public}}); err != nil {
		t.Fatal(err)
	}
	publish(nil)
	keys["targets"] = next
	stage(t, d, "1.0.1")
	publish(&repo.PlanEdit{Channel: "stable", Version: "1.0.1"})

	anchor, err := os.ReadFile(filepath.Join(d.Dir, "metadata/1.root.json"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := client.FolderURL(d.Dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tuf.Open(t.Context(), tuf.Config{
		Fetcher: &client.Client{Source: client.Folder{}, Retry: client.Retry{Attempts: 1}}, Server: server, Anchor: anchor, State: t.TempDir(), Now: d.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Refresh(); err != nil {
		t.Fatal(err)
	}
	if b, err := c.Read(plan.Target("stable"), 1<<16); err != nil || !strings.Contains(string(b), "1.0.1") {
		t.Errorf("got %s, %v", b, err)
	}
	if b, err := c.Read("releases/1.0.1/amd64/release.json", 1<<16); err != nil || !strings.Contains(string(b), "1.0.1") {
		t.Errorf("got %s, %v", b, err)
	}
}

// What a token does wrong is found at the desk, before anybody reads it.
func TestTokenThatDoesNotSign(t *testing.T) {
	t.Parallel()
	d := careful(t)
	stage(t, d, "1.0.0")
	files, ok := d.Keys.(repo.KeyDir)
	if !ok {
		t.Fatal("no folder of keys")
	}
	signers, err := files.Signers("targets")
	if err != nil {
		t.Fatal(err)
	}
	good := signers[0]
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key  crypto.Signer
		want string
	}{
		"hashes first": {&sealed{good.Public(), func(message []byte, _ crypto.SignerOpts) ([]byte, error) {
			sum := sha512.Sum512(message)
			return good.Sign(rand.Reader, sum[:], crypto.SHA512)
		}}, "the whole message"},
		"another key":  {&sealed{good.Public(), newSealed(t).sign}, "by the key of that name"},
		"nothing":      {&sealed{good.Public(), func([]byte, crypto.SignerOpts) ([]byte, error) { return nil, nil }}, "no ed25519 signature"},
		"is locked":    {&sealed{good.Public(), func([]byte, crypto.SignerOpts) ([]byte, error) { return nil, errors.New("log in first") }}, "log in first"},
		"is of ECDSA":  {other, "found *ecdsa.PublicKey"},
		"has no key":   {&sealed{ed25519.PublicKey{}, nil}, "ed25519 public key"},
		"is of nobody": {&sealed{nil, nil}, "found <nil>"},
	} {
		d.Keys = token{"root": newSealed(t), "targets": c.key}
		if _, by, err := d.Sign(); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "sign: sign targets: ") {
			t.Errorf("a token that %s: signed by %v, %v", name, by, err)
		}
	}
	d.Keys = token{"root": newSealed(t), "targets": good}
	if _, by, err := d.Sign(); err != nil || len(by) != 1 {
		t.Errorf("signed by %v, %v", by, err)
	}
}
