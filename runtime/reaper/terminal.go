package reaper

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A terminal is one that nobody sits at: what is written to it goes to standard output, and it reads standard input. The end of that is none
// of the terminal: who has read all waits for more.
type terminal struct {
	master, slave int
	drained       chan struct{}
}

// openTerminal makes one that ends lines as the command does: what it says is for a log.
func openTerminal() (*terminal, error) {
	t := &terminal{slave: -1, drained: make(chan struct{})}
	var err error
	if t.master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open a terminal: /dev/ptmx: %w", err)
	}
	if err := unix.IoctlSetPointerInt(t.master, unix.TIOCSPTLCK, 0); err != nil {
		return nil, fmt.Errorf("open a terminal: unlock: %w", err)
	}
	slave, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(t.master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if e != 0 {
		return nil, fmt.Errorf("open a terminal: its other end: %w", e)
	}
	t.slave = int(slave)
	mode, err := unix.IoctlGetTermios(t.slave, unix.TCGETS)
	if err == nil {
		mode.Oflag &^= unix.ONLCR
		err = unix.IoctlSetTermios(t.slave, unix.TCSETS, mode)
	}
	if err != nil {
		return nil, fmt.Errorf("open a terminal: set it: %w", err)
	}
	return t, nil
}

// attr is how the command gets it: as the leader of a session of its own.
func (t *terminal) attr(a *syscall.ProcAttr) {
	n := uintptr(t.slave)
	a.Files, a.Sys = []uintptr{n, n, n}, &syscall.SysProcAttr{Setsid: true, Setctty: true}
}

// serve passes both directions on, once the command has begun.
func (t *terminal) serve() {
	unix.Close(t.slave)
	go transmit(t.master, 0)
	go func() {
		transmit(1, t.master) // ends with EIO when the last process has closed the other end
		close(t.drained)
	}()
}

// drain waits for the last words of a command that has ended, others of which may go on.
func (t *terminal) drain() {
	select {
	case <-t.drained:
	case <-time.After(time.Second):
	}
}

// transmit copies until there is no more to read. What nobody takes is dropped, so that who writes does not wait for ever.
func transmit(to, from int) {
	b := make([]byte, 4096)
	for {
		n, err := unix.Read(from, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		for rest := b[:n]; len(rest) > 0; {
			n, err := unix.Write(to, rest)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				break
			}
			rest = rest[n:]
		}
	}
}
