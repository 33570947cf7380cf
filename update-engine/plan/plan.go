// Package plan is plan/<channel>.json: which release a channel gets.
//
// The online role `plan` signs it, so that releases can be handed out and held back without the offline keys. It can only
// name: what it names must exist as a target of the offline role, or the update agent refuses it.
//
//	{
//	  "format": 1,
//	  "channel": "stable",
//	  "release": "1.0.1",
//	  "not_before": "2026-01-31T06:00:00Z",   optional
//	  "halted": true,                         optional: nobody starts this update now
//	  "urgent": true                          optional: machines need not wait for their reboot window
//	}
//
// Keys that a reader does not know are ignored, so that old machines read new plans; a key that must be understood comes
// with a higher format, which old readers refuse. This is format code: bytes in, values out.
package plan

import (
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"github.com/coreos/go-semver/semver"
)

const format = 1

// A Plan is what one channel gets.
type Plan struct {
	Format    int        `json:"format"`
	Channel   string     `json:"channel"`
	Release   string     `json:"release"` // semver
	NotBefore *time.Time `json:"not_before,omitempty"`
	Halted    bool       `json:"halted,omitempty"`
	Urgent    bool       `json:"urgent,omitempty"` // machines need not wait for their reboot window
}

// Target is the name of a channel's plan in the repository.
func Target(channel string) string { return "plan/" + channel + ".json" }

// CheckChannel refuses names that are not a single plain path element.
func CheckChannel(channel string) error {
	if !channelName.MatchString(channel) {
		return fmt.Errorf("channel %q: want lower-case letters, digits and hyphens, at most 64, a letter first", channel)
	}
	return nil
}

var channelName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`)

// Parse reads the plan of channel.
func Parse(b []byte, channel string) (*Plan, error) {
	var p Plan
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("parse plan of channel %s: %w", channel, err)
	}
	if p.Format != format {
		return nil, fmt.Errorf("parse plan of channel %s: format %d, this program reads %d: update in smaller steps", channel, p.Format, format)
	}
	if p.Channel != channel {
		return nil, fmt.Errorf("parse plan of channel %s: it is the plan of channel %q", channel, p.Channel)
	}
	if _, err := semver.NewVersion(p.Release); err != nil {
		return nil, fmt.Errorf("parse plan of channel %s: release %q: %w", channel, p.Release, err)
	}
	return &p, nil
}

// Marshal returns the bytes of p for its channel.
func (p Plan) Marshal() ([]byte, error) {
	p.Format = format
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write plan: %w", err)
	}
	b = append(b, '\n')
	if _, err := Parse(b, p.Channel); err != nil {
		return nil, fmt.Errorf("write plan: %w", err)
	}
	return b, CheckChannel(p.Channel)
}

// Held says why the plan must not be followed at the time now; empty means it may be.
func (p *Plan) Held(now time.Time) string {
	switch {
	case p.Halted:
		return fmt.Sprintf("release %s is halted on channel %s", p.Release, p.Channel)
	case p.NotBefore != nil && now.Before(*p.NotBefore):
		return fmt.Sprintf("release %s is planned for %s", p.Release, p.NotBefore.UTC().Format(time.RFC3339))
	}
	return ""
}
