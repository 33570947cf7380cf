// Package install writes a release into the passive slot and arms it.
//
// It is the part of the update agent between the verified stream of a payload and the reboot. The order of the durable
// writes is the whole point; each is harmless if it is the last one that happened:
//
//  1. the passive slot is emptied: its boot program is removed from the ESP, so nothing boots what is now overwritten, and
//     GRUB's count of it is forgotten
//  2. the root image is written, synced, read back from the disk, its verity tree built, the root hash compared with the
//     signed one; only then the tree is written, synced and read back
//  3. the boot program is written under a name that the loader does not see, synced, read back, its hash compared
//     with the signed one, and its command line's root hash and hash offset with the release
//  4. it is renamed to its counted name: the commit point
//
// The running slot and its boot program are never touched. The package works on a File for the slot and a Folder for the ESP's
// EFI/Linux; Device and Dir are the real ones, the tests have others that lose power after any write.
package install

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// Programs reads which boot programs there are and what they boot.
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
		if err != nil {
			continue
		}
		programs = append(programs, Program{File: file, Name: name, Root: bootedBy(f, file)})
	}
	return programs, nil
}

// An Installer has a machine's passive slot and ESP at hand.
type Installer struct {
	Running digest.SHA256 // root hash of the running root image
	Slot    File          // the passive one
	Boot    Folder
	BIOS    bool // GRUB starts the machine: it needs its environment block
	// Progress is told the bytes written of all that will be. It may be nil.
	Progress func(done, total int64)
}

// Install applies a payload, whose manifest m has been read from body, and arms the release. body must give an error at
// its end if its hash is not the signed one (digest.Reader). A nil error means: the next boot is a try of r.
// Any error means: the next boot is what runs now. After a *BadRelease the release must not be taken again.
func (i *Installer) Install(ctx context.Context, r *release.Release, m *payload.Manifest, body io.Reader) error {
	armed, err := i.check(r, m)
	w := &writer{Installer: i, ctx: ctx, release: r, total: r.Root.HashOffset + r.Boot.Size}
	if err == nil {
		if err = i.empty(); err != nil {
			return fmt.Errorf("install %s: empty the passive slot: %w", r.Version, err)
		}
		err = m.Apply(body, payload.Sources{}, payload.Mark{}, w)
	}
	if bad := (*BadRelease)(nil); errors.As(err, &bad) {
		// The verdict stands only if these are the signed bytes: the payload's own hash is known at its end.
		if _, drainErr := io.Copy(io.Discard, body); drainErr != nil {
			err = fmt.Errorf("%s, and the payload is not the signed one: %w", bad.Reason, drainErr)
		}
	}
	if err == nil {
		err = i.Boot.Rename(slot.Temporary(r.Version), armed)
	}
	if err != nil {
		w.abandon()
		return fmt.Errorf("install %s: %w", r.Version, err)
	}
	return nil
}

// check refuses, before anything is written, what cannot work; it returns the name that arms the release.
func (i *Installer) check(r *release.Release, m *payload.Manifest) (armed string, err error) {
	if err := fits(r, m); err != nil {
		return "", err
	}
	size, err := i.Slot.Size()
	if err != nil {
		return "", fmt.Errorf("passive slot: %w", err)
	}
	if size < r.Root.Size {
		return "", fmt.Errorf("passive slot: has %d bytes, the root image needs %d", size, r.Root.Size)
	}
	if armed, err = slot.Arm(r.Version); err != nil {
		return "", err
	}
	programs, err := Programs(i.Boot)
	if err != nil {
		return "", err
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

// fits compares the payload with the release it says it makes.
func fits(r *release.Release, m *payload.Manifest) error {
	root, boot := m.Output(payload.RootImage), m.Output(payload.BootProgram)
	switch {
	case !m.Source.IsZero():
		return fmt.Errorf("payload is a delta from root hash %s: %w", m.Source, payload.ErrUnsupported)
	case root == nil || boot == nil:
		return fmt.Errorf("payload does not hold both a root image and a boot program")
	case root.Size != r.Root.HashOffset:
		return &BadRelease{r.Version, fmt.Sprintf("the payload's root image has %d bytes without its tree, release.json says %d", root.Size, r.Root.HashOffset)}
	case boot.Size != r.Boot.Size || boot.SHA256 != r.Boot.SHA256:
		return &BadRelease{r.Version, fmt.Sprintf("the payload's boot program has %d bytes with sha256 %s, release.json says %d with %s", boot.Size, boot.SHA256, r.Boot.Size, r.Boot.SHA256)}
	}
	return nil
}

// empty removes every boot program but the running one, what an interrupted installation left, and GRUB's count.
func (i *Installer) empty() error {
	names, err := Leaving(i.Boot, i.Running)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := i.Boot.Remove(n); err != nil {
			return err
		}
	}
	return forget(i.Boot, i.BIOS)
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
