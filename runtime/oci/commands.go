package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/run"
	"github.com/proa-os/proa/runtime/spec"
)

// commands is the table that both parsing and --help use.
func (g *global) commands() []command {
	o := run.Options{Bundle: ".", Systemd: g.systemd, Warn: g.warn}
	var detach, force, all, quiet bool
	grace := 10
	sig := "TERM"
	format := "table"
	exec, up, inUnit := new(execOptions), new(updateOptions), new(unitFlags)
	bundle := func(s *flagset.Set) {
		s.String(&o.Bundle, "b,bundle", "DIR", "directory with config.json (default: here)")
		s.String(&o.PidFile, "pid-file", "FILE", "write the first process's pid here before it runs")
		s.String(&o.Console, "console-socket", "SOCKET", "send the master of the process's terminal here")
		s.Int(&o.Preserve, 0, "preserve-fds", "N", "hand on N descriptors from 3 on")
		s.Bool(&o.Keyring, "no-new-keyring", "stay in the caller's session keyring")
	}
	return []command{
		{"run", "[flags] ID", "create and start a container; wait for its end unless --detach", func(s *flagset.Set) {
			bundle(s)
			s.Bool(&detach, "d,detach", "return when the workload runs")
			inUnit.flags(s)
		}, true, func(ctx context.Context, w []string) (int, error) { return inUnit.run(ctx, g, w, o, detach) }},
		{"create", "[flags] ID", "set a container up, short of running its workload", bundle, true,
			func(_ context.Context, w []string) (int, error) {
				var err error
				if o.ID, err = one(w, "ID"); err != nil {
					return 1, err
				}
				if err := run.Protect(); err != nil {
					return 1, err
				}
				listenFDs(&o)
				return 0, g.root.Create(o)
			}},
		{"start", "ID", "let the workload of a created container run", nil, true,
			func(_ context.Context, w []string) (int, error) {
				id, err := one(w, "ID")
				if err != nil {
					return 1, err
				}
				return 0, g.root.Start(id)
			}},
		{"state", "ID", "print a container's state as JSON", nil, true,
			func(_ context.Context, w []string) (int, error) { return 0, g.state(w) }},
		{"list", "[flags]", "print all containers, one a line", func(s *flagset.Set) {
			s.Bool(&quiet, "q,quiet", "IDs only")
			s.String(&format, "f,format", "FORMAT", "table (default) or json")
		}, true, func(context.Context, []string) (int, error) { return 0, g.list(quiet, format) }},
		{"kill", "ID [SIGNAL]", "send a signal (default TERM) to the first process", func(s *flagset.Set) {
			s.Bool(&all, "a,all", "send it to all processes")
		}, true, func(_ context.Context, w []string) (int, error) { return 0, g.kill(w, all) }},
		{"stop", "[flags] ID", "send a signal, wait, then kill (not of the OCI: for systemd's ExecStop=)", func(s *flagset.Set) {
			s.String(&sig, "signal", "SIGNAL", "the signal (default TERM)")
			s.Int(&grace, 0, "t,time", "SECONDS", "how long to wait before killing (default 10)")
		}, true, func(_ context.Context, w []string) (int, error) {
			return 0, g.stop(w, sig, time.Duration(grace)*time.Second)
		}},
		{"delete", "[flags] ID", "remove what is left of a stopped container", func(s *flagset.Set) {
			s.Bool(&force, "f,force", "kill it first; no error if there is none")
		}, true, func(_ context.Context, w []string) (int, error) {
			id, err := one(w, "ID")
			if err != nil {
				return 1, err
			}
			return 0, g.root.Delete(id, force)
		}},
		{"exec", "[flags] ID COMMAND [ARGUMENTS]", "run one more process in a running container", exec.flags, false,
			func(ctx context.Context, w []string) (int, error) { return g.exec(ctx, w, exec) }},
		{"pause", "ID", "freeze all processes", nil, true,
			func(_ context.Context, w []string) (int, error) { return 0, g.pause(w, true) }},
		{"resume", "ID", "let frozen processes go on", nil, true,
			func(_ context.Context, w []string) (int, error) { return 0, g.pause(w, false) }},
		{"ps", "[flags] ID", "list the container's processes", func(s *flagset.Set) {
			s.String(&format, "f,format", "FORMAT", "table (default) or json: an array of pids")
		}, true, func(_ context.Context, w []string) (int, error) { return 0, g.ps(w, format) }},
		{"update", "[flags] ID", "change limits", up.flags, true,
			func(_ context.Context, w []string) (int, error) { return 0, g.update(w, up) }},
		{"features", "", "print what this runtime supports as JSON (runtime-spec features.md)", nil, true,
			func(context.Context, []string) (int, error) { return 0, g.features() }},
	}
}

