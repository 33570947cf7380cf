package ctl

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/store"
)

// probeJournal is journalctl, of the files that the test's service manager writes: a line is an entry, its number the cursor.
func probeJournal(dir string, args []string) int {
	after, last, follow, file, container := 0, false, false, "", ""
	for _, a := range args {
		key, value, _ := strings.Cut(a, "=")
		switch key {
		case "--after-cursor":
			after, _ = strconv.Atoi(value)
		case "--lines":
			last = true
		case "--follow":
			follow = true
		case "PROA_CONTAINER":
			container = value
		case "_SYSTEMD_UNIT":
			file = filepath.Join(dir, value+".log")
		}
	}
	if file == "" {
		b, _ := os.ReadFile(filepath.Join(dir, "events"))
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, `"PROA_CONTAINER":"`+container+`"`) {
				fmt.Print(line)
			}
		}
		return 0
	}
	for n := 0; ; time.Sleep(10 * time.Millisecond) {
		b, _ := os.ReadFile(file)
		lines := strings.SplitAfter(string(b), "\n")
		for ; n < len(lines)-1; n++ {
			if n >= after && (!last || n == len(lines)-2) {
				json.NewEncoder(os.Stdout).Encode(map[string]string{"__CURSOR": strconv.Itoa(n + 1), "MESSAGE": strings.TrimSuffix(lines[n], "\n")})
			}
		}
		if !follow {
			return 0
		}
	}
}

// noteEvents is the journal's side of events.
func noteEvents(t *testing.T, e *Env, file string) {
	t.Helper()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: e.JournalSocket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer f.Close()
		for b := make([]byte, 4096); ; {
			n, err := l.Read(b)
			if err != nil {
				return
			}
			fields := map[string]string{}
			for line := range strings.Lines(string(b[:n])) {
				k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
				fields[k] = v
			}
			if k := fields["PROA_EVENT"]; k == "die" || k == "oom" {
				json.NewEncoder(f).Encode(fields)
			}
		}
	}()
}

// TestAttach: what runs in the background is talked to as docker does: output, input, signals and the end.
func TestAttach(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\nexec env CTL_JOURNAL=%s %s \"$@\"\n", m.dir, self)
	if err := os.WriteFile(filepath.Join(m.dir, "journalctl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	e := testEnv(m.dir)
	noteEvents(t, e, filepath.Join(m.dir, "events"))
	attach := func(args ...string) (*exec.Cmd, io.WriteCloser, *bufio.Reader) {
		c := exec.Command("/proc/self/exe", append([]string{"attach"}, args...)...)
		c.Env = append(os.Environ(), "CTL_DIR="+m.dir)
		in, err1 := c.StdinPipe()
		out, err2 := c.StdoutPipe()
		if err1 != nil || err2 != nil || c.Start() != nil {
			t.Fatal(err1, err2)
		}
		return c, in, bufio.NewReader(out)
	}
	hears := func(in io.Writer, out *bufio.Reader, line string) {
		t.Helper()
		fmt.Fprintln(in, line)
		if got, _ := out.ReadString('\n'); got != "heard "+line+"\n" {
			t.Errorf("got %q, want what was said", got)
		}
	}
	m.must("run", "-d", "-i", "--restart", "no", "--name", "calc", "--tls-verify=false", "--network", "none", m.image(), "echo")
	c, in, out := attach("calc")
	hears(in, out, "one")
	in.Close() // no end for the workload
	c.Process.Signal(unix.SIGHUP)
	if err := c.Wait(); err != nil || m.inspect("calc").Status != "running" {
		t.Errorf("after HUP: %v, the container is %s", err, m.inspect("calc").Status)
	}
	c, in, out = attach("calc")
	hears(in, out, "two") // and not what was said before
	hears(in, out, "6")
	if rest, _ := io.ReadAll(out); len(rest) > 0 {
		t.Errorf("got %q behind the end", rest)
	}
	if c.Wait(); c.ProcessState.ExitCode() != 6 {
		t.Errorf("exit %d, want that of the workload", c.ProcessState.ExitCode())
	}
	m.mustFail("calc does not run", "attach", "calc")
	m.mustFail("no such container", "attach", "clac")
	m.must("rm", "calc")

	m.must("run", "-d", "-i", "--rm", "--name", "still", "--network", "none", m.image(), "echo")
	c, in, out = attach("still")
	hears(in, out, "three") // so it has signals in hand
	c.Process.Signal(unix.SIGTERM)
	if c.Wait(); c.ProcessState.ExitCode() != 2 { // what Go makes of TERM as process 1
		t.Errorf("TERM did not reach the workload: exit %d", c.ProcessState.ExitCode())
	}
	// Who waits for one with --rm may come too late to find its record.
	gone := errors.New("gone")
	x, err := (&call{Env: e}).toldExit(t.Context(), &store.Container{Name: "still"}, time.Now(), gone)
	if err != nil || x.Code != 2 {
		t.Errorf("got %+v, %v, want what the journal tells", x, err)
	}
	in.Close()
	m.must("run", "-d", "-i", "--rm", "--name", "deaf", "--network", "none", m.image(), "echo")
	c, in, out = attach("--sig-proxy=false", "deaf")
	hears(in, out, "four")
	c.Process.Signal(unix.SIGINT)
	if c.Wait(); c.ProcessState.ExitCode() != 0 || m.inspect("deaf").Status != "running" {
		t.Errorf("exit %d, the container is %s", c.ProcessState.ExitCode(), m.inspect("deaf").Status)
	}
	m.must("rm", "-f", "deaf")

	for _, flags := range [][]string{{}, {"--rm"}} {
		c := exec.Command("/proc/self/exe", append(append([]string{"run", "--name", "front", "--network", "none"}, flags...), m.image(), "sleep")...)
		c.Env = append(os.Environ(), "CTL_DIR="+m.dir)
		out, err := c.StdoutPipe()
		if err != nil || c.Start() != nil {
			t.Fatal(err)
		}
		readFull(out, make([]byte, len("sleeping")))
		m.mustFail("runs in the foreground", "attach", "front")
		m.must("rm", "-f", "front")
		c.Wait()
	}
}
