package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/proa-os/proa/image-builder/program"
	"github.com/proa-os/proa/image-builder/stage"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
)

// ownPrograms are the packages of all programs, that of the initramfs included.
func (in *inputs) ownPrograms() []string {
	list := append(slices.Collect(maps.Values(in.manifest.Programs)), initProgram)
	slices.Sort(list)
	return slices.Compact(list)
}

// listPrograms asks go what the programs are made of; it compiles packages, links nothing.
func listPrograms(ctx context.Context, in *inputs, r *release.Release) (err error) {
	in.say("compile programs")
	in.sources, err = program.List(ctx, in.Module, r.Arch, in.ownPrograms())
	if err == nil {
		r.Build.GoVersion = in.sources.GoVersion
	}
	return err
}

// compile links the programs that are not in the cache. The directory of programs has links into the cache.
func compile(ctx context.Context, in *inputs, r *release.Release) error {
	in.say("link programs")
	in.programs = filepath.Join(in.work, "programs")
	var changed string
	const attempts = 3
	for range attempts {
		if err := os.RemoveAll(in.programs); err != nil {
			return err
		}
		if err := os.MkdirAll(in.programs, 0o755); err != nil {
			return err
		}
		var err error
		if changed, err = in.link(ctx, r.Arch); err != nil || changed == "" {
			return err
		}
		if err := listPrograms(ctx, in, r); err != nil {
			return err
		}
	}
	return fmt.Errorf("compile programs: %s changes all the time: build again when it is saved", changed)
}

// link fills the directory of programs. If a source changed meanwhile it returns its name and has kept nothing.
func (in *inputs) link(ctx context.Context, arch string) (changed string, err error) {
	const file = "program"
	key := func(name string) digest.SHA256 {
		return stage.NewKey("program").Add("inputs", in.sources.Inputs[name]).Sum()
	}
	var missing []string
	for _, name := range in.ownPrograms() {
		e, err := in.stages.Get(key(name))
		if err != nil {
			return "", err
		}
		if e == nil {
			missing = append(missing, name)
			continue
		}
		in.entries = append(in.entries, e)
		if err := os.Symlink(e.Path(file), filepath.Join(in.programs, path.Base(name))); err != nil {
			return "", err
		}
	}
	if len(missing) == 0 {
		return "", nil
	}
	built, err := os.MkdirTemp(in.work, "link-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(built)
	if err := program.Build(ctx, in.Module, arch, built, missing); err != nil {
		return "", err
	}
	if changed, err := in.sources.Changed(); err != nil || changed != "" {
		return changed, err
	}
	for _, name := range missing {
		base := path.Base(name)
		e, err := in.make(key(name), func(dir string) (map[string]digest.SHA256, error) {
			return nil, copyFile(filepath.Join(dir, file), filepath.Join(built, base))
		})
		if err != nil {
			return "", err
		}
		if err := os.Symlink(e.Path(file), filepath.Join(in.programs, base)); err != nil {
			return "", err
		}
	}
	return "", nil
}

// copyFile copies in the kernel where it can (copy_file_range(2)), which shares the blocks on file systems that share.
func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = dst.ReadFrom(src)
	return errors.Join(err, dst.Close())
}
