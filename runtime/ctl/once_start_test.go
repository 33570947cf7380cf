package ctl

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/unit"
)

// stalled is a service manager that takes its time with starts.
type stalled struct {
	*units
	came, open chan struct{}
	queued     chan string
}

func stall(e *Env) *stalled {
	s := &stalled{e.Units.(*units), make(chan struct{}), make(chan struct{}), make(chan string, 8)}
	e.Units = s
	return s
}

func (s *stalled) Once(ctx context.Context, name, text string, f unit.Files) (<-chan unit.End, error) {
	close(s.came)
	<-s.open
	return s.units.Once(ctx, name, text, f)
}

func (s *stalled) Start(ctx context.Context, name string) error {
	close(s.came)
	<-s.open
	return s.units.Start(ctx, name)
}

func (s *stalled) Queue(ctx context.Context, verb, name string) error {
	s.queued <- verb + " " + name
	return s.units.Queue(ctx, verb, name)
}

// arrived waits until somebody starts something.
func (s *stalled) arrived(t *testing.T, b *behind) {
	t.Helper()
	select {
	case <-s.came:
	case code := <-b.ended:
		t.Fatalf("ended with %d before it has started anything: %s", code, b.says())
	}
}

// behind is a command line that runs in this process, behind the scenes.
type behind struct {
	t     *testing.T
	ended chan int
	out   string // file
}

func begin(t *testing.T, e *Env, args ...string) *behind {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	e.Out, e.Err = f, f // files, as the foreground passes them on
	b := &behind{t, make(chan int, 1), f.Name()}
	go func() {
		b.ended <- e.Main(context.Background(), args)
		f.Close()
	}()
	return b
}

func (b *behind) says() string {
	text, err := os.ReadFile(b.out)
	if err != nil {
		b.t.Error(err)
	}
	return string(text)
}

// TestRemoveWhileStarting: a container that is prepared and about to start is neither removed nor renamed under its maker's hands, unless
// by force: then it is stopped, and nothing of it is left.
func TestRemoveWhileStarting(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	m.must("pull", "--tls-verify=false", m.image())
	for _, c := range []struct {
		way    []string
		rename string
	}{{[]string{"--rm"}, "lives for one run"}, {[]string{"-d"}, "about to start"}} {
		e := testEnv(m.dir)
		slow := stall(e)
		b := begin(t, e, append(append([]string{"run", "--network", "none", "--name", "x"}, c.way...), m.image(), "sleep")...)
		slow.arrived(t, b)
		m.mustFail("x is about to start", "rm", "x")
		m.mustFail(c.rename, "rename", "x", "y")
		gone := make(chan string, 1)
		go func() {
			out, errs, code := m.ctl("rm", "-f", "x")
			gone <- strings.TrimSpace(out + errs + strings.Repeat("!", code))
		}()
		select {
		case s := <-gone:
			t.Errorf("%q: rm -f does not wait for the start: %s", c.way, s)
		case <-time.After(300 * time.Millisecond):
		}
		close(slow.open)
		if s := <-gone; s != "x" {
			t.Errorf("%q: rm -f says %q", c.way, s)
		}
		if code := <-b.ended; c.way[0] == "--rm" && code == 0 {
			t.Errorf("%q: exit 0: %s", c.way, b.says())
		}
		m.left(t)
	}
}

