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
func billOfMaterials(_ context.Context, in *inputs, r *release.Release) error {
	in.say("write the bill of materials")
	bill := sbom.Input{
		Version: r.Version, Arch: r.Arch, Created: Epoch,
		Root: sbom.Image{File: rootFile, SHA256: r.Root.SHA256}, Boot: sbom.Image{File: "boot.efi", SHA256: r.Boot.SHA256},
	}
	var err error
	if bill.Debian, err = in.controlFiles(); err != nil {
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
		p, err := sbom.ReadProgram(file, place, sum, name == initProgram)
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

// controlFiles reads what the packages say about themselves, which takes a while: it is a stage.
func (in *inputs) controlFiles() ([]sbom.Debian, error) {
	const file = "control.json"
	sum, err := in.lock.Sum()
	if err != nil {
		return nil, err
	}
	e, err := in.make(stage.NewKey("control files").Add("builder", in.self.String()).Add("packages", sum.String()).Sum(), func(dir string) (map[string]digest.SHA256, error) {
		var list []sbom.Debian
		for _, p := range in.lock.Packages {
			d, err := sbom.ReadDebian(lock.Path(in.CacheDir, p), p)
			if err != nil {
				return nil, err
			}
			d.Boot = rootfs.IsKernel(p)
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
