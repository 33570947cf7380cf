package qemutests

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/qemu-tests/powercut"
	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/vm/blklog"
	"github.com/proa-os/proa/qemu-tests/world"
)

// TestProvisioningCut logs what a machine writes while it is provisioned, from the first write to state to the marker. From some moments of that, with
// what a disk would have of the writes since the last flush, machines start: each becomes all that the config asks for, and is not
// provisioned again.
func TestProvisioningCut(t *testing.T) {
	s := begin(t, 7)
	image := s.image("1.0.0", "")
	config, key := described(t)
	var logged vm.Config
	m := s.machineFrom("logged", image.Disk(), config, func(c *vm.Config) {
		c.Key, c.LogWrites = key, true
		logged = *c
	})
	must(m.WaitConsole(t.Context(), `Finished .*ignition\.service`))(t)
	check(t, m.PowerCut())
	log := must(m.OpenWriteLog())(t)
	defer log.Close()
	first := provisioningOf(t, log, m.Disk())
	for i, from := range first.moments(t, s, image) {
		t.Run(fmt.Sprintf("boot %d, %s", i, from.phase), func(t *testing.T) {
			t.Logf("power cut %v", from.moment)
			sub := *s
			sub.t = t
			config := logged
			config.Name, config.Disk, config.LogWrites = fmt.Sprintf("cut-%d", i), from.file, false
			if i%2 == 0 {
				config.Bus = vm.VirtioSCSI // which no other story boots from: to the machine it is the same disk
			}
			config.Dir = filepath.Join(s.dir, config.Name)
			m := sub.start(config)
			check(t, os.Remove(from.file))
			step(t, m, "completed", func(t *testing.T) {
				boots(t, m, image.Version())
				provisioned(t, m)
			})
			ran := run(t, m, "journalctl -b -q -o cat -u ignition.service") != ""
			switch from.phase {
			case "state", "files":
				if !ran {
					t.Error("it was not provisioned to the end, and the next boot did not go on")
				}
			case "done":
				if ran {
					t.Error("a machine with a durable marker was provisioned again")
				}
			}
			if from.phase == "marker" || fullDepth() { // TestDisks has more such boots
				staysFinished(t, m)
			}
		})
	}
}

// staysFinished cuts the power of a machine that is provisioned: its next boot is one of those that provision nothing.
func staysFinished(t *testing.T, m *vm.Machine) {
	t.Helper()
	check(t, m.PowerCut())
	m.Console().SkipToEnd()
	check(t, m.PowerOn())
	l := must(m.WaitConsole(t.Context(), "Queued start job for default target "))(t)
	if !strings.HasSuffix(strings.TrimSpace(l.Text), " multi-user.target.") {
		t.Fatalf("a finished machine starts something else than multi-user.target: %s", l.Text)
	}
}

// firstBoot is a log, and the entries at which its phases begin.
type firstBoot struct {
	log                        *vm.WriteLog
	state, files, marker, done int // the first write of state, to a file of the config, of the marker's name, and the flush that makes that last
}

// provisioningOf finds the phases in the log of a machine that has the disk in the end. Data and names are in clear in ext4 and its journal.
func provisioningOf(t *testing.T, log *vm.WriteLog, disk string) *firstBoot {
	t.Helper()
	f := must(os.Open(disk))(t)
	defer f.Close()
	table := must(gpt.Read(f, must(f.Stat())(t).Size(), 512))(t)
	state := must(table.Find("state"))(t)
	begin, end := table.Offset(state), table.Offset(state)+table.Size(state)
	b := &firstBoot{log: log, state: -1, files: -1, marker: -1, done: -1}
	flushes := 0
	for i, e := range log.Entries {
		if b.marker >= 0 && e.Flags&(blklog.Flush|blklog.FUA) != 0 {
			if flushes++; flushes == 2 { // the first is for what the journal says, the second for that it says so
				b.done = i
				break
			}
		}
		if e.Length == 0 || e.Flags&(blklog.Discard|blklog.Mark) != 0 || e.Offset < begin || e.Offset >= end {
			continue
		}
		var written content
		check(t, log.Apply(&written, e))
		switch {
		case b.state < 0:
			b.state = i
		case b.files < 0 && written.has("good morning\n"):
			b.files = i
		case b.files >= 0 && b.marker < 0 && written.has("\x0b\x01provisioned"): // length of the name, type, name: struct ext4_dir_entry_2
			b.marker = i
		}
	}
	t.Logf("of %d entries state begins at %d, files at %d, the marker at %d, durable at %d", len(log.Entries), b.state, b.files, b.marker, b.done)
	if b.state < 0 || b.files < 0 || b.marker < 0 || b.done < 0 {
		t.Fatal("the log does not have all of provisioning")
	}
	return b
}

