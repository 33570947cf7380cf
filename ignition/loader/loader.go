// Package loader puts kernel arguments where the loaders find them, on the ESP, for whichever slot they start:
//
//	loader/addons/ignition.addon.efi   under UEFI, an addon of systemd-stub (package uki)
//	grub/ignition.env                  under BIOS, a block that GRUB reads (package grubenv)
//
// Both hold the words that package kargs decides on, before any disk is touched. If the command line is not as described, they are written,
// durably, and the machine has to start again; then there is nothing to do. A power cut in between leaves the old words, the new ones, or, on FAT, none:
// the next boot sees which by its own command line and goes on from there. If a boot did not take what was written, that is an error, not another boot.
//
// Refused, where Secure Boot is on: any word, because systemd-stub ignores an addon that is not signed.
package loader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/ignition/kargs"
	"github.com/proa-os/proa/internal/arch"
	"github.com/proa-os/proa/internal/cmdline"
	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/internal/grubenv"
	"github.com/proa-os/proa/internal/uki"
)

// AddonFile is the addon on the ESP.
const AddonFile = "loader/addons/ignition.addon.efi"

// grubConfig is GRUB's on the ESP; one from before this package does not read the block.
const grubConfig = "grub/grub.cfg"

// A Machine is what the stage works on. Its zero value is of no use; see ThisMachine.
type Machine struct {
	Proc    string // "/proc"
	Sys     string // "/sys"
	Pending string // a file in /run that says that words were written in this boot
	ESP     func() (dir string, close func() error, err error)
}

// ThisMachine is the running one.
func ThisMachine() Machine {
	return Machine{Proc: "/proc", Sys: "/sys", Pending: "/run/ignition/kargs-written", ESP: mountESP}
}

// Ensure makes the next boot have the arguments, and reports whether there has to be one. Nothing is mounted when nothing is to do.
func (m Machine) Ensure(_ context.Context, want, unwanted []string) (reboot bool, err error) {
	raw, err := os.ReadFile(filepath.Join(m.Proc, "cmdline"))
	if err != nil {
		return false, fmt.Errorf("read kernel command line: %w", err)
	}
	c, err := kargs.Decide(cmdline.Parse(string(raw)), want, unwanted)
	if err != nil || !c.Needed {
		return false, err
	}
	bios, err := m.firmware(c)
	if err != nil {
		return false, err
	}
	dir, release, err := m.ESP()
	if err != nil {
		return false, err
	}
	err = m.write(dir, c.Words, bios)
	return err == nil, errors.Join(err, release())
}

// firmware reports whether this is a BIOS, and refuses what Secure Boot would ignore.
func (m Machine) firmware(c kargs.Change) (bios bool, err error) {
	if _, err := os.Stat(filepath.Join(m.Sys, "firmware/efi")); errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	// UEFI specification 2.10, section 3.3: four bytes of attributes, then 1 where Secure Boot is on.
	b, err := os.ReadFile(filepath.Join(m.Sys, "firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask the firmware for Secure Boot: %w", err)
	}
	if len(b) == 5 && b[4] == 1 && len(c.Words) > 0 {
		return false, &kargs.Refusal{Word: c.Words[0], What: "kernel arguments cannot be added", Expected: "Secure Boot off, or an addon on the ESP, signed with a key of the firmware, that holds them", Found: "Secure Boot on",
			Next: "sign such an addon (ukify build --cmdline=...) and put it into loader/addons on the ESP; or remove kernelArguments from the config"}
	}
	return false, nil
}

