package desk

import (
	"flag"
	"os/exec"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

// A shell that has read our script completes as the table says.
func TestBashCompletion(t *testing.T) {
	s := newStory(t)
	s.run("completion bash")
	shell, err := exec.LookPath("bash")
	if err != nil {
		testenv.Missing(t, "in a shell: %v", err)
	}
	for line, want := range map[string]string{
		"release ref":           "refresh",
		"release plan --no":     "--no-urgent --not-before",
		"release completion ":   "bash zsh fish",
		"release help rot":      "rotate",
		"release keys ":         "new",
		"release stage /etc/pa": "/etc/pa",
	} {
		cmd := exec.CommandContext(t.Context(), shell, "-c", s.out+`COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _release; echo "${COMPREPLY[@]}"`)
		cmd.Args = append(cmd.Args, append([]string{"bash"}, strings.Split(line, " ")...)...)
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("%q: got %q, %v, want %q", line, got, err, want)
		}
	}
}

// All scripts know every command and every flag.
func TestCompletionIsWhole(t *testing.T) {
	s := newStory(t)
	for _, shell := range []string{"bash", "zsh", "fish"} {
		s.run("completion " + shell)
		for _, c := range program(Streams{}).All() {
			if !strings.Contains(s.out, c.Name) {
				t.Errorf("%s: no command %s", shell, c.Name)
			}
			c.Flags().VisitAll(func(f *flag.Flag) {
				if !strings.Contains(s.out, "--"+f.Name) && !strings.Contains(s.out, "-l "+f.Name) {
					t.Errorf("%s: %s has no --%s", shell, c.Name, f.Name)
				}
			})
		}
		if program, err := exec.LookPath(shell); err == nil {
			cmd := exec.CommandContext(t.Context(), program, "-n")
			cmd.Stdin = strings.NewReader(s.out)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s does not understand it: %v, %s", shell, err, out)
			}
		}
	}
}
