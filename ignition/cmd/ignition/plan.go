package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/device"
	"github.com/proa-os/proa/ignition/partition"
	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/internal/gpt"
)

// planned is an operation as JSON.
type planned struct {
	Operation string       `json:"operation"`
	Place     config.Place `json:"place"`
	Effect    []string     `json:"effect,omitempty"`  // what it would find and do
	Refused   string       `json:"refused,omitempty"` // why it would not be done
}

// plan prints the operations and, held against disk images or a tree, what each would find and do. Nothing is changed.
func (p *program) plan(flags *flag.FlagSet) func(context.Context, []string) error {
	var images []string
	flags.Func("image", "a disk image in the place of a device, as `DEVICE=IMAGE`; with one disk in the config, IMAGE alone", func(image string) error {
		images = append(images, image)
		return nil
	})
	flags.StringVar(&p.Root, "root", "", "a file tree to look at, a `directory`")
	flags.BoolVar(&p.json, "json", false, "print JSON")
	flags.BoolVar(&p.Fetcher.Offline, "offline", false, "refuse configs that refer to others on the network")
	p.keyFlag(flags)
	return func(ctx context.Context, args []string) error {
		merged, err := p.loadFile(ctx, args[0])
		if err != nil {
			return err
		}
		ops, err := plan.Build(merged)
		if err != nil {
			return err
		}
		all, refused, err := p.effects(ops, images)
		if err != nil {
			return err
		}
		if p.json {
			err = p.answer(all)
		} else {
			err = p.printPlan(all)
		}
		if err == nil && refused > 0 {
			err = fmt.Errorf("plan: %d of %d operations would be refused", refused, len(ops))
		}
		return err
	}
}

// effects looks at what is there.
func (p *program) effects(ops []plan.Op, flags []string) (all []planned, refused int, err error) {
	images, err := imagesOf(flags, ops)
	if err != nil {
		return nil, 0, err
	}
	var there *apply.Tree
	if p.Root != "" {
		root, err := os.OpenRoot(p.Root)
		if err != nil {
			return nil, 0, fmt.Errorf("open root: %w", err)
		}
		defer root.Close()
		there = apply.NewTree(root, p.Owners)
	}
	all = []planned{}
	for _, op := range ops {
		one := planned{Operation: op.String(), Place: op.At()}
		switch d, isDisk := op.(plan.Disk); {
		case isDisk && images[d.Device] != "":
			one.Effect, err = onImage(d, images[d.Device])
		case there != nil:
			one.Effect, err = there.Effect(op)
		}
		var problem *apply.Problem
		if errors.As(err, &problem) {
			refused++
			one.Refused, err = problem.Error(), nil
		}
		if err != nil {
			return nil, 0, err
		}
		all = append(all, one)
	}
	return all, refused, nil
}

func (p *program) printPlan(all []planned) error {
	var b strings.Builder
	for n, one := range all {
		fmt.Fprintf(&b, "%3d. %-60s %s\n", n+1, one.Operation, one.Place)
		if one.Refused != "" {
			one.Effect = append(one.Effect, "refused: "+one.Refused)
		}
		for _, line := range one.Effect {
			fmt.Fprintf(&b, "       %s\n", line)
		}
	}
	_, err := io.WriteString(p.stdout, b.String())
	return err
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
			return nil, command.Wrong("--image %s: expected DEVICE=IMAGE with one of the disks that the config describes: %s", f, strings.Join(disks, ", "))
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
