package ctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/unit"
)

func (c *call) rm(ctx context.Context, force bool) error {
	if force {
		var there []string
		for _, name := range c.args {
			if _, err := c.store.Container(name); !errors.Is(err, store.ErrNoContainer) {
				there = append(there, name)
			}
		}
		c.args = there
	}
	return c.each(func(k *store.Container) error {
		release, err := c.keepStill(ctx, k, force)
		if errors.Is(err, store.ErrNoContainer) {
			return nil // whoever has made it has removed it
		}
		if err != nil {
			return err
		}
		defer release()
		v, err := c.settled(ctx, k)
		if err != nil {
			return err
		}
		if !force && !v.over() {
			return fmt.Errorf("%s is %s: stop it first, or use --force", k.Name, v.Status)
		}
		return c.remove(ctx, c.store, k.Name)
	})
}

// keepStill keeps others from starting a container, until release. With force one that somebody starts just now is stopped first.
func (c *call) keepStill(ctx context.Context, k *store.Container, force bool) (release func(), err error) {
	if k.Unit != "" {
		return func() {}, nil // a declared one is anew at each start
	}
	for {
		release, ok, err := c.store.SeizeStart(k)
		if ok || err != nil {
			return release, err
		}
		if !force {
			return nil, fmt.Errorf("%s is about to start: stop it first, or use --force", k.Name)
		}
		if err := c.halt(ctx, k); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// settled is a container as it is when systemd is done with it whose workload has ended, as who waited for that knows a moment earlier.
func (c *call) settled(ctx context.Context, k *store.Container) (*view, error) {
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		vs, err := c.views(ctx, []*store.Container{k})
		if err != nil {
			return nil, err
		}
		if !vs[0].ending() || time.Now().After(deadline) {
			return &vs[0], nil
		}
	}
}

// notEnding is settled, however long systemd takes.
func (c *call) notEnding(ctx context.Context, k *store.Container) (*view, error) {
	v, err := c.settled(ctx, k)
	for err == nil && v.ending() {
		if err = ctx.Err(); err == nil {
			v, err = c.settled(ctx, k)
		}
	}
	return v, err
}

// halt stops a container's unit, if systemd knows it.
func (e *Env) halt(ctx context.Context, k *store.Container) error {
	if err := e.Units.Stop(ctx, unit.Of(k)); err != nil && !notLoaded(err) {
		return err
	}
	return nil
}

// remove takes a container away in an order in which each step leaves less: not started at boot, stopped, no unit, no files.
func (e *Env) remove(ctx context.Context, s *store.Store, name string) error {
	k, err := s.Container(name)
	if errors.Is(err, store.ErrNoContainer) {
		return nil // ended has removed it
	}
	if err != nil {
		return err
	}
	if k.Unit != "" {
		if err := e.withdraw(ctx, k); err != nil {
			return err
		}
		return e.takeAway(ctx, s, k)
	}
	if err := unit.Disable(e.unitDir(k), name); err != nil {
		return err
	}
	if err := e.thaw(ctx, k); err != nil {
		return err
	}
	if k.Instance != "" {
		return e.removeOnce(ctx, s, k)
	}
	if err := e.halt(ctx, k); err != nil {
		return err
	}
	if err := e.takeAway(ctx, s, k); err != nil && !errors.Is(err, store.ErrNoContainer) {
		return err
	}
	if err := e.Units.Refresh(ctx, unit.Of(k), false); err != nil {
		return err
	}
	e.Units.ResetFailed(ctx, unit.Of(k)) // an error says that there is nothing to forget
	return nil
}

// removeOnce is remove for a container of Env.once, which goes when its workload has ended; unless that never ran.
func (e *Env) removeOnce(ctx context.Context, s *store.Store, k *store.Container) error {
	if st, err := e.OCIRoot.Load(k.Name); err == nil && st.Status == specs.StateRunning {
		sig, err := stopSignal(k)
		if err != nil {
			return err
		}
		if err := st.Stop(sig, unit.StopTimeout(k)); err != nil {
			return err
		}
	}
	if !isThere(s, k) {
		return nil // and the unit is another's by now
	}
	if err := e.halt(ctx, k); err != nil {
		return err
	}
	if err := e.takeAway(ctx, s, k); err != nil && !errors.Is(err, store.ErrNoContainer) {
		return err
	}
	return nil
}

// rename moves a container that does not run.
func rename(ctx context.Context, c *call) error {
	k, err := c.container(c.args[0])
	if err != nil {
		return err
	}
	switch {
	case k.Unit != "":
		return fmt.Errorf("%s is declared: say ContainerName= in the file of %s", k.Name, k.Unit)
	case k.Instance != "":
		return fmt.Errorf("%s lives for one run, in the foreground of whoever has made it (--rm): its name is said there, run --name", k.Name)
	}
	release, err := c.keepStill(ctx, k, false)
	if err != nil {
		return err
	}
	defer release()
	v, err := c.settled(ctx, k)
	if err != nil {
		return err
	}
	if !v.over() {
		return fmt.Errorf("%s is %s: stop it first", k.Name, v.Status)
	}
	to := c.args[1]
	if err := store.CheckName(to); err != nil {
		return err
	}
	if err := c.unitIsFree(ctx, c.store, to); err != nil {
		return err
	}
	if err := c.move(k, to); err != nil {
		return err
	}
	c.event(k, "rename", c.args[0]+" is "+k.Name+" from now on")
	return errors.Join(c.removeBundle(c.args[0]), c.Units.Refresh(ctx, unit.Name(c.args[0]), false), c.Units.Refresh(ctx, unit.Of(k), true))
}

// move gives a container its new unit, its new name, and takes the old unit away. So it starts at boot wherever that is cut off, and all that
// may be left is a unit of no container, for gc.
func (c *call) move(k *store.Container, to string) error {
	unlock, err := c.store.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := c.store.Container(to); !errors.Is(err, store.ErrNoContainer) {
		return errors.Join(err, fmt.Errorf("rename container %s to %s: %w", k.Name, to, store.ErrExists))
	}
	dir, old, moved := c.unitDir(k), k.Name, *k
	moved.Name = to
	if err = unit.Install(dir, &moved); err == nil && !unit.Enabled(dir, old) {
		err = unit.Disable(dir, to)
	}
	if err == nil {
		err = c.store.RenameContainer(k, to)
	}
	if k.Name == to {
		return errors.Join(err, unit.Uninstall(dir, old))
	}
	return errors.Join(err, unit.Uninstall(dir, to))
}

// forgetUnits removes the units that a rename has left of no container.
func (c *call) forgetUnits(ctx context.Context) error {
	unlock, err := c.store.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	for _, dir := range []string{c.UnitDir, c.TransientDir} {
		for _, name := range unit.List(dir) {
			if _, err := c.store.Container(name); !errors.Is(err, store.ErrNoContainer) {
				continue
			}
			if err := errors.Join(unit.Uninstall(dir, name), c.Units.Refresh(ctx, unit.Name(name), false)); err != nil {
				return err
			}
		}
	}
	return nil
}
