package run

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/script"
)

// Start lets the workload of a created container run.
func (r Root) Start(id string) error {
	c, err := r.Load(id)
	if err != nil {
		return err
	}
	if c.Status != specs.StateCreated {
		return fmt.Errorf("start %s: it is %s, not created", id, c.Status)
	}
	s, err := c.config()
	if err != nil {
		return err
	}
	if err := r.startHooks(c, s, c.Pid); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", id, err), r.Delete(id, true))
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	conn := os.NewFile(uintptr(fd), "start")
	defer conn.Close()
	pidfd, err := c.pidfd()
	if err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	defer unix.Close(pidfd)
	err = c.atSocket(func(a *unix.SockaddrUnix) error { return unix.Connect(fd, a) })
	if err == nil {
		_, err = unix.Write(fd, []byte{'G'})
	}
	if err == nil {
		err = c.executed(fd, c.Pid, pidfd, s)
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	if err := os.Remove(filepath.Join(c.dir, "start.sock")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("start %s: %w", id, err)
	}
	if err := c.poststart(s); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", id, err), r.Delete(id, true))
	}
	return nil
}

// next waits for the next message of process pid but hands on a seccomp listener on the way. A process that has executed its
// workload says nothing more: io.EOF.
func (c *Container) next(fd, pid, pidfd int, s *specs.Spec) (message, error) {
	for {
		m, err := hear(fd)
		if err != nil || m.kind != script.KindNotify {
			return m, err
		}
		if err := c.handOver(m.fd, pid, pidfd, s.Linux.Seccomp); err != nil {
			return m, err
		}
		if _, err := unix.Write(fd, []byte{'G'}); err != nil {
			return m, fmt.Errorf("talk to the container: %w", err)
		}
	}
}

// executed waits until the process has become the workload.
func (c *Container) executed(fd, pid, pidfd int, s *specs.Spec) error {
	m, err := c.next(fd, pid, pidfd, s)
	switch {
	case err == io.EOF:
		return nil
	case err == nil:
		return fmt.Errorf("hear from the container: unexpected message %q", rune(m.kind))
	}
	return err
}

// ready waits until the process has come to its next stop.
func (c *Container) ready(fd, pid, pidfd int, s *specs.Spec) (message, error) {
	m, err := c.next(fd, pid, pidfd, s)
	switch {
	case err == io.EOF:
		return m, errSilent
	case err == nil && m.kind != script.KindReady:
		return m, fmt.Errorf("hear from the container: unexpected message %q", rune(m.kind))
	}
	return m, err
}

// poststart runs the hooks of a container that has started. One that fails ends it (runtime.md, "Lifecycle", step 9).
func (c *Container) poststart(s *specs.Spec) error {
	if s.Hooks == nil {
		return nil
	}
	return runHooks("poststart", s.Hooks.Poststart, c.stateAs(specs.StateRunning, c.Pid), -1)
}
