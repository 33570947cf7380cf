package lock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/internal/digest"
)

const (
	parallel = 4       // files at a time
	attempts = 4       // per file, if the connection breaks
	reserve  = 1 << 28 // bytes to leave free on the disk
)

// Path is where the cache keeps a package file. What is there has been verified.
func Path(cacheDir string, p Package) string {
	return filepath.Join(cacheDir, "debs", p.SHA256.String()+".deb")
}

// Fetch brings all packages of l that are not there yet into the cache, a few at a time. What a broken connection or an
// interrupted run has left is continued. A file appears under its name only when all of it has the locked
// sha256; one there of another size is fetched anew. Fetch stops at the first error, which names the package and what to do;
// progress shows bytes and rate.
func Fetch(ctx context.Context, l *Lock, mirrors archive.Mirrors, cacheDir string, progress io.Writer) error {
	f := &fetcher{mirrors: mirrors, cacheDir: cacheDir, getter: archive.NewGetter(), pause: time.Second}
	return f.fetch(ctx, l, progress)
}

type fetcher struct {
	mirrors  archive.Mirrors
	cacheDir string
	getter   *archive.Getter
	pause    time.Duration // before the second attempt; doubles from there
	meter    *meter
}

func (f *fetcher) fetch(ctx context.Context, l *Lock, progress io.Writer) error {
	missing, err := f.missing(l, progress)
	if err != nil || len(missing) == 0 {
		return err
	}
	var total int64
	for _, p := range missing {
		total += p.Size
	}
	if err := f.checkSpace(total); err != nil {
		return err
	}
	f.meter = newMeter(progress, len(missing), total)
	defer f.meter.close()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan Package)
	var wg sync.WaitGroup
	for range min(parallel, len(missing)) {
		wg.Go(func() {
			for p := range work {
				if err := f.one(ctx, p); err != nil {
					cancel(fmt.Errorf("fetch %s: %w", p, err))
					return
				}
				f.meter.fileDone()
			}
		})
	}
send:
	for _, p := range missing {
		select {
		case work <- p:
		case <-ctx.Done():
			break send
		}
	}
	close(work)
	wg.Wait()
	return context.Cause(ctx)
}

// missing lists what has to be fetched.
func (f *fetcher) missing(l *Lock, progress io.Writer) ([]Package, error) {
	if err := os.MkdirAll(filepath.Join(f.cacheDir, "debs"), 0o755); err != nil {
		return nil, fmt.Errorf("fetch packages: %w", err)
	}
	var list []Package
	for _, p := range l.Packages {
		fi, err := os.Stat(Path(f.cacheDir, p))
		switch {
		case errors.Is(err, os.ErrNotExist):
			list = append(list, p)
		case err != nil:
			return nil, fmt.Errorf("fetch packages: %w", err)
		case fi.Size() != p.Size:
			fmt.Fprintf(progress, "fetch %s anew: the cache's %s has %d bytes, expected %d\n", p, Path(f.cacheDir, p), fi.Size(), p.Size)
			list = append(list, p)
		}
	}
	return list, nil
}

func (f *fetcher) checkSpace(need int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(f.cacheDir, &st); err != nil {
		return fmt.Errorf("fetch packages: free space of %s: %w", f.cacheDir, err)
	}
	free := int64(st.Bavail) * st.Bsize
	if free < need+reserve {
		return fmt.Errorf("fetch packages: %s has %s free, %s are needed: free some, or set PROA_CACHE to a directory with more",
			f.cacheDir, mib(free), mib(need+reserve))
	}
	return nil
}

// one fetches a package in as many attempts as broken connections make necessary.
func (f *fetcher) one(ctx context.Context, p Package) error {
	pause := f.pause
	for n := 1; ; n++ {
		err := f.attempt(ctx, p)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if n == attempts || !archive.Transient(err) {
			return f.explain(err)
		}
		select {
		case <-time.After(pause):
			pause *= 2
		case <-ctx.Done():
			return err
		}
	}
}

