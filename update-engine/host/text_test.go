package host

import (
	"fmt"
	"os"
	"os/exec"
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

// A program that does without huge pages is the same process with the same arguments, and what it starts does without, too.
func TestSmallPages(t *testing.T) {
	if os.Getenv("PROA_SMALL") != "" {
		pid := os.Getpid()
		if err := SmallPages(); err != nil {
			t.Fatal(err)
		}
		without, err := exec.Command("grep", "THP_enabled", "/proc/self/status").CombinedOutput()
		fmt.Printf("small %d %s %v\n", pid, strings.TrimSpace(string(without)), err)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSmallPages$")
	cmd.Env = append(os.Environ(), "PROA_SMALL=1")
	out, err := cmd.CombinedOutput()
	if want := fmt.Sprintf("small %d THP_enabled:\t0 <nil>\n", cmd.Process.Pid); err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("got %q, %v, want %q", out, err, want)
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
