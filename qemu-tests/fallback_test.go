package qemutests

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
	"github.com/proa-os/proa/internal/uki"
	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/world"
	"github.com/proa-os/proa/update-engine/state"
)

// comesBackWithin is how long a release that fails may keep the machine, from its first try to the firmware of what runs afterwards: five
// minutes with the boot that follows, in the machine's time.
const comesBackWithin = 5*time.Minute - 30*time.Second

// TestFallback arms, under both firmwares and from the same image file, boot programs that are broken in every way: each is tried the
// times that it has left, unattended and at its own pace, and the machine comes back by itself on what it ran.
func TestFallback(t *testing.T) {
	s := begin(t, 14)
	good, hang := s.image("1.0.0", ""), s.image("1.0.2", "hang")
	s.underBoth(func(s *story, firmware vm.Firmware) {
		f := &fallback{story: s, firmware: firmware, tools: testenv.Machines(s.t), good: good, hang: hang, counted: map[string]string{}}
		f.run()
	})
}

// TestPowerCuts cuts the power of a good machine in moments of its boot: for the loaders nothing has happened. TestAnyToLatest does it
// at every write; here a real machine stops in the middle of what is not a write. The first of the moments is in every TestLine (UEFI) and
// TestAnyToLatest (BIOS).
func TestPowerCuts(t *testing.T) {
	atFullDepth(t)
	s := begin(t, 2)
	image := s.image("1.0.0", "")
	s.underBoth(func(s *story, firmware vm.Firmware) {
		f := &fallback{story: s, firmware: firmware, good: image}
		f.start(image.Disk(), provision.New())
		f.powerCuts()
	})
}

// fullOr is both firmwares at full depth, and else those that a story needs.
func fullOr(needed ...vm.Firmware) []vm.Firmware {
	if fullDepth() {
		return []vm.Firmware{vm.UEFI, vm.BIOS}
	}
	return needed
}

// underBoth tells a story once for each firmware.
func (s *story) underBoth(tell func(*story, vm.Firmware)) {
	s.underEach([]vm.Firmware{vm.UEFI, vm.BIOS}, tell)
}

// underEach tells a story once for each of some firmwares. They wait for turns of their own.
func (s *story) underEach(firmwares []vm.Firmware, tell func(*story, vm.Firmware)) {
	s.leave()
	for _, firmware := range firmwares {
		s.t.Run(string(firmware), func(t *testing.T) {
			t.Parallel()
			sub := *s
			sub.leave = turn(t, s.lasts)
			sub.t, sub.dir = t, filepath.Join(s.dir, string(firmware))
			check(t, os.MkdirAll(sub.dir, 0o755))
			tell(&sub, firmware)
		})
	}
}

// rest lets another story have this one's place while its machine only waits, and takes the next one that is free.
func (s *story) rest(wait func()) {
	s.leave()
	wait()
	s.leave = turn(s.t, time.Hour)
}

// fallback is one machine that goes through such a story.
type fallback struct {
	*story
	firmware   vm.Firmware
	tools      *tooltree.Tree
	good, hang world.Image
	m          *vm.Machine
	counted    map[string]string // names that were armed, by version
	word       string            // on the kernel's command line, whatever the release; "" for none
}

// start boots a disk image under the firmware; edit may change the rest of the hardware.
func (f *fallback) start(disk string, config *provision.Config, edit ...func(*vm.Config)) {
	f.m = f.machineFrom("machine", disk, config, append(edit, func(c *vm.Config) {
		c.Firmware = f.firmware
	})...)
}

// torn is the newest boot program of all, as the first half of a rename on FAT leaves it: empty. No loader may start it.
const torn = "proa_9.9.9+3.efi"

// A breakage is a boot program that fails in its way.
type breakage struct {
	name    string // also a word on its command line
	version string
	image   world.Image
	change  func(*uki.Contents)
	shows   string // on the console, in each try
	last    bool   // it has one try left, of the counted ones: what ends the others has been seen by then
	ended   bool   // by the deadline of its first try, which takes all of them
}

