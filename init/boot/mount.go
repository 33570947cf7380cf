package boot

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/init/kmod"
	"github.com/proa-os/proa/internal/cmdline"
)

// mountBasics mounts the kernel's file systems with the options systemd would use, since systemd takes them as they are.
func mountBasics() error {
	unix.Umask(0)
	for _, m := range []struct {
		kind, target, options string
		flags                 uintptr
	}{
		{"proc", "/proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"sysfs", "/sys", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"devtmpfs", "/dev", "mode=0755", unix.MS_NOSUID | unix.MS_STRICTATIME},
		{"tmpfs", "/run", "mode=0755,size=20%,nr_inodes=800k", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_STRICTATIME},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.target, m.kind, m.flags, m.options); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
		}
	}
	return nil
}

// loadModules loads what a list of the initramfs names, in that order. The paths are below root.
func loadModules(line cmdline.Line, name, root string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read module list: %w", err)
	}
	list, err := kmod.ParseList(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, file := range list {
		if err := kmod.Load(filepath.Join(root, file), kmod.Parameters(line, kmod.Name(file))); err != nil {
			return err
		}
	}
	return nil
}

// loader returns what loads the drivers of the initramfs.
func loader(line cmdline.Line) (*kmod.Loader, error) {
	text, err := os.ReadFile(kmod.DriverFile)
	if err != nil {
		return nil, fmt.Errorf("read driver list: %w", err)
	}
	list, err := kmod.ParseDrivers(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kmod.DriverFile, err)
	}
	return kmod.NewLoader(list, os.DirFS("/sys"), func(file string) error {
		return kmod.Load(file, kmod.Parameters(line, kmod.Name(file)))
	}), nil
}

// mountRoot mounts the verified device.
func mountRoot(device string) error {
	if err := os.MkdirAll(sysroot, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(device, sysroot, "erofs", unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mount %s as erofs on %s: %w", device, sysroot, err)
	}
	return nil
}
