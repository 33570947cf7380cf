package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// open makes the box's files reachable for users of other namespaces.
func (b *box) open(uid, gid int) {
	os.Chown(filepath.Join(b.dir, "rootfs"), uid, gid)
	for d := b.dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
}

// pid is the first process of a running box.
func (b *box) pid() int {
	b.t.Helper()
	out, errs, _ := b.runtime("state", "box")
	var s specs.State
	if err := json.Unmarshal([]byte(out), &s); err != nil || s.Pid == 0 {
		b.t.Fatalf("%v %s%s", err, out, errs)
	}
	return s.Pid
}

// namespace replaces or adds one.
func (b *box) namespace(t specs.LinuxNamespaceType, path string) {
	for i, n := range b.spec.Linux.Namespaces {
		if n.Type == t {
			b.spec.Linux.Namespaces[i].Path = path
			return
		}
	}
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: t, Path: path})
}

// TestJoin: a container joins the user, time, network and ipc namespaces of another one, and processes join it.
func TestJoin(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		first := newBox(t)
		first.open(100000, 200000)
		l := first.spec.Linux
		first.namespace(specs.UserNamespace, "")
		first.namespace(specs.TimeNamespace, "")
		l.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1e7}}
		l.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 1000}}
		l.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 1000}}
		first.do("sleep")
		first.write()
		if _, errs, code := first.runtime("run", "-d", "box"); code != 0 {
			t.Fatalf("%d %s", code, errs)
		}
		ns := func(name string) string { return fmt.Sprintf("/proc/%d/ns/%s", first.pid(), name) }
		link := func(name string) string {
			to, err := os.Readlink(ns(name))
			if err != nil {
				t.Fatal(err)
			}
			return to + "\n"
		}
		out, errs, code := first.runtime("exec", "box", "/probe", "do", "clock", "cat=/proc/self/uid_map")
		if code != 0 || !strings.Contains(out, "boottime 10") || !strings.Contains(out, "100000") {
			t.Errorf("exec in a time namespace: %d %s%s", code, out, errs)
		}

		second := newBox(t)
		second.open(100000, 200000)
		second.namespace(specs.UserNamespace, ns("user"))
		second.namespace(specs.TimeNamespace, ns("time"))
		second.namespace(specs.NetworkNamespace, ns("net"))
		second.namespace(specs.IPCNamespace, ns("ipc"))
		second.spec.Process.User = specs.User{UID: 5, GID: 6}
		second.do("clock", "id", "readlink=/proc/self/ns/user", "readlink=/proc/self/ns/net", "readlink=/proc/self/ns/time",
			"cat=/proc/self/status", "open=/dev/null", "write=/dev/shm/x", "stat=/dev/shm/x", "cat=/proc/sys/net/ipv4/ip_unprivileged_port_start")
		second.says("boottime 10", "id 5 6", link("user"), link("net"), link("time"), "NSpid:\t1\n", "open /dev/null: <nil>", "/dev/shm/x 100600 5:6", "0\n")
		second.spec.Process.User = specs.User{}
		second.do("sleep")
		second.write()
		if _, errs, code := second.runtime("run", "-d", "box"); code != 0 {
			t.Fatalf("%d %s", code, errs)
		}
		out, errs, code = second.runtime("exec", "-u", "7:8", "box", "/probe", "do", "clock", "id", "readlink=/proc/self/ns/user", "cat=/proc/self/status")
		for _, want := range []string{"boottime 10", "id 7 8", link("user"), "NSpid:\t"} {
			if code != 0 || !strings.Contains(out, want) {
				t.Errorf("exec: %d: want %q in %s%s", code, want, out, errs)
			}
		}

		other := newBox(t)
		other.namespace(specs.UserNamespace, ns("user"))
		other.spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 5, Size: 1000}}
		other.write()
		if _, errs, code := other.runtime("run", "box"); code != 1 || !strings.Contains(errs, "linux.uidMappings: the user namespace to join has other maps") {
			t.Errorf("%d %s", code, errs)
		}
		other.leftNothing()
	})
}

// TestJoinPod: the namespaces that the containers of a pod share. A process in the pid namespace of another container goes with that one.
func TestJoinPod(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		first := newBox(t, "sleep")
		first.write()
		if _, errs, code := first.runtime("run", "-d", "box"); code != 0 {
			t.Fatalf("%d %s", code, errs)
		}
		second := newBox(t)
		second.spec.Hostname, second.spec.Linux.Sysctl = "", nil
		var want []string
		for kind, name := range map[specs.LinuxNamespaceType]string{specs.PIDNamespace: "pid", specs.UTSNamespace: "uts", specs.CgroupNamespace: "cgroup", specs.IPCNamespace: "ipc", specs.NetworkNamespace: "net"} {
			path := fmt.Sprintf("/proc/%d/ns/%s", first.pid(), name)
			second.namespace(kind, path)
			to, err := os.Readlink(path)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, to+"\n")
		}
		second.do("readlink=/proc/self/ns/pid", "readlink=/proc/self/ns/uts", "readlink=/proc/self/ns/cgroup", "readlink=/proc/self/ns/ipc", "readlink=/proc/self/ns/net",
			"cat=/proc/sys/kernel/hostname", "readlink=/proc/1/exe")
		second.says(append(want, "boxed\n", "/probe\n")...)
		second.do("sleep")
		second.write()
		if _, errs, code := second.runtime("run", "-d", "box"); code != 0 {
			t.Fatalf("%d %s", code, errs)
		}
		for _, b := range []*box{first, second} {
			if _, errs, code := b.runtime("delete", "-f", "box"); code != 0 {
				t.Errorf("%d %s", code, errs)
			}
		}
	})
}

