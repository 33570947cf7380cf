package host

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// What a program has run and does not run any more takes no memory after LetGo, and it goes on.
func TestLetGo(t *testing.T) {
	before := mapped(t)
	if err := LetGo(); err != nil {
		t.Fatal(err)
	}
	after := mapped(t)
	t.Logf("%d kB of files mapped, then %d", before, after)
	if after > before-500 {
		t.Errorf("%d kB of files were mapped, %d are: nothing was let go of", before, after)
	}
	if err := LetGo(); err != nil {
		t.Errorf("again: %v", err)
	}
}

func mapped(t *testing.T) (kB int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssFile:")
	if _, err := fmt.Sscan(rest, &kB); err != nil {
		t.Fatal(err)
	}
	return kB
}
