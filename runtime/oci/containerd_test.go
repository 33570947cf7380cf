package oci

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// containerdGroup is the namespace of containers, and the cgroup of all of them and of the daemon: with it goes whatever a failed test leaves.
const containerdGroup = "proa-judge"

// newContainerd starts a daemon and returns the arguments by which ctr finds it.
func newContainerd(t *testing.T, e *engines) []string {
	t.Helper()
	address, config := filepath.Join(e.dir, "socket"), filepath.Join(e.dir, "config.toml")
	// The plugins that are not wanted take most of the daemon's start.
	err := os.WriteFile(config, fmt.Appendf(nil, "version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.btrfs\", "+
		"\"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.zfs\"]\n[grpc]\naddress = %q\n[ttrpc]\naddress = \"%s.ttrpc\"\n",
		filepath.Join(e.dir, "containerd"), filepath.Join(e.dir, "state"), address, address), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	var group *os.File
	err = e.Do(func() (err error) {
		dir := filepath.Join("/sys/fs/cgroup", containerdGroup, "daemon")
		if err = os.MkdirAll(dir, 0o755); err == nil {
			group, err = os.Open(dir)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	daemon := e.Command(context.Background(), "containerd", "--config", config, "--log-level", "warn")
	daemon.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	log, err := os.Create(filepath.Join(e.dir, "containerd.log"))
	if err == nil {
		daemon.Stdout, daemon.Stderr = log, log
		err = e.Start(daemon)
	}
	group.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.Do(func() error {
			return os.WriteFile(filepath.Join("/sys/fs/cgroup", containerdGroup, "cgroup.kill"), []byte("1"), 0)
		})
		daemon.Wait()
		log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("containerd says:\n%s", text)
		}
		// The mounts of snapshots that are left go with the room; groups with their last process.
		e.removeGroups(containerdGroup)
	})
	ctr := []string{"--address", address, "--namespace", containerdGroup}
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if _, code := e.do("ctr", append(ctr, "version")...); code == 0 {
			return ctr
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatal("containerd does not answer")
		}
	}
}

// removeGroups removes a cgroup and those below it, when their processes are gone.
func (e *engines) removeGroups(name string) {
	e.t.Helper()
	top := filepath.Join("/sys/fs/cgroup", name)
	e.Do(func() (err error) {
		for range 100 {
			filepath.WalkDir(top, func(p string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					os.Remove(p) // from the top: only the last round finds it empty
				}
				return nil
			})
			if _, err = os.Stat(top); err != nil {
				return nil
			}
			time.Sleep(10 * time.Millisecond)
		}
		e.t.Errorf("%s stays", top)
		return nil
	})
}

// TestContainerd: containerd's shim (io.containerd.runc.v2) makes, enters, holds, signals and removes containers by oci-runtime, from
// an image that containerd has unpacked.
func TestContainerd(t *testing.T) {
	e := newEngines(t)
	ctr := newContainerd(t, e)
	run := func(flags ...string) []string {
		return append([]string{"run", "--runtime", "io.containerd.runc.v2", "--runc-binary", e.runtime}, flags...)
	}
	const image = "localhost/probe:1"
	e.tell("ctr", ctr, []step{
		{"import", []string{"images", "import", e.image}, 0, ""},
		{"run", run("--rm", "--user", "5:6", image, "a", "/probe", "do", "id"), 0, "id 5 6"},
		{"exit code", run("--rm", image, "a", "/probe", "exit", "7"), 7, ""},
		{"no program", run("--rm", image, "a", "/nothing"), 1, "stat /nothing: no such file"},
		{"read-only", run("--rm", "--read-only", "--seccomp", "--hostname", "judged", image, "a", "/probe", "do", "write=/tmp/x"), 1, "read-only file system"},
		{"detached", run("-d", "--null-io", image, "web", "/probe", "do", "sleep"), 0, ""},
		{"list", []string{"tasks", "ls"}, 0, "RUNNING"},
		{"exec", []string{"tasks", "exec", "--exec-id", "x", "web", "/probe", "do", "id"}, 0, "id 0 0"},
		{"exec's code", []string{"tasks", "exec", "--exec-id", "x", "web", "/probe", "exit", "3"}, 3, ""},
		{"exec no program", []string{"tasks", "exec", "--exec-id", "x", "web", "/nothing"}, 1, "stat /nothing: no such file"},
		{"processes", []string{"tasks", "ps", "web"}, 0, "PID"},
		{"pause", []string{"tasks", "pause", "web"}, 0, ""},
		{"paused", []string{"tasks", "ls"}, 0, "PAUSED"},
		{"resume", []string{"tasks", "resume", "web"}, 0, ""},
		{"resumed", []string{"tasks", "ls"}, 0, "RUNNING"},
		{"metrics", []string{"tasks", "metrics", "web"}, 0, "web"},
		{"kill", []string{"tasks", "kill", "--signal", "SIGKILL", "web"}, 0, ""},
		{"delete", []string{"tasks", "rm", "web"}, 0, "exit code 137"},
		{"remove", []string{"containers", "rm", "web"}, 0, ""},
	})
	if out, code := e.do("ctr", append(ctr, "tasks", "ls", "-q")...); code != 0 || strings.TrimSpace(out) != "" {
		t.Errorf("tasks stay: %d %s", code, out)
	}
}
