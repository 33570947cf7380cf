package image

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/proa-os/proa/image-builder/budget"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
)

// checkBudget holds what was built in the work directory against the manifest's budgets.
func checkBudget(ctx context.Context, in *inputs, r *release.Release) error {
	return in.judge(ctx, r, in.work)
}

// judge prints the table of budgets for the release in dir, and fails if one is passed.
func (in *inputs) judge(ctx context.Context, r *release.Release, dir string) error {
	usage, err := readUsage(dir)
	if err != nil {
		return err
	}
	b := in.manifest.Budget
	items := []budget.Item{
		{Name: "root image", Value: r.Root.Size, Limit: int64(b.RootImage), Bytes: true},
		{Name: "boot program", Value: r.Boot.Size, Limit: int64(b.BootProgram), Bytes: true},
		{Name: "packages", Value: int64(len(r.Packages)), Limit: int64(b.Packages)},
		{Name: "setuid and setgid files", Value: int64(len(usage.Setid)), Limit: int64(b.SetuidFiles), Zero: true},
	}
	for _, path := range slices.Sorted(maps.Keys(b.Files)) {
		size, there := usage.Files[path]
		if !there {
			return fmt.Errorf("manifest: [budget] has a limit for %s, which the root image does not have; take the line out", path)
		}
		items = append(items, budget.Item{Name: path, Value: size, Limit: int64(b.Files[path]), Bytes: true})
	}
	compressed, err := in.compressed(ctx, filepath.Join(dir, rootFile), r.Root.SHA256)
	if err != nil {
		return err
	}
	items = slices.Insert(items, 1, budget.Item{Name: fmt.Sprintf("root image, zstd -%d", compressed.Level), Value: compressed.Size, Limit: int64(b.RootImageZstd), Bytes: true})
	in.clock.stop()
	if err := budget.Write(in.clock.w, items); err != nil {
		return err
	}
	earlier, err := readUsage(in.Out)
	if err != nil { // no earlier build, or one that is damaged: then nothing is known of growth
		earlier = nil
	}
	return budget.Check(items, usage, earlier)
}

// compressed is the root image's size as zstd leaves it: at the level that the budget names if somebody asked for it, else at the
// lowest that shows that the budget holds.
func (in *inputs) compressed(ctx context.Context, name string, sum digest.SHA256) (budget.Compressed, error) {
	memory := budget.Memory{Dir: filepath.Join(in.CacheDir, "budget")}
	if !in.Zstd {
		return memory.Within(ctx, in.tools, name, sum, int64(in.manifest.Budget.RootImageZstd))
	}
	in.say("compress the root image with zstd -19, to know its size")
	size, err := memory.Measure(ctx, in.tools, name, sum, budget.Best)
	return budget.Compressed{Size: size, Level: budget.Best}, err
}

// readUsage reads the tree report of a finished release.
func readUsage(dir string) (*budget.Usage, error) {
	f, err := os.Open(filepath.Join(dir, treeFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return budget.Read(f)
}
