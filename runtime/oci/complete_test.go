package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/cgroup"
)

// do changes what the box runs: the workload is the test binary with a list of things to do, see act.
func (b *box) do(words ...string) { b.spec.Process.Args = append([]string{"/probe", "do"}, words...) }

// act carries out words of a workload and prints what it found.
func act(words []string) int {
	fail := func(err error) int { fmt.Println(err); return 1 }
	for _, w := range words {
		verb, arg, _ := strings.Cut(w, "=")
		switch verb {
		case "cat":
			b, err := os.ReadFile(arg)
			if err != nil {
				return fail(err)
			}
			os.Stdout.Write(b)
		case "readlink":
			s, err := os.Readlink(arg)
			if err != nil {
				return fail(err)
			}
			fmt.Println(s)
		case "write":
			if err := os.WriteFile(arg, []byte("x"), 0o600); err != nil {
				return fail(err)
			}
		case "stat":
			var st unix.Stat_t
			if err := unix.Lstat(arg, &st); err != nil {
				return fail(err)
			}
			fmt.Printf("%s %o %d:%d %d,%d\n", arg, st.Mode, st.Uid, st.Gid, unix.Major(st.Rdev), unix.Minor(st.Rdev))
		case "open":
			fd, err := unix.Open(arg, unix.O_RDONLY|unix.O_NONBLOCK, 0)
			unix.Close(fd)
			fmt.Printf("open %s: %v\n", arg, err)
		case "tty":
			ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
			if err != nil {
				return fail(err)
			}
			fmt.Printf("tty %dx%d\n", ws.Col, ws.Row)
		case "line":
			b := make([]byte, 100)
			n, err := os.Stdin.Read(b)
			if err != nil {
				return fail(err)
			}
			fmt.Printf("line %s", b[:n])
		case "clock":
			var ts unix.Timespec
			if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
				return fail(err)
			}
			fmt.Println("boottime", ts.Sec)
		case "affinity":
			var set unix.CPUSet
			if err := unix.SchedGetaffinity(0, &set); err != nil {
				return fail(err)
			}
			fmt.Printf("affinity %x\n", set[0])
		case "mempolicy":
			var mode int32
			var nodes [16]uint64
			if _, _, e := unix.Syscall6(unix.SYS_GET_MEMPOLICY, uintptr(unsafe.Pointer(&mode)), uintptr(unsafe.Pointer(&nodes[0])), 1024, 0, 0, 0); e != 0 {
				return fail(e)
			}
			fmt.Printf("mempolicy %d %x\n", mode, nodes[0])
		case "net":
			ifs, err := net.Interfaces()
			if err != nil {
				return fail(err)
			}
			for _, i := range ifs {
				addrs, _ := i.Addrs()
				fmt.Println("net", i.Name, i.MTU, i.Flags&net.FlagUp != 0, addrs)
			}
		case "id":
			fmt.Println("id", os.Getuid(), os.Getgid())
		case "nice":
			n, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
			if err != nil {
				return fail(err)
			}
			fmt.Println("nice", 20-n)
		case "fd":
			n, err := strconv.Atoi(arg)
			if err != nil {
				return fail(err)
			}
			_, err = unix.FcntlInt(uintptr(n), unix.F_GETFD, 0)
			fmt.Printf("fd %d: %v\n", n, err)
		case "env":
			if os.Getenv(arg) != "b" {
				return fail(fmt.Errorf("%s=%s", arg, os.Getenv(arg)))
			}
		case "mkdir":
			fmt.Println("mkdir:", unix.Mkdir(arg, 0o755))
		case "save": // standard input to a file: a hook
			b := make([]byte, 1<<16)
			n, _ := os.Stdin.Read(b)
			f, err := os.OpenFile(arg, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
			if err != nil {
				return fail(err)
			}
			f.Write(append(b[:n], '\n'))
		case "exit":
			n, _ := strconv.Atoi(arg)
			return n
		case "sleep":
			time.Sleep(time.Hour)
		default:
			return fail(fmt.Errorf("what is %q?", w))
		}
	}
	return 0
}

