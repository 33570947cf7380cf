package main

import (
	"strings"
	"sync"
	"testing"
)

// Each command must use the mirror it is told, and say which one does not answer.
func TestMirrorFlag(t *testing.T) {
	t.Chdir("../../..")
	t.Setenv("PROA_CACHE", t.TempDir())
	var wg sync.WaitGroup
	const mirror = "http://127.0.0.1:1/debian"
	for _, command := range [][]string{
		{"tools"},
		{"build", "--version", "1.0.0", "--out", t.TempDir() + "/out"},
		{"lock"},
	} {
		wg.Go(func() { // at once: each tries a few times
			args := append(command, "--mirror", mirror, "--security-mirror", mirror)
			if err := run(t.Context(), args); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
				t.Errorf("%s: got %v, want an error that names the mirror", command[0], err)
			}
		})
	}
	wg.Wait()
}

func TestUnknownCommand(t *testing.T) {
	if err := run(t.Context(), []string{"bild"}); err == nil || !strings.Contains(err.Error(), `"bild"`) {
		t.Errorf("got %v", err)
	}
}
