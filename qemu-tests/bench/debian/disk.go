package debian

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/proa-os/proa/image-builder/fat"
	"github.com/proa-os/proa/init/kmod"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/guesttest"
	"github.com/proa-os/proa/internal/uki"
)

// DiskSize is how large the machine's disk is, in bytes: as large as the lab's machines have it, and sparse.
const DiskSize = 8 << 30

const (
	mib        = 1 << 20
	sectorSize = 512
	espSize    = 256 * mib
	rootSize   = DiskSize - mib - espSize - mib

	stub   = "usr/lib/systemd/boot/efi/linuxx64.efi.stub"
	loader = "usr/lib/systemd/boot/efi/systemd-bootx64.efi"

	// commandLine is that of Debian's own cloud images in what concerns the consoles, the same as Proa's.
	commandLine = "ro console=tty0 console=ttyS0,115200 no_timer_check tsc=nowatchdog"
)

// rootUUID is the file system's; it is the same for every disk, as nobody has two in one machine.
func rootUUID() string { return uuid("root file system") }

// uuid derives a UUID (RFC 9562, version 8) from words.
func uuid(of string) string {
	sum := digest.Of([]byte("plain debian " + of))
	b := sum[:16]
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// makeRoot makes the ext4 file system out of the unpacked tree, with mke2fs's defaults.
func (m *maker) makeRoot(ctx context.Context) error {
	dir := filepath.Join(m.work, "root")
	_, err := m.tool(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-U", rootUUID(), "-E", "root_owner=0:0", "-d", dir, m.rootFile(), fmt.Sprintf("%dM", rootSize/mib))
	if err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

func (m *maker) rootFile() string { return filepath.Join(m.work, "root.ext4") }

func layout() (*gpt.Table, error) {
	t := &gpt.Table{DiskGUID: gpt.GUID(uuid("disk")), SectorSize: sectorSize, Sectors: DiskSize / sectorSize}
	for _, p := range []struct {
		name string
		kind gpt.GUID
		size int64
	}{{"esp", gpt.TypeESP, espSize}, {"root", gpt.TypeRootAMD64, rootSize}} {
		if _, err := t.Add(gpt.Partition{TypeGUID: p.kind, GUID: gpt.GUID(uuid("partition " + p.name)), Name: p.name}, p.size); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// writeDisk makes the disk of the configuring boot: the file system, and a boot program that the firmware starts by itself.
func (m *maker) writeDisk(ctx context.Context) error {
	program, err := m.configureProgram(ctx)
	if err != nil {
		return err
	}
	t, err := layout()
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(m.work, "disk.img"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(DiskSize); err != nil {
		return err
	}
	if err := t.Write(f); err != nil {
		return err
	}
	root, err := t.Find("root")
	if err != nil {
		return err
	}
	if err := copyAt(ctx, f, t.Offset(root), m.rootFile()); err != nil {
		return err
	}
	if err := writeESP(f, t, fat.BytesFile("EFI/BOOT/BOOTX64.EFI", program)); err != nil {
		return err
	}
	return errors.Join(os.Remove(m.rootFile()), f.Close())
}

// copyAt copies the file name to f's offset. What is zero stays a hole.
func copyAt(ctx context.Context, f *os.File, offset int64, name string) error {
	r, err := os.Open(name)
	if err != nil {
		return err
	}
	defer r.Close()
	buf, zero := make([]byte, mib), make([]byte, mib)
	for ; ctx.Err() == nil; offset += mib {
		n, err := io.ReadFull(r, buf)
		if !bytes.Equal(buf[:n], zero[:n]) {
			if _, err := f.WriteAt(buf[:n], offset); err != nil {
				return err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

func writeESP(f *os.File, t *gpt.Table, files ...fat.File) error {
	esp, err := t.Find("esp")
	if err != nil {
		return err
	}
	sum := digest.Of([]byte("plain debian esp"))
	return fat.Write(io.NewOffsetWriter(f, t.Offset(esp)), fat.Options{
		Size: t.Size(esp), Label: "ESP", Serial: binary.BigEndian.Uint32(sum[:]), HiddenSectors: uint32(esp.FirstLBA),
	}, files)
}

// configureProgram is a boot program of the tools tree's kernel, the modules that lead to the disk, and package guest as /init.
func (m *maker) configureProgram(ctx context.Context) ([]byte, error) {
	kernel, err := guesttest.Kernel(m.tools)
	if err != nil {
		return nil, err
	}
	linux, err := os.ReadFile(kernel)
	if err != nil {
		return nil, err
	}
	modules, err := guesttest.Modules(m.tools, "virtio_blk", "crc32c_generic", "ext4")
	if err != nil {
		return nil, err
	}
	init, err := m.guest(ctx)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"init": init}
	var list bytes.Buffer
	for _, module := range modules {
		name := "lib/modules/" + module.Name + ".ko"
		files[name] = module.Content
		fmt.Fprintf(&list, "/%s\n", name)
	}
	files[strings.TrimPrefix(kmod.ListFile, "/")] = list.Bytes()
	s, err := os.ReadFile(m.tools.Path(stub))
	if err != nil {
		return nil, err
	}
	return uki.Build(s, uki.Contents{
		OSRelease: "ID=debian\nNAME=\"Debian configures itself\"\n",
		// What the kernel does not know of goes into /init's environment.
		Cmdline: "console=ttyS0,115200 no_timer_check quiet panic=-1 ROOT_UUID=" + rootUUID(),
		Uname:   strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-"),
		Linux:   linux,
		Initrd:  guesttest.Archive(files),
	})
}

// guest is the compiled package guest.
func (m *maker) guest(ctx context.Context) ([]byte, error) {
	program := filepath.Join(m.work, "guest")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./qemu-tests/bench/debian/guest")
	cmd.Dir = m.Repository
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+m.lock.Arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build guest: %w\n%s", err, out)
	}
	return os.ReadFile(program)
}

// makeBootable writes the ESP anew: systemd-boot, Debian's kernel and the initramfs that initramfs-tools has made.
func (m *maker) makeBootable(ctx context.Context) error {
	t, err := layout()
	if err != nil {
		return err
	}
	root, err := t.Find("root")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(m.machineDisk(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	entry := fmt.Sprintf("title Debian\nlinux /debian/vmlinuz\ninitrd /debian/initrd.img\noptions root=UUID=%s %s\n", rootUUID(), commandLine)
	boot, err := os.ReadFile(m.tools.Path(loader))
	if err != nil {
		return err
	}
	files := []fat.File{
		fat.BytesFile("EFI/BOOT/BOOTX64.EFI", boot),
		fat.BytesFile("loader/loader.conf", []byte("timeout 0\nconsole-mode keep\n")),
		fat.BytesFile("loader/entries/debian.conf", []byte(entry)),
	}
	for to, from := range map[string]string{"debian/vmlinuz": "/boot/loader-linux", "debian/initrd.img": "/boot/loader-initrd"} {
		b, err := m.readFromRoot(ctx, t.Offset(root), from)
		if err != nil {
			return err
		}
		m.say("%s: %.1f MiB", to, float64(len(b))/mib)
		files = append(files, fat.BytesFile(to, b))
	}
	if err := writeESP(f, t, files...); err != nil {
		return err
	}
	return f.Close()
}

// readFromRoot returns a file of the file system at offset of the machine's disk. debugfs(8) leaves the file system as it is.
func (m *maker) readFromRoot(ctx context.Context, offset int64, name string) ([]byte, error) {
	to := filepath.Join(m.work, filepath.Base(name))
	defer os.Remove(to)
	out, err := m.tool(ctx, "debugfs", "-R", fmt.Sprintf("dump %s %s", name, to), fmt.Sprintf("%s?offset=%d", m.machineDisk(), offset))
	if err != nil {
		return nil, err
	}
	// debugfs is successful whatever happens.
	b, err := os.ReadFile(to)
	if err == nil && len(b) == 0 {
		err = errors.New("the file is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("read %s from the machine's disk: %w; debugfs said: %s", name, err, strings.TrimSpace(out))
	}
	return b, nil
}
