package store

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/layer"
)

const maxEntries = 2_000_000 // of an image's layers together

const largeWindow = 16 << 20 // zstd: decoders that need more memory go one at a time

// limits lets an image fill at most nine tenths of what is free.
func (s *Store) limits() (layer.Limits, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return layer.Limits{}, err
	}
	return limitsOf(st), nil
}

// limitsOf leaves the last tenth of bytes and of inodes. A file system without inodes to count, as btrfs, says that it has none at all.
func limitsOf(st unix.Statfs_t) layer.Limits {
	entries := uint64(maxEntries)
	if st.Files > 0 {
		entries = min(entries, st.Ffree/10*9)
	}
	return layer.Limits{Bytes: int64(st.Bavail) * st.Bsize / 10 * 9, Entries: int64(entries), Taken: new(layer.Taken)}
}

// unpackLayer makes a tree from a verified blob.
func (i *importing) unpackLayer(ctx context.Context, j job) (string, error) {
	tree := filepath.Join(i.dir, j.diff.Hex())
	if err := os.Mkdir(tree, 0o755); err != nil {
		return "", err
	}
	if _, err := j.file.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	blob := bufio.NewReaderSize(&contextReader{ctx, j.file}, 256<<10)
	if layer.Window(blob) > largeWindow {
		release, err := slot(ctx, i.large)
		if err != nil {
			return "", err
		}
		defer release()
	}
	return tree, apply(tree, blob, j.diff, i.limits)
}

// apply unpacks a blob into tree and compares the digest of what was unpacked.
func apply(tree string, blob *bufio.Reader, diff image.Digest, limits layer.Limits) error {
	fd, err := unix.Open(tree, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	plain, err := layer.Decompress(blob)
	if err != nil {
		return err
	}
	defer plain.Close()
	sum := sha256.New()
	in := bufio.NewReaderSize(io.TeeReader(plain, sum), 256<<10)
	if err := layer.Apply(fd, in, layer.Options{Limits: limits, Unprivileged: os.Geteuid() != 0}); err != nil {
		return err
	}
	if got := image.Digest(sum.Sum(nil)); got != diff {
		return fmt.Errorf("expected diffID %s, found %s", diff, got)
	}
	n, err := io.Copy(io.Discard, blob)
	if err == nil && n > 0 {
		err = fmt.Errorf("%d bytes behind the compressed archive", n)
	}
	return err
}

// publish renames the finished trees into place, once everything in them is on disk.
func (i *importing) publish() error {
	if len(i.done) == 0 {
		return nil
	}
	f, err := os.Open(i.dir)
	if err != nil {
		return err
	}
	err = unix.Syncfs(int(f.Fd()))
	f.Close()
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	for diff, tree := range i.done {
		err := unix.Renameat2(unix.AT_FDCWD, tree, unix.AT_FDCWD, i.s.LayerDir(diff), unix.RENAME_NOREPLACE)
		if err != nil && !errors.Is(err, os.ErrExist) { // the same layer compressed in another way
			return fmt.Errorf("publish layer: %w", err)
		}
	}
	return syncDir(i.s.path("layers"))
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
