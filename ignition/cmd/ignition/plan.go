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
	"github.com/proa-os/proa/ignition/plan"
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
	p.jsonFlag(flags)
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
		switch op := op.(type) {
		case plan.Disk:
			if d := images[op.Device]; d != nil {
				one.Effect, err = d.partition(op)
			}
		case plan.Filesystem:
			one.Effect, err = images.filesystem(op)
		default:
			if there != nil {
				one.Effect, err = there.Effect(op)
			}
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
