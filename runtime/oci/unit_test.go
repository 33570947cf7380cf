package oci

import (
	"os"
	"path/filepath"
	"strings"
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
