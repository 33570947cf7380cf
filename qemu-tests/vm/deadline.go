package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A machine's time is the clock's, less the time in which it was ready to run and had no CPU. It is measured as
// the run-queue delay of QEMU's most delayed thread (/proc/PID/task/TID/schedstat, second field, in ns;
// Documentation/scheduler/sched-stats.rst). Where the kernel does not keep it, machine time is the clock's.

// maxStretch bounds a deadline on the clock, whatever the host is doing.
const maxStretch = 6

// withMachineTime is ctx that ends after limit of machine time of the process that pid returns, 0 for none.
// The cause says how long it took.
func withMachineTime(ctx context.Context, limit time.Duration, pid func() int) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	begin := time.Now()
	go func() {
		tick := time.NewTicker(min(time.Second, limit/4+time.Millisecond))
		defer tick.Stop()
		var delays runDelays
		var starved time.Duration
		for last := begin; ; {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				starved += min(delays.sample(pid()), now.Sub(last))
				last = now
				clock := now.Sub(begin)
				if clock-starved >= limit || clock >= maxStretch*limit {
					cancel(&TimeoutError{Limit: limit, Clock: clock, Starved: starved})
					return
				}
			}
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// TimeoutError is why a wait for a machine ended.
type TimeoutError struct{ Limit, Clock, Starved time.Duration }

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("nothing after %s (%s on the clock, the host had no CPU for the machine in %s of them)",
		e.Limit.Round(time.Millisecond), e.Clock.Round(time.Second), e.Starved.Round(time.Second))
}

// Unwrap makes a TimeoutError a context.DeadlineExceeded.
func (e *TimeoutError) Unwrap() error { return context.DeadlineExceeded }

// runDelays remembers the run-queue delay of every thread of one process.
type runDelays struct {
	pid     int
	threads map[string]time.Duration
}

// sample is the largest growth of a thread's delay since the sample before; 0 for a process seen first.
func (r *runDelays) sample(pid int) time.Duration {
	now := map[string]time.Duration{}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil { // A thread may have ended.
			now[f] = parseRunDelay(string(b))
		}
	}
	var most time.Duration
	if pid == r.pid {
		for f, d := range now {
			if before, ok := r.threads[f]; ok {
				most = max(most, d-before)
			}
		}
	}
	r.pid, r.threads = pid, now
	return most
}

func parseRunDelay(schedstat string) time.Duration {
	fields := strings.Fields(schedstat)
	if len(fields) < 2 {
		return 0
	}
	ns, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(ns)
}

// cpuTime is the CPU time a process has used, from /proc/PID/stat (proc_pid_stat(5), utime and stime in 1/100 s).
func cpuTime(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name in parentheses may hold anything; fields are counted from behind it.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100)
}
