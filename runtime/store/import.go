package store

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/layer"
	"github.com/proa-os/proa/runtime/ref"
)

const (
	maxDocument = 8 << 20
	maxEntries  = 2_000_000 // of one layer
)

// Import takes the image top from what a fetcher stored in dir, and gives it the name r. Nothing in dir is trusted: its files
// are opened without following links, read twice (first to compare the digest, so that no unverified byte is unpacked; then to
// unpack, comparing again, in case somebody changed the file in between), and the diffID is compared at the end. The caller
// holds the lock.
func (s *Store) Import(ctx context.Context, dir *os.Root, top image.Digest, r ref.Ref) (*Record, error) {
	if want, ok := r.Digest(); ok && want != top {
		return nil, fmt.Errorf("import %s: the fetcher brought %s", r, top)
	}
	img, err := image.Resolve(top, func(d image.Descriptor) ([]byte, error) {
		f, err := openBlob(dir, d.Digest)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, maxDocument))
	})
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", r, err)
	}
	for i, l := range img.Layers {
		diff := img.Config.RootFS.DiffIDs[i]
		if s.HasLayer(diff) {
			continue
		}
		if err := s.unpack(ctx, dir, l, diff); err != nil {
			return nil, fmt.Errorf("import %s: layer %s: %w", r, l.Digest, err)
		}
	}
	for _, d := range img.Docs {
		name := s.path("blobs", "sha256", d.Digest.Hex())
		if err := durable.WritePath(name, d.Data, 0o600); err != nil {
			return nil, fmt.Errorf("import %s: %w", r, err)
		}
	}
	rec := &Record{Name: r.String(), Digest: img.Digest, Top: top, Size: img.Size(), Pulled: time.Now().UTC().Truncate(time.Second)}
	b, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := durable.WritePath(s.record(rec.Name), append(b, '\n'), 0o600); err != nil {
		return nil, fmt.Errorf("import %s: %w", r, err)
	}
	return rec, nil
}

// openBlob opens a regular file that a stranger made: a fifo does not block and a link is not followed.
func openBlob(dir *os.Root, d image.Digest) (*os.File, error) {
	name := filepath.Join("blobs", "sha256", d.Hex())
	f, err := dir.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("blob %s is no regular file", d)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// unpack makes layers/<diffID> from a blob.
func (s *Store) unpack(ctx context.Context, dir *os.Root, l image.Descriptor, diff image.Digest) error {
	f, err := openBlob(dir, l.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	verify := func() io.Reader {
		return digest.NewReader("blob", &contextReader{ctx, f}, l.Size, digest.SHA256(l.Digest))
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, verify(), make([]byte, 256<<10)); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(s.path("tmp"), "layer-")
	if err != nil {
		return err
	}
	defer removeAll(tmp)
	tree := filepath.Join(tmp, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	limits, err := s.limits()
	if err != nil {
		return err
	}
	if err := applyVerified(tree, verify(), diff, limits); err != nil {
		return err
	}
	return s.publish(tree, s.LayerDir(diff))
}

// limits lets one layer fill at most nine tenths of what is free.
func (s *Store) limits() (layer.Limits, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return layer.Limits{}, err
	}
	return layer.Limits{Bytes: int64(st.Bavail) * st.Bsize / 10 * 9, Entries: maxEntries}, nil
}

// applyVerified unpacks blob into tree and compares the digest of what was unpacked. The whole blob is read, so that the
// comparison of its own digest at its end happens.
func applyVerified(tree string, blob io.Reader, diff image.Digest, limits layer.Limits) error {
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

// publish renames a finished tree into place, once everything in it is on disk.
func (s *Store) publish(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	err = unix.Syncfs(int(f.Fd()))
	f.Close()
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
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
