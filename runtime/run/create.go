package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/script"
	"github.com/proa-os/proa/runtime/seccomp"
	"github.com/proa-os/proa/runtime/spec"
)

// Options say what to create.
type Options struct {
	ID      string
	Bundle  string // directory with config.json
	PidFile string // written before the workload runs; "" for none
	Follow  bool   // kill the workload when the calling thread ends
}

// Create makes a container up to the point where Start lets the workload run.
func (r Root) Create(o Options) error {
	_, err := r.launch(o, true)
	return err
}

// Run makes a container and lets the workload run. It returns the first process, which is a child of this one; when this
// one ends it goes on.
func (r Root) Run(o Options) (*Process, error) { return r.launch(o, false) }

func (r Root) launch(o Options, listen bool) (_ *Process, err error) {
	if err := CheckID(o.ID); err != nil {
		return nil, err
	}
	bundle, err := filepath.Abs(o.Bundle)
	if err != nil {
		return nil, err
	}
	s, raw, err := spec.Load(bundle)
	if err != nil {
		return nil, err
	}
	k := &creation{spec: s, bundle: bundle, options: o, listen: listen, c: &Container{
		State:   specs.State{Version: specs.Version, ID: o.ID, Bundle: bundle, Annotations: s.Annotations},
		Created: time.Now(),
		dir:     filepath.Join(string(r), o.ID),
	}}
	if k.filter, err = compile(s); err != nil {
		return nil, err
	}
	if err := k.c.makeDir(raw); err != nil {
		return nil, err
	}
	defer func() {
		k.close()
		if err != nil {
			k.undo()
		}
	}()
	if err := k.make(); err != nil {
		return nil, err
	}
	return k.child.proc, nil
}

// A creation is a container on its way to created or running.
type creation struct {
	spec    *specs.Spec
	filter  *seccomp.Program
	bundle  string
	options Options
	listen  bool
	c       *Container
	child   *child
	mounts  []spec.Mount
	made    []int // mounts whose file system the child makes
	opened  []*os.File
}

// make goes through the steps of package run's picture.
func (k *creation) make() error {
	l, err := k.prepare()
	if err != nil {
		return err
	}
	if k.child, err = l.start(); err != nil {
		return err
	}
	if l.ids != nil {
		if err := k.child.tell(); err != nil {
			return err
		}
	}
	m, err := k.child.ready()
	if err != nil {
		return err
	}
	if err := k.enterRoot(m.fds, l.ids); err != nil {
		return err
	}
	if err := k.dress(); err != nil {
		return err
	}
	if err := k.child.tell(); err != nil {
		return err
	}
	if _, err := k.child.ready(); err != nil {
		return err
	}
	if err := k.record(); err != nil {
		return err
	}
	if err := k.child.tell(); err != nil {
		return err
	}
	if k.listen {
		return nil
	}
	return executed(int(k.child.talk.Fd()))
}

// prepare does what comes before the child: descriptors, cgroup, joined namespaces.
func (k *creation) prepare() (*launching, error) {
	l := &launching{}
	var err error
	if k.listen {
		if l.extra, err = k.c.listen(); err != nil {
			return nil, err
		}
		k.opened = append(k.opened, l.extra)
	}
	if k.spec.Linux.CgroupsPath != "" {
		if k.c.Cgroup, l.group, err = makeCgroup(k.spec.Linux.CgroupsPath); err != nil {
			return nil, err
		}
		k.opened = append(k.opened, l.group)
	}
	ns, err := spec.Namespaces(k.spec.Linux.Namespaces)
	if err != nil {
		return nil, err
	}
	if l.flags, err = joinNamespaces(ns); err != nil {
		return nil, err
	}
	l.ids = newIDMaps(k.spec, l.flags)
	for i, m := range k.spec.Mounts {
		pm, err := spec.ParseMount(m)
		if err != nil {
			return nil, fmt.Errorf("mounts[%d] (%s): %w", i, m.Destination, err)
		}
		k.mounts = append(k.mounts, pm)
	}
	cgroupNS := ns[specs.CgroupNamespace]
	l.write = func(b *script.Builder, f fds) error {
		p := &plan{Builder: b, spec: k.spec, process: k.spec.Process, filter: k.filter, fds: f, flags: l.flags, listen: k.listen, follow: k.options.Follow}
		if err := p.begin(); err != nil {
			return err
		}
		if l.ids != nil {
			p.enterUserNS()
		}
		if cgroupNS.Wanted && cgroupNS.Path == "" {
			// Not with clone: the new namespace must be rooted in the group that clone put this process in.
			p.Call("make cgroup namespace", unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
		}
		p.namespaces()
		k.made = p.fileSystems(k.mounts)
		return p.workload()
	}
	return l, nil
}

// dress gives the child what only its parent may set, and what is easier from outside.
func (k *creation) dress() error {
	pid := k.child.proc.Pid
	if a := k.spec.Process.OOMScoreAdj; a != nil {
		if err := setFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), strconv.Itoa(*a)); err != nil {
			return fmt.Errorf("process.oomScoreAdj: %w", err)
		}
	}
	return setLimits(pid, k.spec.Process)
}

