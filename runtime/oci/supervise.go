package oci

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/run"
)

// passedOn are the signals that a caller sends to the runtime and means for the workload. The kernel's own, which concern this
// process, and the terminal's stop signals are not among them.
var passedOn = [...]os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCONT, unix.SIGALRM}

// supervise passes signals on to p until it ends and returns its exit code as a shell would: 128+n for signal n. When ctx
// ends p is killed.
func supervise(ctx context.Context, p *run.Process) (int, error) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passedOn[:]...)
	go func() {
		for {
			select {
			case s := <-signals:
				if s == unix.SIGWINCH && p.Master != nil {
					resize(p.Master)
				}
				p.Signal(s.(syscall.Signal)) // fails only when p has ended
			case <-ctx.Done():
				p.Signal(unix.SIGKILL)
				return
			}
		}
	}()
	if p.Master != nil {
		defer terminal(p)()
	}
	// The goroutine lives until this process ends, which is soon.
	return p.Wait()
}
