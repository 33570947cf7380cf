// Package desk is the release command: its commands, what they print, their manual pages and completion. What they do is in package repo.
//
// Run takes the words of the command line and streams, and returns an error whose exit code ExitCode says. Results go to Out, as
// text or, with --json, as one JSON object; progress, warnings and what a dry run leaves out go to Err.
package desk

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/proa-os/proa/update-engine/repo"
)

// Streams are where Run writes, and the time it goes by.
type Streams struct {
	Out, Err io.Writer
	Now      func() time.Time
}

// Exit codes.
const (
	exitError    = 1
	exitUsage    = 2
	exitProblems = 3 // verify found something
	exitMissing  = 4 // signatures are missing
)

var (
	errUsage    = errors.New("wrong command line")
	errProblems = errors.New("the repository is not as it should be")
)

// ExitCode is the exit code that stands for what Run returned.
func ExitCode(err error) int {
	var missing *repo.MissingError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, errProblems):
		return exitProblems
	case errors.As(err, &missing):
		return exitMissing
	}
	return exitError
}

// A command is one row of the table that parses, helps and completes, so that the three cannot differ.
type command struct {
	name  string
	args  string // what stands behind the flags
	short string // one line
	long  string // the manual page's description
	// setup registers flags and returns what runs the command with the arguments that are no flags.
	setup    func(c *common, flags *flag.FlagSet) action
	min, max int // arguments
	examples []string
	words    []string // what can be completed
}

// An action does the command and returns what it prints.
type action func(ctx context.Context, args []string) (*result, error)

// A result is printed as text, or as JSON.
type result struct {
	json any
	text string
}

// common is what several commands have.
type common struct {
	Streams
	repo, keys          string
	asJSON, quiet, dry  bool
	fast                bool
	writes              bool // whether the command knows --dry-run
	needsRepo, needKeys bool
}

func commands() []command {
	return []command{
		keysCommand(), initCommand(), stageCommand(), deltaCommand(), signCommand(), publishCommand(), planCommand(), refreshCommand(),
		rotateCommand(), renewCommand(), discardCommand(), statusCommand(), verifyCommand(), completionCommand(),
	}
}

// repoFlag registers --repo, which the command then needs.
func (c *common) repoFlag(flags *flag.FlagSet) {
	flags.StringVar(&c.repo, "repo", os.Getenv("PROA_REPO"), "`folder` of the repository (default: $PROA_REPO)")
	c.needsRepo = true
}

// keysFlag registers --keys, which the command then needs.
func (c *common) keysFlag(flags *flag.FlagSet, usage string) {
	flags.StringVar(&c.keys, "keys", os.Getenv("PROA_KEYS"), "`folder` of "+usage+" (default: $PROA_KEYS)")
	c.needKeys = true
}

// dryFlag registers --dry-run.
func (c *common) dryFlag(flags *flag.FlagSet) {
	flags.BoolVar(&c.dry, "dry-run", false, "say what would be written, and write nothing")
	c.writes = true
}

// desk is the repository with its keys.
func (c *common) desk() *repo.Desk {
	d := &repo.Desk{Dir: c.repo, Keys: repo.KeyDir(c.keys), Now: c.Now, DryRun: c.dry}
	if !c.quiet {
		d.Progress = (&bar{w: c.Err, start: time.Now()}).show
	}
	return d
}

// Run does one command.
func Run(ctx context.Context, s Streams, args []string) error {
	if len(args) == 0 {
		printUsage(s.Err)
		return errUsage
	}
	name, args := args[0], args[1:]
	if name == "help" || name == "--help" || name == "-h" || name == "-help" {
		return help(s.Out, args)
	}
	cmd, err := find(name)
	if err != nil {
		return err
	}
	c := &common{Streams: s}
	flags, do := cmd.prepare(c)
	rest, err := parse(flags, args)
	if errors.Is(err, flag.ErrHelp) {
		return help(s.Out, []string{name})
	}
	if err == nil {
		err = c.complete(cmd, rest)
	}
	if err != nil {
		return fmt.Errorf("%s: %w; usage: %s (release help %s): %w", name, err, cmd.synopsis(), name, errUsage)
	}
	r, err := do(ctx, rest)
	c.warn()
	if r != nil {
		err = errors.Join(err, c.print(r))
	}
	return err
}

func (c command) prepare(common *common) (*flag.FlagSet, action) {
	flags := flag.NewFlagSet("release "+c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	do := c.setup(common, flags)
	flags.BoolVar(&common.asJSON, "json", false, "print the result as JSON")
	flags.BoolVar(&common.quiet, "quiet", false, "show no progress")
	return flags, do
}

// complete says what is missing of a command line.
func (c *common) complete(cmd command, rest []string) error {
	switch {
	case len(rest) < cmd.min || len(rest) > cmd.max:
		return fmt.Errorf("got %d arguments", len(rest))
	case c.needsRepo && c.repo == "":
		return errors.New("--repo is missing")
	case c.needKeys && c.keys == "":
		return errors.New("--keys is missing")
	}
	return nil
}

// warn speaks of offline metadata that expires, whatever the command was about.
func (c *common) warn() {
	if c.repo == "" || isURL(c.repo) {
		return
	}
	// What is wrong with the repository, if anything, the command itself has said.
	warnings, _ := c.desk().Warnings()
	for _, w := range warnings {
		fmt.Fprintln(c.Err, "warning:", w)
	}
}

func (c *common) print(r *result) error {
	if !c.asJSON {
		_, err := fmt.Fprintln(c.Out, strings.TrimRight(r.text, "\n"))
		return err
	}
	e := json.NewEncoder(c.Out)
	e.SetIndent("", "  ")
	return e.Encode(r.json)
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
	return command{}, fmt.Errorf("unknown command %q; release help lists them: %w", name, errUsage)
}

func (c command) synopsis() string {
	return strings.TrimSpace(fmt.Sprintf("release %s [FLAGS] %s", c.name, c.args))
}

func isURL(s string) bool { return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") }
