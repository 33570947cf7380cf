package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/proa-os/proa/image-builder/diff"
	"github.com/proa-os/proa/image-builder/inspect"
	"github.com/proa-os/proa/image-builder/reproduce"
	"github.com/proa-os/proa/internal/command"
)

func inspectCommand(c *common) command.Command {
	return command.Command{
		Name: "inspect", Args: "IMAGE", Min: 1, Max: 1, Short: "print what is in an image file",
		Long: `IMAGE is a disk image (raw or qcow2), a root image, a boot program, or the directory of a built release, of which the disk image is taken.

Prints partitions, slots (which is filled, its version and root hash), boot programs (version, tries, kernel, command line), addons and the packages of
the root image. All is read out of the file itself, as a machine would find it; nothing is mounted and root is not needed. What a machine could
live with, such as an empty slot or half an update, is a warning.`,
		Examples: []string{"image-builder inspect out/1.2.3", "image-builder inspect --verify disk.img", "image-builder inspect --json disk.img | jq -r '.slots[0].root_hash'"},
		Exits:    "With --verify, 2 if a root image is not what its root hash says.",
		Setup: func(flags *flag.FlagSet) func(context.Context, []string) error {
			var o inspect.Options
			flags.BoolVar(&o.Verify, "verify", false, "hash every block of the root images and compare the verity trees")
			asJSON := flags.Bool("json", false, "print one JSON object")
			return func(_ context.Context, args []string) error {
				i, err := inspect.File(args[0], o)
				if err != nil {
					return err
				}
				if err := output(c.out, i, *asJSON, i.Print); err != nil {
					return err
				}
				for _, s := range i.Slots {
					if s.Verified != nil && !*s.Verified {
						return errDiffers
					}
				}
				return nil
			}
		},
	}
}

func diffCommand(c *common) command.Command {
	return command.Command{
		Name: "diff", Args: "OLD NEW", Min: 2, Max: 2, Short: "print what changed between two releases",
		Long: `OLD and NEW are whatever inspect takes: directories of built releases, disk images, root images, boot programs.

Prints packages with their versions, the parts of the boot program, and the root image's files that were added (+), removed (-) or changed (~), with
sizes and what is different in them. Times and hashes that follow from the rest do not count.`,
		Examples: []string{"image-builder diff out/1.2.3 out/1.2.4", "image-builder diff --json old.img new.img"},
		Exits:    "2 if anything has changed and --exit-code is given.",
		Setup: func(flags *flag.FlagSet) func(context.Context, []string) error {
			asJSON := flags.Bool("json", false, "print one JSON object")
			exit := flags.Bool("exit-code", false, "exit with 2 if anything has changed")
			return func(_ context.Context, args []string) error {
				d, err := diff.Files(args[0], args[1])
				if err != nil {
					return err
				}
				if err := output(c.out, d, *asJSON, d.Print); err != nil {
					return err
				}
				if *exit && !d.Empty() {
					return errDiffers
				}
				return nil
			}
		},
	}
}

// output prints v as JSON or, for people, with print.
func output(w io.Writer, v any, asJSON bool, print func(io.Writer) error) error {
	if !asJSON {
		return print(w)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func reproduceCommand(c *common) command.Command {
	return command.Command{
		Name: "reproduce", Short: "build twice, compare every byte",
		Long: `Builds the release twice without the cache of stages, from two copies of the checkout (with what is not yet committed), and compares every
artifact. The second build has another path, umask, time zone, locale, home, modification times, an empty Go build cache and a package cache
of its own with the same packages; if the caller is root, it runs as an unprivileged user.

If anything differs, the first difference is named: the file, the byte, the partition and file it belongs to; both builds are kept. It takes a few
minutes and some 6 GB.`,
		Examples: []string{"image-builder reproduce --version 1.2.3"},
		Exits:    "2 if the builds differ.",
		Setup: func(flags *flag.FlagSet) func(context.Context, []string) error {
			o := reproduce.Options{CacheDir: c.cache, Progress: os.Stderr}
			flags.StringVar(&o.Version, "version", "", "`semver` of the release")
			flags.StringVar(&o.Module, "module", ".", "`directory` of the checkout")
			flags.StringVar(&o.Dir, "dir", filepath.Join("out", "reproduce"), "`directory` for the first build")
			flags.StringVar(&o.Elsewhere, "elsewhere", "/var/tmp", "`directory` for the second one; any user must be able to enter it")
			asJSON := flags.Bool("json", false, "print one JSON object; .difference is null if there is none")
			return func(ctx context.Context, _ []string) error { return runReproduce(ctx, c, o, *asJSON) }
		},
	}
}

func runReproduce(ctx context.Context, c *common, o reproduce.Options, asJSON bool) error {
	if o.Version == "" {
		return errors.New("reproduce: --version is missing")
	}
	r, err := reproduce.Run(ctx, o)
	if err != nil {
		return err
	}
	if err := output(c.out, r, asJSON, r.Print); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	if r.Difference != nil {
		return errDiffers
	}
	return nil
}
