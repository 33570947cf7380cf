package ctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/bundle"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/unit"
)

// A container that lives for one run in the foreground is what people wait for who run one short command. This process prepares it, in
// namespaces that it hands to the unit as descriptors, and cleans up behind it; oci-runtime is the one program that the unit executes for
// it. Systemd is told of the unit over D-Bus, without a file.
//
//	containerctl run ──> overlay, bundle, network ──> StartTransientUnit ──> oci-runtime run --unit ──> the workload
//	                                                                         enters the namespaces
//	containerctl run <── how it ended (PropertiesChanged) ──> everything removed
//	containerctl ended (ExecStopPost=) waits until this process is done, or does the same if that was killed

// fitsOnce reports whether a container that is to run in the foreground can go this way.
func fitsOnce(k *store.Container) bool {
	return k.Remove && k.Restart == "no" && k.Preserve == 0 && !k.Notify && !k.AwaitHealth
}

// once runs such a container.
func (c *call) once(ctx context.Context, k *store.Container) error {
	a, err := c.attachTerminal(k)
	if err != nil {
		return err
	}
	err = c.attend(ctx, k, a, true, func(ctx context.Context) error {
		ends, err := c.startOnce(ctx, k, a)
		if err != nil {
			return err
		}
		c.event(k, "start", k.Name+" runs "+k.Image)
		go func() {
			if end, ok := <-ends; ok {
				a.ended <- c.cleanUp(ctx, k, c.exitOfOnce(ctx, k, end))
			} else if x, err := c.store.Exit(k.Name); err == nil && x != nil { // ended has noted it
				a.ended <- c.cleanUp(ctx, k, x)
			} else {
				close(a.ended)
			}
		}()
		return nil
	})
	var failed startError
	if !errors.As(err, &failed) {
		return err
	}
	if errors.Is(err, errInterrupted) { // systemd may have the unit by now, or get it at this moment
		c.Units.Queue(context.WithoutCancel(ctx), "stop", unit.Name(k.Name))
	}
	if away := c.takeAway(context.WithoutCancel(ctx), c.store, k); !errors.Is(away, store.ErrNoContainer) {
		err = errors.Join(err, away)
	}
	return err
}

// startOnce prepares the container and has systemd start it.
func (c *call) startOnce(ctx context.Context, k *store.Container, a *attachment) (<-chan unit.End, error) {
	release, err := c.store.HoldStart(k) // until systemd has it: who removes it then stops it
	if err != nil {
		return nil, err
	}
	defer release()
	c.wake(ctx, k)
	dir := c.bundle(k.Name)
	namespaces, err := c.furnish(ctx, k, dir)
	defer func() {
		for _, f := range namespaces {
			f.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	words := []string{"/usr/bin/oci-runtime", "run", "--unit", "--failure-file", filepath.Join(dir, failureFile), "--bundle", dir}
	for i := range namespaces {
		words = append(words, "--enter", unit.FileName(i))
	}
	stdio, err := a.parcel()
	if err != nil {
		return nil, err
	}
	defer stdio.Close()
	words = append(words, "--stdio", unit.FileName(len(namespaces)))
	if k.Terminal {
		words = append(words, "--console-socket", filepath.Join(dir, consoleSocket))
	}
	text := unit.Once(k, strings.Join(append(words, k.Name), " "), "/usr/bin/containerctl ended "+k.Name+" "+k.Instance)
	files := unit.Files(append(slices.Clone(namespaces), stdio))
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		ends, err := c.Units.Once(ctx, unit.Name(k.Name), text, files)
		// Systemd may be about to forget the last one of that name.
		if !errors.Is(err, unit.ErrTaken) || time.Now().After(deadline) {
			if errors.Is(err, unit.ErrTaken) {
				err = fmt.Errorf("container name %s: systemd has a unit %s already: choose another name", k.Name, unit.Name(k.Name))
			}
			var failed *unit.StartError
			if errors.As(err, &failed) {
				switch s := failed.End.Status; {
				case failed.End.Code != unit.Exited || s > 127: // systemd's own codes are from 200 on
					err = startError{failed, ourFailure}
				case s == 126 || s == 127:
					err = startError{exit(1), s} // oci-runtime has said why
				default:
					err = startError{exit(1), ourFailure}
				}
			}
			return ends, err
		}
	}
}

// failureFile has, in a bundle, the exit code of a workload that could not be executed when systemd had been told of it.
const failureFile = "failure"

// wake starts the container whose namespaces this one shares, as Wants= of a unit would.
func (c *call) wake(ctx context.Context, k *store.Container) {
	for _, mode := range []string{k.Network, k.PID} {
		if other, ok := strings.CutPrefix(mode, "container:"); ok {
			if x, err := c.store.Container(other); err == nil && x.Instance == "" {
				c.Units.Start(ctx, unit.Of(x)) // furnish tells if it does not run
			}
		}
	}
}

// parcel is a socket with the standard descriptors in it. Systemd would hold the descriptors themselves until the unit has gone, give them to
// all of its programs, and look after terminals.
func (a *attachment) parcel() (*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("pass standard descriptors on: %w", err)
	}
	rights := unix.UnixRights(int(a.stdio[0].Fd()), int(a.stdio[1].Fd()), int(a.stdio[2].Fd()))
	err = unix.Sendmsg(pair[0], []byte{'k'}, rights, nil, 0)
	unix.Close(pair[0])
	if err != nil {
		unix.Close(pair[1])
		return nil, fmt.Errorf("pass standard descriptors on: %w", err)
	}
	return os.NewFile(uintptr(pair[1]), "standard descriptors"), nil
}