// says runs the box and wants each text in what the workload says.
func (b *box) says(want ...string) {
	b.t.Helper()
	b.write()
	out, errs, code := b.runtime("run", "box")
	if code != 0 {
		b.t.Errorf("exit %d: %s%s", code, errs, out)
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			b.t.Errorf("want %q in:\n%s", w, out)
		}
	}
}

// eachWay runs a test by the assembly and by a second process.
func eachWay(t *testing.T, f func(*testing.T)) {
	for _, v := range []string{"", "1"} {
		t.Run("portable="+v, func(t *testing.T) {
			t.Setenv("PROA_OCI_PORTABLE", v)
			f(t)
		})
	}
}

func TestUserNamespace(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		b := newBox(t)
		l := b.spec.Linux
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: "user"})
		l.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 1000}}
		l.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 1000}}
		// Places that the container's root may make mounts in although permissions say no, and one that is not of its namespace.
		for _, d := range []struct {
			path     string
			uid, gid int
			mode     os.FileMode
		}{{"rootfs", 100000, 200000, 0o555}, {"rootfs/shut", 100500, 200500, 0o700}, {"rootfs/others", 0, 0, 0o700}} {
			path := filepath.Join(b.dir, d.path)
			if err := errors.Join(os.MkdirAll(path, 0o755), os.Chown(path, d.uid, d.gid), os.Chmod(path, d.mode)); err != nil {
				t.Fatal(err)
			}
		}
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/shut/in/deep", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=64k"}})
		os.Chmod(b.dir, 0o755)
		for d := b.dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
			os.Chmod(d, 0o755)
		}
		b.spec.Process.User = specs.User{UID: 5, GID: 6}
		b.do("id", "cat=/proc/self/uid_map", "stat=/dev/null", "open=/dev/null", "stat=/dev/shm", "write=/dev/shm/x", "stat=/dev/shm/x", "cat=/proc/sys/net/ipv4/ip_unprivileged_port_start")
		b.says("id 5 6", "0     100000       1000", "open /dev/null: <nil>", "/dev/null 20666", "/dev/shm/x 100600 5:6", "0\n")
		b.spec.Process.User = specs.User{}
		b.do("sleep")
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/others/in", Type: "tmpfs", Source: "tmpfs"})
		b.write()
		if _, errs, code := b.runtime("run", "-d", "box"); code == 0 || !strings.Contains(errs, "make /others/in in the container: permission denied") {
			t.Errorf("a mount in a directory of no owner in the namespace: %d %s", code, errs)
		}
		b.spec.Mounts = b.spec.Mounts[:len(b.spec.Mounts)-1]
		b.write()
		if _, errs, code := b.runtime("run", "-d", "box"); code != 0 {
			t.Fatalf("%d %s", code, errs)
		}
		out, errs, code := b.runtime("exec", "-u", "7:8", "box", "/probe", "do", "id", "cat=/proc/self/gid_map")
		if code != 0 || !strings.Contains(out, "id 7 8") || !strings.Contains(out, "200000") {
			t.Errorf("exec: %d %s%s", code, out, errs)
		}
	})
}