// write puts the words into both files, durably: the one of the other firmware first, so that the one that counts is written last.
func (m Machine) write(dir string, words []string, bios bool) error {
	esp, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open ESP: %w", err)
	}
	defer esp.Close()
	files, err := contents(esp, words, bios)
	if err != nil {
		return err
	}
	active := files[1]
	if bios {
		files[0], files[1] = files[1], files[0]
		active = files[1]
	}
	if _, err := os.Stat(m.Pending); err != nil && active.is(esp) {
		return &kargs.Refusal{Word: kargs.Line(words), What: "the loader did not hand over the kernel arguments", Expected: "them on the command line of this boot, because " + active.name + " on the ESP holds them", Found: "them not there",
			Next: "look at what the loader says at boot; a loader from before this release has to be installed anew"}
	}
	for _, f := range files {
		if err := f.write(esp); err != nil {
			return fmt.Errorf("write kernel arguments: %s on the ESP: %w", f.name, err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(m.Pending), 0o755); err != nil {
		return err
	}
	return os.WriteFile(m.Pending, nil, 0o644)
}

// file is one of the ESP; without content it shall not be there.
type file struct {
	name    string
	content []byte
	skip    bool
}

// contents are GRUB's block and the addon.
func contents(esp *os.Root, words []string, bios bool) (all [2]file, err error) {
	all = [2]file{{name: grubenv.ArgumentsFile}, {name: AddonFile}}
	cfg, err := esp.ReadFile(grubConfig)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return all, fmt.Errorf("read GRUB's configuration: %w", err)
	}
	reads := bytes.Contains(cfg, []byte("/"+grubenv.ArgumentsFile))
	if bios && !reads && len(words) > 0 {
		return all, &kargs.Refusal{Word: words[0], What: "kernel arguments cannot be added", Expected: "a " + grubConfig + " on the ESP that reads " + grubenv.ArgumentsFile, Found: "one that does not",
			Next: "install this machine from an image of this release, or remove kernelArguments from the config"}
	}
	all[0].skip = !reads
	if len(words) == 0 {
		return all, nil
	}
	marked := append([]string{kargs.Marker + "=" + strconv.Itoa(len(words))}, words...)
	if all[0].content, err = grubenv.Arguments(grubenv.ArgumentsFile, marked); err != nil {
		return all, err
	}
	host, err := arch.Host()
	if err != nil {
		return all, err
	}
	all[1].content, err = uki.Addon(host.PE, kargs.Line(words))
	return all, err
}

// is reports whether the file is as it shall be.
func (f file) is(esp *os.Root) bool {
	b, err := esp.ReadFile(f.name)
	if f.content == nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	return err == nil && bytes.Equal(b, f.content)
}

// write is durable, and done in an order that FAT keeps (see durable.Rename). No loader takes the temporary name for an addon.
func (f file) write(esp *os.Root) error {
	switch {
	case f.skip || f.is(esp):
		return nil
	case f.content == nil:
		return durable.Remove(esp, f.name)
	}
	if err := esp.MkdirAll(path.Dir(f.name), 0o755); err != nil {
		return err
	}
	tmp := f.name + ".new"
	w, err := esp.Create(tmp)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, bytes.NewReader(f.content))
	if err := errors.Join(err, w.Sync(), w.Close()); err != nil {
		return errors.Join(err, durable.Remove(esp, tmp))
	}
	return durable.Rename(esp, tmp, f.name)
}

// mountPoint is where the ESP is for the moment it is needed.
const mountPoint = "/run/ignition/esp"

// mountESP mounts the ESP of the disk that the running root image is on.
func mountESP() (string, func() error, error) {
	device, err := disk.Root()
	if err != nil {
		return "", nil, err
	}
	root, offset, err := disk.System().Running(device)
	if err != nil {
		return "", nil, err
	}
	l, err := disk.System().Find(root, offset)
	if err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(mountPoint, 0o700); err != nil {
		return "", nil, err
	}
	if err := unix.Mount(l.ESP.Path, mountPoint, "vfat", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_DIRSYNC, "umask=0077"); err != nil {
		return "", nil, fmt.Errorf("mount ESP %s: %w; repair it from another system (fsck.fat -a)", l.ESP.Path, err)
	}
	return mountPoint, func() error {
		if err := unix.Unmount(mountPoint, 0); err != nil {
			return fmt.Errorf("unmount ESP: %w", err)
		}
		return nil
	}, nil
}