// TestSignalsBeforeStart: who is asked to end before its container has started ends it as soon as that has; asked twice it does not wait.
func TestSignalsBeforeStart(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	m.must("pull", "--tls-verify=false", m.image())
	ask := func(b *behind, slow *stalled, times int) (code int) {
		slow.arrived(t, b)
		for range times {
			unix.Kill(os.Getpid(), unix.SIGTERM)
			time.Sleep(50 * time.Millisecond) // two at once are one
		}
		if times == 1 {
			close(slow.open)
		}
		select {
		case code = <-b.ended:
		case <-time.After(20 * time.Second):
			t.Errorf("asked %d times to end, it goes on: %s", times, b.says())
			m.must("kill", "x")
		}
		return code
	}
	for _, way := range [][]string{{"--rm"}, {}} {
		e := testEnv(m.dir)
		slow := stall(e)
		args := append(append([]string{"run", "--network", "none", "--name", "x"}, way...), m.image(), "sleep")
		if code := ask(begin(t, e, args...), slow, 1); code != 2 && code != 137 { // what Go makes of TERM as process 1, or of KILL if it had not begun to listen
			t.Errorf("%q: exit %d", args, code)
		}
		m.ctl("rm", "x")
		m.left(t)
	}
	e := testEnv(m.dir)
	slow := stall(e)
	b := begin(t, e, "run", "--rm", "--network", "none", "--name", "x", m.image(), "sleep")
	if code := ask(b, slow, 2); code != 143 || !strings.Contains(b.says(), "interrupted before it has started") {
		t.Errorf("twice: exit %d: %s", code, b.says())
	}
	select { // the start may be one that systemd has not come to yet
	case got := <-slow.queued:
		if got != "stop proa-x.service" {
			t.Errorf("twice: systemd is told to %s", got)
		}
	default:
		t.Error("twice: systemd is not told to leave the start")
	}
	close(slow.open)
	m.left(t)
}

// failing is a service manager in which the first process of each unit ends at once.
type failing struct {
	*units
	end unit.End
}

func (f failing) Once(_ context.Context, name, _ string, _ unit.Files) (<-chan unit.End, error) {
	return nil, &unit.StartError{Unit: name, End: f.end}
}

// TestStartCodes: a unit that does not come up is the workload's fault only if oci-runtime says so; systemd's own codes (systemd.exec(5),
// "Process Exit Codes") are told as our failure. A workload may end with any of these.
func TestStartCodes(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	m.must("pull", "--tls-verify=false", m.image())
	for _, c := range []struct {
		end  unit.End
		code int
		says string
	}{
		{unit.End{Code: unit.Exited, Status: 203, Result: "exit-code"}, 125, "203"},
		{unit.End{Code: unit.Exited, Status: 226, Result: "exit-code"}, 125, "226"},
		{unit.End{Code: unit.Exited, Status: 245, Result: "exit-code"}, 125, "245"},
		{unit.End{Code: unit.Killed, Status: 9, Result: "oom-kill"}, 125, "oom-kill"},
		{unit.End{Code: unit.Dumped, Status: 6, Result: "core-dump"}, 125, "core-dump"},
		{unit.End{Code: unit.Exited, Status: 127, Result: "exit-code"}, 127, ""},
		{unit.End{Code: unit.Exited, Status: 126, Result: "exit-code"}, 126, ""},
		{unit.End{Code: unit.Exited, Status: 1, Result: "exit-code"}, 125, ""},
	} {
		e := testEnv(m.dir)
		e.Units = failing{e.Units.(*units), c.end}
		b := begin(t, e, "run", "--rm", "--network", "none", m.image())
		if code := <-b.ended; code != c.code || !strings.Contains(b.says(), c.says) || c.says == "" && b.says() != "" {
			t.Errorf("%+v: exit %d, want %d, and %q in %q", c.end, code, c.code, c.says, b.says())
		}
		m.left(t)
	}
	for _, code := range []int{203, 245, 126} {
		if _, errs, got := m.ctl("run", "--rm", "--network", "none", m.image(), "exit", strconv.Itoa(code)); got != code {
			t.Errorf("exit %d of the workload is told as %d: %s", code, got, errs)
		}
	}
	m.left(t)
}

// forgetful is a systemd that has forgotten a unit when its end is asked for.
type forgetful struct {
	*units
	e *Env
}

func (f *forgetful) Once(ctx context.Context, name, text string, files unit.Files) (<-chan unit.End, error) {
	ends, err := f.units.Once(ctx, name, text, files)
	if err != nil {
		return nil, err
	}
	silent := make(chan unit.End)
	go func() {
		defer close(silent)
		<-ends
		s, err := f.e.open()
		for deadline := time.Now().Add(20 * time.Second); err == nil && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if x, err := s.Exit("x"); err != nil || x != nil {
				return
			}
		}
	}()
	return silent, nil
}