func TestMountKinds(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		b := newBox(t)
		os.MkdirAll(filepath.Join(b.dir, "rootfs/data/sub"), 0o751)
		os.WriteFile(filepath.Join(b.dir, "rootfs/data/sub/file"), []byte("copied"), 0o640)
		os.Symlink("sub/file", filepath.Join(b.dir, "rootfs/data/link"))
		os.WriteFile(filepath.Join(b.dir, "bound/owned"), nil, 0o600)
		one, mode := uint32(77), os.FileMode(0o640)
		b.spec.Mounts = append(b.spec.Mounts,
			specs.Mount{Destination: "/data", Type: "tmpfs", Options: []string{"tmpcopyup", "mode=700"}},
			specs.Mount{Destination: "/tmp/file", Type: "bind", Source: "config.json", Options: []string{"bind", "ro"}},
			specs.Mount{Destination: "/tmp/mapped", Type: "bind", Source: "bound", Options: []string{"rbind", "idmap"},
				UIDMappings: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 4321, Size: 10}}, GIDMappings: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 4322, Size: 10}}},
			specs.Mount{Destination: "/tmp/rro", Type: "bind", Source: "bound", Options: []string{"rbind", "rro", "rslave"}})
		b.spec.Root.Readonly = false
		b.spec.Linux.RootfsPropagation = "shared"
		b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/thing", Type: "c", Major: 1, Minor: 3, FileMode: &mode, UID: &one, GID: &one},
			{Path: "/dev/fifo", Type: "p"}}
		b.do("cat=/data/link", "stat=/data/sub/file", "write=/data/new", "stat=/tmp/mapped/owned", "stat=/dev/thing", "open=/dev/thing", "stat=/dev/fifo",
			"cat=/proc/self/mountinfo", "cat=/tmp/file")
		b.says("copied", "/data/sub/file 100640 0:0", "/tmp/mapped/owned 100600 4321:4322", "/dev/thing 20640 77:77 1,3", "open /dev/thing: <nil>", "/dev/fifo 10666",
			" / rw,relatime shared:", "/tmp/rro ro,", `"ociVersion"`)
		b.do("write=/tmp/rro/x")
		b.write()
		if out, _, code := b.runtime("run", "box"); code != 1 || !strings.Contains(out, "read-only file system") {
			t.Errorf("%d %s", code, out)
		}
	})
}

func TestTimeAndScheduler(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		b := newBox(t)
		b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: "time"})
		b.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1e7}}
		b.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 3}
		b.spec.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE}
		b.spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux}
		b.do("clock", "nice", "cat=/proc/self/sched")
		b.says("boottime 10", "nice 3", "policy                                       :                    3")
	})
}

