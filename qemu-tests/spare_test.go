package qemutests

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/qemu-tests/vm"
)

// spareConfig is for a disk that somebody has used before (usedBefore): one partition is kept as it is, one deleted, one becomes larger, and
// between and behind them others are made, for every format that a config knows. The volume has a cheap key, as in disksConfig.
const spareConfig = `variant: proa
version: 1.0.0
storage:
  disks:
    - device: /dev/disk/by-id/virtio-spare
      partitions:
        - {number: 1, label: kept}
        - {number: 2, should_exist: false, wipe_partition_entry: true}
        - {number: 3, label: grown, size_mib: 24, resize: true}
        - {number: 4, label: bare, start_mib: 9, size_mib: 8}
        - {number: 5, label: tree, size_mib: 128}
        - {number: 6, label: fat, size_mib: 16}
        - {number: 7, label: pages, size_mib: 16}
        - {number: 8, label: own, size_mib: 24}
  luks:
    - {name: own, device: /dev/disk/by-partlabel/own, wipe_volume: true, discard: true, options: [--pbkdf, pbkdf2, --pbkdf-force-iterations, "1000"]}
  filesystems:
    - {device: /dev/disk/by-partlabel/kept, format: ext4, label: kept}
    - {device: /dev/disk/by-partlabel/grown, format: ext4, label: grown}
    - {device: /dev/disk/by-partlabel/bare, format: none, wipe_filesystem: true}
    - {device: /dev/disk/by-partlabel/tree, format: btrfs, label: tree, path: /var/lib/tree, mount_options: [noatime, "compress=zstd:1"], with_mount_unit: true}
    - {device: /dev/disk/by-partlabel/fat, format: vfat, label: FAT, path: /var/lib/fat, mount_options: [umask=0077], with_mount_unit: true}
    - {device: /dev/disk/by-partlabel/pages, format: swap, label: pages, mount_options: [pri=7], with_mount_unit: true}
    - {device: /dev/mapper/own, format: ext4, label: own, path: /var/lib/tree/own, with_mount_unit: true}
  files:
    - {path: /var/lib/tree/word, overwrite: true, contents: {inline: tree}}
    - {path: /var/lib/tree/own/word, overwrite: true, contents: {inline: own}}
    - {path: /var/lib/fat/word, overwrite: true, contents: {inline: fat}}
`

// usedBefore makes the disk as somebody has left it: three partitions with file systems, side by side.
func usedBefore(t *testing.T, file string) error {
	tools, dir := testenv.Tools(t), t.TempDir()
	sfdisk := tools.Command(t.Context(), "sfdisk", "--quiet", file)
	sfdisk.Stdin = strings.NewReader("label: gpt\nstart=1MiB, size=8MiB, name=kept\nstart=9MiB, size=8MiB, name=gone\nstart=17MiB, size=8MiB, name=grown\n")
	if out, err := sfdisk.CombinedOutput(); err != nil {
		return fmt.Errorf("sfdisk: %w: %s", err, out)
	}
	disk, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return errors.Join(err, disk.Close())
	}
	for n, label := range []string{"kept", "gone", "grown"} {
		image := filepath.Join(dir, label)
		err = errors.Join(err, os.WriteFile(filepath.Join(tree, "old"), []byte(label), 0o644))
		if out, merr := tools.Command(t.Context(), "mkfs.ext4", "-q", "-L", label, "-d", tree, image, "8M").CombinedOutput(); merr != nil {
			err = errors.Join(err, fmt.Errorf("mkfs.ext4: %w: %s", merr, out))
		}
		content, rerr := os.ReadFile(image)
		_, werr := disk.WriteAt(content, int64(1+8*n)<<20)
		err = errors.Join(err, rerr, werr)
	}
	return errors.Join(err, disk.Close())
}

// spareScript says of the spare disk what is found there; of the bare partition, an empty line. It starts few programs: they are what the story costs.
const spareScript = `cd /dev/disk/by-partlabel
ls gone 2>/dev/null
blkid -p -s LABEL -s TYPE kept grown bare tree fat pages own /dev/mapper/own
while read what where format options rest; do
	case $where in /var/lib/tree*|/var/lib/fat) ;; *) continue ;; esac
	case ,$options, in *,noatime,compress=zstd:1,*|*,fmask=0077,dmask=0077,*) options=asked ;; *) options= ;; esac
	echo $where $format $what $options
done </proc/mounts
while read what kind size used priority; do [ $what = Filename ] || echo swap on $what $priority; done </proc/swaps
cat /var/lib/tree/word /var/lib/fat/word /var/lib/tree/own/word; echo
for p in kept grown; do mount -o ro $p /mnt; cat /mnt/old; umount /mnt; done; echo
while read name device key options; do [ $name != own ] || echo $name $key $options; done </etc/crypttab
stat -c '%a %s' /etc/luks/own`

