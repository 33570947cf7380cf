package command

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

// toy has a command with everything.
func toy(did *[]string) Program {
	return Program{Name: "to-y", Exits: "0 if all went well.", Sections: [][2]string{{"FILES", "/etc/toy"}}, Commands: []Command{{
		Name: "play", Args: "WITH [WHAT]", Min: 1, Max: 2, Short: "play it's fun", Long: "Plays.", Examples: []string{"to-y play ball"}, Words: []string{"ball", "bear"},
		Setup: func(flags *flag.FlagSet) func(context.Context, []string) error {
			loud := flags.Bool("loud", false, "make noise: [much]")
			flags.String("until", "", "`time` of the end")
			flags.Int("times", 0, "how `often`")
			flags.Duration("rest", 0, "a `pause`")
			flags.String("toy", "doll", "a `thing` (default: what lies on top)")
			flags.Int("level", 3, "how `hard`")
			return func(_ context.Context, args []string) error {
				*did = append([]string{map[bool]string{true: "loud", false: "quiet"}[*loud]}, args...)
				return nil
			}
		},
	}, {Name: "fetch", Short: "fetch", Words: []string{"osprey", "stick"}, Files: true, Setup: nothing}}}
}

func TestRun(t *testing.T) {
	var did []string
	p := toy(&did)
	if err := p.Run(t.Context(), nil, []string{"play", "ball", "--loud"}); err != nil || !slices.Equal(did, []string{"loud", "ball"}) {
		t.Errorf("did %v, %v", did, err)
	}
	for _, args := range [][]string{{"sleep"}, {"play"}, {"play", "a", "b", "c"}, {"play", "--bad", "a"}, {"completion"}, {"completion", "csh"}, {"help", "sleep"}} {
		var usage *WrongUsage
		if err := p.Run(t.Context(), &bytes.Buffer{}, args); !errors.As(err, &usage) {
			t.Errorf("%v: got %v, want wrong usage", args, err)
		}
	}
	var list, page, same bytes.Buffer
	if err := errors.Join(p.Run(t.Context(), &list, nil), p.Run(t.Context(), &page, []string{"help", "play"}), p.Run(t.Context(), &same, []string{"play", "--help"})); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"play        play it's fun", "completion", "help"} {
		if !strings.Contains(list.String(), want) {
			t.Errorf("no %q in\n%s", want, &list)
		}
	}
	for _, want := range []string{"NAME\n    to-y play - play it's fun\n", "SYNOPSIS\n    to-y play [FLAGS] WITH [WHAT]\n", "--until TIME\n        time of the end\n", "how hard (default 3)\n", "FILES\n    /etc/toy\n"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("no %q in\n%s", want, &page)
		}
	}
	for _, bad := range []string{"(default 0", "(default doll"} {
		if strings.Contains(page.String(), bad) {
			t.Errorf("%q in\n%s", bad, &page)
		}
	}
	if page.String() != same.String() {
		t.Error("--help prints another page than help")
	}
}

func TestParse(t *testing.T) {
	flags := flag.NewFlagSet("x", flag.ContinueOnError)
	a, b := flags.Bool("a", false, ""), flags.String("b", "", "")
	rest, err := parse(flags, []string{"one", "--a", "two", "--b", "value", "--", "--three"})
	if err != nil || !*a || *b != "value" || !slices.Equal(rest, []string{"one", "two", "--three"}) {
		t.Errorf("got %v, %v, %q, %v", rest, *a, *b, err)
	}
}

// The shells that are there accept the scripts, and bash completes with its.
func TestCompletion(t *testing.T) {
	var did []string
	script := func(shell string) string {
		var b bytes.Buffer
		if err := toy(&did).Run(t.Context(), &b, []string{"completion", shell}); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"play", "loud", "until", "bear", "help"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%s: no %s", shell, want)
			}
		}
		return b.String()
	}
	for _, shell := range []string{"zsh", "fish"} {
		text := script(shell)
		if path, err := exec.LookPath(shell); err == nil {
			if out, err := exec.Command(path, "-n", "-c", text).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", shell, err, out)
			}
		}
	}
	text := script("bash")
	shell, err := exec.LookPath("bash")
	if err != nil {
		testenv.Missing(t, "in a shell: %v", err)
	}
	t.Chdir(t.TempDir())
	if err := os.WriteFile("os-file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{"to-y pl": "play", "to-y play --lo": "--loud", "to-y play ": "ball bear", "to-y play /etc/os-rel": "/etc/os-release", "to-y play b": "ball bear", "to-y help pl": "play",
		"to-y fetch st": "stick", "to-y fetch /etc/os-rel": "/etc/os-release", "to-y fetch os": "osprey os-file"} {
		cmd := exec.CommandContext(t.Context(), shell, append([]string{"-c", text + `COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _to_y; echo "${COMPREPLY[@]}"`, "bash"}, strings.Split(line, " ")...)...)
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", line, got, err, want)
		}
	}
}

// dashes is a syntax of its own: short flags, and a word that is no flag ends them.
type dashes struct{ it bool }

func (d *dashes) All() []Flag {
	return []Flag{{Names: []string{"-i", "--it"}, Usage: "it"}, {Names: []string{"-n"}, Meta: "N", Usage: "number", Default: "4"}}
}

func (d *dashes) Parse(args []string) ([]string, error) {
	switch {
	case len(args) > 0 && args[0] == "--help":
		return nil, flag.ErrHelp
	case len(args) > 0 && args[0] == "-i":
		d.it = true
		return args[1:], nil
	}
	return args, nil
}

func TestOwnFlags(t *testing.T) {
	var did []string
	p := Program{Name: "to-y", Commands: []Command{
		{Name: "own", Short: "own", Max: -1, Lister: "echo one two", Own: func() (Flags, func(context.Context, []string) error) {
			d := new(dashes)
			return d, func(_ context.Context, args []string) error {
				if d.it {
					args = append(args, "it")
				}
				did = args
				return nil
			}
		}},
		{Name: "secret", Hidden: true, Setup: nothing},
	}}
	if err := p.Run(t.Context(), nil, []string{"own", "-i", "a", "-x"}); err != nil || !slices.Equal(did, []string{"a", "-x", "it"}) {
		t.Errorf("did %q, %v", did, err)
	}
	var page, list, bash bytes.Buffer
	if err := errors.Join(p.Run(t.Context(), &page, []string{"own", "--help"}), p.Run(t.Context(), &list, nil), p.Run(t.Context(), &bash, []string{"completion", "bash"})); err != nil {
		t.Fatal(err)
	}
	if want := "-i, --it\n        it\n    -n N\n        number (default 4)\n"; !strings.Contains(page.String(), want) {
		t.Errorf("no %q in\n%s", want, &page)
	}
	if strings.Contains(list.String()+bash.String(), "secret") {
		t.Errorf("a hidden command is shown:\n%s%s", &list, &bash)
	}
	if err := p.Run(t.Context(), nil, []string{"secret"}); err != nil {
		t.Error(err)
	}
	if shell, err := exec.LookPath("bash"); err == nil {
		out, err := exec.CommandContext(t.Context(), shell, "-c", bash.String()+`COMP_WORDS=(to-y own t); COMP_CWORD=2; _to_y; echo "${COMPREPLY[@]}"`).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != "two" {
			t.Errorf("completed %q, %v, want two", got, err)
		}
	}
}

func TestNearest(t *testing.T) {
	var did []string
	if err := toy(&did).Run(t.Context(), nil, []string{"plya"}); err == nil || !strings.Contains(err.Error(), "did you mean play?") {
		t.Errorf("got %v", err)
	}
}
