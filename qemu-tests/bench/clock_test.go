package bench

import (
	"math"
	"strings"
	"testing"
)

const (
	managerText = "UserspaceTimestampMonotonic=8350000\n"
	targetText  = "ActiveEnterTimestampMonotonic=37260000\n"
	dmesgText   = "[    0.000000] Linux version 6.12\n[    4.262616] Run /init as init process\n[    8.608418] systemd[1]: Inserted module 'autofs4'\n"
)

func TestGuestPhases(t *testing.T) {
	got, err := guestPhases(managerText, targetText, dmesgText)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Phases{Kernel: 4.262616, Initramfs: 4.087384, Userspace: 28.91}); !near(got.Kernel, want.Kernel) ||
		!near(got.Initramfs, want.Initramfs) || !near(got.Userspace, want.Userspace) || !near(got.ToMultiUser(), 37.26) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// near allows for the rounding of differences.
func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestGuestPhasesRefuses(t *testing.T) {
	for want, in := range map[string][3]string{
		"one manager and one target":                {"", targetText, dmesgText},
		"does not say when /init":                   {managerText, targetText, "[    4.262616] Run /sbin/init as init process\n"},
		`property UserspaceTimestampMonotonic`:      {"UserspaceTimestampMonotonic=\n", targetText, dmesgText},
		`property ActiveEnterTimestampMonotonic`:    {managerText, "ActiveEnterTimestampMonotonic=soon\n", dmesgText},
		"systemd before multi-user.target, found 4": {managerText, "ActiveEnterTimestampMonotonic=0\n", dmesgText},
	} {
		if _, err := guestPhases(in[0], in[1], in[2]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", in, err, want)
		}
	}
}

// unitsText is what systemd prints: in any order, with units of all kinds and states.
const unitsText = `Id=ssh.service
InactiveExitTimestampMonotonic=20000000
ActiveEnterTimestampMonotonic=23500000
InactiveEnterTimestampMonotonic=0

Id=modprobe@fuse.service
InactiveExitTimestampMonotonic=16000000
ActiveEnterTimestampMonotonic=0
InactiveEnterTimestampMonotonic=18250000

Id=never.service
InactiveExitTimestampMonotonic=0
ActiveEnterTimestampMonotonic=0
InactiveEnterTimestampMonotonic=0

Id=user@0.service
InactiveExitTimestampMonotonic=38000000
ActiveEnterTimestampMonotonic=44000000
InactiveEnterTimestampMonotonic=0

Id=dev-ttyS0.device
InactiveExitTimestampMonotonic=15000000
ActiveEnterTimestampMonotonic=25000000
InactiveEnterTimestampMonotonic=0

Id=tmp.mount
InactiveExitTimestampMonotonic=16000000
ActiveEnterTimestampMonotonic=16100000
InactiveEnterTimestampMonotonic=0

Id=starting.service
InactiveExitTimestampMonotonic=30000000
ActiveEnterTimestampMonotonic=0
InactiveEnterTimestampMonotonic=0
`

func TestSlowest(t *testing.T) {
	got, err := slowest(unitsText, 37, 10)
	if err != nil {
		t.Fatal(err)
	}
	want := []Unit{{"ssh.service", 20, 3.5}, {"modprobe@fuse.service", 16, 2.25}, {"tmp.mount", 16, 0.1}}
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range want {
		if got[i].Name != want[i].Name || got[i].Begin != want[i].Begin || !near(got[i].Seconds, want[i].Seconds) {
			t.Errorf("got %v, want %v", got[i], want[i])
		}
	}
	if got, _ := slowest(unitsText, 37, 2); len(got) != 2 || got[1].Name != "modprobe@fuse.service" {
		t.Errorf("got %v, want the first two", got)
	}
	if _, err := slowest("Id=a.service\nInactiveExitTimestampMonotonic=x\n", 37, 2); err == nil || !strings.Contains(err.Error(), "a.service") {
		t.Errorf("got %v, want an error that names the unit", err)
	}
}

// The kernel's clock begins before its first console line: the line about /init says how long before.
func TestNewBoot(t *testing.T) {
	marks := map[string]mark{
		loaderStarts: {2.5, 2}, kernelSpeaks: {7, 5}, initStarts: {11, 8}, systemdSpeaks: {15, 11}, multiUser: {44, 30},
	}
	got := newBoot(marks, Phases{Kernel: 4.5, Initramfs: 3, Userspace: 29})
	if got.Firmware != 2.5 || got.Loader != 4 || got.Kernel != 4.5 || got.Initramfs != 3 || got.Userspace != 29 || got.Wall != 44 {
		t.Errorf("got %+v", got)
	}
	if want := (CPU{Firmware: 2, Loader: 3, Kernel: 3, Initramfs: 3, Userspace: 19}); got.CPU != want {
		t.Errorf("got %+v, want %+v", got.CPU, want)
	}
}
