package inventory

import (
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/release"
)

func TestInventory(t *testing.T) {
	for _, packages := range [][]release.Package{
		nil,
		{{Name: "base-files", Version: "13.8+deb13u7"}},
		{{Name: "base-files", Version: "13.8+deb13u7"}, {Name: "busybox", Version: "1:1.37.0-6+b9"}},
	} {
		b, err := Marshal(packages)
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(string(b), "\n"); lines != len(packages)+2 {
			t.Errorf("got %d lines for %d packages", lines, len(packages))
		}
		got, err := Parse(b)
		if err != nil || !slices.Equal(got, packages) {
			t.Errorf("got %v, %v, want %v", got, err, packages)
		}
	}
	for _, bad := range []string{"", "{}", `{"format":2,"packages":[]}`, "[]"} {
		if _, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