// listenFDs hands on the sockets of a caller that systemd has activated (sd_listen_fds(3)), who may be the engine: the workload finds them
// behind standard error, and itself in LISTEN_PID.
func listenFDs(o *run.Options) {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n <= 0 {
		return
	}
	o.Listen = []string{"LISTEN_FDS=" + strconv.Itoa(n), "LISTEN_PID=1"}
	if names := os.Getenv("LISTEN_FDNAMES"); names != "" {
		o.Listen = append(o.Listen, "LISTEN_FDNAMES="+names)
	}
	o.Preserve = max(o.Preserve, n)
}

func (g *global) run(ctx context.Context, words []string, o run.Options, detach bool) (int, error) {
	var err error
	if o.ID, err = one(words, "ID"); err != nil {
		return 1, err
	}
	if err := run.Protect(); err != nil {
		return 1, err
	}
	listenFDs(&o)
	o.Follow, o.Plain = !detach, !isTerminal(1)
	var c *caught
	if !detach {
		if c, err = catch(ctx); err != nil {
			return 1, err
		}
	}
	p, err := g.root.Run(o)
	if err != nil {
		return 1, err
	}
	if detach {
		return 0, nil
	}
	code, err := c.supervise(ctx, p)
	if err != nil {
		return 1, err
	}
	return code, p.Delete()
}

func (g *global) state(words []string) error {
	id, err := one(words, "ID")
	if err != nil {
		return err
	}
	c, err := g.root.Load(id)
	if err != nil {
		return err
	}
	return g.json(c.State)
}

func (g *global) list(quiet bool, format string) error {
	cs, err := g.root.List()
	if err != nil {
		return err
	}
	if quiet {
		for _, c := range cs {
			fmt.Fprintln(g.out, c.ID)
		}
		return nil
	}
	if format == "json" {
		states := []specs.State{}
		for _, c := range cs {
			states = append(states, c.State)
		}
		return g.json(states)
	}
	w := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED")
	for _, c := range cs {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", c.ID, c.Pid, c.Status, c.Bundle, c.Created.Format(time.RFC3339))
	}
	return w.Flush()
}