// TestHooks: all kinds run, in order, where they must, with the state on standard input.
func TestHooks(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		b := newBox(t)
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		log := filepath.Join(b.dir, "log")
		t.Setenv("HOOKED", "b")
		hook := func(words ...string) []specs.Hook {
			return []specs.Hook{{Path: self, Args: append([]string{"/probe", "do"}, words...)}}
		}
		b.spec.Hooks = &specs.Hooks{
			Prestart:      append(hook("save="+log), specs.Hook{Path: self, Args: []string{"/probe", "do", "env=HOOKED"}}),
			CreateRuntime: hook("save=" + log),
			// The mounts are there, below the bundle, where it starts, and what is written there goes into them.
			CreateContainer: []specs.Hook{{Path: self, Args: []string{"/probe", "do", "save=" + log, "write=/proc/sys/kernel/hostname", "stat=rootfs/proc/self", "write=rootfs/dev/hooked"}}},
			// Without an environment of its own a hook has that of where it runs; the workload's has A=b.
			StartContainer: []specs.Hook{{Path: "/probe", Args: []string{"/probe", "do", "save=/tmp/started", "env=A"}},
				{Path: "/probe", Args: []string{"/probe", "do", "env=A"}, Env: []string{"A=b"}}},
			Poststart: hook("save=" + log),
			Poststop:  hook("save=" + log),
		}
		b.spec.Root.Readonly = false
		b.do("cat=/tmp/started", "cat=/dev/hooked")
		b.says(`"status":"created"`, "\nx")
		text, _ := os.ReadFile(log)
		var got []string
		for line := range strings.Lines(string(text)) {
			var s specs.State
			if err := json.Unmarshal([]byte(line), &s); err != nil || s.ID != "box" || s.Bundle != b.dir {
				t.Fatalf("%v: %s", err, line)
			}
			got = append(got, string(s.Status))
		}
		if want := "creating creating creating running stopped"; strings.Join(got, " ") != want {
			t.Errorf("states %v, want %s", got, want)
		}
		for kind, set := range map[string]func(h []specs.Hook){
			"prestart":        func(h []specs.Hook) { b.spec.Hooks = &specs.Hooks{Prestart: h} },
			"createRuntime":   func(h []specs.Hook) { b.spec.Hooks = &specs.Hooks{CreateRuntime: h} },
			"createContainer": func(h []specs.Hook) { b.spec.Hooks = &specs.Hooks{CreateContainer: h} },
			"poststart":       func(h []specs.Hook) { b.spec.Hooks = &specs.Hooks{Poststart: h} },
			"startContainer": func(h []specs.Hook) {
				h[0].Path = "/probe"
				b.spec.Hooks = &specs.Hooks{StartContainer: h}
			},
		} {
			os.Remove(log)
			set(hook("exit=9"))
			b.spec.Hooks.Poststop = hook("save=" + log)
			b.write()
			_, errs, code := b.runtime("run", "box")
			if code != 1 || !strings.Contains(errs, "hooks."+kind+"[0]") || !strings.Contains(errs, "exit code 9") {
				t.Errorf("%s: %d %s", kind, code, errs)
			}
			if text, _ := os.ReadFile(log); !strings.Contains(string(text), `"stopped"`) {
				t.Errorf("%s: poststop did not run: %s", kind, text)
			}
			b.leftNothing()
		}
		second := 1
		b.spec.Hooks = &specs.Hooks{Prestart: []specs.Hook{{Path: self, Args: []string{"/probe", "do", "sleep"}, Timeout: &second}}}
		b.write()
		if _, errs, code := b.runtime("run", "box"); code != 1 || !strings.Contains(errs, "no end after 1 s") {
			t.Errorf("%d %s", code, errs)
		}
	})
}

// TestConsole: the terminal's master comes over the socket, and the workload has the slave and /dev/console.
func TestConsole(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		b := newBox(t)
		b.spec.Process.Terminal = true
		b.spec.Process.ConsoleSize = &specs.Box{Width: 91, Height: 17}
		b.do("tty", "stat=/dev/console", "readlink=/proc/self/fd/0")
		b.write()
		listen, err := net.Listen("unix", filepath.Join(b.dir, "s"))
		if err != nil {
			t.Fatal(err)
		}
		defer listen.Close()
		got := make(chan string, 1)
		go func() { got <- readConsole(listen) }()
		if _, errs, code := b.runtime("run", "-d", "--console-socket", filepath.Join(b.dir, "s"), "box"); code != 0 {
			t.Fatalf("%d %s", code, errs)
		}
		select {
		case text := <-got:
			for _, want := range []string{"tty 91x17", "/dev/console 20", " 136,0", "/dev/pts/0"} {
				if !strings.Contains(text, want) {
					t.Errorf("want %q in %q", want, text)
				}
			}
		case <-time.After(20 * time.Second):
			t.Error("nothing came from the terminal")
		}
	})
}

// TestForegroundTerminal: without a console socket, run and exec in the foreground pass on what the terminal says, and what it is told.
func TestForegroundTerminal(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		b := newBox(t)
		b.spec.Process.Terminal = true
		b.spec.Process.ConsoleSize = &specs.Box{Width: 91, Height: 17}
		b.do("tty", "readlink=/proc/self/fd/1", "line")
		b.write()
		c := b.command("run", "box")
		c.Stdin = strings.NewReader("typed\n")
		out, err := c.Output()
		for _, want := range []string{"tty 91x17\n", "/dev/pts/0\n", "line typed\n"} { // no terminal shows it: no \r
			if err != nil || !strings.Contains(string(out), want) || strings.Contains(string(out), "\r") {
				t.Errorf("%v: want %q in %q", err, want, out)
			}
		}
		b.spec.Process.Terminal = false
		b.spec.Process.ConsoleSize = nil
		b.do("sleep")
		b.write()
		if _, errs, code := b.runtime("run", "-d", "box"); code != 0 {
			t.Fatalf("%d %s", code, errs)
		}
		if out, errs, code := b.runtime("exec", "-t", "box", "/probe", "do", "readlink=/proc/self/fd/1", "exit=5"); code != 5 || !strings.Contains(out, "/dev/pts/0") {
			t.Errorf("exec: %d %s%s", code, out, errs)
		}
	})
}

