package lock

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/proa-os/proa/image-builder/deb"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/durable"
)

// OpenTar returns the files of a fetched package as an uncompressed tar, positioned at its start. Decompressing xz takes most of the
// time of a build, so the tar is kept in the cache as tar/<sha256 of the package>.tar, with its own sum beside it, which every
// OpenTar compares; a damaged tar is made anew. The caller closes the file.
func OpenTar(cacheDir string, p Package) (*os.File, error) {
	name := filepath.Join(cacheDir, "tar", p.SHA256.String()+".tar")
	f, err := openSummed(name)
	if err == nil {
		return f, nil
	}
	if !errors.Is(err, errNotCached) {
		return nil, fmt.Errorf("open files of %s: %w", p, err)
	}
	if err := makeTar(Path(cacheDir, p), p, name); err != nil {
		return nil, fmt.Errorf("decompress %s: %w", p, DropDamaged(cacheDir, p, err))
	}
	if f, err = openSummed(name); err != nil {
		return nil, fmt.Errorf("open files of %s: %w", p, err)
	}
	return f, nil
}

var errNotCached = errors.New("not in the cache, or damaged there")

func openSummed(name string) (*os.File, error) {
	sum, err := os.ReadFile(name + ".sha256")
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNotCached
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNotCached
	}
	if err != nil {
		return nil, err
	}
	got, _, err := digest.OfReader(f)
	if err == nil && got.String() != string(sum) {
		err = errNotCached
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// copyChecked copies a tar byte by byte and looks at each entry on the way: what a package may not have never gets into the cache.
func copyChecked(w io.Writer, r io.Reader) error {
	r = io.TeeReader(r, w)
	t := tar.NewReader(r)
	seen := make(map[string]bool)
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := deb.CheckEntry(h); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		name := path.Clean(h.Name)
		if seen[name] {
			return fmt.Errorf("%s: it is there twice", h.Name)
		}
		seen[name] = true
	}
	_, err := io.Copy(io.Discard, r) // the padding
	return err
}

// DropDamaged is called when reading a package file of the cache has failed with cause. If the file is no longer the locked one (a disk
// that forgets, somebody's editor), it is removed, so that the next run fetches it anew, and the error says so; otherwise the error
// is cause: then the package itself is bad, and fetching it again would not help.
func DropDamaged(cacheDir string, p Package, cause error) error {
	name := Path(cacheDir, p)
	f, err := os.Open(name)
	if err != nil {
		return cause
	}
	defer f.Close()
	var mismatch *digest.MismatchError
	if _, err := io.Copy(io.Discard, digest.NewReader(name, f, p.Size, p.SHA256)); !errors.As(err, &mismatch) {
		return cause
	}
	if err := os.Remove(name); err != nil {
		return fmt.Errorf("the cache is damaged: %w: remove the file (%w) and run the command again", mismatch, err)
	}
	return fmt.Errorf("the cache was damaged: %w: the file has been removed; run the command again to fetch it anew", mismatch)
}

// makeTar writes name and name.sha256, the sum first: a tar without its sum, or with that of another, does not count.
func makeTar(debFile string, p Package, name string) error {
	d, err := openDeb(debFile, p)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: fetch it first, with image-builder build", err)
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	Sweep(filepath.Dir(name), ".tar-")
	tmp, err := os.CreateTemp(filepath.Dir(name), ".tar-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	sum := sha256.New()
	if err := copyChecked(io.MultiWriter(tmp, sum), d.Data); err != nil {
		return err
	}
	if err := d.verify(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := durable.WritePath(name+".sha256", []byte(digest.SHA256(sum.Sum(nil)).String()), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}
