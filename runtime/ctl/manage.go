package ctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/oci"
	"github.com/proa-os/proa/runtime/ref"
	"github.com/proa-os/proa/runtime/run"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/unit"
)

// view is one container for ps and inspect.
type view struct {
	*store.Container
	Status  string         `json:"status"` // running, restarting, stopped, failed, starting, stopping
	Pid     int            `json:"pid,omitempty"`
	Unit    string         `json:"unit,omitempty"`
	Runtime *run.Container `json:"runtime,omitempty"`
}

// views joins what was asked for, what systemd says and what oci-runtime says.
func (e *Env) views(ctx context.Context, cs []*store.Container) ([]view, error) {
	var units []string
	for _, c := range cs {
		if c.Restart != "" {
			units = append(units, unit.Name(c.Name))
		}
	}
	states := map[string]unit.Status{}
	if len(units) > 0 {
		var err error
		if states, err = e.Units.Status(ctx, units); err != nil {
			return nil, err
		}
	}
	var out []view
	for _, c := range cs {
		v := view{Container: c, Status: "stopped"}
		if st, err := e.OCIRoot.Load(c.Name); err == nil {
			v.Runtime, v.Pid = st, st.Pid
			if st.Status == specs.StateRunning {
				v.Status = "running"
			}
		} else if !errors.Is(err, run.ErrNotExist) {
			return nil, err
		}
		if c.Restart != "" {
			v.Unit = unit.Name(c.Name)
			v.Status = status(states[v.Unit], v.Status == "running")
		}
		out = append(out, v)
	}
	return out, nil
}

// status puts systemd's words into the ones docker users know.
func status(s unit.Status, process bool) string {
	switch {
	case s.Active == "active" && process:
		return "running"
	case s.Sub == "auto-restart" || s.Sub == "auto-restart-queued":
		return "restarting"
	case s.Active == "activating" || s.Active == "reloading":
		return "starting"
	case s.Active == "deactivating":
		return "stopping"
	case s.Active == "failed":
		return "failed"
	}
	return "stopped"
}

