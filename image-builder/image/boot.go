package image

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/proa-os/proa/image-builder/initramfs"
	"github.com/proa-os/proa/image-builder/rootfs"
	"github.com/proa-os/proa/internal/arch"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/internal/uki"
)

// bootProgram makes boot.efi: stub, kernel, initramfs and the command line with the root hash.
func bootProgram(_ context.Context, in *inputs, r *release.Release) error {
	in.say("write the boot program")
	initrd, err := initramfs.Build(in.kernel, in.manifest.Initramfs.For(r.Arch), filepath.Join(in.programs, path.Base(initProgram)))
	if err != nil {
		return fmt.Errorf("make the initramfs: %w", err)
	}
	a, err := arch.Of(r.Arch)
	if err != nil {
		return fmt.Errorf("make the boot program: %w", err)
	}
	s, err := os.ReadFile(in.tools.Path(a.Stub()))
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
		Initrd:    initrd,
		GRUB:      bootsBIOS(r.Arch),
	})
	if err != nil {
		return fmt.Errorf("make the boot program: %w", err)
	}
	r.Boot = release.BootProgram{Size: int64(len(b)), SHA256: digest.Of(b), Linux: digest.Of(linux), CommandLine: in.commandLine(r)}
	in.sums["boot.efi"] = r.Boot.SHA256
	return os.WriteFile(filepath.Join(in.work, "boot.efi"), b, 0o644)
}

func (in *inputs) commandLine(r *release.Release) string {
	return strings.TrimSpace(fmt.Sprintf("proa.roothash=%s proa.hashoffset=%d %s %s",
		r.Root.RootHash, r.Root.HashOffset, in.manifest.Boot.CommandLine, in.CommandLine))
}
