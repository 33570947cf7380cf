package ctl

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/store"
)

// left waits until nothing of containers is left.
func (m *machine) left(t *testing.T) {
	t.Helper()
	var found []string
	os.Remove(filepath.Join(m.dir, "units", "multi-user.target.wants")) // if nothing is in it
	for range 200 {
		found = nil
		for _, d := range []string{"transient", "units", "run", "oci", "store/containers"} {
			es, _ := filepath.Glob(filepath.Join(m.dir, d, "*"))
			found = append(found, es...)
		}
		if found == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("left: %v", found)
}

// TestOnce: containers of one run in the foreground leave nothing, also when whoever waits is killed, and give their name free at once.
func TestOnce(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	m.must("pull", "--tls-verify=false", m.image())
	for range 3 { // one behind the other: the unit of the last one is about to go
		if out := m.must("run", "--rm", "--network", "none", "--name", "again", "-e", "KEY=k", m.image(), "say", "hello"); !strings.Contains(out, "hello again") {
			t.Errorf("output %q", out)
		}
	}
	m.left(t)
	// Of two at once with one name one is refused, and the other one does not notice.
	var both sync.WaitGroup
	outs := make([]string, 2)
	for i := range outs {
		both.Go(func() {
			c := exec.Command("/proc/self/exe", "run", "--rm", "--network", "none", "--name", "twin", m.image(), "say", "hello")
			c.Env = append(os.Environ(), "CTL_DIR="+m.dir)
			b, _ := c.CombinedOutput()
			outs[i] = string(b)
		})
	}
	both.Wait()
	for _, o := range outs {
		if !strings.Contains(o, "hello twin") && !strings.Contains(o, "exists") {
			t.Errorf("of twins: %q", o)
		}
	}
	m.left(t)
	// Whoever waits is killed: the container goes on, and its unit cleans up.
	c := exec.Command("/proc/self/exe", "run", "--rm", "--network", "none", "--name", "alone", m.image(), "sleep")
	c.Env = append(os.Environ(), "CTL_DIR="+m.dir)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	readFull(out, make([]byte, 8))
	m.mustFail("lives for one run", "restart", "alone")
	m.must("start", "alone") // as it runs
	c.Process.Kill()
	c.Wait()
	m.must("kill", "alone")
	m.left(t)
	// A caller's mask of permissions is not the container's, and a stop signal may be spelt as docker takes it.
	before := unix.Umask(0o077)
	seen := m.must("run", "--rm", "--network", "none", "--user", "7", "--stop-signal", "sigint", m.image(), "show", "/etc/hosts")
	unix.Umask(before)
	if !strings.Contains(seen, "localhost") {
		t.Errorf("with umask 077 a user sees %q in /etc/hosts", seen)
	}
	m.left(t)
	m.mustFail("stat /nothing", "run", "--rm", "--network", "none", "--entrypoint", "/nothing", m.image())
	m.left(t)
	// What cannot be prepared is told by who prepares it.
	if out, errs, code := m.ctl("run", "--rm", "--network", "none", "--user", "nobody-knows", m.image()); code != 125 || !strings.Contains(errs, `user "nobody-knows": not in the container's /etc/passwd`) {
		t.Errorf("%d %s%s", code, out, errs)
	}
	m.left(t)
}

// TestOnceKilled: whoever prepares a container is killed at any moment: before its unit is asked for, while that starts, while the workload
// runs. Its unit cleans up, or the next one of its name does.
func TestOnceKilled(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	m.must("pull", "--tls-verify=false", m.image())
	args := []string{"run", "--rm", "--network", "none", "--name", "killed", m.image(), "say", "hello"}
	begin := time.Now()
	m.must(args...)
	whole := time.Since(begin)
	const moments = 16
	for n := range moments {
		c := exec.Command("/proc/self/exe", args...)
		c.Env = append(os.Environ(), "CTL_DIR="+m.dir)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(whole * time.Duration(n) / moments)
		c.Process.Kill()
		c.Wait()
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		out, errs, code := m.ctl(args...)
		if code == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d %s%s", code, out, errs)
		}
	}
	m.left(t)
}

// TestRemoveAnother: what removes or cleans up late leaves another container of that name alone.
func TestRemoveAnother(t *testing.T) {
	m := newMachine(t)
	e := testEnv(m.dir)
	add(t, e, &store.Container{Name: "x", Remove: true, Restart: "no", Instance: "2", Created: time.Now()})
	s, err := e.open()
	if err != nil {
		t.Fatal(err)
	}
	old := &store.Container{Name: "x", Remove: true, Restart: "no", Instance: "1"}
	if err := e.takeAway(t.Context(), s, old); !errors.Is(err, store.ErrNoContainer) {
		t.Errorf("take away: %v", err)
	}
	if err := e.removeOnce(t.Context(), s, old); err != nil {
		t.Errorf("remove: %v", err)
	}
	c := &call{Env: e, store: s}
	c.cleanUp(t.Context(), old, &store.Exit{})
	if out := m.must("ps", "-aq"); out != "x\n" {
		t.Errorf("there is %q", out)
	}
	if x, err := s.Exit("x"); x != nil || err != nil {
		t.Errorf("it has ended as %v, %v", x, err)
	}
}

// TestEndedOfAnother: what comes late for a container that has gone leaves another one of its name alone.
func TestEndedOfAnother(t *testing.T) {
	m := newMachine(t)
	add(t, testEnv(m.dir), &store.Container{Name: "x", Remove: true, Restart: "no", Instance: "2", Created: time.Now()})
	m.must("ended", "x", "1")
	if out := m.must("ps", "-aq"); out != "x\n" {
		t.Errorf("after the end of another one there is %q", out)
	}
	s, err := testEnv(m.dir).open()
	if err != nil {
		t.Fatal(err)
	}
	release, err := s.HoldContainer("x")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.must("ended", "x", "2")
	}()
	select {
	case <-done:
		t.Error("it does not wait for who holds the container")
	case <-time.After(300 * time.Millisecond):
	}
	release()
	<-done
	if out := m.must("ps", "-aq"); out != "" {
		t.Errorf("after its end there is %q", out)
	}
}
