package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/image-builder/stage"
	"github.com/proa-os/proa/internal/release"
)

// lockFileName is beside Out, which is replaced. It stays: whoever removes a lock lets two in.
func lockFileName(out string) string {
	return filepath.Join(filepath.Dir(out), "."+filepath.Base(out)+".lock")
}

// lockOut waits until no other build works on Out. What the other has built is then found finished, or replaced.
func lockOut(ctx context.Context, in *inputs, _ *release.Release) error {
	out, err := filepath.Abs(in.Out)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(out), 0o755)
	}
	if err != nil {
		return fmt.Errorf("make output directory: %w", err)
	}
	f, err := os.OpenFile(lockFileName(out), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("lock output directory: %w", err)
	}
	in.locks = append(in.locks, f)
	for waiting := false; ; waiting = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if !waiting {
			in.say("waiting for another build into %s", in.Out)
		}
		select { // not in flock(2), which an interrupt would not end
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// makeRoom makes the directory that becomes Out, and opens the cache of stages: a private one if nothing may be taken from earlier builds.
func makeRoom(_ context.Context, in *inputs, _ *release.Release) (err error) {
	if in.work != "" {
		return nil
	}
	parent := filepath.Dir(filepath.Clean(in.Out))
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("make output directory: %w", err)
	}
	if err := checkSpace(parent, buildSpace, "--out"); err != nil {
		return err
	}
	stage.Sweep(parent, workPrefix)
	if in.work, err = os.MkdirTemp(parent, workPrefix); err != nil {
		return fmt.Errorf("make output directory: %w", err)
	}
	held, err := stage.LockDir(in.work)
	if err != nil {
		return fmt.Errorf("make output directory: %w", err)
	}
	in.locks = append(in.locks, held)
	if err := os.Chmod(in.work, 0o755); err != nil {
		return err
	}
	stages, limit := filepath.Join(in.CacheDir, "stages"), int64(stageSpace)
	if in.NoCache {
		stages, limit = filepath.Join(in.work, "stages"), math.MaxInt64
	} else if err := checkSpace(stages, buildSpace, "PROA_CACHE"); err != nil {
		return err
	}
	in.stages, err = stage.Open(stages, limit)
	return err
}

// publish replaces Out by the work directory, without what was only needed on the way. The seal is taken before: the files keep their
// identities, and what happens to Out from then on is a change.
func publish(_ context.Context, in *inputs, _ *release.Release) error {
	for _, dir := range []string{in.programs, filepath.Join(in.work, "stages"), filepath.Join(in.work, "kernel")} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	written, err := in.receipt(in.work)
	if err != nil {
		return err
	}
	if err := replaceDir(in.Out, in.work); err != nil {
		return fmt.Errorf("replace %s: %w", in.Out, err)
	}
	in.work = ""
	return in.remember(written)
}

// replaceDir gives dir the name out. What was there is removed when it has lost that name: at every moment there is a whole build or none.
func replaceDir(out, dir string) error {
	trash, err := os.MkdirTemp(filepath.Dir(dir), workPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(trash)
	old := filepath.Join(trash, "replaced")
	if err := os.Rename(out, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(dir, out); err != nil {
		return errors.Join(err, ignoreMissing(os.Rename(old, out)))
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