// explain puts the next step behind an error.
func (f *fetcher) explain(err error) error {
	var (
		mismatch *digest.MismatchError
		path     *os.PathError
		hint     string
	)
	switch {
	case archive.IsMissing(err):
		hint = "the mirror no longer has this version: run image-builder lock to move to the current one"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		hint = f.cacheDir + " is full: free some space, or set PROA_CACHE to a directory with more; what has been fetched is kept"
	case errors.As(err, &mismatch):
		hint = "the mirror's file is not the locked one: try another with --mirror URL"
	case errors.As(err, &path):
		return err
	default:
		hint = "try again, what has been fetched is kept; or another mirror with --mirror URL"
	}
	return fmt.Errorf("%w: %s", err, hint)
}

// attempt continues <sha256>.part or begins it, and renames it when it is complete and right. A part that completes to wrong
// bytes is removed, so that it cannot spoil the next attempt.
func (f *fetcher) attempt(ctx context.Context, p Package) error {
	name := Path(f.cacheDir, p)
	part, err := openPart(ctx, name+".part")
	if err != nil {
		return err
	}
	defer part.Close()
	if fi, err := os.Stat(name); err == nil && fi.Size() == p.Size { // another image-builder was faster
		return os.Remove(part.Name())
	}
	have, err := part.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if have != p.Size {
		if have > p.Size {
			have = 0
		}
		if err := f.download(ctx, p, part, have); err != nil {
			return err
		}
	}
	if _, err := part.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, digest.NewReader(f.mirrors.URL(p.Archive, p.Filename), part, p.Size, p.SHA256))
	if err != nil {
		f.meter.add(-p.Size)
		os.Remove(part.Name())
		if have > 0 { // the old beginning may be to blame: worth one more attempt, from zero
			return fmt.Errorf("verify continued download: %v", err)
		}
		return fmt.Errorf("verify: %w", err)
	}
	if err := part.Sync(); err != nil {
		return err
	}
	return os.Rename(part.Name(), name)
}

// openPart opens or creates the file and takes its lock, so that two builds can share a cache.
func openPart(ctx context.Context, name string) (*os.File, error) {
	for {
		part, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(part.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && sameFile(part, name) {
			return part, nil
		}
		part.Close()
		if err != nil && err != unix.EWOULDBLOCK {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// sameFile is false if the file was renamed or removed between its opening and its locking.
func sameFile(f *os.File, name string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(name)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// download appends to part what is missing from offset have on.
func (f *fetcher) download(ctx context.Context, p Package, part *os.File, have int64) error {
	url := f.mirrors.URL(p.Archive, p.Filename)
	body, start, err := f.getter.Get(ctx, url, have)
	if status := (*archive.StatusError)(nil); errors.As(err, &status) && status.Code == http.StatusRequestedRangeNotSatisfiable {
		return fmt.Errorf("the mirror's file has only %d of %d bytes: %w", have, p.Size, err)
	}
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := part.Seek(start, io.SeekStart); err != nil {
		return err
	}
	if err := part.Truncate(start); err != nil {
		return err
	}
	f.meter.add(start) // what an earlier run has fetched counts as done
	n, err := io.Copy(part, io.TeeReader(io.LimitReader(body, p.Size-start+1), f.meter))
	if err != nil {
		f.meter.add(-start - n)
		return err
	}
	if start+n < p.Size {
		f.meter.add(-start - n)
		return fmt.Errorf("get %s: connection closed after %d of %d bytes", url, start+n, p.Size)
	}
	return nil
}

// FindMirrors is archive.FindMirrors for the flags, the manifest's mirror ("" if it has none) and the host's apt configuration in the
// directory apt, except that it asks for no mirror if the cache has all packages of l: a build from a full cache needs none.
func FindMirrors(l *Lock, cacheDir string, flag archive.Mirrors, manifest, apt string) (archive.Mirrors, error) {
	complete := !slices.ContainsFunc(l.Packages, func(p Package) bool {
		_, err := os.Stat(Path(cacheDir, p))
		return err != nil
	})
	if complete {
		return archive.Mirrors{}, nil
	}
	return archive.FindMirrors(flag, archive.Mirrors{Main: manifest}, os.DirFS(apt))
}