const spareWant = `kept: LABEL="kept" TYPE="ext4"
grown: LABEL="grown" TYPE="ext4"

tree: LABEL="tree" TYPE="btrfs"
fat: LABEL="FAT" TYPE="vfat"
pages: LABEL="pages" TYPE="swap"
own: TYPE="crypto_LUKS"
/dev/mapper/own: LABEL="own" TYPE="ext4"
/var/lib/fat vfat /dev/SPARE6 asked
/var/lib/tree btrfs /dev/SPARE5 asked
/var/lib/tree/own ext4 /dev/mapper/own
swap on /dev/SPARE7 7
treefatown
keptgrown
own /etc/luks/own luks,discard
600 4096`

// spareTable is where the partitions are, in MiB.
const spareTable = `1 kept 1 8
3 grown 17 24
4 bare 9 8
5 tree 41 128
6 fat 169 16
7 pages 185 16
8 own 201 24`

// spareIsThere looks at everything that spareConfig asks for, from inside and, for the table, from outside.
func spareIsThere(t *testing.T, m *vm.Machine) {
	t.Helper()
	node := run(t, m, "readlink -f /dev/disk/by-id/virtio-spare")
	got := strings.Split(squeezed(strings.ReplaceAll(run(t, m, spareScript), node, "/dev/SPARE")), "\n")
	if at := slices.IndexFunc(got, func(l string) bool { return strings.HasPrefix(l, "/var/lib/") }); at >= 0 { // they come in any order
		slices.Sort(got[at:min(at+3, len(got))])
	}
	if got := strings.Join(got, "\n"); got != spareWant {
		t.Errorf("the spare disk: got\n%s\nwant\n%s", got, spareWant)
	}
	if got := tableOf(t, m, node); got != spareTable {
		t.Errorf("the table of the spare disk: got\n%s\nwant\n%s", got, spareTable)
	}
}

// squeezed is text with one space where there are many.
func squeezed(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}

// tableOf has sfdisk judge and read the table on the spare disk: number, label, start and size in MiB. The kernel must say the same, but for
// labels, of which it knows only those that it has read itself.
func tableOf(t *testing.T, m *vm.Machine, node string) string {
	t.Helper()
	disk := filepath.Base(node)
	kernel := run(t, m, "sync; cd /sys/class/block; for p in "+disk+"[0-9]*; do read start <$p/start; read size <$p/size; echo ${p#"+disk+"} $start $size; done")
	tools, file := testenv.Tools(t), m.MoreDisk("spare")
	if out, err := tools.Command(t.Context(), "sfdisk", "--verify", file).CombinedOutput(); err != nil || !strings.Contains(string(out), "No errors detected") {
		t.Errorf("sfdisk --verify: %v\n%s", err, out)
	}
	out, err := tools.Command(t.Context(), "sfdisk", "--dump", file).CombinedOutput()
	if err != nil {
		t.Fatalf("sfdisk --dump: %v\n%s", err, out)
	}
	var table, places []string
	for _, p := range regexp.MustCompile(`(?m)(\d+) : start= *(\d+), size= *(\d+),.*name="([^"]*)"`).FindAllStringSubmatch(string(out), -1) {
		table = append(table, fmt.Sprintf("%s %s %s %s", p[1], p[4], inMiB(p[2]), inMiB(p[3])))
		places = append(places, strings.Join(p[1:4], " "))
	}
	known := strings.Split(kernel, "\n")
	slices.Sort(known)
	slices.Sort(places)
	if !slices.Equal(known, places) {
		t.Errorf("the kernel knows other partitions of the spare disk: got %q, want %q", known, places)
	}
	return strings.Join(table, "\n")
}

// inMiB has a number of sectors in MiB, or says that it is none.
func inMiB(sectors string) string {
	n, err := strconv.Atoi(sectors)
	if err != nil || n%2048 != 0 {
		return "?" + sectors
	}
	return strconv.Itoa(n / 2048)
}
