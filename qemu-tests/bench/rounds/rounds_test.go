package rounds

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRun: every command once a round and once before, timed, with the CPU time that the machine tells.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	stat, log := filepath.Join(dir, "cpu.stat"), filepath.Join(dir, "log")
	if err := os.WriteFile(stat, []byte("usage_usec 0\nuser_usec 0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// A command that takes its time, and tells a machine's CPU time that grows by 7 ms.
	busy := "sleep 0.02; echo b >> " + log + "; read -r _ n < " + stat + "; echo usage_usec $((n + 7000)) > " + stat
	got, err := Run(Plan{Rounds: 3, Stat: stat, Commands: []Command{{"quick", []string{"/bin/sh", "-c", "echo q >> " + log}}, {"busy", []string{"/bin/sh", "-c", busy}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"quick", "busy"} {
		if len(got[name]) != 3 {
			t.Fatalf("%s: got %d samples, want 3", name, len(got[name]))
		}
		for _, s := range got[name] {
			if name == "busy" && (s.Wall < 20*time.Millisecond || s.CPU != 7*time.Millisecond) || name == "quick" && (s.Wall <= 0 || s.CPU != 0) {
				t.Errorf("%s: got %+v", name, s)
			}
		}
	}
	if b, err := os.ReadFile(log); err != nil || strings.Count(string(b), "b") != 4 || strings.Count(string(b), "q") != 4 {
		t.Errorf("got runs %q, %v, want four of each", b, err)
	}
}

func TestRunFails(t *testing.T) {
	stat := filepath.Join(t.TempDir(), "cpu.stat")
	p := Plan{Rounds: 1, Stat: stat, Commands: []Command{{"bad", []string{"/bin/sh", "-c", "echo why >&2; exit 3"}}}}
	if _, err := Run(p); err == nil || !strings.Contains(err.Error(), "cpu.stat") {
		t.Errorf("got %v, want an error about cpu.stat", err)
	}
	for text, want := range map[string]string{"user_usec 1\n": "no usage_usec", "usage_usec x\n": "read ", "usage_usec 1\n": "exit status 3: why"} {
		if err := os.WriteFile(stat, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Run(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}
