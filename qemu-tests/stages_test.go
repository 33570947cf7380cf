package qemutests

import (
	"fmt"
	"strings"
	"testing"

	"github.com/proa-os/proa/qemu-tests/vm"
)

// byHand drives a stage as upstream's dracut modules do, one process for each, on a tree and with files that no other run has.
const byHand = `
stage() {
	IGNITION_CONFIG_FILE=$1 ignition -platform file -stage $2 -root /run/hand/tree -config-cache /run/hand/config.ign -state-file /run/hand/state -neednet /run/hand/neednet -log-to-stdout
}
try() { stage $1 $2 >/run/hand/log 2>&1 || { echo "stage $2 failed: $?"; cat /run/hand/log; } }
mkdir -p /run/hand/tree/etc
`

// handConfig makes three partitions behind those of the spare disk: two file systems, one inside the other, and an encrypted volume.
const handConfig = `cat > /run/hand/a.bu <<'END'
variant: proa
version: 1.0.0
storage:
  disks:
    - device: /dev/disk/by-id/virtio-spare
      partitions:
        - {number: 10, label: one, start_mib: 256, size_mib: 16}
        - {number: 11, label: two, start_mib: 272, size_mib: 16}
        - {number: 12, label: three, start_mib: 288, size_mib: 24}
  luks:
    - {name: hand, device: /dev/disk/by-partlabel/three, key_file: {inline: sesame}, options: [--pbkdf, pbkdf2, --pbkdf-force-iterations, "1000"]}
  filesystems:
    - {device: /dev/disk/by-partlabel/one, format: ext4, path: /data}
    - {device: /dev/disk/by-partlabel/two, format: vfat, path: /data/in it}
    - {device: /dev/mapper/hand, format: ext4, label: hand}
  files:
    - {path: /data/word, contents: {inline: one}}
    - {path: /data/in it/word, contents: {inline: two}}
    - {path: /etc/word, contents: {inline: tree}}
END
`

// changeConfig deletes the second, has the first take its place, and replaces the third by one with another label. What is at the label of
// the third from now on was another partition's before.
const changeConfig = `cat > /run/hand/b.bu <<'END'
variant: proa
version: 1.0.0
storage:
  disks:
    - device: /dev/disk/by-id/virtio-spare
      partitions:
        - {number: 10, label: one, size_mib: 32, resize: true}
        - {number: 11, should_exist: false, wipe_partition_entry: true}
        - {number: 12, label: four, start_mib: 288, size_mib: 8, wipe_partition_entry: true}
        - {number: 13, label: three, start_mib: 296, size_mib: 16}
  filesystems:
    - {device: /dev/disk/by-partlabel/three, format: ext4, label: three, wipe_filesystem: true}
    - {device: /dev/disk/by-partlabel/four, format: none, wipe_filesystem: true}
END
`

// deleteConfig takes all of them away.
const deleteConfig = `cat > /run/hand/d.bu <<'END'
variant: proa
version: 1.0.0
storage:
  disks:
    - device: /dev/disk/by-id/virtio-spare
      partitions:
        - {number: 10, should_exist: false, wipe_partition_entry: true}
        - {number: 12, should_exist: false, wipe_partition_entry: true}
        - {number: 13, should_exist: false, wipe_partition_entry: true}
END
`

