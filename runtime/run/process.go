package run

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/seccomp"
	"github.com/proa-os/proa/runtime/spec"
)

// All of this runs on one locked thread of stage two and changes that thread only. execve ends the others.

// setOOMScore is done while the caller's /proc is still there.
func setOOMScore(p *specs.Process) error {
	if p.OOMScoreAdj == nil {
		return nil
	}
	err := os.WriteFile("/proc/thread-self/oom_score_adj", []byte(strconv.Itoa(*p.OOMScoreAdj)), 0)
	if err != nil {
		return fmt.Errorf("process.oomScoreAdj: %w", err)
	}
	return nil
}

// becomeUser applies limits, ids, capabilities and the working directory.
func becomeUser(p *specs.Process) error {
	limits, err := spec.Rlimits(p.Rlimits)
	if err != nil {
		return err
	}
	for i, l := range limits {
		if err := unix.Setrlimit(l.Resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}); err != nil {
			return fmt.Errorf("process.rlimits[%d] (%s %d %d): %w", i, p.Rlimits[i].Type, l.Soft, l.Hard, err)
		}
	}
	sets, err := spec.Capabilities(p.Capabilities)
	if err != nil {
		return err
	}
	// As root first, for a directory that only root can reach; then as the user, for one that only the user can.
	before := enterDir(p.Cwd)
	if before != nil && !errors.Is(before, unix.EACCES) {
		return before
	}
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if sets.Bounding&(1<<c) != 0 {
			continue
		}
		// EINVAL: the kernel is older than the capability.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && err != unix.EINVAL {
			return fmt.Errorf("process.capabilities.bounding: %w", err)
		}
	}
	if err := setIDs(p.User); err != nil {
		return err
	}
	if err := setCapabilities(sets); err != nil {
		return err
	}
	if before != nil {
		if err := enterDir(p.Cwd); err != nil {
			return err
		}
	}
	mask := 0o022
	if p.User.Umask != nil {
		mask = int(*p.User.Umask)
	}
	unix.Umask(mask)
	return nil
}

func setIDs(u specs.User) error {
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	groups := u.AdditionalGids
	var first unsafe.Pointer
	if len(groups) > 0 {
		first = unsafe.Pointer(&groups[0])
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0); e != 0 {
		return fmt.Errorf("process.user.additionalGids: %w", e)
	}
	gid, uid := uintptr(u.GID), uintptr(u.UID)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); e != 0 {
		return fmt.Errorf("process.user.gid %d: %w", gid, e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); e != 0 {
		return fmt.Errorf("process.user.uid %d: %w", uid, e)
	}
	return nil
}

func setCapabilities(s spec.CapSets) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i := range data {
		shift := 32 * i
		data[i] = unix.CapUserData{Effective: uint32(s.Effective >> shift), Permitted: uint32(s.Permitted >> shift), Inheritable: uint32(s.Inheritable >> shift)}
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("process.capabilities (has the caller all of them?): %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("process.capabilities.ambient: %w", err)
	}
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if s.Ambient&(1<<c) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return fmt.Errorf("process.capabilities.ambient: %w", err)
		}
	}
	return nil
}

// installFilter puts the seccomp program on this thread.
func installFilter(p *seccomp.Program) error {
	if p == nil {
		return nil
	}
	prog := unix.SockFprog{Len: uint16(len(p.Filter)), Filter: &p.Filter[0]}
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(p.Flags), uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		return fmt.Errorf("linux.seccomp: %w", e)
	}
	return nil
}

// lookPath finds the program as execvp(3) would with the PATH of the container's environment.
func lookPath(p *specs.Process) (string, error) {
	name := p.Args[0]
	if strings.ContainsRune(name, '/') {
		if err := executable(name); err != nil {
			return "", fmt.Errorf("process.args[0]: %w", err)
		}
		return name, nil
	}
	search := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, e := range p.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v
		}
	}
	for _, dir := range filepath.SplitList(search) {
		if dir == "" {
			dir = "."
		}
		if file := filepath.Join(dir, name); executable(file) == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("process.args[0]: no executable %q in PATH=%s of the container", name, search)
}

func executable(file string) error {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return &os.PathError{Op: "stat", Path: file, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return &os.PathError{Op: "execute", Path: file, Err: unix.EISDIR}
	}
	// AT_EACCESS: with the ids that execve uses.
	if err := unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS); err != nil {
		return &os.PathError{Op: "execute", Path: file, Err: err}
	}
	return nil
}

// bringUpLoopback sets the interface lo of a new network namespace up.
func bringUpLoopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(ifr)))
	if e != 0 {
		return fmt.Errorf("bring up lo: %w", e)
	}
	return nil
}
