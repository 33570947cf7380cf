package qemutests

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/world"
	updateconfig "github.com/proa-os/proa/update-engine/config"
)

// sickDeadline is how many seconds the health checks may take: who is ill stays so, and the default would only be waited for. It is the
// deadline of the boots back, too, which on a busy host have taken 77.
const sickDeadline = 150

// An illness is one of variant sick.
type illness struct {
	name   string
	tries  int    // boots until the old release runs again
	reason string // in the quarantine
	allow  []vm.Allowance
}

func illnesses() []illness {
	verdict := vm.Allow(`proa-health|Health of This Boot`, "the release fails its health check")
	all := []illness{
		{"unit", 1, `sshd?\.service is (activating|failed|inactive)`, []vm.Allowance{verdict, vm.Allow(`ssh\.service|OpenBSD Secure Shell`, "sshd fails on purpose")}},
		{"network", 1, `before the update it had|multi-user\.target is inactive|systemd-networkd-wait-online\.service failed`,
			[]vm.Allowance{verdict, vm.Allow(`systemd-networkd-wait-online|Wait for Network`, "the network is gone, and was waited for")}},
	}
	if fullDepth() { // TestFallback has a kernel panic, too, and for the loader a crash of PID 1 is one
		all = append(all, illness{"fatal", 3, `tries`, vm.AllowPanic("the release panics on purpose")},
			illness{"pid1", 3, `tries`, []vm.Allowance{vm.Allow(`systemd\[1\]: |Crash PID 1`, "PID 1 crashes on purpose")}})
	}
	return all
}

// TestHealth gives a machine releases that are ill, from one moment in which such a release is armed: each time the machine
// is back on its old release, unattended and within five minutes of the reboot, and does not take the ill one again. Then a
// newer one is ill too: it is back on what was last good, never on anything older. A newer one that is well comes by itself.
// TestFallback has the kernel panic, /init fail and userspace hang, TestLine has the workload cut off, judged as these are.
func TestHealth(t *testing.T) {
	s := begin(t, 15)
	h := &sickbed{story: s, desk: must(world.NewDesk(t.Context(), s.programs, s.dir))(t)}
	publish(t, h.desk, s.image("1.0.2", "sick"))
	config := provision.New().
		File("/etc/proa/update/root.json", 0o644, string(must(h.desk.Root())(t))).
		File("/etc/proa/update/config.json", 0o644, fmt.Sprintf(`{"server":%q,"channel":"stable","auto":false,"health_deadline_seconds":%d,"reboot":{"mode":"full"}}`+"\n", s.web(h.desk.Repository).GuestURL(), sickDeadline))
	h.m = s.machineFrom("sickbed", s.image("1.0.1", "").Disk(), config, func(c *vm.Config) {
		c.KernelArgs = append(c.KernelArgs, "panic=1")
	})

	step(t, h.m, "arm 1.0.2", func(t *testing.T) {
		boots(t, h.m, "1.0.1")
		startContainer(t, h.m, s.registry())
		if out := run(t, h.m, "updatectl apply --no-reboot 2>&1"); !strings.Contains(out, "release 1.0.2 is armed") {
			t.Fatalf("got %q, want 1.0.2 armed", out)
		}
		run(t, h.m, "mkdir -p /var/lib/lab")
		check(t, h.m.Snapshot(t.Context(), "armed"))
	})
	all := illnesses()
	for i, ill := range all {
		step(t, h.m, ill.name, func(t *testing.T) {
			if i > 0 {
				check(t, h.m.Restore(t.Context(), "armed"))
			}
			h.infect(t, ill)
			h.comesBack(t, "1.0.2", ill, func() { h.reboot(t) })
			h.isNotTakenAgain(t, "1.0.2")
		}, ill.allow...)
	}
	step(t, h.m, "the next one fails too", func(t *testing.T) {
		publish(t, h.desk, s.image("1.0.3", "sick"))
		run(t, h.m, "rm /var/lib/lab/*")
		h.infect(t, all[0])
		h.comesBack(t, "1.0.3", all[0], func() { applyUpdate(t, h.m) })
		h.isNotTakenAgain(t, "1.0.3")
		isQuarantined(t, h.m, "1.0.2", all[len(all)-1].reason)
	}, all[0].allow...)
	step(t, h.m, "the one after that is well, and comes by itself", func(t *testing.T) {
		publish(t, h.desk, s.image("1.0.4", ""))
		h.comesByItself(t, "1.0.4")
		containerAnswers(t, h.m)
	})
}

