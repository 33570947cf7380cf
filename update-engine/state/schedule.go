package state

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Schedule is schedule.json: when this machine looks for a newer release by itself. A timer asks Due every few minutes, so that
// a changed configuration, a clock that was set and a boot count at once, and nothing has to be planned that could get lost.
type Schedule struct {
	Boot     string    `json:"boot"` // id of the boot in which it last looked
	Last     time.Time `json:"last"`
	Next     time.Time `json:"next"`
	Failures int       `json:"failures"` // in a row
}

// Due reports whether it is time: once in every boot, then at Next. A clock that was set back by more than the longest pause does not put it off.
func (s Schedule) Due(now time.Time, boot string) bool {
	return s.Boot != boot || !now.Before(s.Next) || now.Before(s.Last.Add(-time.Minute))
}

// Outcome is what became of looking.
type Outcome int

// The outcomes.
const (
	Went          Outcome = iota // all well, whether or not there was something to do
	LookFailed                   // the repository was not there or was refused: it costs little to ask again
	InstallFailed                // a release was there and could not be installed: it may cost a whole download
)

const (
	firstRetry = 10 * time.Minute
	longestGap = 24 * time.Hour
)

// After is the schedule once it has looked. The pause is the interval, a bit shorter or longer on each machine by jitter, a number from 0
// to 1. When looking fails it is ten minutes, doubled with every failure up to the interval, so that a machine whose network was away is
// not late; when installing fails it is the interval, doubled with every failure up to a day.
func (s Schedule) After(now time.Time, boot string, o Outcome, interval time.Duration, jitter float64) Schedule {
	pause := interval
	next := Schedule{Boot: boot, Last: now.UTC()}
	if o != Went {
		next.Failures = s.Failures + 1
		double := min(s.Failures, 10) // what is more is over the bounds, and would overflow
		if o == LookFailed {
			pause = min(firstRetry<<double, interval)
		} else {
			pause = min(interval<<double, max(interval, longestGap))
		}
	}
	next.Next = now.Add(time.Duration(float64(pause) * (0.9 + 0.2*jitter))).UTC()
	return next
}

// Jitter is a number from 0 to 1 that is a machine's own and stays: a thousand machines do not ask at once, and one does not wander.
func Jitter(machineID string) float64 {
	sum := sha256.Sum256([]byte("proa update schedule\n" + machineID))
	return float64(binary.BigEndian.Uint32(sum[:])) / (1 << 32)
}
