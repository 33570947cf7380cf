package judge

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/runtime/cgroup"
)

func TestParseTAP(t *testing.T) {
	got := parseTAP("1..7\nok 1 runc create\nnot ok 2 runc run [x y]\n# (in test file)\nok 3 update # skip test requires cgroups_v2\n" +
		"ok 4 - one # 0.020s\nnot ok 5 - two # 12.345s\nok 6 - three #SKIP requires root # 0.001s\n")
	want := []Result{{Test: "runc create", Verdict: Passed}, {Test: "runc run [x y]", Verdict: Failed},
		{Test: "update", Verdict: Skipped, Reason: "test requires cgroups_v2"}, {Test: "one", Verdict: Passed}, {Test: "two", Verdict: Failed},
		{Test: "three", Verdict: Skipped, Reason: "requires root"}, {Test: cutShort, Verdict: Failed, Reason: "6 of 7"}}
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := parseTAP("Traceback\n"); len(got) != 1 || got[0].Test != cutShort {
		t.Errorf("without a plan: %+v", got)
	}
}

// TestListing: what is listed is known, anything else is new, and a listed test that passes is told.
func TestListing(t *testing.T) {
	l, err := ReadListing(strings.NewReader("# Wording.\n# Two lines.\nrunc a.bats one [x]\nrunc a.bats gone\nrunc b.bats other file\n\n# Ends never.\n!crun t.py hangs\n"))
	if err != nil {
		t.Fatal(err)
	}
	results := []Result{{"runc", "a.bats", "one [x]", Failed, ""}, {"runc", "a.bats", "two", Failed, ""}, {"crun", "t.py", "x", Passed, ""}}
	l.judge(results)
	if results[0].Verdict != Known || results[0].Reason != "Wording. Two lines." || results[1].Verdict != Failed {
		t.Errorf("%+v", results)
	}
	if got := l.neverRun("crun", "t.py"); !slices.Equal(got, []string{"hangs"}) {
		t.Errorf("never run: %v", got)
	}
	var said bytes.Buffer
	if Report(&said, results, l) {
		t.Error("a new failure is no failure")
	}
	for _, want := range []string{"runc: 0 passed, 1 known not to pass, 0 skipped by the suite, 1 new failures", "listed, but passes or is gone: runc a.bats gone\n",
		"NEW FAILURE: runc a.bats two"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("want %q in\n%s", want, said.String())
		}
	}
	if strings.Contains(said.String(), "b.bats") || strings.Contains(said.String(), "gone: crun") {
		t.Errorf("files that were not run are none of its business:\n%s", said.String())
	}
	for _, bad := range []string{"runc a.bats no reason", "# R\nrunc a.bats", "# R\nrunc a b\nrunc a b"} {
		if _, err := ReadListing(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestKnown: the listing of the repository can be read.
func TestKnown(t *testing.T) {
	l, err := OpenListing("known.txt")
	if err != nil {
		t.Fatal(err)
	}
	for k := range l.reasons {
		if k.suite != "runc" && k.suite != "crun" && k.suite != TUFSuite {
			t.Errorf("%v: no such suite", k)
		}
	}
}

// TestDialects: what the suites say becomes what the runtime understands, and nothing else does.
func TestDialects(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"runc": runcScript, "crun": crunScript, "runtime": "#!/bin/sh\necho runtime: \"$@\"; cat config.json 2>/dev/null; true\n", "suite": "#!/bin/sh\necho suite: \"$@\"\n"} {
		if err := writeScript(filepath.Join(dir, name), text); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"runc", "--root", "/x/state", "spec", "--rootless"}, "suite: --root /x/state spec --rootless"},
		{[]string{"runc", "--root", "/x/state", "run", "-d", "spec"}, "runtime: --root /x/state run -d spec"},
		{[]string{"crun", "--cgroup-manager", "cgroupfs", "--root", "/r", "run", "--config", "config.json", "--detach", "a"}, "runtime: --root /r run --detach a"},
		{[]string{"crun", "--cgroup-manager=systemd", "create", "--config=other.json", "a"}, "runtime: --systemd-cgroup create a\nother"},
		{[]string{"crun", "exec", "a", "--config", "x"}, "runtime: exec a --config x"},
		{[]string{"crun", "--version"}, "runtime: --version"},
	} {
		os.Remove(filepath.Join(dir, "config.json"))
		os.WriteFile(filepath.Join(dir, "other.json"), []byte("other\n"), 0o644)
		cmd := exec.Command(filepath.Join(dir, c.words[0]), c.words[1:]...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "JUDGE_RUNTIME="+filepath.Join(dir, "runtime"), "JUDGE_RUNC="+filepath.Join(dir, "suite"))
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != c.want && !strings.HasPrefix(string(out), c.want+"\nother") {
			t.Errorf("%v: %v %s, want %s", c.words, err, out, c.want)
		}
	}
}

// TestTidy: a group whose last process is killed and frozen goes, and one with somebody alive in it stays.
func TestTidy(t *testing.T) {
	h, err := cgroup.Find()
	freezer := h.V1["freezer"]
	if os.Geteuid() != 0 || err != nil || freezer == "" {
		t.Skip("NOT TESTED: needs root and the freezer of cgroup v1")
	}
	top := filepath.Join(freezer, fmt.Sprintf("proa-test-tidy-%d", os.Getpid()))
	for name, dies := range map[string]bool{"dead": true, "alive": false} {
		dir := filepath.Join(top, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		c := exec.Command("sleep", "100")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		write := func(file, value string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0); err != nil {
				t.Fatal(err)
			}
		}
		write("cgroup.procs", strconv.Itoa(c.Process.Pid))
		write("freezer.state", "FROZEN")
		if dies {
			c.Process.Kill()
		}
		gone := false
		for range 50 {
			if gone = removeGroup(dir); gone {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if gone != dies {
			t.Errorf("%s: gone %v", name, gone)
		}
		if !dies {
			if state, _ := os.ReadFile(filepath.Join(dir, "freezer.state")); string(state) != "FROZEN\n" {
				t.Errorf("somebody else's group is %s", state)
			}
			write("freezer.state", "THAWED")
			c.Process.Kill()
		}
		c.Wait()
	}
	for range 50 {
		if removeGroup(top) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the group of the test is left behind")
}
