package state

import (
	"fmt"
	"testing"
	"time"
)

func TestSchedule(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	const hour = time.Hour
	if !(Schedule{}).Due(now, "a") {
		t.Error("a new machine does not look")
	}
	s := Schedule{}.After(now, "a", Went, hour, 0.5)
	for _, c := range []struct {
		at   time.Duration
		boot string
		want bool
	}{
		{0, "a", false}, {59 * time.Minute, "a", false}, {time.Hour, "a", true}, {0, "b", true}, {-2 * time.Hour, "a", true}, {-time.Second, "a", false},
	} {
		if got := s.Due(now.Add(c.at), c.boot); got != c.want {
			t.Errorf("%s later in boot %s: due %v", c.at, c.boot, got)
		}
	}
	for _, c := range []struct {
		outcome Outcome
		every   time.Duration
		want    []time.Duration
	}{
		{Went, hour, []time.Duration{hour, hour, hour}},
		{LookFailed, hour, []time.Duration{10 * time.Minute, 20 * time.Minute, 40 * time.Minute, hour, hour}},
		{LookFailed, 10 * time.Minute, []time.Duration{10 * time.Minute, 10 * time.Minute}},
		{InstallFailed, hour, []time.Duration{hour, 2 * hour, 4 * hour, 8 * hour, 16 * hour, 24 * hour, 24 * hour}},
		{InstallFailed, 48 * hour, []time.Duration{48 * hour, 48 * hour}},
	} {
		var s Schedule
		for i, want := range c.want {
			s = s.After(now, "a", c.outcome, c.every, 0.5)
			if got := s.Next.Sub(now); got != want {
				t.Errorf("outcome %d every %s, time %d: pause %s, want %s", c.outcome, c.every, i+1, got, want)
			}
		}
		for range 100 {
			s = s.After(now, "a", c.outcome, c.every, 1)
		}
		if got := s.Next.Sub(now); got < c.every/2 || got > 53*hour {
			t.Errorf("outcome %d every %s after many: pause %s", c.outcome, c.every, got)
		}
		if s = s.After(now, "a", Went, c.every, 0.5); s.Failures != 0 || s.Next.Sub(now) != c.every {
			t.Errorf("outcome %d: a success does not end it: %+v", c.outcome, s)
		}
	}
}

// The earliest machine looks a tenth of the interval before it is over, the latest a tenth behind that.
func TestJitterIsInThePause(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for jitter, want := range map[float64]time.Duration{0: 54 * time.Minute, 0.25: 57 * time.Minute, 1: 66 * time.Minute} {
		if got := (Schedule{}).After(now, "a", Went, time.Hour, jitter).Next.Sub(now); got != want {
			t.Errorf("jitter %v: looks after %s, want %s", jitter, got, want)
		}
	}
}

// Machines spread over the fifth of the interval, and each stays where it is.
func TestJitter(t *testing.T) {
	var low, high int
	for i := range 1000 {
		id := fmt.Sprintf("%032x", i)
		j := Jitter(id)
		if j < 0 || j >= 1 || j != Jitter(id) {
			t.Fatalf("%s: %v", id, j)
		}
		if j < 0.5 {
			low++
		} else {
			high++
		}
	}
	if low < 400 || high < 400 {
		t.Errorf("%d below the middle, %d above", low, high)
	}
}