// furnish makes the container's bundle, and returns the namespaces in which oci-runtime finds it.
func (c *call) furnish(ctx context.Context, k *store.Container, dir string) (namespaces []*os.File, err error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	start := bundle.Start{Terminal: k.Terminal}
	if start.Init, err = filepath.EvalSymlinks(c.OCIRuntime[0]); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() { // on a thread that ends with it, being in other namespaces
		defer close(done)
		runtime.LockOSThread()
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			return
		}
		unix.Umask(0o022) // as a unit has it, whatever the caller's is
		if err = c.enterNetwork(ctx, k.Name); err != nil {
			return
		}
		if start.PIDs, err = c.pidNamespace(k); err != nil {
			return
		}
		if err = bundle.Prepare(c.store, k.Name, dir, start); err != nil {
			return
		}
		if err = c.writeNames(k.Name); err != nil {
			return
		}
		names := []string{"mnt"}
		if k.Network != "host" && k.Network != "none" {
			names = append(names, "net")
		}
		for _, n := range names {
			var f *os.File
			if f, err = os.Open("/proc/thread-self/ns/" + n); err != nil {
				return
			}
			namespaces = append(namespaces, f)
		}
	}()
	<-done
	return namespaces, err
}

// exitOfOnce is what systemd and oci-runtime tell of the end.
func (c *call) exitOfOnce(ctx context.Context, k *store.Container, end unit.End) *store.Exit {
	x := &store.Exit{Code: ourFailure, Result: end.Result, Started: k.Created, Finished: time.Now().UTC()}
	if st, err := c.OCIRoot.Load(k.Name); err == nil {
		x.Started = st.Created.UTC()
	}
	switch end.Code {
	case unit.Exited:
		x.Code = end.Status
	case unit.Killed, unit.Dumped:
		x.Code, x.Signal = 128+end.Status, strings.TrimPrefix(unix.SignalName(unix.Signal(end.Status)), "SIG")
	}
	if x.Code == 0 {
		return x
	}
	if b, err := os.ReadFile(filepath.Join(c.bundle(k.Name), failureFile)); err == nil {
		x.Started, x.Signal, x.Code = time.Time{}, "", ourFailure
		if n, err := strconv.Atoi(string(b)); err == nil && n > 1 {
			x.Code = n
		}
		return x
	}
	// The unit's cgroup is there until ended, which waits for this process, has ended.
	if dir, err := c.Units.ControlGroup(ctx, unit.Name(k.Name)); err == nil {
		n, _ := cgroupNumber(filepath.Join(dir, "memory.events"), "oom_kill")
		x.OOM = n > 0
	} else if noted, err := c.store.Exit(k.Name); err == nil && noted != nil {
		x.OOM = noted.OOM // this process was so late that systemd has not waited for ended
	}
	x.OOM = x.OOM || end.Result == "oom-kill"
	return x
}

// cleanUp notes how the workload ended and removes the container.
func (c *call) cleanUp(ctx context.Context, k *store.Container, x *store.Exit) *store.Exit {
	if !isThere(c.store, k) {
		return x // rm -f was faster
	}
	err := c.store.SetExit(k, x) // for whoever waits for it elsewhere
	c.tellEnd(k, x)
	away := c.takeAway(ctx, c.store, k)
	if errors.Is(away, store.ErrNoContainer) {
		away = nil // rm -f was faster
	}
	if err := errors.Join(err, away); err != nil {
		fmt.Fprintf(c.Err, "containerctl: remove %s: %v\n", k.Name, err)
	}
	return x
}
