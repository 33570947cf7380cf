package run

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/brief"
	"github.com/proa-os/proa/runtime/cgroup"
	"github.com/proa-os/proa/runtime/script"
	"github.com/proa-os/proa/runtime/spec"
)

// Exec runs one more process in the running container o.ID: as config.json says about the first one, with change applied.
// It returns a child of this process, in the container's cgroup and namespaces. o.Bundle is not used.
func (r Root) Exec(o Options, change func(*specs.Process) error) (*Process, error) {
	id := o.ID
	runtime.LockOSThread() // as launch
	brief.Prepare()
	c, err := r.Load(id)
	if err != nil {
		return nil, err
	}
	if c.Status != specs.StateRunning && c.Status != specs.StateCreated && !(c.Status == StatePaused && o.Paused) {
		return nil, fmt.Errorf("execute in %s: it is %s", id, c.Status)
	}
	s, err := c.config()
	if err != nil {
		return nil, err
	}
	if err := change(s.Process); err != nil {
		return nil, err
	}
	if err := spec.CheckProcess(s.Process); err != nil {
		return nil, err
	}
	settleEnv(s.Process, c.rootDir())
	return r.spawn(c, s, s.Process, o)
}

// rootDir is the container's root as this process sees it.
func (c *Container) rootDir() string {
	if c.Mounted != "" {
		return c.Mounted
	}
	return fmt.Sprintf("/proc/%d/root", c.Pid)
}

// spawn makes a process in a container, which may still wait for its start.
func (r Root) spawn(c *Container, s *specs.Spec, process *specs.Process, o Options) (*Process, error) {
	filter, err := compile(s)
	if err != nil {
		return nil, err
	}
	// Before join: in the cgroup namespace of the container its group is "/".
	in, err := cgroup.Of(c.Pid)
	if err != nil {
		return nil, fmt.Errorf("enter cgroup of %s: %w", c.ID, err)
	}
	group, err := in.Open()
	if err != nil {
		return nil, fmt.Errorf("enter cgroup of %s: %w", c.ID, err)
	}
	defer group.Close() // nil is no error
	console, terminal, err := o.console(process)
	if err != nil {
		return nil, err
	}
	for _, f := range []*os.File{console, terminal} {
		if f != nil {
			defer f.Close()
		}
	}
	init, late, err := c.join(s)
	if err != nil {
		return nil, fmt.Errorf("enter %s: %w", c.ID, err)
	}
	defer init.Close()
	l := &launching{group: group, extra: init, console: console, preserve: o.Preserve, stdin: o.stdin}
	if late&unix.CLONE_NEWTIME != 0 || late&unix.CLONE_NEWUSER != 0 && !direct() {
		l.forks = 1 // a second Go process has threads, and the first child shares its memory
	}
	l.write = func(b *script.Builder, f fds) error {
		p := &plan{Builder: b, spec: s, process: process, filter: filter, fds: f, follow: o.Follow, program: o.program,
			userNS: late&unix.CLONE_NEWUSER != 0, warn: o.Warn}
		if l.forks > 0 {
			p.fork(0)
		}
		if err := p.begin(c.ID, true); err != nil {
			return err
		}
		if process.ExecCPUAffinity == nil {
			p.allProcessors()
		}
		// As root: for a process of another user the caller needs CAP_SYS_RESOURCE.
		if err := p.limits(); err != nil {
			return err
		}
		// A thread can enter a mount namespace only if it shares its root with no other thread.
		p.Call("enter the container", unix.SYS_UNSHARE, unix.CLONE_FS)
		if late&unix.CLONE_NEWUSER != 0 {
			p.Call("enter the container's user namespace", unix.SYS_SETNS, f.extra, unix.CLONE_NEWUSER)
			p.becomeRoot()
		}
		p.Call("enter the container's mounts, cgroup and time", unix.SYS_SETNS, f.extra, late&^unix.CLONE_NEWUSER)
		p.Call("enter the container", unix.SYS_CLOSE, f.extra)
		if c.Mounted != "" {
			p.Call("enter the container's root", unix.SYS_CHDIR, c.Mounted)
			p.Call("enter the container's root", unix.SYS_CHROOT, ".")
		}
		if err := p.openLabels(); err != nil {
			return err
		}
		if len(l.affinity) > 0 {
			p.Call("process.execCPUAffinity.final", unix.SYS_SCHED_SETAFFINITY, 0, 8*len(l.affinity), p.Words(l.affinity...))
		}
		if process.Terminal {
			p.console(false)
		}
		return p.workload()
	}
	initial, final, err := spec.Affinity(process.ExecCPUAffinity)
	if err != nil {
		return nil, err
	}
	l.affinity = final
	if len(initial) > 0 {
		// This thread's, which the child has from it: the thread is given up after this anyway.
		if err := setAffinity(initial); err != nil {
			return nil, fmt.Errorf("process.execCPUAffinity.initial: %w", err)
		}
	}
	child, err := l.start()
	if errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.ENODEV) {
		// What clone says of a pid namespace whose first process has ended, and of a removed cgroup.
		return nil, fmt.Errorf("execute in %s: it has ended: %w", c.ID, err)
	}
	if err != nil {
		return nil, err
	}
	defer child.talk.Close()
	if err := in.Add(child.proc.Pid); err != nil {
		child.proc.end()
		return nil, fmt.Errorf("execute in %s: %w", c.ID, err)
	}
	if err := c.execute(child, terminal, o, s, process); err != nil {
		child.proc.end()
		return nil, fmt.Errorf("execute in %s: %w", c.ID, err)
	}
	return child.proc, nil
}

