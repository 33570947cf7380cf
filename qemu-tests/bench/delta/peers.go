package delta

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/proa-os/proa/image-builder/tools"
	"github.com/proa-os/proa/internal/tooltree"
	"github.com/proa-os/proa/update-engine/extent"
)

// peers are the other programs, in a tree of their own.
type peers struct{ *tooltree.Tree }

// openPeers unpacks them in the cache. The tree that builds use stays the current one.
func openPeers(ctx context.Context, repo, apt string, progress io.Writer) (*peers, error) {
	cache, err := tooltree.CacheDir()
	if err != nil {
		return nil, err
	}
	manifests := filepath.Join(repo, "manifests")
	dir, err := tools.Run(ctx, tools.Options{Manifest: filepath.Join(manifests, "peers.toml"), LockFile: filepath.Join(manifests, "peers.lock.json"),
		CacheDir: filepath.Join(cache, "bench", "peers"), APT: apt, Progress: progress})
	if err != nil {
		return nil, err
	}
	tree, err := tooltree.OpenDir(dir)
	return &peers{tree}, err
}

func (p *peers) run(ctx context.Context, program string, args ...string) (Usage, error) {
	return usage(p.Command(ctx, program, args...))
}

// A method makes an update of two files in a folder, and says how many bytes a machine would fetch.
type method struct {
	name string
	make func(ctx context.Context, p *peers, old, new, dir string) (int64, Usage, error)
}

func methods() []method {
	return []method{
		{"xdelta3 -9", xdelta3},
		{"zstd -19 --patch-from", patchFrom},
		{"casync", casync},
		{"bsdiff, file by file", bsdiffFiles},
	}
}

func xdelta3(ctx context.Context, p *peers, old, new, dir string) (int64, Usage, error) {
	fi, err := os.Stat(old)
	if err != nil {
		return 0, Usage{}, err
	}
	// All of the old image may be looked at, not the 64 MiB that are the default.
	window := strconv.FormatInt(max(fi.Size(), 1<<20), 10)
	out := filepath.Join(dir, "delta")
	used, err := p.run(ctx, "xdelta3", "-9", "-e", "-f", "-B", window, "-s", old, new, out)
	return sized(out, used, err)
}

func patchFrom(ctx context.Context, p *peers, old, new, dir string) (int64, Usage, error) {
	out := filepath.Join(dir, "delta")
	used, err := p.run(ctx, "zstd", "-19", "--long=31", "--single-thread", "-q", "-f", "--patch-from="+old, new, "-o", out)
	return sized(out, used, err)
}

func sized(file string, used Usage, err error) (int64, Usage, error) {
	if err != nil {
		return 0, used, err
	}
	fi, err := os.Stat(file)
	if err != nil {
		return 0, used, err
	}
	return fi.Size(), used, nil
}

// casync counts the index of the new image and the chunks that the old one has not.
func casync(ctx context.Context, p *peers, old, new, dir string) (int64, Usage, error) {
	store, index := filepath.Join(dir, "store.castr"), filepath.Join(dir, "new.caibx")
	var used Usage
	var before int64
	for _, image := range []struct{ index, file string }{{filepath.Join(dir, "old.caibx"), old}, {index, new}} {
		var err error
		if before, err = treeSize(store); err != nil {
			return 0, used, err
		}
		u, err := p.run(ctx, "casync", "make", "--store="+store, image.index, image.file)
		if err != nil {
			return 0, used, err
		}
		used = u // of the new image; the old one is in the store since its own release
	}
	after, err := treeSize(store)
	if err != nil {
		return 0, used, err
	}
	size, used, err := sized(index, used, nil)
	return size + after - before, used, err
}

// treeSize is the sum of the files in a folder, which need not be there.
func treeSize(dir string) (n int64, err error) {
	if _, err := os.Stat(dir); os.IsNotExist(err) {
		return 0, nil
	}
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		fi, err := d.Info()
		if err == nil {
			n += fi.Size()
		}
		return err
	})
	return n, err
}

// bsdiffFiles sums up the patches of all files that differ, paired as payloads pair them; what is in no file is left out.
func bsdiffFiles(ctx context.Context, p *peers, old, new, dir string) (total int64, used Usage, err error) {
	var maps [2]*extent.Map
	var files [2]*os.File
	for i, name := range []string{old, new} {
		if files[i], err = os.Open(name); err != nil {
			return 0, used, err
		}
		defer files[i].Close()
		fi, err := files[i].Stat()
		if err != nil {
			return 0, used, err
		}
		if maps[i], err = extent.Read(files[i], fi.Size()); err == nil {
			err = maps[i].Hash(files[i])
		}
		if err != nil {
			return 0, used, err
		}
	}
	a, b, patch := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "patch")
	for _, m := range extent.Match(maps[0].Files, maps[1].Files) {
		if m.Equal {
			continue
		}
		var before extent.Extent
		if m.Old >= 0 {
			before = maps[0].Files[m.Old]
		}
		if err := writeExtent(a, files[0], before); err != nil {
			return 0, used, err
		}
		if err := writeExtent(b, files[1], maps[1].Files[m.New]); err != nil {
			return 0, used, err
		}
		u, err := p.run(ctx, "bsdiff", a, b, patch)
		n, u, err := sized(patch, u, err)
		if err != nil {
			return 0, used, fmt.Errorf("%s: %w", maps[1].Files[m.New].Path, err)
		}
		total, used = total+n, used.and(u)
	}
	return total, used, nil
}

// writeExtent writes the content of a file; one that is not there is a single zero, because bsdiff takes no empty files.
func writeExtent(name string, r io.ReaderAt, e extent.Extent) error {
	if e.Size == 0 {
		return os.WriteFile(name, []byte{0}, 0o644)
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, io.NewSectionReader(r, e.Offset, e.Size))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
