package lock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/image-builder/resolve"
)

// Update reads the indexes of spec's suites, verifies them, resolves the package list and returns the lock. One line per suite
// and one for the outcome go to progress.
func Update(ctx context.Context, spec Spec, c *archive.Client, progress io.Writer) (*Lock, error) {
	return update(ctx, spec, nil, newIndexes(c, progress), progress)
}

// update is Update that refuses suites older than those of previous, if that is not nil.
func update(ctx context.Context, spec Spec, previous *Lock, in *indexes, progress io.Writer) (*Lock, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	var (
		available []archive.Package
		suites    []Suite
	)
	for _, name := range spec.Suites {
		list, date, err := in.packages(ctx, name, spec.Arch)
		if err != nil {
			return nil, fmt.Errorf("lock packages: %w", err)
		}
		s := Suite{Name: name, Date: date.UTC().Truncate(time.Second)}
		if err := previous.checkAge(s); err != nil {
			return nil, fmt.Errorf("lock packages: %w", err)
		}
		available, suites = append(available, list...), append(suites, s)
	}
	chosen, err := resolve.Closure(available, spec.Arch, spec.Include, spec.Exclude)
	if err != nil {
		return nil, err
	}
	l := New(spec, suites, chosen)
	fmt.Fprintf(progress, "resolved %d packages, %s\n", len(l.Packages), mib(l.size()))
	return l, nil
}

// checkAge fails if a suite's state is older than the one that l was made from.
func (l *Lock) checkAge(s Suite) error {
	if l == nil {
		return nil
	}
	i := slices.IndexFunc(l.Suites, func(o Suite) bool { return o.Name == s.Name })
	if i < 0 || !s.Date.Before(l.Suites[i].Date) {
		return nil
	}
	return fmt.Errorf("index of %s: the mirror's is of %s, the lock was made from one of %s: the mirror is behind, or replays an old state; "+
		"try another mirror, or pass --allow-older to go back", s.Name, s.Date.Format(time.RFC3339), l.Suites[i].Date.Format(time.RFC3339))
}

// indexes reads each suite's index once, so that all locks of one run are made from the same state.
type indexes struct {
	client   *archive.Client
	progress io.Writer
	seen     map[string]index // by suite and architecture
}

type index struct {
	packages []archive.Package
	date     time.Time
}

func newIndexes(c *archive.Client, progress io.Writer) *indexes {
	return &indexes{client: c, progress: progress, seen: make(map[string]index)}
}

func (in *indexes) packages(ctx context.Context, suite, arch string) ([]archive.Package, time.Time, error) {
	key := suite + " " + arch
	if i, ok := in.seen[key]; ok {
		return i.packages, i.date, nil
	}
	list, rel, err := in.client.Packages(ctx, suite, arch)
	if err != nil {
		return nil, time.Time{}, err
	}
	fmt.Fprintf(in.progress, "index of %s (%s): %d packages for %s, dated %s, signed by %s\n",
		suite, rel.Status, len(list), arch, rel.Date.Format(time.DateOnly), rel.Signer)
	in.seen[key] = index{list, rel.Date}
	return list, rel.Date, nil
}

func (l *Lock) size() int64 {
	var n int64
	for _, p := range l.Packages {
		n += p.Size
	}
	return n
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// Target is one manifest to pin.
type Target struct {
	Manifest string // what reports call it
	Spec     Spec   // its package list
	Mirror   string // its mirror, or ""
	LockFile string // written
}

// Options say what Run works on.
type Options struct {
	Targets    []Target
	Keys       string // directory of the archive's public keys
	Flag       archive.Mirrors
	APT        string // the host's apt configuration, normally /etc/apt
	AllowOlder bool   // accept a state of the archive older than the one a lock was made from
	DryRun     bool   // write nothing
	Progress   io.Writer
}

// Run is the command `image-builder lock`: it resolves package lists anew, writes the lock files and returns what changed, one
// element a target. All old locks stay as they were if anything fails before the first is written; each is replaced in one step.
func Run(ctx context.Context, o Options) ([]Changes, error) {
	keys, err := archive.ReadKeyring(os.DirFS(o.Keys))
	if err != nil {
		return nil, err
	}
	var (
		locks   []*Lock
		changes []Changes
		shared  = make(map[archive.Mirrors]*indexes)
	)
	for _, t := range o.Targets {
		mirrors, err := archive.FindMirrors(o.Flag, archive.Mirrors{Main: t.Mirror}, os.DirFS(o.APT))
		if err != nil {
			return nil, err
		}
		if shared[mirrors] == nil {
			shared[mirrors] = newIndexes(&archive.Client{Mirrors: mirrors, Keys: keys, Getter: archive.NewGetter(), Now: time.Now}, o.Progress)
		}
		old, err := readOld(t.LockFile)
		if err != nil {
			return nil, err
		}
		floor := old
		if o.AllowOlder {
			floor = nil
		}
		l, err := update(ctx, t.Spec, floor, shared[mirrors], o.Progress)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.Manifest, err)
		}
		c := Diff(old, l)
		c.Manifest, c.LockFile = t.Manifest, t.LockFile
		locks, changes = append(locks, l), append(changes, c)
	}
	if o.DryRun {
		return changes, nil
	}
	for i, t := range o.Targets {
		if err := locks[i].Write(t.LockFile); err != nil {
			return nil, err
		}
	}
	return changes, nil
}

// readOld returns nil if there is no lock yet. A damaged one is an error: with it would go the dates that Run must not fall behind.
func readOld(file string) (*Lock, error) {
	l, err := Read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("old lock: %w: bring back the last good one, or remove it to begin anew", err)
	}
	return l, nil
}
