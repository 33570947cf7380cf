// Package install writes a release into the passive slot and arms it.
//
// It is the part of the update agent between the verified stream of a payload and the reboot. The order of the durable
// writes is the whole point; each is harmless if it is the last one that happened:
//
//  1. the passive slot is emptied: its boot program is renamed to what the loader does not see and removed from the ESP, so nothing
//     boots what is now overwritten, and GRUB's count of it is forgotten
//  2. the root image is written, synced, read back from the disk, its verity tree built, the root hash compared with the
//     signed one; only then the tree is written, synced and read back
//  3. the boot program is written under a name that the loader does not see, synced, read back, its hash compared
//     with the signed one, and its command line's root hash and hash offset with the release
//  4. it is renamed to its counted name: the commit point
//
// The running slot and its boot program are never touched. The package works on a File for the slot and a Folder for the ESP's
// EFI/Linux; Device and Dir are the real ones, package installtest has others that lose power after any write.
//
// # Interrupted installations
//
// Nothing is written down about how far an installation has come: the disk itself says so. The signed manifest of a payload names the
// SHA-256 of every segment, so what a kill, a reboot or a power cut has left is read back from the start, and the payload is taken
// up behind the last segment that is there, byte for byte. What is written is synced before more than Unsynced bytes are at
// stake, so at most that much is lost, whatever happens at whatever byte. No file can be stale, torn or about another payload, a full
// or read-only state costs nothing, and what a delta has written serves the full payload that follows it when the delta fails.
//
// A block that already holds the wanted bytes is not written again: the passive slot's old content often shares much with the new.
package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/update-engine/match"
	"github.com/proa-os/proa/update-engine/payload"
)

// A File is a slot's partition or a file on the ESP.
type File interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns when all writes are on the disk, and makes the reads that follow come from there.
	Sync() error
	Size() (int64, error) // bytes
	Close() error
}

// A Folder is the ESP's EFI/Linux. Rename and Remove are durable when they return.
type Folder interface {
	List() ([]string, error)
	Open(name string) (File, error)   // for reading
	Create(name string) (File, error) // empty, for writing
	Edit(name string) (File, error)   // with its content, for writing; an error that wraps fs.ErrNotExist if there is none
	Rename(oldName, newName string) error
	Remove(name string) error
}

// A BadRelease says that a signed release contradicts itself. It will do so on every machine and every day: quarantine it.
type BadRelease struct {
	Version string
	Reason  string
}

func (e *BadRelease) Error() string {
	return fmt.Sprintf("release %s is bad: %s", e.Version, e.Reason)
}

// A Program is a boot program on the ESP.
type Program struct {
	File string
	Name slot.Name     // with the tries that GRUB has counted
	Root digest.SHA256 // root hash on its command line; zero if it cannot be read
}

// Programs reads which boot programs there are and what they boot. Empty files are none: a power cut in a renaming can leave the new
// name with nothing behind it, and no loader looks at it.
func Programs(f Folder) ([]Program, error) {
	names, err := f.List()
	if err != nil {
		return nil, fmt.Errorf("list boot programs: %w", err)
	}
	counts, err := Counts(f)
	if err != nil {
		return nil, err
	}
	var programs []Program
	for _, file := range names {
		name, err := counts.Seen(file)
		if err != nil || empty(f, file) {
			continue
		}
		programs = append(programs, Program{File: file, Name: name, Root: bootedBy(f, file)})
	}
	return programs, nil
}

// A DiskError is a failure to read or write the passive slot or the ESP. No other payload would fare better.
type DiskError struct{ Err error }

func (e *DiskError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *DiskError) Unwrap() error { return e.Err }

// onDisk makes a DiskError of an error.
func onDisk(format string, args ...any) error { return &DiskError{fmt.Errorf(format, args...)} }

// A Stage is what an installation is at, for people who wait for it.
type Stage string

// The stages. Resume is over at once unless an earlier installation was interrupted.
const (
	Resume Stage = "resume" // reading back what is there
	Write  Stage = "write"  // root image and boot program
	Verify Stage = "verify" // reading the root image back from the disk
)

// Unsynced is the default of Installer.Unsynced: one segment.
const Unsynced = payload.MaxSegment

