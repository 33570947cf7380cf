package install_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/grubenv"
	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/update-engine/install"
	"github.com/proa-os/proa/update-engine/install/installtest"
	"github.com/proa-os/proa/update-engine/match"
	"github.com/proa-os/proa/update-engine/payload"
	"github.com/proa-os/proa/update-engine/repotest"
)

// Segments are small in these tests, so that a small build has many.
const segment = 64 << 10

// small is a build with a root image of many segments, most of whose blocks are the same in every version.
func small(t testing.TB, version string) *repotest.Build {
	data := make([]byte, 384<<10)
	same, own := rand.New(rand.NewPCG(1, 2)), rand.New(rand.NewPCG(3, uint64(len(version))))
	for _, c := range version {
		own = rand.New(rand.NewPCG(own.Uint64(), uint64(c)))
	}
	for at := 0; at < len(data); at += 4096 {
		r := same
		if at/4096%8 == 3 || at < 128<<10 { // the beginning is new in every version, and a block here and there
			r = own
		}
		for i := at; i < at+4096; i += 8 {
			binary.LittleEndian.PutUint64(data[i:], r.Uint64())
		}
	}
	return repotest.FromRoot(t, version, data)
}

// full is the full payload of a build.
func full(t testing.TB, b *repotest.Build) []byte {
	t.Helper()
	var f bytes.Buffer
	root, boot := inputs(b)
	if _, err := payload.Create(t.Context(), &f, []payload.Input{root, boot}, payload.Options{Segment: segment}, nil); err != nil {
		t.Fatal(err)
	}
	return f.Bytes()
}

// delta is the payload that leads from one build to another, and what it reads.
func delta(t testing.TB, from, to *repotest.Build) ([]byte, payload.Sources) {
	t.Helper()
	d := payload.Delta{Source: from.Release.Root.RootHash}
	d.OldRoot, d.OldBoot = inputs(from)
	d.NewRoot, d.NewBoot = inputs(to)
	var f bytes.Buffer
	if _, err := payload.CreateDelta(t.Context(), &f, d, payload.Options{Segment: segment}, nil); err != nil {
		t.Fatal(err)
	}
	return f.Bytes(), payload.Sources{Root: d.OldRoot.R, RootSize: d.OldRoot.Size, Boot: d.OldBoot.R, BootSize: d.OldBoot.Size}
}

func inputs(b *repotest.Build) (root, boot payload.Input) {
	return payload.Input{Kind: payload.RootImage, R: bytes.NewReader(b.Root), Size: b.Release.Root.HashOffset},
		payload.Input{Kind: payload.BootProgram, R: bytes.NewReader(b.Boot), Size: int64(len(b.Boot))}
}

// A machine runs build `running` from its active slot; the other holds `older`.
type machine struct {
	*installtest.Disk
	running, older *repotest.Build
	grub           bool // the loader
	bios           bool // GRUB starts it
	report         install.Written
	done           int64 // bytes of the last progress while writing
}

func newMachine(running, older *repotest.Build) *machine {
	room := max(len(running.Root), len(older.Root)) + 1<<20
	m := &machine{Disk: installtest.New(append(bytes.Clone(older.Root), make([]byte, room-len(older.Root))...)), running: running, older: older}
	for _, b := range []*repotest.Build{running, older} {
		m.Put(b.Boot, slot.Name{Version: b.Release.Version}.String())
	}
	return m
}

// on is the same machine with another disk.
func (m *machine) on(d *installtest.Disk) *machine {
	return &machine{Disk: d, running: m.running, older: m.older, grub: m.grub, bios: m.bios}
}

func (m *machine) install(b *repotest.Build, body []byte) error {
	return m.installFrom(b, body, payload.Sources{}, func(offset int64) (io.Reader, error) { return bytes.NewReader(body[offset:]), nil })
}

func (m *machine) installFrom(b *repotest.Build, head []byte, src payload.Sources, body install.Body) error {
	manifest, err := payload.ReadManifest(bytes.NewReader(head))
	if err != nil {
		return err
	}
	m.done = 0
	i := &install.Installer{
		Running: m.running.Release.Root.RootHash, Slot: m.Slot, Boot: m.Disk, BIOS: m.bios, Unsynced: segment,
		Log: func(w install.Written) { m.report = w },
		Progress: func(s install.Stage, done, total int64) {
			if s == install.Write {
				m.done = done
			}
		},
	}
	return i.Install(context.Background(), b.Release, install.Payload{Manifest: manifest, Sources: src, Body: func(offset int64) (io.Reader, error) {
		if offset == 0 {
			offset = manifest.Start().Read
		}
		return body(offset)
	}})
}

