// Package imagetest makes small images for tests: the layout of a release, with a few files, written by the same format packages.
package imagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/image-builder/erofs"
	"github.com/proa-os/proa/image-builder/fat"
	"github.com/proa-os/proa/image-builder/inventory"
	"github.com/proa-os/proa/image-builder/tree"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
	"github.com/proa-os/proa/internal/uki"
	"github.com/proa-os/proa/internal/verity"
)

// A Spec is what an image is made of.
type Spec struct {
	Version  string            // semver
	Kernel   string            // content of the boot program's kernel
	Files    map[string]string // path -> content
	Packages []release.Package
	BootName string // in the ESP; "" means good: proa_<version>.efi
	GRUB     string // grub.cfg in the ESP; "" means none
	Words    string // at the end of the boot program's command line
}

const (
	mib      = 1 << 20
	espSize  = 40 * mib
	slotSize = 4 * mib
	diskSize = 1*mib + espSize + 2*slotSize + 1*mib
)

// Build writes root.img, boot.efi, disk.img and release.json into a new directory.
func Build(t testing.TB, s Spec) (dir string, r *release.Release) {
	t.Helper()
	tools := testenv.Tools(t)
	dir = t.TempDir()
	r, err := build(t.Context(), tools, dir, s)
	if err != nil {
		t.Fatal(err)
	}
	return dir, r
}

func build(ctx context.Context, tools *tooltree.Tree, dir string, s Spec) (*release.Release, error) {
	r := &release.Release{Version: s.Version, Arch: "amd64", Packages: s.Packages}
	var err error
	if r.Root, err = rootImage(ctx, tools, filepath.Join(dir, "root.img"), s); err != nil {
		return nil, err
	}
	boot, err := bootProgram(tools, r, s)
	if err != nil {
		return nil, err
	}
	r.Boot = release.BootProgram{Size: int64(len(boot)), SHA256: digest.Of(boot)}
	text, err := r.Marshal()
	if err != nil {
		return nil, err
	}
	return r, errors.Join(os.WriteFile(filepath.Join(dir, "boot.efi"), boot, 0o644), os.WriteFile(filepath.Join(dir, "release.json"), text, 0o644),
		disk(dir, s, boot))
}

func osRelease(s Spec) string {
	return fmt.Sprintf("ID=proa\nIMAGE_VERSION=%s\n", strings.Replace(s.Version, "-", "~", 1))
}

func rootImage(ctx context.Context, tools *tooltree.Tree, name string, s Spec) (r release.RootImage, err error) {
	list, err := inventory.Marshal(s.Packages)
	if err != nil {
		return r, err
	}
	t := tree.New()
	files := map[string]string{inventory.Path: string(list), "usr/lib/os-release": osRelease(s)}
	for p, text := range s.Files {
		files[p] = text
	}
	for p, text := range files {
		if err := t.Add(tree.Entry{Path: p, Type: tree.File, Mode: 0o644, Size: int64(len(text)), Content: tree.Bytes(text)}); err != nil {
			return r, err
		}
	}
	size, err := erofs.Make(ctx, tools, t, name, "11111111-2222-8333-8444-555555555555", time.Unix(1e9, 0))
	if err != nil {
		return r, err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return r, err
	}
	defer f.Close()
	salt := [32]byte{1, 2, 3}
	root, n, err := verity.Build(f, size, salt, [16]byte{4}, io.NewOffsetWriter(f, size))
	if err != nil {
		return r, err
	}
	r = release.RootImage{Size: size + n, RootHash: root, Salt: fmt.Sprintf("%x", salt), HashOffset: size}
	r.SHA256, _, err = digest.OfReader(f)
	return r, err
}

func bootProgram(tools *tooltree.Tree, r *release.Release, s Spec) ([]byte, error) {
	stub, err := os.ReadFile(tools.Path("usr/lib/systemd/boot/efi/linuxx64.efi.stub"))
	if err != nil {
		return nil, err
	}
	// A kernel is a PE file; the stub is one that is at hand.
	return uki.Build(stub, uki.Contents{
		OSRelease: osRelease(s), Uname: "6.12", Linux: append(bytes.Clone(stub), s.Kernel...), Initrd: []byte("initramfs"),
		Cmdline: fmt.Sprintf("proa.roothash=%s proa.hashoffset=%d panic=10%s", r.Root.RootHash, r.Root.HashOffset, s.Words),
	})
}

func disk(dir string, s Spec, boot []byte) error {
	f, err := os.Create(filepath.Join(dir, "disk.img"))
	if err != nil {
		return err
	}
	defer f.Close()
	t := &gpt.Table{DiskGUID: "00000000-0000-8000-8000-000000000001", SectorSize: 512, Sectors: diskSize / 512}
	for i, p := range []struct {
		name string
		kind gpt.GUID
		size int64
	}{{"esp", gpt.TypeESP, espSize}, {"root-a", gpt.TypeRootAMD64, slotSize}, {"root-b", gpt.TypeRootAMD64, slotSize}} {
		id := gpt.GUID(fmt.Sprintf("00000000-0000-8000-8000-00000000010%d", i))
		if _, err := t.Add(gpt.Partition{TypeGUID: p.kind, GUID: id, Name: p.name}, p.size); err != nil {
			return err
		}
	}
	if err := errors.Join(f.Truncate(diskSize), t.Write(f)); err != nil {
		return err
	}
	name := s.BootName
	if name == "" {
		name = fmt.Sprintf("proa_%s.efi", strings.Replace(s.Version, "-", "~", 1))
	}
	esp, slot := t.Offset(t.Partitions[0]), t.Offset(t.Partitions[1])
	files := []fat.File{fat.BytesFile("EFI/Linux/"+name, boot), fat.BytesFile("loader/loader.conf", []byte("timeout 0\n"))}
	if s.GRUB != "" {
		files = append(files, fat.BytesFile("grub/grub.cfg", []byte(s.GRUB)))
	}
	if err := fat.Write(io.NewOffsetWriter(f, esp), fat.Options{Size: espSize, Label: "ESP", Time: time.Unix(1e9, 0)}, files); err != nil {
		return err
	}
	root, err := os.ReadFile(filepath.Join(dir, "root.img"))
	if err != nil {
		return err
	}
	if len(root) > slotSize {
		return fmt.Errorf("root image of %d bytes: a test's slot holds %d", len(root), slotSize)
	}
	_, err = f.WriteAt(root, slot)
	return err
}