// An Installer has a machine's passive slot and ESP at hand.
type Installer struct {
	Running digest.SHA256 // root hash of the running root image
	Slot    File          // the passive one
	Boot    Folder
	BIOS    bool // GRUB starts the machine: it needs its environment block
	// Unsynced is how many bytes may be lost to a power cut, but for a single segment that is longer; 0 means one segment of
	// the greatest length.
	Unsynced int64
	// Progress is told the bytes of a stage that are done. It may be nil.
	Progress func(stage Stage, done, total int64)
	// Log is told once what became of the blocks. It may be nil.
	Log func(Written)
}

// Written says what an installation did to the disk.
type Written struct {
	Resumed payload.Mark // where it took the payload up; the zero Mark is the start
	Written int64        // bytes of slot and boot program that were written
	Kept    int64        // bytes that were there already and were left alone
}

// A Body opens a payload at a byte.
type Body func(offset int64) (io.Reader, error)

// A Payload is a payload whose manifest has been read and is the signed one.
type Payload struct {
	Manifest *payload.Manifest
	Sources  payload.Sources // of a delta
	Body     Body            // called once
}

// Install applies a payload of r and arms r. A nil error means: the next boot is a try of r.
// Any error means: the next boot is what runs now. After a *BadRelease the release must not be taken again, unless another payload of it
// can be tried; after a *DiskError no other payload helps; other errors are the payload's, its source's or its Body's.
func (i *Installer) Install(ctx context.Context, r *release.Release, p Payload) error {
	if err := i.install(ctx, r, p); err != nil {
		return fmt.Errorf("install %s: %w", r.Version, err)
	}
	return nil
}

func (i *Installer) install(ctx context.Context, r *release.Release, p Payload) (err error) {
	armed, err := i.Check(r)
	if err != nil {
		return err
	}
	if err := fits(r, i.Running, p.Manifest); err != nil {
		return err
	}
	if err := p.Manifest.CheckSources(p.Sources); err != nil {
		return err
	}
	w := &writer{Installer: i, ctx: ctx, release: r, delta: !p.Manifest.Source.IsZero(), total: r.Root.HashOffset + r.Boot.Size}
	defer func() {
		w.close()
		if bad := (*BadRelease)(nil); errors.As(err, &bad) {
			_ = i.Boot.Remove(slot.Temporary(r.Version)) // nothing goes on with it; the next installation would remove it too
		}
		if i.Log != nil {
			i.Log(w.report)
		}
	}()
	if err := i.empty(r); err != nil {
		return onDisk("empty the passive slot: %w", err)
	}
	src := w.sources(p.Sources)
	mark, err := w.standing(p, src)
	if err != nil {
		return err
	}
	body, err := p.Body(mark.Read)
	if err != nil {
		return err
	}
	w.tell(Write, w.before+mark.Written, w.total) // before memory is taken for it
	if err := p.Manifest.Apply(body, src, mark, w); err != nil {
		return err
	}
	if err := i.Boot.Rename(slot.Temporary(r.Version), armed); err != nil {
		return onDisk("arm: %w", err)
	}
	return nil
}

// Check refuses, before anything is written, a release that cannot be installed with any payload; it returns the name that arms it.
func (i *Installer) Check(r *release.Release) (armed string, err error) {
	size, err := i.Slot.Size()
	if err != nil {
		return "", onDisk("passive slot: %w", err)
	}
	if missing := r.Root.Size - size; missing > 0 {
		return "", fmt.Errorf("passive slot: has %d bytes, the root image of release %s needs %d: %d bytes are missing; this disk was laid out for smaller releases, install the machine anew from a newer image",
			size, r.Version, r.Root.Size, missing)
	}
	if armed, err = slot.Arm(r.Version); err != nil {
		return "", err
	}
	programs, err := Programs(i.Boot)
	if err != nil {
		return "", onDisk("%w", err)
	}
	var kept []string
	good := false
	for _, p := range programs {
		if p.Root != i.Running {
			continue
		}
		kept = append(kept, p.File)
		good = good || p.Name.Good()
	}
	if len(kept) == 0 {
		return "", fmt.Errorf("no boot program on the ESP boots the running root hash %s: without it there is no way back", i.Running)
	}
	// A power cut in the renaming to the good name may leave the counted one beside it: the good one counts.
	if !good {
		return "", fmt.Errorf("the running boot program %s has not proven itself: wait for its health check, the other slot is the way back", kept[0])
	}
	if next, _, _ := slot.Choose(append(kept, armed)); next != armed {
		return "", fmt.Errorf("the loader would go on booting %s: release %s is not newer", next, r.Version)
	}
	return armed, nil
}

