package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/cgroup"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/run"
	"github.com/proa-os/proa/runtime/spec"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/unit"
)

// lifeVerbs start, end and remove containers.
func lifeVerbs() []verb {
	names := func(v verb) verb {
		v.args, v.min, v.max, v.lister = "NAME...", 1, -1, "containers"
		return v
	}
	return []verb{
		names(verb{name: "stop", what: "stop containers", more: "A container starts again at the next boot unless it was made with --restart unless-stopped or no.",
			setup: func(s *flagset.Set) action {
				var f stopFlags
				f.flags(s)
				return func(ctx context.Context, c *call) error { return c.stop(ctx, f) }
			}}),
		names(verb{name: "start", what: "start stopped containers", setup: startSetup,
			more: `With -a this command passes output on and ends with the workload's exit code, as run does without -d. A container that is restarted goes on
without it.`}),
		names(verb{name: "restart", what: "stop and start containers", setup: func(s *flagset.Set) action {
			var f stopFlags
			f.flags(s)
			return func(ctx context.Context, c *call) error { return c.restart(ctx, f) }
		}}),
		names(verb{name: "kill", what: "send a signal to containers' first processes", setup: func(s *flagset.Set) action {
			name := "KILL"
			s.String(&name, "s,signal", "SIGNAL", "which (default KILL)")
			return func(_ context.Context, c *call) error { return c.kill(name) }
		}}),
		names(verb{name: "pause", what: "freeze all processes of containers", setup: plain(func(ctx context.Context, c *call) error { return c.freeze(ctx, true) })}),
		names(verb{name: "unpause", what: "let frozen containers go on", setup: plain(func(ctx context.Context, c *call) error { return c.freeze(ctx, false) })}),
		names(verb{name: "wait", what: "wait until containers have ended, and print their exit codes", setup: plain(wait),
			more: "Of a container that does not run the code of its last run is printed. One that is restarted has ended as well."}),
		names(verb{name: "rm", what: "remove containers with all they have written", setup: func(s *flagset.Set) action {
			var force, volumes bool
			s.Bool(&force, "f,force", "also when it runs; no error if there is none")
			s.Bool(&volumes, "v,volumes", "accepted: volumes without a name always go with their container")
			return func(ctx context.Context, c *call) error { return c.rm(ctx, force) }
		}}),
		{name: "rename", args: "NAME NEW", what: "give a stopped container another name", min: 2, max: 2, lister: "containers", setup: plain(rename)},
	}
}

// stopFlags say how a workload is ended.
type stopFlags struct {
	seconds int // -1: as the container says
	signal  string
}

func (f *stopFlags) flags(s *flagset.Set) {
	f.seconds = -1
	s.Int(&f.seconds, 0, "t,time,timeout", "SECONDS", "wait this long before killing (default: what run --stop-timeout said)")
	s.String(&f.signal, "s,signal", "SIGNAL", "what to send first (default: what run --stop-signal said)")
}

// otherwise ends a workload in another way than its unit would. With another patience the kill comes from here while systemd stops the unit,
// so that it does not start again; until then the returned function is not to be called. With another signal the workload ends before
// systemd hears of it, which it does before the second that a restart takes is over.
func (f stopFlags) otherwise(c *call, k *store.Container) (done func(), err error) {
	sig, done := unix.Signal(0), func() {}
	if f.signal != "" {
		if sig, err = spec.Signal(f.signal); err != nil {
			return nil, err
		}
	}
	if sig == 0 && k.Instance != "" { // its unit has no ExecStop=, see Env.once
		if sig, err = stopSignal(k); err != nil {
			return nil, err
		}
	}
	st, err := c.OCIRoot.Load(k.Name)
	if err != nil || st.Status != specs.StateRunning {
		return done, nil // there is nobody to end
	}
	grace := time.Duration(f.seconds) * time.Second
	switch {
	case sig != 0 && f.seconds < 0:
		err = st.Stop(sig, unit.StopTimeout(k))
	case sig != 0:
		err = st.Stop(sig, grace)
	case f.seconds >= 0:
		timer := time.AfterFunc(grace, func() { st.Stop(unix.SIGKILL, 0) })
		done = func() { timer.Stop() }
	}
	return done, err
}

