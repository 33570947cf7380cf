package powercut

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/proa-os/proa/image-builder/fat"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/grubenv"
	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/qemu-tests/vm"
)

// bootFolder is where both loaders look for boot programs.
const bootFolder = "EFI/Linux"

// A Pick is what a loader would start.
type Pick struct {
	File    string // in EFI/Linux
	Version string
	Slot    string // the partition with its root image
	Try     bool   // it is counted
}

// Picks are those of both loaders.
type Picks map[vm.Firmware]Pick

// Judge says what a machine would start from the disk as it is, or why it would not come up.
func (d *Disk) Judge() (Picks, error) {
	for _, s := range d.slots {
		if err := s.compare(); err != nil {
			return nil, err
		}
	}
	if d.changed {
		d.changed = false
		d.picks, d.why = d.pick()
	}
	if d.why != nil {
		return nil, d.why
	}
	picks := Picks{}
	for firmware, p := range d.picks {
		name, err := d.slotOf(d.release(func(k *known) bool { return k.Version() == p.Version }))
		if err != nil {
			return nil, fmt.Errorf("%s: %s boots release %s: %w", firmware, p.File, p.Version, err)
		}
		p.Slot = name
		picks[firmware] = p
	}
	return picks, nil
}

// Verify hashes the root image that a pick boots.
func (d *Disk) Verify(p Pick) error {
	i := slices.IndexFunc(d.slots, func(s *slotOnDisk) bool { return s.name == p.Slot })
	k := d.release(func(k *known) bool { return k.Version() == p.Version })
	if i < 0 || k == nil {
		return fmt.Errorf("verify release %s in %q: there is none", p.Version, p.Slot)
	}
	return d.slots[i].verify(k)
}

func (d *Disk) release(is func(*known) bool) *known {
	i := slices.IndexFunc(d.releases, is)
	if i < 0 {
		return nil
	}
	return d.releases[i]
}

// slotOf is the slot that /init finds for a release. All that look like it must be whole.
func (d *Disk) slotOf(k *known) (string, error) {
	found := ""
	for _, s := range d.slots {
		taken, err := s.taken(k)
		if err != nil {
			return "", err
		}
		if !taken {
			continue
		}
		if n := s.count[slices.Index(d.releases, k)]; n > 0 {
			return "", fmt.Errorf("%s is taken for its slot, and %d of its %d blocks differ", s.name, n, k.blocks)
		}
		if found == "" {
			found = s.name
		}
	}
	if found == "" {
		return "", errors.New("no slot holds its root image")
	}
	return found, nil
}

// pick does what firmware and loaders do before they start a boot program.
func (d *Disk) pick() (Picks, error) {
	if err := d.checkTable(); err != nil {
		return nil, err
	}
	loaders, err := d.loaderFiles()
	if err != nil {
		return nil, err
	}
	for name, want := range d.loaders {
		if got, ok := loaders[name]; !ok || got != want {
			return nil, fmt.Errorf("ESP: %s has sha256 %s, before %s", name, got, want)
		}
	}
	fs, err := fat.Open(d.ESP())
	if err != nil {
		return nil, err
	}
	names, err := bootPrograms(fs)
	if err != nil {
		return nil, err
	}
	next, _, ok := slot.Choose(names)
	if !ok {
		return nil, fmt.Errorf("uefi: nothing to boot among %q", names)
	}
	picks := Picks{}
	if picks[vm.UEFI], err = d.program(fs, next); err != nil {
		return nil, fmt.Errorf("uefi: %w", err)
	}
	if next, err = grubPick(fs, names); err != nil {
		return nil, fmt.Errorf("bios: %w", err)
	}
	if next == picks[vm.UEFI].File {
		picks[vm.BIOS] = picks[vm.UEFI]
		return picks, nil
	}
	if picks[vm.BIOS], err = d.program(fs, next); err != nil {
		return nil, fmt.Errorf("bios: %w", err)
	}
	return picks, nil
}

// bootPrograms are the files that the loaders look at. Empty ones they pass over: Linux renames on FAT by making an empty name, giving
// it the place and size of the content, and taking the old name away.
func bootPrograms(fs *fat.FS) ([]string, error) {
	entries, err := fs.ReadDir(bootFolder)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Size > 0 {
			names = append(names, e.Name)
		}
	}
	return names, nil
}

// grubPick is what GRUB starts: without a block in which it can count, it tries nothing.
func grubPick(fs *fat.FS, names []string) (string, error) {
	var counts slot.Counts
	block, err := fs.ReadFile(path.Join(bootFolder, grubenv.File))
	if err == nil {
		counts, err = grubenv.Parse(block)
	}
	if err != nil {
		names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return strings.Contains(n, "+") })
	}
	next, _, ok := slot.ChooseBIOS(names, counts)
	if !ok {
		return "", fmt.Errorf("nothing to boot among %q, counts %v, %w", names, counts, err)
	}
	return next, nil
}

// program finds out of which release a boot program is.
func (d *Disk) program(fs *fat.FS, file string) (Pick, error) {
	b, err := fs.ReadFile(path.Join(bootFolder, file))
	if err != nil {
		return Pick{}, err
	}
	sum := digest.Of(b)
	k := d.release(func(k *known) bool { return k.Release.Boot.SHA256 == sum })
	if k == nil {
		return Pick{}, fmt.Errorf("%s would be started and has %d bytes with sha256 %s: the boot program of no release", file, len(b), sum)
	}
	n, err := slot.Parse(file)
	if err != nil || n.Version != k.Version() {
		return Pick{}, fmt.Errorf("%s is the boot program of release %s", file, k.Version())
	}
	return Pick{File: file, Version: k.Version(), Try: n.Counted}, nil
}

// loaderFiles hashes what is on the ESP besides boot programs.
func (d *Disk) loaderFiles() (map[string]digest.SHA256, error) {
	fs, err := fat.Open(d.ESP())
	if err != nil {
		return nil, err
	}
	files := map[string]digest.SHA256{}
	return files, hashFiles(fs, "", files)
}

const maxFolders = 8 // in one another; a damaged folder may contain itself

func hashFiles(fs *fat.FS, dir string, files map[string]digest.SHA256) error {
	entries, err := fs.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name)
		switch {
		case strings.EqualFold(name, bootFolder):
			continue
		case e.Dir && strings.Count(name, "/") >= maxFolders:
			return fmt.Errorf("ESP: %s: more than %d folders in one another", name, maxFolders)
		case e.Dir:
			if err := hashFiles(fs, name, files); err != nil {
				return err
			}
		default:
			b, err := fs.ReadFile(name)
			if err != nil {
				return err
			}
			files[name] = digest.Of(b)
		}
	}
	return nil
}