// fits compares the payload with the release it says it makes, and its source with what runs.
func fits(r *release.Release, running digest.SHA256, m *payload.Manifest) error {
	root, boot := m.Output(payload.RootImage), m.Output(payload.BootProgram)
	switch {
	case !m.Source.IsZero() && m.Source != running:
		return fmt.Errorf("payload is a delta from root hash %s, this machine runs %s", m.Source, running)
	case root == nil || boot == nil:
		return fmt.Errorf("payload does not hold both a root image and a boot program")
	case root.Size != r.Root.HashOffset:
		return &BadRelease{r.Version, fmt.Sprintf("the payload's root image has %d bytes without its tree, release.json says %d", root.Size, r.Root.HashOffset)}
	case boot.Size != r.Boot.Size || boot.SHA256 != r.Boot.SHA256:
		return &BadRelease{r.Version, fmt.Sprintf("the payload's boot program has %d bytes with sha256 %s, release.json says %d with %s", boot.Size, boot.SHA256, r.Boot.Size, r.Boot.SHA256)}
	}
	return nil
}

// empty removes every boot program but the running one, what an interrupted installation left, and GRUB's count. The unfinished
// boot program of the same release stays if there is nothing else to remove: then an earlier installation has been here before. Beside
// others it could be a second name of one of them (see Leaving), and what is freed with that one must not be written to; an empty
// file has nothing to free.
func (i *Installer) empty(r *release.Release) error {
	names, err := Leaving(i.Boot, i.Running)
	if err != nil {
		return err
	}
	unfinished := slot.Temporary(r.Version)
	if !slices.ContainsFunc(names, func(n string) bool { return n != unfinished && !empty(i.Boot, n) }) {
		names = slices.DeleteFunc(names, func(n string) bool { return n == unfinished })
	}
	if err := Discard(i.Boot, names); err != nil {
		return err
	}
	return forget(i.Boot, i.BIOS)
}

// Discard removes files from the ESP, boot programs in two steps: they get names that the loader does not see, and only then, all of
// them, are removed. A removal that is cut can leave a name on FAT whose bytes are given back already, and the loader must not choose
// such a one; a renaming never does.
func Discard(f Folder, names []string) error {
	names, err := hide(f, names)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := f.Remove(n); err != nil {
			return err
		}
	}
	return nil
}

// hide gives the boot programs among names others that the loader does not see, and returns what the files are called then.
// No name is taken that exists: it may be of the same file.
func hide(f Folder, names []string) ([]string, error) {
	taken, err := f.List()
	if err != nil {
		return nil, err
	}
	var hidden []string
	for _, n := range names {
		if _, err := slot.Parse(n); err == nil {
			to := strings.TrimSuffix(n, ".efi") + ".old.part"
			for slices.Contains(taken, to) {
				to = strings.TrimSuffix(to, ".part") + ".old.part"
			}
			if err := f.Rename(n, to); err != nil {
				return nil, err
			}
			n = to
		}
		hidden = append(hidden, n)
	}
	return hidden, nil
}

// Leaving returns the files that an installation removes from the ESP before it writes: what boots another root image than the
// running one, and what an interrupted installation left. A temporary file with the running boot program in it stays: a power
// cut in the rename that armed it left one file under two names, and on FAT removing one would free the content of both.
func Leaving(f Folder, running digest.SHA256) ([]string, error) {
	names, err := f.List()
	if err != nil {
		return nil, fmt.Errorf("list boot programs: %w", err)
	}
	var leaving []string
	for _, n := range names {
		_, err := slot.Parse(n)
		part := strings.HasPrefix(n, "proa_") && strings.HasSuffix(n, ".part")
		if (err == nil || part) && bootedBy(f, n) != running {
			leaving = append(leaving, n)
		}
	}
	return leaving, nil
}

// empty reports whether a file has no bytes.
func empty(f Folder, file string) bool {
	r, err := f.Open(file)
	if err != nil {
		return false
	}
	defer r.Close()
	size, err := r.Size()
	return err == nil && size == 0
}

// bootedBy returns the root hash on the command line of a boot program, zero if it cannot be read.
func bootedBy(f Folder, file string) digest.SHA256 {
	r, err := f.Open(file)
	if err != nil {
		return digest.SHA256{}
	}
	defer r.Close()
	hash, _, err := match.RootHash(r)
	if err != nil {
		return digest.SHA256{}
	}
	return hash
}
