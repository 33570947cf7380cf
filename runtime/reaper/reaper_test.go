package reaper

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain: the test binary is also the init.
func TestMain(m *testing.M) {
	if Is(os.Args) {
		os.Exit(Main(os.Args))
	}
	os.Exit(m.Run())
}

// under runs a shell command under the init, as process 1 if this process may make namespaces, and returns the command, its output to be.
func under(t *testing.T, env []string, command ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Args = append([]string{Path, "--"}, command...)
	c.Env = append(os.Environ(), env...)
	out := new(bytes.Buffer)
	c.Stdout, c.Stderr = out, out
	return c, out
}

// asOne makes it process 1, with a /proc of its numbers.
func asOne(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: process 1 needs root")
	}
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
}

func code(err error) int {
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return ended.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

// TestEnds: the init ends as its command does, and says why one cannot begin.
func TestEnds(t *testing.T) {
	// Start finds itself as /dev/init in a container; here it is the test binary.
	for _, c := range []struct {
		command []string
		want    int
		says    string
	}{
		{[]string{"sh", "-c", "exit 7"}, 7, ""},
		{[]string{"/bin/sh", "-c", "kill -9 $$"}, 137, ""},
		{[]string{"true"}, 0, ""},
		{[]string{"no-such-program"}, 127, "init: no-such-program: no such file or directory"},
		{[]string{"/etc/passwd"}, 126, "init: /etc/passwd: permission denied"},
	} {
		cmd, out := under(t, nil, c.command...)
		if got := code(cmd.Run()); got != c.want || !strings.Contains(out.String(), c.says) {
			t.Errorf("%q: exit %d, %q, want %d, %q", c.command, got, out, c.want, c.says)
		}
	}
}

// TestProcessOne: orphans are waited for, and the command is born with the signals, sockets and limits that it would have without.
func TestProcessOne(t *testing.T) {
	for _, s := range []struct{ script, want string }{
		// The orphan of a shell that has gone is the init's, which waits for it: kill finds no zombie.
		{`(sh -c 'sleep 0.1 & echo $! > /dev/fd/3') 3>&1 | { read orphan; sleep 0.4; kill -0 $orphan 2>/dev/null && echo zombie || echo gone; }`, "gone\n"},
		{`echo $LISTEN_PID $$ $LISTEN_FDS | { read a b c; test $a = $b && test $a != 1 && echo same $c; }`, "same 1\n"},
		{`grep -E 'SigIgn|SigBlk' /proc/self/status | tr -d '\t'`, plain(`grep -E 'SigIgn|SigBlk' /proc/self/status | tr -d '\t'`)},
		{`ulimit -Sn`, plain(`ulimit -Sn`)}, // Go raises its own
	} {
		c, out := under(t, []string{"LISTEN_PID=1", "LISTEN_FDS=1"}, "sh", "-c", s.script)
		asOne(t, c)
		if err := c.Run(); err != nil || out.String() != s.want {
			t.Errorf("%s: %v, got %q, want %q", s.script, err, out, s.want)
		}
	}
}

// plain is what a script says without the init. SIGHUP is not ignored, as nohup(1) has it: an init passes that on.
func plain(script string) string {
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP)
	b, err := exec.Command("sh", "-c", script).Output()
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// TestSignals: a signal to process 1 ends a program that knows nothing of it, and reaches one that does.
func TestSignals(t *testing.T) {
	for _, s := range []struct {
		script string
		sig    syscall.Signal
		want   int
	}{
		{`echo up; exec sleep 60`, unix.SIGTERM, 143},
		{`trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done`, unix.SIGUSR1, 9},
	} {
		c, _ := under(t, nil, "sh", "-c", s.script)
		asOne(t, c)
		c.Stdout = nil
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		out.Read(make([]byte, 3)) // it is up
		c.Process.Signal(s.sig)
		late := time.AfterFunc(10*time.Second, func() { c.Process.Kill() })
		if got := code(c.Wait()); got != s.want {
			t.Errorf("%s: exit %d after %v, want %d", s.script, got, s.sig, s.want)
		}
		late.Stop()
	}
}

// TestTerminal: a command may have a terminal that nobody sits at. Its words come out as it ends lines, to the last one; it reads what comes,
// and the end of that does not end it.
func TestTerminal(t *testing.T) {
	start := func(command string) (*exec.Cmd, io.WriteCloser, *bytes.Buffer) {
		c, out := under(t, nil)
		c.Args = []string{Path, "-t", "--", "/bin/sh", "-c", command}
		asOne(t, c)
		in, err := c.StdinPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		return c, in, out
	}
	c, in, out := start(`stty -echo; test -t 0 && test -t 1 && test -t 2 && echo terminal; read word; echo "heard $word"; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; done; exit 5`)
	io.WriteString(in, "polly\n")
	if err := c.Wait(); code(err) != 5 || !strings.Contains(out.String(), "terminal\n") || !strings.Contains(out.String(), "heard polly\nline 1\n") || !strings.HasSuffix(out.String(), "line 3000\n") {
		t.Errorf("%v: %d bytes: %.300q", err, out.Len(), out)
	}
	c, in, out = start(`trap 'echo bye; exit 4' TERM; echo up; read word; echo "read $?"`)
	in.Close()
	time.Sleep(500 * time.Millisecond)
	c.Process.Signal(unix.SIGTERM)
	if err := c.Wait(); code(err) != 4 || out.String() != "up\nbye\n" {
		t.Errorf("%v: %q", err, out)
	}
}
