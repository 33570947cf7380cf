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
	if err != nil {
		Missing(t, "by foreign tools: %v", err)
	}
	return tree
}

// Judges returns the tree of the judges of the runtime (podman, containerd, skopeo, nft and others: manifests/judges.toml). Without one the test
// is skipped, or fails if CI=true or PROA_REQUIRE_TOOLS=1.
func Judges(t testing.TB) *tooltree.Tree {
	t.Helper()
	tree, err := tooltree.OpenJudges()
	if err != nil {
		Missing(t, "by programs that run containers: %v", err)
	}
	return tree
}

// Missing ends a test that cannot check something here: it is skipped, or fails if CI=true or PROA_REQUIRE_TOOLS=1. The words say what
// is not checked, and why.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if Required() {
		t.Fatalf("required here, and not checked "+format, args...)
	}
	t.Skipf("SKIPPED, NOT CHECKED "+format, args...)
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