func (g *global) json(v any) error {
	e := json.NewEncoder(g.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func (g *global) kill(words []string, all bool) error {
	if len(words) < 1 || len(words) > 2 {
		return fmt.Errorf("kill: want ID and perhaps a signal, found %d arguments", len(words))
	}
	sig := unix.SIGTERM
	if len(words) == 2 {
		var err error
		if sig, err = spec.Signal(words[1]); err != nil {
			return err
		}
	}
	c, err := g.root.Load(words[0])
	if err != nil {
		return err
	}
	if all {
		return c.SignalAll(sig)
	}
	return c.Signal(sig)
}

func (g *global) stop(words []string, name string, grace time.Duration) error {
	id, err := one(words, "ID")
	if err != nil {
		return err
	}
	sig, err := spec.Signal(name)
	if err != nil {
		return err
	}
	c, err := g.root.Load(id)
	if err != nil {
		return err
	}
	return c.Stop(sig, grace)
}

// execOptions are the flags of exec.
type execOptions struct {
	process, pidFile, console string
	preserve                  int
	detach, ignorePaused      bool
	shellCodes                bool
	changes                   []func(*specs.Process)
}

func (e *execOptions) flags(s *flagset.Set) {
	var groups []uint32
	change := func(f func(*specs.Process)) error { e.changes = append(e.changes, f); return nil }
	s.String(&e.process, "p,process", "FILE", "the process section to run, as JSON, instead of COMMAND")
	s.String(&e.pidFile, "pid-file", "FILE", "write the process's pid here before it runs")
	s.Bool(&e.detach, "d,detach", "return when it runs")
	s.String(&e.console, "console-socket", "SOCKET", "send the master of the process's terminal here")
	s.Int(&e.preserve, 0, "preserve-fds", "N", "hand on N descriptors from 3 on")
	s.Bool(&e.ignorePaused, "ignore-paused", "in a paused container wait until it goes on")
	s.Bool(&e.shellCodes, "shell-codes", "end with 127 or 126, as shells do, if there is no program to execute (default 255, as for all errors)")
	s.Func("t,tty", "", "with a terminal", func(string) error { return change(func(p *specs.Process) { p.Terminal = true }) })
	s.Func("no-new-privs", "", "with no_new_privs", func(string) error { return change(func(p *specs.Process) { p.NoNewPrivileges = true }) })
	s.Func("apparmor", "PROFILE", "AppArmor profile", func(v string) error {
		return change(func(p *specs.Process) { p.ApparmorProfile = v })
	})
	s.Func("process-label", "LABEL", "SELinux label", func(v string) error {
		return change(func(p *specs.Process) { p.SelinuxLabel = v })
	})
	s.Func("c,cap", "CAPABILITY", "one more capability (repeatable)", func(v string) error {
		return change(func(p *specs.Process) {
			if p.Capabilities == nil {
				p.Capabilities = &specs.LinuxCapabilities{}
			}
			for _, l := range []*[]string{&p.Capabilities.Bounding, &p.Capabilities.Effective, &p.Capabilities.Permitted} {
				*l = append(*l, v)
			}
			if slices.Contains(p.Capabilities.Inheritable, v) {
				p.Capabilities.Ambient = append(p.Capabilities.Ambient, v)
			}
		})
	})
	s.Func("cwd", "DIR", "working directory", func(v string) error {
		return change(func(p *specs.Process) { p.Cwd = v })
	})
	s.Func("e,env", "NAME=VALUE", "environment variable (repeatable)", func(v string) error {
		name, _, _ := strings.Cut(v, "=")
		return change(func(p *specs.Process) {
			p.Env = slices.DeleteFunc(p.Env, func(old string) bool { return strings.HasPrefix(old, name+"=") })
			p.Env = append(p.Env, v)
		})
	})
	s.Func("g,additional-gids", "GID", "one more group (repeatable)", func(v string) error {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			return errors.New("want a number")
		}
		groups = append(groups, uint32(n))
		return change(func(p *specs.Process) { p.User.AdditionalGids = groups })
	})
	s.Func("u,user", "UID[:GID]", "numeric user and group", func(v string) error {
		uid, gid, both := strings.Cut(v, ":")
		u, err := strconv.ParseUint(uid, 10, 32)
		n := uint64(0)
		if both && err == nil {
			n, err = strconv.ParseUint(gid, 10, 32)
		}
		if err != nil {
			return errors.New("want UID or UID:GID as numbers")
		}
		return change(func(p *specs.Process) {
			p.User.UID, p.User.AdditionalGids = uint32(u), groups
			if both {
				p.User.GID = uint32(n)
			}
		})
	})
}

// execFailed is the exit code of exec that says that the command has not run: few commands end with it.
const execFailed = 255

func (g *global) exec(ctx context.Context, words []string, e *execOptions) (int, error) {
	if len(words) < 1 || (len(words) == 1) != (e.process != "") {
		return execFailed, errors.New("exec: want ID and a command, or ID and --process")
	}
	change := func(p *specs.Process) error {
		if e.process != "" {
			b, err := os.ReadFile(e.process)
			if err != nil {
				return fmt.Errorf("read process: %w", err)
			}
			*p = specs.Process{}
			if err := json.Unmarshal(b, p); err != nil {
				return fmt.Errorf("read process %s: %w", e.process, err)
			}
		} else {
			p.Args, p.Terminal = words[1:], false
		}
		for _, f := range e.changes {
			f(p)
		}
		return nil
	}
	if err := run.Protect(); err != nil {
		return execFailed, err
	}
	var c *caught
	if !e.detach {
		var err error
		if c, err = catch(ctx); err != nil {
			return execFailed, err
		}
	}
	p, err := g.root.Exec(run.Options{ID: words[0], PidFile: e.pidFile, Follow: !e.detach, Console: e.console, Preserve: e.preserve, Paused: e.ignorePaused, Plain: !isTerminal(1), Warn: g.warn}, change)
	var command *run.CommandError
	if e.shellCodes && errors.As(err, &command) {
		return command.Code(), err
	}
	if err != nil {
		return execFailed, err
	}
	if e.detach {
		return 0, nil
	}
	return c.supervise(ctx, p)
}
