package oci

import (
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/run"
)

// terminal connects this process's standard input and output to the master of a workload's terminal. The function it returns waits
// until all output has come and puts this process's own terminal back as it was.
func terminal(p *run.Process) func() {
	restore := raw()
	resize(p.Master)
	go io.Copy(p.Master, os.Stdin)
	done := make(chan struct{})
	go func() {
		io.Copy(os.Stdout, p.Master) // ends with EIO when the last slave is closed
		close(done)
	}()
	return func() {
		select {
		case <-done:
		case <-time.After(time.Second): // another process of the container keeps the terminal open
		}
		restore()
	}
}

// resize gives the workload's terminal the size of this one, if this is one.
func resize(master *os.File) {
	if ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, ws)
	}
}

// isTerminal reports whether a descriptor is one, which shows \n as it is as a step downwards, and \r\n as a new line.
func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// raw makes this process's terminal pass on every key, as the workload's own does what is to be done about them (termios(3), cfmakeraw).
func raw() (restore func()) {
	old, err := unix.IoctlGetTermios(0, unix.TCGETS)
	if err != nil {
		return func() {}
	}
	t := *old
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	unix.IoctlSetTermios(0, unix.TCSETS, &t)
	return func() { unix.IoctlSetTermios(0, unix.TCSETS, old) }
}
