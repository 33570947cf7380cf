package judge

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseJUnit(t *testing.T) {
	got, err := parseJUnit([]byte(`<?xml version="1.0"?><testsuites><testsuite name="pytest" tests="6">
<testcase classname="tuf_conformance.test_basic" name="test_unsigned[root]"/>
<testcase classname="tuf_conformance.test_keys" name="test_old"><failure message="assert">trace</failure></testcase>
<testcase classname="tuf_conformance.test_keys" name="test_broken"><error message="fixture">trace</error></testcase>
<testcase classname="tuf_conformance.test_sim.TestSim" name="test_it"><skipped message="not here">trace</skipped></testcase>
<testcase classname="odd" name="it"/></testsuite></testsuites>`))
	want := []Result{{"tuf", "test_basic.py", "test_unsigned[root]", Passed, ""}, {"tuf", "test_keys.py", "test_old", Failed, ""},
		{"tuf", "test_keys.py", "test_broken", Failed, ""}, {"tuf", "test_sim.py", "test_it", Skipped, "not here"},
		{"tuf", "odd", "it", Passed, ""}, {"tuf", "", cutShort, Failed, "5 of 6"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	for _, bad := range []string{"", "<testsuites/>", `<testsuites><testsuite tests="0"/></testsuites>`, "<testsuites>"} {
		if got, err := parseJUnit([]byte(bad)); err == nil {
			t.Errorf("%q is a good report: %+v", bad, got)
		}
	}
}

// The suite's way to set the time reaches tuf-client.
func TestFaketime(t *testing.T) {
	script := filepath.Join(t.TempDir(), "faketime")
	if err := writeScript(script, faketimeScript); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]string{
		"2025-02-09 09:17:23+00:00":        "2025-02-09T09:17:23Z",
		"2025-02-09 09:17:23.123456+02:00": "2025-02-09T07:17:23Z",
	} {
		out, err := exec.Command(script, at, "sh", "-c", `echo "$FAKETIME_NOW $1"`, "sh", "a b").CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want+" a b" {
			t.Errorf("%s: got %q, %v, want %s", at, got, err, want)
		}
	}
	if out, err := exec.Command(script, "never", "echo", "ran").CombinedOutput(); err == nil || strings.Contains(string(out), "ran") {
		t.Errorf("a time that is none: %s, %v", out, err)
	}
}

func TestTUFSuiteIsNamed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte("something else"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := RunTUF(t.Context(), TUFOptions{Suite: dir, Out: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "name a checkout") {
		t.Errorf("got %v", err)
	}
}
