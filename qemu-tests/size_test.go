package qemutests

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/proa-os/proa/image-builder/program"
)

// The update agent stays small: it is read from the disk each time that a machine looks for a release.
func TestProgramSize(t *testing.T) {
	module, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	if err := program.Build(t.Context(), module, "amd64", out, []string{"./update-engine/cmd/update-engine"}); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(out, "update-engine"))
	if err != nil {
		t.Fatal(err)
	}
	const limit = 12_000_000
	t.Logf("update-engine has %d bytes of at most %d", fi.Size(), limit)
	if fi.Size() > limit {
		t.Errorf("update-engine has %d bytes, at most %d are allowed: go tool nm -size says what is large", fi.Size(), limit)
	}
}
