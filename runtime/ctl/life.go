package ctl

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/oci"
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
				seconds := -1
				s.Int(&seconds, 0, "t,time", "SECONDS", "wait this long before killing (default: what run --stop-timeout said)")
				return func(ctx context.Context, c *call) error { return c.stop(ctx, time.Duration(seconds)*time.Second) }
			}}),
		names(verb{name: "start", what: "start stopped containers", setup: plain(func(ctx context.Context, c *call) error { return c.start(ctx, false) })}),
		names(verb{name: "restart", what: "stop and start containers", setup: plain(func(ctx context.Context, c *call) error { return c.start(ctx, true) })}),
		names(verb{name: "rm", what: "remove containers with all they have written", setup: func(s *flagset.Set) action {
			var force, volumes bool
			s.Bool(&force, "f,force", "also when it runs")
			s.Bool(&volumes, "v,volumes", "accepted: volumes without a name always go with their container")
			return func(ctx context.Context, c *call) error { return c.rm(ctx, force) }
		}}),
	}
}

func (c *call) stop(ctx context.Context, grace time.Duration) error {
	return c.each(func(k *store.Container) error {
		st, err := c.OCIRoot.Load(k.Name)
		if grace >= 0 && err == nil && st.Status == specs.StateRunning {
			// Another patience than the unit's: the kill comes from here, and the unit is stopped at the same time so that it does
			// not start again.
			timer := time.AfterFunc(grace, func() { st.Stop(9, 0) })
			defer timer.Stop()
		}
		if k.Restart == "" {
			if err != nil {
				return nil // ended already
			}
			sig, err := stopSignal(k)
			if err != nil {
				return err
			}
			return st.Stop(sig, unit.StopTimeout(k))
		}
		if k.Restart == "unless-stopped" {
			if err := unit.Disable(c.UnitDir, k.Name); err != nil {
				return err
			}
		}
		return c.Units.Stop(ctx, unit.Of(k))
	})
}

func (c *call) start(ctx context.Context, again bool) error {
	return c.each(func(k *store.Container) error {
		if k.Restart == "" {
			return fmt.Errorf("%s runs in the foreground of another command", k.Name)
		}
		if k.Unit != "" {
			if again {
				return c.Units.Restart(ctx, k.Unit)
			}
			return c.Units.Start(ctx, k.Unit)
		}
		// Also repairs a unit that a power cut in the middle of run has left out, and follows newer ways to write it.
		if err := unit.Install(c.UnitDir, k); err != nil {
			return err
		}
		if err := c.Units.Reload(ctx); err != nil {
			return err
		}
		if again {
			return c.Units.Restart(ctx, unit.Name(k.Name))
		}
		return c.Units.Start(ctx, unit.Name(k.Name))
	})
}

func (c *call) rm(ctx context.Context, force bool) error {
	return c.each(func(k *store.Container) error {
		vs, err := c.views(ctx, []*store.Container{k})
		if err != nil {
			return err
		}
		if !force && vs[0].Status != "stopped" && vs[0].Status != "failed" {
			return fmt.Errorf("%s is %s: stop it first, or use --force", k.Name, vs[0].Status)
		}
		return c.remove(ctx, c.store, k.Name)
	})
}

// remove takes a container away in an order in which each step leaves less: not started at boot, stopped, no unit, no files.
func (e *Env) remove(ctx context.Context, s *store.Store, name string) error {
	c, err := s.Container(name)
	if err != nil {
		return err
	}
	if c.Unit != "" {
		if err := e.withdraw(ctx, c); err != nil {
			return err
		}
	} else if c.Restart != "" {
		if err := unit.Disable(e.UnitDir, name); err != nil {
			return err
		}
		if err := e.Units.Stop(ctx, unit.Name(name)); err != nil && !notLoaded(err) {
			return err
		}
		if err := unit.Uninstall(e.UnitDir, name); err != nil {
			return err
		}
		if err := e.Units.Reload(ctx); err != nil {
			return err
		}
		e.Units.ResetFailed(ctx, unit.Name(name)) // an error says that there is nothing to forget
	}
	if err := e.OCIRoot.Delete(name, true); err != nil {
		return err
	}
	if err := e.releaseNetwork(ctx, c); err != nil {
		return err
	}
	if err := os.RemoveAll(e.bundle(name)); err != nil {
		return err
	}
	unlock, err := s.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.RemoveContainer(name); err != nil {
		return err
	}
	return removeAnonymous(s, c)
}

// stopSignal is what stop sends first.
func stopSignal(c *store.Container) (syscall.Signal, error) {
	if c.StopSignal == "" {
		return syscall.SIGTERM, nil
	}
	return oci.ParseSignal(c.StopSignal)
}

// notLoaded reports whether systemd does not know the unit, which then needs no stop.
func notLoaded(err error) bool { return strings.Contains(err.Error(), "not loaded") }
