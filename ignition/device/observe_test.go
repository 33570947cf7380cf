package device

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/ignition/plan"
)

// observer looks at the image files of m, and at a kernel command line.
func observer(t *testing.T, m *files, line string) Observer {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"md!pair", "mapper!box"} {
		link := filepath.Join(m.dir, strings.ReplaceAll(name, "!", "/"))
		if err := errors.Join(os.MkdirAll(filepath.Dir(link), 0o755), os.Symlink(filepath.Join(m.dir, name), link)); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"sys/class/block/md!pair/md/level": "raid1\n", "sys/class/block/md!pair/md/raid_disks": "2\n", "proc/cmdline": line} {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return Observer{Sys: dir + "/sys", Dev: m.dir, Proc: dir + "/proc"}
}

// What real programs have made has not drifted, and what somebody changes by hand afterwards has: each change is told, with the place of the
// config that asked for it.
func TestDrift(t *testing.T) {
	m, root := prepare(t, false)
	if _, err := do(t, m, root, wholeConfig); err != nil {
		t.Fatal(err)
	}
	ops, _, _ := plan.Split(planOf(t, wholeConfig))
	ops = append([]plan.Op{plan.Arguments{Exist: []string{"a=b"}, NotExist: []string{"gone"}}}, ops...)
	o := observer(t, m, "quiet ignition.kargs=1 a=b\n")
	if err := apply.Record(root, ops, nil, o.Look); err != nil {
		t.Fatal(err)
	}
	drift := func(o Observer) string {
		t.Helper()
		all, err := apply.Drift(root, nil, o.Look)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, d := range all {
			lines = append(lines, d.Subject+": "+strings.Join(d.Changes, "; "))
		}
		return strings.Join(lines, "\n")
	}
	if got := drift(o); got != "" {
		t.Errorf("by itself:\n%s", got)
	}
	if all, err := apply.Drift(root, nil, nil); err != nil || len(all) > 0 {
		t.Errorf("of a tree: %v, %v", all, err)
	}

	key, second := filepath.Join(t.TempDir(), "key"), filepath.Join(t.TempDir(), "second")
	b, err := root.ReadFile("etc/luks/box")
	if err := errors.Join(err, os.WriteFile(key, b, 0o600), os.WriteFile(second, []byte("another way in"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"cryptsetup", "luksAddKey", "--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", key, m.dir + "/vda3", second},
		{"mkfs.ext4", "-q", "-F", "-L", "other", m.dir + "/vda1"},
		{"sgdisk", "--change-name=1:renamed", "--delete=2", m.dir + "/vda"},
	} {
		if out, err := m.tools.Command(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", args[0], err, out)
		}
	}
	if err := errors.Join(os.Remove(m.dir+"/vdd"), os.Remove(m.dir+"/vdb2"), os.Remove(m.dir+"/mapper/box")); err != nil {
		t.Fatal(err)
	}
	got := strings.Split(drift(observer(t, m, "quiet gone\n")), "\n")
	for _, want := range []string{
		`kernel arguments: a=b: was set, is none; gone: was none, is set`,
		`partition 1 of /dev/vda: label: was data, is renamed`,
		`partition "pages" of /dev/vda: is gone`,
		`volume box: key slots: was 0, is 0, 1`,
		`file system on /dev/vdb2: is gone`,
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, strings.Join(got, "\n"))
		}
	}
	for _, want := range []string{"file system on /dev/vda1: UUID: was ", "; label: was data, is other", "array pair: member /dev/vdd: was "} {
		if !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("no %q in\n%s", want, strings.Join(got, "\n"))
		}
	}
	if len(got) != 7 {
		t.Errorf("got %d differences:\n%s", len(got), strings.Join(got, "\n"))
	}
}

// A header that is damaged, or hostile, is an error and not more memory than a header may have.
func TestWaysIn(t *testing.T) {
	for _, header := range []string{"", strings.Repeat("\x00", 4096), "LUKS\xba\xbe\x00\x02\xff\xff\xff\xff\xff\xff\xff\xff" + strings.Repeat("x", 9000), "LUKS\xba\xbe\x00\x02\x00\x00\x00\x00\x00\x00\x20\x00" + strings.Repeat("x", 9000)} {
		if _, _, err := waysIn(strings.NewReader(header)); err == nil {
			t.Errorf("%.20q: want an error", header)
		}
	}
}
