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
	"golang.org/x/term"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/run"
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
	return c.attend(ctx, k, a, false, func(ctx context.Context) error { return c.startUnit(ctx, k) })
}

// attend starts a container and stays until it has ended.
func (c *call) attend(ctx context.Context, k *store.Container, a *attachment, once bool, start func(context.Context) error) error {
	defer a.close()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
	defer signal.Stop(signals)
	started := make(chan error, 1)
	ctx = context.WithoutCancel(ctx) // signals are the container's
	go func() { started <- start(ctx) }()
	f := &following{call: c, k: k, once: once}
	defer func() {
		if f.session != nil {
			f.session.end()
		}
	}()
	look := time.NewTicker(2 * time.Second)
	defer look.Stop()
	var early *store.Exit    // of one that did not start
	var asked syscall.Signal // to end, before it has
	for up := false; ; {
		select {
		case err := <-started:
			var failed startError
			if errors.As(err, &failed) {
				return failed
			}
			if err != nil {
				return startError{err, c.codeOf(k)}
			}
			if early != nil {
				return startError{exit(1), early.Code}
			}
			up = true
			if asked != 0 {
				f.signal(ctx, asked)
			}
		case master := <-a.master:
			f.session = a.join(master)
		case x, told := <-a.ended:
			select { // its last output may be there
			case master := <-a.master:
				f.session = a.join(master)
			default:
			}
			switch {
			case !told:
				return f.silent()
			case !x.Started.IsZero():
				return f.exit(x)
			case up:
				return startError{exit(1), x.Code} // launch has said why
			}
			early = x
		case s := <-signals:
			sig := s.(syscall.Signal)
			switch ends := sig == unix.SIGINT || sig == unix.SIGTERM || sig == unix.SIGHUP || sig == unix.SIGQUIT; {
			case f.signal(ctx, sig) || up || !ends:
			case asked != 0: // twice: what holds it up may do so for long
				return startError{errInterrupted, 128 + int(sig)}
			default:
				asked = sig
			}
		case <-look.C:
			if up && !once {
				if gone, err := f.gone(ctx); gone || err != nil {
					return errors.Join(f.silent(), err)
				}
			}
		}
	}
}

// errInterrupted says that whoever waits for a start does so no longer.
var errInterrupted = errors.New("interrupted before it has started")

// startError is the error of a container that did not come to be, with an exit code that tells whose fault it is.
type startError struct {
	error
	code int
}

func (e startError) Unwrap() error { return e.error }

// codeOf is the exit code of a run that did not begin, which ended has noted before systemd told that.
func (c *call) codeOf(k *store.Container) int {
	if x, err := c.store.Exit(k.Name); err == nil && x != nil && x.Started.IsZero() {
		return x.Code
	}
	return ourFailure
}

// following is what a process in the foreground knows of its container.
type following struct {
	*call
	k         *store.Container
	session   *session
	interrupt bool
	once      bool // by Env.once
}

// silent is the error for a container of which nobody tells more.
func (f *following) silent() error {
	return fmt.Errorf("%s has ended, and nobody has told how: see journalctl -u %s", f.k.Name, unit.Name(f.k.Name))
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
// It reports whether there was somebody to pass it on to.
func (f *following) signal(ctx context.Context, s syscall.Signal) bool {
	st, err := f.OCIRoot.Load(f.k.Name)
	if err != nil {
		return false
	}
	switch {
	case s == unix.SIGWINCH:
		if f.session != nil {
			f.session.resize()
		}
	case s == unix.SIGTERM || s == unix.SIGHUP:
		f.askToEnd(ctx, st)
	case s == unix.SIGINT && f.interrupt:
		st.Signal(unix.SIGKILL)
	default:
		f.interrupt = f.interrupt || s == unix.SIGINT
		st.Signal(s)
	}
	return true
}

// askToEnd has the container stopped.
func (f *following) askToEnd(ctx context.Context, st *run.Container) {
	if !f.once {
		f.Units.Queue(ctx, "stop", unit.Name(f.k.Name))
		return
	}
	// Its unit has no ExecStop=, which would know what a process without a handler wants.
	if sig, err := stopSignal(f.k); err == nil {
		go st.Stop(sig, unit.StopTimeout(f.k))
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

// startSetup is the setup of start.
func startSetup(s *flagset.Set) action {
	var attach, input bool
	s.Bool(&attach, "a,attach", "stay until it ends, and pass its output on")
	s.Bool(&input, "i,interactive", "with -a: pass standard input on to a container that was made with -i; alone the same as -ai")
	return func(ctx context.Context, c *call) error {
		if !attach && !input {
			return c.start(ctx)
		}
		if len(c.args) != 1 {
			return command.Wrong("start: -a and -i take one container")
		}
		return c.startHere(ctx, input)
	}
}

// startHere starts a container in the foreground.
func (c *call) startHere(ctx context.Context, input bool) error {
	k, err := c.container(c.args[0])
	if err != nil {
		return err
	}
	if k.Unit != "" {
		return fmt.Errorf("%s is declared: start %s, and see containerctl logs -f %s", k.Name, k.Unit, k.Name)
	}
	v, err := c.notEnding(ctx, k)
	if err != nil {
		return err
	}
	if !v.over() {
		return fmt.Errorf("%s is %s already: see containerctl logs -f %s", k.Name, v.Status, k.Name)
	}
	k.Stdin = k.Stdin && input
	if k.Terminal && k.Stdin && !term.IsTerminal(int(c.In.Fd())) {
		return fmt.Errorf("%s has a terminal, and standard input is none: leave out -i", k.Name)
	}
	c.Units.ResetFailed(ctx, unit.Of(k)) // as start does
	return c.foreground(ctx, k)
}
