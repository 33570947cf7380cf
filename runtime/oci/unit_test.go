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

// packed is a socket with a parcel: out as standard input, output and error, and namespaces. Without out there is none, nor will there be.
func packed(t *testing.T, out *os.File, namespaces ...*os.File) *os.File {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	parcel := os.NewFile(uintptr(pair[1]), "parcel")
	t.Cleanup(func() { parcel.Close() })
	if out == nil {
		return parcel
	}
	fds := []int{int(out.Fd()), int(out.Fd()), int(out.Fd())}
	for _, f := range namespaces {
		fds = append(fds, int(f.Fd()))
	}
	if err := unix.Sendmsg(pair[0], []byte{'k'}, unix.UnixRights(fds...), nil, 0); err != nil {
		t.Fatal(err)
	}
	return parcel
}

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
	parcel := packed(t, out, ns)
	c := b.command("run", "--parcel", "containerctl-0", "box")
	c.ExtraFiles = []*os.File{files[0], parcel, files[1]}
	c.Env = append(c.Env, "LISTEN_FDS=3", "LISTEN_FDNAMES=first:containerctl-0:second")
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
	c = b.command("run", "--parcel", "containerctl-0", "box")
	c.ExtraFiles = []*os.File{files[0]}
	c.Env = append(c.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=first")
	if said, err := c.CombinedOutput(); err == nil || !strings.Contains(string(said), "none is called containerctl-0: found first") {
		t.Errorf("a name that is missing: %v: %s", err, said)
	}
	c = b.command("run", "--parcel", "containerctl-0", "box")
	c.ExtraFiles = []*os.File{packed(t, nil)}
	c.Env = append(c.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=containerctl-0")
	if said, err := c.CombinedOutput(); err == nil || !strings.Contains(string(said), "who prepares it has ended before it was done") {
		t.Errorf("no parcel: %v: %s", err, said)
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
			out, err := os.Create(filepath.Join(b.dir, "out"))
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			c := b.command("run", "--unit", "--failure-file", note, "--parcel", "containerctl-0", "box")
			c.ExtraFiles = []*os.File{packed(t, out, dead)}
			c.Env = append(c.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=containerctl-0")
			before, err := c.CombinedOutput()
			said, _ := os.ReadFile(out.Name())
			if c.ProcessState.ExitCode() != 1 || !strings.Contains(string(said), "make child") {
				t.Errorf("%v: %s%s", err, before, said)
			}
			if text, err := os.ReadFile(note); err != nil || string(text) != "1" {
				t.Errorf("noted %q, %v", text, err)
			}
			b.leftNothing()
		}
	})
}
