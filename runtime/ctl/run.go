package ctl

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/runtime/bundle"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/oci"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/unit"
)

// runFlags are the flags of run: most of them straight into the container.
type runFlags struct {
	c         store.Container
	detach    bool
	remove    bool
	tlsVerify bool
	pull      string
	healthCmd string
	health    store.Health
	noHealth  bool
	net       networkFlags
}

func runVerb() verb {
	return verb{name: "run", args: "IMAGE [COMMAND [ARGUMENTS]]", what: "make a container and start it", min: 1, max: -1, last: true, lister: "images",
		more: `With -d the container becomes the unit proa-<name>.service, runs in the background and, unless --restart no is
given, after every boot. Without -d it runs in the foreground and is removed when it ends.
The image is pulled if it is not there. Its network is "bridge", in which it finds other containers by their names, and -p leads a
port of the machine to it.`,
		setup: func(s *flagset.Set) action {
			r := newRunFlags()
			r.flags(s)
			return r.run
		}}
}

func newRunFlags() *runFlags {
	return &runFlags{tlsVerify: true, pull: "missing", health: store.Health{Interval: 5 * time.Second, Timeout: 10 * time.Second, Retries: 3}}
}

func (r *runFlags) flags(s *flagset.Set) {
	c := &r.c
	s.Bool(&r.detach, "d,detach", "run in the background as a systemd unit")
	s.Bool(&r.remove, "rm", "remove the container when it ends (always so without -d)")
	s.String(&c.Name, "name", "NAME", "the container's name (default: made up)")
	s.List(&c.Env, "e,env", "NAME[=VALUE]", "environment variable; without a value that of containerctl")
	s.Func("v,volume", "[SOURCE:]TARGET[:OPTIONS]", "a named volume, or a directory or file of the machine, in the container;\nwithout SOURCE a new volume; OPTIONS: ro, nocopy, U, noexec, rshared ...", func(v string) error { return addVolume(c, v) })
	secretFlag(s, c)
	r.net.flags(s, c)
	s.Func("restart", "POLICY", "with -d: always (default), unless-stopped, on-failure, no", func(v string) error {
		switch v {
		case "no", "always", "unless-stopped", "on-failure":
			c.Restart = v
			return nil
		}
		return errors.New("want always, unless-stopped, on-failure or no")
	})
	s.String(&c.User, "u,user", "USER[:GROUP]", "names or numbers (default: what the image says)")
	s.String(&c.WorkDir, "w,workdir", "DIR", "working directory in the container")
	s.String(&c.Hostname, "hostname", "NAME", "host name in the container (default: the container's name)")
	s.Func("entrypoint", "PROGRAM", "instead of the image's entrypoint; empty for none", func(v string) error {
		c.Entrypoint = []string{v}
		return nil
	})
	s.Bool(&c.ReadOnly, "read-only", "make the root file system read-only")
	s.List(&c.CapAdd, "cap-add", "CAP", "add a capability (ALL: all)")
	s.List(&c.CapDrop, "cap-drop", "CAP", "drop a capability (ALL: all)")
	s.Func("security-opt", "OPTION", "no-new-privileges", func(v string) error {
		if v != "no-new-privileges" && v != "no-new-privileges=true" && v != "no-new-privileges:true" {
			return errors.New("want no-new-privileges")
		}
		c.NoNewPrivileges = true
		return nil
	})
	s.Func("l,label", "KEY[=VALUE]", "label of the container", func(v string) error {
		if c.Labels == nil {
			c.Labels = make(map[string]string)
		}
		k, val, _ := strings.Cut(v, "=")
		c.Labels[k] = val
		return nil
	})
	s.Func("m,memory", "SIZE", "memory limit, for example 512m", func(v string) (err error) {
		c.Memory, err = parseSize(v)
		return err
	})
	s.Func("cpus", "NUMBER", "processor limit, for example 1.5", func(v string) (err error) {
		if c.CPUs, err = strconv.ParseFloat(v, 64); err != nil || !(c.CPUs >= 0.01 && c.CPUs <= 10000) {
			return errors.New("want a number of at least 0.01")
		}
		return nil
	})
	s.Int(&c.Pids, 1, "pids-limit", "NUMBER", "limit of processes and threads")
	s.String(&r.healthCmd, "health-cmd", "COMMAND", "shell command in the container that succeeds if it works")
	duration(s, &r.health.Interval, "health-interval", "time between tries of health (default 5s)")
	duration(s, &r.health.Timeout, "health-timeout", "time one try may take (default 10s)")
	s.Int(&r.health.Retries, 1, "health-retries", "NUMBER", "failures in a row that make it unhealthy (default 3)")
	s.Bool(&r.noHealth, "no-healthcheck", "leave out the image's health check")
	s.String(&c.StopSignal, "stop-signal", "SIGNAL", "what stop sends first (default TERM, or what the image says)")
	s.Int(&c.StopTimeout, 1, "stop-timeout", "SECONDS", "how long stop waits before killing (default 10)")
	s.Func("pull", "WHEN", "missing (default), always, never; newer: always, but without the registry what is here", func(v string) error {
		if v != "missing" && v != "always" && v != "never" && v != "newer" {
			return errors.New("want missing, always, newer or never")
		}
		r.pull = v
		return nil
	})
	s.Bool(&r.tlsVerify, "tls-verify", "=false: pull without TLS if need be")
}

