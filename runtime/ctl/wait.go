package ctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/store"
)

// wait prints exit codes.
func wait(ctx context.Context, c *call) error {
	for _, name := range c.args {
		k, err := c.container(name)
		if err != nil {
			return err
		}
		x, err := c.waitFor(ctx, k)
		if err != nil {
			return err
		}
		fmt.Fprintln(c.Out, x.Code)
	}
	return nil
}

// waitFor waits for the end of a container's run, which ended notes after the last process has gone.
func (c *call) waitFor(ctx context.Context, k *store.Container) (*store.Exit, error) {
	begun := time.Now().Add(-5 * time.Second) // it may have been about to go when its record was read
	if k.Created.After(begun) {
		begun = k.Created
	}
	before, err := c.store.Exit(k.Name)
	if err != nil {
		return nil, err
	}
	v, err := c.notEnding(ctx, k) // what is noted by now may be this run's, after which nothing more comes
	if err != nil {
		return nil, err
	}
	if v.over() {
		x, err := c.store.Exit(k.Name) // anew: it may have ended since
		if err != nil || x != nil {
			return x, err
		}
		if _, err := c.store.Container(k.Name); err != nil {
			return c.toldExit(ctx, k, begun, err)
		}
		return nil, fmt.Errorf("%s has never run", k.Name)
	}
	dir, err := watchDir(c.store.ContainerDir(k.Name))
	if errors.Is(err, os.ErrNotExist) {
		return c.toldExit(ctx, k, begun, err)
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	stop := context.AfterFunc(ctx, func() { dir.SetReadDeadline(time.Now()) })
	defer stop()
	for b := make([]byte, 4096); ; {
		x, err := c.store.Exit(k.Name)
		if err != nil {
			return nil, err
		}
		if x != nil && (before == nil || !x.Finished.Equal(before.Finished)) {
			return x, nil
		}
		if _, err := c.store.Container(k.Name); err != nil {
			return c.toldExit(ctx, k, begun, err)
		}
		if _, err := dir.Read(b); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// toldExit asks the journal how a container has ended that is removed by now: one with --rm goes together with its record.
func (c *call) toldExit(ctx context.Context, k *store.Container, since time.Time, gone error) (*store.Exit, error) {
	exec.CommandContext(ctx, c.Journal, "--sync").Run() // else it may not have heard of it
	args, err := addTimes([]string{"--output=json", "PROA_EVENT=die", "PROA_EVENT=oom", "PROA_CONTAINER=" + k.Name}, since.Format(time.RFC3339Nano), "", since)
	if err != nil {
		return nil, err
	}
	var x *store.Exit
	err = c.journal(ctx, args, func(j entry) error {
		n, err := strconv.Atoi(j.text("PROA_EXIT_CODE"))
		if err == nil && x == nil {
			x = &store.Exit{Code: n, OOM: j.text("PROA_EVENT") == "oom", Started: k.Created, Finished: j.time()}
		}
		return nil
	})
	if x == nil {
		return nil, errors.Join(gone, err)
	}
	return x, nil
}

// watchDir returns what a read of blocks until something in the directory changes (inotify(7)).
func watchDir(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO|unix.IN_CREATE|unix.IN_MODIFY|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF); err != nil {
		f.Close()
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	return f, nil
}
