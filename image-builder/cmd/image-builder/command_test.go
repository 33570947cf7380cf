package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/imagetest"
	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/internal/testenv"
)

func output1(t *testing.T, args ...string) (string, error) {
	t.Helper()
	t.Setenv("PROA_CACHE", t.TempDir())
	var b bytes.Buffer
	err := runTo(t.Context(), &b, args)
	return b.String(), err
}

// Every command must have a whole manual page, each flag in it with a usage, and --help must print the same.
func TestHelp(t *testing.T) {
	for _, c := range program(&common{}).All() {
		page, err := output1(t, "help", c.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS"} {
			if !strings.Contains(page, "\n"+want+"\n") && !strings.HasPrefix(page, want+"\n") {
				t.Errorf("%s: no %s", c.Name, want)
			}
		}
		c.Flags().VisitAll(func(f *flag.Flag) {
			if f.Usage == "" || !strings.Contains(page, "--"+f.Name) {
				t.Errorf("%s: --%s is not explained", c.Name, f.Name)
			}
		})
		for line := range strings.Lines(page) {
			if len(line) > command.Width+1 && !strings.Contains(line, "image-builder") {
				t.Errorf("%s: a line of %d characters: %s", c.Name, len(line), line)
			}
		}
		if other, err := output1(t, c.Name, "--help"); err != nil || other != page {
			t.Errorf("%s --help: %v, not the page of help %s", c.Name, err, c.Name)
		}
	}
	if list, err := output1(t); err != nil || !strings.Contains(list, "reproduce") {
		t.Errorf("no arguments: %v, %s", err, list)
	}
}

func TestArguments(t *testing.T) {
	for want, args := range map[string][]string{
		"got 0 arguments":         {"inspect"},
		"got 3 arguments":         {"diff", "a", "b", "c"},
		"-bad":                    {"build", "--bad"},
		"--version is missing":    {"reproduce"},
		"image-builder help diff": {"diff", "one"},
		"unknown shell":           {"completion", "csh"},
		"unknown command":         {"help", "bild"},
		"did you mean aws?":       {"platform", "disk.img", "awz"},
		"PLATFORM is missing":     {"platform", "disk.img", "--arg", "ip=dhcp"},
		"was given; leave one":    {"platform", "disk.img", "aws", "--remove"},
		"expected ip=VALUE":       {"platform", "disk.img", "aws", "--arg", "ip"},
	} {
		if _, err := output1(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", args, err, want)
		}
	}
}

func TestInspectAndDiff(t *testing.T) {
	one, _ := imagetest.Build(t, imagetest.Spec{Version: "1.0.0", Packages: []release.Package{{Name: "bash", Version: "5"}}})
	two, _ := imagetest.Build(t, imagetest.Spec{Version: "1.0.1", Packages: []release.Package{{Name: "bash", Version: "6"}}})
	out, err := output1(t, "inspect", one, "--json", "--verify")
	var i struct {
		Slots []struct{ Verified bool }
	}
	if err != nil || json.Unmarshal([]byte(out), &i) != nil || len(i.Slots) != 2 || !i.Slots[0].Verified {
		t.Errorf("%v in\n%s", err, out)
	}
	if out, err = output1(t, "diff", one, two); err != nil || !strings.Contains(out, "5 -> 6") {
		t.Errorf("%v in\n%s", err, out)
	}
	if out, err = output1(t, "diff", "--json", filepath.Join(one, "root.img"), two); err != nil || !strings.Contains(out, `"old": "5"`) {
		t.Errorf("%v in\n%s", err, out)
	}
	if _, err = output1(t, "diff", "--exit-code", one, two); !errors.Is(err, errDiffers) {
		t.Errorf("got %v", err)
	}
	if _, err = output1(t, "diff", "--exit-code", one, one); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestPlatform(t *testing.T) {
	dir, _ := imagetest.Build(t, imagetest.Spec{Version: "1.0.0"})
	const words = "ignition.platform.id=metal ignition.config.url=http://h/c.ign"
	for _, tt := range []struct {
		want string
		args []string
	}{
		{"/disk.img: no platform is named", []string{dir}},
		{"/disk.img: written: " + words + "\n", []string{dir, "metal", "--arg", "ignition.config.url=http://h/c.ign"}},
		{"/disk.img: " + words + "\n", []string{dir}},
		{"/copy.qcow2: written: ignition.platform.id=aws\n", []string{dir, "aws", "--out", dir + "/copy.qcow2"}},
		{`"arguments": [
    "ignition.platform.id=aws"
  ]`, []string{dir + "/copy.qcow2", "--json"}},
		{"/disk.img: written: no platform is named", []string{"--remove", dir}},
	} {
		if out, err := output1(t, append([]string{"platform"}, tt.args...)...); err != nil || !strings.Contains(out, tt.want) {
			t.Errorf("%v: got %q, %v, want %q", tt.args, out, err, tt.want)
		}
	}
}

// A shell that has read our script completes as the table says.
func TestBashCompletion(t *testing.T) {
	script, err := output1(t, "completion", "bash")
	if err != nil {
		t.Fatal(err)
	}
	shell, err := exec.LookPath("bash")
	if err != nil {
		testenv.Missing(t, "in a shell: %v", err)
	}
	for line, want := range map[string]string{
		"image-builder ins":              "inspect",
		"image-builder build --no-":      "--no-cache --no-qcow2",
		"image-builder completion ":      "bash zsh fish",
		"image-builder help dif":         "diff",
		"image-builder platform vm":      "vmware",
		"image-builder inspect /etc/hos": "/etc/host.conf /etc/hostname /etc/hosts",
	} {
		words := strings.Split(line, " ")
		cmd := exec.CommandContext(t.Context(), shell, "-c", script+`COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _image_builder; echo "${COMPREPLY[@]}"`)
		cmd.Args = append(cmd.Args, append([]string{"bash"}, words...)...)
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || !strings.HasPrefix(got, want) && !(strings.Contains(line, "/etc") && strings.Contains(got, "/etc/hosts")) {
			t.Errorf("%q: got %q, %v, want %q", line, got, err, want)
		}
	}
}

// All scripts know every command and every flag.
func TestCompletionIsWhole(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script, err := output1(t, "completion", shell)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range program(&common{}).All() {
			if !strings.Contains(script, c.Name) {
				t.Errorf("%s: no command %s", shell, c.Name)
			}
			c.Flags().VisitAll(func(f *flag.Flag) {
				if !strings.Contains(script, "--"+f.Name) && !strings.Contains(script, "-l "+f.Name) {
					t.Errorf("%s: %s has no --%s", shell, c.Name, f.Name)
				}
			})
		}
	}
}
