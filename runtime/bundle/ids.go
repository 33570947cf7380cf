package bundle

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/reaper"
	"github.com/proa-os/proa/runtime/spec"
	"github.com/proa-os/proa/runtime/store"
)

// addUserNamespace gives the container one whose numbers are c.IDs on the machine. Files keep the container's own numbers on the disk:
// layers and volumes are mounted with owners mapped (mount_setattr(2), MOUNT_ATTR_IDMAP), so that layers are shared and nothing is chowned.
func addUserNamespace(s *specs.Spec, c *store.Container) {
	if c.IDs == nil {
		return
	}
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: c.IDs.First, Size: c.IDs.Count}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = maps, maps
	if c.IDs.First == 0 {
		return // the machine's numbers
	}
	for i, m := range s.Mounts {
		if m.Type == "bind" && m.Destination != notifySocket && m.Destination != "/sys" && m.Destination != reaper.Path {
			s.Mounts[i].UIDMappings, s.Mounts[i].GIDMappings = maps, maps
		}
	}
}

// mapIDs puts mounts with mapped owners in the place of the directories, below dir. The caller's mount namespace keeps them.
func (l *layers) mapIDs(ids *store.IDs, dir string) error {
	ns, err := userNamespace(ids)
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	mapped := func(source, name string) (string, error) {
		target := filepath.Join(dir, name)
		if err := os.MkdirAll(target, 0o700); err != nil {
			return "", err
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return "", fmt.Errorf("clone mount of %s: %w", source, err)
		}
		defer unix.Close(fd)
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns)}); err != nil {
			return "", fmt.Errorf("map owners of %s: %w", source, err)
		}
		if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return "", fmt.Errorf("mount %s: %w", target, err)
		}
		return target, nil
	}
	for i, d := range l.lower {
		if l.lower[i], err = mapped(d, strconv.Itoa(i)); err != nil {
			return err
		}
	}
	// The two must be on one mount.
	own, err := mapped(filepath.Dir(l.upper), "own")
	if err != nil {
		return err
	}
	l.upper, l.work = filepath.Join(own, filepath.Base(l.upper)), filepath.Join(own, filepath.Base(l.work))
	return nil
}

// AsRoot does something in the container's files as the container's root, whose files these then are: where only the container's numbers
// exist, the machine's root can make none. This goroutine's thread keeps its capabilities, which a change of fsuid takes from what is in effect.
func AsRoot(ids *store.IDs, do func() error) error {
	if ids == nil || ids.First == 0 {
		return do()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, set := range []func(int) error{unix.Setfsgid, unix.Setfsuid} {
		if err := set(int(ids.First)); err != nil {
			return err
		}
		defer set(0)
	}
	if err := raiseAll(); err != nil {
		return fmt.Errorf("act as the container's root: %w", err)
	}
	return do()
}

// raiseAll puts this thread's permitted capabilities into effect.
func raiseAll() error {
	hdr := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(hdr, &data[0]); err != nil {
		return err
	}
	for i := range data {
		data[i].Effective = data[i].Permitted
	}
	return unix.Capset(hdr, &data[0])
}

// permitted are the capabilities of this process, of which it cannot give more to a container.
func permitted() (map[string]bool, error) {
	hdr := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(hdr, &data[0]); err != nil {
		return nil, err
	}
	out := make(map[string]bool)
	for _, name := range spec.CapabilityNames() {
		n, _ := spec.Capability(name)
		out[name] = data[n/32].Permitted&(1<<(n%32)) != 0
	}
	return out, nil
}

// userNamespace makes one that no process is in.
func userNamespace(ids *store.IDs) (int, error) {
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	maps := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(ids.First), Size: int(ids.Count)}}
	// Stopped at its execve, it executes nothing of this program.
	p, err := os.StartProcess("/proc/self/exe", []string{"user-namespace"}, &os.ProcAttr{Env: []string{}, Sys: &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, Ptrace: true, UidMappings: maps, GidMappings: maps}})
	if err != nil {
		return -1, fmt.Errorf("make user namespace: %w", err)
	}
	defer func() {
		unix.Kill(p.Pid, unix.SIGKILL)
		var ws syscall.WaitStatus
		syscall.Wait4(p.Pid, &ws, 0, nil)
		p.Release()
	}()
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(p.Pid, &ws, 0, nil); err != nil || !ws.Stopped() {
		return -1, fmt.Errorf("make user namespace: %v: %w", ws, err)
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/user", p.Pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open user namespace: %w", err)
	}
	return fd, nil
}