func readConsole(l net.Listener) string {
	c, err := l.Accept()
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	buf, oob := make([]byte, 100), make([]byte, 100)
	_, n, _, _, err := c.(*net.UnixConn).ReadMsgUnix(buf, oob)
	if err != nil {
		return err.Error()
	}
	m, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return err.Error()
	}
	fds, err := unix.ParseUnixRights(&m[0])
	if err != nil {
		return err.Error()
	}
	master := os.NewFile(uintptr(fds[0]), "master")
	defer master.Close()
	var text []byte
	for {
		n, err := master.Read(buf)
		text = append(text, buf[:n]...)
		if err != nil { // EIO: the last slave is closed
			return string(text)
		}
	}
}

func TestPreserveFDs(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		b := newBox(t)
		b.do("fd=3", "fd=4", "fd=5")
		b.write()
		c := b.command("run", "--preserve-fds", "2", "box")
		for range 3 {
			f, err := os.Open("/dev/null")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			c.ExtraFiles = append(c.ExtraFiles, f)
		}
		out, err := c.Output()
		if err != nil || string(out) != "fd 3: <nil>\nfd 4: <nil>\nfd 5: bad file descriptor\n" {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// TestCgroup: limits, devices, pause, resume, ps, update and kill --all.
func TestCgroup(t *testing.T) {
	b := newBox(t)
	h, err := cgroup.Find()
	if err != nil {
		t.Skip("NOT TESTED: ", err)
	}
	path := fmt.Sprintf("/proa-test-oci-%d/box", os.Getpid())
	defer removeGroups(filepath.Dir(path))
	b.spec.Linux.CgroupsPath = path
	b.spec.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
	b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11}}
	b.do("open=/dev/kmsg", "open=/dev/null", "cat=/proc/self/cgroup")
	b.says("open /dev/kmsg: operation not permitted", "open /dev/null: <nil>", "0::/\n")
	b.do("sleep")
	b.write()
	must := func(args ...string) string {
		t.Helper()
		out, errs, code := b.runtime(args...)
		if code != 0 {
			t.Fatalf("%v: %d %s", args, code, errs)
		}
		return out
	}
	must("run", "-d", "box")
	must("pause", "box")
	if out := must("state", "box"); !strings.Contains(out, `"paused"`) {
		t.Error(out)
	}
	if _, errs, code := b.runtime("exec", "box", "/probe", "exit", "0"); code != 255 || !strings.Contains(errs, "it is paused") {
		t.Errorf("exec in a paused container: exit %d: %s", code, errs)
	}
	waiting := b.command("exec", "--ignore-paused", "box", "/probe", "exit", "6")
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	must("resume", "box")
	if waiting.Wait(); waiting.ProcessState.ExitCode() != 6 {
		t.Errorf("exec --ignore-paused: %s", waiting.ProcessState)
	}
	var pids []int
	if err := json.Unmarshal([]byte(must("ps", "-f", "json", "box")), &pids); err != nil || len(pids) != 1 {
		t.Errorf("%v %v", err, pids)
	}
	must("update", "box")
	if _, errs, code := b.runtime("update", "--memory", "100M", "box"); code != 0 && !strings.Contains(errs, "linux.resources.memory.limit: the controller of memory.max is not available") {
		t.Errorf("%d %s", code, errs)
	}
	must("kill", "--all", "box", "KILL")
	for range 200 {
		if strings.Contains(must("state", "box"), "stopped") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	must("delete", "box")
	b.spec.Linux.Resources.Unified = map[string]string{"nothing.max": "1"}
	b.write()
	if _, errs, code := b.runtime("run", "box"); code != 1 || !strings.Contains(errs, "linux.resources.unified") {
		t.Errorf("%d %s", code, errs)
	}
	if mount := h.Unified; mount != "" {
		if _, err := os.Stat(filepath.Join(mount, path)); err == nil {
			t.Error("a group is left behind")
		}
	}
}

// TestSeccompNotify: the agent gets the listener with the state, and answers for the workload.
func TestSeccompNotify(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		b := newBox(t)
		sock := filepath.Join(b.dir, "agent")
		b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: sock, ListenerMetadata: "meta",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}}}
		b.do("mkdir=/tmp/x")
		listen, err := net.Listen("unix", sock)
		if err != nil {
			t.Fatal(err)
		}
		defer listen.Close()
		state := make(chan string, 1)
		go func() { state <- answer(listen) }()
		b.says("mkdir: value too large for defined data type")
		var s specs.ContainerProcessState
		if text := <-state; json.Unmarshal([]byte(text), &s) != nil || s.Metadata != "meta" || s.State.ID != "box" || s.Pid == 0 {
			t.Error(text)
		}
	})
}

