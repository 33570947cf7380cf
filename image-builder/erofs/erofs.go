// Package erofs makes the read-only file system of a root image (kernel: Documentation/filesystems/erofs.rst).
//
// mkfs.erofs of the tools tree does the work. It gets the tree as a tar stream, so owners, device nodes and links
// need no root and nothing is unpacked on the host. The image is plain: no compression, no shared fragments, blocks
// of 4096 bytes, so that a small change of a file stays a small change of the image (payloads compress, not the
// disk). Data lies in the order of the paths, each file in blocks of its own. That costs half a block a file, against tails among the
// inodes, and with it mkfs.erofs writes what comes instead of keeping a copy of it first: a quarter of the time.
//
// The result depends on the tree, the UUID, the time and the version of mkfs.erofs alone.
package erofs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/proa-os/proa/image-builder/tree"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/tooltree"
)

// BlockSize is the unit the image's size is a multiple of, in bytes; dm-verity needs the same.
const BlockSize = 4096

// Make writes the image to the file out, which is replaced, and returns its size in bytes. Every file gets the time
// mtime, to the second.
func Make(ctx context.Context, tools *tooltree.Tree, t *tree.Tree, out string, uuid gpt.GUID, mtime time.Time) (int64, error) {
	size, err := makeImage(ctx, tools, t, out, uuid, mtime)
	if err != nil {
		os.Remove(out) // half an image must not look like one
		return 0, fmt.Errorf("make EROFS image %s: %w", out, err)
	}
	return size, nil
}

func makeImage(ctx context.Context, tools *tooltree.Tree, t *tree.Tree, out string, uuid gpt.GUID, mtime time.Time) (int64, error) {
	if err := os.Remove(out); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := tools.Command(ctx, "mkfs.erofs", "--tar=f", "--sort=none", "-E^inline_data", "--quiet", fmt.Sprintf("-b%d", BlockSize), "-U"+uuid.String(),
		fmt.Sprintf("-T%d", mtime.Unix()), out)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	archive, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("mkfs.erofs: %w", err)
	}
	werr := t.WriteTar(archive, mtime)
	if werr != nil && !errors.Is(werr, syscall.EPIPE) {
		cancel() // mkfs.erofs 1.8.6 waits forever for the rest of an archive that was cut off
		cmd.Wait()
		return 0, werr
	}
	archive.Close()
	if err := cmd.Wait(); err != nil {
		return 0, fmt.Errorf("mkfs.erofs: %w: %s", err, bytes.TrimSpace(output.Bytes()))
	}
	if werr != nil {
		return 0, werr
	}
	return checkSize(out)
}

// magic is at byte 1024 of an EROFS image, little-endian (fs/erofs/erofs_fs.h).
const magic = "\xe2\xe1\xf5\xe0"

// checkSize makes sure that a file system is there and fills whole blocks.
func checkSize(out string) (int64, error) {
	f, err := os.Open(out)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b := make([]byte, len(magic))
	if _, err := f.ReadAt(b, 1024); err != nil {
		return 0, fmt.Errorf("read superblock: %w", err)
	}
	if string(b) != magic {
		return 0, fmt.Errorf("mkfs.erofs made no file system: expected the magic %x, found %x", magic, b)
	}
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if fi.Size()%BlockSize != 0 {
		return 0, fmt.Errorf("size %d is not a multiple of %d", fi.Size(), BlockSize)
	}
	return fi.Size(), nil
}
