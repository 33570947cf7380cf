package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/image-builder/manifest"
	"github.com/proa-os/proa/internal/command"
)

// errChanged makes `lock --check` end with exit code 2: not a failure, and not "nothing to do" either.
var errChanged = errors.New("the archive has newer packages than the lock")

func lockCommand(c *common) command.Command {
	return command.Command{
		Name: "lock", Args: "[MANIFEST...]", Max: -1, Short: "pin today's packages of the Debian archive", Setup: func(flags *flag.FlagSet) func(context.Context, []string) error { return setupLock(c, flags) },
		Long: `Resolves the package lists of manifests, by default manifests/image.toml, manifests/tools.toml, manifests/debian.toml, manifests/peers.toml and
manifests/judges.toml, against the signed indices of the archive, writes name, version, size, sha256 and suite of every package to MANIFEST.lock.json, and prints what changed. The signatures are checked with the keys of
manifests/keys.`,
		Examples: []string{"image-builder lock", "image-builder lock --check --json"},
		Exits:    "With --check, 2 if packages would change.",
	}
}

// lockedManifests are all of the checkout that have a lock: none must grow old because nobody names it.
func lockedManifests() []string {
	return []string{"manifests/image.toml", "manifests/tools.toml", "manifests/debian.toml", "manifests/peers.toml", "manifests/judges.toml"}
}

// setupLock locks lockedManifests, or those named. Each MANIFEST.toml has its MANIFEST.lock.json.
func setupLock(c *common, flags *flag.FlagSet) func(context.Context, []string) error {
	keys := flags.String("keys", "manifests/keys", "`directory` of the archive's public keys")
	check := flags.Bool("check", false, "write nothing; exit with 0 if the locks would stay as they are, 2 if packages would change, 1 on errors")
	flags.BoolVar(check, "dry-run", false, "the same as --check")
	asJSON := flags.Bool("json", false, "print the changes as a JSON array, one object a manifest")
	older := flags.Bool("allow-older", false, "accept a state of the archive that is older than the one a lock was made from")
	c.mirrors(flags)
	return func(ctx context.Context, names []string) error {
		o := lock.Options{Keys: *keys, Flag: c.mirror, APT: aptDir, AllowOlder: *older, DryRun: *check, Progress: os.Stderr}
		if len(names) == 0 {
			names = lockedManifests()
		}
		for _, name := range names {
			m, err := manifest.Read(name)
			if err != nil {
				return err
			}
			o.Targets = append(o.Targets, lock.Target{Manifest: name, Spec: m.Packages, Mirror: m.Mirror,
				LockFile: strings.TrimSuffix(name, ".toml") + ".lock.json"})
		}
		changes, err := lock.Run(ctx, o)
		if err != nil {
			return err
		}
		if err := printChanges(c.out, changes, *asJSON); err != nil {
			return err
		}
		if *check && slices.ContainsFunc(changes, func(c lock.Changes) bool { return c.Changed }) {
			return errChanged
		}
		return nil
	}
}

func printChanges(w io.Writer, changes []lock.Changes, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(changes)
	}
	for _, c := range changes {
		if err := c.WriteText(w); err != nil {
			return err
		}
	}
	return nil
}