// boots returns the version that the loader starts from what is durable, after checking that its boot program and its root image
// are whole.
func (m *machine) boots(t *testing.T, what string, builds ...*repotest.Build) string {
	t.Helper()
	names := m.Bootable()
	next, _, ok := slot.Choose(names)
	if !ok {
		t.Errorf("%s: nothing boots, the ESP holds %q", what, names)
		return ""
	}
	if m.grub {
		next = m.grubBoots(t, what, names)
	}
	program := m.Content(next)
	root, _, err := match.RootHash(bytes.NewReader(program))
	if err != nil {
		t.Errorf("%s: %s boots and is not whole: %v", what, next, err)
		return ""
	}
	for _, b := range append(builds, m.running, m.older) {
		if b.Release.Root.RootHash != root {
			continue
		}
		if !bytes.Equal(program, b.Boot) {
			t.Errorf("%s: %s boots and is damaged", what, next)
		}
		if b != m.running && !bytes.Equal(m.SlotContent()[:len(b.Root)], b.Root) {
			t.Errorf("%s: %s boots, but the slot does not hold its root image", what, next)
		}
		return b.Release.Version
	}
	t.Errorf("%s: %s boots an unknown root hash", what, next)
	return ""
}

// grubBoots is what GRUB starts: with a damaged block it counts nothing and so tries nothing.
func (m *machine) grubBoots(t *testing.T, what string, names []string) string {
	t.Helper()
	counts, err := grubenv.Parse(m.Content(grubenv.File))
	if err != nil {
		names = slices.DeleteFunc(names, func(n string) bool { return strings.Contains(n, "+") })
	}
	next, _, ok := slot.ChooseBIOS(names, counts)
	if !ok {
		t.Fatalf("%s: GRUB starts nothing, the ESP holds %q", what, names)
	}
	return next
}

// tried makes m a machine whose GRUB has used up the tries of an earlier release with the name that will be armed.
func (m *machine) tried() *machine {
	block := bytes.TrimRight(grubenv.Empty(), "#")
	block = append(block, "tries=proa_1.0.2+3.efi=0\n"...)
	block = append(block, bytes.Repeat([]byte("#"), grubenv.Size-len(block))...)
	m.Put(block, grubenv.File)
	m.grub, m.bios = true, true
	return m
}

func TestInstall(t *testing.T) {
	old, now, next := small(t, "1.0.0"), small(t, "1.0.1"), small(t, "1.0.2")
	m := newMachine(now, old)
	m.Put(old.Boot, "proa_1.0.0+0-3.efi")
	m.Put(nil, "proa_0.9.0~rc.1.part")
	m.Put(nil, "other.efi")
	if err := m.install(next, full(t, next)); err != nil {
		t.Fatal(err)
	}
	want := []string{"other.efi", "proa_1.0.1.efi", "proa_1.0.2+3.efi"}
	if got, _ := m.List(); !slices.Equal(got, want) {
		t.Errorf("ESP: got %q, want %q", got, want)
	}
	if got := m.boots(t, "installed", next); got != "1.0.2" {
		t.Errorf("boots %s", got)
	}
	if !bytes.Equal(m.SlotContent()[:len(next.Root)], next.Root) {
		t.Error("the slot is not byte for byte the root image with its tree")
	}
}

// GRUB's block is written only if there is something to forget, or if GRUB could not use it.
func TestForget(t *testing.T) {
	now, next := small(t, "1.0.1"), small(t, "1.0.2")
	body := full(t, next)
	for name, c := range map[string]struct {
		block []byte
		bios  bool
		write bool
	}{
		"none":      {nil, false, false},
		"none BIOS": {nil, true, true},
		"empty":     {grubenv.Empty(), true, false},
		"torn":      {[]byte("# GRUB Env"), true, true},
		"lost":      {[]byte{}, true, true},
		"half torn": {append(grubenv.Empty()[:512], make([]byte, 512)...), true, true}, // parses, and GRUB finds no room in it
	} {
		m := newMachine(now, now)
		m.bios = c.bios
		m.Drop("proa_1.0.0.efi")
		if c.block != nil {
			m.Put(c.block, grubenv.File)
		}
		if err := m.install(next, body); err != nil {
			t.Fatal(err)
		}
		after := m.Content(grubenv.File)
		if wrote := m.Changed(grubenv.File); wrote != c.write || after != nil && !bytes.Equal(after, grubenv.Empty()) {
			t.Errorf("%s: written: %v, want %v", name, wrote, c.write)
		}
	}
}

