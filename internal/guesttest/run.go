package guesttest

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/testenv"
)

// A Machine is the guest that a test needs.
type Machine struct {
	Modules []string          // kernel modules to load, with what they depend on
	Disks   []Disk            // /dev/vda and so on; writes stay
	Files   map[string][]byte // of the initramfs, by name without a leading slash
	Env     map[string]string // environment of the test in the guest; no spaces, no dots in names

	// Panic is a kernel message, in the words after "Kernel panic - not syncing: ", that must end the guest.
	Panic string

	Deadline time.Duration // on the clock; 5 minutes by default
}

// Run runs the test that calls it in a guest, where Inside is true, and reports what happened there as its own result.
// It returns the kernel's console. Call it from a test of the package's top level, once everything is prepared.
func Run(t *testing.T, m Machine) string {
	t.Helper()
	tools := testenv.Machines(t)
	modules, err := Modules(tools, m.Modules...)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"init": program(t)}
	for name, content := range m.Files {
		files[name] = content
	}
	var list bytes.Buffer
	for _, mod := range modules {
		name := "lib/modules/" + mod.Name + ".ko"
		files[name] = mod.Content
		fmt.Fprintf(&list, "/%s\n", name)
	}
	files[moduleList] = list.Bytes()
	dir := t.TempDir()
	initrd, out := filepath.Join(dir, "initrd"), filepath.Join(dir, "results")
	if err := os.WriteFile(initrd, Archive(files), 0o600); err != nil {
		t.Fatal(err)
	}
	b := Boot{Initrd: initrd, Disks: m.Disks, Results: out, Deadline: m.Deadline, Options: m.options(t.Name())}
	console, err := b.Run(t.Context(), tools)
	if err != nil {
		t.Errorf("%v; its console:\n%s", err, console)
	}
	said, err := os.ReadFile(out)
	if err != nil {
		t.Errorf("%v; its console:\n%s", err, console)
	}
	m.judge(t, console, strings.ReplaceAll(string(said), "\r", ""))
	return console
}

// options ends with what the kernel passes to /init: NAME=VALUE as environment, what follows -- as arguments.
func (m Machine) options(test string) string {
	words := []string{"loglevel=5", guestEnv + "=1"}
	for name, value := range m.Env {
		words = append(words, name+"="+value)
	}
	return strings.Join(append(words, "--", "-test.v", "-test.run=^"+regexp.QuoteMeta(test)+"$"), " ")
}

// program is a static test binary: this one, or one built for the purpose where this one needs a loader (cgo, -race).
func program(t *testing.T) []byte {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		self = filepath.Join(t.TempDir(), "init")
		build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", self, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if msg, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build a static test binary: %v\n%s", err, msg)
		}
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var (
	panicRE = regexp.MustCompile(`Kernel panic - not syncing: (.*)`)
	wrongRE = regexp.MustCompile(`WARNING: |BUG: |Oops|cut here \]|Call Trace:`)
)

// judge makes the guest's results the test's.
func (m Machine) judge(t *testing.T, console, said string) {
	t.Helper()
	if found := panicRE.FindStringSubmatch(console); m.Panic != "" || found != nil {
		switch {
		case m.Panic == "":
			t.Errorf("the guest's kernel panicked: %s\n%s\n%s", found[1], said, console)
		case found == nil:
			t.Errorf("got no panic in the guest, want %q:\n%s\n%s", m.Panic, said, console)
		case !strings.Contains(found[1], m.Panic):
			t.Errorf("got panic %q in the guest, want %q:\n%s", found[1], m.Panic, said)
		}
		if strings.Contains(said, verdict) {
			t.Errorf("the guest ended in order, want a panic:\n%s", said)
		}
		for _, line := range failures(said) {
			t.Errorf("before the panic: %s", line)
		}
		return
	}
	if line := wrongRE.FindString(console); line != "" {
		t.Errorf("the guest's kernel is not content (%s):\n%s", line, console)
	}
	report(t, parse(said, t.Name()), said, console)
}

// report shows results of the guest as the host's.
func report(t *testing.T, r result, said, console string) {
	t.Helper()
	switch {
	case r.status == "" || r.exit == "":
		t.Errorf("the guest did not finish; it said:\n%s\nits console:\n%s", said, console)
		return
	case r.status == "SKIP":
		t.Errorf("the test skipped itself in the guest:\n%s", r.log)
	case r.log != "":
		t.Logf("in the guest:\n%s", r.log)
	}
	failed := false
	for _, s := range r.subtests {
		t.Run(s.name, func(t *testing.T) {
			t.Log("in the guest:\n" + s.log)
			switch s.status {
			case "PASS":
			case "SKIP":
				t.SkipNow()
			default:
				failed = true
				t.Fail()
			}
		})
	}
	if (r.status == "FAIL" || r.exit != "0") && !failed {
		t.Errorf("failed in the guest, exit status %s; it said:\n%s", r.exit, said)
	}
}
