package state

import (
	"maps"
	"time"
)

// Counters is counters.json: sums since this machine was provisioned. A hint, like Machine.
type Counters struct {
	Checks      int64            `json:"checks"`
	Failures    map[string]int64 `json:"failures,omitempty"` // by Reason
	Fetched     int64            `json:"fetched_bytes"`
	LastSuccess time.Time        `json:"last_success,omitzero"` // of a look at the repository
}

// Reason is a class of failures.
type Reason string

// The reasons: few, so that an alarm can be set on each.
const (
	ReasonConfiguration Reason = "configuration" // no server, no trust anchor
	ReasonNetwork       Reason = "network"       // the repository cannot be reached, or is cut off
	ReasonMetadata      Reason = "metadata"      // signatures, versions, expiry
	ReasonPayload       Reason = "payload"       // what came is not what was signed
	ReasonRelease       Reason = "release"       // a signed release contradicts itself, or cannot be taken from here
	ReasonSpace         Reason = "space"         // ESP, slot or state is too small or full
	ReasonClock         Reason = "clock"         // no signature can be judged by it
	ReasonHealth        Reason = "health"        // a try was bad
	ReasonOther         Reason = "other"
)

// Reasons lists them all.
func Reasons() []Reason {
	return []Reason{ReasonConfiguration, ReasonNetwork, ReasonMetadata, ReasonPayload, ReasonRelease, ReasonSpace, ReasonClock, ReasonHealth, ReasonOther}
}

// Fail counts a failure.
func (c *Counters) Fail(r Reason) {
	c.Failures = maps.Clone(c.Failures)
	if c.Failures == nil {
		c.Failures = map[string]int64{}
	}
	c.Failures[string(r)]++
}
