package qemutests

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/vm/blklog"
	"github.com/proa-os/proa/qemu-tests/world"
)

// pullCuts is at how many of the disk's writes during pulls TestPullPowerLost loses the power.
const pullCuts = 40

// TestPullPowerLost has a machine pull images, one of them of Debian's packages, and loses the power at some of the writes: the store that is
// there then, as foreign programs read it, has whole layers only, and no image that lacks one.
func TestPullPowerLost(t *testing.T) {
	atFullDepth(t)
	s := begin(t, 6)
	registry := s.registryOf(func(r *world.Registry) error { return r.PushPages(t.Context(), s.repo, "lab/pages:1", pagesText) })
	m := s.machineFrom("puller", s.image("1.0.0", "").Disk(), provision.New(), func(c *vm.Config) { c.LogWrites = true })
	step(t, m, "pull", func(t *testing.T) {
		up(t, m)
		run(t, m, "sync; echo begins > /var/lib/pulls; sync")
		for _, image := range []string{"/lab/hello:1", "/lab/pages:1"} {
			run(t, m, "containerctl pull --tls-verify=false "+registry.GuestHost()+image)
		}
	})
	check(t, m.Shutdown(t.Context()))
	log := must(m.OpenWriteLog())(t)
	defer log.Close()
	cutPulls(t, log.Log, log.Base, m.Disk(), s.dir)
}

// cutPulls judges the store at moments of a log.
func cutPulls(t *testing.T, log *blklog.Log, base, disk, dir string) {
	t.Helper()
	final := readStore(t, disk, dir)
	if len(final.images) != 2 || len(final.layers) < 3 {
		t.Fatalf("got %d images and %d layers in the end: nothing to compare with", len(final.images), len(final.layers))
	}
	name := filepath.Join(dir, "cut.raw")
	check(t, vm.CopySparse(name, base, 0))
	f := must(os.OpenFile(name, os.O_RDWR, 0))(t)
	defer f.Close()
	seen := map[int]int{} // numbers of layers to numbers of moments
	begin := begins(t, log, f)
	at := begin
	for k := range pullCuts {
		to := begin + (len(log.Entries)-begin)*(k+1)/pullCuts
		check(t, log.Replay(blklog.File{File: f}, at, to))
		at = to
		now := readStore(t, name, dir)
		now.within(t, final, to)
		seen[len(now.layers)]++
	}
	t.Logf("power cuts at %d of %d writes; with N layers there were %v", pullCuts, len(log.Entries)-begin, seen)
	if len(seen) < 3 {
		t.Errorf("got stores with %v layers, want some before, between and after the pulls", seen)
	}
}

// begins replays what was written before the pulls, and returns how many entries those are.
func begins(t *testing.T, log *blklog.Log, f *os.File) int {
	t.Helper()
	mark := []byte("begins\n")
	for i, e := range log.Entries {
		check(t, log.Replay(blklog.File{File: f}, i, i+1))
		if e.Flags&(blklog.Mark|blklog.Discard) != 0 || e.Length == 0 || e.Length > 1<<20 {
			continue
		}
		b := make([]byte, e.Length)
		if _, err := f.ReadAt(b, e.Offset); err != nil {
			t.Fatal(err)
		}
		for sector := range slices.Chunk(b, 512) {
			if bytes.HasPrefix(sector, mark) {
				return i + 1
			}
		}
	}
	t.Fatal("nothing was written before the pulls")
	return 0
}

// A pulled is a store of images as it lies on a disk.
type pulled struct {
	layers map[string]string // to the digest of all that is in them
	images map[string]string // records
}

// readStore reads the store on a disk, after a replay of the file system's journal as a machine does it.
func readStore(t *testing.T, disk, dir string) pulled {
	t.Helper()
	f := must(os.Open(disk))(t)
	defer f.Close()
	table := must(gpt.Read(f, must(f.Stat())(t).Size(), 512))(t)
	p := must(table.Find("state"))(t)
	tmp := must(os.MkdirTemp(dir, "store-"))(t)
	defer os.RemoveAll(tmp)
	part := filepath.Join(tmp, "state.ext4")
	check(t, copyRange(part, f, table.Offset(p), table.Size(p)))
	tools := testenv.Tools(t)
	for _, args := range [][]string{{"-E", "journal_only", "-y", part}, {"-f", "-n", part}} {
		if out, err := tools.Command(t.Context(), "e2fsck", args...).CombinedOutput(); err != nil {
			t.Errorf("e2fsck %v: %v\n%s", args, err, out)
		}
	}
	const at = "/lib/proa/containers/"
	out := pulled{map[string]string{}, map[string]string{}}
	for _, d := range []string{"layers", "images"} {
		to := filepath.Join(tmp, d)
		// As somebody who may not give files away it says so and goes on, and where there is nothing it makes nothing.
		if text, err := tools.Command(t.Context(), "debugfs", "-R", "rdump "+at+d+" "+tmp, part).CombinedOutput(); err != nil {
			t.Fatalf("debugfs: %v\n%s", err, text)
		}
		entries, err := os.ReadDir(to)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			digest := must(digestOfTree(filepath.Join(to, e.Name())))(t)
			switch {
			case d == "layers":
				out.layers[e.Name()] = digest
			case !strings.HasPrefix(e.Name(), "."): // else it is being written, and the store does not look at it
				out.images[e.Name()] = digest
			}
		}
	}
	return out
}

// digestOfTree is the digest of names, types and contents, not of owners, which debugfs may not be able to give.
func digestOfTree(root string) (string, error) {
	sum := sha256.New()
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, name)
		fmt.Fprintf(sum, "%q %v", rel, e.Type())
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(name)
			fmt.Fprintf(sum, " %q", to)
			return err
		case e.Type().IsRegular():
			b, err := os.ReadFile(name)
			fmt.Fprintf(sum, " %x", sha256.Sum256(b))
			return err
		}
		return nil
	})
	return fmt.Sprintf("%x", sum.Sum(nil)), err
}

// within checks that a store has nothing that the final one does not have in the same way, and whole images only.
func (p pulled) within(t *testing.T, final pulled, after int) {
	t.Helper()
	var err error
	for name, digest := range p.layers {
		if final.layers[name] != digest {
			err = errors.Join(err, fmt.Errorf("layer %s is not whole", name))
		}
	}
	for name, digest := range p.images {
		if final.images[name] != digest {
			err = errors.Join(err, fmt.Errorf("the record %s is not whole", name))
		}
	}
	// hello's layers come first, then those of pages, which is the other image.
	pages := slices.ContainsFunc(slices.Collect(maps.Keys(p.images)), func(n string) bool { return strings.Contains(n, "pages") })
	if pages && len(p.layers) != len(final.layers) || len(p.images) > 0 && len(p.layers) == 0 {
		err = errors.Join(err, fmt.Errorf("there are %d images and %d layers of %d", len(p.images), len(p.layers), len(final.layers)))
	}
	if err != nil {
		t.Errorf("power cut after write %d: %v", after, err)
	}
}
