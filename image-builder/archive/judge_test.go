package archive_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/image-builder/archivetest"
	"github.com/proa-os/proa/internal/testenv"
)

// TestSignatureJudge: gpgv, which Debian's tools have trusted for decades, accepts and refuses the same messages.
func TestSignatureJudge(t *testing.T) {
	tree := testenv.Tools(t)
	k := newKeys(t)
	a := &archivetest.Archive{Now: k.now, Arches: []string{"amd64"}}
	ring := archivetest.Keyring(t, k.good, k.expired, k.revoked)
	dir := t.TempDir()
	keyring := filepath.Join(dir, "ring.gpg")
	if err := os.WriteFile(keyring, archivetest.PublicKeys(t, k.good, k.expired, k.revoked), 0o644); err != nil {
		t.Fatal(err)
	}
	sig := archivetest.Signature{Key: k.good, Time: k.now}
	good := archivetest.Clearsign(t, a.Release("trixie", nil), sig)
	sub := func(old, new string) []byte { return bytes.Replace(good, []byte(old), []byte(new), 1) }
	for _, tc := range []struct {
		name string
		b    []byte
		ok   bool
	}{
		{"good", good, true},
		{"lines end in CR LF", bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")), true},
		{"spaces at the end of a line", sub("Origin: Test\n", "Origin: Test \t\n"), true},
		{"a line escaped without need", sub("Origin: Test\n", "- Origin: Test\n"), true},
		{"text changed", sub("Origin: Test", "Origin: Evil"), false},
		{"a line more", sub("Origin: Test\n", "Origin: Test\nCodename: sid\n"), false},
		{"a space in front", sub("Origin: Test\n", " Origin: Test\n"), false},
		{"cut off", good[:len(good)/2], false},
		{"bad signature", archivetest.Clearsign(t, a.Release("trixie", nil), archivetest.Signature{Key: k.good, Time: k.now, Spoil: true}), false},
		{"unknown key", archivetest.Clearsign(t, a.Release("trixie", nil), archivetest.Signature{Key: k.other, Time: k.now}), false},
		{"unsigned", []byte(a.Release("trixie", nil)), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "InRelease")
			if err := os.WriteFile(file, tc.b, 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := tree.Command(t.Context(), "gpgv", "--homedir", dir, "--keyring", keyring, file)
			out, err := cmd.CombinedOutput()
			if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if (err == nil) != tc.ok {
				t.Errorf("gpgv: %v, want success %v\n%s", err, tc.ok, out)
			}
			if _, err := archive.VerifyRelease("InRelease", tc.b, "trixie", ring, k.now); (err == nil) != tc.ok {
				t.Errorf("VerifyRelease: %v, want success %v", err, tc.ok)
			}
		})
	}
}

// TestShippedKeysJudge: the keys are, to the byte, those of Debian's package, which is itself locked by an index that they signed; and
// gpgv takes each file for a keyring.
func TestShippedKeysJudge(t *testing.T) {
	tree := testenv.Tools(t)
	names, err := filepath.Glob("../../manifests/keys/*.gpg")
	if err != nil || len(names) == 0 {
		t.Fatalf("got %q, %v", names, err)
	}
	k := newKeys(t)
	file := filepath.Join(t.TempDir(), "InRelease")
	if err := os.WriteFile(file, archivetest.Clearsign(t, "Codename: trixie\n", archivetest.Signature{Key: k.good, Time: k.now}), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		abs, err1 := filepath.Abs(name)
		got, err2 := os.ReadFile(name)
		want, err3 := os.ReadFile(tree.Path("usr/share/keyrings/" + filepath.Base(name)))
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from the one in debian-archive-keyring", name)
		}
		out, err := tree.Command(t.Context(), "gpgv", "--homedir", t.TempDir(), "--keyring", abs, file).CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte("No public key")) {
			t.Errorf("%s: got %v, want gpgv to read the keyring and miss the key\n%s", name, err, out)
		}
	}
}
