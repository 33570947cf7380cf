package ctl

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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
