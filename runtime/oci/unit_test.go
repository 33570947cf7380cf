package oci

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInherit: of the descriptors that systemd passes on, those with our names are ours wherever they stand, and the workload finds the
// others from 3 on, with their names.
func TestInherit(t *testing.T) {
	b := newBox(t)
	b.do("fd=3", "fd=4", "fd=5", "cat=/proc/self/environ")
	b.write()
	var files []*os.File
	for _, name := range []string{"first", "second"} {
		f, err := os.Create(filepath.Join(b.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	ns, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	out, err := os.Create(filepath.Join(b.dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		n := int(out.Fd())
		err = unix.Sendmsg(pair[0], []byte{'k'}, unix.UnixRights(n, n, n), nil, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	stdio := os.NewFile(uintptr(pair[1]), "stdio")
	defer stdio.Close()
	defer unix.Close(pair[0])
	c := b.command("run", "--enter", "containerctl-0", "--stdio", "containerctl-1", "box")
	c.ExtraFiles = []*os.File{ns, files[0], stdio, files[1]}
	c.Env = append(c.Env, "LISTEN_FDS=4", "LISTEN_FDNAMES=containerctl-0:first:containerctl-1:second")
	if said, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"fd 3: <nil>\nfd 4: <nil>\nfd 5: bad", "LISTEN_FDS=2\x00", "LISTEN_FDNAMES=first:second\x00", "LISTEN_PID=1\x00"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("want %q in %q", want, text)
		}
	}
	c = b.command("run", "--enter", "containerctl-0", "box")
	c.ExtraFiles = []*os.File{files[0]}
	c.Env = append(c.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=first")
	if said, err := c.CombinedOutput(); err == nil || !strings.Contains(string(said), "none is called containerctl-0: found first") {
		t.Errorf("a name that is missing: %v: %s", err, said)
	}
	b.leftNothing()
}

// TestSpawnFails: where no process can be made, here since no pid namespace can be made behind one that was entered, oci-runtime says so and notes it, and leaves nothing.
func TestSpawnFails(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		b := newBox(t, "view")
		b.write()
		first := exec.Command("/proc/self/exe")
		first.Env = append(os.Environ(), "OCI_RUNTIME=1")
		first.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
		stdin, err := first.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		first.Args = []string{"/probe", "line"}
		if err := first.Start(); err != nil {
			t.Fatal(err)
		}
		dead, err := os.Open(fmt.Sprintf("/proc/%d/ns/pid", first.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		defer dead.Close()
		first.Process.Kill()
		first.Wait()
		stdin.Close()
		note := filepath.Join(b.dir, "failure")
		for range 2 { // the second one under the same name
			c := b.command("run", "--unit", "--failure-file", note, "--enter", "containerctl-0", "box")
			c.ExtraFiles = []*os.File{dead}
			c.Env = append(c.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=containerctl-0")
			said, err := c.CombinedOutput()
			if c.ProcessState.ExitCode() != 1 || !strings.Contains(string(said), "make child") {
				t.Errorf("%v: %s", err, said)
			}
			if text, err := os.ReadFile(note); err != nil || string(text) != "1" {
				t.Errorf("noted %q, %v", text, err)
			}
			b.leftNothing()
		}
	})
}
