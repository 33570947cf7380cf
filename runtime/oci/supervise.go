package oci

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/relay"
	"github.com/proa-os/proa/runtime/run"
)

// passedOn are the signals that a caller sends to the runtime and means for the workload. The kernel's own, which concern this
// process, and the terminal's stop signals are not among them.
var passedOn = [...]unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCONT, unix.SIGALRM}

// supervise passes signals on to p until it ends and returns its exit code as a shell would: 128+n for signal n. When ctx
// ends p is killed.
func supervise(ctx context.Context, p *run.Process) (int, error) {
	if p.Master == nil && ctx.Done() == nil {
		fd, ok, err := relay.Start(passedOn[:])
		if err != nil {
			p.Signal(unix.SIGKILL)
			return 1, err
		}
		if ok {
			return p.WaitAndRelay(fd)
		}
	}
	signals := make(chan os.Signal, 16)
	for _, s := range passedOn {
		signal.Notify(signals, s)
	}
	go func() {
		for {
			select {
			case s := <-signals:
				if s == unix.SIGWINCH && p.Master != nil {
					resize(p.Master)
				}
				p.Signal(s.(unix.Signal)) // fails only when p has ended
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
