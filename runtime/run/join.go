package run

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/spec"
)

// joined are open files of namespaces that only the child can enter; nil for none.
type joined struct{ user, time, mount *os.File }

// joinNamespaces enters those given by path with this thread, whose child inherits them, or opens them for the child. The clone flags
// of those that are new are in l.flags; the cgroup and the time namespace are made by the child.
func (k *creation) joinNamespaces(l *launching, ns map[specs.LinuxNamespaceType]spec.Namespace) error {
	runtime.LockOSThread() // for good: the thread is in other namespaces from now on
	for t, n := range ns {
		flag := spec.CloneFlag(t)
		if n.Path == "" {
			if t != specs.CgroupNamespace && t != specs.TimeNamespace {
				l.flags |= uint64(flag)
			}
			continue
		}
		f, err := os.Open(n.Path)
		if err != nil {
			return fmt.Errorf("linux.namespaces (%s): %w", t, err)
		}
		k.opened = append(k.opened, f)
		switch t {
		case specs.UserNamespace:
			l.paths.user = f
			continue
		case specs.TimeNamespace:
			l.paths.time = f
			continue
		case specs.MountNamespace:
			l.paths.mount = f
			continue
		}
		if err := k.notHosts(t, f); err != nil {
			return err
		}
		if err := unix.Setns(int(f.Fd()), int(flag)); err != nil {
			return fmt.Errorf("linux.namespaces (%s): join %s: %w", t, n.Path, err)
		}
	}
	if l.paths.user != nil || l.paths.time != nil || (l.paths.mount != nil && l.flags&unix.CLONE_NEWUSER != 0) {
		l.forks = 2
	}
	return nil
}

// takeStdio takes standard input, output and error from a message at a socket.
func takeStdio(socket int) error {
	if socket == 0 {
		return nil
	}
	b, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(3*4))
	_, n, _, _, err := unix.Recvmsg(socket, b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return fmt.Errorf("take standard descriptors: %w", err)
	}
	unix.Close(socket)
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return fmt.Errorf("take standard descriptors: found %d messages: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 3 {
		closeAll(fds)
		return fmt.Errorf("take standard descriptors: found %d: %w", len(fds), err)
	}
	for to, fd := range fds {
		err = errors.Join(err, unix.Dup3(fd, to, 0), unix.Close(fd))
	}
	return err
}

// enter puts this thread into namespaces, for what it does and makes from now on. The descriptors are closed. It is locked for good.
func enter(fds []int) error {
	if len(fds) == 0 {
		return nil
	}
	// A thread that shares its root and working directory with others cannot change its mounts (setns(2)).
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("enter namespaces: %w", err)
	}
	for _, fd := range fds {
		if err := unix.Setns(fd, 0); err != nil {
			return fmt.Errorf("enter the namespace of descriptor %d: %w", fd, err)
		}
		if err := unix.Close(fd); err != nil {
			return fmt.Errorf("enter the namespace of descriptor %d: %w", fd, err)
		}
	}
	return nil
}

// notHosts makes sure that linux.sysctl changes nothing of this process's own namespace of type t, which f is about to be.
func (k *creation) notHosts(t specs.LinuxNamespaceType, f *os.File) error {
	own := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts"}[t]
	for key := range k.spec.Linux.Sysctl {
		if spec.SysctlNamespace(key) != t {
			continue
		}
		var theirs, ours unix.Stat_t
		err := unix.Fstat(int(f.Fd()), &theirs)
		if err == nil {
			err = unix.Stat("/proc/thread-self/ns/"+own, &ours)
		}
		if err != nil {
			return fmt.Errorf("linux.sysctl.%s: compare namespaces: %w", key, err)
		}
		if theirs.Dev == ours.Dev && theirs.Ino == ours.Ino {
			return fmt.Errorf("linux.sysctl.%s: the namespace of type %s in linux.namespaces is the caller's: it would change the host", key, t)
		}
	}
	return nil
}

// firstFlags are the clone flags of the first child: the last one that it forks gets what is new.
func (l *launching) firstFlags() uint64 {
	if l.forks > 0 {
		return 0
	}
	return l.flags
}

// joinPaths enters what the caller could not enter for its child, and makes behind it what is new.
func (p *plan) joinPaths(l *launching) {
	if l.forks > 0 {
		p.fork(0)
	}
	join := func(t specs.LinuxNamespaceType, f *os.File, fd int) {
		if f != nil {
			p.Call(fmt.Sprintf("linux.namespaces (%s): join %s", t, f.Name()), unix.SYS_SETNS, fd, int(spec.CloneFlag(t)))
		}
	}
	if l.paths.mount != nil {
		// A thread can enter a mount namespace only if it shares its root with no other thread.
		p.Call("linux.namespaces (mount)", unix.SYS_UNSHARE, unix.CLONE_FS)
	}
	join(specs.MountNamespace, l.paths.mount, p.fds.mount)
	join(specs.TimeNamespace, l.paths.time, p.fds.time)
	join(specs.UserNamespace, l.paths.user, p.fds.user)
	if l.paths.user != nil {
		p.becomeRoot()
	}
	if l.forks > 0 {
		p.fork(l.flags)
	}
}
