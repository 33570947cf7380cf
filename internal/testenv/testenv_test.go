package testenv_test

import (
	"testing"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
)

func TestToolsSkipsWithoutTree(t *testing.T) {
	t.Setenv("CI", "")
	t.Setenv("PROA_REQUIRE_TOOLS", "")
	t.Setenv("PROA_TOOLS", t.TempDir())
	t.Setenv("PROA_JUDGES_TREE", t.TempDir())
	for name, open := range map[string]func(testing.TB) *tooltree.Tree{"tools": testenv.Tools, "judges": testenv.Judges} {
		var skipped bool
		t.Run(name, func(t *testing.T) {
			defer func() { skipped = t.Skipped() }()
			open(t)
		})
		if !skipped {
			t.Errorf("a missing tree of %s was not skipped", name)
		}
	}
}

func TestRequired(t *testing.T) {
	for _, tc := range []struct {
		ci, require string
		want        bool
	}{{"", "", false}, {"true", "", true}, {"", "1", true}, {"false", "0", false}} {
		t.Setenv("CI", tc.ci)
		t.Setenv("PROA_REQUIRE_TOOLS", tc.require)
		if got := testenv.Required(); got != tc.want {
			t.Errorf("CI=%q PROA_REQUIRE_TOOLS=%q: got %v, want %v", tc.ci, tc.require, got, tc.want)
		}
	}
}

func TestMachinesAreAskedFor(t *testing.T) {
	t.Setenv("PROA_STORIES", "")
	var skipped bool
	t.Run("unit tests only", func(t *testing.T) {
		defer func() { skipped = t.Skipped() }()
		testenv.Machines(t)
	})
	if !skipped {
		t.Error("a machine would have been booted by the unit tests")
	}
}
