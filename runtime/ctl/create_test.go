package ctl

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/runtime/unit"
)

// TestCreate: a container that is made waits for its start, whatever is cleaned up meanwhile, and is then as one of run's.
func TestCreate(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	file := filepath.Join(m.dir, "cid")
	if out := m.must("create", "--rm", "--name", "job", "--cidfile", file, "--tls-verify=false", "--network", "none", "-i", m.image(), "echo"); out != "job\n" {
		t.Errorf("create says %q", out)
	}
	if b, err := os.ReadFile(file); string(b) != "job" {
		t.Errorf("cidfile: %q %v", b, err)
	}
	if v := m.inspect("job"); v.Status != "created" || v.Pid != 0 {
		t.Errorf("it is %+v", v)
	}
	m.must("gc")
	m.mustFail("exists", "run", "--rm", "--name", "job", "--network", "none", m.image())
	m.mustFail("exists", "create", "--name", "job", "--network", "none", m.image())
	c := exec.Command("/proc/self/exe", "start", "-ai", "job")
	c.Env = append(os.Environ(), "CTL_DIR="+m.dir)
	c.Stdin = strings.NewReader("7\n")
	if out, err := c.CombinedOutput(); c.ProcessState.ExitCode() != 7 || string(out) != "heard 7\n" {
		t.Errorf("start -ai: %v, %q", err, out)
	}
	m.left(t)

	m.must("container", "create", "--restart", "always", "--name", "kept", "--network", "none", m.image(), "sleep")
	unit, wants := filepath.Join(m.dir, "units/proa-kept.service"), filepath.Join(m.dir, "units/multi-user.target.wants/proa-kept.service")
	if _, err := os.Lstat(wants); err == nil {
		t.Error("it starts at boot before anybody has started it")
	}
	m.must("rename", "kept", "held")
	m.must("rename", "held", "kept")
	m.must("start", "kept")
	if _, err := os.Lstat(wants); err != nil {
		t.Errorf("started, it does not start at boot: %v", err)
	}
	if b, err := os.ReadFile(unit); err != nil || !strings.Contains(string(b), "Restart=always") {
		t.Errorf("%v: %s", err, b)
	}
	m.must("rm", "-f", "kept")
	m.must("create", "--name", "plain", "--network", "none", m.image(), "exit", "3")
	m.must("start", "plain")
	if out := m.must("wait", "plain"); out != "3\n" || m.inspect("plain").RestartCount != 0 {
		t.Errorf("wait: %q", out)
	}
	m.must("rm", "plain")
	m.mustFail("--preserve-fds needs run", "create", "--preserve-fds", "1", m.image())
	m.mustFail("unknown flag", "create", "-d", m.image())
	m.mustFail("exclude each other", "create", "--rm", "--restart", "always", "--network", "none", m.image())
	if out := m.must("ps", "-aq"); out != "" {
		t.Errorf("left: %s", out)
	}
}

// TestRenameCutOff: a rename that fails leaves the container its unit, and one that a kill has cut off nothing that gc does not remove.
func TestRenameCutOff(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	m.must("pull", "--tls-verify=false", m.image())
	units := func() (names []string) {
		for _, dir := range []string{"units", "units/multi-user.target.wants"} {
			files, _ := filepath.Glob(filepath.Join(m.dir, dir, "proa-*.service"))
			for _, f := range files {
				names = append(names, filepath.Base(f))
			}
		}
		return names
	}
	m.must("run", "-d", "--restart", "always", "--name", "web", "--network", "none", m.image(), "sleep")
	m.must("create", "--name", "db", "--network", "none", m.image(), "sleep")
	if err := testEnv(m.dir).Units.Stop(t.Context(), "proa-web.service"); err != nil {
		t.Fatal(err)
	}
	web := []string{"proa-web.service", "proa-web.service"} // and its link
	for _, to := range []string{"db", "web", "-x"} {
		m.mustFail("", "rename", "web", to)
		if got := units(); !slices.Equal(got, web) {
			t.Fatalf("rename to %s leaves %q, want %q", to, got, web)
		}
	}
	// A kill before the files have moved, and an administrator's unit with such a name.
	k := m.described("new")
	k.Restart = "always"
	dir := filepath.Join(m.dir, "units")
	if err := errors.Join(unit.Install(dir, k), os.WriteFile(filepath.Join(dir, "proa-own.service"), []byte("[Service]\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	m.must("gc")
	if got, want := units(), []string{"proa-own.service", "proa-web.service", "proa-web.service"}; !slices.Equal(got, want) {
		t.Errorf("gc leaves %q, want %q", got, want)
	}
	m.must("rename", "web", "new")
	if got, want := units(), []string{"proa-new.service", "proa-own.service", "proa-new.service"}; !slices.Equal(got, want) {
		t.Errorf("rename leaves %q, want %q", got, want)
	}
	m.must("rm", "new", "db")
}
