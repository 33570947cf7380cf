package reboot

import (
	"fmt"
	"time"
)

// An Inhibitor is somebody's request not to reboot now.
type Inhibitor struct {
	Who string `json:"who"`
	Why string `json:"why"`
	// Delay means that it only wants a moment to finish, which logind grants it; everything else blocks.
	Delay bool `json:"delay,omitempty"`
}

func (i Inhibitor) String() string {
	if i.Why == "" {
		return i.Who
	}
	return fmt.Sprintf("%s (%s)", i.Who, i.Why)
}

// A Situation is what a decision is made from.
type Situation struct {
	Now time.Time
	// Held is why neither the plan nor the machine's owner wants the armed release booted now; empty if they do.
	Held string
	// Urgent is the plan's word that the release need not wait for a window.
	Urgent     bool
	Inhibitors []Inhibitor
	// BlockedSince is when an inhibitor first was all that stood in the way; zero if none has.
	BlockedSince time.Time
}

// A Decision is whether to reboot now, or when to ask again.
type Decision struct {
	Go bool `json:"go"`
	// When is the time to ask again; zero means that no time is known: it is not the clock that decides.
	When   time.Time `json:"when,omitzero"`
	Reason string    `json:"reason"` // a clause for people, "the window opens at ..."
	// Blocked means that an inhibitor is all that stands in the way: keep since when.
	Blocked bool `json:"blocked,omitempty"`
}

// retry is how long an inhibitor is given before it is looked at again: nobody says when it goes.
const retry = time.Minute

// Decide says whether the machine may reboot into its armed release now. Everything is looked at together, and it is asked again at
// the last moment: only that answer counts.
func Decide(c Config, s Situation) (Decision, error) {
	switch {
	case s.Held != "":
		return Decision{Reason: s.Held}, nil
	case c.Strategy == Off:
		return Decision{Reason: "the machine does not reboot by itself (strategy off): reboot it when it suits"}, nil
	}
	zone, err := c.zone()
	if err != nil {
		return Decision{}, err
	}
	s.Now = s.Now.In(zone)
	until := time.Time{}
	if c.Strategy == InWindow && !s.Urgent {
		var open bool
		if until, open, err = c.Open(s.Now); err != nil {
			return Decision{}, err
		}
		if !open {
			next, err := c.Next(s.Now)
			return Decision{When: next, Reason: "the next window opens at " + clock(next)}, err
		}
	}
	for _, i := range s.Inhibitors {
		if i.Delay {
			continue
		}
		if d, blocked := c.blocked(s, i, until); blocked {
			return d, nil
		}
	}
	return Decision{Go: true, Reason: "nothing stands in the way"}, nil
}

// blocked is the decision about one inhibitor, in a window that is open until then (zero: for ever).
func (c Config) blocked(s Situation, i Inhibitor, until time.Time) (Decision, bool) {
	since := s.BlockedSince
	if since.IsZero() || since.After(s.Now) { // a clock that was put back
		since = s.Now
	}
	end := since.In(s.Now.Location()).Add(time.Duration(c.MaxDelay))
	if !s.Now.Before(end) {
		return Decision{}, false
	}
	d := Decision{Blocked: true, When: s.Now.Add(retry), Reason: fmt.Sprintf("%s holds the reboot up, until %s at the latest", i, clock(end))}
	if end.Before(d.When) {
		d.When = end
	}
	if !until.IsZero() && !until.After(end) {
		d.Reason = fmt.Sprintf("%s holds the reboot up, and the window closes at %s", i, clock(until))
	}
	return d, true
}

func clock(t time.Time) string { return t.Format("Mon 2006-01-02 15:04 MST") }
