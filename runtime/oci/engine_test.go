package oci

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/runtime/cgroup"
)

// podman is a store of podman's own, with oci-runtime below it and one image that holds the test binary.
type podman struct {
	t    *testing.T
	args []string
}

// newPodman skips where there is no podman. It runs in a mount namespace where /sys/fs/cgroup is cgroup2 alone, as on a machine.
func newPodman(t *testing.T) *podman {
	t.Helper()
	needRoot(t)
	needStatic(t)
	for _, tool := range []string{"podman", "conmon", "unshare", "tar"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT TESTED: no %s here", tool)
		}
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	runtime := filepath.Join(dir, "oci-runtime")
	if err := os.WriteFile(runtime, []byte("#!/bin/sh\nOCI_RUNTIME=1 exec "+self+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "image")
	b, err := os.ReadFile(self)
	if err == nil {
		err = os.MkdirAll(filepath.Join(root, "tmp"), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "probe"), b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	const isolate = `mount --make-rprivate / && umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"`
	p := &podman{t, []string{"-m", "sh", "-c", isolate, "sh", "podman", "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"),
		"--tmpdir", filepath.Join(dir, "tmp"), "--cgroup-manager=cgroupfs", "--storage-driver=vfs", "--events-backend=file", "--runtime", runtime}}
	tar := filepath.Join(dir, "image.tar")
	if out, err := exec.Command("tar", "-C", root, "-cf", tar, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if out, code := p.do("import", tar, "probe:1"); code != 0 {
		t.Skipf("NOT TESTED: podman does not work here: %s", out)
	}
	t.Cleanup(func() {
		p.do("rm", "-fa")
		if h, err := cgroup.Find(); err == nil && h.Unified != "" {
			mount := h.Unified
			// podman's own, unless somebody else has containers in it.
			os.Remove(filepath.Join(mount, "libpod_parent/conmon"))
			os.Remove(filepath.Join(mount, "libpod_parent"))
		}
	})
	return p
}

func (p *podman) do(args ...string) (string, int) {
	c := exec.Command("unshare", append(append([]string{}, p.args...), args...)...)
	out, _ := c.CombinedOutput()
	return string(out), c.ProcessState.ExitCode()
}

// modest are limits that a host without CAP_SYS_RESOURCE and without controllers can give.
var modest = []string{"--pids-limit=-1", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--network", "none"}

// TestPodman: what people do with podman works when oci-runtime is its runtime.
func TestPodman(t *testing.T) {
	p := newPodman(t)
	run := func(flags ...string) []string { return append(append([]string{"run"}, modest...), flags...) }
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"run", run("--rm", "--user", "5:6", "probe:1", "/probe", "do", "id"), 0, "id 5 6"},
		{"exit code", run("--rm", "probe:1", "/probe", "exit", "7"), 7, ""},
		{"no program", run("--rm", "probe:1", "/nothing"), 127, "not found"},
		{"terminal", run("--rm", "-t", "probe:1", "/probe", "do", "readlink=/proc/self/fd/0", "stat=/dev/console"), 0, "/dev/pts/0"},
		{"user namespace", run("--rm", "--uidmap", "0:100000:5000", "--gidmap", "0:100000:5000", "probe:1", "/probe", "do", "cat=/proc/self/uid_map"), 0, "100000       5000"},
		{"read-only volume", run("--rm", "-v", t.TempDir()+":/data:ro", "probe:1", "/probe", "do", "write=/data/x"), 1, "read-only file system"},
		{"detached", run("-d", "--name", "web", "probe:1", "/probe", "do", "sleep"), 0, ""},
		{"exec", []string{"exec", "web", "/probe", "do", "id"}, 0, "id 0 0"},
		{"exec with terminal", []string{"exec", "-t", "web", "/probe", "do", "readlink=/proc/self/fd/0"}, 0, "/dev/pts/0"},
		{"exec no program", []string{"exec", "web", "/nothing"}, 127, "not found"},
		{"pause", []string{"pause", "web"}, 0, ""},
		{"paused", []string{"ps", "-a", "--format", "{{.Status}}"}, 0, "Paused"},
		{"unpause", []string{"unpause", "web"}, 0, ""},
		{"top", []string{"top", "web"}, 0, "/probe do sleep"},
		{"kill", []string{"kill", "web"}, 0, ""},
		{"wait", []string{"wait", "web"}, 0, "137"},
		{"start again", []string{"start", "web"}, 0, ""},
		{"stop", []string{"stop", "-t", "0", "web"}, 0, ""},
		{"remove", []string{"rm", "web"}, 0, ""},
	} {
		if out, code := p.do(c.args...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit %d, want %d with %q: %s", c.name, code, c.code, c.want, out)
		}
	}
}
