package tcg

import (
	"slices"
	"strconv"
	"sync"
	"time"
)

// KernelArgs tells a guest under TCG its counter's frequency. It is empty where the host has no counter of a fixed frequency. A guest's
// counter is the host's, and a guest that measures it itself, against timers that a busy host serves late, can be wrong by any factor: it then
// lives too fast or too slowly for every deadline. The kernel takes the right value as tsc_early_khz=
// (Documentation/admin-guide/kernel-parameters.txt).
var KernelArgs = sync.OnceValue(func() []string {
	if !fixed() {
		return nil
	}
	// A measurement that was interrupted is off; most are not.
	rates := make([]int, 5)
	for i := range rates {
		rates[i] = measure(10 * time.Millisecond)
	}
	slices.Sort(rates)
	return []string{"tsc_early_khz=" + strconv.Itoa(rates[len(rates)/2])}
})

// measure counts for a span of time; the result is in kHz.
func measure(span time.Duration) int {
	begin, from := look()
	time.Sleep(span)
	end, to := look()
	return int(float64(to-from) / float64(end.Sub(begin)) * 1e6)
}

// look reads clock and counter at the same time, as nearly as some tries come.
func look() (at time.Time, count uint64) {
	best := time.Hour
	for range 20 {
		before := time.Now()
		c := read()
		if took := time.Since(before); took < best {
			best, at, count = took, before, c
		}
	}
	return at, count
}