// FAT may keep both names of a rename in which power was lost, and both name the same bytes.
func TestBothNamesOfARename(t *testing.T) {
	old, now, next := small(t, "1.0.0"), small(t, "1.0.1"), small(t, "1.0.2")
	m := newMachine(now, old)
	m.Put(now.Boot, "proa_1.0.1.efi", "proa_1.0.1+2-1.efi", "proa_1.0.1.part") // when it became good, and when it was armed
	if err := m.install(next, full(t, next)); err != nil {
		t.Fatal(err)
	}
	// Removing one name would free the other's bytes, of the running boot program.
	want := []string{"proa_1.0.1+2-1.efi", "proa_1.0.1.efi", "proa_1.0.1.part", "proa_1.0.2+3.efi"}
	if got, _ := m.List(); !slices.Equal(got, want) {
		t.Errorf("ESP: got %q, want %q", got, want)
	}
}

func TestBadReleases(t *testing.T) {
	old, now := small(t, "1.0.0"), small(t, "1.0.1")
	for _, c := range []struct {
		name   string
		change func(*repotest.Build)
		want   string
	}{
		{"root hash", func(b *repotest.Build) {
			b.Release.Root.RootHash[3] ^= 1
			b.Boot = repotest.BootProgram(t, "1.0.3", b.Release.Root.RootHash, b.Release.Root.HashOffset)
			b.Release.Boot.SHA256, b.Release.Boot.Size = digest.Of(b.Boot), int64(len(b.Boot))
		}, "its root image has root hash"},
		{"boot program of another root image", func(b *repotest.Build) {
			b.Boot = repotest.BootProgram(t, "1.0.3", digest.Of(nil), b.Release.Root.HashOffset)
			b.Release.Boot.SHA256, b.Release.Boot.Size = digest.Of(b.Boot), int64(len(b.Boot))
		}, "boot program: its command line boots root hash"},
		{"boot program that is none", func(b *repotest.Build) {
			b.Boot = []byte("no program")
			b.Release.Boot.SHA256, b.Release.Boot.Size = digest.Of(b.Boot), int64(len(b.Boot))
		}, "boot program: open boot program"},
		{"boot program's hash", func(b *repotest.Build) { b.Release.Boot.SHA256[0] ^= 1 }, "the payload's boot program has"},
		{"hash offset", func(b *repotest.Build) { b.Release.Root.HashOffset -= 4096 }, "the payload's root image has"},
		{"size", func(b *repotest.Build) { b.Release.Root.Size += 4096 }, "root image with its tree has"},
		{"salt", func(b *repotest.Build) { b.Release.Root.Salt = "00" }, "salt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, bad := newMachine(now, old), small(t, "1.0.3")
			offset := bad.Release.Root.HashOffset
			c.change(bad)
			// The payload is made of what the desk has, whatever release.json says.
			honest := *bad.Release
			honest.Root.HashOffset = offset
			body := full(t, &repotest.Build{Release: &honest, Root: bad.Root, Boot: bad.Boot})
			err := m.install(bad, body)
			if verdict := (*install.BadRelease)(nil); !errors.As(err, &verdict) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a bad release with %q", err, c.want)
			}
			if got := m.boots(t, c.name, bad); got != "1.0.1" {
				t.Errorf("boots %s", got)
			}
		})
	}
}