func (e *Env) ps(ctx context.Context, words []string, all, asJSON bool) error {
	if err := exactly(words); err != nil {
		return err
	}
	s, err := e.open()
	if err != nil {
		return err
	}
	cs, err := s.Containers()
	if err != nil {
		return err
	}
	vs, err := e.views(ctx, cs)
	if err != nil {
		return err
	}
	shown := []view{}
	for _, v := range vs {
		if all || (v.Status != "stopped" && v.Status != "failed") {
			shown = append(shown, v)
		}
	}
	if asJSON {
		return e.json(shown)
	}
	w := tabwriter.NewWriter(e.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tIMAGE\tSTATUS\tPID\tCREATED")
	for _, v := range shown {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", v.Name, v.Image, v.Status, v.Pid, v.Created.Local().Format(time.DateTime))
	}
	return w.Flush()
}

// logs becomes journalctl. The match is on who wrote a line, so that systemd's own lines about the unit are left out.
func (e *Env) logs(words []string, follow bool, lines, since string) error {
	if err := exactly(words, "NAME"); err != nil {
		return err
	}
	s, err := e.open()
	if err != nil {
		return err
	}
	if _, err := s.Container(words[0]); err != nil {
		return err
	}
	args := []string{e.Journal, "--quiet", "--output=cat", "--all"}
	if follow {
		args = append(args, "--follow")
	}
	switch {
	case lines != "":
		args = append(args, "--lines="+lines)
	case follow:
		args = append(args, "--no-tail")
	}
	if since != "" {
		args = append(args, "--since="+since)
	}
	args = append(args, "--no-pager", "_SYSTEMD_UNIT="+unit.Name(words[0]))
	err = syscall.Exec(args[0], args, os.Environ())
	return fmt.Errorf("execute %s: %w", args[0], err)
}

// execFlags are the flags of exec, passed on to oci-runtime.
type execFlags struct {
	args        []string
	interactive bool
}

func (x *execFlags) flags(s *flagset.Set) {
	s.Bool(&x.interactive, "i,interactive", "accepted: standard input is always passed on")
	s.Func("e,env", "NAME=VALUE", "environment variable", func(v string) error {
		x.args = append(x.args, "--env", v)
		return nil
	})
	s.Func("u,user", "UID[:GID]", "numeric user and group", func(v string) error {
		x.args = append(x.args, "--user", v)
		return nil
	})
	s.Func("w,workdir", "DIR", "working directory", func(v string) error {
		x.args = append(x.args, "--cwd", v)
		return nil
	})
}

// exec becomes oci-runtime exec.
func (e *Env) exec(_ context.Context, words []string, x *execFlags) error {
	if len(words) < 2 {
		return errors.New("want NAME and COMMAND")
	}
	s, err := e.open()
	if err != nil {
		return err
	}
	if _, err := s.Container(words[0]); err != nil {
		return err
	}
	if st, err := e.OCIRoot.Load(words[0]); err != nil || st.Status != specs.StateRunning {
		return fmt.Errorf("%s does not run: start it first: containerctl start %s", words[0], words[0])
	}
	args := append(append([]string{}, e.OCIRuntime...), "--root", string(e.OCIRoot), "exec")
	args = append(append(append(args, x.args...), "--"), words...)
	err = syscall.Exec(args[0], args, os.Environ())
	return fmt.Errorf("execute %s: %w", args[0], err)
}

// eachContainer does something to every named container and goes on after an error.
func (e *Env) eachContainer(words []string, do func(*store.Store, *store.Container) error) error {
	if len(words) == 0 {
		return errors.New("want a NAME")
	}
	s, err := e.open()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range words {
		c, err := s.Container(name)
		if err == nil {
			err = do(s, c)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintln(e.Out, name)
	}
	return errors.Join(errs...)
}

func (e *Env) stop(ctx context.Context, words []string, grace time.Duration) error {
	return e.eachContainer(words, func(_ *store.Store, c *store.Container) error {
		st, err := e.OCIRoot.Load(c.Name)
		if grace >= 0 && err == nil && st.Status == specs.StateRunning {
			// Another patience than the unit's: the kill comes from here, and the unit is stopped at the same time so that it does
			// not start again.
			timer := time.AfterFunc(grace, func() { st.Stop(9, 0) })
			defer timer.Stop()
		}
		if c.Restart == "" {
			if err != nil {
				return nil // ended already
			}
			sig, err := stopSignal(c)
			if err != nil {
				return err
			}
			return st.Stop(sig, unit.StopTimeout(c))
		}
		if c.Restart == "unless-stopped" {
			if err := unit.Disable(e.UnitDir, c.Name); err != nil {
				return err
			}
		}
		return e.Units.Stop(ctx, unit.Name(c.Name))
	})
}

func (e *Env) start(ctx context.Context, words []string, again bool) error {
	return e.eachContainer(words, func(_ *store.Store, c *store.Container) error {
		if c.Restart == "" {
			return fmt.Errorf("%s runs in the foreground of another command", c.Name)
		}
		// Also repairs a unit that a power cut in the middle of run has left out, and follows newer ways to write it.
		if err := unit.Install(e.UnitDir, c); err != nil {
			return err
		}
		if err := e.Units.Reload(ctx); err != nil {
			return err
		}
		if again {
			return e.Units.Restart(ctx, unit.Name(c.Name))
		}
		return e.Units.Start(ctx, unit.Name(c.Name))
	})
}

func (e *Env) rm(ctx context.Context, words []string, force bool) error {
	return e.eachContainer(words, func(s *store.Store, c *store.Container) error {
		vs, err := e.views(ctx, []*store.Container{c})
		if err != nil {
			return err
		}
		if !force && vs[0].Status != "stopped" && vs[0].Status != "failed" {
			return fmt.Errorf("%s is %s: stop it first, or use --force", c.Name, vs[0].Status)
		}
		return e.remove(ctx, s, c.Name)
	})
}

// remove takes a container away in an order in which each step leaves less: not started at boot, stopped, no unit, no files.
func (e *Env) remove(ctx context.Context, s *store.Store, name string) error {
	c, err := s.Container(name)
	if err != nil {
		return err
	}
	if c.Restart != "" {
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
	if err := os.RemoveAll(e.bundle(name)); err != nil {
		return err
	}
	unlock, err := s.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	return s.RemoveContainer(name)
}

func (e *Env) inspect(ctx context.Context, words []string) error {
	if len(words) == 0 {
		return errors.New("want a NAME")
	}
	s, err := e.open()
	if err != nil {
		return err
	}
	out := []any{}
	for _, name := range words {
		if c, err := s.Container(name); err == nil {
			vs, err := e.views(ctx, []*store.Container{c})
			if err != nil {
				return err
			}
			out = append(out, vs[0])
			continue
		}
		r, err := ref.Parse(name)
		if err != nil {
			return err
		}
		rec, err := s.Image(r)
		if err != nil {
			return fmt.Errorf("%s is neither a container nor an image: %w", name, err)
		}
		img, err := s.Load(rec.Digest)
		if err != nil {
			return err
		}
		out = append(out, struct {
			*store.Record
			Config any `json:"config"`
			Layers any `json:"layers"`
		}{rec, img.Config.Config, img.Layers})
	}
	return e.json(out)
}

func (e *Env) images(words []string, asJSON bool) error {
	if err := exactly(words); err != nil {
		return err
	}
	s, err := e.open()
	if err != nil {
		return err
	}
	list, err := s.Images()
	if err != nil {
		return err
	}
	if asJSON {
		if list == nil {
			list = []*store.Record{}
		}
		return e.json(list)
	}
	w := tabwriter.NewWriter(e.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "IMAGE\tDIGEST\tSIZE\tPULLED")
	for _, r := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Name, r.Top.Hex()[:12], size(r.Size), r.Pulled.Local().Format(time.DateTime))
	}
	return w.Flush()
}

func (e *Env) rmi(words []string) error {
	if len(words) == 0 {
		return errors.New("want an IMAGE")
	}
	s, err := e.open()
	if err != nil {
		return err
	}
	unlock, err := s.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	for _, w := range words {
		r, err := ref.Parse(w)
		if err != nil {
			return err
		}
		if err := s.Untag(r); err != nil {
			return err
		}
		fmt.Fprintln(e.Out, r)
	}
	return nil
}

func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
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
