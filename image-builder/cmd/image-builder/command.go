package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/internal/tooltree"
)

// common is what several commands have.
type common struct {
	mirror archive.Mirrors
	cache  string
	out    io.Writer
}

const aptDir = "/etc/apt"

// errDiffers makes a command that compares end with exit code 2.
var errDiffers = errors.New("there are differences")

// mirrors registers the flags of commands that fetch packages.
func (c *common) mirrors(flags *flag.FlagSet) {
	flags.StringVar(&c.mirror.Main, "mirror", os.Getenv("PROA_MIRROR"), "`URL` of the main archive (default: $PROA_MIRROR, the manifest's, then the host's apt sources)")
	flags.StringVar(&c.mirror.Security, "security-mirror", os.Getenv("PROA_SECURITY_MIRROR"), "`URL` of the security archive (default: $PROA_SECURITY_MIRROR, or derived from the other)")
}

// program is the table of commands.
func program(c *common) command.Program {
	return command.Program{
		Name:     "image-builder",
		Commands: []command.Command{buildCommand(c), platformCommand(c), inspectCommand(c), diffCommand(c), reproduceCommand(c), lockCommand(c), toolsCommand(c)},
		Footer:   "Packages, tools and finished stages are kept in $PROA_CACHE,\nby default proa in the user's cache directory.",
		Exits:    "0 if all went well, 1 after an error.",
		Sections: [][2]string{{"ENVIRONMENT", "PROA_CACHE\n    directory of packages, tools and stages (default: proa in the user's cache directory)\n" +
			"PROA_MIRROR, PROA_SECURITY_MIRROR\n    the Debian mirrors, where no flag names them"}},
	}
}

func run(ctx context.Context, args []string) error { return runTo(ctx, os.Stdout, args) }

// runTo is run with its output to out.
func runTo(ctx context.Context, out io.Writer, args []string) error {
	cache, err := tooltree.CacheDir()
	if err != nil {
		return err
	}
	return program(&common{cache: cache, out: out}).Run(ctx, out, args)
}
