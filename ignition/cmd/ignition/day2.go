package main

import (
	"fmt"
	"os"

	"github.com/proa-os/proa/ignition/apply"
)

// drift prints what is no longer as it was provisioned; something is an error, as for diff(1).
func drift(o *options) error {
	root, err := os.OpenRoot(o.Root)
	if err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	defer root.Close()
	all, err := apply.Drift(root, o.Owners)
	if err != nil {
		return err
	}
	for _, d := range all {
		fmt.Fprintln(o.stdout, d.Subject)
		for _, c := range d.Changes {
			fmt.Fprintln(o.stdout, "    "+c)
		}
		fmt.Fprintf(o.stdout, "    config %s\n", d.Place)
	}
	if len(all) > 0 {
		return fmt.Errorf("drift: %d things differ from what was provisioned", len(all))
	}
	_, err = fmt.Fprintln(o.stdout, "nothing differs from what was provisioned")
	return err
}

// reset asks for a new first boot.
func reset(o *options) error {
	root, err := os.OpenRoot(o.Root)
	if err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	defer root.Close()
	if _, err := apply.RequestReset(root, o.keep); err != nil {
		return err
	}
	fmt.Fprintln(o.stdout, "the next boot forgets everything in /var and /etc and provisions this machine again")
	for _, p := range o.keep {
		fmt.Fprintf(o.stdout, "    kept: %s\n", p)
	}
	_, err = fmt.Fprintln(o.stdout, "next step: systemctl reboot; or remove /var/lib/ignition/reset to take it back")
	return err
}