func duration(s *flagset.Set, p *time.Duration, name, usage string) {
	s.Func(name, "DURATION", usage, func(v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d < time.Millisecond {
			return errors.New("want a duration such as 10s")
		}
		*p = d
		return nil
	})
}

func parseSize(v string) (int64, error) {
	units := map[byte]int64{'b': 1, 'k': 1 << 10, 'm': 1 << 20, 'g': 1 << 30}
	number, factor := v, int64(1)
	if n := len(v); n > 0 && units[v[n-1]|0x20] != 0 && v[n-1] > '9' {
		number, factor = v[:n-1], units[v[n-1]|0x20]
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > 1<<50/factor {
		return 0, errors.New("want a size such as 512m or 2g")
	}
	return n * factor, nil
}

// checkFlags refuses what does not go together.
func (r *runFlags) checkFlags() error {
	if err := r.net.check(&r.c); err != nil {
		return command.Wrong("run: %w", err)
	}
	if r.detach && r.remove {
		return command.Wrong("run: --rm together with -d is not supported: use containerctl rm")
	}
	if !r.detach && r.c.Restart != "" {
		return command.Wrong("run: --restart needs -d")
	}
	if !r.detach && (r.c.Memory > 0 || r.c.CPUs > 0 || r.c.Pids > 0) {
		return command.Wrong("run: --memory, --cpus and --pids-limit need -d: the unit has the limits")
	}
	if !r.detach && slices.ContainsFunc(r.c.CapAdd, func(n string) bool { return strings.TrimPrefix(strings.ToUpper(n), "CAP_") == "MKNOD" }) {
		return command.Wrong("run: --cap-add MKNOD needs -d: the unit's DevicePolicy= keeps the machine's disks from the container")
	}
	return nil
}

// run makes the container and starts it.
func (r *runFlags) run(ctx context.Context, c *call) error {
	if err := r.checkFlags(); err != nil {
		return err
	}
	k, err := c.describe(ctx, r)
	if err != nil {
		return err
	}
	if r.detach {
		if err := c.unitIsFree(ctx, c.store, k.Name); err != nil {
			return err
		}
	}
	unlock, err := c.store.Lock()
	if err != nil {
		return err
	}
	if err = c.planNetwork(k, true); err == nil {
		err = c.store.AddContainer(k)
	}
	unlock()
	if errors.Is(err, store.ErrExists) {
		return fmt.Errorf("%w: remove it first: containerctl rm %s", err, k.Name)
	}
	if err != nil {
		return err
	}
	if !r.detach {
		return c.runForeground(ctx, c.store, k)
	}
	if err := c.runUnit(ctx, k); err != nil {
		// What was asked for did not come to be: leave nothing that starts at the next boot.
		return errors.Join(err, c.remove(context.WithoutCancel(ctx), c.store, k.Name))
	}
	fmt.Fprintln(c.Out, k.Name)
	return nil
}

// unitIsFree refuses a name whose unit is somebody else's: proa-health.service, say, is the OS's own, and a container's unit in
// /etc would take its place.
func (e *Env) unitIsFree(ctx context.Context, s *store.Store, name string) error {
	if _, err := s.Container(name); err == nil {
		return nil // AddContainer has the better error
	}
	u := unit.Name(name)
	states, err := e.Units.Status(ctx, []string{u})
	if err != nil {
		return err
	}
	if load := states[u].Load; load != "not-found" {
		return fmt.Errorf("container name %s: systemd has a unit %s already (%s): choose another name", name, u, load)
	}
	return nil
}

// describe turns flags and image into a container.
func (c *call) describe(ctx context.Context, r *runFlags) (*store.Container, error) {
	name, rec, err := c.image(c.args[0])
	if r.pull == "always" && err == nil || r.pull != "never" && errors.Is(err, store.ErrNoImage) {
		rec, err = c.pullImage(ctx, c.store, name, !r.tlsVerify, "auto", false)
	} else if here := rec; r.pull == "newer" && err == nil {
		if rec, err = c.pullImage(ctx, c.store, name, !r.tlsVerify, "auto", false); err != nil {
			fmt.Fprintf(c.Err, "containerctl: %s: going on with the image that is here\n", printable(err.Error()))
			rec, err = here, nil
		}
	}
	if err != nil {
		return nil, err
	}
	img, err := c.store.Load(rec.Digest)
	if err != nil {
		return nil, err
	}
	k := r.c
	k.Image, k.Manifest, k.Layers = rec.Name, rec.Digest, img.Config.RootFS.DiffIDs
	k.Args = c.args[1:]
	k.Created = time.Now().UTC().Truncate(time.Second)
	if k.Name == "" {
		k.Name = fmt.Sprintf("%s-%06x", path.Base(strings.FieldsFunc(c.args[0], func(r rune) bool { return r == ':' || r == '@' })[0]), rand.N(1<<24))
	}
	if err := store.CheckName(k.Name); err != nil {
		return nil, err
	}
	if r.detach && k.Restart == "" {
		k.Restart = "always"
	}
	for i, v := range k.Env {
		if !strings.Contains(v, "=") {
			k.Env[i] = v + "=" + os.Getenv(v)
		}
	}
	if k.StopSignal == "" {
		k.StopSignal = img.Config.Config.StopSignal
	}
	if k.StopSignal != "" {
		if _, err := oci.ParseSignal(k.StopSignal); err != nil {
			return nil, err
		}
	}
	if k.Health, err = healthOf(r, &img.Config); err != nil {
		return nil, err
	}
	// All that can be wrong is found now and not at the next boot.
	if _, err := bundle.Spec(&k, &img.Config, bundle.User{}, bundle.Place{Rootfs: "/", Files: "/"}); err != nil {
		return nil, err
	}
	return &k, nil
}

// healthOf takes the check of the flags, or else the image's.
func healthOf(r *runFlags, img *image.Config) (*store.Health, error) {
	h := r.health
	switch own := img.Config.Healthcheck; {
	case r.healthCmd != "" && r.noHealth:
		return nil, errors.New("--health-cmd and --no-healthcheck exclude each other")
	case r.healthCmd != "":
		h.Command = []string{"/bin/sh", "-c", r.healthCmd}
	case r.noHealth || own == nil || len(own.Test) < 2:
		return nil, nil
	case own.Test[0] == "CMD":
		h.Command = own.Test[1:]
	case own.Test[0] == "CMD-SHELL":
		h.Command = []string{"/bin/sh", "-c", own.Test[1]}
	default:
		return nil, nil
	}
	if own := img.Config.Healthcheck; own != nil && r.healthCmd == "" {
		h.Timeout = max(own.Timeout, h.Timeout)
		h.Retries = max(own.Retries, h.Retries)
	}
	return &h, nil
}

// runUnit installs the unit and starts it.
func (e *Env) runUnit(ctx context.Context, c *store.Container) error {
	if err := unit.Install(e.UnitDir, c); err != nil {
		return err
	}
	if err := e.Units.Reload(ctx); err != nil {
		return err
	}
	if err := e.Units.Start(ctx, unit.Name(c.Name)); err != nil {
		return fmt.Errorf("%w%s", err, e.lastWords(ctx, c.Name))
	}
	return nil
}

// lastWords are the last lines of a container that did not start, for the error: the container itself is about to go.
func (e *Env) lastWords(ctx context.Context, name string) string {
	b, err := exec.CommandContext(ctx, e.Journal, "--quiet", "--no-pager", "--output=cat", "--lines=1", "_SYSTEMD_UNIT="+unit.Name(name)).Output()
	if err != nil || len(b) == 0 {
		return ""
	}
	return ": " + strings.TrimSpace(string(b))
}

// launch replaces this process by oci-runtime, in a mount namespace with the container's root.
func (e *call) launch(ctx context.Context, detach bool) error {
	args, err := e.prepare(ctx, e.args[0], detach)
	if err != nil {
		return err
	}
	// From the thread that prepare has locked: it alone is in the namespace.
	err = syscall.Exec(args[0], args, os.Environ())
	return fmt.Errorf("execute %s: %w", args[0], err)
}

// prepare makes the container's root in a mount namespace that this thread is in from here on, and returns the command for that thread.
func (e *call) prepare(ctx context.Context, name string, detach bool) ([]string, error) {
	// A power cut leaves no state, /run being empty then; a killed oci-runtime does.
	if err := e.OCIRoot.Delete(name, true); err != nil {
		return nil, err
	}
	dir := e.bundle(name)
	if err := os.MkdirAll(e.Run, 0o711); err != nil {
		return nil, err
	}
	if err := e.enterNetwork(ctx, name); err != nil {
		return nil, err
	}
	if err := bundle.Prepare(e.store, name, dir); err != nil {
		return nil, err
	}
	if err := e.writeNames(name); err != nil {
		return nil, err
	}
	args := append(append([]string{}, e.OCIRuntime...), "--root", string(e.OCIRoot), "run", "--bundle", dir)
	if detach {
		args = append(args, "--detach", "--pid-file", filepath.Join(dir, "pid"))
	}
	return append(args, name), nil
}

// runForeground runs the container as a child, with this terminal's input and output, and removes it at the end.
func (e *Env) runForeground(ctx context.Context, s *store.Store, c *store.Container) error {
	cmd := exec.Command("/proc/self/exe", "foreground", c.Name)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = e.In, e.Out, e.Err
	// Signals of the terminal reach the child as well; this process stays to clean up.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return errors.Join(err, e.remove(ctx, s, c.Name))
	}
	done := make(chan struct{})
	go func() {
		for {
			select {
			case sig := <-signals:
				if sig == syscall.SIGTERM { // not from the terminal: only this process got it
					cmd.Process.Signal(sig)
				}
			case <-done:
				return
			}
		}
	}()
	err := cmd.Wait()
	close(done)
	code := cmd.ProcessState.ExitCode()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		err = exit(code)
	}
	if rerr := e.remove(context.WithoutCancel(ctx), s, c.Name); rerr != nil {
		return rerr
	}
	return err
}
