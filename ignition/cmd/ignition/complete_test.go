package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/internal/testenv"
)

// Every command has a manual page, which help and --help print alike, with its synopsis, a sentence or more, and every flag.
func TestManualPages(t *testing.T) {
	for _, c := range new(program).commands() {
		if c.Hidden {
			continue
		}
		page, _, err := do(t, "help", c.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, flag := range []string{"--help", "-help", "-h"} {
			if same, _, err := do(t, c.Name, flag); err != nil || same != page {
				t.Errorf("%s %s: %v, prints another page than help", c.Name, flag, err)
			}
		}
		want := []string{"NAME\n    ignition " + c.Name + " - " + c.Short, "SYNOPSIS\n    ignition " + c.Name + " [FLAGS]", "EXIT STATUS\n"}
		for _, o := range c.Options() {
			want = append(want, "    "+o.Names[0])
		}
		if c.Long == "" && c.Name != "version" {
			t.Errorf("%s: nothing but a line", c.Name)
		}
		for _, w := range want {
			if !strings.Contains(page, w) {
				t.Errorf("%s: no %q in\n%s", c.Name, w, page)
			}
		}
		for line := range strings.Lines(page) {
			if len(strings.TrimRight(line, "\n")) > 80 && !strings.Contains(line, "ignition ") {
				t.Errorf("%s: more than a terminal has room for: %s", c.Name, line)
			}
		}
	}
}

// What people ask for, programs can: each of these answers as JSON, and with JSON alone on standard output.
func TestEveryAnswerAsJSON(t *testing.T) {
	if os.Geteuid() != 0 {
		testenv.Missing(t, "as an ordinary user: files get owner 0:0")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "c.ign")
	if err := os.WriteFile(config, []byte(`{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/a","contents":{"source":"data:,x"}}]}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	answer := func(v any, args ...string) error {
		t.Helper()
		out, _, err := do(t, args...)
		if jerr := json.Unmarshal([]byte(out), v); jerr != nil {
			t.Fatalf("%q: %v in %q, %v", args, jerr, out, err)
		}
		return err
	}
	var verdicts []checked
	if err := answer(&verdicts, "check", "--json", config); err != nil || len(verdicts) != 1 || !verdicts[0].OK {
		t.Errorf("check: got %+v, %v", verdicts, err)
	}
	var planning, done []planned
	if err := answer(&planning, "plan", "--json", config); err != nil || len(planning) != 1 {
		t.Errorf("plan: got %+v, %v", planning, err)
	}
	if err := answer(&done, "apply", "--json", "--root", dir, config); err != nil || !slices.EqualFunc(done, planning, func(a, b planned) bool { return a.Operation == b.Operation && a.Place == b.Place }) {
		t.Errorf("apply: got %+v, %v, want what was planned", done, err)
	}
	if err := os.WriteFile(dir+"/etc/a", []byte("y"), 0o644); err != nil {
		t.Fatal(err)
	}
	var differ []apply.Difference
	if err := answer(&differ, "drift", "--json", "--root", dir); exitStatus(err) != 1 || len(differ) != 1 || differ[0].Subject != "file /etc/a" || differ[0].Place.Line != 1 {
		t.Errorf("drift: got %+v, %v", differ, err)
	}
	var asked struct{ Kept []string }
	if err := answer(&asked, "reset", "--json", "--root", dir, "--keep", "/etc/a"); err != nil || !slices.Equal(asked.Kept, []string{"/etc/a"}) {
		t.Errorf("reset: got %+v, %v", asked, err)
	}
	if out, _, err := do(t, "reset", "--json", "--root", dir); err != nil || !strings.Contains(out, `"kept": []`) {
		t.Errorf("reset of everything: got %s, %v", out, err)
	}
	if out, _, err := do(t, "plan", "--json", dir+"/none"); err == nil || out != "" {
		t.Errorf("what fails answers %q, %v", out, err)
	}
}

// A shell that has read our script completes as the table says.
func TestBashCompletion(t *testing.T) {
	script, _, err := do(t, "completion", "bash")
	if err != nil {
		t.Fatal(err)
	}
	shell, err := exec.LookPath("bash")
	if err != nil {
		testenv.Missing(t, "in a shell: %v", err)
	}
	for line, want := range map[string]string{
		"ignition ch":                 "check",
		"ignition check --j":          "--json",
		"ignition apply --o":          "--offline",
		"ignition reset --":           "--json --keep --root",
		"ignition secret ":            "key encrypt",
		"ignition stage fetch-":       "fetch-offline",
		"ignition help dri":           "drift",
		"ignition completion ":        "bash zsh fish",
		"ignition plan /etc/os-relea": "/etc/os-release",
	} {
		cmd := exec.CommandContext(t.Context(), shell, "-c", script+`COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ignition; echo "${COMPREPLY[@]}"`)
		cmd.Args = append(cmd.Args, append([]string{"bash"}, strings.Split(line, " ")...)...)
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", line, got, err, want)
		}
	}
}

// All scripts know every command and every flag, and nothing that is not for people.
func TestCompletionIsWhole(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script, _, err := do(t, "completion", shell)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range new(program).commands() {
			if c.Hidden == strings.Contains(script, c.Name) {
				t.Errorf("%s: whether %s is known: %v", shell, c.Name, !c.Hidden)
			}
			for _, o := range c.Options() {
				name := strings.TrimLeft(o.Names[0], "-")
				if !c.Hidden && !strings.Contains(script, "--"+name) && !strings.Contains(script, "-l "+name) {
					t.Errorf("%s: %s has no --%s", shell, c.Name, name)
				}
			}
		}
		if program, err := exec.LookPath(shell); err == nil {
			cmd := exec.CommandContext(t.Context(), program, "-n")
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s does not understand it: %v, %s", shell, err, out)
			}
		}
	}
}
