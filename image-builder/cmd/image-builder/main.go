// Command image-builder makes Proa's images from pinned Debian packages, without root.
//
//	image-builder build --version X.Y.Z [--out DIR] [--overlay DIR]... [--command-line ARGS]
//	      build root image, boot program, disk image and release.json into DIR (out/X.Y.Z)
//	image-builder lock [--check] [--json] [--allow-older] [MANIFEST...]
//	      resolve the packages of manifests (image.toml, tools.toml) against the signed archive, pin them in their locks and print what
//	      changed; --check writes nothing and exits with 2 if there is anything newer
//	image-builder tools
//	      fetch and unpack the tools tree
//
// Every command takes --mirror URL and --security-mirror URL; without them the mirror is the manifest's, then that of the
// host's own apt sources. Packages are kept in $PROA_CACHE, by default proa in the user's cache directory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/image-builder/image"
	"github.com/proa-os/proa/image-builder/tools"
	"github.com/proa-os/proa/internal/tooltree"
)

const usage = `usage: image-builder COMMAND [FLAGS]

  build --version X.Y.Z   build a release's images into out/X.Y.Z
  lock [MANIFEST...]      pin today's packages of the Debian archive
  tools                   fetch and unpack the tools tree

image-builder COMMAND --help lists a command's flags.`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx, os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errChanged):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "image-builder:", err)
		os.Exit(1)
	}
}

type common struct {
	mirror archive.Mirrors
	cache  string
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] == "help" || args[0] == "--help" || args[0] == "-h" {
		fmt.Println(usage)
		return nil
	}
	cache, err := tooltree.CacheDir()
	if err != nil {
		return err
	}
	c := &common{cache: cache}
	flags := flag.NewFlagSet("image-builder "+args[0], flag.ContinueOnError)
	flags.StringVar(&c.mirror.Main, "mirror", "", "`URL` of the main archive (default: the manifest's, then the host's apt sources)")
	flags.StringVar(&c.mirror.Security, "security-mirror", "", "`URL` of the security archive")
	switch args[0] {
	case "build":
		return build(ctx, c, flags, args[1:])
	case "lock":
		return pin(ctx, c, flags, args[1:])
	case "tools":
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		dir, err := tools.Run(ctx, tools.Options{Manifest: "manifests/tools.toml", LockFile: "manifests/tools.lock.json", CacheDir: c.cache,
			Flag: c.mirror, APT: aptDir, Progress: os.Stderr})
		if err == nil {
			fmt.Println(dir)
		}
		return err
	}
	return fmt.Errorf("unknown command %q\n%s", args[0], usage)
}

const aptDir = "/etc/apt"

func build(ctx context.Context, c *common, flags *flag.FlagSet, args []string) error {
	o := image.Options{CacheDir: c.cache, APT: aptDir, Progress: os.Stderr}
	flags.StringVar(&o.Version, "version", "", "semver of the release")
	flags.StringVar(&o.Out, "out", "", "`directory` of the results (default out/VERSION)")
	flags.StringVar(&o.Module, "module", ".", "`directory` of the checkout")
	flags.StringVar(&o.CommandLine, "command-line", "", "put behind the manifest's kernel `command line`")
	flags.BoolVar(&o.NoCache, "no-cache", false, "make every stage anew, and keep none")
	flags.Func("overlay", "`directory` of files laid over the image; may be repeated", func(s string) error {
		o.Overlays = append(o.Overlays, s)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.Out == "" {
		o.Out = filepath.Join("out", o.Version)
	}
	o.Mirror = c.mirror
	start := time.Now()
	r, err := image.Build(ctx, o)
	if err != nil {
		return err
	}
	fmt.Printf("%s: Proa %s %s in %.1f s\n", o.Out, r.Version, r.Arch, time.Since(start).Seconds())
	fmt.Printf("  root image    %7.1f MiB  root hash %s\n", float64(r.Root.Size)/(1<<20), r.Root.RootHash)
	fmt.Printf("  boot program  %7.1f MiB\n", float64(r.Boot.Size)/(1<<20))
	fmt.Printf("  packages      %7d\n", len(r.Packages))
	return nil
}
