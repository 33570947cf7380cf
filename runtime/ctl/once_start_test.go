package ctl

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/runtime/unit"
)

// stalled is a service manager that takes its time with starts.
type stalled struct {
	*units
	came, open chan struct{}
}

func stall(e *Env) *stalled {
	s := &stalled{e.Units.(*units), make(chan struct{}), make(chan struct{})}
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
		os.Remove(filepath.Join(m.dir, "units", "multi-user.target.wants")) // if nothing is in it
		m.left(t)
	}
}
