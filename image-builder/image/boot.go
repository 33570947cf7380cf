package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/proa-os/proa/image-builder/cpio"
	"github.com/proa-os/proa/image-builder/rootfs"
	"github.com/proa-os/proa/image-builder/tree"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/internal/uki"
)

// stub is systemd's EFI stub in the tools tree; the loader beside it goes to the ESP.
const (
	stub   = "usr/lib/systemd/boot/efi/linuxx64.efi.stub"
	loader = "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
)

// bootProgram makes boot.efi: stub, kernel, initramfs and the command line with the root hash.
func bootProgram(_ context.Context, in *inputs, r *release.Release) error {
	in.say("write the boot program")
	initramfs, err := initramfs(in)
	if err != nil {
		return fmt.Errorf("make the initramfs: %w", err)
	}
	s, err := os.ReadFile(in.tools.Path(stub))
	if err != nil {
		return fmt.Errorf("make the boot program: %w", err)
	}
	linux, err := os.ReadFile(in.kernel.Image())
	if err != nil {
		return fmt.Errorf("make the boot program: %w", err)
	}
	b, err := uki.Build(s, uki.Contents{
		OSRelease: rootfs.OSRelease(in.Version),
		Cmdline:   in.commandLine(r),
		Uname:     in.kernel.Version,
		Linux:     linux,
		Initrd:    initramfs,
		GRUB:      bootsBIOS(r.Arch),
	})
	if err != nil {
		return fmt.Errorf("make the boot program: %w", err)
	}
	r.Boot = release.BootProgram{Size: int64(len(b)), SHA256: digest.Of(b)}
	in.sums["boot.efi"] = r.Boot.SHA256
	return os.WriteFile(filepath.Join(in.work, "boot.efi"), b, 0o644)
}

func (in *inputs) commandLine(r *release.Release) string {
	return strings.TrimSpace(fmt.Sprintf("proa.roothash=%s proa.hashoffset=%d %s %s",
		r.Root.RootHash, r.Root.HashOffset, in.manifest.Boot.CommandLine, in.CommandLine))
}

// moduleList is where /init reads which modules to load, one path a line, in order.
const moduleList = "etc/proa/modules"

// initramfs returns the cpio archive: /init, mount points, a console, and the modules that lead to the root image.
func initramfs(in *inputs) ([]byte, error) {
	index, err := in.kernel.Index()
	if err != nil {
		return nil, err
	}
	order, err := index.Order(in.manifest.Initramfs.Modules)
	if err != nil {
		return nil, err
	}
	t := tree.New()
	for _, d := range []string{"dev", "proc", "sys", "run", "sysroot"} {
		if err := t.Add(tree.Entry{Path: d, Type: tree.Dir, Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	// The kernel opens it for /init before anything is mounted.
	if err := t.Add(tree.Entry{Path: "dev/console", Type: tree.Char, Mode: 0o600, Major: 5, Minor: 1}); err != nil {
		return nil, err
	}
	if err := addFile(t, "init", filepath.Join(in.programs, path.Base(initProgram)), 0o755); err != nil {
		return nil, err
	}
	var list strings.Builder
	for _, m := range order {
		p := path.Join("lib/modules", path.Base(m))
		fmt.Fprintf(&list, "/%s\n", p)
		if err := addFile(t, p, filepath.Join(in.kernel.ModulesDir(), m), 0o644); err != nil {
			return nil, err
		}
	}
	if err := t.Add(tree.Entry{Path: moduleList, Type: tree.File, Mode: 0o644, Size: int64(list.Len()), Content: tree.Bytes(list.String())}); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := cpio.Write(&b, t); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func addFile(t *tree.Tree, p, name string, mode uint32) error {
	fi, err := os.Stat(name)
	if err != nil {
		return err
	}
	return t.Add(tree.Entry{Path: p, Type: tree.File, Mode: mode, Size: fi.Size(), Content: tree.HostFile(name)})
}
