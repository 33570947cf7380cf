package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/image-builder/qcow2"
	"github.com/proa-os/proa/image-builder/rootfs"
	"github.com/proa-os/proa/image-builder/sbom"
	"github.com/proa-os/proa/image-builder/stage"
	"github.com/proa-os/proa/image-builder/tools"
	"github.com/proa-os/proa/internal/arch"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
)

const qcow2File = "disk.qcow2"

// qcow2Image makes disk.qcow2 of disk.img.
func qcow2Image(_ context.Context, in *inputs, _ *release.Release) error {
	if in.NoQcow2 {
		return nil
	}
	in.say("compress the disk image")
	f, err := os.Open(filepath.Join(in.work, "disk.img"))
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	return qcow2.Write(filepath.Join(in.work, qcow2File), f, fi.Size())
}

// billOfMaterials makes sbom.spdx.json.
func billOfMaterials(ctx context.Context, in *inputs, r *release.Release) error {
	in.say("write the bill of materials")
	bill := sbom.Input{
		Version: r.Version, Arch: r.Arch, Created: Epoch,
		Disk: sbom.Image{File: "disk.img"},
		Root: sbom.Image{File: rootFile, SHA256: r.Root.SHA256}, Boot: sbom.Image{File: "boot.efi", SHA256: r.Boot.SHA256},
	}
	var err error
	if bill.Debian, err = in.controlFiles(ctx, r.Arch); err != nil {
		return err
	}
	places := map[string]string{"init": initProgram}
	for place, name := range in.manifest.Programs {
		places[place] = name
	}
	for _, place := range slices.Sorted(maps.Keys(places)) {
		name := places[place]
		file := filepath.Join(in.programs, path.Base(name))
		sum, _, err := sumFile(file)
		if err != nil {
			return err
		}
		part := sbom.InRoot
		if name == initProgram {
			part = sbom.InBoot
		}
		p, err := sbom.ReadProgram(file, place, sum, part)
		if err != nil {
			return err
		}
		bill.Programs = append(bill.Programs, p)
	}
	b, err := sbom.Marshal(bill)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(in.work, "sbom.spdx.json"), b, 0o644)
}

// A shipped package is one whose files are in an image.
type shipped struct {
	lock.Package
	parts []sbom.Part
}

// shipped are the packages of the lock, and those of the tools tree that have left something on the disk: the boot loaders and the stub.
func (in *inputs) shipped(processor string) ([]shipped, error) {
	var list []shipped
	for _, p := range in.lock.Packages {
		parts := []sbom.Part{sbom.InRoot}
		if rootfs.IsKernel(p) {
			parts = append(parts, sbom.InBoot)
		}
		list = append(list, shipped{p, parts})
	}
	a, err := arch.Of(processor)
	if err != nil {
		return nil, err
	}
	l, err := lock.Read(in.path("tools.lock.json"))
	if err != nil {
		return nil, err
	}
	if dir, err := tools.Dir(l, in.CacheDir); err != nil || filepath.Base(dir) != filepath.Base(in.tools.Dir()) {
		return nil, errors.Join(err, fmt.Errorf("%s changed during the build: build again", in.path("tools.lock.json")))
	}
	loaders := map[string][]sbom.Part{"systemd-boot-efi": {sbom.InBoot, sbom.InDisk}}
	if a.HasBIOS() {
		loaders["grub-pc-bin"] = []sbom.Part{sbom.InDisk}
	}
	for _, name := range slices.Sorted(maps.Keys(loaders)) {
		p, ok := l.Find(name)
		if !ok {
			return nil, fmt.Errorf("the tools' lock has no package %s, which a part of the boot loader is from", name)
		}
		list = append(list, shipped{p, loaders[name]})
	}
	return list, nil
}

// controlFiles reads what the packages say about themselves, which takes a while: it is a stage.
func (in *inputs) controlFiles(ctx context.Context, processor string) ([]sbom.Debian, error) {
	const file = "control.json"
	packages, err := in.shipped(processor)
	if err != nil {
		return nil, err
	}
	key := stage.NewKey("control files").Add("builder", in.self.String())
	for _, p := range packages {
		key.Add(p.String(), p.SHA256.String()+fmt.Sprint(p.parts))
	}
	e, err := in.make(key.Sum(), func(dir string) (map[string]digest.SHA256, error) {
		if err := in.fetch(ctx, packages); err != nil {
			return nil, err
		}
		var list []sbom.Debian
		for _, p := range packages {
			d, err := sbom.ReadDebian(lock.Path(in.CacheDir, p.Package), p.Package)
			if err != nil {
				return nil, err
			}
			d.Parts = p.parts
			list = append(list, d)
		}
		b, err := json.Marshal(list)
		if err != nil {
			return nil, err
		}
		return nil, os.WriteFile(filepath.Join(dir, file), b, 0o644)
	})
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(e.Path(file))
	if err != nil {
		return nil, err
	}
	var list []sbom.Debian
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("read control files: %w", err)
	}
	return list, nil
}

// fetch brings packages into the cache that are not there: those of the tools tree are not needed once that is unpacked.
func (in *inputs) fetch(ctx context.Context, packages []shipped) error {
	l := &lock.Lock{}
	for _, p := range packages {
		l.Packages = append(l.Packages, p.Package)
	}
	mirrors, err := lock.FindMirrors(l, in.CacheDir, in.Mirror, in.manifest.Mirror, in.APT)
	if err != nil {
		return err
	}
	return lock.Fetch(ctx, l, mirrors, in.CacheDir, in.Progress)
}

// An Artifact is a file of a finished build.
type Artifact struct {
	Name string
	Size int64 // bytes
	Disk int64 // bytes that it takes on the disk
}

// Artifacts lists the files in a release's directory, in the order of names.
func Artifacts(dir string) ([]Artifact, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list artifacts: %w", err)
	}
	var list []Artifact
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue // the folder of a machine that was run from here
		}
		fi, err := e.Info()
		if err != nil {
			return nil, fmt.Errorf("list artifacts: %w", err)
		}
		list = append(list, Artifact{e.Name(), fi.Size(), usage(fi)})
	}
	if !slices.ContainsFunc(list, func(a Artifact) bool { return a.Name == "release.json" }) {
		return nil, errors.New("list artifacts: " + dir + " has no release.json: it is no build's")
	}
	return list, nil
}

func sumFile(name string) (digest.SHA256, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return digest.SHA256{}, 0, err
	}
	defer f.Close()
	return digest.OfReader(f)
}
