package device

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/ignition/plan"
)

func TestMount(t *testing.T) {
	m, _ := prepare(t, true)
	_, mounts, _ := plan.Split(planOf(t, `{"filesystems":[{"device":"/dev/vdb1","format":"ext4","path":"/var/a/b"},{"device":"/dev/vdc","format":"xfs","path":"/var/a","mountOptions":["noatime","pquota"]}]}`))
	mounts[1] = plan.Mount{Device: "/dev/vdb1", Path: "/var/a/b", Options: []string{"ro"}} // its format is seen on the device
	m.ran = nil
	if err := Mount(t.Context(), m, "/sysroot", mounts); err != nil {
		t.Fatal(err)
	}
	if err := Unmount(m, mounts); err != nil {
		t.Fatal(err)
	}
	const want = "mount xfs /dev/vdc /var/a -o noatime,pquota\nmount ext4 /dev/vdb1 /var/a/b -o ro\numount /var/a/b\numount /var/a"
	if got := strings.Join(m.ran, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What is mounted below the root is not mounted again; what is mounted elsewhere is.
func TestMountAgain(t *testing.T) {
	m, _ := prepare(t, true)
	_, mounts, _ := plan.Split(planOf(t, `{"filesystems":[{"device":"/dev/vdc","format":"xfs","path":"/var/a"}]}`))
	for where, want := range map[string]string{"/sysroot/var/a": "", "/var/a": "mount xfs /dev/vdc /var/a"} {
		m.busy["vdc"], m.ran = "mounted on "+where, nil
		if err := Mount(t.Context(), m, "/sysroot", mounts); err != nil || strings.Join(m.ran, "\n") != want {
			t.Errorf("mounted on %s: got %q, %v, want %q", where, m.ran, err, want)
		}
	}
}

// A mount is found by the number of its device; of btrfs, which has another, by its node, under whichever name it was mounted.
func TestMountedOn(t *testing.T) {
	const mountinfo = `22 1 0:20 / /dev rw,nosuid shared:2 - devtmpfs devtmpfs rw
31 1 254:1 / /var rw,nosuid,nodev shared:1 master:2 - ext4 /dev/vda4 rw
32 31 0:41 / /var/lib/a\040b\134 rw,relatime shared:3 - btrfs /dev/vde5 rw,compress=zstd:1
33 31 254:7 / /mnt rw - vfat /dev/vde7 rw
`
	for _, tt := range []struct{ number, node, want string }{
		{"254:1", "/dev/vda4", "/var"}, {"254:5", "/dev/vde5", `/var/lib/a b\`}, {"254:7", "/dev/vde7", "/mnt"},
		{"254:6", "/dev/vde6", ""}, {"254:70", "/dev/vde", ""}, {"254:10", "/dev/devtmpfs", ""},
	} {
		if got := mountedOn(mountinfo, tt.number, tt.node); got != tt.want {
			t.Errorf("%s, %s: got %q, want %q", tt.number, tt.node, got, tt.want)
		}
	}
	if got := mountedOn("1 1 0:9 / /x rw - btrfs /dev/./null rw\n", "1:3", "/dev/null"); got != "/x" {
		t.Errorf("by another name: got %q", got)
	}
}

// A disk is in use while one of its partitions is: what erases the disk would take that away. What is in use is told apart.
func TestBusy(t *testing.T) {
	sys := t.TempDir()
	for name, text := range map[string]string{
		"none/dev": "259:70\n", "none/none1/partition": "1\n", "none/none1/start": "2048\n", "none/none1/size": "2048\n",
		"none/none2/partition": "2\n", "none/none2/start": "4096\n", "none/none2/size": "2048\n",
		"none1/dev": "259:71\n", "none2/dev": "259:72\n", "none2/holders/dm-0/x": "", "dm-0/dm/name": "box\n", "other/dev": "259:73\n",
	} {
		name = filepath.Join(sys, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name      string
		partition int
		want      string
	}{{"none", 0, "partition none2, volume box"}, {"none", 1, ""}, {"none", 2, "volume box"}, {"none", 3, ""}, {"none2", 0, "volume box"}, {"other", 0, ""}} {
		if got, err := (&node{block: sys, name: tt.name}).Busy(tt.partition); got != tt.want || err != nil {
			t.Errorf("%s, partition %d: got %q, %v, want %q", tt.name, tt.partition, got, err, tt.want)
		}
	}
}

// What is open is closed again, what lies above first; what nobody has opened is left alone.
func TestRelease(t *testing.T) {
	m, _ := prepare(t, true)
	devices, _, _ := plan.Split(planOf(t, `{"raid":[{"name":"a","level":"raid1","devices":["/dev/vdb1","/dev/vdb2"]}],
		"luks":[{"name":"box","device":"/dev/vdc"},{"name":"closed","device":"/dev/vdb"}]}`))
	m.busy["vdb1"], m.busy["vdc"], m.ran = "array md127", "volume box", nil
	Release(t.Context(), m, devices, func(op plan.Op, err error) { t.Errorf("%s: %v", op, err) })
	const want = "cryptsetup close box\nmdadm --stop /dev/md/a"
	if got := strings.Join(m.ran, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