// setLimits sets the resource limits of a process.
func setLimits(pid int, p *specs.Process) error {
	limits, err := spec.Rlimits(p.Rlimits)
	if err != nil {
		return err
	}
	for i, l := range limits {
		if err := unix.Prlimit(pid, l.Resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil); err != nil {
			return fmt.Errorf("process.rlimits[%d] (%s %d %d): %w", i, p.Rlimits[i].Type, l.Soft, l.Hard, err)
		}
	}
	return nil
}

// record writes the state and the pid file: from now on the container is created.
func (k *creation) record() error {
	c := k.c
	var err error
	c.Pid = k.child.proc.Pid
	if c.Started, err = startTicks(c.Pid); err != nil {
		return fmt.Errorf("create %s: %w", c.ID, err)
	}
	if err := c.writeState(); err != nil {
		return fmt.Errorf("create %s: %w", c.ID, err)
	}
	if k.options.PidFile != "" {
		if err := writeFile(k.options.PidFile, []byte(strconv.Itoa(c.Pid))); err != nil {
			return fmt.Errorf("write pid file: %w", err)
		}
	}
	return nil
}

func (k *creation) close() {
	for _, f := range k.opened {
		f.Close()
	}
	if k.child != nil {
		k.child.talk.Close()
	}
}

// undo leaves nothing behind. The first error tells the reason; these have nothing to add.
func (k *creation) undo() {
	if k.child != nil {
		k.child.proc.end()
	}
	removeCgroup(k.c.Cgroup)
	os.RemoveAll(k.c.dir)
	if k.options.PidFile != "" {
		os.Remove(k.options.PidFile)
	}
}

// Start lets the workload of a created container run.
func (r Root) Start(id string) error {
	c, err := r.Load(id)
	if err != nil {
		return err
	}
	if c.Status != specs.StateCreated {
		return fmt.Errorf("start %s: it is %s, not created", id, c.Status)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	conn := os.NewFile(uintptr(fd), "start")
	defer conn.Close()
	err = c.atSocket(func(a *unix.SockaddrUnix) error { return unix.Connect(fd, a) })
	if err == nil {
		_, err = unix.Write(fd, []byte{'G'})
	}
	if err == nil {
		err = executed(fd)
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	if err := os.Remove(filepath.Join(c.dir, "start.sock")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("start %s: %w", id, err)
	}
	return nil
}

func compile(s *specs.Spec) (*seccomp.Program, error) {
	if s.Linux.Seccomp == nil {
		return nil, nil
	}
	return seccomp.Compile(s.Linux.Seccomp)
}

// makeDir takes the ID: of two callers one makes the directory.
func (c *Container) makeDir(config []byte) error {
	if err := os.MkdirAll(filepath.Dir(c.dir), 0o711); err != nil {
		return fmt.Errorf("create %s: %w", c.ID, err)
	}
	err := os.Mkdir(c.dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create %s: a container with this ID exists: delete it first", c.ID)
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", c.ID, err)
	}
	if err := newFile(filepath.Join(c.dir, "config.json"), config); err != nil {
		os.RemoveAll(c.dir)
		return fmt.Errorf("create %s: %w", c.ID, err)
	}
	return nil
}

func (c *Container) listen() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", c.ID, err)
	}
	f := os.NewFile(uintptr(fd), "start.sock")
	err = c.atSocket(func(a *unix.SockaddrUnix) error { return unix.Bind(fd, a) })
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("create %s: listen for start: %w", c.ID, err)
	}
	return f, nil
}

// atSocket calls f with an address that fits sun_path however long the directory is.
func (c *Container) atSocket(f func(*unix.SockaddrUnix) error) error {
	dir, err := os.Open(c.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return f(&unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/start.sock", dir.Fd())})
}

// joinNamespaces enters those given by path with this thread, whose child inherits them, and returns the clone flags for
// the new ones. The cgroup namespace is made by stage two.
func joinNamespaces(ns map[specs.LinuxNamespaceType]spec.Namespace) (uint64, error) {
	runtime.LockOSThread() // for good: the thread is in other namespaces from now on
	flags := uint64(0)
	for t, n := range ns {
		flag := spec.CloneFlag(t)
		if n.Path == "" {
			if t != specs.CgroupNamespace {
				flags |= uint64(flag)
			}
			continue
		}
		f, err := os.Open(n.Path)
		if err != nil {
			return 0, fmt.Errorf("linux.namespaces (%s): %w", t, err)
		}
		err = unix.Setns(int(f.Fd()), int(flag))
		f.Close()
		if err != nil {
			return 0, fmt.Errorf("linux.namespaces (%s): join %s: %w", t, n.Path, err)
		}
	}
	return flags, nil
}
