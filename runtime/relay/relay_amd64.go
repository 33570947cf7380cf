package relay

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// handlers returns the addresses of handler and restorer.
func handlers() (handler, restorer uintptr)

// handler writes its signal's number to pipe; restorer ends a handler.
func handler()
func restorer()

// pipe is set once, before the first handler: a handler has no other way to know anything.
var pipe int32

// action is the kernel's struct sigaction.
type action struct {
	handler, flags, restorer, mask uintptr
}

// Flags of sigaction(2) (asm-generic/signal-defs.h, asm/signal.h).
const (
	saOnStack  = 0x08000000
	saRestart  = 0x10000000
	saRestorer = 0x04000000
)

// Start makes the signals arrive at the descriptor that it returns, one byte each. It is called once.
func Start(signals []unix.Signal) (fd int, ok bool, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return -1, false, fmt.Errorf("relay signals: %w", err)
	}
	pipe = int32(p[1])
	h, r := handlers()
	for _, s := range signals {
		a := action{handler: h, flags: saOnStack | saRestart | saRestorer, restorer: r, mask: ^uintptr(0)}
		_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&a)), 0, 8, 0, 0)
		if e != 0 {
			return -1, false, fmt.Errorf("relay signal %d: %w", s, e)
		}
	}
	return p[0], true, nil
}