// TestForgottenUnit: the exit code is told also if systemd has not waited until it is asked.
func TestForgottenUnit(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	m.must("pull", "--tls-verify=false", m.image())
	e := testEnv(m.dir)
	e.Units = &forgetful{e.Units.(*units), testEnv(m.dir)}
	b := begin(t, e, "run", "--rm", "--network", "none", "--name", "x", m.image(), "exit", "7")
	if code := <-b.ended; code != 7 {
		t.Errorf("exit %d: %s", code, b.says())
	}
	m.left(t)
}

// TestWake: a container whose namespaces another one shares is started for that, and let alone if it runs or is about to go.
func TestWake(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	m.must("run", "-d", "--restart", "no", "--tls-verify=false", "--network", "none", "--name", "first", m.image(), "sleep")
	share := func() string {
		t.Helper()
		return m.must("run", "--rm", "--pid", "container:first", "--network", "none", m.image(), "say", "hello")
	}
	pid := m.pid("first")
	share()
	if m.pid("first") != pid {
		t.Error("one that runs was started again")
	}
	m.must("stop", "first")
	if out := share(); !strings.HasPrefix(out, "hello") || m.inspect("first").Status != "running" {
		t.Errorf("said %q, and the first one is %s", out, m.inspect("first").Status)
	}
	m.must("rm", "-f", "first")
	add(t, testEnv(m.dir), &store.Container{Name: "first", Remove: true, Restart: "no", Instance: "1", Created: time.Now()})
	m.mustFail("first", "run", "--rm", "--pid", "container:first", "--network", "none", m.image(), "say", "hello")
}

// TestOnceCommands: what other commands do with a container that somebody has in the foreground, for one run.
func TestOnceCommands(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	m.must("pull", "--tls-verify=false", m.image())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m.file("journalctl", fmt.Sprintf("#!/bin/sh\nexec env CTL_JOURNAL=%s %s \"$@\"\n", m.dir, self), 0o755)
	noteEvents(t, testEnv(m.dir), filepath.Join(m.dir, "events"))
	front := func() *exec.Cmd {
		t.Helper()
		c := exec.Command("/proc/self/exe", "run", "--rm", "--network", "none", "--name", "front", "--label", "a=b", m.image(), "sleep")
		c.Env = append(os.Environ(), "CTL_DIR="+m.dir)
		out, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		readFull(out, make([]byte, len("sleeping")))
		return c
	}
	over := func(c *exec.Cmd, want int) {
		t.Helper()
		if c.Wait(); c.ProcessState.ExitCode() != want {
			t.Errorf("run: exit %d, want %d", c.ProcessState.ExitCode(), want)
		}
		m.left(t)
	}
	c := front()
	eventually(t, func() error { // systemd may hear of it later than its output is here
		if v := m.inspect("front"); v.Status != "running" || v.Pid == 0 {
			return fmt.Errorf("inspect: %+v", v)
		}
		return nil
	})
	if out := m.must("ps", "--filter", "label=a=b", "--format", "{{.Name}} {{.Status}}"); !strings.HasPrefix(out, "front ") {
		t.Errorf("ps: %q", out)
	}
	if out := m.must("exec", "front", "/probe", "say", "inside"); out != "inside front 0 value\n" {
		t.Errorf("exec: %q", out)
	}
	if _, _, code := m.ctl("exec", "front", "/probe", "exit", "9"); code != 9 {
		t.Errorf("exec: exit %d", code)
	}
	if _, errs, code := m.ctl("logs", "front"); code != 0 || !strings.Contains(errs, "its output is with who started it") {
		t.Errorf("logs: exit %d: %s", code, errs)
	}
	m.must("cp", "front:/etc/passwd", filepath.Join(m.dir, "passwd"))
	m.mustFail("front is running", "rm", "front")
	waited := make(chan string, 1)
	go func() {
		out, errs, _ := m.ctl("wait", "front")
		waited <- out + errs
	}()
	time.Sleep(200 * time.Millisecond) // until it waits; later it would find none
	m.must("kill", "-s", "QUIT", "front")
	over(c, 2)
	if out := <-waited; out != "2\n" {
		t.Errorf("wait: %q", out)
	}
	c = front()
	m.must("stop", "-t", "5", "front")
	over(c, 2)
	c = front()
	m.must("rm", "-f", "front")
	over(c, 2)
	c = front()
	m.must("kill", "front")
	over(c, 137)
}
