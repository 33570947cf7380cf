//go:build !race

package script

import (
	"fmt"
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Direct reports whether Start can be used in this build.
const Direct = true

//go:noescape
func cloneRun(args *cloneArgs, size uintptr, first, report unsafe.Pointer) int

// cloneArgs is struct clone_args of clone3(2).
type cloneArgs struct {
	flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls, setTid, setTidSize, cgroup uint64
}

// Start clones a child with the CLONE_NEW* flags of flags, in the cgroup of descriptor cgroup unless that is negative, and lets
// it walk p. It returns the child's pid and a pidfd. The calling goroutine must be locked to its thread.
//
// The child has this thread's signal mask without anything in it blocked, and no handlers.
func (p *Program) Start(flags uint64, cgroup int) (pid, pidfd int, err error) {
	m, err := p.place()
	if err != nil {
		return 0, -1, err
	}
	fd := int32(-1)
	args := cloneArgs{
		flags:      flags | unix.CLONE_VM | unix.CLONE_CLEAR_SIGHAND | unix.CLONE_PIDFD,
		pidfd:      uint64(uintptr(unsafe.Pointer(&fd))),
		exitSignal: uint64(unix.SIGCHLD),
	}
	if flags&unix.CLONE_PARENT != 0 {
		args.exitSignal = 0 // a sister's signal is this process's own (clone(2))
	}
	if cgroup >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(cgroup)
	}
	// No signal may find the child while it still has the parent's handlers, which are Go code.
	all, old := uint64(math.MaxUint64), uint64(0)
	sigmask := func(set, old *uint64) {
		unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
	}
	sigmask(&all, &old)
	r := cloneRun(&args, unsafe.Sizeof(args), unsafe.Pointer(&m[0]), unsafe.Pointer(&m[p.report]))
	sigmask(&old, nil)
	if r < 0 {
		unix.Munmap(m)
		return 0, -1, fmt.Errorf("clone: %w", unix.Errno(-r))
	}
	return r, int(fd), nil
}
