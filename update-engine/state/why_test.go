package state

import (
	"strings"
	"testing"
	"time"
)

// Every state a machine can be in has one line, and the line is the one that matters most.
func TestWhy(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	later, earlier := at.Add(time.Hour), at.Add(-time.Hour)
	q := Quarantine{{Release: Release{"1.0.2", hash("c")}, Reason: "kernel panic", Time: at}}
	core := Given{Time: at, By: "core"}
	audit := Given{Time: at, By: "core", Reason: "audit"}
	offer := func(v string) *Check { return &Check{Time: at, Channel: "stable", Offered: v} }
	refused := func(err string) Machine { return Machine{Check: &Check{Channel: "stable", Error: err}} }
	next := Release{"1.0.3", hash("d")}
	armed := Machine{Phase: Armed, Target: &next, Check: offer("1.0.3")}
	back := Orders{Back: &Back{Given: audit, From: Release{"1.0.3", hash("d")}, To: Release{"1.0.1", hash("b")}}}
	for _, c := range []struct {
		name string
		f    Facts
		want string
	}{
		{"trial", Facts{Boot: Boot{Trying: true, Left: 2, WayBack: "proa_1.0.0.efi"}, Machine: Machine{Phase: Trying}}, "runs 1.0.1 on trial: its health check decides, 2 tries are left"},
		{"trial after a soft reboot", Facts{Boot: Boot{Trying: true, Soft: true}}, "runs 1.0.1 on trial after a soft reboot: its health check decides, and any other start of the machine goes back"},
		{"armed, and waits", Facts{Machine: Machine{Phase: Armed, Target: &Release{Version: "1.0.3"}}, Waits: "backup holds the reboot up"}, "runs 1.0.1: release 1.0.3 is written and armed, and backup holds the reboot up"},
		{"trial under a hold", Facts{Boot: Boot{Trying: true, WayBack: "proa_1.0.0.efi"}, Orders: Orders{Hold: &Hold{Given: core}}}, "runs 1.0.1 on trial: its health check decides, 0 tries are left"},
		{"new", Facts{}, "runs 1.0.1: has not looked for a newer release yet"},
		{"no server", Facts{Server: "-"}, "stays on 1.0.1: no repository is configured in /etc/proa/update/config.json"},
		{"armed", Facts{Machine: Machine{Phase: Armed, Target: &Release{Version: "1.0.3"}}}, "runs 1.0.1: release 1.0.3 is written and armed, the next boot tries it"},
		{"writing", Facts{Machine: Machine{Phase: Writing}}, "runs 1.0.1 and is writing"},
		{"no network", Facts{Machine: refused("fetch metadata: no route to host")}, "runs 1.0.1: the last look for a newer release failed: fetch metadata: no route to host"},
		{"metadata refused", Facts{Machine: refused("refuse snapshot.json: rollback")}, "runs 1.0.1: the last look for a newer release failed: refuse snapshot.json: rollback"},
		{"clock", Facts{Machine: refused("refuse timestamp.json: expired: this machine's clock says 2100")}, "runs 1.0.1: the last look for a newer release failed: refuse timestamp.json: expired: this machine's clock says 2100"},
		{"quarantine", Facts{Machine: Machine{Check: offer("1.0.2")}}, "stays on 1.0.1: release 1.0.2 is quarantined since 2026-01-01 12:00: kernel panic"},
		{"newest", Facts{Machine: Machine{Check: offer("1.0.1")}}, "runs 1.0.1, the release of channel stable"},
		{"older", Facts{Machine: Machine{Check: offer("1.0.0")}}, "stays on 1.0.1: channel stable offers the older 1.0.0, and machines never go back by plan"},
		{"newer to the loaders, not to those who publish", Facts{Running: "1.0.0-alpha", Machine: Machine{Check: offer("1.0.0-1")}}, "stays on 1.0.0-alpha: channel stable offers the older 1.0.0-1, and machines never go back by plan"},
		{"newer to those who publish, not to the loaders", Facts{Running: "1.0.0-1", Machine: Machine{Check: offer("1.0.0-alpha")}}, "stays on 1.0.0-1: channel stable offers the older 1.0.0-alpha, and machines never go back by plan"},
		{"there", Facts{Machine: Machine{Check: offer("1.0.3")}}, "runs 1.0.1: release 1.0.3 is there, updatectl apply installs it"},
		{"full ESP", Facts{Machine: Machine{Phase: Failed, Target: &next, Error: "the ESP has room for 9 bytes", Check: offer("1.0.3")}}, "stays on 1.0.1: release 1.0.3 could not be installed: the ESP has room for 9 bytes"},
		{"failed without a reason", Facts{Machine: Machine{Phase: Failed, Target: &next, Check: offer("1.0.3")}}, "stays on 1.0.1: release 1.0.3 could not be installed: no reason is known"},
		{"halted", Facts{Machine: Machine{Check: &Check{Offered: "1.0.3", Held: "release 1.0.3 is halted on channel stable"}}}, "stays on 1.0.1: release 1.0.3 is halted on channel stable"},
		{"held", Facts{Machine: Machine{Check: offer("1.0.3")}, Orders: Orders{Hold: &Hold{Given: audit}}}, "stays on 1.0.1: held by core on 2026-01-01 12:00 (audit), until updatectl unhold; channel stable offers 1.0.3"},
		{"held for a time", Facts{Orders: Orders{Hold: &Hold{Given: core, Until: &later}}}, "stays on 1.0.1: held by core on 2026-01-01 12:00, until 2026-01-01 13:00"},
		{"held without a server", Facts{Server: "-", Orders: Orders{Hold: &Hold{Given: core}}}, "stays on 1.0.1: held by core on 2026-01-01 12:00, until updatectl unhold"},
		{"a hold that is over", Facts{Machine: Machine{Check: offer("1.0.1")}, Orders: Orders{Hold: &Hold{Given: core, Until: &earlier}}}, "runs 1.0.1, the release of channel stable"},
		{"pinned", Facts{Machine: Machine{Check: offer("1.0.3")}, Orders: Orders{Pin: &Pin{core, "1.0.1"}}}, "stays on 1.0.1: pinned by core on 2026-01-01 12:00, until updatectl unpin; channel stable offers 1.0.3"},
		{"pinned to another", Facts{Machine: Machine{Check: offer("1.0.4")}, Orders: Orders{Pin: &Pin{core, "1.0.3"}}}, "runs 1.0.1: release 1.0.3 is there, updatectl apply installs it"},
		{"pinned to an older one", Facts{Machine: Machine{Check: offer("1.0.4")}, Orders: Orders{Pin: &Pin{core, "1.0.0"}}}, "stays on 1.0.1: pinned to the older 1.0.0 by core on 2026-01-01 12:00, and machines never go back by plan: updatectl rollback does, if the other slot holds it"},
		{"pinned, and the plan is halted", Facts{Machine: Machine{Check: &Check{Offered: "1.0.4", Held: "release 1.0.4 is halted"}}, Orders: Orders{Pin: &Pin{core, "1.0.3"}}}, "runs 1.0.1: release 1.0.3 is there, updatectl apply installs it"},
		{"pinned to a quarantined one", Facts{Machine: Machine{Check: offer("1.0.4")}, Orders: Orders{Pin: &Pin{core, "1.0.2"}}}, "stays on 1.0.1: release 1.0.2 is quarantined since 2026-01-01 12:00: kernel panic"},
		{"rolled back", Facts{Machine: Machine{Check: offer("1.0.3")}, Orders: back}, "stays on 1.0.1: rolled back from 1.0.3 by core on 2026-01-01 12:00 (audit), until a newer release or updatectl resume"},
		{"rolled back, and a newer one is there", Facts{Machine: Machine{Check: offer("1.0.4")}, Orders: back}, "runs 1.0.1: release 1.0.4 is there, updatectl apply installs it"},
		{"rolled back, not rebooted", Facts{Running: "1.0.3", Boot: Boot{Leaving: true}, Machine: Machine{Phase: Rebooting}, Orders: back}, "runs 1.0.3: rolled back by core on 2026-01-01 12:00 (audit), the next boot runs 1.0.1"},
		{"trial without a way back", Facts{Boot: Boot{Trying: true, Left: 2}}, "runs 1.0.1 on trial: a good health check ends it, but no other release can boot if it is bad, 2 tries are left"},
		{"trial while a job works", Facts{Machine: Machine{Phase: Trying, Check: offer("1.0.1")}}, "runs 1.0.1 on trial: its health check decides"},
		{"bad, not rebooted", Facts{Running: "1.0.2", Boot: Boot{Trying: true, WayBack: "proa_1.0.1.efi"}, Machine: Machine{Phase: Failed}}, "runs 1.0.2, which is bad and goes back to 1.0.1: kernel panic"},
		{"bad after a soft reboot, not rebooted", Facts{Running: "1.0.2", Boot: Boot{Trying: true, Soft: true, WayBack: "proa_1.0.1.efi"}}, "runs 1.0.2, which is bad and goes back to 1.0.1: kernel panic"},
		{"another release failed", Facts{Machine: Machine{Phase: Failed, Target: &Release{Version: "1.0.2"}, Error: "release 1.0.2: kernel panic", Check: offer("1.0.3")}}, "runs 1.0.1: release 1.0.3 is there, updatectl apply installs it"},
		{"looking failed, then went", Facts{Machine: Machine{Phase: Failed, Error: "no route to host", Check: offer("1.0.3")}}, "runs 1.0.1: release 1.0.3 is there, updatectl apply installs it"},
		{"armed, then halted", Facts{Machine: Machine{Phase: Armed, Target: &next, Check: &Check{Offered: "1.0.3", Held: "release 1.0.3 is halted"}}, Waits: "backup holds the reboot up"}, "runs 1.0.1: release 1.0.3 is written and armed, but only a reboot by hand tries it: release 1.0.3 is halted"},
		{"armed under a hold", Facts{Machine: armed, Orders: Orders{Hold: &Hold{Given: core}}}, "runs 1.0.1: release 1.0.3 is written and armed, but only a reboot by hand tries it: held by core on 2026-01-01 12:00, until updatectl unhold"},
		{"armed, and nobody remembers", Facts{Boot: Boot{File: "proa_1.0.1.efi", Next: "proa_1.0.3+3.efi"}, Machine: Machine{Check: offer("1.0.1")}}, "runs 1.0.1: release 1.0.3 is written and armed, the next boot tries it"},
		{"soft reboot under way", Facts{Boot: Boot{Pending: true}, Machine: Machine{Phase: Rebooting, Target: &next}}, "runs 1.0.1 and is rebooting"},
		{"soft reboot prepared", Facts{Boot: Boot{Pending: true}, Machine: armed}, "runs 1.0.1: a soft reboot into the armed release was prepared and has not begun; the next boot arms it again, or the agent within the hour"},
		{"since a soft reboot", Facts{Boot: Boot{File: "proa_1.0.1.part", Soft: true, Next: "proa_1.0.1+3.efi"}, Machine: Machine{Check: offer("1.0.1")}}, "runs 1.0.1, the release of channel stable"},
		{"there, since a soft reboot", Facts{Boot: Boot{File: "proa_1.0.1.part", Soft: true, Next: "proa_1.0.1+3.efi"}, Machine: Machine{Check: offer("1.0.3")}}, "runs 1.0.1 since a soft reboot: release 1.0.3 is there, updatectl apply reboots in full first, to prove the boot program"},
		{"there, and state is full", Facts{Machine: Machine{Check: offer("1.0.3")}, Unready: "state is full"}, "stays on 1.0.1: release 1.0.3 is there, but no update can begin: state is full"},
		{"state is full, and the ESP was", Facts{Machine: Machine{Phase: Failed, Target: &next, Error: "the ESP is full", Check: offer("1.0.3")}, Unready: "state is full"}, "stays on 1.0.1: release 1.0.3 is there, but no update can begin: state is full"},
		{"new, and the clock is wrong", Facts{Unready: "the clock is wrong"}, "runs 1.0.1: has not looked for a newer release yet: the clock is wrong"},
		{"broken configuration", Facts{Broken: "read /etc/proa/update/config.json: line 1", Machine: Machine{Check: offer("1.0.3")}}, "stays on 1.0.1: read /etc/proa/update/config.json: line 1"},
		{"state is read-only, and the network was away before", Facts{Machine: refused("no route to host"), Unready: "state is read-only"}, "stays on 1.0.1: no update can begin: state is read-only"},
		{"newest, long ago", Facts{Machine: Machine{Check: &Check{Time: at.Add(-25 * time.Hour), Channel: "stable", Offered: "1.0.1"}}}, "runs 1.0.1, the release of channel stable; looked last on 2025-12-31 11:00"},
		{"there, long ago", Facts{Machine: Machine{Check: &Check{Time: at.Add(-25 * time.Hour), Channel: "stable", Offered: "1.0.3"}}}, "runs 1.0.1: release 1.0.3 is there, updatectl apply installs it; looked last on 2025-12-31 11:00"},
	} {
		f := c.f
		f.Quarantine, f.Now = q, at
		if f.Running == "" {
			f.Running = "1.0.1"
		}
		f.Server = map[string]string{"": "https://updates/", "-": ""}[f.Server]
		if got := Why(f); got != c.want || strings.Contains(got, "\n") {
			t.Errorf("%s: got  %q\nwant %q", c.name, got, c.want)
		}
	}
}
