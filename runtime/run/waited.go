package run

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Process is a child of this process: the first one of a container, or one more. It is less than an os.Process, whose
// making costs a clone of its own.
type Process struct {
	Pid    int
	Master *os.File // of its terminal, if it has one and nobody else wanted that; the caller closes it
	pidfd  int
}

// Signal sends a signal.
func (p *Process) Signal(sig unix.Signal) error {
	return unix.PidfdSendSignal(p.pidfd, sig, nil, 0)
}

// Wait waits for the end and returns the exit code as a shell would: 128+n for signal n.
func (p *Process) Wait() (int, error) {
	for {
		var ws syscall.WaitStatus
		_, err := syscall.Wait4(p.Pid, &ws, 0, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return 1, fmt.Errorf("wait for process %d: %w", p.Pid, err)
		case ws.Signaled():
			return 128 + int(ws.Signal()), nil
		}
		return ws.ExitStatus(), nil
	}
}

// end kills the process and waits until it is gone.
func (p *Process) end() {
	p.Signal(unix.SIGKILL)
	p.Wait()
}
