package ctl

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// spaces is what a process sees of its namespaces.
type spaces struct {
	Links        map[string]string // pid: "pid:[4026531836]"
	Host, Domain string
	OOM, Memory  string
	First        string // of process 1
}

func look() (s spaces) {
	s.Links = map[string]string{}
	for _, n := range []string{"pid", "ipc", "uts", "cgroup", "net"} {
		s.Links[n], _ = os.Readlink("/proc/self/ns/" + n)
	}
	read := func(name string) string {
		b, _ := os.ReadFile(name)
		return strings.TrimSpace(string(b))
	}
	s.Host, s.Domain, s.OOM = read("/proc/sys/kernel/hostname"), read("/proc/sys/kernel/domainname"), read("/proc/self/oom_score_adj")
	if err := os.WriteFile("/dev/shm/probe", nil, 0o600); err != nil {
		s.Memory = err.Error()
	}
	os.Remove("/dev/shm/probe")
	s.First = read("/proc/1/cmdline")
	return s
}

func probeNamespaces() { json.NewEncoder(os.Stdout).Encode(look()) }

// TestNamespaces: what is to be shared is, and nothing else.
func TestNamespaces(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	here := look()
	seen := func(args ...string) (s spaces) {
		t.Helper()
		out := m.must(append(append([]string{"run", "--rm", "--tls-verify=false", "--network", "none"}, args...), m.image(), "namespaces")...)
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		return s
	}
	same := func(s spaces) (out []string) {
		for _, n := range []string{"pid", "ipc", "uts", "cgroup", "net"} {
			if s.Links[n] == here.Links[n] {
				out = append(out, n)
			}
		}
		return out
	}
	for _, c := range []struct{ flags, want string }{
		{"", ""}, {"--pid host", "pid"}, {"--ipc host", "ipc"}, {"--uts host", "uts"}, {"--cgroupns host", "cgroup"}, {"--ipc none --pid private", ""},
	} {
		if got := strings.Join(same(seen(strings.Fields(c.flags)...)), " "); got != c.want {
			t.Errorf("%q: shares %q with the machine, want %q", c.flags, got, c.want)
		}
	}
	if s := seen("--uts", "host", "--oom-score-adj", "123"); s.Host != here.Host || s.OOM != "123" {
		t.Errorf("--uts host: %+v", s)
	}
	if s := seen("--hostname", "h", "--domainname", "d"); s.Host != "h" || s.Domain != "d" || s.Memory != "" {
		t.Errorf("names: %+v", s)
	}
	if s := seen("--ipc", "none"); !strings.Contains(s.Memory, "read-only") {
		t.Errorf("--ipc none: writing to /dev/shm: %q", s.Memory)
	}
	if s := seen("--ipc", "host"); s.Memory != "" {
		t.Errorf("--ipc host: writing to /dev/shm: %q", s.Memory)
	}
	m.mustFail("would change the host", "run", "--rm", "--network", "none", "--sysctl", "kernel.panic=1", m.image(), "namespaces")
	m.mustFail("needs a namespace of type ipc", "run", "--rm", "--network", "none", "--ipc", "host", "--sysctl", "kernel.msgmax=7000", m.image(), "namespaces")
	m.mustFail("needs a namespace of type network", "run", "--rm", "--network", "host", "--sysctl", "net.ipv4.ip_forward=1", m.image(), "namespaces")

	m.must("run", "-d", "--name", "first", "--network", "none", m.image(), "sleep")
	link, err := os.Readlink(filepath.Join("/proc", strings.TrimSpace(m.must("inspect", "--format", "{{.pid}}", "first")), "ns/pid"))
	if s := seen("--pid", "container:first"); err != nil || s.Links["pid"] != link || !strings.HasPrefix(s.First, "/probe\x00sleep") {
		t.Errorf("--pid container:first: %+v, want %s, %v", s, link, err)
	}
	if got := m.inspect("first").Status; got != "running" {
		t.Errorf("the other one is %s afterwards", got)
	}
	m.must("rm", "-f", "first")
	m.mustFail("whose processes it shares, does not run", "run", "--rm", "--network", "none", "--pid", "container:first", m.image(), "namespaces")
}
