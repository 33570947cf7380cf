package qemutests

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
)

// disksConfig is what a machine with data on two disks asks for; the machine reads it as it is, a merged config as YAML.
const disksConfig = `variant: proa
version: 1.0.0
storage:
  disks:
    - {device: /dev/disk/by-id/virtio-left, wipe_table: true, partitions: [{number: 1, label: left}]}
    - {device: /dev/disk/by-id/virtio-right, wipe_table: true, partitions: [{number: 1, label: right}]}
  raid:
    - name: mirror
      level: raid1
      devices: [/dev/disk/by-partlabel/left, /dev/disk/by-partlabel/right]
  luks:
    - name: box
      device: /dev/md/mirror
      label: box
      # Weak on purpose: the machines of the tests have little memory and no time.
      options: [--pbkdf, pbkdf2, --pbkdf-force-iterations, "1000"]
  filesystems:
    - {device: /dev/mapper/box, format: xfs, label: data, path: /var/lib/data, with_mount_unit: true}
    - {device: /dev/disk/by-id/virtio-state, format: ext4, label: var, path: /var}
  files:
    - path: /var/lib/data/word
      contents: {inline: kept}
    - path: /var/srv/word
      contents: {inline: kept too}
`

// TestDisks has a machine make an array of two disks, an encrypted volume on it and a file system in that, and put its state on a disk
// of its own. The power is cut twice while it does, at a table written and at an array begun: the next boot goes on. What it has made
// comes back by itself at every boot, and nothing is provisioned twice.
func TestDisks(t *testing.T) {
	s := begin(t)
	config := provision.New().Hostname("disks")
	config.Include(disksConfig)
	m := s.machineFrom("disks", s.image("1.0.0", "").Disk(), config, func(c *vm.Config) {
		c.Disks = []vm.EmptyDisk{{Name: "left", Size: 512 << 20}, {Name: "right", Size: 512 << 20}, {Name: "state", Size: 2 << 30}}
	})
	for _, mark := range []struct {
		what  string
		at    int64
		bytes string
	}{
		{"a partition table", 512, "EFI PART"},
		{"a member of an array", 1<<20 + 4096, "\xfc\x4e\x2b\xa9"}, // md's superblock 1.2, little-endian
	} {
		cutWhen(t, m, mark.what, m.MoreDisk("left"), mark.at, mark.bytes)
		check(t, m.PowerOn())
	}
	step(t, m, "provisioned", func(t *testing.T) { disksAreThere(t, m) })
	provisioned := run(t, m, "cat /var/lib/ignition/result.json")
	for range 3 {
		check(t, m.PowerCut())
		from := len(m.Console().Lines(0))
		check(t, m.PowerOn())
		target := ""
		waitUntil(t, m, func() bool { target = defaultTarget(m, from); return target != "" })
		if target != "multi-user.target" {
			t.Fatalf("a finished machine starts %s, want multi-user.target", target)
		}
	}
	step(t, m, "again", func(t *testing.T) {
		disksAreThere(t, m)
		if got := run(t, m, "cat /var/lib/ignition/result.json"); got != provisioned {
			t.Errorf("it was provisioned again: %s", got)
		}
		if got := run(t, m, "journalctl -b -o cat -u ignition.service -u provision-done.service"); got != "" {
			t.Errorf("provisioning ran: %s", got)
		}
	})
}

// disksAreThere looks at everything between the disks and a file, by the programs that know it.
func disksAreThere(t *testing.T, m *vm.Machine) {
	t.Helper()
	up(t, m)
	for command, want := range map[string]string{
		"cat /var/srv/word": "kept too",
		"lsblk -n -o SERIAL $(findmnt -n -o SOURCE /var)":                          "state",
		"findmnt -n -o OPTIONS /etc | grep -c upperdir=/sysroot/var/lib/etc/upper": "1",
		"cat /var/lib/data/word":                                "kept",
		"findmnt -n -o FSTYPE,SOURCE /var/lib/data":             "xfs    /dev/mapper/box",
		"mdadm --detail /dev/md/mirror | grep -c 'active sync'": "2",
		"cryptsetup status box | grep -c 'type: *LUKS2'":        "1",
		"stat -c %a:%U /etc/luks/box":                           "600:root",
		"ignition drift":                                        "nothing differs from what was provisioned",
	} {
		if got, err := m.Run(t.Context(), "root", command); err != nil || strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") {
			t.Errorf("%s: got %q, %v, want %q", command, got, err, want)
		}
	}
}

// defaultTarget is the target that systemd has set out for since a line of the console, "" if it has not yet.
func defaultTarget(m *vm.Machine, from int) string {
	for _, l := range m.Console().Lines(from) {
		if _, rest, ok := strings.Cut(l.Text, "Queued start job for default target "); ok {
			return strings.TrimSuffix(strings.TrimSpace(rest), ".")
		}
	}
	return ""
}

// cutWhen cuts the power when there are bytes at a place on a disk.
func cutWhen(t *testing.T, m *vm.Machine, what, disk string, at int64, want string) {
	t.Helper()
	waitUntil(t, m, func() bool {
		f, err := os.Open(disk)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, len(want))
		_, err = f.ReadAt(b, at)
		return err == nil && bytes.Equal(b, []byte(want))
	})
	check(t, m.PowerCut())
	t.Logf("power cut when %s had %s", filepath.Base(disk), what)
}

// waitUntil asks often: what it waits for may be over soon.
func waitUntil(t *testing.T, m *vm.Machine, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatal(fmt.Errorf("waited in vain: %w", ctx.Err()))
		case <-time.After(2 * time.Millisecond):
		}
	}
}
