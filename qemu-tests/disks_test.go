package qemutests

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
)

// disksConfig is what a machine with data on two disks asks for, beside var.bu of the documentation; the machine reads both as they are, merged
// configs as YAML.
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
      wipe_volume: true # a volume that the TPM opens cannot be reused, and a reset finds it again: tables are wiped, what partitions hold is not
      clevis: {tpm2: true}
      # Weak on purpose: the machines of the tests have little memory and no time, and the key goes when the TPM has the volume.
      options: [--pbkdf, pbkdf2, --pbkdf-force-iterations, "1000"]
  filesystems:
    - {device: /dev/mapper/box, format: xfs, label: data, path: /var/lib/data, with_mount_unit: true}
  files:
    - path: /var/lib/data/word
      contents: {inline: kept}
    - path: /var/srv/word
      contents: {inline: kept too}
`

// watched is what mdadm says of an array when provisioning or a reset takes it apart.
var watched = vm.Allow(`mdadm\[\d+\]: DeviceDisappeared event`, "an array that mdadm has begun to watch is taken apart, to be made again")

// TestDisks has a machine make an array of two disks, on it an encrypted volume that its TPM opens, in that a file system, put its
// state on a disk of its own, and use a disk that somebody has used before for everything else that a config can ask of disks (spare). The
// power is cut while it does, at an array begun: the next boot goes on. What it has made comes back by itself at every
// boot, and nothing is provisioned twice, until it is reset. `make powercut` cuts at a table and at a file system, too, and resets it in the other way.
func TestDisks(t *testing.T) {
	s := begin(t, 10)
	config := provision.New().Hostname("disks")
	config.Include(disksConfig).Include(spareConfig).Include(s.documented("var.bu"))
	m := s.machineFrom("disks", s.image("1.0.0", "").Disk(), config, func(c *vm.Config) {
		c.TPM = true
		c.Disks = []vm.EmptyDisk{{Name: "state", Size: 2 << 30}, // the first one, as the example has it
			{Name: "left", Size: 512 << 20}, {Name: "right", Size: 512 << 20}, {Name: "spare", Size: 512 << 20, Used: func(file string) error { return usedBefore(t, file) }}}
	})
	marks := []mark{{"left", 1<<20 + 4096, "\xfc\x4e\x2b\xa9", "a member of an array"}} // md's superblock 1.2, little-endian
	if fullDepth() {
		marks = []mark{{"left", 512, "EFI PART", "a partition table"}, marks[0], {"state", 1<<20 + 1024 + 0x38, "\x53\xef", "the file system of state"}}
	}
	for _, k := range marks {
		k.cut(t, m)
		check(t, m.PowerOn())
	}
	step(t, m, "provisioned", func(t *testing.T) { disksAreThere(t, m) }, watched)
	provisioned := run(t, m, "cat /var/lib/ignition/result.json")
	staysFinished(t, m)
	if fullDepth() {
		for range 4 {
			staysFinished(t, m)
		}
	}
	step(t, m, "again", func(t *testing.T) {
		disksAreThere(t, m)
		if got := run(t, m, "cat /var/lib/ignition/result.json"); got != provisioned {
			t.Errorf("it was provisioned again: %s", got)
		}
		if got := run(t, m, "journalctl -b -o cat -u ignition.service"); got != "" {
			t.Errorf("provisioning ran: %s", got)
		}
	})
	step(t, m, "running", func(t *testing.T) {
		stagesByHand(t, m)
		driftIsNamed(t, m)
		if got := run(t, m, sealedSecret); got != "hush" {
			t.Errorf("got %q", got)
		}
		if got := run(t, m, sealedByTPM); got != "mum" {
			t.Errorf("got %q of a container's secret", got)
		}
	})
	step(t, m, "reset", func(t *testing.T) { isReset(t, m) }, watched)
	if fullDepth() {
		step(t, m, "factory reset", func(t *testing.T) { stateIsForgotten(t, m) }, watched)
	}
}

// sealedSecret makes a key that the machine's TPM seals, and not a key of the host beside it, encrypts a secret for it, and lets the stages that a
// first boot runs write that into a tree.
const sealedSecret = `set -e
to=$(ignition secret key --create)
test ! -e /var/lib/systemd/credential.secret
mkdir -p /run/tree/etc
{
	printf 'variant: proa\nversion: 1.0.0\nstorage:\n  files:\n    - path: /etc/token\n      contents:\n        age: |\n'
	printf hush | ignition secret encrypt --to "$to" | sed 's/^/          /'
} > /run/secret.bu
! grep -q hush /run/secret.bu
IGNITION_CONFIG_FILE=/run/secret.bu ignition -platform file -stage fetch-offline,files -root /run/tree -config-cache /run/secret.json -state-file /run/secret.state -neednet /run/secret.net
cat /run/tree/etc/token`

// sealedByTPM stores a secret for containers, which the TPM seals, and opens it.
const sealedByTPM = `set -e
printf mum | containerctl secret create --seal tpm word - >/dev/null
! grep -q "$(printf mum | base64)" /var/lib/proa/containers/secrets/word.json
containerctl secret inspect --showsecret word | sed -n 's/.*"data": "\(.*\)".*/\1/p' | base64 -d
containerctl secret rm word >/dev/null`

// isReset has the machine forget its state, which is on a disk of its own, but for two paths, and provision itself again.
func isReset(t *testing.T, m *vm.Machine) {
	t.Helper()
	run(t, m, "echo old | tee /var/srv/old /etc/old; mkdir -p /var/srv/precious; echo kept | tee /var/srv/precious/word /etc/precious; ignition drift")
	identity := run(t, m, "cat /etc/machine-id")
	if got := run(t, m, "ignition reset --keep /var/srv/precious /etc/precious"); !strings.Contains(got, "systemctl reboot") {
		t.Errorf("it does not say what is next: %s", got)
	}
	check(t, m.Reboot(t.Context()))
	m.ForgetHostKey()
	disksAreThere(t, m)
	if got := run(t, m, "cat /var/srv/precious/word /etc/precious; ls /var/srv/old /etc/old /var/lib/ignition/reset 2>/dev/null || true"); got != "kept\nkept" {
		t.Errorf("what is kept, and what is left over: %s", got)
	}
	if got := run(t, m, "cat /etc/machine-id"); got == identity {
		t.Errorf("the machine is the one that it was: %s", got)
	}
}

// stateIsForgotten has the machine forget its state, which is on a disk of its own, while the file system there fits the config: it is used
// again, and nothing that was in it is. The data disks are not state, and are made anew because the config says wipe.
func stateIsForgotten(t *testing.T, m *vm.Machine) {
	t.Helper()
	run(t, m, "echo old > /var/srv/old; echo old > /etc/old; sync")
	boots := m.Boots()
	run(t, m, "systemctl start factory-reset.target")
	check(t, m.WaitBoot(t.Context(), boots+2)) // provisioned, and with state elsewhere again
	m.ForgetHostKey()
	disksAreThere(t, m)
	if got := run(t, m, "ls /var/srv/old /etc/old /var/lib/ignition/reset 2>/dev/null || true"); got != "" {
		t.Errorf("left over: %s", got)
	}
}

// disksAreThere looks at everything between the disks and a file, by the programs that know it.
func disksAreThere(t *testing.T, m *vm.Machine) {
	t.Helper()
	up(t, m)
	var commands, wants []string
	for _, c := range []struct{ command, want string }{
		{"cat /var/srv/word", "kept too"},
		{"lsblk -n -o SERIAL /dev/$(lsblk -n -o PKNAME $(findmnt -n -o SOURCE /var))", "state"},
		{"lsblk -n -o PARTLABEL,LABEL $(findmnt -n -o SOURCE /var)", "var var"},
		{"touch /etc/seen; ls /var/lib/etc/upper/seen", "/var/lib/etc/upper/seen"},
		{"cat /var/lib/data/word", "kept"},
		{"findmnt -n -o FSTYPE,SOURCE /var/lib/data", "xfs    /dev/mapper/box"},
		{"mdadm --detail /dev/md/mirror | grep -c 'active sync'", "2"},
		{"cryptsetup status box | grep -c 'type: *LUKS2'", "1"},
		{"ls /etc/luks/box 2>/dev/null; grep '^box ' /etc/crypttab | cut -d' ' -f3-", "- luks,tpm2-device=auto"},
		{"cryptsetup luksDump /dev/md/mirror | grep -cE 'systemd-tpm2|^  [0-9]: luks2'", "2"},
		{"ignition drift", "nothing differs from what was provisioned"},
	} {
		commands = append(commands, "echo $("+c.command+")") // one for all: a command costs less than to come in
		wants = append(wants, strings.Join(strings.Fields(c.want), " "))
	}
	got := strings.Split(squeezed(run(t, m, strings.Join(commands, "\n"))), "\n")
	for n, want := range wants {
		if n >= len(got) || got[n] != want {
			t.Errorf("%s: want %q, got %q", commands[n], want, got)
		}
	}
	spareIsThere(t, m)
}

// A mark is what tells how far a machine has come: bytes at a place on one of its disks.
type mark struct {
	disk  string
	at    int64
	bytes string
	what  string
}

// cut cuts the power when the mark is there.
func (k mark) cut(t *testing.T, m *vm.Machine) {
	t.Helper()
	waitUntil(t, func() bool {
		f, err := os.Open(m.MoreDisk(k.disk))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, len(k.bytes))
		_, err = f.ReadAt(b, k.at)
		return err == nil && string(b) == k.bytes
	})
	check(t, m.PowerCut())
	t.Logf("power cut when disk %s had %s", k.disk, k.what)
}

// waitUntil asks often: what it waits for may be over soon.
func waitUntil(t *testing.T, is func() bool) {
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