func (f *fallback) run() {
	t := f.t
	// The newest is tried first. None has the root hash of another, or the agent would take them for one release.
	empty := []breakage{
		{name: "panic", version: "9.0.3", image: f.good, shows: `Kernel panic - not syncing: VFS: Unable to mount root fs`,
			change: func(c *uki.Contents) { c.Initrd = []byte("no archive, so no /init") }},
		{name: "init-fails", version: "9.0.2", image: f.good, shows: `FAILED while loading modules`, last: !fullDepth(),
			change: func(c *uki.Contents) { c.Initrd = withoutModule(t, c.Initrd) }},
		{name: "missing-root", version: "9.0.1", image: f.good, shows: `still waiting: .*root-b: .*signature`, last: true,
			change: func(*uki.Contents) {}},
	}
	for i, b := range empty {
		empty[i].change = func(c *uki.Contents) {
			replaceRoot(t, c, f.good, digest.Of([]byte(b.name)).String())
			b.change(c)
		}
	}
	root := f.hang.Release.Root.RootHash.String()
	filled := []breakage{
		{name: "wrong-root-hash", version: "9.1.1", image: f.hang, shows: `still waiting: .*root-b: holds another root image`, last: true,
			change: func(c *uki.Contents) { replaceRoot(t, c, f.hang, root[:63]+otherDigit(root[63:])) }},
		{name: "hang", version: "9.1.0", image: f.hang, shows: `Started proa-try\.timer`, ended: true, change: func(*uki.Contents) {}},
	}
	if !fullDepth() {
		if f.firmware == vm.UEFI { // what loaders do differently is told under BIOS, and by TestLastGood; what /init does is told here
			empty, filled = empty[2:], filled[:1]
		} else {
			empty, filled = empty[:2], filled[1:]
		}
	}

	f.damage(f.good, func(d *world.Disk) error { return errors.Join(f.arm(d, empty), d.AddBootProgram(torn, nil)) })
	f.start(f.damaged(), provision.New())
	check(t, os.Remove(f.damaged()))
	early := append(vm.AllowPanic("the kernel has no /init on purpose"), vm.Allow(`VFS: `, "it looks for a root file system then"))
	others := []string{torn}
	if fullDepth() {
		step(t, f.m, "come back to A, with B empty", func(t *testing.T) { f.comeBack(t, f.tried(t, 0, empty), empty) }, early...)
	} else {
		f.tried(t, 0, empty) // the power is lost then: coming back is the same from both
	}

	f.off(t, func(d *world.Disk) {
		f.wantUsedUp(t, d, empty, others...)
		if fullDepth() { // the agent has seen them
			for _, name := range must(d.BootPrograms())(t) {
				if name != "proa_1.0.0.efi" {
					check(t, d.RemoveBootProgram(name))
				}
			}
			empty, others = nil, nil
		}
		check(t, d.FillSlot("root-b", filepath.Join(f.hang.Dir, "root.img")))
		check(t, f.arm(d, filled))
	})
	n := f.m.Boots()
	check(t, f.m.PowerOn())
	step(t, f.m, "come back to A, with another root image in B", func(t *testing.T) {
		f.comeBack(t, f.tried(t, n, filled), slices.Concat(empty, filled))
	}, early...)

	f.off(t, func(d *world.Disk) { f.wantUsedUp(t, d, slices.Concat(empty, filled), others...) })
}

// arm puts the broken boot programs on the ESP, under counted names.
func (f *fallback) arm(d *world.Disk, broken []breakage) error {
	for _, b := range broken {
		program, err := world.Rebuild(f.tools, b.image, b.version, func(c *uki.Contents) {
			c.Cmdline += " lab.broken=" + b.name
			b.change(c)
		})
		if err != nil {
			return err
		}
		name, err := slot.Arm(b.version)
		if err != nil {
			return err
		}
		if b.last {
			name = slot.Name{Version: b.version, Counted: true, Left: 1, Done: slot.Tries - 1}.String()
		}
		if err := d.AddBootProgram(name, program); err != nil {
			return err
		}
		f.counted[b.version] = name
	}
	return nil
}

// tried follows the console through the tries of every broken boot program, until the firmware of what comes next starts. It returns how many
// boots there were then.
func (f *fallback) tried(t *testing.T, before int, broken []breakage) int {
	t.Helper()
	boot := before
	for _, b := range broken {
		tries := slot.Tries
		if b.ended || b.last {
			tries = 1
		}
		back := make(chan error, 1)
		begin, next := time.Now(), boot+tries+1
		go func() { back <- f.m.WaitBootWithin(t.Context(), next, comesBackWithin) }()
		for try := range tries {
			boot++
			// The kernel shows its command line twice.
			l := must(f.m.WaitConsole(t.Context(), `lab\.broken=`))(t)
			if l.Boot != boot || !strings.Contains(l.Text, "lab.broken="+b.name+" ") {
				t.Fatalf("boot %d has %q, want try %d of %s in boot %d", l.Boot, l.Text, try+1, b.name, boot)
			}
			must(f.m.WaitConsole(t.Context(), b.shows))(t)
		}
		wait := func() {
			check(t, <-back)
			t.Logf("%s: the firmware of what comes next started after %.0f s on the clock", b.name, time.Since(begin).Seconds())
		}
		if b.ended {
			f.rest(wait)
		} else {
			wait()
		}
	}
	return boot
}

// comeBack waits for the good boot program after the tries, and looks at what is known of them.
func (f *fallback) comeBack(t *testing.T, tried int, broken []breakage) {
	t.Helper()
	boots(t, f.m, "1.0.0")
	if got := f.m.Boots(); got != tried+1 {
		t.Errorf("got %d boots, want the %d before and the one back", got, tried)
	}
	if got := run(t, f.m, "systemctl show -P ConditionResult proa-try.timer"); got != "no" {
		t.Errorf("got %q: a good boot program has the deadline of a try", got)
	}
	// The agent sees whose tries are used up, however the loader counts.
	for _, b := range broken {
		reason := regexp.QuoteMeta(state.LostReason)
		if b.ended {
			reason = "no verdict before the deadline of the try"
		}
		isQuarantined(t, f.m, b.version, reason)
	}
}

