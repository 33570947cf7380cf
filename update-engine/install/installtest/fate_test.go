package installtest

import (
	"os"
	"strings"
	"testing"
)

// One word means the full depth: here, in the stories, and in the Makefile that says it to both.
func TestFullDepth(t *testing.T) {
	makefile, err := os.ReadFile("../../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Split(string(makefile), "PROA_POWERCUT=")[1:]
	if len(said) < 2 {
		t.Fatalf("the Makefile says PROA_POWERCUT= %d times, expected unit tests and stories", len(said))
	}
	for _, rest := range said {
		word, _, _ := strings.Cut(rest, " ")
		if t.Setenv("PROA_POWERCUT", word); !FullDepth() {
			t.Errorf("PROA_POWERCUT=%s is not full depth here", word)
		}
	}
	stories, err := os.ReadFile("../../../qemu-tests/powercut_test.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(stories), `os.Getenv("PROA_POWERCUT") == "full"`) {
		t.Error("the stories have another word for it")
	}
	for _, word := range []string{"", "deep"} {
		if t.Setenv("PROA_POWERCUT", word); FullDepth() {
			t.Errorf("PROA_POWERCUT=%s is full depth", word)
		}
	}
}
