// Package nextroot makes another root image ready at /run/nextroot, for systemd to go on in without the kernel starting anew
// (systemd-soft-reboot.service(8)). It does there what package boot does in the initramfs.
//
//	the agent writes its request, starts proa-nextroot.service      Prepare: dm-verity on the passive slot, its root image and state
//	                                                                mounted. All that can go wrong does so while everything still runs.
//	systemctl soft-reboot stops what runs, then proa-soft-reboot.service   Finish: /etc. Two overlays on the same directory of
//	                                                                state must not be used at the same time, so the old one goes first.
//	PID 1 moves /run/nextroot to /                                  the old slot's device goes with its last user
//
// The slot is found by its root hash, as at a boot; it is never the running one, and always on the disk that the machine runs from.
package nextroot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/init/dmverity"
	"github.com/proa-os/proa/init/state"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/internal/verity"
)

const (
	// request is the file in which the update agent says what is next, separated by spaces: the root hash, the hash offset in bytes,
	// and the file in state that says that there was no way back any more.
	request = "/run/proa/nextroot"

	dir     = "/run/nextroot"
	systemd = "/usr/lib/systemd/systemd"
)

// A next is what the request names.
type next struct {
	root       digest.SHA256
	hashOffset int64
	mark       string
}

func parse(text string) (n next, err error) {
	words := strings.Fields(text)
	if len(words) != 3 {
		return n, fmt.Errorf("expected a root hash, a hash offset and a file, found %d words", len(words))
	}
	if n.root, err = digest.Parse(words[0]); err != nil {
		return n, err
	}
	if n.hashOffset, err = strconv.ParseInt(words[1], 10, 64); err != nil || n.hashOffset <= 0 || n.hashOffset%verity.BlockSize != 0 {
		return n, fmt.Errorf("hash offset: expected a positive multiple of %d in bytes, found %q", verity.BlockSize, words[1])
	}
	if n.mark = words[2]; !strings.HasPrefix(n.mark, "/var/") || filepath.Clean(n.mark) != n.mark {
		return n, fmt.Errorf("mark: expected a file in /var, found %q", n.mark)
	}
	return n, nil
}

func readRequest() (next, error) {
	text, err := os.ReadFile(request)
	if err != nil {
		return next{}, err
	}
	n, err := parse(string(text))
	if err != nil {
		return n, fmt.Errorf("read %s: %w", request, err)
	}
	return n, nil
}

// Prepare mounts the requested root image, and state in it. After an error nothing is mounted.
func Prepare() error {
	n, err := readRequest()
	if err != nil {
		return err
	}
	device, err := disk.Root()
	if err != nil {
		return err
	}
	scanner := disk.System()
	now, offset, err := scanner.Running(device)
	if err != nil {
		return err
	}
	running, slot, err := n.slots(scanner, now, offset)
	if err != nil {
		return err
	}
	if err := Undo(); err != nil {
		return err
	}
	if err := mount(slot, n.root, n.hashOffset); err != nil {
		return errors.Join(err, Undo())
	}
	fmt.Printf("%s (%s) is ready at %s, %s runs\n", slot.Name, slot.Path, dir, running.Name)
	return nil
}

// slots finds the slot that runs, by its root hash and hash offset, and the one that is to come.
func (n next) slots(s *disk.Scanner, now digest.SHA256, offset int64) (running, slot *disk.Partition, err error) {
	if now == n.root {
		return nil, nil, fmt.Errorf("root hash %s runs already", n.root)
	}
	old, err := s.Find(now, offset)
	if err != nil {
		return nil, nil, fmt.Errorf("find the running slot: %w", err)
	}
	layout, err := s.Find(n.root, n.hashOffset)
	if err != nil {
		return nil, nil, fmt.Errorf("find the slot with root hash %s: %w", n.root, err)
	}
	if layout.Disk.Path != old.Disk.Path {
		return nil, nil, fmt.Errorf("root hash %s is on %s, expected it on %s, from which this machine runs", n.root, layout.Disk.Path, old.Disk.Path)
	}
	return old.Active, layout.Active, nil
}

func mount(slot *disk.Partition, root digest.SHA256, hashOffset int64) error {
	target, err := dmverity.Slot(slot.Path, root, hashOffset)
	if err != nil {
		return err
	}
	device, err := dmverity.Activate(slot.Name, target)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(device, dir, "erofs", unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mount %s as erofs on %s: %w", device, dir, err)
	}
	if _, err := os.Stat(filepath.Join(dir, systemd)); err != nil {
		return fmt.Errorf("the next root image does not start: %w", err)
	}
	if err := unix.Mount("/var", filepath.Join(dir, "var"), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount state in %s: %w", dir, err)
	}
	return nil
}

// Finish is the last thing that is done in the old root: it takes /etc from it, lays state over the next root's, and lets every slot's
// device go with its last user, so that an update can write the old slot as soon as nothing runs from it. The mark is on the disk then: whoever finds it
// and another root image running knows that the next one has not come to a verdict.
func Finish() error {
	n, err := readRequest()
	if err != nil {
		return err
	}
	if err := durable.WritePath(n.mark, []byte(n.root.String()+"\n"), 0o644); err != nil {
		return fmt.Errorf("mark the soft reboot: %w", err)
	}
	if err := unix.Unmount("/etc", 0); err != nil {
		// Somebody who stays has a file open there. What the kernel says then, that changes made through two overlays are undefined, is
		// meant for changes: the one that goes is not seen by anybody else any more.
		fmt.Printf("nextroot: /etc is in use: %v; leaving it to who uses it\n", err)
		if err := unix.Unmount("/etc", unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount /etc: %w", err)
		}
	}
	if err := state.OverlayEtc(dir); err != nil {
		return err
	}
	return devices(dmverity.RemoveLater)
}

// Undo unmounts what Prepare has mounted, if anything, and removes the device of a slot that does not run.
func Undo() error {
	for _, at := range []string{filepath.Join(dir, "etc"), filepath.Join(dir, "var"), dir} {
		// EINVAL: not a mount point; ENOENT: never was.
		if err := unix.Unmount(at, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", at, err)
		}
	}
	return devices(dmverity.Remove)
}

// devices gives both slots' devices to remove; what is in use stays.
func devices(remove func(name string) error) error {
	for _, name := range []string{disk.NameRootA, disk.NameRootB} {
		if err := remove(name); err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return nil
}
