package run

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernelSigaction is struct sigaction as rt_sigaction(2) takes it, on 64-bit architectures.
type kernelSigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

const (
	sigDefault = 0
	sigIgnore  = 1
	lastSignal = 64
)

// defaultSignals stops ignoring what the caller ignores: execve(2) would hand that on, and systemd ignores SIGPIPE for its
// services, which shell pipelines in a container do not expect. Handlers need nothing: clone takes them away.
func (p *plan) defaultSignals() error {
	for sig := uintptr(1); sig <= lastSignal; sig++ {
		if sig == uintptr(unix.SIGKILL) || sig == uintptr(unix.SIGSTOP) {
			continue
		}
		var old kernelSigaction
		if err := sigaction(sig, nil, &old); err != nil {
			return fmt.Errorf("read disposition of signal %d: %w", sig, err)
		}
		if old.handler == sigIgnore {
			p.Call("reset signals", unix.SYS_RT_SIGACTION, int(sig), p.Words(sigDefault, 0, 0, 0), 0, 8)
		}
	}
	return nil
}

func sigaction(sig uintptr, set, old *kernelSigaction) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), unsafe.Sizeof(set.mask), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