// stagesByHand drives the stages on the running machine, on a disk of which other partitions are in use.
func stagesByHand(t *testing.T, m *vm.Machine) {
	t.Helper()
	node := run(t, m, "readlink -f /dev/disk/by-id/virtio-spare")
	for _, part := range []struct{ name, commands, want, table string }{
		{"made", handConfig + `a=/run/hand/a.bu
for s in fetch-offline fetch kargs disks mount mount; do try $a $s; done
grep /run/hand /proc/mounts | cut -d' ' -f1-3
for s in files umount; do try $a $s; done
grep /run/hand /proc/mounts
cat /run/hand/tree/etc/word; echo
for p in one two; do mount -o ro /dev/disk/by-partlabel/$p /mnt; cat /mnt/word; umount /mnt; echo; done
cryptsetup status hand | grep device:; blkid -p -s LABEL -o value /dev/mapper/hand
cryptsetup close hand; printf sesame | cmp - /run/hand/tree/etc/luks/hand; ls /run/hand`, `/dev/SPARE10 /run/hand/tree/data ext4
/dev/SPARE11 /run/hand/tree/data/in\040it vfat
tree
one
two
device: /dev/SPARE12
hand
a.bu
config.ign
log
state
tree`, spareTable + "\n10 one 256 16\n11 two 272 16\n12 three 288 24"},
		{"changed", changeConfig + `b=/run/hand/b.bu; for s in fetch-offline disks; do try $b $s; done
blkid -p -s LABEL -s TYPE -o value ` + node + `13
blkid -p -s TYPE -o value ` + node + `12
mount -o ro ` + node + `10 /mnt; cat /mnt/word; umount /mnt; echo
try $b disks; grep -o 'outcome=.*' /run/hand/log; grep -c . /var/lib/tree/word`, `three
ext4
one
outcome="as it was made before"
outcome="as it was made before"
outcome="as it was made before"
1`, spareTable + "\n10 one 256 32\n12 four 288 8\n13 three 296 16"},
	} {
		if got := squeezed(strings.ReplaceAll(run(t, m, byHand+part.commands), node, "/dev/SPARE")); got != part.want {
			t.Errorf("%s: got\n%s\nwant\n%s", part.name, got, part.want)
		}
		if got := tableOf(t, m, node); got != part.table {
			t.Errorf("%s: got\n%s\nwant\n%s", part.name, got, part.table)
		}
	}
	inUseIsRefused(t, m, node)
	// Somebody looks into a partition that goes, as udev does when it has changed.
	if got := run(t, m, byHand+deleteConfig+"sleep 10 <"+node+"12 & try /run/hand/d.bu fetch-offline,disks"); got != "" {
		t.Errorf("deleted: got %s", got)
	}
	if got := tableOf(t, m, node); got != spareTable {
		t.Errorf("deleted: got\n%s\nwant\n%s", got, spareTable)
	}
}

// inUseIsRefused asks for what somebody uses to go, to become smaller, and to be wiped.
func inUseIsRefused(t *testing.T, m *vm.Machine, node string) {
	t.Helper()
	before := tableOf(t, m, node)
	refusals := []struct{ storage, want string }{
		{"disks: [{device: %s, partitions: [{number: 6, should_exist: false, wipe_partition_entry: true}]}]", "mounted on /var/lib/fat"},
		{"disks: [{device: %s, partitions: [{number: 5, should_exist: false, wipe_partition_entry: true}]}]", "mounted on /var/lib/tree"},
		{"disks: [{device: %s, partitions: [{number: 7, label: x, wipe_partition_entry: true}]}]", "swap"},
		{"disks: [{device: %s, partitions: [{number: 8, size_mib: 20, resize: true}]}]", "volume own"},
		{"disks: [{device: %s, partitions: [{number: 10, should_exist: false, wipe_partition_entry: true}]}]", "the kernel has it"}, // mounted where only one process sees it
		{"disks: [{device: %s, wipe_table: true}]", "partition"},
		{"filesystems: [{device: %s-part5, format: ext4, wipe_filesystem: true}]", "mounted on /var/lib/tree"},
		{"filesystems: [{device: %s, format: ext4, wipe_filesystem: true}]", "partition"},
	}
	commands := byHand + "unshare -m sh -c 'mount -o ro " + node + "10 /mnt && echo >/run/hand/mounted && exec sleep 300' >/dev/null 2>&1 &\nwhile [ ! -e /run/hand/mounted ]; do sleep 0.1; done\n"
	for _, r := range refusals {
		commands += "cat > /run/hand/c.bu <<'END'\nvariant: proa\nversion: 1.0.0\nstorage:\n  " + fmt.Sprintf(r.storage, "/dev/disk/by-id/virtio-spare") +
			"\nEND\ntry /run/hand/c.bu fetch-offline,disks; echo ==\n"
	}
	said := strings.Split(run(t, m, commands+"kill $!; wait"), "==")
	for n, r := range refusals {
		if n >= len(said) || !strings.Contains(said[n], "disks failed: 1") || !strings.Contains(said[n], "in use: "+r.want) {
			t.Errorf("%s: want it refused, in use: %s; got\n%q", r.storage, r.want, said)
		}
	}
	if got := tableOf(t, m, node); got != before {
		t.Errorf("refused, and changed: got\n%s\nwant\n%s", got, before)
	}
}

// driftIsNamed changes a file that was provisioned, and puts it right again.
func driftIsNamed(t *testing.T, m *vm.Machine) {
	t.Helper()
	got := run(t, m, "f=/var/lib/tree/word; cp $f /run/word; echo changed > $f; ignition drift 2>&1; echo status $?; cat /run/word > $f")
	if !strings.HasPrefix(got, "file /var/lib/tree/word\n") || !strings.HasSuffix(got, "drift: 1 things differ from what was provisioned\nstatus 1") {
		t.Errorf("drift: got %s", got)
	}
}
