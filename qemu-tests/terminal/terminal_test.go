package terminal

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vincent-petithory/dataurl"

	"github.com/proa-os/proa/ignition/config"
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

// What a person writes reaches the machine in either form, beside the key of make run; what is wrong with it is said before a machine starts.
func TestIgnition(t *testing.T) {
	key, err := vm.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	const butane = "variant: proa\nversion: 1.0.0\n"
	tests := []struct{ name, text, err string }{
		{"json.ign", `{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/motd","contents":{"source":"data:,hello"}}]}}`, ""},
		{"inline.bu", butane + "storage: {files: [{path: /etc/motd, contents: {inline: hello}}]}\n", ""},
		{"local.bu", butane + "storage: {files: [{path: /etc/motd, contents: {local: motd}}]}\n", ""},
		{"network.bu", butane + "ignition: {config: {merge: [{source: 'http://10.0.2.2:1/more.ign'}]}}\nstorage: {files: [{path: /etc/motd, contents: {inline: hello}}]}\n", ""},
		{"relative.ign", `{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"motd"}]}}`, "relative.ign:1:61: storage.files[0].path: path not absolute"},
		{"key.bu", butane + "storage:\n  file: []\n", "key.bu:4:3: storage.file: unknown key"},
		{"missing.bu", butane + "storage: {files: [{path: /etc/motd, contents: {local: none}}]}\n", "missing.bu:3:"},
		{"unlabelled.bu", butane + "storage: {disks: [{device: /dev/vda, partitions: [{number: 0}]}]}\n", "unlabelled.bu:3:"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, tt.name)
			if err := errors.Join(os.WriteFile(file, []byte(tt.text), 0o644), os.WriteFile(filepath.Join(dir, "motd"), []byte("hello"), 0o644)); err != nil {
				t.Fatal(err)
			}
			raw, err := ignition(t.Context(), key, file)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, tt.err)) {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := config.Load(t.Context(), "the machine's", raw, fetchHere) // as the machine does
			if err != nil {
				t.Fatal(err)
			}
			var files []string
			for _, f := range got.Config.Storage.Files {
				d, err := dataurl.DecodeString(*f.Contents.Source)
				if err != nil {
					t.Fatal(err)
				}
				files = append(files, f.Path+" "+string(d.Data))
			}
			if !slices.Contains(files, "/etc/motd hello") {
				t.Errorf("got files %q, want /etc/motd", files)
			}
			if u := got.Config.Passwd.Users; len(u) != 2 || u[0].Name != "core" || string(u[0].SSHAuthorizedKeys[0]) != key.AuthorizedKey() {
				t.Errorf("got users %+v, want core and root with the key", u)
			}
		})
	}
}
