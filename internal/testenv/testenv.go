// Package testenv gives tests what they cannot make themselves: the foreign programs that judge our formats.
//
// A missing judge is a loud skip on a laptop and a failure in CI: a check that silently did not happen is worse
// than one that failed.
package testenv

import (
	"os"
	"testing"

	"github.com/proa-os/proa/internal/tooltree"
)

// Tools returns the tools tree. Without one the test is skipped, or fails if CI=true or PROA_REQUIRE_TOOLS=1.
func Tools(t testing.TB) *tooltree.Tree {
	t.Helper()
	tree, err := tooltree.Open()
	if err == nil {
		return tree
	}
	if Required() {
		t.Fatalf("the tools tree is required here: %v", err)
	}
	t.Skipf("SKIPPED, NOT CHECKED by foreign tools: %v", err)
	return nil
}

// Machines returns the tools tree for a test that boots a machine in QEMU. Such tests take longer than unit tests may: without
// PROA_STORIES=1 the test is skipped.
func Machines(t testing.TB) *tooltree.Tree {
	t.Helper()
	if os.Getenv("PROA_STORIES") != "1" {
		t.Skip("SKIPPED, NOT CHECKED on a machine: set PROA_STORIES=1 (`make test` does) to boot machines in QEMU")
	}
	return Tools(t)
}

// Required reports whether a missing judge is a failure.
func Required() bool {
	return os.Getenv("CI") == "true" || os.Getenv("PROA_REQUIRE_TOOLS") == "1"
}
