package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/blockdev"
)

// A Tools runs the file system's own programs.
type Tools struct {
	Root string // where the root image is mounted
}

// Format makes an ext4 file system on a partition and flushes it.
func (t Tools) Format(path string) error {
	if _, err := t.run("/usr/sbin/mke2fs", append(mke2fsOptions(), path)...); err != nil {
		return err
	}
	d, err := blockdev.Open(path)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("flush %s: %w", path, err)
	}
	return nil
}

// mke2fsOptions say what state is: ext4 with blocks of 4096 bytes also on a small disk, so that a machine whose disk grows is
// like any other. No discard: on some disks it takes minutes, and fstrim can do it later. Inode tables and journal are not filled
// with zeros now, which would be 33 GiB on a disk of 2 TiB: the kernel does the tables in the background, and the journal's
// checksums tell its blocks from what was there before.
func mke2fsOptions() []string {
	return []string{"-q", "-F", "-t", "ext4", "-b", strconv.Itoa(blockSize), "-m", "1", "-e", "remount-ro",
		"-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", "-L", "state"}
}

// The exit codes of e2fsck(8) that need a look: repaired, repaired so that a mounted file system needs a reboot, and unable to
// work, as with a superblock whose checksum is wrong.
const (
	fsckRepaired = 1
	fsckReboot   = 2
	fsckUnable   = 8
)

// Mount mounts the state partition. Mounting replays the journal, which is all that an interrupted machine needs; only when
// that is refused e2fsck does the repairs that need no decision. A superblock it cannot work with is replaced by its first
// backup, whose place Format determines; all that e2fsck then asks is answered with yes, since the backup is the oldest
// news there is and no other choice is left. A file system that the kernel has found errors in while it was in use mounts
// too, but would turn read-only at the same place again and again; it is repaired first, if that needs no decision.
// note is told about all of it.
func (t Tools) Mount(path, target string, note func(format string, args ...any)) error {
	if knownBad(path) {
		note("the kernel has found errors in %s; repairing with e2fsck", path)
		if code, err := t.run("/usr/sbin/e2fsck", "-p", path); err != nil && !repaired(code) {
			note("%v; mounting it as it is", err)
		}
	}
	first := mountExt4(path, target)
	if first == nil {
		return nil
	}
	note("%v; repairing with e2fsck", first)
	code, err := t.run("/usr/sbin/e2fsck", "-p", path)
	if code == fsckUnable {
		note("%v; repairing with the backup superblock", err)
		code, err = t.run("/usr/sbin/e2fsck", "-y", "-B", strconv.Itoa(blockSize), "-b", strconv.Itoa(blocksPerGroup), path)
	}
	if err != nil && !repaired(code) {
		return fmt.Errorf("%w; %w; state is left as it is: repair it with e2fsck from another system, or remove its entry from the partition table there to start afresh", first, err)
	}
	return mountExt4(path, target)
}

// repaired reports whether e2fsck has left nothing wrong.
func repaired(code int) bool { return code >= 0 && code&^(fsckRepaired|fsckReboot) == 0 }

// knownBad reports whether the superblock of an ext4 file system says that the kernel has found errors
// (Documentation/filesystems/ext4/super.rst: s_magic at 0x38, s_state at 0x3A, 2 is "errors detected").
func knownBad(path string) bool {
	const superblock, magic, errorFS = 1024, 0xef53, 2
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var b [4]byte
	_, err = f.ReadAt(b[:], superblock+0x38)
	return err == nil && binary.LittleEndian.Uint16(b[:]) == magic && binary.LittleEndian.Uint16(b[2:])&errorFS != 0
}

func mountExt4(path, target string) error {
	if err := unix.Mount(path, target, "ext4", unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mount %s as ext4 on %s: %w", path, target, err)
	}
	return nil
}

// A Dir is a directory that state must have, with its mode.
type Dir struct {
	Name string
	Mode fs.FileMode
}

// Dirs returns the directories of a machine's state, parents first, by their names below /var.
func Dirs() []Dir {
	return []Dir{
		{"cache", 0o755},
		{"home", 0o755},
		{"lib", 0o755},
		{"lib/etc", 0o755},
		{EtcUpper, 0o755},
		{EtcWork, 0o700},
		{"log", 0o755},
		{"opt", 0o755},
		{"roothome", 0o700},
		{"srv", 0o755},
		{"tmp", 0o777 | fs.ModeSticky},
		{"usrlocal", 0o755},
	}
}

// The two directories of the overlay over /etc.
const (
	EtcUpper = "lib/etc/upper"
	EtcWork  = "lib/etc/work"
)

// OverlayEtc makes /etc of a root writable, in which state is mounted on /var: what is changed goes to state, what is not comes from
// the image.
func OverlayEtc(root string) error {
	etc, state := filepath.Join(root, "etc"), filepath.Join(root, "var")
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", etc, filepath.Join(state, EtcUpper), filepath.Join(state, EtcWork))
	if err := unix.Mount("overlay", etc, "overlay", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount overlay on %s with %s: %w", etc, options, err)
	}
	return nil
}

// MakeDirs makes what is missing and sets modes, as systemd-tmpfiles does with its "d" lines. Something else in the place of a
// directory is an error; nothing is removed.
func MakeDirs(state *os.Root, dirs []Dir) error {
	for _, d := range dirs {
		if err := state.Mkdir(d.Name, d.Mode.Perm()); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make directory in state: %w", err)
		}
		fi, err := state.Lstat(d.Name)
		if err != nil {
			return fmt.Errorf("make directory in state: %w", err)
		}
		if !fi.IsDir() {
			return fmt.Errorf("make directory in state: %s: expected a directory, found %v", d.Name, fi.Mode())
		}
		if fi.Mode() == d.Mode|fs.ModeDir {
			continue
		}
		if err := state.Chmod(d.Name, d.Mode); err != nil {
			return fmt.Errorf("make directory in state: %w", err)
		}
	}
	return nil
}
