package reboot

import (
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/state"
)

// Memory is reboot.json: what is remembered about reboots.
type Memory struct {
	// Blocked is the moment at which an inhibitor first was all that held the armed release up.
	Blocked *Moment `json:"blocked,omitempty"`
	// Try is the soft reboot that is under way or that this boot came by.
	Try *Try `json:"soft_try,omitempty"`
	// NoSoft is a release into which a soft reboot did not lead: the next one is full.
	NoSoft *state.Release `json:"no_soft,omitempty"`
	// Asked is the reboot whose gap is being measured.
	Asked *Asked       `json:"asked,omitempty"`
	Gaps  map[Mode]Gap `json:"gaps,omitempty"`
}

// A Moment is a time that does not move when a clock is set.
type Moment struct {
	Kernel string        `json:"kernel"` // boot ID
	Uptime time.Duration `json:"uptime"` // CLOCK_BOOTTIME
}

// Since is the moment by a clock that says now; the zero time if it was not in the boot of this kernel.
func (m *Moment) Since(now time.Time, kernel string, uptime time.Duration) time.Time {
	if m == nil || m.Kernel != kernel {
		return time.Time{}
	}
	return now.Add(m.Uptime - uptime)
}

// A Try is a soft try. The loader counts none, so the agent does: before the reboot the boot program of the release loses the name under
// which the loader would see it, and until the verdict is good every other way to start the machine leads to the old release.
type Try struct {
	state.Release
	Kernel  string    `json:"kernel"` // the kernel's boot ID, which a soft reboot does not change
	Time    time.Time `json:"time"`
	Verdict Verdict   `json:"verdict,omitempty"`
}

// Verdict is what the health check said of a soft try; empty before it has.
type Verdict string

// The verdicts.
const (
	Good Verdict = "good"
	Bad  Verdict = "bad"
)

// Start is what a boot has to do with a soft try.
type Start int

// What a boot can be, and what is to be done.
const (
	Plain     Start = iota // nothing
	Pending                // the old release runs and has not been left yet: nothing. To a health check at the start of userspace: it was not left
	Trying                 // this userspace is the soft try: judge it
	Proven                 // this userspace was a soft try and is good: its boot program is armed, the next start of the kernel tries that
	Condemned              // this userspace was a soft try and is bad: go back
	Lost                   // the kernel started anew before a verdict: quarantine
	Unarmed                // the kernel started anew and the release has done nothing wrong: give its boot program its counted name again
	Over                   // nothing is left to do: forget it
)

// Judge finds out what a boot is: kernel is the kernel's boot ID, running the root hash that runs, and left says that the old root was
// left for the try's (the mark of init/nextroot is there).
func (t *Try) Judge(kernel string, running digest.SHA256, left bool) Start {
	if t == nil {
		return Plain
	}
	in := running == t.Root
	switch {
	case t.Kernel == kernel && in && t.Verdict == "":
		return Trying
	case t.Kernel == kernel && in && t.Verdict == Good:
		return Proven
	case t.Kernel == kernel && in:
		return Condemned
	case t.Kernel == kernel && t.Verdict == "":
		return Pending
	case in || t.Verdict == Bad: // the loader started it, so it was armed; or all is done
		return Over
	case left && t.Verdict == "":
		return Lost
	}
	return Unarmed
}

// Asked is a reboot that was asked for.
type Asked struct {
	Mode   Mode          `json:"mode"`
	From   state.Release `json:"from"`
	To     state.Release `json:"to"`
	Kernel string        `json:"kernel"` // boot ID
	Time   time.Time     `json:"time"`
	// Uptime is the kernel's clock that goes on through a soft reboot, and starts anew in a full one (CLOCK_BOOTTIME).
	Uptime time.Duration `json:"uptime"`
}

// A Gap is how long a machine was away, from the order to reboot to a healthy boot.
type Gap struct {
	Seconds float64   `json:"seconds"`
	Time    time.Time `json:"time"` // of the order
	From    string    `json:"from"` // versions
	To      string    `json:"to"`
}

// longest is what a gap can be: what is longer is a clock that was set.
const longest = 2 * time.Hour

// Gap measures, when a boot is healthy. ok is false if the machine did not come where it was sent, or a clock is not to be believed.
func (a *Asked) Gap(now time.Time, uptime time.Duration, kernel string, running digest.SHA256) (g Gap, ok bool) {
	if a == nil || a.To.Root != running || (a.Kernel == kernel) != (a.Mode == Soft) {
		return Gap{}, false
	}
	away := now.Sub(a.Time)
	if a.Mode == Soft {
		away = uptime - a.Uptime
	}
	if away <= 0 || away > longest {
		return Gap{}, false
	}
	return Gap{Seconds: away.Round(100 * time.Millisecond).Seconds(), Time: a.Time, From: a.From.Version, To: a.To.Version}, true
}
