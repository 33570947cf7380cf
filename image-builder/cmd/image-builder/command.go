package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/internal/tooltree"
)

// A command is one row of the table that parses, helps and completes, so that the three cannot differ.
type command struct {
	name  string
	args  string // what stands behind the flags
	short string // one line
	long  string // the manual page's description
	// setup registers flags and returns what runs the command with the arguments that are no flags.
	setup    func(c *common, flags *flag.FlagSet) func(ctx context.Context, args []string) error
	min, max int // arguments
	examples []string
	exits    string // further exit codes
	words    []string
}

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

func commands() []command {
	return []command{buildCommand(), inspectCommand(), diffCommand(), reproduceCommand(), lockCommand(), toolsCommand(), completionCommand()}
}

func run(ctx context.Context, args []string) error { return runTo(ctx, os.Stdout, args) }

// runTo is run with its output to out.
func runTo(ctx context.Context, out io.Writer, args []string) error {
	if len(args) == 0 {
		printUsage(out)
		return nil
	}
	name, args := args[0], args[1:]
	if name == "help" || name == "--help" || name == "-h" || name == "-help" {
		return help(out, args)
	}
	cmd, err := find(name)
	if err != nil {
		return err
	}
	cache, err := tooltree.CacheDir()
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet("image-builder "+name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	do := cmd.setup(&common{cache: cache, out: out}, flags)
	rest, err := parse(flags, args)
	if errors.Is(err, flag.ErrHelp) {
		return help(out, []string{name})
	}
	if err == nil && (len(rest) < cmd.min || cmd.max >= 0 && len(rest) > cmd.max) {
		err = fmt.Errorf("got %d arguments", len(rest))
	}
	if err != nil {
		return fmt.Errorf("%s: %w; usage: %s (image-builder help %s)", name, err, cmd.synopsis(), name)
	}
	return do(ctx, rest)
}

// parse takes flags before, between and after other arguments; "--" ends them.
func parse(flags *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		before := len(args)
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		left := flags.Args()
		if len(left) == 0 || before > len(left) && args[before-len(left)-1] == "--" {
			return append(rest, left...), nil
		}
		rest, args = append(rest, left[0]), left[1:]
	}
}

func find(name string) (command, error) {
	for _, c := range commands() {
		if c.name == name {
			return c, nil
		}
	}
	return command{}, fmt.Errorf("unknown command %q; image-builder help lists them", name)
}

func (c command) synopsis() string {
	return strings.TrimSpace(fmt.Sprintf("image-builder %s [FLAGS] %s", c.name, c.args))
}
