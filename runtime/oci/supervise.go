package oci

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// supervise passes signals on to p until it ends and returns its exit code as a shell would: 128+n for signal n. When ctx
// ends p is killed.
func supervise(ctx context.Context, p *os.Process) (int, error) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals)
	defer signal.Stop(signals)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case s := <-signals:
				// SIGURG is the Go scheduler's; SIGCHLD and SIGPIPE concern this process.
				if s != unix.SIGURG && s != unix.SIGCHLD && s != unix.SIGPIPE {
					p.Signal(s) // fails only when p has ended
				}
			case <-ctx.Done():
				p.Kill()
				return
			case <-done:
				return
			}
		}
	}()
	st, err := p.Wait()
	if err != nil {
		return 1, fmt.Errorf("wait for process %d: %w", p.Pid, err)
	}
	if ws := st.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return st.ExitCode(), nil
}
