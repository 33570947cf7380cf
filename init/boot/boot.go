// Package boot is the order of things in the initramfs: from the kernel's start of /init to the start of systemd.
//
// Each step is printed before it is done. Every error ends the boot (package rescue): there is no shell and no second way,
// because the older boot program is the second way.
package boot

import (
	"fmt"
	"os"

	"github.com/proa-os/proa/init/dmverity"
	"github.com/proa-os/proa/init/kmod"
	"github.com/proa-os/proa/init/rescue"
	"github.com/proa-os/proa/init/state"
	"github.com/proa-os/proa/init/switchroot"
	"github.com/proa-os/proa/internal/cmdline"
	"github.com/proa-os/proa/internal/disk"
)

const (
	sysroot = "/sysroot"                 // where the root image is mounted until it is the root
	systemd = "/usr/lib/systemd/systemd" // in the root image
	varDir  = sysroot + "/var"           // where state is mounted
)

// Run does all steps, the last of which replaces this process. It returns only with an error.
func Run(console *rescue.Console) error {
	console.Step("mounting proc, sys, dev and run")
	if err := mountBasics(); err != nil {
		return err
	}

	console.Step("reading the kernel command line")
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	line := cmdline.Parse(string(text))
	root, hashOffset, err := cmdline.Proa(line)
	if err != nil {
		return err
	}

	console.Step("loading modules")
	if err := loadModules(line, kmod.ListFile, ""); err != nil {
		return err
	}
	drivers, err := loader(line)
	if err != nil {
		return err
	}

	console.Step("looking for the slot with root hash %s", root)
	loadDrivers := func() bool {
		return drivers.Load(func(err error) { console.Note("%v; looking on without it", err) })
	}
	f := finder{scanner: disk.System(), root: root, hashOffset: hashOffset, drivers: loadDrivers, note: console.Note}
	layout, err := f.wait()
	if err != nil {
		return err
	}
	for _, other := range layout.Others {
		console.Note("%s holds the same root image and is not used", other)
	}

	console.Step("activating dm-verity on %s (%s)", layout.Active.Name, layout.Active.Path)
	target, err := dmverity.Slot(layout.Active.Path, root, hashOffset)
	if err != nil {
		return err
	}
	device, err := dmverity.Activate(layout.Active.Name, target)
	if err != nil {
		return err
	}

	console.Step("mounting the root image")
	if err := mountRoot(device); err != nil {
		return err
	}

	console.Step("loading modules of the root image")
	if err := loadModules(line, kmod.RootListFile, sysroot); err != nil {
		return err
	}

	tools := state.Tools{Root: sysroot}
	if layout, err = prepareState(f, layout, tools, console); err != nil {
		return err
	}
	mendBackup(layout.Disk, console)
	console.Step("mounting state (%s)", layout.State.Path)
	if err := mountState(layout.State, loadDrivers, tools, console); err != nil {
		return err
	}

	console.Step("laying state over /etc")
	if err := state.OverlayEtc(sysroot); err != nil {
		return err
	}

	console.Step("starting %s", systemd)
	leftovers, err := switchroot.Enter(sysroot)
	if err != nil {
		return err
	}
	if leftovers != nil {
		console.Note("the initramfs keeps some memory: %v", leftovers)
	}
	if err := switchroot.Exec(systemd); err != nil {
		return fmt.Errorf("the root image does not start: %w", err)
	}
	return nil
}
