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
	sister bool       // not a child
	of     *Container // of Root.Run
}

// Delete removes the container whose first process this was, which has ended.
func (p *Process) Delete() error { return p.of.remove() }

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

// WaitAndRelay is Wait that passes on the signals whose numbers come over a pipe (package relay).
func (p *Process) WaitAndRelay(pipe int) (int, error) {
	fds := [2]unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}, {Fd: int32(pipe), Events: unix.POLLIN}}
	for {
		// Not pollRaw: the workload may run for years, in which Go would look after this thread a hundred times a second.
		if _, err := unix.Poll(fds[:], -1); err != nil && err != unix.EINTR {
			return 1, fmt.Errorf("wait for process %d: %w", p.Pid, err)
		}
		if fds[1].Revents&unix.POLLIN != 0 {
			b := make([]byte, 64)
			n, err := unix.Read(pipe, b)
			if err != nil && err != unix.EAGAIN && err != unix.EINTR {
				return 1, fmt.Errorf("wait for process %d: read signals: %w", p.Pid, err)
			}
			for _, s := range b[:max(n, 0)] {
				p.Signal(unix.Signal(s)) // fails only when p has ended
			}
		}
		if fds[0].Revents != 0 {
			return p.Wait()
		}
	}
}

// end kills the process and waits until it is gone.
func (p *Process) end() {
	p.Signal(unix.SIGKILL)
	if p.sister {
		pollRaw([]unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}})
		return
	}
	p.Wait()
}