// TestLabels: a label for a security module that the machine does not have is an error, of exec as well; "unconfined" is none.
func TestLabels(t *testing.T) {
	for _, f := range []string{"/sys/kernel/security/apparmor", "/sys/fs/selinux/enforce"} {
		if _, err := os.Stat(f); err == nil {
			t.Skip("NOT TESTED: this machine has ", f)
		}
	}
	eachWay(t, func(t *testing.T) {
		b := newBox(t, "sleep")
		b.spec.Process.ApparmorProfile = "unconfined"
		b.write()
		if _, errs, code := b.runtime("run", "-d", "box"); code != 0 {
			t.Fatalf("unconfined: %d %s", code, errs)
		}
		apparmor, selinux := "process.apparmorProfile: AppArmor is not enabled", "process.selinuxLabel: SELinux is not enabled"
		for flag, want := range map[string]string{"--apparmor=docker-default": apparmor, "--process-label=system_u:system_r:container_t:s0": selinux} {
			if _, errs, code := b.runtime("exec", flag, "box", "/probe", "exit", "0"); code != 255 || !strings.Contains(errs, want) {
				t.Errorf("exec %s: %d %s", flag, code, errs)
			}
		}
		if _, errs, code := b.runtime("delete", "-f", "box"); code != 0 {
			t.Fatal(errs)
		}
		for want, set := range map[string]func(*specs.Spec){
			apparmor: func(s *specs.Spec) { s.Process.ApparmorProfile = "docker-default" },
			selinux: func(s *specs.Spec) {
				s.Process.ApparmorProfile, s.Process.SelinuxLabel = "", "system_u:system_r:container_t:s0"
			},
			"linux.mountLabel: SELinux is not enabled": func(s *specs.Spec) {
				s.Process.ApparmorProfile, s.Process.SelinuxLabel, s.Linux.MountLabel = "", "", "system_u:object_r:container_file_t:s0"
			},
		} {
			set(b.spec)
			b.write()
			if _, errs, code := b.runtime("run", "box"); code != 1 || !strings.Contains(errs, want) {
				t.Errorf("%d %s, want %s", code, errs, want)
			}
			b.spec.Linux.MountLabel = ""
			b.leftNothing()
		}
	})
}

// TestJoinRefuses: a namespace of another type is an error with its name, and settings of the caller's namespaces are not changed.
func TestJoinRefuses(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		for kind, want := range map[specs.LinuxNamespaceType]string{specs.UserNamespace: "linux.namespaces (user): join /proc/self/ns/uts",
			specs.TimeNamespace: "linux.namespaces (time): join /proc/self/ns/uts", specs.MountNamespace: "linux.namespaces (mount): join /proc/self/ns/uts"} {
			b := newBox(t, "exit", "0")
			b.namespace(kind, "/proc/self/ns/uts")
			b.write()
			if _, errs, code := b.runtime("run", "box"); code != 1 || !strings.Contains(errs, want) {
				t.Errorf("%s: %d %s", kind, code, errs)
			}
			b.leftNothing()
		}
		b := newBox(t, "exit", "0")
		b.namespace(specs.NetworkNamespace, "/proc/self/ns/net")
		b.write()
		if _, errs, code := b.runtime("run", "box"); code != 1 || !strings.Contains(errs, "it would change the host") {
			t.Errorf("%d %s", code, errs)
		}
	})
}

// TestJoinMounts: the container's root is made in a mount namespace that is there already.
func TestJoinMounts(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		b := newBox(t)
		holder := exec.Command("/bin/sleep", "100")
		holder.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if err := holder.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { holder.Process.Kill(); holder.Wait() }()
		ns := fmt.Sprintf("/proc/%d/ns/mnt", holder.Process.Pid)
		to, err := os.Readlink(ns)
		if err != nil {
			t.Fatal(err)
		}
		b.namespace(specs.MountNamespace, ns)
		b.do("readlink=/proc/self/ns/mnt", "stat=/probe", "stat=/dev/null")
		b.says(to+"\n", "/probe 100755", "/dev/null 20666")
	})
}

// TestSharedMounts: without a mount namespace the container's file systems are in the caller's until the container is deleted.
func TestSharedMounts(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		b := newBox(t)
		to, err := os.Readlink("/proc/self/ns/mnt")
		if err != nil {
			t.Fatal(err)
		}
		b.spec.Linux.Namespaces = slices.DeleteFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace })
		b.do("readlink=/proc/self/ns/mnt", "stat=/probe", "stat=/dev/null", "readlink=/proc/1/exe")
		b.says(to+"\n", "/probe 100755", "/dev/null 20666", "/probe\n")
		b.leftNothing()
		b.do("sleep")
		b.write()
		if _, errs, code := b.runtime("run", "-d", "box"); code != 0 {
			t.Fatalf("%d %s", code, errs)
		}
		if out, errs, code := b.runtime("exec", "box", "/probe", "do", "stat=/dev/null"); code != 0 {
			t.Errorf("exec: %d %s%s", code, out, errs)
		}
		if _, errs, code := b.runtime("delete", "-f", "box"); code != 0 {
			t.Errorf("%d %s", code, errs)
		}
	})
}
