package qemutests

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/uki"
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
	last   bool   // it gets no more than one of the tries that the loader would count for it
	reason string // in the quarantine
	allow  []vm.Allowance
}

func illnesses() []illness {
	verdict := vm.Allow(`proa-health|Health of This Boot`, "the release fails its health check")
	all := []illness{
		{"unit", 1, false, `sshd?\.service is (activating|failed|inactive)`, []vm.Allowance{verdict, vm.Allow(`ssh\.service|OpenBSD Secure Shell`, "sshd fails on purpose")}},
		{"network", 1, false, `before the update it had|multi-user\.target is inactive|systemd-networkd-wait-online\.service failed`,
			[]vm.Allowance{verdict, vm.Allow(`systemd-networkd-wait-online|Wait for Network`, "the network is gone, and was waited for")}},
		{"frozen", 1, true, `tries`, []vm.Allowance{vm.Allow(`softdog: Initiating system reboot|watchdog`, "PID 1 hangs on purpose")}},
	}
	if fullDepth() { // for the loader they are as a kernel that panics earlier
		all[2].tries, all[2].last = 3, false
		all = append(all, illness{"fatal", 3, false, `tries`, vm.AllowPanic("the release panics on purpose")},
			illness{"pid1", 3, false, `tries`, []vm.Allowance{vm.Allow(`systemd\[1\]: |Crash PID 1`, "PID 1 crashes on purpose")}})
	}
	return all
}

// TestHealth gives a machine releases that are ill, from one moment in which such a release is armed: each time the machine
// is back on its old release, unattended and within five minutes of the reboot, and does not take the ill one again. TestFallback has what other
// boot programs and loaders can do, TestLine the workload cut off, judged as these are.
func TestHealth(t *testing.T) {
	s := begin(t, 16)
	h := s.sickbed("sickbed")
	step(t, h.m, "arm 1.0.2", func(t *testing.T) {
		publish(t, h.desk, s.image("1.0.2", "sick"))
		if out := run(t, h.m, "updatectl apply --no-reboot 2>&1"); !strings.Contains(out, "release 1.0.2 is armed") {
			t.Fatalf("got %q, want 1.0.2 armed", out)
		}
		run(t, h.m, "mkdir -p /var/lib/lab")
		check(t, h.m.Snapshot(t.Context(), "armed"))
	})
	for i, ill := range illnesses() {
		step(t, h.m, ill.name, func(t *testing.T) {
			if i > 0 {
				check(t, h.m.Restore(t.Context(), "armed"))
			}
			h.infect(t, ill)
			h.comesBack(t, "1.0.2", ill)
			h.isNotTakenAgain(t, "1.0.2")
		}, ill.allow...)
	}
}

// TestLastGood gives a machine one bad release after the other: the /init of the first fails; the kernel of the next, from a stick, panics. It is
// back each time, as in TestHealth, on what was last good and never on anything older. A newer one that is well comes by itself.
func TestLastGood(t *testing.T) {
	s := begin(t, 20)
	h := s.sickbed("patient", func(c *vm.Config) { c.Disks = []vm.EmptyDisk{{Name: "stick", Size: 512 << 20, USB: true}} })
	step(t, h.m, "the first one: its /init fails", func(t *testing.T) {
		h.publishes(t, "1.0.2", func(c *uki.Contents) { c.Initrd = withoutModule(t, c.Initrd) })
		run(t, h.m, "updatectl apply --no-reboot")
		h.comesBack(t, "1.0.2", illness{name: "init", tries: 3, reason: `tries`})
		h.isNotTakenAgain(t, "1.0.2")
	})
	early := append(vm.AllowPanic("the kernel has no /init on purpose"), vm.Allow(`VFS: `, "it looks for a root file system then"),
		vm.Allow(`update-engine|updatectl`, "the agent says that there is no stick"))
	step(t, h.m, "the next one, from a stick, fails too: its kernel panics", func(t *testing.T) {
		h.publishes(t, "1.0.3", func(c *uki.Contents) { c.Initrd = []byte("no archive, so no /init") })
		h.takesFromAStick(t, "1.0.3")
		h.comesBack(t, "1.0.3", illness{name: "panic", tries: 3, reason: `tries`})
		h.isNotTakenAgain(t, "1.0.3")
		isQuarantined(t, h.m, "1.0.2", `tries`)
	}, early...)
	step(t, h.m, "the one after that is well, and comes by itself", func(t *testing.T) {
		publish(t, h.desk, s.image("1.0.4", ""))
		h.comesByItself(t, "1.0.4")
		containerAnswers(t, h.m)
		// As proa-try.service does at the deadline of a try that is good.
		const ended = `ls /sys/module/softdog >/dev/null || exit 1; systemctl stop proa-try.timer; for i in $(seq 60); do [ $(systemctl show -P ActiveState proa-try-watchdog.service) = inactive ] && break; sleep 1; done
ls /sys/module/softdog 2>/dev/null; systemctl show -P Result proa-try-watchdog.service; systemctl show -P RuntimeWatchdogUSec`
		if got := run(t, h.m, ended); got != "success\n45s" {
			t.Errorf("got %q, want the kernel's own watchdog gone with the verdict", got)
		}
	})
}