// answer is a seccomp agent that answers one call with EOVERFLOW.
func answer(l net.Listener) string {
	c, err := l.Accept()
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	buf, oob := make([]byte, 1<<16), make([]byte, 100)
	n, on, _, _, err := c.(*net.UnixConn).ReadMsgUnix(buf, oob)
	if err != nil {
		return err.Error()
	}
	m, err := unix.ParseSocketControlMessage(oob[:on])
	if err != nil || len(m) != 1 {
		return fmt.Sprint(err, m)
	}
	fds, err := unix.ParseUnixRights(&m[0])
	if err != nil {
		return err.Error()
	}
	go answerOne(fds[0])
	return string(buf[:n])
}

// TestMemoryPolicyAndAffinity: set_mempolicy(2) for every process, sched_setaffinity(2) for those of exec.
func TestMemoryPolicyAndAffinity(t *testing.T) {
	b := newBox(t)
	b.spec.Linux.Seccomp = nil // docker's list lets nobody ask without CAP_SYS_NICE
	b.spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	b.spec.Process.ExecCPUAffinity = &specs.CPUAffinity{Final: "0"}
	b.do("mempolicy")
	b.says("mempolicy 32770 1\n")
	b.do("sleep")
	b.write()
	if _, errs, code := b.runtime("run", "-d", "box"); code != 0 {
		t.Fatalf("%d %s", code, errs)
	}
	if out, errs, code := b.runtime("exec", "box", "/probe", "do", "mempolicy", "affinity"); code != 0 || out != "mempolicy 32770 1\naffinity 1\n" {
		t.Errorf("exec: %d %s%s", code, out, errs)
	}
	process := *b.spec.Process
	process.Args, process.ExecCPUAffinity = []string{"/probe", "do", "affinity"}, &specs.CPUAffinity{Initial: "0"}
	text, err := json.Marshal(process)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "process.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := b.runtime("exec", "-p", "process.json", "box"); code != 0 || out != "affinity 1\n" {
		t.Errorf("exec: %d %s%s", code, out, errs)
	}
}

