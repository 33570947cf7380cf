package qemutests

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/world"
)

const gib = 1 << 30

// diskStory is a machine of the release on a disk of the given kind, after its first boot.
func diskStory(t *testing.T, c vm.Config) (*story, *vm.Machine) {
	t.Helper()
	s := begin(t)
	key, err := vm.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	c.Name, c.Dir, c.Key = "machine", filepath.Join(s.dir, "machine"), key
	c.Disk = s.image("1.0.0", "").Disk()
	if c.Ignition, err = provision.New().SSHKey("core", key.AuthorizedKey()).SSHKey("root", key.AuthorizedKey()).JSON(); err != nil {
		t.Fatal(err)
	}
	return s, s.start(c)
}

// varSize is how large df says the file system of state is, in MiB.
func varSize(t *testing.T, m *vm.Machine) int {
	t.Helper()
	fields := strings.Fields(run(t, m, "df -P -m /var | tail -n 1"))
	if len(fields) < 6 || fields[5] != "/var" {
		t.Fatalf("df says %q", fields)
	}
	n, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// between fails unless a size in MiB is plausible.
func between(t *testing.T, what string, got, low, high int) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s: got %d MiB, want %d to %d", what, got, low, high)
	}
}

// identity is what a machine makes once and keeps in state.
func identity(t *testing.T, m *vm.Machine) string {
	t.Helper()
	return run(t, m, "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub")
}

// verified lets sfdisk judge the disk of a machine that is off; the table for the other sector size must be gone.
func verified(t *testing.T, m *vm.Machine, sectorSize, other int) {
	t.Helper()
	tools := testenv.Tools(t)
	out, err := tools.Command(t.Context(), "sfdisk", fmt.Sprintf("--sector-size=%d", sectorSize), "--verify", m.Disk()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No errors detected") {
		t.Errorf("sfdisk --verify: %v\n%s", err, out)
	}
	if out, _ := tools.Command(t.Context(), "sfdisk", fmt.Sprintf("--sector-size=%d", other), "--dump", m.Disk()).CombinedOutput(); strings.Contains(string(out), "root-a") {
		t.Errorf("the table for sectors of %d bytes is still there:\n%s", other, out)
	}
}

// restart turns the machine off, lets change work on its disk, and turns it on again.
func restart(t *testing.T, m *vm.Machine, change func()) {
	t.Helper()
	if err := m.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	change()
	if err := m.PowerOn(); err != nil {
		t.Fatal(err)
	}
	up(t, m)
}

// TestStateFillsLargeDisk boots twice on 2 TiB of NVMe with sectors of 4096 bytes: the first boot takes seconds, writes megabytes, and leaves a
// table that the firmware takes.
func TestStateFillsLargeDisk(t *testing.T) {
	_, m := diskStory(t, vm.Config{Bus: vm.NVMe, SectorSize: 4096, DiskSize: 2 << 40})
	var before string
	step(t, m, "first boot", func(t *testing.T) {
		up(t, m)
		if got := run(t, m, "cat /sys/block/nvme0n1/queue/logical_block_size"); got != "4096" {
			t.Errorf("sectors have %s bytes", got)
		}
		between(t, "/var", varSize(t, m), 2_030_000, 2<<20)
		made, mounted := stamp(t, m, "making the state partition"), stamp(t, m, "mounting state")
		t.Logf("state was made in %.1f s of machine time", mounted-made)
		if mounted-made > 30 {
			t.Errorf("making state took %.1f s", mounted-made)
		}
		before = identity(t, m)
	})
	check(t, m.Reboot(t.Context()))
	step(t, m, "second boot", func(t *testing.T) {
		up(t, m)
		if got := identity(t, m); got != before {
			t.Errorf("identity changed:\n%s\nwas\n%s", got, before)
		}
	})
	if err := m.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(m.Disk())
	if err != nil {
		t.Fatal(err)
	}
	used := fi.Sys().(*syscall.Stat_t).Blocks * 512 >> 20
	t.Logf("the disk of 2 TiB takes %d MiB of the host", used)
	between(t, "space on the host", int(used), 50, 600)
	verified(t, m, 4096, 512)
}

// stamp is the kernel's time, in seconds, of the first message that contains text.
func stamp(t *testing.T, m *vm.Machine, text string) float64 {
	t.Helper()
	line := run(t, m, fmt.Sprintf("dmesg | grep -F -m 1 'proa: init: %s'", text))
	_, rest, _ := strings.Cut(line, "[")
	number, _, _ := strings.Cut(rest, "]")
	seconds, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil {
		t.Fatalf("no time in %q: %v", line, err)
	}
	return seconds
}

