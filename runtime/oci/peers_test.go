package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/cgroup"
)

// TestMountTargets: what is to be made for mounts is made inside of the root, also where links lead nowhere, and before anything is read-only.
func TestMountTargets(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		b := newBox(t)
		root := filepath.Join(b.dir, "rootfs")
		os.MkdirAll(filepath.Join(root, "etc"), 0o755)
		os.MkdirAll(filepath.Join(root, "closed"), 0o755)
		os.Chmod(filepath.Join(root, "closed"), 0o710)
		outside := filepath.Join(t.TempDir(), "outside")
		for name, to := range map[string]string{"etc/resolv.conf": "../run/resolve/stub.conf", "etc/hosts": outside, "etc/up": "../../../../../../../up/there",
			"tmp/dir": "/made/for/it", "etc/loop": "loop"} {
			if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
		}
		os.WriteFile(filepath.Join(b.dir, "bound/file"), []byte("bound"), 0o644)
		os.WriteFile(filepath.Join(b.dir, "bound/mapped"), nil, 0o644)
		os.Chown(filepath.Join(b.dir, "bound/mapped"), 77, 78)
		bind := func(at string) specs.Mount {
			return specs.Mount{Destination: at, Type: "bind", Source: "bound/file", Options: []string{"bind", "ro", "nodev"}}
		}
		b.spec.Mounts[1].Options = append(b.spec.Mounts[1].Options, "ro") // /dev, with other mounts below
		b.spec.Mounts = append(b.spec.Mounts, bind("/etc/resolv.conf"), bind("/etc/hosts"), bind("/etc/up"), bind("tmp/dir/relative"),
			specs.Mount{Destination: "/closed", Type: "tmpfs"}, specs.Mount{Destination: "/tmp/new", Type: "tmpfs"},
			specs.Mount{Destination: "/tmp/mapped", Type: "bind", Source: "bound/mapped", Options: []string{"bind", "idmap"},
				UIDMappings: []specs.LinuxIDMapping{{ContainerID: 70, HostID: 170, Size: 10}}, GIDMappings: []specs.LinuxIDMapping{{ContainerID: 70, HostID: 270, Size: 10}}})
		b.spec.Linux.MaskedPaths = []string{"/closed", "/closed", "/proc/acpi", "/proc/acpi"}
		b.spec.Process.Cwd = "/tmp/to/be/made"
		b.do("cat=/run/resolve/stub.conf", "cat="+outside, "cat=/up/there", "cat=/made/for/it/relative", "stat=/tmp/new", "stat=/tmp/mapped", "open=/dev/null", "write=/dev/x")
		b.spec.Process.Args = append(b.spec.Process.Args[:2:2], append([]string{"stat=/tmp/to/be/made"}, b.spec.Process.Args[2:]...)...)
		b.write()
		out, errs, code := b.runtime("run", "box")
		for _, want := range []string{"/tmp/to/be/made 40755 0:0", "boundboundboundbound", "/tmp/new 41777 0:0", "/tmp/mapped 100644 177:278", "open /dev/null: <nil>", "open /dev/x: read-only file system"} {
			if code != 1 || !strings.Contains(out, want) {
				t.Errorf("exit %d, want %q in %s%s", code, want, out, errs)
			}
		}
		if _, err := os.Lstat(outside); err == nil {
			t.Error("a link in the image has made a file outside of it")
		}
		b.spec.Linux.MaskedPaths = nil
		b.do("stat=/closed")
		b.says("/closed 40710 0:0")
		b.spec.Mounts = append(b.spec.Mounts, bind("/etc/loop"))
		b.write()
		if _, errs, code := b.runtime("run", "box"); code != 1 || !strings.Contains(errs, "/etc/loop in the container: too many levels of symbolic links") {
			t.Errorf("%d %s", code, errs)
		}
	})
}