// TestNetDevices: a device of the host is the container's, with a new name, its addresses and its MTU, and up.
func TestNetDevices(t *testing.T) {
	b := newBox(t)
	ip := func(args ...string) error {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %v: %w: %s", args, err, out)
		}
		return nil
	}
	a, z := fmt.Sprintf("pa%d", os.Getpid()), fmt.Sprintf("pz%d", os.Getpid())
	if err := ip("link", "add", a, "mtu", "1400", "type", "veth", "peer", "name", z); err != nil {
		t.Skip("NOT TESTED: ", err)
	}
	defer ip("link", "del", z)
	for _, args := range [][]string{{"addr", "add", "192.0.2.7/24", "dev", a}, {"addr", "add", "2001:db8::7/64", "dev", a, "nodad"}, {"link", "set", a, "up"}} {
		if err := ip(args...); err != nil {
			t.Fatal(err)
		}
	}
	b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{a: {Name: "lo"}}
	b.do("net")
	b.write()
	if _, errs, code := b.runtime("run", "box"); code != 1 || !strings.Contains(errs, "linux.netDevices."+a+": the container's network namespace has a device lo already") {
		t.Errorf("%d %s", code, errs)
	}
	b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"nothing0": {}}
	b.write()
	if _, errs, code := b.runtime("run", "box"); code != 1 || !strings.Contains(errs, "linux.netDevices.nothing0: find it on the host: no such device") {
		t.Errorf("%d %s", code, errs)
	}
	b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{a: {Name: "eth%d"}}
	b.says("net eth0 1400 true [192.0.2.7/24 2001:db8::7/64")
}

// TestNarrowFilter: a seccomp list with nothing in it but what the workload itself does is enough, with no_new_privs and without,
// whatever the way to it needs; and the capability that installs it does not reach the workload.
func TestNarrowFilter(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		for _, nnp := range []bool{true, false} {
			for _, uid := range []uint32{0, 1000} {
				b := newBox(t)
				b.spec.Process.NoNewPrivileges, b.spec.Process.User.UID = nnp, uid
				refuse := func(names ...string) specs.LinuxSyscall {
					return specs.LinuxSyscall{Names: names, Action: specs.ActErrno}
				}
				b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
					refuse("openat2", "faccessat2", "close_range", "capset", "setresuid", "setresgid", "setgroups", "prctl", "fchdir", "umask", "setns")}}
				b.do("cat=/proc/self/status", "id")
				capabilities := "CapPrm:\t00000000000004eb"
				if uid != 0 {
					capabilities = "CapPrm:\t0000000000000000"
				}
				b.says("Seccomp:\t2", capabilities, fmt.Sprintf("id %d 0", uid))
			}
		}
	})
}

// removeGroups removes the groups at a path in all hierarchies.
func removeGroups(path string) {
	h, err := cgroup.Find()
	if err != nil {
		return
	}
	if h.Unified != "" {
		cgroup.Group{Dir: filepath.Join(h.Unified, path)}.Remove()
	}
	for c, top := range h.V1 {
		cgroup.Group{V1: map[string]string{c: filepath.Join(top, path)}}.Remove()
	}
}

