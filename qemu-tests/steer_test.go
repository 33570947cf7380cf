package qemutests

import (
	"fmt"
	"strings"
	"testing"

	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/update-engine/journal"
)

// steer is what people do with a machine that was updated from one release to the next: they look, hold, and go back by hand. What they
// decide outlives the reboot and binds the agent.
func (f *fallback) steer(from, to string) {
	step(f.t, f.m, "steer, and go back by hand", func(t *testing.T) {
		watches(t, f.m, from)
		if got := run(t, f.m, "updatectl hold --until 8h audit; updatectl why; updatectl apply; updatectl unhold"); strings.Count(got, "stays on "+from+": held by ") != 3 {
			t.Errorf("got %q, want three answers that name the hold", got)
		}
		if out, err := f.m.Run(t.Context(), "core", "updatectl hold 2>&1"); err == nil || !strings.Contains(out, "run it as root") {
			t.Errorf("got %q, %v: everyone can hold updates", out, err)
		}
		goesBack(t, f.m, from, to, func() {
			n := f.m.Boots()
			if out, err := f.m.Run(t.Context(), "root", "updatectl rollback --reason 'too slow' 2>&1"); err != nil && f.m.Boots() == n {
				t.Logf("updatectl rollback: %v\n%s", err, out) // The reboot may end the connection first; whether it comes decides.
			}
			check(t, f.m.WaitBoot(t.Context(), n+1))
		})
		id := ""
		for _, m := range journal.Messages() {
			if m.Text == "rolled back" {
				id = m.ID
			}
		}
		if got := run(t, f.m, "journalctl -q -o cat MESSAGE_ID="+id); !strings.Contains(got, "rolled back from="+from+" to="+to) {
			t.Errorf("the journal has %q under the message's ID", got)
		}
		n := f.m.Boots()
		// No longer rolled back, the machine would take the channel's release again, were it not for a pin.
		pinned := run(t, f.m, "updatectl resume; updatectl pin --reason certified; updatectl apply; updatectl why; updatectl status")
		if want := "stays on " + to + ": pinned by "; strings.Count(pinned, want) != 3 || strings.Count(pinned, "until updatectl unpin; channel stable offers "+from) != 3 {
			t.Errorf("got %q, want three answers that name the pin and what it keeps away", pinned)
		}
		if got := run(t, f.m, "updatectl unpin; updatectl check"); f.m.Boots() != n || !strings.Contains(got, "release "+from+" is there") {
			t.Errorf("got %d boots and %q, want %s on offer, and not taken while the machine was pinned", f.m.Boots()-n, got, from)
		}
		endsWhenIdle(t, f.m)
	})
}

// goesBack has somebody roll a machine back from one release to the one before, because it is too slow, and looks at what is known of that.
func goesBack(t *testing.T, m *vm.Machine, from, to string, order func()) {
	t.Helper()
	order()
	boots(t, m, to)
	why := run(t, m, "updatectl why; updatectl apply; updatectl history; updatectl status")
	for _, want := range []string{"stays on " + to + ": rolled back from " + from + " by ", "(too slow), until a newer release or updatectl resume", "  rolled back  by ", "rolled back   from " + from} {
		if !strings.Contains(why, want) {
			t.Errorf("got %q, want %q in it", why, want)
		}
	}
	if r := readReport(t, m); r.Boot.Trying || len(r.Quarantine) != 0 {
		t.Errorf("got report %+v: going back by hand is no failure of what was left", r)
	}
	if got := run(t, m, "updatectl rollback 2>&1 || true"); !strings.Contains(got, "there is nothing to go back to") {
		t.Errorf("a second rollback: %q", got)
	}
}

// endsWhenIdle waits until nothing of the agent is left, as long as nobody asks it.
func endsWhenIdle(t *testing.T, m *vm.Machine) {
	t.Helper()
	if got := run(t, m, "for i in $(seq 180); do pidof update-engine >/dev/null || { echo gone; break; }; sleep 1; done; systemctl is-active update-engine.service || true"); got != "gone\ninactive" {
		t.Errorf("got %q: the agent stays although nobody asks: %s", got, run(t, m, "ps -ef | grep [u]pdate-engine || true"))
	}
}

// watches looks at a machine as monitoring does: properties for everyone, numbers in a file, a timer and nothing resident.
func watches(t *testing.T, m *vm.Machine, version string) {
	t.Helper()
	got, err := m.Run(t.Context(), "core", "busctl get-property io.proa.Update1 /io/proa/Update1 io.proa.Update1 RunningVersion; cat /run/proa/metrics/update.prom")
	if err != nil || !strings.Contains(got, fmt.Sprintf("s %q", version)) || !strings.Contains(got, `proa_update_info{version="`+version+`"`) || !strings.Contains(got, `proa_update_releases_total{event="good"} 1`) {
		t.Errorf("got %q, %v", got, err)
	}
	if got := run(t, m, "systemctl is-active update-engine.timer; systemctl start update-auto.service && echo went"); got != "active\nwent" {
		t.Errorf("the timer: %q", got)
	}
	if got := run(t, m, "sysctl -n net.ipv4.ping_group_range"); strings.Fields(got)[0] != "0" {
		t.Errorf("got %q: the agent cannot ask gateways", got)
	}
}