// TestDefaultCgroup: without a path, but with rules for devices, the container has a group of its own, in which the rules hold, and which
// can be frozen.
func TestDefaultCgroup(t *testing.T) {
	b := newBox(t)
	id := fmt.Sprintf("proa-test-%d", os.Getpid())
	defer removeGroups("/oci-runtime/" + id)
	b.spec.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
	b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11}}
	b.do("open=/dev/kmsg", "open=/dev/null")
	b.says("open /dev/kmsg: operation not permitted", "open /dev/null: <nil>")
	b.do("sleep")
	b.write()
	for _, args := range [][]string{{"run", "-d", id}, {"pause", id}, {"resume", id}, {"delete", "-f", id}} {
		if _, errs, code := b.runtime(args...); code != 0 {
			t.Errorf("%v: exit %d: %s", args, code, errs)
		}
	}
}

// TestKillShared: without a pid namespace of its own a container's other processes outlive the first one; SIGKILL is for all of them.
func TestKillShared(t *testing.T) {
	for name, first := range map[string]bool{"first process there": false, "first process gone": true} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "sleep")
			parent := fmt.Sprintf("/proa-test-kill-%d", os.Getpid())
			defer removeGroups(parent)
			b.spec.Linux.CgroupsPath = parent + "/box"
			b.spec.Linux.Namespaces = slices.DeleteFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
			b.write()
			for _, args := range [][]string{{"run", "-d", "box"}, {"exec", "-d", "box", "/probe", "sleep"}} {
				if _, errs, code := b.runtime(args...); code != 0 {
					t.Fatalf("%v: %d %s", args, code, errs)
				}
			}
			if first {
				unix.Kill(b.pid(), unix.SIGKILL)
				for range 500 {
					if out, _, _ := b.runtime("state", "box"); strings.Contains(out, "stopped") {
						break
					}
					time.Sleep(2 * time.Millisecond)
				}
			}
			if _, errs, code := b.runtime("kill", "box", "KILL"); code != 0 {
				t.Errorf("kill: %d %s", code, errs)
			}
			left := ""
			for range 500 {
				if left, _, _ = b.runtime("ps", "-f", "json", "box"); left == "[]\n" {
					break
				}
				time.Sleep(2 * time.Millisecond)
			}
			if left != "[]\n" {
				t.Errorf("still there: %s", left)
			}
			if _, errs, code := b.runtime("kill", "box", "KILL"); code != 1 || !strings.Contains(errs, "container not running") {
				t.Errorf("kill of nothing: %d %s", code, errs)
			}
		})
	}
}

// TestProcessors: a caller that is held to one processor does not keep the container from those that it is to have.
func TestProcessors(t *testing.T) {
	b := newBox(t)
	h, err := cgroup.Find()
	var all unix.CPUSet
	if aerr := unix.SchedGetaffinity(0, &all); aerr != nil || err != nil || h.V1["cpuset"] == "" || all[0]&3 != 3 {
		t.Skip("NOT TESTED: needs two processors and the cpuset controller of cgroup v1")
	}
	parent := fmt.Sprintf("/proa-test-cpus-%d", os.Getpid())
	defer removeGroups(parent)
	b.spec.Linux.CgroupsPath = parent + "/box"
	b.do("affinity")
	run := func() string {
		t.Helper()
		b.write()
		runtime.LockOSThread() // for good: a child has its parent thread's mask
		one := unix.CPUSet{1}
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			t.Fatal(err)
		}
		defer unix.SchedSetaffinity(0, &all)
		out, errs, code := b.runtime("run", "box")
		if code != 0 {
			t.Fatalf("%d %s", code, errs)
		}
		return out
	}
	if out := run(); out != "affinity 1\n" {
		t.Errorf("without cpus: %s", out)
	}
	b.spec.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-1"}}
	if out := run(); out != "affinity 3\n" {
		t.Errorf("with cpus: %s", out)
	}
}

