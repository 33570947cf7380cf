package start

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// peakRSS runs the container once more and reads, in MB, how much memory the runtime had at most.
func peakRSS(c peer, dir string) (float64, error) {
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	cmd := exec.Command(c.program, arguments(c, dir)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid := cmd.Process.Pid
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil {
		return 0, err
	}
	if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACEEXIT|unix.PTRACE_O_EXITKILL|unix.PTRACE_O_TRACEEXEC); err != nil {
		return 0, err
	}
	peak, sig := 0.0, 0
	for {
		if err := unix.PtraceCont(pid, sig); err != nil {
			return 0, err
		}
		if _, err := unix.Wait4(pid, &ws, unix.WALL, nil); err != nil {
			return 0, err
		}
		sig = 0
		switch {
		case ws.Exited() || ws.Signaled():
			if peak == 0 {
				return 0, fmt.Errorf("it ended unseen: %v", ws)
			}
			return peak, nil
		case ws.TrapCause() == unix.PTRACE_EVENT_EXIT:
			kb, err := highWater(pid)
			if err != nil {
				return 0, err
			}
			peak = max(peak, kb/1e3)
		case ws.StopSignal() != unix.SIGTRAP:
			sig = int(ws.StopSignal())
		}
	}
}

func highWater(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return strconv.ParseFloat(strings.Fields(v)[0], 64)
		}
	}
	return 0, fmt.Errorf("no VmHWM of process %d", pid)
}
