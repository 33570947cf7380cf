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

// caught are the signals that come from catch on.
type caught struct {
	pipe    int            // of package relay, -1 without it
	signals chan os.Signal // of package os/signal, nil with package relay
}

// catch keeps signals for a workload that is yet to be started. One that came between its start and the first
// moment in which we wait for it would else end us, and leave it behind. It is called once.
func catch(ctx context.Context) (*caught, error) {
	if ctx.Done() == nil {
		fd, ok, err := relay.Start(passedOn[:])
		if ok || err != nil {
			return &caught{pipe: fd}, err
		}
	}
	c := &caught{pipe: -1, signals: make(chan os.Signal, 16)}
	for _, s := range passedOn {
		signal.Notify(c.signals, s)
	}
	return c, nil
}

// read reads package relay's pipe as if package os/signal had sent what is in it.
func (c *caught) read() {
	c.signals = make(chan os.Signal, 16)
	pipe := os.NewFile(uintptr(c.pipe), "signals") // does not block, so that no thread waits for it
	go func() {
		b := make([]byte, 64)
		for {
			n, err := pipe.Read(b)
			if err != nil {
				return
			}
			for _, s := range b[:n] {
				c.signals <- unix.Signal(s)
			}
		}
	}()
}

// supervise passes signals on to p until it ends and returns its exit code as a shell would: 128+n for signal n. When ctx
// ends p is killed.
func (c *caught) supervise(ctx context.Context, p *run.Process) (int, error) {
	if c.pipe >= 0 {
		if p.Master == nil {
			return p.WaitAndRelay(c.pipe)
		}
		c.read()
	}
	go func() {
		for {
			select {
			case s := <-c.signals:
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
	// The goroutines live until this process ends, which is soon.
	return p.Wait()
}
