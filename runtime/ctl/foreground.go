package ctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/unit"
)

// foreground starts a container's unit with this process's standard input, output and error, and ends with its exit code. The container
// does not need this process: when that is killed it goes on.
func (c *call) foreground(ctx context.Context, k *store.Container) error {
	a, err := c.attach(k)
	if err != nil {
		return err
	}
	defer a.close()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
	defer signal.Stop(signals)
	started := make(chan error, 1)
	ctx = context.WithoutCancel(ctx) // signals are the container's
	go func() { started <- c.startUnit(ctx, k) }()
	f := &following{call: c, k: k}
	defer func() {
		if f.session != nil {
			f.session.end()
		}
	}()
	look := time.NewTicker(2 * time.Second)
	defer look.Stop()
	for up := false; ; {
		select {
		case err := <-started:
			if err != nil {
				return startError{err}
			}
			up = true
		case master := <-a.master:
			f.session = a.join(master)
		case x := <-a.ended:
			if !x.Started.IsZero() {
				return f.exit(x)
			}
		case s := <-signals:
			f.signal(ctx, s.(syscall.Signal))
		case <-look.C:
			if up {
				if gone, err := f.gone(ctx); gone || err != nil {
					return errors.Join(fmt.Errorf("%s has ended, and nobody has told how: see journalctl -u %s", k.Name, unit.Name(k.Name)), err)
				}
			}
		}
	}
}

// startError is the error of a container that did not come to be.
type startError struct{ error }

func (e startError) Unwrap() error { return e.error }

// following is what a process in the foreground knows of its container.
type following struct {
	*call
	k         *store.Container
	session   *session
	interrupt bool
}

func (f *following) exit(x *store.Exit) error {
	if x.OOM {
		fmt.Fprintf(f.Err, "containerctl: %s: %s\n", f.k.Name, x)
	}
	if x.Code == 0 {
		return nil
	}
	return exit(x.Code)
}

// signal passes a signal on. One that asks this process to end stops the container as containerctl stop would, for a first process without
// a handler would never see it; so does a second interrupt, at once.
func (f *following) signal(ctx context.Context, s syscall.Signal) {
	st, err := f.OCIRoot.Load(f.k.Name)
	if err != nil {
		return
	}
	switch {
	case s == unix.SIGWINCH:
		if f.session != nil {
			f.session.resize()
		}
	case s == unix.SIGTERM || s == unix.SIGHUP:
		f.Units.Queue(ctx, "stop", unit.Name(f.k.Name))
	case s == unix.SIGINT && f.interrupt:
		st.Signal(unix.SIGKILL)
	default:
		f.interrupt = f.interrupt || s == unix.SIGINT
		st.Signal(s)
	}
}

// gone reports whether the unit has ended, which ended tells first unless it was killed.
func (f *following) gone(ctx context.Context) (bool, error) {
	name := unit.Name(f.k.Name)
	states, err := f.Units.Status(ctx, []string{name})
	if err != nil {
		return false, err
	}
	s := states[name]
	return s.Active == "inactive" || s.Active == "failed", nil
}
