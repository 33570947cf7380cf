package spec

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestSignal(t *testing.T) {
	for name, want := range map[string]unix.Signal{"TERM": 15, "sigterm": 15, "15": 15, "0": 0, "64": 64, "RTMIN": 34, "SIGRTMIN+3": 37, "rtmin+30": 64,
		"RTMIN+0": 34, "RTMAX": 64, "SIGRTMAX-2": 62, "RTMAX-30": 34} {
		if got, err := Signal(name); err != nil || got != want {
			t.Errorf("%s: %d %v, want %d", name, got, err, want)
		}
	}
	for _, name := range []string{"", "SIG", "-1", "65", "RTMIN+31", "RTMAX-31", "RTMIN-1", "RTMAX+1", "RTMIN3", "RTMIN++3", "RTMIN+", "NOSUCH"} {
		if got, err := Signal(name); err == nil {
			t.Errorf("%q is %d, want an error", name, got)
		}
	}
}
