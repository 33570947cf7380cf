package state

import (
	"errors"
	"io/fs"
	"os/exec"
	"testing"
)

func TestStart(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	out, state, err := start(sh, []string{"sh", "-c", "echo out; echo err >&2; pwd; exit 4"}, "")
	if err != nil || state.ExitCode() != 4 || string(out) != "out\nerr\n/\n" {
		t.Errorf("got %q, %v, %v", out, state, err)
	}
	// More output than a pipe holds.
	if out, _, err := start(sh, []string{"sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo 12345678; i=$((i+1)); done"}, ""); err != nil || len(out) != 180000 {
		t.Errorf("got %d bytes, %v", len(out), err)
	}
	if _, _, err := start(t.TempDir()+"/none", []string{"none"}, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestOneLine(t *testing.T) {
	if got := oneLine([]byte("\nmke2fs 1.47\r\nno space\n")); got != "mke2fs 1.47; no space" {
		t.Errorf("got %q", got)
	}
}
