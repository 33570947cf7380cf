package reproduce

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A copy has what git knows and what is new, not what is ignored or removed; modes and times are as wanted.
func TestCheckout(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"run": 0o755, "a/text": 0o600, "gone": 0o644, "out/big": 0o644} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, ".gitignore"), []byte("/out/\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a/text", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "run", "gone", "link"}} {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if err := os.Remove(filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	files, err := sources(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	if want := []string{".gitignore", "a/text", "gone", "link", "run"}; !slices.Equal(files, want) {
		t.Errorf("got %q, want %q", files, want)
	}
	to, when := filepath.Join(t.TempDir(), "copy"), time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := copyCheckout(dir, to, files, when); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"run": 0o755, "a/text": 0o644} {
		fi, err := os.Stat(filepath.Join(to, name))
		if err != nil || fi.Mode().Perm() != want || !fi.ModTime().Equal(when) {
			t.Errorf("%s: got %v, %v", name, fi, err)
		}
	}
	if target, err := os.Readlink(filepath.Join(to, "link")); err != nil || target != "a/text" {
		t.Errorf("link: %q, %v", target, err)
	}
	if _, err := os.Stat(filepath.Join(to, "gone")); err == nil {
		t.Error("a removed file was copied")
	}
	if _, err := sources(t.Context(), filepath.Join(t.TempDir())); err == nil {
		t.Error("a directory that is no checkout was listed")
	}
}

func TestClosedTo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// The test's own directory may be closed, as anywhere below a home.
	if got := closedTo(dir); strings.HasPrefix(got, filepath.Dir(dir)) {
		t.Errorf("got %s", got)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := closedTo(dir); got != filepath.Dir(dir) {
		t.Errorf("got %q, want %s", got, filepath.Dir(dir))
	}
	if got := closedTo(filepath.Join(dir, "none")); got != filepath.Join(dir, "none") {
		t.Errorf("got %q", got)
	}
}
