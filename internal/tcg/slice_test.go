package tcg

import (
	"bytes"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStart looks at what a program that was started is to the scheduler, and at what we still are.
func TestStart(t *testing.T) {
	if os.Getenv("PROA_TEST_CHILD") != "" {
		a, err := unix.SchedGetAttr(0, 0)
		if err != nil || a.Policy != unix.SCHED_BATCH {
			t.Fatalf("got %+v, %v, want a batch process", a, err)
		}
		return
	}
	before, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestStart$")
	cmd.Env = append(os.Environ(), "PROA_TEST_CHILD=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, &out)
	}
	if a, err := unix.SchedGetAttr(0, 0); err != nil || *a != *before {
		t.Errorf("got %+v, %v, want %+v as before: only what is started is another", a, err, before)
	}
}
