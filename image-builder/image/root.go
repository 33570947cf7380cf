package image

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/proa-os/proa/image-builder/erofs"
	"github.com/proa-os/proa/image-builder/rootfs"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/internal/verity"
)

// derive returns an identifier that depends on its words only.
func derive(words ...string) [sha256.Size]byte {
	h := sha256.New()
	for _, w := range words {
		fmt.Fprintf(h, "%d:%s", len(w), w)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func guid(words ...string) gpt.GUID {
	d := derive(words...)
	return gpt.NewGUID([16]byte(d[:16]))
}

// rootImage makes root.img: EROFS, then the verity superblock and tree.
func rootImage(ctx context.Context, in *inputs, r *release.Release) error {
	in.say("make the tree")
	t, err := rootfs.Build(ctx, rootfs.Input{
		Manifest: in.manifest, Lock: in.lock, CacheDir: in.CacheDir, Spool: in.spool, Kernel: in.kernel,
		Programs: in.programs, Overlays: append([]string{in.path("files")}, in.Overlays...), Version: in.Version,
	})
	if err != nil {
		return fmt.Errorf("make the tree: %w", err)
	}
	in.say("write the root image: %d entries", t.Len())
	name := filepath.Join(in.work, "root.img")
	size, err := erofs.Make(ctx, in.tools, t, name, guid("root image", r.Arch), Epoch)
	if err != nil {
		return err
	}
	if err := appendTree(name, size, r); err != nil {
		return fmt.Errorf("append verity tree: %w", err)
	}
	return nil
}

// appendTree derives the salt from the file system, so that the same content always has the same root hash.
func appendTree(name string, size int64, r *release.Release) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	sum, _, err := digest.OfReader(f)
	if err != nil {
		return err
	}
	salt := derive("verity salt", sum.String())
	// The UUID is the start of the salt, as where a machine rebuilds the tree: then its slot is root.img to the byte.
	root, written, err := verity.Build(f, size, salt, [16]byte(salt[:16]), io.NewOffsetWriter(f, size))
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	r.Root = release.RootImage{Size: size + written, RootHash: root, Salt: fmt.Sprintf("%x", salt), HashOffset: size}
	if r.Root.Size > slotSize {
		return fmt.Errorf("root image has %d bytes, a slot holds %d", r.Root.Size, int64(slotSize))
	}
	r.Root.SHA256, _, err = sumFile(name)
	return err
}
