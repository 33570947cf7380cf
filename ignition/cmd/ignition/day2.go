package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/ignition/device"
	"github.com/proa-os/proa/internal/command"
)

// drift prints what is no longer as it was provisioned; something is an error, as for diff(1).
func (p *program) drift(flags *flag.FlagSet) func(context.Context, []string) error {
	flags.StringVar(&p.Root, "root", "/", "the file tree, a `directory`")
	p.jsonFlag(flags)
	return func(context.Context, []string) error {
		root, err := os.OpenRoot(p.Root)
		if err != nil {
			return fmt.Errorf("open root: %w", err)
		}
		defer root.Close()
		var look apply.Look // of a tree, the machine is another one
		if filepath.Clean(p.Root) == "/" {
			look = device.Observer{Sys: "/sys", Dev: "/dev", Proc: "/proc"}.Look
		}
		all, err := apply.Drift(root, p.Owners, look)
		if err != nil {
			return err
		}
		if p.json {
			if all == nil {
				all = []apply.Difference{}
			}
			if err := p.answer(all); err != nil {
				return err
			}
		} else {
			for _, d := range all {
				fmt.Fprintln(p.stdout, d.Subject)
				for _, c := range d.Changes {
					fmt.Fprintln(p.stdout, "    "+c)
				}
				fmt.Fprintf(p.stdout, "    config %s\n", d.Place)
			}
		}
		if len(all) > 0 {
			return fmt.Errorf("drift: %d things differ from what was provisioned", len(all))
		}
		if !p.json {
			_, err = fmt.Fprintln(p.stdout, "nothing differs from what was provisioned")
		}
		return err
	}
}

// reset asks for a new first boot.
func (p *program) reset(flags *flag.FlagSet) func(context.Context, []string) error {
	var keep []string
	flags.StringVar(&p.Root, "root", "/", "the file tree, a `directory`")
	p.jsonFlag(flags)
	flags.Func("keep", "keep the file or directory `path`, and those named behind it", func(path string) error {
		keep = append(keep, path)
		return nil
	})
	return func(_ context.Context, args []string) error {
		if len(keep) == 0 && len(args) > 0 {
			return command.Wrong("reset: expected --keep before the paths to keep, found %q", args[0])
		}
		keep := append([]string{}, append(keep, args...)...)
		root, err := os.OpenRoot(p.Root)
		if err != nil {
			return fmt.Errorf("open root: %w", err)
		}
		defer root.Close()
		if _, err := apply.RequestReset(root, keep); err != nil {
			return err
		}
		if p.json {
			return p.answer(map[string][]string{"kept": keep})
		}
		fmt.Fprintln(p.stdout, "the next boot forgets everything in /var and /etc and provisions this machine again")
		for _, path := range keep {
			fmt.Fprintf(p.stdout, "    kept: %s\n", path)
		}
		_, err = fmt.Fprintln(p.stdout, "next step: systemctl reboot; or remove /var/lib/ignition/reset to take it back")
		return err
	}
}
