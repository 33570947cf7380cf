package world

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/coreos/go-semver/semver"

	"github.com/proa-os/proa/internal/release"
)

// An Image is a built release: a folder with disk.img, root.img, boot.efi and release.json.
type Image struct {
	Dir     string
	Release *release.Release
}

// Disk is the raw disk image.
func (i Image) Disk() string { return filepath.Join(i.Dir, "disk.img") }

// Version is the release's semver.
func (i Image) Version() string { return i.Release.Version }

// OpenImage returns the image in dir.
func OpenImage(dir string) (Image, error) {
	b, err := os.ReadFile(filepath.Join(dir, "release.json"))
	if err != nil {
		return Image{}, fmt.Errorf("open image: %w; build it with `make image`", err)
	}
	r, err := release.Parse(b)
	if err != nil {
		return Image{}, fmt.Errorf("open image %s: %w", dir, err)
	}
	i := Image{dir, r}
	if _, err := os.Stat(i.Disk()); err != nil {
		return Image{}, fmt.Errorf("open image: %w; build it with `make image`", err)
	}
	return i, nil
}

// NewestImage returns the image with the highest version among the folders of out.
func NewestImage(out string) (Image, error) {
	dirs, err := filepath.Glob(filepath.Join(out, "*", "release.json"))
	if err != nil {
		return Image{}, fmt.Errorf("find image: %w", err)
	}
	var found []Image
	for _, d := range dirs {
		if i, err := OpenImage(filepath.Dir(d)); err == nil {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		return Image{}, fmt.Errorf("find image: no built release in %s; build one with `make image`", out)
	}
	return slices.MaxFunc(found, func(a, b Image) int {
		return semver.New(a.Version()).Compare(*semver.New(b.Version()))
	}), nil
}

// Build builds a release with image-builder into dir. A variant is a folder of qemu-tests/variants, laid over the image
// to make a bad release; "" for none. There is no disk.qcow2 in it: no machine of a story boots from one, and it takes the longest.
func (p *Programs) Build(ctx context.Context, progress io.Writer, dir, version, variant string) (Image, error) {
	args := []string{"build", "--version", version, "--out", dir, "--no-qcow2"}
	if variant != "" {
		args = append(args, "--overlay", filepath.Join("qemu-tests", "variants", variant))
	}
	p.building.Lock()
	defer p.building.Unlock()
	if _, err := p.Run(ctx, progress, "image-builder/cmd/image-builder", args...); err != nil {
		return Image{}, err
	}
	return OpenImage(dir)
}
