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
//	  "waves": [                              optional: which part of the machines may take it, from when on
//	    {"from": "2026-01-31T06:00:00Z", "percent": 5},
//	    {"from": "2026-02-01T06:00:00Z", "percent": 100}
//	  ],
//	  "halted": true,                         optional: nobody starts this update now
//	  "urgent": true                          optional: machines need not wait for their reboot window
//	}
//
// Keys that a reader does not know are ignored, so that old machines read new plans; a key that must be understood comes
// with a higher format, which old readers refuse. This is format code: bytes in, values out.
package plan

import (
	"crypto/sha256"
	"encoding/binary"
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
	Waves     []Wave     `json:"waves,omitempty"` // later ones take more machines
	Halted    bool       `json:"halted,omitempty"`
	Urgent    bool       `json:"urgent,omitempty"` // machines need not wait for their reboot window
}

// A Wave lets a part of all machines have the release from a time on.
type Wave struct {
	From    time.Time `json:"from"`
	Percent int       `json:"percent"` // 1 to 100
}

// A Place is where a machine stands in the queue for one release: from 0, the first, to 99.
type Place int

// PlaceOf draws the place of a machine by its id, which stays on the machine. Each release draws anew, so that nobody is always the first to
// find out. Without an id a machine is among the last.
func PlaceOf(machine []byte, version string) Place {
	if len(machine) == 0 {
		return 99
	}
	h := sha256.New()
	fmt.Fprintf(h, "wave of %s\n", version)
	h.Write(machine)
	return Place(binary.BigEndian.Uint64(h.Sum(nil)) % 100)
}

// CheckWaves refuses waves that do not grow.
func CheckWaves(waves []Wave) error {
	for i, w := range waves {
		switch {
		case w.Percent < 1 || w.Percent > 100:
			return fmt.Errorf("wave %d takes %d %%: expected 1 to 100", i+1, w.Percent)
		case w.From.IsZero() || w.From.Year() < 0 || w.From.Year() > 9999:
			return fmt.Errorf("wave %d begins at %s: expected a time", i+1, w.From)
		case i > 0 && (w.Percent <= waves[i-1].Percent || !w.From.After(waves[i-1].From)):
			return fmt.Errorf("wave %d (%d %% from %s) is not later and larger than the one before it", i+1, w.Percent, w.From.UTC().Format(time.RFC3339))
		}
	}
	return nil
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
	if err := CheckWaves(p.Waves); err != nil {
		return nil, fmt.Errorf("parse plan of channel %s: %w", channel, err)
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

// Held says why the machine at a place must not follow the plan at the time now; empty means it may.
func (p *Plan) Held(now time.Time, at Place) string {
	switch {
	case p.Halted:
		return fmt.Sprintf("release %s is halted on channel %s", p.Release, p.Channel)
	case p.NotBefore != nil && now.Before(*p.NotBefore):
		return fmt.Sprintf("release %s is planned for %s", p.Release, p.NotBefore.UTC().Format(time.RFC3339))
	}
	for _, w := range p.Waves {
		if int(at) >= w.Percent {
			continue
		}
		if now.Before(w.From) {
			return fmt.Sprintf("release %s reaches this machine with the wave of %s, which takes %d %% of channel %s", p.Release, w.From.UTC().Format(time.RFC3339), w.Percent, p.Channel)
		}
		return ""
	}
	if n := len(p.Waves); n > 0 {
		return fmt.Sprintf("release %s goes to %d %% of channel %s for now, and this machine is not among them", p.Release, p.Waves[n-1].Percent, p.Channel)
	}
	return ""
}
