package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/archivetest"
)

// TestLockCheck is the exit code a bot acts on: 2 for news, 0 once they are locked.
func TestLockCheck(t *testing.T) {
	a := archivetest.New(t)
	a.Add("trixie", archivetest.Deb{Name: "hello"})
	a.Publish()
	dir := t.TempDir()
	manifest := filepath.Join(dir, "hello.toml")
	text := "[packages]\narch = \"amd64\"\nsuites = [\"trixie\"]\ninclude = [\"hello\"]\n"
	err := errors.Join(os.WriteFile(manifest, []byte(text), 0o644),
		os.WriteFile(filepath.Join(dir, "key.gpg"), archivetest.PublicKeys(t, a.Key), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	m := a.Serve()
	lock := func(args ...string) error {
		args = append([]string{"lock", "--keys", dir, "--mirror", m.Main, "--security-mirror", m.Security}, args...)
		return run(t.Context(), append(args, manifest))
	}
	if err := lock("--check"); !errors.Is(err, errChanged) {
		t.Errorf("check without a lock: got %v, want errChanged", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "hello.lock.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("check has written: %v", err)
	}
	if err := lock("--json"); err != nil {
		t.Error(err)
	}
	if err := lock("--dry-run", "--json"); err != nil {
		t.Errorf("nothing new: got %v", err)
	}
	if err := lock("--keys", "../../../manifests/keys"); err == nil || errors.Is(err, errChanged) || !strings.Contains(err.Error(), "not signed by any key") {
		t.Errorf("other keys: got %v", err)
	}
}

// TestLockDefault: without arguments every manifest of the checkout that has a lock gets a new one, and the manual page names it.
func TestLockDefault(t *testing.T) {
	locks, err := filepath.Glob("../../../manifests/*.lock.json")
	if err != nil || len(locks) == 0 {
		t.Fatalf("no locks in this checkout: %v", err)
	}
	a := archivetest.New(t)
	a.Add("trixie", archivetest.Deb{Name: "hello"})
	a.Publish()
	t.Chdir(t.TempDir())
	err = errors.Join(os.MkdirAll("manifests/keys", 0o755), os.WriteFile("manifests/keys/key.gpg", archivetest.PublicKeys(t, a.Key), 0o644))
	text := "[packages]\narch = \"amd64\"\nsuites = [\"trixie\"]\ninclude = [\"hello\"]\n"
	for _, name := range locks {
		err = errors.Join(err, os.WriteFile("manifests/"+strings.TrimSuffix(filepath.Base(name), ".lock.json")+".toml", []byte(text), 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	m := a.Serve()
	if err := run(t.Context(), []string{"lock", "--mirror", m.Main, "--security-mirror", m.Security}); err != nil {
		t.Fatal(err)
	}
	for _, name := range locks {
		base := filepath.Base(name)
		if _, err := os.Stat("manifests/" + base); err != nil {
			t.Errorf("not locked: %v", err)
		}
		if manifest := "manifests/" + strings.TrimSuffix(base, ".lock.json") + ".toml"; !strings.Contains(lockCommand(&common{}).Long, manifest) {
			t.Errorf("the manual page does not name %s", manifest)
		}
	}
}
