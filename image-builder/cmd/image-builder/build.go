package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/proa-os/proa/image-builder/image"
	"github.com/proa-os/proa/image-builder/tools"
	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/internal/tooltree"
)

func buildCommand(c *common) command.Command {
	return command.Command{
		Name: "build", Short: "build a release's images", Setup: func(flags *flag.FlagSet) func(context.Context, []string) error { return setupBuild(c, flags) },
		Long: `Builds into out/VERSION, or --out:

root.img         the root image: EROFS and its verity tree, what a slot holds
boot.efi         the boot program: kernel, initramfs, command line with the root hash
disk.img         the whole disk, a sparse file: ESP, slot A filled, slot B empty
disk.qcow2       the same, compressed, for QEMU 5.1 or newer
release.json     what the release desk signs
sbom.spdx.json   bill of materials, SPDX 2.3
tree.txt         every file of the root image: mode, owner, size, sha256, package

The packages are those of manifests/image.lock.json, byte for byte; missing ones are fetched. Nothing of the host goes into the images: the
same checkout, version and Go release make the same bytes everywhere (see reproduce).

Only what has changed is built. Programs and root images are kept in the cache by the hash of everything that goes into them, this builder
included, and compared before they are used again; 4 GiB of them at the most. If nothing has changed and the files in out/VERSION are
as they were built, nothing is done. An earlier build in that directory is replaced when the new one has succeeded; a second build into it
waits for the first.`,
		Examples: []string{"image-builder build --version 1.2.3", "image-builder build --version 1.3.0-rc.1 --overlay my-files --command-line \"console=ttyS1\""},
	}
}

func setupBuild(c *common, flags *flag.FlagSet) func(context.Context, []string) error {
	o := image.Options{CacheDir: c.cache, APT: aptDir, Progress: os.Stderr}
	flags.StringVar(&o.Version, "version", "", "`semver` of the release, such as 1.2.3 or 1.3.0-rc.1")
	flags.StringVar(&o.Out, "out", "", "`directory` of the results, replaced when the build has succeeded (default out/VERSION)")
	flags.StringVar(&o.Module, "module", ".", "`directory` of the checkout")
	flags.StringVar(&o.CommandLine, "command-line", "", "`arguments` put behind the manifest's kernel command line")
	flags.BoolVar(&o.Zstd, "zstd", false, "measure the root image compressed with zstd -19 even where a lower level shows that it is small enough; takes minutes the first time")
	flags.BoolVar(&o.NoCache, "no-cache", false, "make every stage anew, and keep none")
	flags.BoolVar(&o.NoQcow2, "no-qcow2", false, "leave out disk.qcow2")
	flags.Func("overlay", "`directory` of files laid over the image; may be repeated", func(s string) error {
		o.Overlays = append(o.Overlays, s)
		return nil
	})
	c.mirrors(flags)
	return func(ctx context.Context, _ []string) error {
		if o.Out == "" {
			o.Out = filepath.Join("out", o.Version)
		}
		o.Mirror = c.mirror
		start := time.Now()
		r, err := image.Build(ctx, o)
		if err != nil {
			return err
		}
		state := "built"
		if !r.Fresh {
			state = "up to date"
		}
		fmt.Fprintf(c.out, "%s: Proa %s %s, %s in %.1f s\n", o.Out, r.Version, r.Arch, state, time.Since(start).Seconds())
		fmt.Fprintf(c.out, "  root hash %s, %d packages\n", r.Root.RootHash, len(r.Packages))
		return printArtifacts(c, o.Out)
	}
}

func printArtifacts(c *common, dir string) error {
	list, err := image.Artifacts(dir)
	if err != nil {
		return err
	}
	for _, a := range list {
		fmt.Fprintf(c.out, "  %-15s %8.1f MiB", a.Name, float64(a.Size)/(1<<20))
		if a.Disk+1<<20 < a.Size {
			fmt.Fprintf(c.out, ", %.1f on disk", float64(a.Disk)/(1<<20))
		}
		fmt.Fprintln(c.out)
	}
	return nil
}

func toolsCommand(c *common) command.Command {
	return command.Command{
		Name: "tools", Args: "[judges]", Max: 1, Short: "fetch and unpack the tools tree, or that of the judges",
		Long: `Unpacks the packages of manifests/tools.lock.json (mkfs, QEMU, firmware, the judges of tests) into the cache and prints the directory. build
does so by itself; tests want it beforehand.

With the argument judges it does so with manifests/judges.lock.json: podman, containerd, skopeo and others, 100 MB of programs that only tests of
the runtime and make bench-pull run.`,
		Examples: []string{"PROA_TOOLS=$(image-builder tools) go test ./image-builder/...", "PROA_JUDGES_TREE=$(image-builder tools judges) go test ./runtime/..."},
		Setup: func(flags *flag.FlagSet) func(context.Context, []string) error {
			c.mirrors(flags)
			return func(ctx context.Context, args []string) error {
				o := tools.Options{Manifest: "manifests/tools.toml", LockFile: "manifests/tools.lock.json", CacheDir: c.cache, Flag: c.mirror, APT: aptDir, Progress: os.Stderr}
				if len(args) == 1 && args[0] != "judges" {
					return fmt.Errorf("unknown tree %q: expected judges, or nothing for the tools tree", args[0])
				}
				if len(args) == 1 {
					o.Manifest, o.LockFile, o.Current = "manifests/judges.toml", "manifests/judges.lock.json", tooltree.CurrentJudges(c.cache)
				}
				dir, err := tools.Run(ctx, o)
				if err == nil {
					fmt.Fprintln(c.out, dir)
				}
				return err
			}
		},
	}
}
