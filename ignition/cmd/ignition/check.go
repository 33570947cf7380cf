package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/stage"
)

// finding is an issue as JSON.
type finding struct {
	config.Place
	Problem  string `json:"problem"`
	Expected string `json:"expected,omitempty"`
	Found    string `json:"found,omitempty"`
	Next     string `json:"next,omitempty"`
	Warning  bool   `json:"warning"`
}

func findings(issues config.Issues) []finding {
	all := make([]finding, 0, len(issues))
	for _, i := range issues {
		all = append(all, finding{i.Place, i.Problem, i.Expected, i.Found, i.Next, i.Warning})
	}
	return all
}

// checked is what check says about one config, as JSON.
type checked struct {
	Config   string    `json:"config"`
	OK       bool      `json:"ok"`
	Findings []finding `json:"findings"`
}

// check loads every config as a machine would, network sources included as far as configs are concerned.
func (p *program) check(flags *flag.FlagSet) func(context.Context, []string) error {
	p.jsonFlag(flags)
	flags.BoolVar(&p.Fetcher.Offline, "offline", false, "refuse configs that refer to others on the network")
	p.keyFlag(flags)
	return func(ctx context.Context, names []string) error {
		var bad int
		var all []checked
		for _, name := range names {
			merged, err := p.loadFile(ctx, name)
			if err == nil {
				_, err = plan.Build(merged)
			}
			var issues config.Issues
			switch {
			case errors.As(err, &issues):
				bad++
			case err != nil:
				return err
			default:
				issues = merged.Warnings
			}
			all = append(all, checked{name, err == nil, findings(issues)})
			if !p.json {
				p.printIssues(name, issues, err == nil)
			}
		}
		if p.json {
			if err := p.answer(all); err != nil {
				return err
			}
		}
		if bad > 0 {
			return fmt.Errorf("check: %d of %d configs cannot be applied", bad, len(names))
		}
		return nil
	}
}

func (p *program) printIssues(name string, issues config.Issues, ok bool) {
	kind := "error"
	if ok {
		kind = "warning"
	}
	for _, i := range issues {
		fmt.Fprintf(p.stdout, "%s: %s\n%s\n", kind, i.Place, i.Screen())
	}
	if ok {
		fmt.Fprintf(p.stdout, "%s: ok\n", name)
	}
}

func (p *program) apply(flags *flag.FlagSet) func(context.Context, []string) error {
	flags.StringVar(&p.Root, "root", "/", "the file tree, a `directory`")
	flags.BoolVar(&p.Fetcher.Offline, "offline", false, "refuse what needs the network")
	strict := flags.Bool("refuse-unsupported", false, "refuse configs with disks or kernel arguments, which a tree does not have")
	p.keyFlag(flags)
	p.jsonFlag(flags)
	flags.Bool("ignore-unsupported", true, "leave out what a tree does not have (default: so it is)")
	return func(ctx context.Context, args []string) error {
		merged, err := p.loadFile(ctx, args[0])
		if err != nil {
			return err
		}
		ops, err := plan.Build(merged)
		if err != nil {
			return err
		}
		if devices, mounts, files := plan.Split(ops); *strict && len(ops) != len(files) {
			all := append(append([]plan.Op{}, devices...), mounts...)
			if a := plan.ArgumentsOf(ops); a.String() != "" {
				all = append(all, a)
			}
			return config.Issues{{Place: all[0].At(), Problem: "a tree cannot have this: " + all[0].String(), Next: "remove it from the config, or leave out --refuse-unsupported"}}
		}
		root, err := os.OpenRoot(p.Root)
		if err != nil {
			return fmt.Errorf("open root: %w", err)
		}
		defer root.Close()
		if err := stage.Apply(ctx, root, merged, ops, p.Options); err != nil || !p.json {
			return err
		}
		_, _, files := plan.Split(ops)
		done := []planned{}
		for _, op := range files {
			done = append(done, planned{Operation: op.String(), Place: op.At()})
		}
		return p.answer(done)
	}
}

func (p *program) jsonFlag(flags *flag.FlagSet) { flags.BoolVar(&p.json, "json", false, "print JSON") }
