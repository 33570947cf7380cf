package ctl

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/proa-os/proa/runtime/bundle"
	"github.com/proa-os/proa/runtime/change"
	"github.com/proa-os/proa/runtime/flagset"
)

func diffVerb() verb {
	return verb{name: "diff", args: "NAME", what: "list what a container has changed of its image's files", min: 1, max: 1, lister: "containers", json: true,
		more:     "A: added, C: changed, D: deleted. What is in volumes is no change, the directory that one is put at is; places of /proc, /etc/hosts and the like are none.",
		examples: []string{"containerctl diff web"},
		setup:    func(*flagset.Set) action { return diff }}
}

// diff lists changes.
func diff(_ context.Context, c *call) error {
	k, err := c.container(c.args[0])
	if err != nil {
		return err
	}
	upper, err := os.OpenRoot(filepath.Join(c.store.ContainerDir(k.Name), "upper"))
	if err != nil {
		return err
	}
	defer upper.Close()
	lower, err := bundle.Lower(c.store, k)
	if err != nil {
		return err
	}
	defer lower.Close()
	list, err := change.List(upper, lower, ours...)
	if err != nil {
		return fmt.Errorf("diff %s: %w", k.Name, err)
	}
	if c.asJSON {
		return c.json(append([]change.Change{}, list...))
	}
	for _, one := range list {
		fmt.Fprintln(c.Out, one.Kind, printable(one.Path))
	}
	return nil
}

// ours are places that each container gets, where its image has none.
var ours = []string{"/.dockerenv", "/dev", "/proc", "/sys", "/run/secrets", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
