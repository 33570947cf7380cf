package run

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/brief"
	"github.com/proa-os/proa/runtime/cgroup"
	"github.com/proa-os/proa/runtime/scope"
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

	Console  string   // socket that gets the master of a process's terminal
	Preserve int      // this many descriptors from 3 on go to the workload
	Listen   []string // what the environment says of these, if the configuration does not
	Systemd  bool     // the cgroup is a scope of systemd's
	Keyring  bool     // stay in the caller's session keyring
	Plain    bool     // a terminal that is this process's own matter ends lines as the workload does, without a carriage return
	Paused   bool     // Exec: wait with a paused container until it goes on

	Warn func(string) // is told what of the configuration is left out, as config.md allows; nil for nobody

	Stdio  int                 // socket with a message that has this process's standard descriptors, closed then; 0 for none
	Enter  []int               // descriptors of namespaces to enter first, which are closed
	Before func(pid int) error // called when the container is there, before its workload runs; nil for nothing
	Failed func(error)         // called when the container cannot be, before it is undone; nil for nothing
	// Sister makes the workload a child of this process's parent, where the processor's assembly allows (package script): a service
	// manager then has it as its own from the first moment on. This process cannot wait for it.
	Sister bool

	program string   // of a hook, instead of the first argument
	stdin   *os.File // of a hook
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
	if err := takeStdio(o.Stdio); err != nil {
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
	if !slices.ContainsFunc(s.Process.Env, func(e string) bool { return strings.HasPrefix(e, "LISTEN_FDS=") }) {
		s.Process.Env = append(s.Process.Env, o.Listen...)
	}
	settleEnv(s.Process, within(bundle, s.Root.Path))
	runtime.LockOSThread() // for good: processes are made on this thread, which is nobody's but the caller's
	if err := enter(o.Enter); err != nil {
		return nil, err
	}
	if s.Hooks == nil {
		brief.Prepare() // threads that Go makes from now on may not make processes
	}
	k := &creation{root: r, spec: s, bundle: bundle, options: o, listen: listen, c: &Container{
		State:   specs.State{Version: specs.Version, ID: o.ID, Bundle: bundle, Annotations: s.Annotations},
		Created: time.Now().UTC(), // the local time zone is a file to read
		dir:     filepath.Join(string(r), o.ID),

		hookless: s.Hooks == nil,
	}}
	if k.filter, err = compile(s); err != nil {
		return nil, err
	}
	zeroPids(s)
	if k.settings, err = settings(s.Linux.Resources); err != nil {
		return nil, err
	}
	if err := k.c.makeDir(raw); err != nil {
		return nil, err
	}
	defer func() {
		k.close()
		if err != nil {
			if o.Failed != nil {
				o.Failed(err)
			}
			k.undo()
		}
	}()
	if err := k.make(); err != nil {
		return nil, err
	}
	k.child.proc.of = k.c
	return k.child.proc, nil
}