// content is what one entry writes, as a disk of which nothing else is kept.
type content struct{ bytes []byte }

func (c *content) WriteAt(p []byte, _ int64) (int, error) {
	c.bytes = append(c.bytes, p...)
	return len(p), nil
}

func (c *content) Discard(_, _ int64) error { return nil }

func (c *content) has(text string) bool { return bytes.Contains(c.bytes, []byte(text)) }

// A provisioningCut is a disk that a loss of power has left.
type provisioningCut struct {
	phase  string
	file   string
	moment powercut.Moment
}

// moments keeps the disks of some moments: one each of the phases files and marker. At full depth it keeps thirteen each, and as many of state, and
// that of done.
func (b *firstBoot) moments(t *testing.T, s *story, image world.Image) []provisioningCut {
	t.Helper()
	each := 1
	if fullDepth() {
		each = 13
	}
	wanted := map[int]string{b.marker: "marker"}
	b.spread(wanted, "files", b.files, b.marker, each)
	if fullDepth() {
		b.spread(wanted, "state", b.state, b.files, each) // else TestDisks has such a moment
		wanted[b.done] = "done"
		b.spread(wanted, "marker", max(b.files, b.marker-3*each), b.done, each)
	}
	name := filepath.Join(s.dir, "replayed.img")
	check(t, b.log.DiskAfter(name, 0))
	disk := must(powercut.Open(name, image))(t)
	var cuts []provisioningCut
	o := powercut.Options{Seed: 1, Torn: 1, At: func(m powercut.Moment) error {
		phase := wanted[m.Entry]
		if phase == "" || m.Flush != (phase == "done") {
			return nil
		}
		delete(wanted, m.Entry)
		file := filepath.Join(s.dir, fmt.Sprintf("cut-%d.img", len(cuts)))
		cuts = append(cuts, provisioningCut{phase, file, m})
		return vm.CopySparse(file, disk.File().Name(), 0)
	}}
	until := *b.log.Log
	until.Entries = until.Entries[:b.done+1]
	tally, err := powercut.Walk(&until, disk, o)
	t.Logf("%d moments judged, %d of them torn; %d disks kept", tally.Writes+tally.Flushes+tally.Torn, tally.Torn, len(cuts))
	if err != nil || len(wanted) > 0 {
		t.Fatalf("%v: no disk for %v", err, wanted)
	}
	check(t, disk.Close())
	check(t, os.Remove(name))
	slices.SortFunc(cuts, func(a, b provisioningCut) int { return a.moment.Entry - b.moment.Entry })
	return cuts
}

// spread wants n writes between two entries.
func (b *firstBoot) spread(wanted map[int]string, phase string, from, to, n int) {
	var writes []int
	for i := from; i < to; i++ {
		if e := b.log.Entries[i]; e.Length > 0 && e.Flags&(blklog.Discard|blklog.Mark) == 0 && wanted[i] == "" {
			writes = append(writes, i)
		}
	}
	for k := range min(n, len(writes)) {
		wanted[writes[(2*k+1)*len(writes)/(2*min(n, len(writes)))]] = phase
	}
}