func (c *call) stop(ctx context.Context, f stopFlags) error {
	return c.each(func(k *store.Container) error {
		if k.Restart == "unless-stopped" {
			if err := unit.Disable(c.unitDir(k), k.Name); err != nil {
				return err
			}
		}
		if err := c.thaw(ctx, k); err != nil {
			return err
		}
		done, err := f.otherwise(c, k)
		if err != nil {
			return err
		}
		defer done()
		return c.halt(ctx, k)
	})
}

// thaw lets a frozen container go on, for it to be stopped: systemd refuses to stop a frozen unit.
func (e *Env) thaw(ctx context.Context, k *store.Container) error {
	if st, err := e.OCIRoot.Load(k.Name); err != nil || st.Status != specs.StateRunning && st.Status != run.StatePaused || !frozen(st.Pid) {
		return nil // there is nothing to thaw, or nobody to tell
	}
	return e.Units.Freeze(ctx, unit.Of(k), false)
}

func (c *call) start(ctx context.Context) error {
	return c.each(func(k *store.Container) error {
		if k.Unit != "" {
			return c.Units.Start(ctx, k.Unit)
		}
		if k.Instance != "" {
			return nil // it runs: it is gone when it does not
		}
		release, err := c.store.HoldStart(k)
		if err != nil {
			return err
		}
		defer release()
		if err := c.renew(ctx, k); err != nil {
			return err
		}
		return c.Units.Start(ctx, unit.Of(k))
	})
}

func (c *call) restart(ctx context.Context, f stopFlags) error {
	return c.each(func(k *store.Container) error {
		if k.Instance != "" {
			return fmt.Errorf("%s lives for one run, in the foreground of whoever has made it (--rm): make another one", k.Name)
		}
		if err := c.thaw(ctx, k); err != nil {
			return err
		}
		if k.Unit == "" {
			release, err := c.store.HoldStart(k)
			if err != nil {
				return err
			}
			defer release()
			if err := c.renew(ctx, k); err != nil {
				return err
			}
		}
		done, err := f.otherwise(c, k)
		if err != nil {
			return err
		}
		defer done()
		return c.Units.Restart(ctx, unit.Of(k))
	})
}

// renew writes a unit anew, before a start that somebody has asked for.
func (c *call) renew(ctx context.Context, k *store.Container) error {
	if err := c.begins(k); err != nil {
		return err
	}
	// Also repairs a unit that a power cut in the middle of run has left out, and follows newer ways to write it.
	if err := unit.Install(c.unitDir(k), k); err != nil {
		return err
	}
	if err := c.Units.Refresh(ctx, unit.Of(k), true); err != nil {
		return err
	}
	c.Units.ResetFailed(ctx, unit.Of(k)) // begins to count starts anew; an error says that there are none
	return nil
}

func (c *call) kill(name string) error {
	sig, err := spec.Signal(name)
	if err != nil {
		return err
	}
	return c.each(func(k *store.Container) error {
		st, err := c.running(k)
		if err != nil {
			return err
		}
		return st.Signal(sig)
	})
}

// running returns the state of a container that runs.
func (c *call) running(k *store.Container) (*run.Container, error) {
	st, err := c.OCIRoot.Load(k.Name)
	if errors.Is(err, run.ErrNotExist) || err == nil && st.Status != specs.StateRunning && st.Status != run.StatePaused {
		return nil, fmt.Errorf("%s does not run: start it first: containerctl start %s", k.Name, k.Name)
	}
	return st, err
}

func (c *call) freeze(ctx context.Context, on bool) error {
	return c.each(func(k *store.Container) error {
		if _, err := c.running(k); err != nil {
			return err
		}
		return c.Units.Freeze(ctx, unit.Of(k), on)
	})
}

// frozen reports whether a process's cgroup or one above it is frozen.
func frozen(pid int) bool {
	g, err := cgroup.Of(pid)
	return err == nil && g.Frozen()
}

// stopSignal is what stop sends first.
func stopSignal(k *store.Container) (unix.Signal, error) {
	if k.StopSignal == "" {
		return unix.SIGTERM, nil
	}
	return spec.Signal(k.StopSignal)
}

// notLoaded reports whether systemd does not know the unit, which then needs no stop.
func notLoaded(err error) bool { return strings.Contains(err.Error(), "not loaded") }
