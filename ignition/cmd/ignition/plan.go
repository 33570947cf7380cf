package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/ignition/device"
	"github.com/proa-os/proa/ignition/partition"
	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/internal/gpt"
)

// showPlan prints the operations and, held against disk images or a tree, what each would find and do. Nothing is changed.
func showPlan(ctx context.Context, o *options) error {
	merged, err := loadFile(ctx, o.args[0])
	if err != nil {
		return err
	}
	ops, err := plan.Build(merged)
	if err != nil {
		return err
	}
	images, err := imagesOf(o.images, ops)
	if err != nil {
		return err
	}
	var there *apply.Tree
	if o.rootGiven {
		root, err := os.OpenRoot(o.Root)
		if err != nil {
			return fmt.Errorf("open root: %w", err)
		}
		defer root.Close()
		there = apply.NewTree(root, o.Owners)
	}
	refused := 0
	for n, op := range ops {
		fmt.Fprintf(o.stdout, "%3d. %-60s %s\n", n+1, op, op.At())
		var found []string
		switch d, isDisk := op.(plan.Disk); {
		case isDisk && images[d.Device] != "":
			found, err = onImage(d, images[d.Device])
		case there != nil:
			found, err = there.Effect(op)
		}
		var p *apply.Problem
		if errors.As(err, &p) {
			refused++
			found, err = []string{"refused: " + p.Error()}, nil
		}
		if err != nil {
			return err
		}
		for _, line := range found {
			fmt.Fprintf(o.stdout, "       %s\n", line)
		}
	}
	if refused > 0 {
		return fmt.Errorf("plan: %d of %d operations would be refused", refused, len(ops))
	}
	return nil
}

// imagesOf reads DEVICE=IMAGE, or an image alone for the one disk that the config describes.
func imagesOf(flags []string, ops []plan.Op) (map[string]string, error) {
	var disks []string
	for _, op := range ops {
		if d, ok := op.(plan.Disk); ok {
			disks = append(disks, d.Device)
		}
	}
	images := map[string]string{}
	for _, f := range flags {
		device, image, named := strings.Cut(f, "=")
		if !named && len(disks) == 1 {
			device, image = disks[0], f
		}
		if image == "" || !strings.Contains(strings.Join(disks, "\n")+"\n", device+"\n") {
			return nil, usageError{fmt.Errorf("-image %s: expected DEVICE=IMAGE with one of the disks that the config describes: %s", f, strings.Join(disks, ", "))}
		}
		images[device] = image
	}
	return images, nil
}

// onImage decides about a disk as the machine would, with sectors of 512 bytes, or of 4096 where the image has such a table.
func onImage(op plan.Disk, image string) ([]string, error) {
	f, err := os.Open(image)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	have, err := device.Look(f, info.Size(), 512)
	if err != nil {
		return nil, err
	}
	if large, lerr := device.Look(f, info.Size(), 4096); lerr == nil && have.Table == nil && large.Table != nil {
		have = large
	}
	n := byte(0)
	p, err := device.PlanDisk(op, have, func() gpt.GUID {
		n++
		return gpt.NewGUID([16]byte{15: n})
	})
	if err != nil {
		return nil, err
	}
	if !p.Writes() && len(p.Changes) == 0 {
		return []string{"nothing to do"}, nil
	}
	return lines(p), nil
}

func lines(p *partition.Plan) []string {
	var all []string
	if p.Erase {
		all = append(all, "new partition table; what the disk holds is lost")
	}
	for _, c := range p.Changes {
		all = append(all, device.Describe(c))
	}
	return all
}
