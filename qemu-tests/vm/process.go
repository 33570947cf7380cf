package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/tcg"
)

// Why a process ended, as QEMU names it in its SHUTDOWN event (qapi/run-state.json, ShutdownCause).
const (
	guestReset    = "guest-reset"
	guestShutdown = "guest-shutdown"
	hostReset     = "host-qmp-system-reset"
	hostQuit      = "host-qmp-quit"
)

// errInternal is KVM's or TCG's "cannot go on": the guest is lost through no fault of its own.
var errInternal = errors.New("QEMU stopped the guest with an internal error")

// process is one run of QEMU, from firmware to shutdown or reset.
type process struct {
	pid    int
	kill   func() error
	serial net.Conn
	qmp    *QMP
	unplug func()        // frees its ports, for the QEMU that a machine goes on in
	done   chan struct{} // closed when QEMU is gone, its ports are free and the console is complete

	mu    sync.Mutex
	cause string // of the SHUTDOWN event
	err   error  // errInternal, or how QEMU failed; valid after done
}

// command makes QEMU's command from its arguments.
type command func(args []string) *exec.Cmd

// startProcess starts QEMU with its console going to console and its errors to stderr. h's descriptors are set here.
// It returns once QEMU answers on its monitor.
func startProcess(ctx context.Context, cmd command, h hardware, console io.Writer, log io.Writer) (*process, error) {
	serial, serialFile, err := socketPair()
	if err != nil {
		return nil, err
	}
	monitor, monitorFile, err := socketPair()
	if err != nil {
		serial.Close()
		serialFile.Close()
		return nil, err
	}

	files := []*os.File{serialFile, monitorFile}
	h.consoleFD, h.qmpFD = 3, 4
	if h.tpm != nil {
		h.tpmFD = 3 + len(files)
		files = append(files, h.tpm)
	}
	wires, unplug, err := h.plugIn(3 + len(files))
	if err != nil {
		for _, c := range []io.Closer{serial, monitor} {
			c.Close()
		}
		for _, f := range files {
			f.Close()
		}
		return nil, err
	}
	files = append(files, wires...)
	c := cmd(h.args())
	c.ExtraFiles = files
	words := &tailWriter{limit: 4096}
	c.Stdout, c.Stderr = io.MultiWriter(log, words), io.MultiWriter(log, words)
	// Its own process group: Ctrl-C is for the harness, which ends QEMU in order. It dies with the harness anyway.
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	fmt.Fprintln(log, commandLine(c.Args))

	p := &process{serial: serial, unplug: unplug, done: make(chan struct{})}
	started := make(chan error, 1)
	go p.run(c, words, console, h.accel != KVM, started)
	err = <-started
	// With our copies of its ends closed, the end of QEMU is the end of both connections.
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		unplug()
		serial.Close()
		monitor.Close()
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	// The guest runs from here on. QEMU answers at once, or has refused its arguments and gone.
	greet, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("no greeting from its monitor within a minute"))
	defer cancel()
	qmp, err := NewQMP(greet, monitor, p.event)
	if err != nil {
		p.kill()
		<-p.done
		if words.String() != "" {
			return nil, fmt.Errorf("start QEMU: it said: %s", words)
		}
		return nil, fmt.Errorf("start QEMU: %w; it said nothing", err)
	}
	p.mu.Lock()
	p.qmp = qmp
	p.mu.Unlock()
	return p, nil
}

// run starts c and stays on its thread until c has ended: Pdeathsig is sent when the thread that forked dies.
func (p *process) run(c *exec.Cmd, words *tailWriter, console io.Writer, computes bool, started chan<- error) {
	runtime.LockOSThread() // for good: the thread, which QEMU inherits this from, ends with it
	if computes {
		tcg.LongSlices()
	}
	err := c.Start()
	if err == nil {
		p.pid, p.kill = c.Process.Pid, c.Process.Kill
	}
	started <- err
	if err != nil {
		return
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		io.Copy(console, p.serial) // Ends when QEMU closes its end.
	}()
	err = c.Wait()
	<-copied
	p.unplug()
	p.serial.Close()
	p.mu.Lock()
	if p.qmp != nil {
		p.qmp.Close()
	}
	if p.err == nil && err != nil {
		p.err = failure(err, words.String())
	}
	p.mu.Unlock()
	close(p.done)
}

// failure says of an error of Wait whose it is: a signal comes from QEMU's own code or from the host, whatever the guest did.
func failure(err error, words string) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			hint := "the emulator has crashed, the machine in it is not to blame: run it again, and keep the console if it comes back"
			if s.Signal() == syscall.SIGKILL {
				hint = "somebody on the host has killed it, the kernel perhaps, for want of memory: its log says so"
			}
			return fmt.Errorf("QEMU itself died of a signal (%w): %s; it said: %q", err, hint, words)
		}
	}
	return fmt.Errorf("QEMU ended: %w; it said: %q", err, words)
}

// event is called for each event of the monitor, in order.
func (p *process) event(e Event) {
	switch e.Name {
	case "SHUTDOWN":
		var d struct {
			Reason string `json:"reason"`
		}
		json.Unmarshal(e.Data, &d) // An unknown shape leaves the cause empty, which is reported as such.
		p.mu.Lock()
		if p.cause == "" {
			p.cause = d.Reason
		}
		p.mu.Unlock()
		go p.quit()
	case "STOP":
		go p.checkStop()
	}
}

// quit ends a QEMU that is paused behind its shutdown. That it is gone already is no error.
func (p *process) quit() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if q := p.monitor(ctx); q == nil || q.Execute(ctx, "quit", nil, nil) != nil {
		select {
		case <-p.done:
		case <-time.After(10 * time.Second):
			p.kill()
		}
	}
}

// checkStop kills a QEMU that has stopped its guest because it cannot go on.
func (p *process) checkStop() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var status struct{ Status string }
	if q := p.monitor(ctx); q == nil || q.Execute(ctx, "query-status", nil, &status) != nil || status.Status != "internal-error" {
		return
	}
	p.mu.Lock()
	p.err = errInternal
	p.mu.Unlock()
	p.kill()
}

// monitor is the monitor once startProcess has it; events can be earlier.
func (p *process) monitor(ctx context.Context) *QMP {
	for {
		p.mu.Lock()
		q := p.qmp
		p.mu.Unlock()
		if q != nil {
			return q
		}
		select {
		case <-p.done:
			return nil
		case <-ctx.Done():
			return nil
		case <-time.After(time.Millisecond):
		}
	}
}

// end kills the process and waits for its end. That it has just ended by itself is no error.
func (p *process) end() error {
	killed := p.kill()
	select {
	case <-p.done:
		return nil
	case <-time.After(time.Minute):
		return fmt.Errorf("QEMU (pid %d) does not end: %v", p.pid, killed)
	}
}

// ended says why the process ended; only valid after done. A QEMU that fails as it closes has failed behind its guest, which had stopped
// and has lost nothing: the error then comes with a cause.
func (p *process) ended() (cause string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cause, p.err
}

// socketPair is a connection and the other end of it to hand to a child.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "harness end"), os.NewFile(uintptr(fds[1]), "QEMU end")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	return conn, theirs, nil
}

// tailWriter keeps the last limit bytes.
type tailWriter struct {
	mu    sync.Mutex
	limit int
	buf   bytes.Buffer
}

func (w *tailWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p)
	w.buf.Next(max(0, w.buf.Len()-w.limit))
	return len(p), nil
}

func (w *tailWriter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.TrimSpace(w.buf.String())
}