// setAffinity is sched_setaffinity(2) for this thread.
func setAffinity(mask []uint64) error {
	_, _, e := unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, uintptr(8*len(mask)), uintptr(unsafe.Pointer(&mask[0])))
	if e != 0 {
		return e
	}
	return nil
}

// execute leads a child of Exec to its workload.
func (k *Container) execute(c *child, terminal *os.File, o Options, s *specs.Spec, p *specs.Process) error {
	fd := int(c.talk.Fd())
	if _, err := k.ready(fd, c.proc.Pid, c.proc.pidfd, s); err != nil {
		return err
	}
	if err := c.takeTerminal(terminal, o.Plain); err != nil {
		return err
	}
	if a := p.OOMScoreAdj; a != nil {
		if err := setFile(fmt.Sprintf("/proc/%d/oom_score_adj", c.proc.Pid), strconv.Itoa(*a)); err != nil {
			return fmt.Errorf("process.oomScoreAdj: %w", err)
		}
	}
	if k.Rdt != "" {
		if err := setFile(filepath.Join(k.Rdt, "tasks"), strconv.Itoa(c.proc.Pid)); err != nil {
			return fmt.Errorf("linux.intelRdt: %w", err)
		}
	}
	if o.PidFile != "" {
		if err := writeFile(o.PidFile, []byte(strconv.Itoa(c.proc.Pid))); err != nil {
			return err
		}
	}
	if err := c.tell(); err != nil {
		return err
	}
	return k.executed(fd, c.proc.Pid, c.proc.pidfd, s)
}

// config reads back what the container was made of.
func (c *Container) config() (*specs.Spec, error) {
	b, err := readFile(filepath.Join(c.dir, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("read configuration of %s: %w", c.ID, err)
	}
	s, err := spec.Decode(b)
	if err != nil {
		return nil, fmt.Errorf("read configuration of %s: %w", c.ID, err)
	}
	return s, nil
}

// join puts this thread into the container's namespaces but those that stage two must enter by itself: the mounts, and
// the cgroup namespace, because with cgroup2's nsdelegate (as systemd mounts it) a thread inside cannot clone a child from
// its own group, which is outside, into the container's. It returns a pidfd of the container's first process and the
// clone flags that are left. The descriptor is opened before the pid is compared, so all of it concerns the same process.
func (c *Container) join(s *specs.Spec) (*os.File, int, error) {
	fd, err := c.pidfd()
	if err != nil {
		return nil, 0, err
	}
	now, late := 0, unix.CLONE_NEWNS
	for _, n := range s.Linux.Namespaces {
		switch n.Type {
		case specs.MountNamespace:
		case specs.TimeNamespace:
			late |= unix.CLONE_NEWTIME
		case specs.UserNamespace:
			late |= unix.CLONE_NEWUSER
		case specs.CgroupNamespace:
			late |= unix.CLONE_NEWCGROUP
		default:
			now |= int(spec.CloneFlag(n.Type))
		}
	}
	runtime.LockOSThread() // for good: the thread is in the container from now on
	if now != 0 {
		if err := unix.Setns(fd, now); err != nil {
			unix.Close(fd)
			return nil, 0, err
		}
	}
	return os.NewFile(uintptr(fd), "container"), late, nil
}