// TestCgroupV1: limits, devices, freezing and moving by the files of version 1, with a group in each of its hierarchies.
func TestCgroupV1(t *testing.T) {
	h, err := cgroup.Find()
	if err != nil || h.V1["memory"] == "" || h.V1["pids"] == "" || h.V1["devices"] == "" || h.V1["cpuset"] == "" {
		t.Skip("NOT TESTED: no host of cgroup v1")
	}
	b := newBox(t)
	parent := fmt.Sprintf("/proa-test-v1-%d", os.Getpid())
	defer removeGroups(parent)
	b.spec.Linux.CgroupsPath = parent + "/box"
	memory, swap, pids, shares, quota, period := int64(64<<20), int64(128<<20), int64(50), uint64(512), int64(50000), uint64(100000)
	b.spec.Linux.Resources = &specs.LinuxResources{
		Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
		Memory:  &specs.LinuxMemory{Limit: &memory, Swap: &swap},
		Pids:    &specs.LinuxPids{Limit: &pids},
		CPU:     &specs.LinuxCPU{Shares: &shares, Quota: &quota, Period: &period, Cpus: "0"},
	}
	b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11}}
	b.spec.Mounts[6].Type = "cgroup"
	memoryDir := "/sys/fs/cgroup/" + filepath.Base(h.V1["memory"])
	b.do("open=/dev/kmsg", "open=/dev/null", "cat=/proc/self/cgroup", "cat="+memoryDir+"/memory.limit_in_bytes", "cat=/sys/fs/cgroup/pids/pids.max", "cat=/sys/fs/cgroup/cpu/cpu.shares")
	b.says("open /dev/kmsg: operation not permitted", "open /dev/null: <nil>", "memory:/\n", "pids:/\n", "67108864\n50\n512\n")
	for file, want := range map[string]string{"/sys/fs/cgroup/x": "read-only", memoryDir + "/memory.limit_in_bytes": "read-only"} {
		b.do("write=" + file)
		b.write()
		if out, _, code := b.runtime("run", "box"); code != 1 || !strings.Contains(out, want) {
			t.Errorf("write %s: %d %s", file, code, out)
		}
	}
	b.do("sleep")
	b.write()
	must := func(args ...string) string {
		t.Helper()
		out, errs, code := b.runtime(args...)
		if code != 0 {
			t.Fatalf("%v: %d %s", args, code, errs)
		}
		return out
	}
	must("run", "-d", "box")
	has := func(file, want string) {
		t.Helper()
		controller, _, _ := strings.Cut(file, ".")
		got, err := os.ReadFile(filepath.Join(h.V1[controller], parent, "box", file))
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s: %q %v, want %s", file, got, err, want)
		}
	}
	has("memory.limit_in_bytes", "67108864")
	has("memory.memsw.limit_in_bytes", "134217728")
	has("pids.max", "50")
	has("cpu.shares", "512")
	has("cpu.cfs_quota_us", "50000")
	has("cpuset.cpus", "0")
	must("exec", "-d", "box", "/probe", "sleep")
	var list []int
	if err := json.Unmarshal([]byte(must("ps", "-f", "json", "box")), &list); err != nil || len(list) != 2 {
		t.Errorf("%v %v", err, list)
	}
	procs, _ := os.ReadFile(filepath.Join(h.V1["memory"], parent, "box/cgroup.procs"))
	if n := len(strings.Fields(string(procs))); n != 2 {
		t.Errorf("%d processes in the group of the memory controller", n)
	}
	must("update", "--cpu-idle", "1", "--cpu-burst", "1000", "box")
	has("cpu.idle", "1")
	has("cpu.cfs_burst_us", "1000")
	must("update", "--memory", "200m", "--memory-swap", "262144000", "--pids-limit", "-1", "box") // above the old limit of both
	has("memory.limit_in_bytes", "209715200")
	has("memory.memsw.limit_in_bytes", "262144000")
	has("pids.max", "max")
	must("update", "--memory", "-1", "box")
	has("memory.memsw.limit_in_bytes", "9223372036854771712")
	must("update", "--memory", "200m", "--memory-swap", "250m", "box")
	check := filepath.Join(b.dir, "resources.json")
	if err := os.WriteFile(check, []byte(`{"memory":{"limit":4096,"checkBeforeUpdate":true}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := b.runtime("update", "-r", check, "box"); code != 1 || !strings.Contains(errs, "bytes in use") {
		t.Errorf("%d %s", code, errs)
	}
	must("pause", "box")
	if out := must("state", "box"); !strings.Contains(out, `"paused"`) {
		t.Error(out)
	}
	// Version 1 has a freezer of its own, which holds also who is killed.
	if err := os.WriteFile(filepath.Join(h.V1["freezer"], parent, "box/freezer.state"), []byte("FROZEN"), 0); err != nil {
		t.Error(err)
	}
	must("delete", "-f", "box")
	for c, top := range h.V1 {
		if _, err := os.Stat(filepath.Join(top, parent, "box")); err == nil {
			t.Errorf("a group of %s is left behind", c)
		}
	}
}
