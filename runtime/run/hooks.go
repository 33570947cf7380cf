package run

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// memoryFile is an unnamed file with content, to be read by a child.
func memoryFile(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(content); err != nil {
		f.Close()
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		f.Close()
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	return f, nil
}

// stateAs is the container's state for hooks and seccomp agents.
func (c *Container) stateAs(status specs.ContainerState, pid int) specs.State {
	s := c.State
	s.Status, s.Pid = status, pid
	return s
}

// runHooks runs hooks one after the other with the state on standard input. With a pidfd they run in that process's namespaces, but
// with the programs of the caller as long as the container has not got its root yet.
func runHooks(field string, hooks []specs.Hook, state specs.State, pidfd int) error {
	if len(hooks) == 0 {
		return nil
	}
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	for i, h := range hooks {
		do := func() error { return runHook(h, text, "") }
		if pidfd >= 0 {
			// Whoever enters a mount namespace is at its root.
			do = func() error { return inNamespaces(pidfd, func() error { return runHook(h, text, state.Bundle) }) }
		}
		if err := do(); err != nil {
			return fmt.Errorf("hooks.%s[%d] (%s): %w", field, i, h.Path, err)
		}
	}
	return nil
}

// inNamespaces calls do on a thread that has joined the namespaces of a process but its user namespace, and then ends that thread.
func inNamespaces(pidfd int, do func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Setns(pidfd, unix.CLONE_NEWNS|unix.CLONE_NEWUTS|unix.CLONE_NEWIPC|unix.CLONE_NEWNET|unix.CLONE_NEWPID|unix.CLONE_NEWCGROUP)
		}
		if err != nil {
			result <- fmt.Errorf("enter the container's namespaces: %w", err)
			return
		}
		result <- do()
	}()
	return <-result
}

func runHook(h specs.Hook, state []byte, dir string) error {
	in, err := memoryFile("state", state)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := memoryFile("output", nil)
	if err != nil {
		return err
	}
	defer out.Close()
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	env := h.Env
	if env == nil {
		env = os.Environ() // as with others; an empty list is one
	}
	pidfd := -1
	p, err := os.StartProcess(h.Path, args, &os.ProcAttr{Dir: dir, Env: append([]string{}, env...), Files: []*os.File{in, out, out}, Sys: &syscall.SysProcAttr{PidFD: &pidfd}})
	if err != nil {
		return err
	}
	proc := &Process{Pid: p.Pid, pidfd: pidfd}
	p.Release()
	defer unix.Close(pidfd)
	if h.Timeout != nil && !waitPidfd(pidfd, time.Duration(*h.Timeout)*time.Second) {
		proc.end()
		return fmt.Errorf("no end after %d s", *h.Timeout)
	}
	code, err := proc.Wait()
	if err != nil || code == 0 {
		return err
	}
	said := make([]byte, 1000)
	n, _ := out.ReadAt(said, 0)
	return fmt.Errorf("exit code %d: %s", code, strings.Join(strings.Fields(string(said[:n])), " "))
}

// startHooks runs the hooks of startContainer: in the container, with the workload's rights.
func (r Root) startHooks(c *Container, s *specs.Spec, pid int) error {
	if s.Hooks == nil {
		return nil
	}
	for i, h := range s.Hooks.StartContainer {
		if err := r.startHook(c, s, pid, h); err != nil {
			return fmt.Errorf("hooks.startContainer[%d] (%s): %w", i, h.Path, err)
		}
	}
	return nil
}

func (r Root) startHook(c *Container, s *specs.Spec, pid int, h specs.Hook) error {
	text, err := json.Marshal(c.stateAs(specs.StateCreated, pid))
	if err != nil {
		return err
	}
	in, err := memoryFile("state", text)
	if err != nil {
		return err
	}
	defer in.Close()
	process := *s.Process
	process.Args, process.Terminal, process.Cwd = h.Args, false, "/"
	if h.Env != nil {
		process.Env = h.Env
	}
	if len(process.Args) == 0 {
		process.Args = []string{h.Path}
	}
	type ended struct {
		code int
		err  error
	}
	result := make(chan ended, 1)
	started := make(chan *Process, 1)
	// On a thread of its own, which stays in the container's namespaces until it ends.
	go func() {
		p, err := r.spawn(c, s, &process, Options{ID: c.ID, program: h.Path, stdin: in})
		started <- p
		if err != nil {
			result <- ended{1, err}
			return
		}
		code, err := p.Wait()
		result <- ended{code, err}
	}()
	p := <-started
	var timeout <-chan time.Time
	if h.Timeout != nil {
		timeout = time.After(time.Duration(*h.Timeout) * time.Second)
	}
	var e ended
	select {
	case e = <-result:
	case <-timeout:
		if p != nil {
			p.Signal(unix.SIGKILL)
		}
		<-result
		return fmt.Errorf("no end after %d s", *h.Timeout)
	}
	if e.err == nil && e.code != 0 {
		e.err = fmt.Errorf("exit code %d", e.code)
	}
	return e.err
}

// poststop runs the last hooks. The container is gone whatever they say, so their errors are only told.
func (c *Container) poststop(s *specs.Spec) error {
	if s == nil || s.Hooks == nil {
		return nil
	}
	var errs []error
	for _, h := range s.Hooks.Poststop {
		errs = append(errs, runHooks("poststop", []specs.Hook{h}, c.stateAs(specs.StateStopped, 0), -1))
	}
	return errors.Join(errs...)
}
