package ctl

import (
	"strings"
	"testing"
)

// TestDiff: what a container has changed is told of one that runs and one that has ended, as docker does.
func TestDiff(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	vol := m.dir + "/vol"
	m.must("create", "--name", "web", "--tls-verify=false", "--network", "none", "-v", vol+":/mnt/deep", m.image(), "sleep")
	if out := m.must("diff", "web"); out != "" {
		t.Errorf("before its first start: %q", out)
	}
	m.must("start", "web")
	m.must("exec", "web", "/probe", "write", "/data/new", "x")
	m.must("exec", "web", "/probe", "write", "/etc/passwd", "root:x:0:0:::\n")
	m.must("exec", "web", "/probe", "write", "/mnt/deep/f", "x")
	want := "C /data\nA /data/new\nC /etc\nC /etc/passwd\n"
	got := strings.Replace(strings.Replace(m.must("diff", "web"), "A /mnt\n", "", 1), "A /mnt/deep\n", "", 1)
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	m.must("stop", "web")
	if again := strings.Replace(strings.Replace(m.must("container", "diff", "web"), "A /mnt\n", "", 1), "A /mnt/deep\n", "", 1); again != want {
		t.Errorf("stopped: %q, want %q", again, want)
	}
	if out := m.must("diff", "--json", "web"); !strings.Contains(out, `"kind": "A",`) || !strings.Contains(out, `"path": "/data/new"`) {
		t.Errorf("JSON: %s", out)
	}
	m.must("rm", "web")
	m.must("run", "-d", "--name", "other", "--userns", "auto", "--network", "none", m.image(), "sleep")
	m.must("exec", "other", "/probe", "write", "/data/new", "x")
	if out := m.must("diff", "other"); out != "C /data\nA /data/new\n" {
		t.Errorf("of a container with numbers of its own: %q", out)
	}
}
