package state

import (
	"cmp"
	"fmt"
	"time"

	"github.com/proa-os/proa/internal/slot"
)

// Orders is orders.json: what people have told this machine. They bind the agent until they are taken back, whatever a channel plans.
type Orders struct {
	Hold *Hold `json:"hold,omitempty"`
	Pin  *Pin  `json:"pin,omitempty"`
	Back *Back `json:"rolled_back,omitempty"`
}

// Given says who gave an order, when and why.
type Given struct {
	Time   time.Time `json:"time"`
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
}

// String is the end of a sentence: "by core on 2026-01-31 06:00 (a reason)".
func (g Given) String() string {
	s := fmt.Sprintf("by %s on %s", cmp.Or(g.By, "root"), minute(g.Time))
	if g.Reason != "" {
		s += " (" + g.Reason + ")"
	}
	return s
}

func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }

// A Hold keeps every release away, for good or until a time.
type Hold struct {
	Given
	Until *time.Time `json:"until,omitempty"`
}

// A Pin keeps every release but one away.
type Pin struct {
	Given
	Version string `json:"version"`
}

// A Back is a rollback by hand: From and what is older than it are not taken again.
type Back struct {
	Given
	From Release `json:"from"`
	To   Release `json:"to"`
}

// Held reports whether a hold is in force.
func (o Orders) Held(now time.Time) bool {
	return o.Hold != nil && (o.Hold.Until == nil || now.Before(*o.Hold.Until))
}

// Want is the version this machine should run when its channel plans another: the pinned one, if there is a pin.
func (o Orders) Want(planned string) string {
	if o.Pin != nil {
		return o.Pin.Version
	}
	return planned
}

// Forbid says why a release must not be taken now, and what allows it; empty means it may be.
func (o Orders) Forbid(version string, now time.Time) string {
	switch {
	case o.Held(now):
		until := "until updatectl unhold"
		if o.Hold.Until != nil {
			until = "until " + minute(*o.Hold.Until)
		}
		return fmt.Sprintf("held %s, %s", o.Hold.Given, until)
	case o.Pin != nil && o.Pin.Version != version:
		return fmt.Sprintf("pinned to %s %s, until updatectl unpin", o.Pin.Version, o.Pin.Given)
	case o.Back != nil && slot.Compare(version, o.Back.From.Version) <= 0:
		return fmt.Sprintf("rolled back from %s %s, until a newer release or updatectl resume", o.Back.From.Version, o.Back.Given)
	}
	return ""
}
