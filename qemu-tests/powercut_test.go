package qemutests

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/qemu-tests/powercut"
	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/world"
)

// How much of the log of a machine's writes is looked at. `make powercut` sets PROA_POWERCUT=full.
type depth struct {
	orders int // in which the writes between two flushes become durable, the log's among them
	torn   int // places in which a write is torn that may decide what boots
	boots  int // moments from which a machine is started, under each firmware
}

func fullDepth() bool { return os.Getenv("PROA_POWERCUT") == "full" }

// atFullDepth skips a story that takes a machine of its own and that others tell in part.
func atFullDepth(t *testing.T) {
	t.Helper()
	if !fullDepth() {
		t.Skip("NOT TESTED: a machine of its own: PROA_POWERCUT=full (make powercut)")
	}
}

func powerCutDepth() depth {
	if fullDepth() {
		return depth{orders: 9, torn: 15, boots: 12}
	}
	return depth{orders: 2, torn: 3, boots: 1}
}

// TestAnyToLatest keeps an image of each release made so far, as it was installed then, with the trust anchor of then, and has each update
// itself straight to the newest release, over two rotations of all keys. Everything is logged that is written from the first boot until
// the newest release is good. Then the power is lost at every write and in the middle of it: whatever the loaders would start is whole.
// From some of these moments machines do start, under both firmwares.
func TestAnyToLatest(t *testing.T) {
	s := begin(t, 6)
	oldest, older, latest := s.then("0.9.0", firstOfAll), s.image("1.0.1", ""), s.image("1.0.4", "")
	desk := must(world.NewDesk(t.Context(), s.programs, s.dir))(t)
	anchor := string(must(desk.Root())(t))
	for _, image := range []world.Image{older, latest} {
		publish(t, desk, image)
		check(t, desk.Rotate(t.Context()))
	}
	s.underBoth(func(s *story, firmware vm.Firmware) {
		web := s.web(desk.Repository)
		config := provision.New().
			File("/etc/proa/update/root.json", 0o644, anchor).
			File("/etc/proa/update/config.json", 0o644, fmt.Sprintf(`{"server":%q,"channel":"stable","auto":false,"health_deadline_seconds":600,"reboot":{"mode":"full"}}`, web.GuestURL()))
		f := &fallback{story: s, firmware: firmware, good: map[vm.Firmware]world.Image{vm.UEFI: oldest, vm.BIOS: older}[firmware]}
		if firmware == vm.BIOS { // TestLine has it under UEFI: the first release of all could not
			f.word = kept + " "
			config.KernelArguments(kept) // which the first boot puts where the loader finds it, for every release
		}
		var logged vm.Config
		f.start(f.good.Disk(), config, func(c *vm.Config) {
			c.LogWrites = true
			logged = *c
		})
		f.update(f.good.Version(), latest.Version())
		for _, root := range []string{"/2.root.json", "/3.root.json"} {
			if !slices.ContainsFunc(web.Requests(), func(r string) bool { return strings.HasSuffix(r, root) }) {
				s.t.Errorf("got requests %q, want the machine to walk over %s", web.Requests(), root)
			}
		}
		if f.good.Version() == older.Version() { // the repository has it, so there is a delta from it
			tookDelta(s.t, desk, web, older.Version(), latest)
		}
		log := must(f.m.OpenWriteLog())(s.t)
		defer log.Close()
		c := &cuts{story: s, log: log, firmware: firmware, releases: []world.Image{f.good, latest}, depth: powerCutDepth(), config: logged}
		c.run(f.m.Disk())
		if firmware == vm.BIOS { // whose slots are chosen by the loader and by a count of the agent's own
			cutInLoader(s.t, f.m, firmware)
			check(s.t, f.m.PowerOn())
			f.steer(latest.Version(), f.good.Version())
		}
	})
}

// firstOfAll is the commit of the oldest release from which machines can update: its agent reads payloads of version 2 only.
const firstOfAll = "8aaeee720cb98c7b6e6e0001ae78402a0b92a249"

// then is a release as it was made at a commit, or without this repository's history today's under that version.
func (s *story) then(version, commit string) world.Image {
	s.t.Helper()
	image, err := s.programs.BuildThen(s.t.Context(), os.Stderr, filepath.Join(s.out, version+"-then"), version, commit)
	if errors.Is(err, world.ErrNoHistory) {
		s.t.Logf("release %s is today's: %v", version, err)
		return s.image(version, "")
	}
	check(s.t, err)
	return image
}