// TestStateGrows gives a machine on AHCI a larger disk: its state grows, with everything kept. Then the machine is asked to forget everything.
// At full depth somebody else wipes its state, too.
func TestStateGrows(t *testing.T) {
	_, m := diskStory(t, vm.Config{Bus: vm.AHCI, DiskSize: 8 * gib})
	var before string
	step(t, m, "8 GiB", func(t *testing.T) {
		up(t, m)
		before = identity(t, m)
		between(t, "/var", varSize(t, m), 5_300, 5_640)
		run(t, m, "head -c 50000000 /dev/urandom > /var/srv/data; sha256sum /var/srv/data > /var/srv/sum; sync")
	})
	restart(t, m, func() {
		if err := os.Truncate(m.Disk(), 12*gib); err != nil {
			t.Fatal(err)
		}
	})
	step(t, m, "12 GiB", func(t *testing.T) {
		between(t, "/var", varSize(t, m), 9_300, 9_730)
		if out := run(t, m, "sha256sum -c /var/srv/sum"); !strings.Contains(out, "OK") {
			t.Errorf("data: %s", out)
		}
		if got := identity(t, m); got != before {
			t.Errorf("identity changed:\n%s\nwas\n%s", got, before)
		}
		if got := run(t, m, "dmesg | grep -c 'proa: init: growing the'"); got != "2" {
			t.Errorf("%s messages about growing, want one for the partition and one for its file system", got)
		}
	})
	if fullDepth() {
		isWiped(t, m, before)
	}
	isForgotten(t, m)
}

// isWiped has somebody wipe the state of a machine that is off: it begins anew.
func isWiped(t *testing.T, m *vm.Machine, before string) {
	t.Helper()
	restart(t, m, func() {
		verified(t, m, 512, 4096)
		d, err := world.OpenDisk(m.Disk())
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := d.Wipe("state"); err != nil {
			t.Fatal(err)
		}
		m.ForgetHostKey()
	})
	step(t, m, "wiped", func(t *testing.T) {
		if got := run(t, m, "ls /var/srv; dmesg | grep -F 'which was wiped'"); strings.Contains(got, "data") || got == "" {
			t.Errorf("state is not new: %s", got)
		}
		between(t, "/var", varSize(t, m), 9_300, 9_730)
		if got := identity(t, m); got == before {
			t.Error("the machine has its old identity")
		}
	})
}

// isForgotten asks a running machine to forget everything, and turns it off.
func isForgotten(t *testing.T, m *vm.Machine) {
	t.Helper()
	var before string
	step(t, m, "refusals", func(t *testing.T) {
		before = identity(t, m)
		run(t, m, "echo precious > /var/srv/file; echo changed > /etc/changed; sync")
		for user, command := range map[string]string{
			"root": "/usr/lib/proa/factory-reset",
			"core": "/usr/lib/proa/factory-reset --yes",
		} {
			if out, err := m.Run(t.Context(), user, command+" 2>&1"); err == nil || !strings.Contains(out, "nothing done") {
				t.Errorf("%s as %s: %v\n%s", command, user, err, out)
			}
		}
		if out, err := m.Run(t.Context(), "root", "systemctl start proa-factory-reset.service 2>&1"); err == nil {
			t.Errorf("the service starts by itself: %s", out)
		}
		if got := run(t, m, "cat /var/srv/file"); got != "precious" {
			t.Errorf("the file says %q", got)
		}
	})
	boots := m.Boots()
	run(t, m, "systemctl start factory-reset.target")
	if err := m.WaitBoot(t.Context(), boots+1); err != nil {
		t.Fatal(err)
	}
	m.ForgetHostKey()
	step(t, m, "fresh", func(t *testing.T) {
		up(t, m) // by ssh, with the key that the machine was provisioned with again
		if got := identity(t, m); got == before {
			t.Error("the machine has its old identity")
		}
		// The config makes nothing that systemd reads: it went on without reading everything anew, did that later, and knows its default target.
		if got := run(t, m, "journalctl -b -o cat -t systemd | grep -E '^Reached target multi-user|^Finished (ignition|provision-reread).service' | cut -d' ' -f2,3; systemctl show -P Id default.target"); strings.Join(strings.Fields(got), " ") !=
			"ignition.service - target multi-user.target provision-reread.service - multi-user.target" {
			t.Errorf("provisioned, up, reread, default target: got %q", got)
		}
		if got := run(t, m, "ls /var/srv /etc/changed 2>/dev/null | grep -v /var/srv: || true"); got != "" {
			t.Errorf("left over: %s", got)
		}
		if got := run(t, m, "dmesg | grep -c 'proa: init: making the state partition'"); got != "1" {
			t.Errorf("%s messages about making state", got)
		}
	})
	check(t, m.Shutdown(t.Context()))
	verified(t, m, 512, 4096)
}

// TestDiskTooSmall boots on a disk with too little space behind the slots: the console says what is there and what is needed.
func TestDiskTooSmall(t *testing.T) {
	_, m := diskStory(t, vm.Config{DiskSize: 2662 << 20})
	for _, want := range []string{
		`proa: init: FAILED while making the state partition on /dev/vda: disk /dev/vda is too small: it has 2662 MiB, of which 99 MiB are free for state`,
		`give the machine a disk of \d+ MiB or more`,
		`rebooting in 10 seconds`,
	} {
		if _, err := m.WaitConsole(t.Context(), want); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUSB boots from a USB stick of 8 GiB, which the kernel finds last.
func TestUSB(t *testing.T) {
	atFullDepth(t)
	_, m := diskStory(t, vm.Config{Bus: vm.USB})
	step(t, m, "first boot", func(t *testing.T) {
		up(t, m)
		if got := run(t, m, "readlink /sys/block/sda"); !strings.Contains(got, "/usb") {
			t.Errorf("the disk is %s", got)
		}
		// Its drivers are those that the boot program carries compressed.
		if got := run(t, m, "grep -o '^usb_storage' /proc/modules"); got != "usb_storage" {
			t.Errorf("usb-storage is not loaded: %q", got)
		}
		between(t, "/var", varSize(t, m), 5_300, 5_640)
	})
}
