package qemutests

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// takesFromAStick has the machine take a release from a stick on USB, and nothing from the network: the service mounts it for itself, and only
// while it reads. Only what the machine needs is on it, of the older releases nothing.
func (h *sickbed) takesFromAStick(t *testing.T, version string) {
	t.Helper()
	const disk, conf = "/dev/sda", "/etc/proa/update/config.json"
	run(t, h.m, "cp "+conf+" /run/config.json; sed -i 's|"+h.web.GuestURL()+"|file:///run/proa/stick|' "+conf)
	if out := run(t, h.m, "updatectl check 2>&1; echo status=$?"); !strings.Contains(out, "labelled PROA-REPO: is the stick plugged in?") || !strings.HasSuffix(out, "status=1") {
		t.Errorf("nothing is plugged in: %q", out)
	}
	fill := "mkfs.vfat -n PROA-REPO " + disk + " && mkdir -p /run/lab && mount " + disk + " /run/lab && cd /run/lab"
	for _, folder := range []string{"metadata", "targets/plan", "targets/releases/" + version} {
		check(t, filepath.WalkDir(filepath.Join(h.desk.Repository, folder), func(path string, d os.DirEntry, err error) error {
			name, relErr := filepath.Rel(h.desk.Repository, path)
			if err == nil && relErr == nil && !d.IsDir() {
				fill += fmt.Sprintf(" && mkdir -p %s && wget -qO %s %s%s", filepath.Dir(name), name, h.web.GuestURL(), name)
			}
			return errors.Join(err, relErr)
		}))
	}
	run(t, h.m, fill+" && cd / && umount /run/lab && udevadm trigger --settle "+disk)
	asked := len(h.web.Requests())
	if out := run(t, h.m, "updatectl apply --no-reboot 2>&1; lsblk -no TRAN "+disk+"; cat /proc/mounts"); !strings.Contains(out, "release "+version+" is armed") || !strings.Contains(out, "\nusb\n") || strings.Contains(out, " /run/proa/stick ") {
		t.Errorf("from a stick: %q", out)
	}
	if got := h.web.Requests()[asked:]; len(got) > 0 {
		t.Errorf("got requests %q, want none while a stick is read", got)
	}
	run(t, h.m, "cp /run/config.json "+conf)
}
