package ctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/run"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/unit"
)

// declaredVerbs are what units of declared containers call (package quadlet).
func declaredVerbs() []verb {
	return []verb{
		{name: "declared", elsewhere: elsewhere, args: "IMAGE [COMMAND [ARGUMENTS]]", min: 1, max: -1, last: true, hidden: true, what: "make a declared container anew and start its workload (for its unit)",
			setup: func(s *flagset.Set) action {
				d := &declared{runFlags: newRunFlags()}
				d.runFlags.flags(s)
				d.flags(s)
				return d.run
			}},
		{name: "declared-stop", args: "NAME", min: 1, max: 1, hidden: true, what: "stop a declared container's workload (for its unit)", setup: plain(declaredStop)},
	}
}

// A declared container is described by its unit's command line, each time it starts: what it was before does not matter.
type declared struct {
	*runFlags
	unit       string
	foreground bool
	retry      int
	retryDelay time.Duration
	envHost    bool
	httpProxy  bool
}

func (d *declared) flags(s *flagset.Set) {
	d.httpProxy, d.retryDelay = true, 2*time.Second
	s.String(&d.unit, "unit", "UNIT", "the unit that the container is")
	s.Bool(&d.foreground, "foreground", "stay until the workload ends (Type=oneshot)")
	s.Int(&d.retry, 0, "retry", "NUMBER", "how often to try again to fetch the image")
	duration(s, &d.retryDelay, "retry-delay", "time between these tries")
	s.Bool(&d.envHost, "env-host", "give the workload the unit's environment")
	s.Bool(&d.httpProxy, "http-proxy", "=false: do not give it the unit's proxies")
}

func (d *declared) run(ctx context.Context, c *call) error {
	if d.unit == "" || d.c.Name == "" {
		return errors.New("is for the units of declared containers: see containerctl run")
	}
	d.c.Unit, d.c.Restart = d.unit, "no"
	if err := errors.Join(d.net.check(&d.c), checkNamespaces(&d.c), d.setQuota()); err != nil {
		return err
	}
	d.environment()
	var k *store.Container
	for try := 0; ; try++ {
		var err error
		if k, err = c.describe(ctx, d.runFlags); err == nil {
			break
		}
		if try >= d.retry {
			return err
		}
		fmt.Fprintf(c.Err, "containerctl: %v: trying again in %v\n", printable(err.Error()), d.retryDelay)
		select {
		case <-time.After(d.retryDelay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := c.replace(k, d.userns); err != nil {
		return err
	}
	c.args = []string{k.Name}
	if d.foreground {
		return c.become(ctx, k.Name)
	}
	return launch(ctx, c)
}

// environment adds what comes from the unit's. What the file says comes later and holds.
func (d *declared) environment() {
	var out []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		proxy := slices.Contains([]string{"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"}, strings.ToLower(name))
		own := slices.Contains([]string{"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "MEMORY_PRESSURE_WATCH",
			"MEMORY_PRESSURE_WRITE", "PATH", "HOME", "LANG", "USER", "LOGNAME", "SHELL", "WATCHDOG_PID", "WATCHDOG_USEC", "CREDENTIALS_DIRECTORY", "RUNTIME_DIRECTORY"}, name)
		if proxy && d.httpProxy || d.envHost && !own && !proxy {
			out = append(out, e)
		}
	}
	d.fileEnv = append(out, d.fileEnv...)
}

// replace puts the container into the store, in the place of its last run.
func (c *call) replace(k *store.Container, userns string) error {
	unlock, err := c.store.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	old, err := c.store.Container(k.Name)
	switch {
	case errors.Is(err, store.ErrNoContainer):
	case err != nil:
		return err
	case old.Unit != k.Unit:
		return fmt.Errorf("container %s belongs to %s: say another ContainerName=, or remove that one", k.Name, unit.Of(old))
	default:
		// What a killed oci-runtime has left goes as well.
		if err := c.OCIRoot.Delete(k.Name, true); err != nil {
			return err
		}
		if err := c.store.RemoveContainer(old); err != nil {
			return err
		}
		if err := removeAnonymous(c.store, old); err != nil {
			return err
		}
	}
	all, err := c.store.Containers()
	if err != nil {
		return err
	}
	if k.IDs, err = allotIDs(all, userns); err != nil {
		return err
	}
	if err := c.planNetwork(k, true); err != nil {
		return err
	}
	return c.store.AddContainer(k)
}

// readySocket makes a socket for a workload to say on that it is ready. It is not systemd's own: on that one a process of root's, which
// the workload may be, could name any process of the machine as the unit's main one, for systemd to kill.
func readySocket(dir string) (fd int, path string, err error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return -1, "", err
	}
	path = filepath.Join(dir, "notify.sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return -1, "", err
	}
	if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = os.Chmod(path, 0o777) // whoever the workload runs as
	}
	if err != nil {
		return -1, "", fmt.Errorf("make socket %s: %w", path, err)
	}
	return fd, path, nil
}

