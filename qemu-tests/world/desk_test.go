package world

import (
	"path/filepath"
	"testing"

	"github.com/proa-os/proa/update-engine/repotest"
)

// A machine that has only ever seen the first root of two rotations ago accepts what is published with the keys of today alone.
func TestRotate(t *testing.T) {
	repository, err := FindRepository()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	d, err := NewDesk(t.Context(), NewPrograms(repository, dir), dir)
	if err != nil {
		t.Fatal(err)
	}
	anchor := filepath.Join(d.Repository, "metadata", "1.root.json")
	for _, version := range []string{"1.0.0", "1.0.1"} {
		b := repotest.NewBuild(t, version)
		if err := d.Publish(t.Context(), Image{b.Dir, b.Release}, "stable"); err != nil {
			t.Fatal(err)
		}
		if err := d.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.run(t.Context(), "verify", "--repo", d.Repository, "--root", anchor); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]int{"metadata/*.root.json": 3, "../keys/*.pem": 5} {
		if got, err := filepath.Glob(filepath.Join(d.Repository, name)); err != nil || len(got) != want {
			t.Errorf("got %q, %v, want %d of %s", got, err, want, name)
		}
	}
}
