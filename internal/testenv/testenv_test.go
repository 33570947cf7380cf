package testenv_test

import (
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

func TestToolsSkipsWithoutTree(t *testing.T) {
	t.Setenv("CI", "")
	t.Setenv("PROA_REQUIRE_TOOLS", "")
	t.Setenv("PROA_TOOLS", t.TempDir())
	var skipped bool
	t.Run("missing", func(t *testing.T) {
		defer func() { skipped = t.Skipped() }()
		testenv.Tools(t)
	})
	if !skipped {
		t.Error("a missing tree was not skipped")
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
