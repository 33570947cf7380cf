package script

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary walks a script from standard input when it is told to; "busy" is with a collector that stops all threads again and again.
func TestMain(m *testing.M) {
	if how := os.Getenv("WALK_SCRIPT"); how != "" {
		if how == "busy" {
			go func() {
				for {
					runtime.GC()
				}
			}()
		}
		p, err := Load(os.Stdin)
		if err == nil {
			err = p.Run()
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// walk runs the script that write makes in each way this build has; out is the descriptor of a file. It
// returns what was written to it, and the exit code if that is neither 0 nor 1.
func walk(t *testing.T, write func(b *Builder, out int)) map[string]string {
	t.Helper()
	got := make(map[string]string)
	for _, way := range []string{"direct", "portable"} {
		file, code := filepath.Join(t.TempDir(), "out"), 0
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		b := new(Builder)
		if way == "portable" {
			write(b, 1)
			var buf bytes.Buffer
			if _, err := b.Finish(1).WriteTo(&buf); err != nil {
				t.Fatal(err)
			}
			c := exec.Command("/proc/self/exe")
			c.Stdin, c.Stdout, c.Stderr, c.Env = &buf, f, os.Stderr, []string{"WALK_SCRIPT=1"}
			c.Run()
			if code = c.ProcessState.ExitCode(); code == 3 {
				t.Fatal("not walked")
			}
		} else {
			if !Direct {
				continue
			}
			runtime.LockOSThread()
			write(b, int(f.Fd()))
			pid, pidfd, err := b.Finish(int(f.Fd())).Start(0, -1)
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(pidfd)
			p, err := os.FindProcess(pid)
			if err != nil {
				t.Fatal(err)
			}
			st, err := p.Wait()
			if err != nil {
				t.Fatal(err)
			}
			code = st.ExitCode()
			runtime.UnlockOSThread()
		}
		f.Close()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got[way] = string(text)
		if code > 1 {
			got[way] += fmt.Sprintf(" exit %d", code)
		}
	}
	return got
}

func say(b *Builder, out int, s string) *Call { return b.Call("say", unix.SYS_WRITE, out, s, len(s)) }

func exit(b *Builder) { b.Call("exit", unix.SYS_EXIT_GROUP, 0) }

func report(e unix.Errno, label string) string {
	r := binary.NativeEndian.AppendUint32(nil, KindError)
	return string(binary.NativeEndian.AppendUint32(r, uint32(e))) + label
}

func TestScript(t *testing.T) {
	for name, c := range map[string]struct {
		write func(b *Builder, out int)
		want  string
	}{
		"straight": {func(b *Builder, out int) { say(b, out, "a"); say(b, out, "b"); exit(b) }, "ab"},
		"error":    {func(b *Builder, out int) { b.Call("no such call", unix.SYS_OPENAT, -1, "x", 0); exit(b) }, report(unix.EBADF, "no such call")},
		"ignored": {func(b *Builder, out int) {
			b.Call("", unix.SYS_CLOSE, -1).Ignore()
			b.Call("", unix.SYS_CLOSE, -1).IgnoreOnly(unix.EBADF)
			say(b, out, "on")
			b.Call("other", unix.SYS_CLOSE, -1).IgnoreOnly(unix.EIO)
		}, "on" + report(unix.EBADF, "other")},
		"result": {func(b *Builder, out int) {
			fd := b.Call("open", unix.SYS_FCNTL, out, unix.F_DUPFD, 100)
			b.Call("say", unix.SYS_WRITE, fd, "dup", 3)
			at := b.Words(0)
			b.Store(fd, at, 1)
			b.Call("say", unix.SYS_WRITE, fd, at, 8)
			exit(b)
		}, "dup\x00\x64\x00\x00\x00\x00\x00\x00"},
		"jumps": {func(b *Builder, out int) {
			end, skip := b.Later(), b.Later()
			say(b, out, "1").Then(skip)
			say(b, out, "2")
			b.Append(skip, "", unix.SYS_CLOSE, -1).OnErrorOnly(end, unix.EBADF)
			say(b, out, "3")
			b.Append(end, "exit", unix.SYS_EXIT_GROUP, 0)
		}, "1"},
		"ignored before a jump": {func(b *Builder, out int) {
			end := b.Later()
			b.Call("", unix.SYS_CLOSE, -1).Then(end).Ignore()
			say(b, out, "behind")
			b.Append(end, "exit", unix.SYS_EXIT_GROUP, 0)
		}, "behind"},
		"chosen": {func(b *Builder, out int) {
			last := b.Later()
			b.Choose(b.String("wrong"), last, 1)
			b.Choose(b.String("right"), last, 1)
			b.Append(last, "say", unix.SYS_WRITE, out, "never", 5)
			exit(b)
		}, "right"},
		"no result": {func(b *Builder, out int) {
			fd := b.Call("", unix.SYS_CLOSE, -1).Ignore()
			b.Call("used", unix.SYS_WRITE, fd, "x", 1)
		}, report(unix.EBADF, "used")},
		"zero": {func(b *Builder, out int) {
			b.Call("z", unix.SYS_UMASK, 0).Ignore()
			b.Call("zero", unix.SYS_UMASK, 0).ZeroFails()
		}, report(unix.EPIPE, "zero")},
		"fails": {func(b *Builder, out int) { b.Fail("said so", unix.EISDIR) }, report(unix.EISDIR, "said so")},
		"not there": {func(b *Builder, out int) {
			b.Call("x", unix.SYS_EXECVE, "/not/there", 0, 0).Command()
		}, report(unix.ENOENT, "x") + " exit 127"},
		"no program": {func(b *Builder, out int) { b.Call("x", unix.SYS_EXECVE, "/", 0, 0).Command() }, report(unix.EACCES, "x") + " exit 126"},
		"execute": {func(b *Builder, out int) {
			b.Call("dup", unix.SYS_DUP3, out, 9, 0)
			b.Call("execute", unix.SYS_EXECVE, "/bin/sh", b.Vector([]string{"sh", "-c", "echo $0 $X >&9", "a b"}), b.Vector([]string{"X=y"}))
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for way, got := range walk(t, c.write) {
				want := c.want
				if name == "execute" {
					want = "sh y\n"
					got = strings.ReplaceAll(got, "a b", "sh")
				}
				if got != want {
					t.Errorf("%s: %q, want %q", way, got, want)
				}
			}
		})
	}
}

// TestDirectKeepsSignals: a child starts with nothing blocked by Start's own doing, and this thread's mask is as before.
func TestDirectKeepsSignals(t *testing.T) {
	if !Direct {
		t.Skip("no assembly in this build")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	mask := func() (s unix.Sigset_t) {
		if err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := mask()
	b := new(Builder)
	exit(b)
	pid, pidfd, err := b.Finish(2).Start(0, -1)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(pidfd)
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(); err != nil || !st.Success() {
		t.Errorf("%v %v", st, err)
	}
	if after := mask(); after != before {
		t.Errorf("signal mask %v, before %v", after, before)
	}
}

// TestForkOfManyThreads forks where Go's collector may have asked all threads to stop a moment before: the copy has nobody who would let it
// go on again.
func TestForkOfManyThreads(t *testing.T) {
	b := new(Builder)
	for range 300 {
		child := b.Later()
		b.Call("fork", unix.SYS_CLONE3, b.Words(0, 0, 0, 0, uint64(unix.SIGCHLD), 0, 0, 0), 64).ZeroFails().OnErrorOnly(child, unix.EPIPE)
		wait := b.Call("wait", unix.SYS_WAIT4, -1, 0, 0, 0)
		behind := b.Later()
		wait.Then(behind)
		b.Append(child, "no copy of this", unix.SYS_GETPID)
		b.Call("a failure of the copy", unix.SYS_CLOSE, -1) // ends it
		b.Append(behind, "", NoCall, 0)
	}
	exit(b)
	var orders bytes.Buffer
	if _, err := b.Finish(1).WriteTo(&orders); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "/proc/self/exe")
	c.Env, c.Stdin = []string{"WALK_SCRIPT=busy"}, &orders
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) } // the copies as well
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v, %v, behind %d bytes of reports", err, ctx.Err(), len(out))
	}
	if want := strings.Repeat(report(unix.EBADF, "a failure of the copy"), 300); string(out) != want {
		t.Errorf("got %d bytes of reports, want %d", len(out), len(want))
	}
}

func TestLoadRefuses(t *testing.T) {
	var buf bytes.Buffer
	b := new(Builder)
	exit(b)
	if _, err := b.Finish(2).WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	whole := buf.Bytes()
	for _, n := range []int{0, 5, 12, len(whole) - 1} {
		if _, err := Load(bytes.NewReader(whole[:n])); err == nil {
			t.Errorf("%d of %d bytes are accepted", n, len(whole))
		}
	}
}