// update has the machine become good with a release, and cuts its power then.
func (f *fallback) update(from, version string) {
	t := f.t
	step(t, f.m, "update", func(t *testing.T) {
		boots(t, f.m, from)
		n := f.m.Boots()
		applyUpdate(t, f.m)
		if f.firmware == vm.BIOS {
			must(f.m.WaitConsole(t.Context(), regexp.QuoteMeta("trying proa_"+version+"+3.efi, tries left behind this one: 2")))(t)
		}
		becomesGood(t, f.m, version)
		if got := run(t, f.m, "cat /proc/cmdline"); !strings.Contains(" "+got+" ", " "+f.word) {
			t.Errorf("got kernel arguments %q, want %q among them", got, f.word)
		}
		if got := f.m.Boots() - n; got != 1 {
			t.Errorf("got %d boots for an update, want 1", got)
		}
		if got := run(t, f.m, "systemctl show -P ConditionResult proa-try.timer"); got != "yes" {
			t.Errorf("got %q: a try has no deadline", got)
		}
	})
	want := disk{[]string{"proa_" + from + ".efi", "proa_" + version + ".efi"}, slot.Counts{}}
	if f.firmware == vm.BIOS {
		want.counts["proa_"+version+"+3.efi"] = 2
	}
	f.off(t, func(d *world.Disk) { f.want(t, d, want) })
}

// tookDelta checks that a machine took the delta from the release before, and nothing of the full payload, and prints what it saved.
func tookDelta(t *testing.T, desk *world.Desk, web *world.Web, from string, to world.Image) {
	t.Helper()
	asked := slices.DeleteFunc(web.Requests(), func(r string) bool { return !strings.Contains(r, ".payload") })
	if len(asked) == 0 || slices.ContainsFunc(asked, func(r string) bool { return !strings.Contains(r, "from-"+from+".payload") }) {
		t.Errorf("got requests %q, want the delta from %s alone", asked, from)
	}
	size := map[string]int64{}
	for _, name := range []string{"from-" + from, "full"} {
		found, err := filepath.Glob(filepath.Join(desk.Repository, "targets/releases", to.Version(), "*/*"+name+".payload"))
		if err != nil || len(found) != 1 {
			t.Fatalf("got %q, %v, want one %s.payload of %s", found, err, name, to.Version())
		}
		size[name] = must(os.Stat(found[0]))(t).Size()
	}
	delta, full, raw := size["from-"+from], size["full"], to.Release.Root.HashOffset+to.Release.Boot.Size
	t.Logf("the delta has %d bytes, %.2f %% of the full payload, which has %.1f %% of the raw %d", delta, 100*float64(delta)/float64(full), 100*float64(full)/float64(raw), raw)
	if delta*20 > full {
		t.Errorf("the delta has %d bytes of %d: nothing but a version has changed", delta, full)
	}
}

// cuts goes through a log.
type cuts struct {
	*story
	log      *vm.WriteLog
	firmware vm.Firmware // of the machine that wrote it
	releases []world.Image
	depth    depth
	config   vm.Config    // of the machine that wrote it: one that was provisioned knows its key
	wanted   map[int]bool // entries, at which machines are started
	states   int          // moments in which the state partition was judged
	flushes  int          // moments after flushes so far
	copies   []copied
}

// copied is a copy of the disk in some moment.
type copied struct {
	file   string
	moment powercut.Moment
}

func (c *cuts) run(final string) {
	t := c.t
	t.Logf("the log has %d entries, %d flushes", len(c.log.Entries), len(c.log.Flushes()))
	for seed := range c.depth.orders {
		name := filepath.Join(c.dir, fmt.Sprintf("order-%d.img", seed))
		check(t, c.log.DiskAfter(name, 0))
		d := must(powercut.Open(name, c.releases...))(t)
		o := powercut.Options{Seed: uint64(seed), Torn: c.depth.torn}
		if seed == 0 {
			c.wanted = c.choose(d)
			o.At = func(m powercut.Moment) error { return c.look(d, m) }
		}
		tally, err := powercut.Walk(c.log.Log, d, o)
		t.Logf("order %d: power cuts at %d flushes, after %d writes, in %d: %d leave nothing that boots, else %v would start (under two firmwares), %d of them a try",
			seed, tally.Flushes, tally.Writes, tally.Torn, tally.Failed, tally.Versions, tally.Tries)
		if err != nil {
			t.Error(err)
		}
		for _, r := range c.releases {
			if tally.Versions[r.Version()] == 0 {
				t.Errorf("%s would be started in no moment: nothing was judged", r.Version())
			}
		}
		if at, err := firstDifference(final, name); err != nil || at >= 0 {
			t.Errorf("%v: all writes replayed differ from the disk from byte %d on", err, at)
		}
		check(t, errors.Join(d.Close(), os.Remove(name)))
	}
	if c.states < 4 || len(c.copies) != c.depth.boots {
		t.Errorf("the state partition was judged in %d moments and %d were kept to boot from, want some and %d", c.states, len(c.copies), c.depth.boots)
	}
	for i, copied := range c.copies {
		c.comesUp(i, copied)
	}
}

