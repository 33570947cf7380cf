package terminal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/qemu-tests/vm"
)

func TestLoadKey(t *testing.T) {
	dir := t.TempDir()
	first, err := loadKey(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600: ssh refuses others", info.Mode(), err)
	}
	kept, err := loadKey(dir, true)
	if err != nil || kept.AuthorizedKey() != first.AuthorizedKey() {
		t.Errorf("got another key for a kept disk, %v", err)
	}
	known := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(known, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	fresh, err := loadKey(dir, false)
	if err != nil || fresh.AuthorizedKey() == first.AuthorizedKey() {
		t.Errorf("got the old key for a fresh disk, %v", err)
	}
	if _, err := os.Stat(known); !os.IsNotExist(err) {
		t.Errorf("got %v, want the old host key forgotten", err)
	}
}

func TestIgnition(t *testing.T) {
	key, err := vm.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.ign")
	if err := os.WriteFile(file, []byte(`{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/motd","contents":{"source":"data:,hello"}}]}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := ignition(key, file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{key.AuthorizedKey(), "/etc/motd", `"core"`} {
		if !strings.Contains(string(got), want) {
			t.Errorf("got %s\nwant it to contain %q", got, want)
		}
	}
	if err := os.WriteFile(file, []byte(`{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"motd"}]}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ignition(key, file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v, want an error that names the file", err)
	}
}