// setHealthDeadline says how long the boots of the next releases may take to become healthy: one that is well takes minutes on a busy host.
func setHealthDeadline(t *testing.T, m *vm.Machine, seconds int) {
	t.Helper()
	run(t, m, fmt.Sprintf(`sed -i 's/"health_deadline_seconds":[0-9]*/"health_deadline_seconds":%d/' /etc/proa/update/config.json && sync`, seconds))
}

// sickbed is the machine that gets ill releases.
type sickbed struct {
	*story
	desk *world.Desk
	m    *vm.Machine
}

// reboot reboots into what is armed. The connection may end before the answer.
func (h *sickbed) reboot(t *testing.T) {
	t.Helper()
	check(t, h.m.Reboot(t.Context()))
}

// infect makes releases of variant sick ill.
func (h *sickbed) infect(t *testing.T, ill illness) {
	t.Helper()
	run(t, h.m, "touch /var/lib/lab/"+ill.name+" && sync")
}

// comesBack has the machine try a version that is ill; it must end on 1.0.1, with its workload, by itself.
func (h *sickbed) comesBack(t *testing.T, version string, ill illness, try func()) {
	t.Helper()
	n := h.m.Boots()
	try() // ends when the firmware starts
	begin := time.Now()
	// What is left of five minutes if the health checks took as long as they may by default. The last of the boots is the one back.
	limit := 5*time.Minute - (updateconfig.Default().HealthDeadline() - sickDeadline*time.Second)
	check(t, h.m.WaitBootWithin(t.Context(), n+ill.tries+1, limit))
	back := time.Since(begin)
	boots(t, h.m, "1.0.1")
	t.Logf("%s of %s: back in the old release's firmware %.0f s after the reboot, up after %.0f s; of these its health checks had up to %d s",
		ill.name, version, back.Seconds(), time.Since(begin).Seconds(), sickDeadline)
	containerAnswers(t, h.m)
	isQuarantined(t, h.m, version, ill.reason)
	if r := readReport(t, h.m); r.Running.Version != "1.0.1" {
		t.Errorf("got %s running, want 1.0.1", r.Running.Version)
	}
	if got := h.m.Boots() - n; got != ill.tries+1 {
		t.Errorf("got %d boots, want %d tries and the one back", got, ill.tries)
	}
}

// isQuarantined looks for a version and the reason for which it is remembered as bad.
func isQuarantined(t *testing.T, m *vm.Machine, version, reason string) {
	t.Helper()
	r := readReport(t, m)
	for _, q := range r.Quarantine {
		if q.Version == version && regexp.MustCompile(reason).MatchString(q.Reason) {
			t.Logf("%s is remembered as bad: %s", version, q.Reason)
			return
		}
	}
	t.Errorf("got quarantine %+v, want %s in it because of /%s/", r.Quarantine, version, reason)
}

// isNotTakenAgain has the machine look for updates while the channel still offers what was bad.
func (h *sickbed) isNotTakenAgain(t *testing.T, version string) {
	t.Helper()
	n := h.m.Boots()
	out, err := h.m.Run(t.Context(), "root", "updatectl apply 2>&1")
	if err != nil || !strings.Contains(out, version) || strings.Contains(out, "armed") {
		t.Errorf("got %q, %v, want to read that %s is bad, and nothing armed", out, err, version)
	}
	if programs := run(t, h.m, "updatectl status --json"); h.m.Boots() != n || strings.Contains(programs, `"armed"`) {
		t.Errorf("got %d boots and %s, want nothing armed", h.m.Boots()-n, programs)
	}
}
