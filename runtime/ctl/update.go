package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/runtime/cgroup"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/unit"
)

func updateVerb() verb {
	return verb{name: "update", args: "NAME...", what: "change what containers may take, and when they start again", min: 1, max: -1, lister: "containers",
		more: `What is not named stays as it is. Of a container that runs the limits count at once, without a restart of it; they are kept for its later
runs. The flags are those of run.`,
		examples: []string{"containerctl update --memory 1g --cpus 2 web", "containerctl update --restart no web db"},
		setup: func(s *flagset.Set) action {
			u := new(updateFlags)
			u.flags(s)
			return u.run
		}}
}

// updateFlags are flags of run, to be set for each container that is named.
type updateFlags struct{ given []string } // --name=value

// flags takes those of run's flags that can be changed later.
func (u *updateFlags) flags(s *flagset.Set) {
	(&updating{runFlags: newRunFlags()}).set().Visit(func(names []string, meta, usage string) {
		long := names[len(names)-1]
		var all []string
		for _, n := range names {
			all = append(all, strings.TrimLeft(n, "-"))
		}
		s.Func(strings.Join(all, ","), meta, strings.Replace(usage, "with -d: always (default)", "always", 1), func(v string) error {
			u.given = append(u.given, long+"="+v)
			_, err := (&updating{runFlags: newRunFlags()}).set().Parse(u.given[len(u.given)-1:], true)
			return errors.Unwrap(err) // without the flag's name, which comes before it
		})
	})
}

// updating is one container whose settings change.
type updating struct {
	*runFlags
	restart bool // is among them
}

func (u *updating) set() *flagset.Set {
	all, out := new(flagset.Set), new(flagset.Set)
	u.limitFlags(all)
	all.Visit(func(names []string, meta, usage string) {
		long := names[len(names)-1]
		if long == "--oom-score-adj" || strings.HasPrefix(long, "--device-") { // of processes that run; and lists
			return
		}
		for i, n := range names {
			names[i] = strings.TrimLeft(n, "-")
		}
		out.Func(strings.Join(names, ","), meta, usage, func(v string) error {
			_, err := all.Parse([]string{long + "=" + v}, true)
			return errors.Unwrap(err)
		})
	})
	out.Func("restart", "POLICY", "always, unless-stopped, on-failure[:TIMES], no", func(v string) error {
		u.restart, u.c.Restarts = true, 0
		return u.setRestart(v)
	})
	return out
}

func (u *updateFlags) run(ctx context.Context, c *call) error {
	if len(u.given) == 0 {
		return command.Wrong("update: say what is to change, for example --memory 1g")
	}
	return c.each(func(k *store.Container) error { return c.update(ctx, k.Name, u.given) })
}

// revise works out a container's new settings.
func revise(k *store.Container, given []string) (restart bool, err error) {
	u := &updating{runFlags: &runFlags{c: *k}}
	u.c.CPUs = 0
	if _, err := u.set().Parse(given, true); err != nil {
		return false, err
	}
	if err := u.setQuota(); err != nil {
		return false, err
	}
	if u.c.CPUs == 0 {
		u.c.CPUs = k.CPUs
	}
	switch n := &u.c; {
	case k.Unit != "":
		return false, fmt.Errorf("%s is declared: change the file of %s, and restart that", k.Name, k.Unit)
	case u.restart && n.Remove && n.Restart != "no":
		return false, fmt.Errorf("%s is removed when it ends (--rm): it cannot start again", k.Name)
	case n.MemorySwap != nil && *n.MemorySwap >= 0 && *n.MemorySwap < n.Memory:
		return false, fmt.Errorf("%s: --memory-swap, now %d bytes, is the limit of both, so not less than --memory: change both", k.Name, *n.MemorySwap)
	}
	*k = u.c
	return u.restart, nil
}

// update changes one container: its record, its unit, and what systemd knows of that.
func (c *call) update(ctx context.Context, name string, given []string) error {
	unlock, err := c.store.Lock()
	if err != nil {
		return err
	}
	k, err := c.store.Container(name) // as it is now that nobody else changes it
	restart := false
	if err == nil {
		restart, err = revise(k, given)
	}
	if err == nil && k.Instance != "" { // first what counts: the unit has no file, and another one may be about to make it
		err = c.Units.Limit(ctx, unit.Name(k.Name), unit.Limits(k))
	}
	if err == nil {
		err = c.store.UpdateContainer(k)
	}
	unlock()
	if err == nil && k.Instance == "" {
		err = c.updateUnit(ctx, k, restart)
	}
	if err == nil {
		c.event(k, "update", k.Name+" is limited otherwise from now on")
	}
	return err
}

// updateUnit has systemd read the unit anew, and puts its limits in force. One that has never started has none yet.
func (c *call) updateUnit(ctx context.Context, k *store.Container, restart bool) error {
	dir := c.unitDir(k)
	if err := unit.Refresh(dir, k); err != nil {
		return err
	}
	switch {
	case !unit.Installed(dir, k.Name):
		return nil
	case restart && unit.AtBoot(k):
		if err := unit.Enable(dir, k.Name); err != nil {
			return err
		}
	case restart:
		if err := unit.Disable(dir, k.Name); err != nil {
			return err
		}
	}
	if err := c.Units.Refresh(ctx, unit.Name(k.Name), true); err != nil {
		return err
	}
	group, err := c.Units.ControlGroup(ctx, unit.Name(k.Name))
	if errors.Is(err, unix.ENOENT) { // it does not run
		return nil
	}
	if err != nil {
		return err
	}
	return enforce(k, cgroup.Group{Dir: group})
}

// enforce puts a container's limits in force where it runs.
func enforce(k *store.Container, g cgroup.Group) error {
	settings, err := unit.Settings(unit.Limits(k))
	for _, s := range settings {
		if set := g.Set([]cgroup.Setting{s}); set != nil {
			err = errors.Join(err, fmt.Errorf("%s runs on without it until its next start: %w", k.Name, set))
		}
	}
	return err
}
