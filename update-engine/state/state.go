// Package state decides: which phase an update is in, what a boot was, and why a machine is or is not updated.
//
// It is the pure part of the update agent; values in, values out, the time is passed in. What the agent keeps between boots
// (Machine, Quarantine, Entry) is defined here and stored by package record. All of it is a hint: which release runs,
// which is armed and which has used up its tries is read from dm-verity and the ESP at every start (Judge).
package state

import (
	"fmt"
	"slices"
	"time"

	"github.com/proa-os/proa/internal/digest"
)

// Phase is where an update is.
type Phase string

// The phases. Idle, Armed, Trying, Good and Failed are met at rest, the others while something works.
const (
	Idle        Phase = "idle"
	Checking    Phase = "checking"
	Downloading Phase = "downloading" // metadata is verified, the payload begins
	Writing     Phase = "writing"     // the passive slot is no longer what it was
	Armed       Phase = "armed"       // the commit point is behind: the next boot is a try
	Rebooting   Phase = "rebooting"
	Trying      Phase = "trying" // this boot is a try, its health is not known yet
	Good        Phase = "good"
	Failed      Phase = "failed"
)

// next lists what may follow. Failed may follow everything that works, and a boot can find any phase at rest.
func (p Phase) next() []Phase {
	switch p {
	case Checking:
		return []Phase{Idle, Downloading, Failed}
	case Downloading:
		return []Phase{Writing, Failed}
	case Writing:
		return []Phase{Armed, Failed}
	case Armed:
		return []Phase{Checking, Rebooting, Trying, Failed}
	case Rebooting:
		return []Phase{Trying, Failed, Armed}
	case Trying:
		return []Phase{Good, Failed}
	}
	return []Phase{Checking, Trying} // Idle, Good, Failed
}

// To returns the next phase, or an error if it cannot follow.
func (p Phase) To(next Phase) (Phase, error) {
	if p == "" {
		p = Idle
	}
	if p != next && !slices.Contains(p.next(), next) {
		return p, fmt.Errorf("update phase %s cannot follow %s", next, p)
	}
	return next, nil
}

// Release names a release as the agent remembers it.
type Release struct {
	Version string        `json:"version"`
	Root    digest.SHA256 `json:"root_hash"`
}

// Machine is state.json: what the agent remembers between its runs.
type Machine struct {
	Phase  Phase     `json:"phase"`
	Since  time.Time `json:"since"`
	Target *Release  `json:"target,omitempty"` // what is being installed, armed or tried
	Error  string    `json:"error,omitempty"`  // why Failed
	// FailedUnits were failed when Target was armed: they do not count against it.
	FailedUnits []string `json:"failed_units,omitempty"`
	// Network is what worked of the network then: it must work in the try, too.
	Network *Network `json:"network,omitempty"`
	Check   *Check   `json:"check,omitempty"`
	// Answer is the last Check without an error.
	Answer *Check `json:"answer,omitempty"`
	// Liars are the servers whose bytes were not those that are signed, when Target was fetched.
	Liars []Liar `json:"liars,omitempty"`
}

// A Liar is a server that has sent wrong bytes. Nothing of them was written, and another server was asked.
type Liar struct {
	Time    time.Time `json:"time"`
	Server  string    `json:"server"`  // as it is configured
	Payload string    `json:"payload"` // "delta" or "full payload"
	Version string    `json:"version"` // of the release
	Error   string    `json:"error"`
}

// Check is the last look at the repository.
type Check struct {
	Time    time.Time `json:"time"`
	Channel string    `json:"channel"`
	Offered string    `json:"offered,omitempty"` // version of the channel's plan
	Held    string    `json:"held,omitempty"`    // why the plan says: not now
	Urgent  bool      `json:"urgent,omitempty"`  // the plan's word that a reboot need not wait for a window
	Release *Release  `json:"release,omitempty"` // what this machine should run next, if it is to run another
	Error   string    `json:"error,omitempty"`
	// Unanswered means that the error is only that the repository was not reached, or had nothing but what has expired.
	Unanswered bool `json:"unanswered,omitempty"`
}

// AnswerCounts is for how long the repository's last answer counts while it gives none: a day, as its timestamp does. Who cuts a machine off
// can keep it from seeing that a release was halted for no longer than both.
const AnswerCounts = 24 * time.Hour

// Unconfirmed says why the last look and the last answer are not enough to reboot into a release that is armed; empty if they are.
func (m Machine) Unconfirmed(target Release, channel string, now time.Time) string {
	c, a := m.Check, m.Answer
	switch {
	case c == nil || c.Error == "":
		return ""
	case !c.Unanswered:
		return "the last look for a newer release failed: " + c.Error
	case a != nil && a.Release == nil && a.Held != "":
		return a.Held
	case a == nil || a.Release == nil || *a.Release != target || a.Channel != channel:
		return "the repository has to confirm it and does not answer: " + c.Error
	case a.Time.After(now) || now.Sub(a.Time) >= AnswerCounts:
		return fmt.Sprintf("the repository has to confirm it: its last answer, of %s, counts for %.0f hours, and it gives no other: %s", minute(a.Time), AnswerCounts.Hours(), c.Error)
	}
	return ""
}

// A Quarantined release is bad and is not taken again.
type Quarantined struct {
	Release
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
}

// Quarantine is quarantine.json.
type Quarantine []Quarantined

// Find returns the entry of a root hash, or nil.
func (q Quarantine) Find(root digest.SHA256) *Quarantined {
	for i := range q {
		if q[i].Root == root {
			return &q[i]
		}
	}
	return nil
}

// FindVersion returns the entry of a version, or nil.
func (q Quarantine) FindVersion(version string) *Quarantined {
	for i := range q {
		if q[i].Version == version {
			return &q[i]
		}
	}
	return nil
}

// Without returns q without the entries of a version, and what they were.
func (q Quarantine) Without(version string) (left, gone Quarantine) {
	for _, e := range q {
		if e.Version == version {
			gone = append(gone, e)
		} else {
			left = append(left, e)
		}
	}
	return left, gone
}

// Add returns q with one more entry; the first reason of a root hash stays.
func (q Quarantine) Add(e Quarantined) Quarantine {
	if q.Find(e.Root) != nil {
		return q
	}
	return append(slices.Clone(q), e)
}

// An Entry is a line of history.jsonl.
type Entry struct {
	Time  time.Time `json:"time"`
	Event Event     `json:"event"`
	Release
	Running string `json:"running"`      // version that ran when it happened
	By      string `json:"by,omitempty"` // who wanted it, if a person did
	Detail  string `json:"detail,omitempty"`
}

// Event is what happened to a release.
type Event string

// The events of the history.
const (
	EventArmed   Event = "armed"
	EventGood    Event = "good"
	EventBad     Event = "bad"     // its try failed, or it came back without a verdict
	EventRefused Event = "refused" // never armed, because it contradicts itself

	// By hand; the release is what the order is about.
	EventRolledBack Event = "rolled back" // from it
	EventResumed    Event = "resumed"     // it may be taken again after a rollback
	EventDisarmed   Event = "disarmed"    // it was armed and will not be tried
	EventHeld       Event = "held"
	EventUnheld     Event = "unheld"
	EventPinned     Event = "pinned"
	EventUnpinned   Event = "unpinned"
	EventCleared    Event = "cleared" // out of the quarantine
)
