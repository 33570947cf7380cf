package state

import (
	"strings"
	"testing"
	"time"
)

// Whatever a machine is in, the line promises nothing that would not come: every combination of what a line depends on, against
// what each promise needs to be true. What is checked here is worded as apply, the loader and the health check go, not as Why does.
func TestWhyOfEveryMachine(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	by := Given{Time: now, By: "core"}
	release := func(v string) Release { return Release{v, hash(v)} }
	target := release("1.0.2")
	ended := now.Add(-time.Hour)
	checks := []*Check{nil, {Time: now, Error: "no route to host"}}
	for _, v := range []string{"1.0.0", "1.0.1", "1.0.2", "1.0.3"} {
		checks = append(checks, &Check{Time: now, Channel: "stable", Offered: v}, &Check{Time: now, Channel: "stable", Offered: v, Held: "release " + v + " is halted"})
	}
	orders := []Orders{{}, {Hold: &Hold{Given: by}}, {Hold: &Hold{Given: by, Until: &ended}}, {Pin: &Pin{by, "1.0.1"}}, {Pin: &Pin{by, "1.0.2"}}, {Back: &Back{Given: by, From: release("1.0.2"), To: release("1.0.1")}}}
	boots := []Boot{
		{}, // a job has the ESP
		{File: "proa_1.0.1.efi", Next: "proa_1.0.1.efi", WayBack: "proa_1.0.0.efi"},
		{File: "proa_1.0.1.efi", Next: "proa_1.0.2+3.efi"},
		{File: "proa_1.0.1+2-1.efi", Next: "proa_1.0.1+2-1.efi", Trying: true, Left: 2, WayBack: "proa_1.0.0.efi"},
		{File: "proa_1.0.1+2-1.efi", Next: "proa_1.0.1+2-1.efi", Trying: true, Left: 2},
		{File: "proa_1.0.1.part", Next: "proa_1.0.0.efi", Trying: true, Soft: true, WayBack: "proa_1.0.0.efi"},
		{File: "proa_1.0.1.part", Next: "proa_1.0.1+3.efi", Soft: true, WayBack: "proa_1.0.0.efi"},
		{File: "proa_1.0.1.efi", Next: "proa_1.0.1.efi", Pending: true},
	}
	quarantines := []Quarantine{nil, {{Release: target, Reason: "kernel panic", Time: now}}, {{Release: release("1.0.1"), Reason: "sick", Time: now}}}
	n := 0
	for _, phase := range []Phase{"", Idle, Checking, Downloading, Writing, Armed, Rebooting, Trying, Good, Failed} {
		for _, tgt := range []*Release{nil, &target} {
			for _, c := range checks {
				for _, o := range orders {
					for _, b := range boots {
						for _, q := range quarantines {
							for _, unready := range []string{"", "state is full"} {
								f := Facts{Running: "1.0.1", Server: "https://updates/", Boot: b, Machine: Machine{Phase: phase, Target: tgt, Error: "of 1.0.2", Check: c}, Quarantine: q, Orders: o, Now: now, Unready: unready}
								n++
								if wrong := lie(f, Why(f)); wrong != "" {
									t.Fatalf("%+v\nboot %+v\nmachine %+v\ncheck %+v\nsays %q, but %s", f, f.Boot, f.Machine, c, Why(f), wrong)
								}
							}
						}
					}
				}
			}
		}
	}
	t.Logf("%d machines", n)
}

// lie says what is wrong about a line; empty if nothing is.
func lie(f Facts, why string) string {
	says := func(s string) bool { return strings.Contains(why, s) }
	m, b, c := f.Machine, f.Boot, f.Machine.Check
	works := m.Phase == Checking || m.Phase == Downloading || m.Phase == Writing || m.Phase == Rebooting
	tries := b.Trying || b.File == "" && m.Phase == Trying
	want := ""
	if c != nil && c.Error == "" {
		want = c.Offered
		if f.Orders.Pin != nil {
			want = f.Orders.Pin.Version
		}
	}
	newer := want > f.Running
	takes := newer && f.Orders.Forbid(want, f.Now) == "" && f.Quarantine.FindVersion(want) == nil && (c.Held == "" || want != c.Offered) && f.Unready == "" && !b.Pending
	condemned := tries && b.WayBack != "" && f.Quarantine.FindVersion(f.Running) != nil
	armed := m.Phase == Armed && m.Target != nil || b.Next == "proa_1.0.2+3.efi"
	switch {
	case strings.Contains(why, "\n") || !strings.HasPrefix(why, "runs 1.0.1") && !strings.HasPrefix(why, "stays on 1.0.1"):
		return "it is not one line about what runs"
	case says("apply installs it") && (!takes || works || tries || armed || b.Soft):
		return "apply does not install it"
	case says("apply reboots in full first") && (!takes || !b.Soft || b.Trying):
		return "apply does not reboot"
	case says("the next boot tries it") && (!armed || b.Pending || tries || f.Orders.Held(f.Now)):
		return "the next boot does not, or not if the agent has its way"
	case says("health check decides") && (!tries || condemned):
		return "there is nothing to decide"
	case says("goes back to") && !condemned:
		return "it does not go back"
	case tries && !says("on trial") && !condemned:
		return "it does not say that this is a trial"
	case says("could not be installed") && (m.Phase != Failed || m.Target == nil || m.Target.Version != want):
		return "that was another release"
	case says("is quarantined") && f.Quarantine.FindVersion(want) == nil:
		return "it is not"
	case says("the release of channel") && (want != f.Running || f.Orders.Pin != nil || armed):
		return "the channel, or the next boot, has another"
	case says("is halted") && (c == nil || c.Held == "" || c.Error != ""):
		return "it is not"
	case says("last look for a newer release failed") && (c == nil || c.Error == ""):
		return "it did not"
	case says("is checking") != (m.Phase == Checking && !b.Trying):
		return "that is not what works"
	}
	return ""
}