// await waits until the workload is ready, as far as the container says what that is.
func (c *call) await(ctx context.Context, k *store.Container, socket int) error {
	st, err := c.OCIRoot.Load(k.Name)
	if err != nil {
		return err
	}
	if k.AwaitHealth {
		return c.awaitHealth(ctx, k)
	}
	return awaitReady(st, socket)
}

// awaitHealth tries the health check until it succeeds. How long that may take is the unit's TimeoutStartSec=.
func (c *call) awaitHealth(ctx context.Context, k *store.Container) error {
	for {
		failure := c.tryHealth(ctx, k)
		if failure == nil {
			return nil
		}
		if st, err := c.OCIRoot.Load(k.Name); err != nil || st.Status != "running" {
			return fmt.Errorf("%s ended before it was healthy; its health check said: %w", k.Name, failure)
		}
		select {
		case <-time.After(min(k.Health.Interval, 5*time.Second)):
		case <-ctx.Done():
			return fmt.Errorf("%s is not healthy: %w", k.Name, failure)
		}
	}
}

// awaitReady waits for READY=1 on the socket, or for the end of the workload.
func awaitReady(st *run.Container, socket int) error {
	pidfd, err := unix.PidfdOpen(st.Pid, 0)
	if err != nil {
		return fmt.Errorf("%s ended before it said that it was ready", st.ID)
	}
	defer unix.Close(pidfd)
	for {
		fds := []unix.PollFd{{Fd: int32(socket), Events: unix.POLLIN}, {Fd: int32(pidfd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for %s: %w", st.ID, err)
		}
		switch {
		case fds[0].Revents != 0:
			buf := make([]byte, 4096)
			n, _, err := unix.Recvfrom(socket, buf, 0)
			if err == nil && slices.Contains(strings.Split(string(buf[:n]), "\n"), "READY=1") {
				return nil
			}
		case fds[1].Revents != 0:
			return fmt.Errorf("%s ended before it said that it was ready", st.ID)
		}
	}
}

// declaredStop ends the workload as the container's stop signal and time say.
func declaredStop(_ context.Context, c *call) error {
	k, err := c.container(c.args[0])
	if err != nil {
		return err
	}
	st, err := c.OCIRoot.Load(k.Name)
	if errors.Is(err, run.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	sig, err := stopSignal(k)
	if err != nil {
		return err
	}
	return st.Stop(sig, unit.StopTimeout(k))
}

// declaredUp are the declared containers whose unit is up, coming up or has failed. One that is down, or has done its work, is meant to.
func (c *call) declaredUp(ctx context.Context, all []*store.Container) (map[string]bool, error) {
	var units []string
	for _, k := range all {
		if k.Unit != "" {
			units = append(units, k.Unit)
		}
	}
	if len(units) == 0 {
		return nil, nil
	}
	states, err := c.Units.Status(ctx, units)
	if err != nil {
		return nil, err
	}
	out := make(map[string]bool)
	for _, k := range all {
		st, ok := states[k.Unit]
		out[k.Name] = ok && k.Unit != "" && st.Load == "loaded" && st.Active != "inactive" && st.Active != "deactivating" && !(st.Active == "active" && st.Sub == "exited")
	}
	return out, nil
}

// withdraw stops the unit of a declared container that is to be removed. As long as the declaration is there the next start would bring
// the container back, so that is refused.
func (e *Env) withdraw(ctx context.Context, k *store.Container) error {
	states, err := e.Units.Status(ctx, []string{k.Unit})
	if err != nil {
		return err
	}
	if st := states[k.Unit]; st.Load == "loaded" {
		return fmt.Errorf("%s is declared: it is the unit %s: remove its file, systemctl daemon-reload, and stop it", k.Name, k.Unit)
	}
	if err := e.Units.Stop(ctx, k.Unit); err != nil && !notLoaded(err) {
		return err
	}
	return nil
}