// TestStandardOutput: a user can open what is its standard output again, and a caller that was activated hands on its sockets.
func TestStandardOutput(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		b := newBox(t)
		b.spec.Process.User = specs.User{UID: 7, GID: 8}
		b.do("write=/proc/self/fd/2")
		b.write()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		c := b.command("run", "box")
		c.Stderr = w
		out, err := c.Output()
		w.Close()
		said := make([]byte, 100)
		if n, _ := r.Read(said); err != nil || string(said[:n]) != "x" {
			t.Errorf("%v: %s%s", err, out, said[:n])
		}
		file, err := os.Create(filepath.Join(b.dir, "said"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		b.do("stat=/probe")
		b.write()
		c = b.command("run", "box")
		c.Stdout = file
		if err := c.Run(); err != nil {
			t.Error(err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(file.Fd()), &st); err != nil || st.Uid != 0 {
			t.Errorf("the file that the caller writes to is %d's: %v", st.Uid, err)
		}
		b.do("fd=3", "fd=4", "cat=/proc/self/environ")
		b.write()
		for _, env := range []string{"", "LISTEN_FDS=0"} {
			if env != "" {
				b.spec.Process.Env = append(b.spec.Process.Env, env) // the engine has seen to it
				b.write()
			}
			c = b.command("run", "box")
			c.Env = append(c.Env, "LISTEN_FDS=1", "LISTEN_PID=99999", "LISTEN_FDNAMES=web")
			c.ExtraFiles = []*os.File{r, r}
			text, err := c.Output()
			all := string(text)
			if err != nil || !strings.Contains(all, "fd 3: <nil>\nfd 4: bad file descriptor") || strings.Contains(all, "LISTEN_FDS=1\x00LISTEN_PID=1\x00LISTEN_FDNAMES=web\x00") != (env == "") {
				t.Errorf("%v: %q", err, all)
			}
		}
	})
}

// TestHome: who has no HOME has that of the image's list of users, which may be anything.
func TestHome(t *testing.T) {
	b := newBox(t, "view")
	etc := filepath.Join(b.dir, "rootfs/etc")
	if err := os.Mkdir(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	home := func(out string) string {
		var v view
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		got := ""
		for _, e := range v.Env {
			if h, ok := strings.CutPrefix(e, "HOME="); ok {
				got += h
			}
		}
		return got
	}
	passwd := filepath.Join(etc, "passwd")
	secret := filepath.Join(t.TempDir(), "passwd")
	os.WriteFile(secret, []byte("x:x:0:0::/outside:\n"), 0o644)
	for _, c := range []struct {
		env  []string
		make func() error
		want string
	}{
		{nil, func() error { return nil }, "/"},
		{nil, func() error {
			return os.WriteFile(passwd, []byte("broken\nroot:x:0:0:root:/root:/bin/sh\nu:x:7:8::/home/u:"), 0o644)
		}, "/root"},
		{[]string{"HOME=/mine"}, func() error { return nil }, "/mine"},
		{[]string{"HOME="}, func() error { return nil }, "/root"},
		{[]string{"HOME=/mine", "HOME="}, func() error { return nil }, "/root"},
		{[]string{"HOME=", "HOME=/not", "HOME=/mine"}, func() error { return nil }, "/mine"},
		{nil, func() error { os.Remove(passwd); return os.Symlink(secret, passwd) }, "/"},
		{nil, func() error { os.Remove(passwd); return unix.Mkfifo(passwd, 0o644) }, "/"},
	} {
		if err := c.make(); err != nil {
			t.Fatal(err)
		}
		b.spec.Process.Env = append([]string{"PATH=/"}, c.env...)
		b.write()
		out, errs, code := b.runtime("run", "box")
		if got := home(out); code != 0 || got != c.want {
			t.Errorf("%v: HOME=%s, want %s: %s", c.env, got, c.want, errs)
		}
	}
	os.Remove(passwd)
	os.WriteFile(passwd, []byte("u:x:7:8::/home/u:"), 0o644)
	b.spec.Process.Args[1] = "sleep"
	b.write()
	if _, errs, code := b.runtime("run", "-d", "box"); code != 0 {
		t.Fatal(errs)
	}
	if out, errs, _ := b.runtime("exec", "-u", "7:8", "box", "/probe", "view"); home(out) != "/home/u" {
		t.Errorf("exec: %s%s", out, errs)
	}
}