// sickbed is the machine that gets ill releases.
type sickbed struct {
	*story
	desk *world.Desk
	web  *world.Web // of the desk's repository
	m    *vm.Machine
}

// sickbed has a machine with a workload follow a release desk. From its next boot on it is one without a watchdog, as most virtual ones.
func (s *story) sickbed(name string, edit ...func(*vm.Config)) *sickbed {
	t := s.t
	t.Helper()
	h := &sickbed{story: s, desk: must(world.NewDesk(t.Context(), s.programs, s.dir))(t)}
	h.web = s.web(h.desk.Repository)
	h.m = s.goOn(name, append(edit, func(c *vm.Config) { c.KernelArgs = append(c.KernelArgs, "panic=1", "modprobe.blacklist=iTCO_wdt") })...)
	follows(t, h.m, must(h.desk.Root())(t), fmt.Sprintf(`{"server":%q,"channel":"stable","auto":false,"health_deadline_seconds":%d,"reboot":{"mode":"full"}}`+"\n", h.web.GuestURL(), sickDeadline))
	startContainer(t, h.m, s.registry())
	return h
}

// publishes publishes a release whose boot program is changed.
func (h *sickbed) publishes(t *testing.T, version string, change func(*uki.Contents)) {
	t.Helper()
	image := h.image(version, "")
	program := must(world.Rebuild(testenv.Machines(t), image, version, change))(t)
	publish(t, h.desk, must(world.WithProgram(image, filepath.Join(h.dir, version), program))(t))
}

// setHealthDeadline says how long the boots of the next releases may take to become healthy: one that is well takes minutes on a busy host.
func setHealthDeadline(t *testing.T, m *vm.Machine, seconds int) {
	t.Helper()
	run(t, m, fmt.Sprintf(`sed -i 's/"health_deadline_seconds":[0-9]*/"health_deadline_seconds":%d/' /etc/proa/update/config.json && sync`, seconds))
}

// infect makes releases of variant sick ill.
func (h *sickbed) infect(t *testing.T, ill illness) {
	t.Helper()
	run(t, h.m, "touch /var/lib/lab/"+ill.name+" && sync")
	if ill.last {
		run(t, h.m, "mkdir -p /run/lab && mount /dev/vda1 /run/lab && mv /run/lab/EFI/Linux/proa_1.0.2+3.efi /run/lab/EFI/Linux/proa_1.0.2+1-2.efi && umount /run/lab && sync")
	}
}

// comesBack reboots a machine that has armed a version that is ill; it must end on what it runs, with its workload, by itself.
func (h *sickbed) comesBack(t *testing.T, version string, ill illness) {
	t.Helper()
	limit := 5 * time.Minute
	if ill.tries == 1 { // What is left of it if the health checks took as long as they may by default.
		limit -= updateconfig.Default().HealthDeadline() - sickDeadline*time.Second
	}
	good := readReport(t, h.m).Running.Version
	n, begin, firmware := h.m.Boots(), time.Now(), make(chan error, 1)
	go func() { firmware <- h.m.WaitBootWithin(t.Context(), n+ill.tries+1, limit) }() // the last of the boots is the one back
	check(t, h.m.Reboot(t.Context()))
	check(t, <-firmware)
	back := time.Since(begin)
	boots(t, h.m, good)
	t.Logf("%s of %s: back in the old release's firmware %.0f s after the order to reboot, up after %.0f s; of these its health checks had up to %d s",
		ill.name, version, back.Seconds(), time.Since(begin).Seconds(), sickDeadline)
	containerAnswers(t, h.m)
	isQuarantined(t, h.m, version, ill.reason)
	if r := readReport(t, h.m); r.Running.Version != good {
		t.Errorf("got %s running, want %s", r.Running.Version, good)
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
