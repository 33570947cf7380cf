package lock

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/image-builder/resolve"
)

// Update reads the indexes of spec's suites, verifies them, resolves the package list and returns the lock. One line per suite
// and one for the outcome go to progress.
func Update(ctx context.Context, spec Spec, c *archive.Client, progress io.Writer) (*Lock, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	var available []archive.Package
	for _, suite := range spec.Suites {
		list, rel, err := c.Packages(ctx, suite, spec.Arch)
		if err != nil {
			return nil, fmt.Errorf("lock packages: %w", err)
		}
		fmt.Fprintf(progress, "index of %s: %d packages, dated %s, signed by %s\n",
			suite, len(list), rel.Date.Format(time.DateOnly), rel.Signer)
		available = append(available, list...)
	}
	chosen, err := resolve.Closure(available, spec.Arch, spec.Include, spec.Exclude)
	if err != nil {
		return nil, err
	}
	l := New(spec, chosen)
	fmt.Fprintf(progress, "locked %d packages, %s\n", len(l.Packages), mib(l.size()))
	return l, nil
}

func (l *Lock) size() int64 {
	var n int64
	for _, p := range l.Packages {
		n += p.Size
	}
	return n
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// Options say what Run works on.
type Options struct {
	Spec     Spec   // the manifest's package list
	Mirror   string // the manifest's mirror, or ""
	LockFile string // written
	Keys     string // directory of the archive's public keys
	Flag     archive.Mirrors
	APT      string // the host's apt configuration, normally /etc/apt
	Progress io.Writer
}

// Run is the command `image-builder lock`: it resolves a package list anew and writes the lock file. The old lock stays as
// it was if anything fails.
func Run(ctx context.Context, o Options) error {
	keys, err := archive.ReadKeyring(os.DirFS(o.Keys))
	if err != nil {
		return err
	}
	mirrors, err := archive.FindMirrors(o.Flag, archive.Mirrors{Main: o.Mirror}, os.DirFS(o.APT))
	if err != nil {
		return err
	}
	c := &archive.Client{Mirrors: mirrors, Keys: keys, Getter: archive.NewGetter(), Now: time.Now}
	l, err := Update(ctx, o.Spec, c, o.Progress)
	if err != nil {
		return err
	}
	return l.Write(o.LockFile)
}
