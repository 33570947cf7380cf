package device

import (
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
