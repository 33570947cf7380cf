package tcg

import (
	"os"
	"slices"
	"strings"
)

// read is the time-stamp counter of the CPU that it runs on.
func read() uint64

// fixed reports whether the counter runs at one frequency, whatever the CPU does.
func fixed() bool {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return false
	}
	_, flags, _ := strings.Cut(string(info), "\nflags")
	line, _, _ := strings.Cut(flags, "\n")
	return slices.Contains(strings.Fields(line), "constant_tsc")
}
