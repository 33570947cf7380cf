package spec

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The first and the last real-time signal as glibc, musl and systemd count them: the C library keeps 32 and 33 for itself (signal(7)).
const (
	rtMin = 34
	rtMax = 64
)

// Signal reads TERM, SIGTERM, 15, RTMIN+3 or SIGRTMAX-2.
func Signal(name string) (unix.Signal, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n <= rtMax {
		return unix.Signal(n), nil
	}
	n := strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if s := unix.SignalNum("SIG" + n); s != 0 {
		return s, nil
	}
	if s := realTime(n); s != 0 {
		return s, nil
	}
	return 0, fmt.Errorf("no signal is called %q", name)
}

// realTime is 0 for what is no real-time signal.
func realTime(name string) unix.Signal {
	from, sign := rtMin, "+"
	by, ok := strings.CutPrefix(name, "RTMIN")
	if !ok {
		from, sign = rtMax, "-"
		if by, ok = strings.CutPrefix(name, "RTMAX"); !ok {
			return 0
		}
	}
	if by == "" {
		return unix.Signal(from)
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(by, sign), 10, 8)
	if err != nil || !strings.HasPrefix(by, sign) || n > rtMax-rtMin {
		return 0
	}
	if sign == "-" {
		return unix.Signal(from - int(n))
	}
	return unix.Signal(from + int(n))
}
