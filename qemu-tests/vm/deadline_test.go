package vm

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestMachineTimeIsClockTimeForAnIdleHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := withMachineTime(t.Context(), 10*time.Second, func() int { return 0 })
		defer cancel()
		begin := time.Now()
		<-ctx.Done()
		if got := time.Since(begin); got != 10*time.Second {
			t.Errorf("got an end after %v, want 10s", got)
		}
		err := context.Cause(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "nothing after 10s (10s on the clock") {
			t.Errorf("got %v", err)
		}
	})
}

func TestMachineTimeIsCancelled(t *testing.T) {
	ctx, cancel := withMachineTime(t.Context(), time.Hour, os.Getpid)
	cancel()
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want cancelled", err)
	}
}

func TestParseRunDelay(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"1471742805 1564605699 372\n": 1564605699,
		"0 0 0":                       0,
		"":                            0,
		"1":                           0,
		"x y z":                       0,
	} {
		if got := parseRunDelay(in); got != want {
			t.Errorf("%q: got %v, want %v", in, got, want)
		}
	}
}

func TestRunDelaysOfOneProcessOnly(t *testing.T) {
	r := runDelays{pid: 1, threads: map[string]time.Duration{}}
	if got := r.sample(os.Getpid()); got != 0 {
		t.Errorf("got %v for a process seen first, want 0", got)
	}
	if len(r.threads) == 0 {
		t.Skip("this kernel keeps no /proc/PID/task/TID/schedstat")
	}
	for f, d := range r.threads {
		r.threads[f] = d - time.Minute
	}
	if got := r.sample(os.Getpid()); got < time.Minute {
		t.Errorf("got %v, want at least the minute the thread waited", got)
	}
}

func TestCPUTime(t *testing.T) {
	for begin := time.Now(); time.Since(begin) < 50*time.Millisecond; {
	}
	if got := cpuTime(os.Getpid()); got <= 0 || got > time.Hour {
		t.Errorf("got %v, want some CPU time", got)
	}
	if got := cpuTime(1 << 30); got != 0 {
		t.Errorf("got %v for no process, want 0", got)
	}
}
