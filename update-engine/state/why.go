package state

import (
	"cmp"
	"fmt"
	"time"

	"github.com/proa-os/proa/internal/slot"
)

// Facts are all that an answer to "why is this machine not updated?" depends on.
type Facts struct {
	Running    string // version
	Server     string // empty: no repository is configured
	Boot       Boot
	Machine    Machine
	Quarantine Quarantine
	Orders     Orders
	Now        time.Time
	Waits      string // what the reboot into an armed release waits for; empty if it does not
}

// Why explains in one line why the machine is or is not updated, and names who sent wrong bytes in the last update.
func Why(f Facts) string {
	why := explain(f)
	for _, l := range f.Machine.Liars {
		why += fmt.Sprintf("; %s sent wrong bytes of the %s of %s at %s", l.Server, l.Payload, l.Version, minute(l.Time))
	}
	return why
}

func explain(f Facts) string {
	for _, part := range []func(Facts) string{bootWhy, jobWhy, lookWhy, planWhy} {
		if why := part(f); why != "" {
			return why
		}
	}
	return fmt.Sprintf("runs %s: release %s is there, updatectl apply installs it", f.Running, f.Orders.Want(f.Machine.Check.Offered))
}

// bootWhy is about a boot that is to end.
func bootWhy(f Facts) string {
	switch {
	case f.Boot.Leaving && f.Orders.Back != nil:
		return fmt.Sprintf("runs %s: rolled back %s, the next boot runs %s", f.Running, f.Orders.Back.Given, f.Orders.Back.To.Version)
	case f.Boot.Trying && f.Boot.Soft:
		return fmt.Sprintf("runs %s on trial after a soft reboot: its health check decides, and any other start of the machine goes back", f.Running)
	case f.Boot.Trying:
		return fmt.Sprintf("runs %s on trial: its health check decides, %d tries are left", f.Running, f.Boot.Left)
	}
	return ""
}

// jobWhy is about what works, or has worked and waits for a reboot.
func jobWhy(f Facts) string {
	m := f.Machine
	switch {
	case m.Phase == Checking || m.Phase == Downloading || m.Phase == Writing || m.Phase == Rebooting:
		return fmt.Sprintf("runs %s and is %s", f.Running, m.Phase)
	case m.Phase == Armed && m.Target != nil && f.Waits != "":
		return fmt.Sprintf("runs %s: release %s is written and armed, and %s", f.Running, m.Target.Version, f.Waits)
	case m.Phase == Armed && m.Target != nil:
		return fmt.Sprintf("runs %s: release %s is written and armed, the next boot tries it", f.Running, m.Target.Version)
	}
	return ""
}

// lookWhy is about the last look at the repository. A hold is true whatever it found.
func lookWhy(f Facts) string {
	c := f.Machine.Check
	switch {
	case f.Orders.Held(f.Now):
		why := fmt.Sprintf("stays on %s: %s", f.Running, f.Orders.Forbid("", f.Now))
		if c != nil && c.Offered != "" && slot.Compare(c.Offered, f.Running) > 0 {
			why += fmt.Sprintf("; channel %s offers %s", c.Channel, c.Offered)
		}
		return why
	case f.Server == "":
		return fmt.Sprintf("stays on %s: no repository is configured in /etc/proa/update/config.json", f.Running)
	case c == nil:
		return fmt.Sprintf("runs %s: has not looked for a newer release yet", f.Running)
	case c.Error != "":
		return fmt.Sprintf("runs %s: the last look for a newer release failed: %s", f.Running, c.Error)
	}
	return ""
}

// planWhy is about the release that this machine should run.
func planWhy(f Facts) string {
	c := f.Machine.Check
	want := f.Orders.Want(c.Offered)
	pinned := f.Orders.Pin != nil
	forbidden := f.Orders.Forbid(want, f.Now)
	switch {
	case want == f.Running && pinned:
		why := fmt.Sprintf("stays on %s: pinned %s, until updatectl unpin", f.Running, f.Orders.Pin.Given)
		if c.Offered != want {
			why += fmt.Sprintf("; channel %s offers %s", c.Channel, c.Offered)
		}
		return why
	case want == f.Running:
		return fmt.Sprintf("runs %s, the release of channel %s", f.Running, c.Channel)
	case slot.Compare(want, f.Running) < 0 && pinned:
		return fmt.Sprintf("stays on %s: pinned to the older %s %s, and machines never go back by plan: updatectl rollback does, if the other slot holds it", f.Running, want, f.Orders.Pin.Given)
	case slot.Compare(want, f.Running) < 0:
		return fmt.Sprintf("stays on %s: channel %s offers the older %s, and machines never go back by plan", f.Running, c.Channel, want)
	case forbidden != "":
		return fmt.Sprintf("stays on %s: %s", f.Running, forbidden)
	}
	if e := f.Quarantine.FindVersion(want); e != nil {
		return fmt.Sprintf("stays on %s: release %s is quarantined since %s: %s", f.Running, want, minute(e.Time), e.Reason)
	}
	switch {
	case c.Held != "" && want == c.Offered:
		return fmt.Sprintf("stays on %s: %s", f.Running, c.Held)
	case f.Machine.Phase == Failed:
		return fmt.Sprintf("stays on %s: release %s could not be installed: %s", f.Running, want, cmp.Or(f.Machine.Error, "no reason is known"))
	}
	return ""
}
