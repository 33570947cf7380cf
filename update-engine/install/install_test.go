package install_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/grubenv"
	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/update-engine/install"
	"github.com/proa-os/proa/update-engine/match"
	"github.com/proa-os/proa/update-engine/payload"
	"github.com/proa-os/proa/update-engine/repotest"
)

// small builds keep the enumeration quick: two segments of root image each.
func small(t testing.TB, version string) *repotest.Build {
	return repotest.FromRoot(t, version, bytes.Repeat([]byte("root image "+version+" "), (4<<20+64<<10)/16+100)[:4<<20+64<<10])
}

// full is the full payload of a build.
func full(t testing.TB, b *repotest.Build) []byte {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "full.payload"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = payload.Create(t.Context(), f, []payload.Input{
		{Kind: payload.RootImage, R: bytes.NewReader(b.Root), Size: b.Release.Root.HashOffset},
		{Kind: payload.BootProgram, R: bytes.NewReader(b.Boot), Size: int64(len(b.Boot))},
	}, payload.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// A machine runs build `running` from its active slot; the other holds `older`.
type machine struct {
	*disk
	running, older *repotest.Build
	grub           bool // the loader
	bios           bool // GRUB starts it
}

const slotSize = 5 << 20

func newMachine(running, older *repotest.Build) *machine {
	d := &disk{files: map[string]*file{}}
	d.slot = &file{d: d, durable: append(bytes.Clone(older.Root), make([]byte, slotSize-len(older.Root))...)}
	d.slot.seen = bytes.Clone(d.slot.durable)
	for _, b := range []*repotest.Build{running, older} {
		d.files[slot.Name{Version: b.Release.Version}.String()] = &file{d: d, durable: b.Boot, seen: b.Boot}
	}
	return &machine{disk: d, running: running, older: older}
}

func (m *machine) install(b *repotest.Build, body []byte) error {
	r := digest.NewReader("payload", bytes.NewReader(body), int64(len(body)), digest.Of(body))
	return m.installFrom(b, r)
}

func (m *machine) installFrom(b *repotest.Build, r io.Reader) error {
	manifest, err := payload.ReadManifest(r)
	if err != nil {
		return err
	}
	i := &install.Installer{Running: m.running.Release.Root.RootHash, Slot: m.slot, Boot: m.disk, BIOS: m.bios}
	return i.Install(context.Background(), b.Release, manifest, r)
}

// boots returns the version that the loader starts from what is durable, after checking that its boot program and its root image
// are whole.
func (m *machine) boots(t *testing.T, what string, builds ...*repotest.Build) string {
	t.Helper()
	var names []string
	for n := range m.files {
		names = append(names, n)
	}
	next, _, ok := slot.Choose(names)
	if !ok {
		t.Errorf("%s: nothing boots, the ESP holds %q", what, names)
		return ""
	}
	if m.grub {
		next = m.grubBoots(t, what, names)
	}
	program := m.files[next].durable
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
		if b != m.running && !bytes.Equal(m.slot.durable[:len(b.Root)], b.Root) {
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
	counts, err := grubenv.Parse(m.files[grubenv.File].durable)
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
	m.files[grubenv.File] = &file{d: m.disk, durable: block, seen: block}
	m.grub = true
	return m
}

func TestInstall(t *testing.T) {
	old, now, next := small(t, "1.0.0"), small(t, "1.0.1"), small(t, "1.0.2")
	m := newMachine(now, old)
	m.files["proa_1.0.0+0-3.efi"] = m.files["proa_1.0.0.efi"]
	m.files["proa_0.9.0~rc.1.part"] = &file{d: m.disk}
	m.files["other.efi"] = &file{d: m.disk}
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
	if !bytes.Equal(m.slot.durable[:len(next.Root)], next.Root) {
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
		delete(m.files, "proa_1.0.0.efi")
		if c.block != nil {
			m.files[grubenv.File] = &file{d: m.disk, durable: c.block, seen: c.block}
		}
		before := m.files[grubenv.File]
		if err := m.install(next, body); err != nil {
			t.Fatal(err)
		}
		after := m.files[grubenv.File]
		if (after != before) != c.write || after != nil && !bytes.Equal(after.durable, grubenv.Empty()) {
			t.Errorf("%s: written: %v, want %v", name, after != before, c.write)
		}
	}
}

// FAT may keep both names of a rename in which power was lost, and both name the same bytes.
func TestBothNamesOfARename(t *testing.T) {
	old, now, next := small(t, "1.0.0"), small(t, "1.0.1"), small(t, "1.0.2")
	m := newMachine(now, old)
	m.files["proa_1.0.1+2-1.efi"] = m.files["proa_1.0.1.efi"] // when it became good
	m.files["proa_1.0.1.part"] = m.files["proa_1.0.1.efi"]    // when it was armed
	if err := m.install(next, full(t, next)); err != nil {
		t.Fatal(err)
	}
	// Removing one name would free the other's bytes, of the running boot program.
	want := []string{"proa_1.0.1+2-1.efi", "proa_1.0.1.efi", "proa_1.0.1.part", "proa_1.0.2+3.efi"}
	if got, _ := m.List(); !slices.Equal(got, want) {
		t.Errorf("ESP: got %q, want %q", got, want)
	}
}

// Power is lost in every durable step and in between, with unsynced writes kept, lost or torn: what the loader then starts is
// always whole, it is the running release before the commit point and the new one after.
func TestPowerLostAfterEveryWrite(t *testing.T) {
	t.Run("uefi", func(t *testing.T) { powerLostAfterEveryWrite(t, newMachine) })
	t.Run("bios", func(t *testing.T) {
		powerLostAfterEveryWrite(t, func(running, older *repotest.Build) *machine { return newMachine(running, older).tried() })
	})
}

func powerLostAfterEveryWrite(t *testing.T, newMachine func(running, older *repotest.Build) *machine) {
	old, now, next := small(t, "1.0.0"), small(t, "1.0.1"), small(t, "1.0.2")
	body := full(t, next)
	probe := newMachine(now, old)
	if err := probe.install(next, body); err != nil {
		t.Fatal(err)
	}
	steps := probe.steps
	if steps < 10 {
		t.Fatalf("only %d steps", steps)
	}
	versions := map[string]int{}
	for n := 1; n <= steps+1; n++ {
		for _, fate := range []fate{lost, torn, kept} {
			m := newMachine(now, old)
			m.failAt, m.fate = n, fate
			err := m.install(next, body)
			if (err == nil) != (n > steps) {
				t.Errorf("step %d: got error %v", n, err)
			}
			m.powerOff()
			what := fmt.Sprintf("power lost in step %d of %d (%s), unsynced writes %s", n, steps, m.last, fate)
			v := m.boots(t, what, next)
			versions[v]++
			if v != "1.0.2" && v != "1.0.1" {
				t.Errorf("%s: boots %s", what, v)
			}
			if n > steps && v != "1.0.2" {
				t.Errorf("%s: boots %s after the installation", what, v)
			}
			// The next installation works on whatever is left.
			m.failAt, m.steps = 0, 0
			if v == "1.0.1" {
				if err := m.install(next, body); err != nil {
					t.Errorf("%s: second installation: %v", what, err)
				}
				if got := m.boots(t, what+", again", next); got != "1.0.2" {
					t.Errorf("%s: after the second installation %s boots", what, got)
				}
			}
		}
	}
	if versions["1.0.1"] < 3*(steps-1) {
		t.Errorf("the new release boots too early: %v", versions)
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
			// The same, but the payload's own hash does not fit: then nothing is said about the release.
			err = m.installFrom(bad, digest.NewReader("payload", bytes.NewReader(body), int64(len(body)), digest.Of(nil)))
			if verdict := (*install.BadRelease)(nil); err == nil || errors.As(err, &verdict) {
				t.Errorf("tampered payload: got %v, want an error that does not blame the release", err)
			}
		})
	}
}

func TestTamperedPayload(t *testing.T) {
	old, now, next := small(t, "1.0.0"), small(t, "1.0.1"), small(t, "1.0.2")
	body := full(t, next)
	for _, at := range []int{20, 100, len(body) / 2, len(body) - 1} {
		bad := bytes.Clone(body)
		bad[at] ^= 1
		m := newMachine(now, old)
		err := m.installFrom(next, digest.NewReader("payload", bytes.NewReader(bad), int64(len(body)), digest.Of(body)))
		if err == nil {
			t.Errorf("byte %d: no error", at)
		}
		if got := m.boots(t, "tampered", next); got != "1.0.1" {
			t.Errorf("byte %d: boots %s", at, got)
		}
	}
	for _, n := range []int{0, 70, len(body) / 2, len(body) - 1} {
		m := newMachine(now, old)
		if err := m.installFrom(next, digest.NewReader("payload", bytes.NewReader(body[:n]), int64(len(body)), digest.Of(body))); err == nil {
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
		m.rot = at
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
			m.files["proa_1.0.1+2-1.efi"] = m.files["proa_1.0.1.efi"]
			delete(m.files, "proa_1.0.1.efi")
		}, next, "has not proven itself"},
		{"no boot program for what runs", func(m *machine) { delete(m.files, "proa_1.0.1.efi") }, next, "no way back"},
		{"an older release", func(*machine) {}, old, "is not newer"},
		{"a slot that is too small", func(m *machine) { m.slot.seen = m.slot.seen[:1<<20] }, next, "passive slot: has 1048576 bytes"},
	} {
		m := newMachine(now, old)
		c.setup(m)
		before := maps(m)
		if err := m.install(c.build, full(t, c.build)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
		if after := maps(m); !slices.Equal(before, after) || m.slot.writes > 0 {
			t.Errorf("%s: something was written: %q, before %q, %d writes to the slot", c.name, after, before, m.slot.writes)
		}
	}
}

func maps(m *machine) []string { l, _ := m.List(); return l }

// The same on real files.
func TestRealFiles(t *testing.T) {
	now, next := small(t, "1.0.1"), small(t, "1.0.2")
	dir, part := t.TempDir(), filepath.Join(t.TempDir(), "root-b")
	if err := os.WriteFile(filepath.Join(dir, "proa_1.0.1.efi"), now.Boot, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(part, make([]byte, slotSize), 0o644); err != nil {
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
	i := &install.Installer{Running: now.Release.Root.RootHash, Slot: device, Boot: folder, Progress: func(d, n int64) { done, total = d, n }}
	body := bytes.NewReader(full(t, next))
	m, err := payload.ReadManifest(body)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Install(t.Context(), next.Release, m, body); err != nil {
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