// A byte of a blob is not what the manifest says: it is not written, and nothing is said about the release.
func TestTamperedPayload(t *testing.T) {
	old, now, next := small(t, "1.0.0"), small(t, "1.0.1"), small(t, "1.0.2")
	body := full(t, next)
	manifest, err := payload.ReadManifest(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	first := int(manifest.Start().Read)
	for _, at := range []int{first, (first + len(body)) / 2, len(body) - 1} {
		bad := bytes.Clone(body)
		bad[at] ^= 1
		m := newMachine(now, old)
		err := m.install(next, bad)
		if verdict := (*install.BadRelease)(nil); err == nil || errors.As(err, &verdict) {
			t.Errorf("byte %d: got %v, want an error that does not blame the release", at, err)
		}
		if got := m.boots(t, "tampered", next); got != "1.0.1" {
			t.Errorf("byte %d: boots %s", at, got)
		}
	}
	for _, n := range []int{first, (first + len(body)) / 2, len(body) - 1} {
		m := newMachine(now, old)
		if err := m.install(next, body[:n]); err == nil {
			t.Errorf("cut at %d: no error", n)
		}
		if got := m.boots(t, "cut", next); got != "1.0.1" {
			t.Errorf("cut at %d: boots %s", n, got)
		}
	}
}

// A disk that gives back other bytes than were written is found out, and the release is not blamed.
func TestFailingDisk(t *testing.T) {
	old, now, next := small(t, "1.0.0"), small(t, "1.0.1"), small(t, "1.0.2")
	for _, at := range []int{5000, len(next.Root) - 1} {
		m := newMachine(now, old)
		m.Rot = int64(at)
		err := m.install(next, full(t, next))
		if verdict := (*install.BadRelease)(nil); errors.As(err, &verdict) || err == nil || !strings.Contains(err.Error(), "may be failing") {
			t.Errorf("byte %d: got %v, want an error about the disk", at, err)
		}
		if got := m.boots(t, "failing disk", next); got != "1.0.1" {
			t.Errorf("boots %s", got)
		}
	}
}

func TestRefusedBeforeAnythingIsWritten(t *testing.T) {
	old, now, next := small(t, "1.0.0"), small(t, "1.0.1"), small(t, "1.0.2")
	for _, c := range []struct {
		name  string
		setup func(*machine)
		build *repotest.Build
		want  string
	}{
		{"the running release is a try", func(m *machine) {
			m.Drop("proa_1.0.1.efi")
			m.Put(now.Boot, "proa_1.0.1+2-1.efi")
		}, next, "has not proven itself"},
		{"no boot program for what runs", func(m *machine) { m.Drop("proa_1.0.1.efi") }, next, "no way back"},
		{"an older release", func(*machine) {}, old, "is not newer"},
		{"a slot that is too small", func(m *machine) { m.Slot.Shrink(1 << 18) }, next, "passive slot: has 262144 bytes"},
	} {
		m := newMachine(now, old)
		c.setup(m)
		before := must(m.List())
		if err := m.install(c.build, full(t, c.build)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
		if after := must(m.List()); !slices.Equal(before, after) || m.Slot.Writes > 0 {
			t.Errorf("%s: something was written: %q, before %q, %d writes to the slot", c.name, after, before, m.Slot.Writes)
		}
	}
}

func must(names []string, _ error) []string { return names }

// The same on real files.
func TestRealFiles(t *testing.T) {
	now, next := small(t, "1.0.1"), small(t, "1.0.2")
	dir, part := t.TempDir(), filepath.Join(t.TempDir(), "root-b")
	if err := os.WriteFile(filepath.Join(dir, "proa_1.0.1.efi"), now.Boot, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(part, make([]byte, len(next.Root)+1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	folder, err := install.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	if free, err := folder.Free(); err != nil || free <= 0 {
		t.Errorf("free: %d, %v", free, err)
	}
	device, err := install.OpenDevice(part)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	var done, total int64
	i := &install.Installer{Running: now.Release.Root.RootHash, Slot: device, Boot: folder, Progress: func(s install.Stage, d, n int64) {
		if s == install.Write {
			done, total = d, n
		}
	}}
	body := bytes.NewReader(full(t, next))
	m, err := payload.ReadManifest(body)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Install(t.Context(), next.Release, install.Payload{Manifest: m, Body: func(int64) (io.Reader, error) { return body, nil }}); err != nil {
		t.Fatal(err)
	}
	if done != total || total != next.Release.Root.HashOffset+next.Release.Boot.Size {
		t.Errorf("progress: %d of %d", done, total)
	}
	boot, err := os.ReadFile(filepath.Join(dir, "proa_1.0.2+3.efi"))
	if err != nil || !bytes.Equal(boot, next.Boot) {
		t.Errorf("boot program: %d bytes, %v", len(boot), err)
	}
	root, err := os.ReadFile(part)
	if err != nil || !bytes.Equal(root[:len(next.Root)], next.Root) {
		t.Errorf("slot: %d bytes, %v", len(root), err)
	}
	programs, err := install.Programs(folder)
	if err != nil || len(programs) != 2 {
		t.Errorf("programs: %+v, %v", programs, err)
	}
}
