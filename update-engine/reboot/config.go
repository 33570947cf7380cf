// Package reboot decides when and how a machine reboots into an armed release, and what a boot after a soft reboot is.
//
// It is a decision package: values in, values out, the time is passed in. Strategy and windows come from the agent's configuration (Config),
// inhibitors from package inhibit, the boot programs' kernels from the ESP. What the agent keeps between its runs (Memory) is defined here and
// stored by package record.
//
//	release armed ──▶ Decide: strategy, hold, window, inhibitors ──▶ not now: when to come back, and why
//	                    │ go
//	                    ▼
//	                  Choose: full, or soft because the kernel is the same ──▶ reboot ──▶ Judge: what has become of a soft try
//
// A window opens at a time of day in a time zone, on days of the week, and stays open for a duration: time that passes, not time on the
// clock. When the clocks are put forward over its start it opens at that moment; when they are put back over it, it opens once, the first
// time. A window may run over midnight and belongs to the day on which it starts. Time zones are those of the IANA database, of which the
// program has a copy of its own (time/tzdata), since the root image has none.
package reboot

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	_ "time/tzdata" // 450 KB; the root image has no zoneinfo
)

// Strategy says when a machine may reboot by itself.
type Strategy string

// The strategies.
const (
	Immediate Strategy = "immediate" // as soon as a release is armed
	InWindow  Strategy = "window"    // when a window is open
	Off       Strategy = "off"       // never: somebody else reboots the machine
)

// Mode is how a machine reboots.
type Mode string

// The modes. Auto stands in configurations only: soft if it is possible, else full.
const (
	Auto Mode = "auto"
	Full Mode = "full" // firmware, loader and kernel start anew
	Soft Mode = "soft" // userspace only
)

// Config is the block "reboot" of /etc/proa/update/config.json.
//
//	"reboot": {
//	  "strategy": "window",                  immediate (the default), window or off
//	  "windows": [{"days": ["sat", "sun"], "start": "03:00", "duration": "2h"}],   no days: every day
//	  "time_zone": "Europe/Berlin",          of the windows; by default UTC
//	  "max_delay": "24h",                    how long inhibitors may hold a reboot up; "0s" ignores them
//	  "mode": "auto"                         auto (the default), full or soft; soft is full where it is not possible, too
//	}
type Config struct {
	Strategy Strategy `json:"strategy"`
	Windows  []Window `json:"windows,omitempty"`
	TimeZone string   `json:"time_zone,omitempty"`
	MaxDelay Duration `json:"max_delay"`
	Mode     Mode     `json:"mode"`
}

// Default is what holds without a block.
func Default() Config {
	return Config{Strategy: Immediate, MaxDelay: Duration(24 * time.Hour), Mode: Auto}
}

const (
	maxDelay    = 30 * 24 * time.Hour
	minDuration = 30 * time.Minute // the timer comes every ten minutes, up to five late
	maxDuration = 24 * time.Hour
)

// Check refuses what cannot be meant.
func (c Config) Check() error {
	if !slices.Contains([]Strategy{Immediate, InWindow, Off}, c.Strategy) {
		return fmt.Errorf("reboot strategy %q: want immediate, window or off", c.Strategy)
	}
	if !slices.Contains([]Mode{Auto, Full, Soft}, c.Mode) {
		return fmt.Errorf("reboot mode %q: want auto, full or soft", c.Mode)
	}
	if d := time.Duration(c.MaxDelay); d < 0 || d > maxDelay {
		return fmt.Errorf("reboot max_delay %s: want 0s to %s", d, maxDelay)
	}
	if _, err := c.zone(); err != nil {
		return err
	}
	if (c.Strategy == InWindow) != (len(c.Windows) > 0) {
		return fmt.Errorf("reboot strategy %s with %d windows: windows belong to the strategy window, which needs at least one", c.Strategy, len(c.Windows))
	}
	for i, w := range c.Windows {
		if err := w.check(); err != nil {
			return fmt.Errorf("reboot window %d: %w", i+1, err)
		}
	}
	return nil
}

func (c Config) zone() (*time.Location, error) {
	switch c.TimeZone {
	case "":
		return time.UTC, nil
	case "Local":
		return nil, errors.New(`reboot time_zone "Local": name a zone of the IANA database such as Europe/Berlin, or UTC`)
	}
	loc, err := time.LoadLocation(c.TimeZone)
	if err != nil {
		return nil, fmt.Errorf("reboot time_zone %q: want a zone of the IANA database such as Europe/Berlin, or UTC: %w", c.TimeZone, err)
	}
	return loc, nil
}

// Duration is a time.Duration that JSON has as "1h30m".
type Duration time.Duration

// MarshalJSON implements json.Marshaler.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON implements json.Unmarshaler.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf(`duration %s: want a text such as "1h30m"`, b)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf(`duration %q: want a text such as "1h30m"`, s)
	}
	*d = Duration(v)
	return nil
}
