package run

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/spec"
)

// idMaps are the maps of a new user namespace.
type idMaps struct {
	uids, gids []specs.LinuxIDMapping
}

// newIDMaps returns the maps, or nil without a new user namespace.
func newIDMaps(s *specs.Spec, flags uint64) *idMaps {
	if flags&syscall.CLONE_NEWUSER == 0 {
		return nil
	}
	return &idMaps{s.Linux.UIDMappings, s.Linux.GIDMappings}
}

// readIDMaps reads the maps of the user namespace that process pid has joined. If config.json has some they must be the same.
func readIDMaps(pid int, l *specs.Linux) (*idMaps, error) {
	m := new(idMaps)
	for _, f := range []struct {
		file, field string
		want        []specs.LinuxIDMapping
		to          *[]specs.LinuxIDMapping
	}{{"uid_map", "linux.uidMappings", l.UIDMappings, &m.uids}, {"gid_map", "linux.gidMappings", l.GIDMappings, &m.gids}} {
		b, err := readFile(fmt.Sprintf("/proc/%d/%s", pid, f.file))
		if err != nil {
			return nil, fmt.Errorf("linux.namespaces (user): %w", err)
		}
		for line := range strings.Lines(string(b)) {
			var e specs.LinuxIDMapping
			if _, err := fmt.Sscan(line, &e.ContainerID, &e.HostID, &e.Size); err != nil {
				return nil, fmt.Errorf("linux.namespaces (user): %s: %q: %w", f.file, line, err)
			}
			*f.to = append(*f.to, e)
		}
		if len(f.want) > 0 && !slices.Equal(f.want, *f.to) {
			return nil, fmt.Errorf("%s: the user namespace to join has other maps: %v", f.field, *f.to)
		}
	}
	return m, nil
}

// write gives the maps to the namespace of process pid.
func (m *idMaps) write(pid int) error {
	for _, l := range []struct {
		file, field string
		maps        []specs.LinuxIDMapping
	}{{"uid_map", "linux.uidMappings", m.uids}, {"gid_map", "linux.gidMappings", m.gids}} {
		text := ""
		for _, e := range l.maps {
			text += fmt.Sprintf("%d %d %d\n", e.ContainerID, e.HostID, e.Size)
		}
		if err := setFile(fmt.Sprintf("/proc/%d/%s", pid, l.file), text); err != nil {
			return fmt.Errorf("%s: %w", l.field, err)
		}
	}
	return nil
}

// apply has os.StartProcess write the maps, and execute as the namespace's root.
func (m *idMaps) apply(sys *syscall.SysProcAttr) {
	convert := func(maps []specs.LinuxIDMapping) (out []syscall.SysProcIDMap) {
		for _, e := range maps {
			out = append(out, syscall.SysProcIDMap{ContainerID: int(e.ContainerID), HostID: int(e.HostID), Size: int(e.Size)})
		}
		return out
	}
	sys.UidMappings, sys.GidMappings = convert(m.uids), convert(m.gids)
	sys.GidMappingsEnableSetgroups = true
	sys.Credential = &syscall.Credential{Uid: 0, Gid: 0}
}

// root returns the ids outside of the namespace that are its root's.
func (m *idMaps) root() (uid, gid int) {
	find := func(maps []specs.LinuxIDMapping) int {
		for _, e := range maps {
			if e.ContainerID == 0 {
				return int(e.HostID)
			}
		}
		return 0
	}
	return find(m.uids), find(m.gids)
}

// namespace makes a user namespace that has the maps and no process.
func (m *idMaps) namespace() (int, error) {
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	attr := &os.ProcAttr{Env: []string{}, Sys: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, Ptrace: true}}
	m.apply(attr.Sys)
	attr.Sys.Credential = nil // maps of a mount need not have a root
	// Stopped at its execve, it executes nothing of this program.
	p, err := os.StartProcess("/proc/self/exe", []string{stageName}, attr)
	if err != nil {
		return -1, fmt.Errorf("make user namespace: %w", err)
	}
	proc := &Process{Pid: p.Pid, pidfd: -1}
	p.Release()
	defer func() {
		unix.Kill(proc.Pid, unix.SIGKILL)
		proc.Wait()
	}()
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(proc.Pid, &ws, 0, nil); err != nil || !ws.Stopped() {
		return -1, fmt.Errorf("make user namespace: %v, %w", ws, err)
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/user", proc.Pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open user namespace: %w", err)
	}
	return fd, nil
}

// mapIDs makes a detached mount show other owners. Without maps of its own it takes those of process pid.
func mapIDs(mount int, m spec.Mount, pid int) error {
	var ns int
	var err error
	if len(m.UIDs) > 0 {
		ns, err = (&idMaps{m.UIDs, m.GIDs}).namespace()
	} else {
		ns, err = unix.Open(fmt.Sprintf("/proc/%d/ns/user", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	flags := uint(unix.AT_EMPTY_PATH)
	if m.IDMapRec {
		flags |= unix.AT_RECURSIVE
	}
	if err := unix.MountSetattr(mount, "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns)}); err != nil {
		return fmt.Errorf("uidMappings: map owners: %w", err)
	}
	return nil
}
