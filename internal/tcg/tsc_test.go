package tcg

import (
	"math"
	"testing"
	"time"
)

// TestMeasure holds a short measurement against one that is twenty times as long.
func TestMeasure(t *testing.T) {
	if !fixed() {
		t.Skip("SKIPPED, NOT CHECKED: this host has no counter of a fixed frequency")
	}
	short, long := measure(10*time.Millisecond), measure(200*time.Millisecond)
	if off := math.Abs(float64(short)/float64(long) - 1); off > 0.01 {
		t.Errorf("measured %d kHz in 10 ms and %d kHz in 200 ms: more than 1 %% apart", short, long)
	}
	if long < 100_000 || long > 20_000_000 {
		t.Errorf("measured %d kHz", long)
	}
	if args := KernelArgs(); len(args) != 1 {
		t.Errorf("kernel arguments %q, want one", args)
	}
}
