package install_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/update-engine/install/installtest"
	"github.com/proa-os/proa/update-engine/payload"
	"github.com/proa-os/proa/update-engine/repotest"
)

// Power is lost in every step of an installation, and whatever became of what was under way then: what the loader starts is whole, it is
// the running release before the commit point and the new one after it; the installation is done again, loses at most what Unsynced
// allows, and succeeds. PROA_POWERCUT=full loses power in the second installation too, and in the third.
func TestPowerLostInEveryStep(t *testing.T) {
	old, now, next, newer := small(t, "1.0.0"), small(t, "1.0.1"), small(t, "1.0.2"), small(t, "1.0.3")
	loader := map[string]func() *machine{
		"uefi": func() *machine { return newMachine(now, old) },
		"bios": func() *machine { return newMachine(now, old).tried() },
	}
	body, src := delta(t, now, next)
	for _, c := range []struct {
		name string
		cuts cuts
		deep bool
	}{
		{"uefi delta", cuts{start: loader["uefi"], build: next, body: body, src: src}, false},
		{"bios full", cuts{start: loader["bios"], build: next, body: full(t, next)}, false},
		// What is armed is newer than what runs, and is given up for something newer still.
		{"uefi armed before", cuts{build: newer, body: full(t, newer), others: []*repotest.Build{next}, start: func() *machine {
			m := loader["uefi"]()
			if err := m.install(next, full(t, next)); err != nil {
				t.Fatal(err)
			}
			m.Disk = m.Clone()
			return m
		}}, false},
		{"uefi full", cuts{start: loader["uefi"], build: next, body: full(t, next)}, true},
		{"bios delta", cuts{start: loader["bios"], build: next, body: body, src: src}, true},
	} {
		if c.deep && !installtest.FullDepth() {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			c.cuts.t = t
			c.cuts.run()
		})
	}
}

// cuts loses power everywhere in one installation.
type cuts struct {
	t      *testing.T
	start  func() *machine
	build  *repotest.Build
	others []*repotest.Build // that may boot too, until they are emptied
	body   []byte
	src    payload.Sources

	seen         map[seen]bool
	cut, resumed int
}

// seen is a disk from which so many more cuts were tried.
type seen struct {
	disk  digest.SHA256
	depth int
}

func (c *cuts) run() {
	depth := 1
	if installtest.FullDepth() {
		depth = 2
	}
	c.seen = map[seen]bool{}
	c.from(c.start(), "", depth)
	c.t.Logf("%d power cuts, %d different disks, of which %d installations went on where they were", c.cut, len(c.seen), c.resumed)
	if c.resumed == 0 {
		c.t.Error("no installation was resumed")
	}
}

// from loses power in every step of an installation on a machine like start, which is called trail.
func (c *cuts) from(start *machine, trail string, depth int) {
	stride := 1
	if trail != "" {
		stride = 3 // of the steps of a second installation only some
	}
	for n := 1; ; n += stride {
		m := start.on(start.Clone())
		m.FailAt = n
		var err error
		cut := m.Cut(func() { err = c.install(m) })
		if cut == nil {
			if err != nil || n == 1 {
				c.t.Fatalf("%safter %d steps: %v", trail, n, err)
			}
			if got := m.boots(c.t, trail+"installed", c.build); got != c.build.Release.Version {
				c.t.Errorf("%sboots %s after the installation", trail, got)
			}
			return
		}
		for _, fate := range m.Fates() {
			c.cut++
			after := m.on(m.After(fate))
			disk := seen{after.Sum(), depth}
			if c.seen[disk] {
				continue
			}
			c.seen[disk] = true
			what := fmt.Sprintf("%s%s, %s: ", trail, cut, fate.Name)
			if c.check(m, after, cut, what) && depth > 1 {
				c.from(after, what, depth-1)
			}
		}
	}
}

// check looks at a machine after a power cut, and installs again. It reports whether there was something to install.
func (c *cuts) check(before, after *machine, cut *installtest.PowerCut, what string) bool {
	version := after.boots(c.t, what, append(c.others, c.build)...)
	switch {
	case version == c.build.Release.Version:
		if want := "rename " + slot.Temporary(version); !strings.HasPrefix(cut.What, want) {
			c.t.Errorf("%sthe new release boots before the commit point", what)
		}
		return false
	case version != after.running.Release.Version && !slices.ContainsFunc(c.others, func(b *repotest.Build) bool { return b.Release.Version == version }):
		c.t.Errorf("%sboots %s", what, version)
	}
	again := after.on(after.Clone())
	if err := c.install(again); err != nil {
		c.t.Errorf("%ssecond installation: %v", what, err)
		return false
	}
	if got := again.boots(c.t, what+"again", c.build); got != c.build.Release.Version {
		c.t.Errorf("%safter the second installation %s boots", what, got)
	}
	stood := c.made(again.report.Resumed.Kind, again.report.Resumed.Written)
	if stood > 0 {
		c.resumed++
	}
	reached := c.made(payload.RootImage, before.done)
	if past := before.done - c.build.Release.Root.HashOffset; past > 0 {
		reached = c.made(payload.BootProgram, past)
	}
	if lost := reached - stood; lost > segment {
		c.t.Errorf("%s%d bytes of segments were written, %d stand: %d are lost, at most %d may be", what, reached, stood, lost, segment)
	}
	return true
}

// made is how many bytes the segments have that are written whole when an output is written up to a byte, with those of the output before.
func (c *cuts) made(kind payload.Kind, upTo int64) (n int64) {
	m, err := payload.ReadManifest(bytes.NewReader(c.body))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, o := range m.Outputs {
		if o.Kind < kind {
			n += o.Made()
		} else if o.Kind == kind {
			for i, s := range o.Segments {
				if m.At(kind, i+1).Written > upTo {
					break
				}
				n += s.Length
			}
		}
	}
	return n
}

func (c *cuts) install(m *machine) error {
	return m.installFrom(c.build, c.body, c.src, func(offset int64) (io.Reader, error) { return bytes.NewReader(c.body[offset:]), nil })
}