// choose spreads over the writes to the ESP: one half over all of them, most of which are a boot program, one over the small ones, which are
// of names and of what is free.
func (c *cuts) choose(d *powercut.Disk) map[int]bool {
	var all, small []int
	for i, e := range c.log.Entries {
		if e.Length == 0 || !d.OnESP(e.Offset, e.Length) {
			continue
		}
		all = append(all, i)
		if e.Length <= 4096 {
			small = append(small, i)
		}
	}
	wanted := map[int]bool{}
	for k := 0; len(wanted) < c.depth.boots && k < 2*c.depth.boots; k++ {
		from := [][]int{small, all}[k%2]
		wanted[from[(2*k+1)*len(from)/(4*c.depth.boots)]] = true
	}
	return wanted
}

// look has foreign programs judge some moments, and copies the disk of others.
func (c *cuts) look(d *powercut.Disk, m powercut.Moment) error {
	if c.wanted[m.Entry] && !m.Flush {
		delete(c.wanted, m.Entry)
		name := filepath.Join(c.dir, fmt.Sprintf("moment-%d.img", len(c.copies)))
		c.copies = append(c.copies, copied{name, m})
		if err := vm.CopySparse(name, d.File().Name(), 0); err != nil {
			return err
		}
	}
	if !m.Flush {
		return nil
	}
	c.flushes++
	if c.flushes%max(1, len(c.log.Flushes())/12) > 0 {
		return nil
	}
	if fsckState(c.t, d.File()) {
		c.states++
	}
	for _, p := range m.Picks {
		if err := d.Verify(p); err != nil {
			return err
		}
	}
	return c.readByMtools(d, m)
}

// readByMtools has a foreign program read the boot programs that would be started.
func (c *cuts) readByMtools(d *powercut.Disk, m powercut.Moment) error {
	esp := filepath.Join(c.dir, "esp.img")
	table := must(gpt.Read(d.File(), must(d.File().Stat())(c.t).Size(), 512))(c.t)
	p := must(table.Find("esp"))(c.t)
	if err := copyRange(esp, d.File(), table.Offset(p), table.Size(p)); err != nil {
		return err
	}
	defer os.Remove(esp)
	for _, p := range m.Picks {
		got, err := testenv.Tools(c.t).Command(c.t.Context(), "mtype", "-i", esp, "::/EFI/Linux/"+p.File).Output()
		if err != nil {
			return fmt.Errorf("mtype of %s %v: %w", p.File, m, err)
		}
		i := slices.IndexFunc(c.releases, func(r world.Image) bool { return r.Version() == p.Version })
		if sum := digest.Of(got); sum != c.releases[i].Release.Boot.SHA256 {
			return fmt.Errorf("%v mtools reads %d bytes with sha256 %s from %s", m, len(got), sum, p.File)
		}
	}
	return nil
}

// comesUp starts a machine from the disk of a moment: it runs what the model says, and a try becomes good.
func (c *cuts) comesUp(i int, from copied) {
	firmwares := []vm.Firmware{c.firmware}
	if fullDepth() {
		firmwares = []vm.Firmware{vm.UEFI, vm.BIOS}
	}
	for _, firmware := range firmwares {
		c.t.Run(fmt.Sprintf("boot %d %s", i, firmware), func(t *testing.T) {
			sub := *c.story
			sub.t = t
			pick := from.moment.Picks[firmware]
			t.Logf("power cut %v: %s starts %s in %s", from.moment, firmware, pick.File, pick.Slot)
			config := c.config
			config.Name, config.Disk, config.Firmware, config.LogWrites = fmt.Sprintf("cut-%d-%s", i, firmware), from.file, firmware, false
			config.Dir = filepath.Join(c.dir, config.Name)
			m := sub.start(config)
			boots(t, m, pick.Version)
			becomesGood(t, m, pick.Version)
			if m.Boots() != 1 {
				t.Errorf("got %d boots, want 1", m.Boots())
			}
		})
	}
	check(c.t, os.Remove(from.file))
}
