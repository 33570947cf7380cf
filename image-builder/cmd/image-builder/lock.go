package main

import (
	"context"
	"flag"
	"os"
	"strings"

	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/image-builder/manifest"
)

// pin locks manifests/image.toml and manifests/tools.toml, or those named. Each MANIFEST.toml has its MANIFEST.lock.json.
func pin(ctx context.Context, c *common, flags *flag.FlagSet, args []string) error {
	keys := flags.String("keys", "manifests/keys", "`directory` of the archive's public keys")
	if err := flags.Parse(args); err != nil {
		return err
	}
	names := flags.Args()
	if len(names) == 0 {
		names = []string{"manifests/image.toml", "manifests/tools.toml"}
	}
	for _, name := range names {
		m, err := manifest.Read(name)
		if err != nil {
			return err
		}
		if err := lock.Run(ctx, lock.Options{Spec: m.Packages, Mirror: m.Mirror, LockFile: strings.TrimSuffix(name, ".toml") + ".lock.json",
			Keys: *keys, Flag: c.mirror, APT: aptDir, Progress: os.Stderr}); err != nil {
			return err
		}
	}
	return nil
}
