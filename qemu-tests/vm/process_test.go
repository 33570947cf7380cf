package vm

import (
	"os/exec"
	"strings"
	"testing"
)

// Who reads a failed story sees at once whether QEMU is to blame.
func TestFailureNamesWhoseItIs(t *testing.T) {
	for _, c := range []struct{ does, want string }{
		{"kill -SEGV $$", `QEMU itself died of a signal (signal: segmentation fault): the emulator has crashed`},
		{"kill -ABRT $$", `QEMU itself died of a signal (signal: aborted): the emulator has crashed`},
		{"kill -KILL $$", `QEMU itself died of a signal (signal: killed): somebody on the host has killed it`},
		{"exit 1", `QEMU ended: exit status 1; it said: "bad option"`},
	} {
		err := exec.Command("sh", "-c", "ulimit -c 0; "+c.does).Run()
		if err == nil {
			t.Fatalf("%s: sh has not died", c.does)
		}
		got := failure(err, "bad option").Error()
		if !strings.HasPrefix(got, c.want) || !strings.HasSuffix(got, `it said: "bad option"`) {
			t.Errorf("%s: got %q, want %q and what it said", c.does, got, c.want)
		}
	}
}

// An emulator that crashes as it closes has lost nothing of a guest that had stopped; one that takes its guest along has.
func TestCrashBehindTheGuest(t *testing.T) {
	crash := failure(exec.Command("sh", "-c", "ulimit -c 0; kill -SEGV $$").Run(), "")
	for _, c := range []struct {
		cause string
		want  error
	}{{guestShutdown, ErrPoweredOff}, {"", crash}} {
		var log strings.Builder
		m := &Machine{ctx: t.Context(), console: NewConsole(&log), ssh: &logins{}, changed: make(chan struct{})}
		p := &process{cause: c.cause, err: crash, done: make(chan struct{})}
		close(p.done)
		m.watch(p)
		if m.off != c.want {
			t.Errorf("ended by %q: got %v, want %v", c.cause, m.off, c.want)
		}
		if said := strings.Contains(log.String(), crash.Error()); !said {
			t.Errorf("ended by %q: the log does not tell of the crash: %s", c.cause, log.String())
		}
	}
}