// A disk is what the loaders know.
type disk struct {
	files  []string
	counts slot.Counts
}

func (f *fallback) look(t *testing.T, d *world.Disk) disk {
	t.Helper()
	return disk{must(d.BootPrograms())(t), must(d.Counts())(t)}
}

// off cuts the power and looks at the disk.
func (f *fallback) off(t *testing.T, do func(*world.Disk)) {
	t.Helper()
	check(t, f.m.PowerCut())
	d := must(world.OpenDisk(f.m.Disk()))(t)
	defer d.Close()
	do(d)
}

// wantUsedUp checks that the loader has counted each boot program down, systemd-boot in its name and GRUB in its block, and that others are as
// they were.
func (f *fallback) wantUsedUp(t *testing.T, d *world.Disk, broken []breakage, others ...string) {
	t.Helper()
	want := disk{append(others, "proa_1.0.0.efi"), slot.Counts{}}
	for _, b := range broken {
		if b.ended { // the agent has given it another name, GRUB has counted the first one
			want.files = append(want.files, "proa_"+b.version+"+0-1.efi")
			if f.firmware == vm.BIOS {
				want.counts[f.counted[b.version]] = slot.Tries - 1
			}
			continue
		}
		if f.firmware == vm.UEFI {
			want.files = append(want.files, "proa_"+b.version+"+0-3.efi")
			continue
		}
		want.files = append(want.files, f.counted[b.version])
		want.counts[f.counted[b.version]] = 0
	}
	f.want(t, d, want)
}

func (f *fallback) want(t *testing.T, d *world.Disk, want disk) {
	t.Helper()
	slices.Sort(want.files)
	if got := f.look(t, d); !slices.Equal(got.files, want.files) || !maps.Equal(got.counts, want.counts) {
		t.Errorf("got %+v on the disk, want %+v", got, want)
	}
}

func (f *fallback) powerCuts() {
	t := f.t
	fresh := disk{[]string{"proa_1.0.0.efi"}, slot.Counts{}}
	moments := []string{inLoader(f.firmware), `Linux version`, `proa: init: mounting state`, `systemd\[1\]: Detected`, `Started.*ssh|Reached target.*multi-user`}
	step(t, f.m, "come up after power cuts", func(t *testing.T) {
		boots(t, f.m, "1.0.0")
		n := f.m.Boots()
		for _, moment := range moments {
			check(t, f.m.PowerCut())
			check(t, f.m.PowerOn())
			must(f.m.WaitConsole(t.Context(), moment))(t)
			f.off(t, func(d *world.Disk) { f.want(t, d, fresh) })
		}
		check(t, f.m.PowerOn())
		boots(t, f.m, "1.0.0")
		if got := f.m.Boots() - n; got != len(moments)+1 {
			t.Errorf("got %d boots, want %d that were cut and one", got, len(moments))
		}
	})
	f.off(t, func(d *world.Disk) { f.want(t, d, fresh) })
}

// inLoader is what the console shows when a loader has begun.
func inLoader(firmware vm.Firmware) string {
	if firmware == vm.BIOS {
		return `proa: grub: starting proa_[0-9.]+\.efi`
	}
	return `BdsDxe: starting Boot`
}

// cutInLoader turns a machine on and cuts its power in the loader: nothing has happened on the disk.
func cutInLoader(t *testing.T, m *vm.Machine, firmware vm.Firmware) {
	t.Helper()
	look := func() disk {
		d := must(world.OpenDisk(m.Disk()))(t)
		defer d.Close()
		return disk{must(d.BootPrograms())(t), must(d.Counts())(t)}
	}
	before := look()
	m.Console().SkipToEnd()
	check(t, m.PowerOn())
	must(m.WaitConsole(t.Context(), inLoader(firmware)))(t)
	check(t, m.PowerCut())
	if got := look(); !slices.Equal(got.files, before.files) || !maps.Equal(got.counts, before.counts) || len(got.files) == 0 {
		t.Errorf("got %+v on the disk after a power cut in the loader, want %+v", got, before)
	}
}

// withoutModule makes /init look for a module that is not in the initramfs.
func withoutModule(t *testing.T, initrd []byte) []byte {
	t.Helper()
	list := regexp.MustCompile(`\n/lib/modules/[^\n]+\.ko\n`).FindIndex(initrd)
	if list == nil {
		t.Fatal("the initramfs has no list of modules")
	}
	changed := slices.Clone(initrd)
	changed[list[1]-len("x.ko\n")] ^= 1
	return changed
}

func replaceRoot(t *testing.T, c *uki.Contents, image world.Image, root string) {
	t.Helper()
	old := image.Release.Root.RootHash.String()
	if strings.Count(c.Cmdline, old) != 1 {
		t.Fatalf("the command line %q does not have root hash %s once", c.Cmdline, old)
	}
	c.Cmdline = strings.Replace(c.Cmdline, old, root, 1)
}

func otherDigit(d string) string {
	if d == "0" {
		return "1"
	}
	return "0"
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// must returns a function that takes the test, as Go passes two results on only as whole argument lists.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		check(t, err)
		return v
	}
}