// zeroPids takes a pids.limit of 0 out of configurations older than 1.3 of the specification, for which the number was no pointer:
// engines wrote 0 for "no limit".
func zeroPids(s *specs.Spec) {
	major, rest, _ := strings.Cut(s.Version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	if n, err := strconv.Atoi(minor); major != "1" || err != nil || n >= 3 || s.Linux.Resources == nil {
		return
	}
	if p := s.Linux.Resources.Pids; p != nil && p.Limit != nil && *p.Limit == 0 {
		s.Linux.Resources.Pids = nil
	}
}

// A creation is a container on its way to created or running.
type creation struct {
	spec     *specs.Spec
	filter   *seccomp.Program
	bundle   string
	options  Options
	listen   bool
	c        *Container
	root     Root
	child    *child
	settings []cgroup.Setting
	mounts   []spec.Mount

	controllers map[int]hierarchy // of mounts that show groups of version 1
	made        []int             // mounts whose file system the child makes
	opened      []*os.File
	terminal    *os.File    // where the master of a terminal comes in that is this process's own matter
	shared      string      // the root directory of a container without a mount namespace of its own, in the caller's; or ""
	scope       *scope.Unit // with Options.Systemd
	netlink     *netlink    // of the caller's network namespace, for linux.netDevices
	hooked      bool        // hooks have run, so those of poststop must
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
	if err := k.moveIn(); err != nil {
		return err
	}
	if l.ids != nil {
		if err := k.child.tell(); err != nil {
			return err
		}
	}
	m, err := k.ready()
	if err != nil {
		return err
	}
	ids := l.ids
	if l.paths.user != nil {
		if ids, err = readIDMaps(k.child.proc.Pid, k.spec.Linux); err != nil {
			closeAll(m.fds)
			return err
		}
	}
	if err := k.enterRoot(m.fds, ids); err != nil {
		return err
	}
	if err := k.dress(); err != nil {
		return err
	}
	if err := k.moveDevices(k.netlink, k.child.proc.pidfd); err != nil {
		return err
	}
	if err := k.child.tell(); err != nil {
		return err
	}
	if _, err := k.ready(); err != nil {
		return err
	}
	if err := k.child.takeTerminal(k.terminal, k.options.Plain); err != nil {
		return err
	}
	if err := k.record(); err != nil {
		return err
	}
	if k.options.Before != nil {
		if err := k.options.Before(k.c.Pid); err != nil {
			return err
		}
	}
	if !k.listen {
		if err := k.root.startHooks(k.c, k.spec, k.c.Pid); err != nil {
			return err
		}
	}
	if err := k.child.tell(); err != nil {
		return err
	}
	if k.listen {
		return nil
	}
	if err := k.c.executed(int(k.child.talk.Fd()), k.c.Pid, k.child.proc.pidfd, k.spec); err != nil {
		return err
	}
	return k.c.poststart(k.spec)
}

func (k *creation) ready() (message, error) {
	return k.c.ready(int(k.child.talk.Fd()), k.child.proc.Pid, k.child.proc.pidfd, k.spec)
}

// runtimeHooks are those that run when all is mounted and the container has yet to get its root (config.md, "POSIX-platform Hooks").
func (k *creation) runtimeHooks() error {
	h := k.spec.Hooks
	if h == nil {
		return nil
	}
	k.hooked = true
	state := k.c.stateAs(specs.StateCreating, k.child.proc.Pid)
	if err := runHooks("prestart", h.Prestart, state, -1); err != nil {
		return err
	}
	if err := runHooks("createRuntime", h.CreateRuntime, state, -1); err != nil {
		return err
	}
	return runHooks("createContainer", h.CreateContainer, state, k.child.proc.pidfd)
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
	if l.group, err = k.makeCgroup(); err != nil {
		return nil, err
	}
	if l.console, k.terminal, err = k.options.console(k.spec.Process); err != nil {
		return nil, err
	}
	for _, f := range []*os.File{l.console, k.terminal} {
		if f != nil {
			k.opened = append(k.opened, f)
		}
	}
	l.preserve, l.sister = k.options.Preserve, k.options.Sister && direct()
	ns, err := spec.Namespaces(k.spec.Linux.Namespaces)
	if err != nil {
		return nil, err
	}
	if len(k.spec.Linux.NetDevices) > 0 {
		if k.netlink, err = openNetlink(); err != nil {
			return nil, fmt.Errorf("linux.netDevices: %w", err)
		}
	}
	if err := k.joinNamespaces(l, ns); err != nil {
		return nil, err
	}
	l.ids = newIDMaps(k.spec, l.flags)
	if !ns[specs.MountNamespace].Wanted {
		k.shared = within(k.bundle, k.spec.Root.Path)
	}
	if err := k.parseMounts(ns); err != nil {
		return nil, err
	}
	if label := k.spec.Linux.MountLabel; label != "" {
		if !hasSELinux() {
			return nil, errors.New("linux.mountLabel: SELinux is not enabled on this machine")
		}
		labelMounts(k.mounts, label)
	}
	l.write = func(b *script.Builder, f fds) error {
		p := &plan{Builder: b, spec: k.spec, process: k.spec.Process, filter: k.filter, fds: f, flags: l.flags, listen: k.listen, follow: k.options.Follow,
			userNS: ns[specs.UserNamespace].Wanted, warn: k.options.Warn}
		p.joinPaths(l)
		if k.moved() {
			p.await(f.talk)
		}
		if err := p.begin(k.c.ID, !k.options.Keyring); err != nil {
			return err
		}
		p.allProcessors()
		if l.ids != nil {
			p.enterUserNS()
		}
		if isNew(ns[specs.CgroupNamespace]) {
			// Not with clone: the new namespace must be rooted in the group that clone put this process in.
			p.Call("make cgroup namespace", unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
		}
		if isNew(ns[specs.TimeNamespace]) {
			// It is entered by execve. Until then the caller sets its clocks.
			p.Call("make time namespace", unix.SYS_UNSHARE, unix.CLONE_NEWTIME)
		}
		p.namespaces()
		if err := p.openLabels(); err != nil {
			return err
		}
		k.made = p.fileSystems(k.mounts)
		if k.shared != "" {
			// The file systems of the container are below its root, in the caller's mount namespace, until it is deleted.
			p.Call("root.path: enter", unix.SYS_CHDIR, k.shared)
			p.Call("root.path: make it the root", unix.SYS_CHROOT, ".")
		}
		if k.spec.Process.Terminal {
			p.console(true)
		}
		return p.workload()
	}
	return l, nil
}

func (k *creation) parseMounts(ns map[specs.LinuxNamespaceType]spec.Namespace) error {
	for i, m := range k.spec.Mounts {
		pm, err := spec.ParseMount(m)
		if err != nil {
			return fmt.Errorf("mounts[%d] (%s): %w", i, m.Destination, err)
		}
		if pm.Type == "cgroup2" && !k.ownCgroupNS() && (k.c.Cgroup != "" || k.scope != nil || ns[specs.UserNamespace].Wanted) {
			// A new instance would show all groups of the machine, or is not for this user namespace to make.
			pm.Type, pm.Source = "bind", ""
		}
		k.mounts = append(k.mounts, pm)
	}
	return k.legacyCgroups()
}

func isNew(n spec.Namespace) bool { return n.Wanted && n.Path == "" }

func (k *creation) close() {
	k.netlink.close()
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
	k.c.removeGroup()
	k.c.removeRdt()
	k.c.unmount()
	os.RemoveAll(k.c.dir)
	if k.hooked {
		k.c.poststop(k.spec)
	}
	if k.options.PidFile != "" {
		os.Remove(k.options.PidFile)
	}
}

func compile(s *specs.Spec) (*seccomp.Program, error) {
	if s.Linux.Seccomp == nil {
		return nil, nil
	}
	return seccomp.Compile(s.Linux.Seccomp)
}
