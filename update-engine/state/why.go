package state

import (
	"cmp"
	"fmt"
	"time"

	"github.com/coreos/go-semver/semver"

	"github.com/proa-os/proa/internal/slot"
)

// Facts are all that an answer to "why is this machine not updated?" depends on.
type Facts struct {
	Running    string // version
	Server     string // empty: no repository is configured
	Broken     string // what is wrong with the configuration; empty if it can be used
	Boot       Boot
	Machine    Machine
	Quarantine Quarantine
	Orders     Orders
	Now        time.Time
	Waits      string // what the reboot into an armed release waits for; empty if it does not
	Unready    string // why no update can begin, whatever is offered; empty if one can
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
	for _, part := range []func(Facts) string{bootWhy, jobWhy, lookWhy} {
		if why := part(f); why != "" {
			return why
		}
	}
	c, why := f.Machine.Check, planWhy(f)
	if !c.Time.IsZero() && f.Now.Sub(c.Time) > fresh {
		why += "; looked last on " + minute(c.Time)
	}
	return why
}

// fresh is for how long what a look has found is told as if it were so now.
const fresh = 24 * time.Hour

// bootWhy is about a boot that is to end, or to prove itself.
func bootWhy(f Facts) string {
	if f.Boot.Leaving && f.Orders.Back != nil {
		return fmt.Sprintf("runs %s: rolled back %s, the next boot runs %s", f.Running, f.Orders.Back.Given, f.Orders.Back.To.Version)
	}
	if f.Boot.Trying {
		return tryWhy(f)
	}
	if f.Machine.Phase == Trying && f.Boot.File == "" { // a job works, and nobody has looked at the ESP
		return fmt.Sprintf("runs %s on trial: its health check decides", f.Running)
	}
	return ""
}

// tryWhy is about a try. A verdict is in the quarantine before the machine leaves.
func tryWhy(f Facts) string {
	if e := f.Quarantine.FindVersion(f.Running); e != nil && f.Boot.WayBack != "" {
		return fmt.Sprintf("runs %s, which is bad and goes back to %s: %s", f.Running, versionOf(f.Boot.WayBack), e.Reason)
	}
	why := fmt.Sprintf("runs %s on trial: ", f.Running)
	switch {
	case f.Boot.Soft:
		why = fmt.Sprintf("runs %s on trial after a soft reboot: its health check decides, and any other start of the machine goes back", f.Running)
	case f.Boot.WayBack == "":
		why += fmt.Sprintf("a good health check ends it, but no other release can boot if it is bad, %d tries are left", f.Boot.Left)
	default:
		why += fmt.Sprintf("its health check decides, %d tries are left", f.Boot.Left)
	}
	return why
}

// versionOf is the version that a boot program's name says.
func versionOf(file string) string {
	n, err := slot.Parse(file)
	if err != nil {
		return file
	}
	return n.Version
}

// jobWhy is about what works, or has worked and waits for a reboot.
func jobWhy(f Facts) string {
	m := f.Machine
	switch {
	case m.Phase == Checking || m.Phase == Downloading || m.Phase == Writing || m.Phase == Rebooting:
		return fmt.Sprintf("runs %s and is %s", f.Running, m.Phase)
	case f.Boot.Pending:
		return fmt.Sprintf("runs %s: a soft reboot into the armed release was prepared and has not begun; the next boot arms it again, or the agent within the hour", f.Running)
	case m.Phase == Armed && m.Target != nil:
		return armedWhy(f, m.Target.Version)
	case f.Boot.File != "" && f.Boot.Next != "" && f.Boot.Next != f.Boot.File && !f.Boot.Soft: // and the agent's memory of it is lost
		return armedWhy(f, versionOf(f.Boot.Next))
	}
	return ""
}

// armedWhy is about a release that the next boot tries: whether the machine reboots for it by itself.
func armedWhy(f Facts, version string) string {
	why := fmt.Sprintf("runs %s: release %s is written and armed", f.Running, version)
	c := f.Machine.Check
	forbidden := f.Orders.Forbid(version, f.Now)
	switch {
	case forbidden != "":
		return why + ", but only a reboot by hand tries it: " + forbidden
	case c != nil && c.Error == "" && c.Held != "" && version == c.Offered && f.Orders.Pin == nil:
		return why + ", but only a reboot by hand tries it: " + c.Held
	case f.Waits != "":
		return why + ", and " + f.Waits
	}
	return why + ", the next boot tries it"
}

// lookWhy is about the last look at the repository. A hold is true whatever it found.
func lookWhy(f Facts) string {
	c := f.Machine.Check
	switch {
	case f.Orders.Held(f.Now):
		why := fmt.Sprintf("stays on %s: %s", f.Running, f.Orders.Forbid("", f.Now))
		if c != nil && c.Offered != "" && Newer(c.Offered, f.Running) {
			why += fmt.Sprintf("; channel %s offers %s", c.Channel, c.Offered)
		}
		return why
	case f.Broken != "":
		return fmt.Sprintf("stays on %s: %s", f.Running, f.Broken)
	case f.Server == "":
		return fmt.Sprintf("stays on %s: no repository is configured in /etc/proa/update/config.json", f.Running)
	case c == nil:
		return fmt.Sprintf("runs %s: has not looked for a newer release yet%s", f.Running, after(": ", f.Unready))
	case c.Error != "" && f.Unready != "": // that it failed may not even have been written down
		return fmt.Sprintf("stays on %s: no update can begin: %s", f.Running, f.Unready)
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
	case !Newer(want, f.Running) && pinned:
		return fmt.Sprintf("stays on %s: pinned to the older %s %s, and machines never go back by plan: updatectl rollback does, if the other slot holds it", f.Running, want, f.Orders.Pin.Given)
	case !Newer(want, f.Running):
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
	case f.Unready != "": // an earlier failure may be over
		return fmt.Sprintf("stays on %s: release %s is there, but no update can begin: %s", f.Running, want, f.Unready)
	case f.Machine.Phase == Failed && f.Machine.Target != nil && f.Machine.Target.Version == want: // another failure says nothing of this release
		return fmt.Sprintf("stays on %s: release %s could not be installed: %s", f.Running, want, cmp.Or(f.Machine.Error, "no reason is known"))
	case f.Boot.Soft:
		return fmt.Sprintf("runs %s since a soft reboot: release %s is there, updatectl apply reboots in full first, to prove the boot program", f.Running, want)
	}
	return fmt.Sprintf("runs %s: release %s is there, updatectl apply installs it", f.Running, want)
}

// Newer reports whether a version may follow another on a machine: those who publish order versions as semver does, the loaders as systemd
// does, which is another order of some pre-releases, and both must agree.
func Newer(version, than string) bool {
	v, err := semver.NewVersion(version)
	t, otherErr := semver.NewVersion(than)
	return err == nil && otherErr == nil && t.LessThan(*v) && slot.Compare(version, than) > 0
}

// after is text behind a separator, or nothing.
func after(separator, text string) string {
	if text == "" {
		return ""
	}
	return separator + text
}
