// Package desk is the release command: its commands and what they print. What they do is in package repo, their manual pages and
// completion are of package command.
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

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/update-engine/artifact"
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

var errProblems = errors.New("the repository is not as it should be")

// ExitCode is the exit code that stands for what Run returned.
func ExitCode(err error) int {
	var missing *repo.MissingError
	var usage *command.WrongUsage
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, errProblems):
		return exitProblems
	case errors.As(err, &missing):
		return exitMissing
	}
	return exitError
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
	needsRepo, needKeys bool
}

// program is release's table of commands.
func program(s Streams) command.Program {
	return command.Program{
		Name: "release",
		Commands: []command.Command{
			s.keysCommand(), s.initCommand(), s.stageCommand(), s.deltaCommand(), s.signCommand(), s.publishCommand(), s.planCommand(),
			s.refreshCommand(), s.pushCommand(), s.rotateCommand(), s.renewCommand(), s.discardCommand(), s.statusCommand(), s.verifyCommand(),
		},
		Footer: "All but completion and help\ntake --json and --quiet, all that write take --dry-run. $PROA_REPO and $PROA_KEYS\nstand for --repo and --keys.",
		Exits: `0  done
1  an error; what it says is what to do
2  a wrong command line
3  verify found something
4  signatures of offline keys are missing`,
		Sections: [][2]string{{"ENVIRONMENT", "PROA_REPO  stands for --repo\nPROA_KEYS  stands for --keys"}},
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
}

// desk is the repository with its keys.
func (c *common) desk() *repo.Desk {
	d := &repo.Desk{Dir: c.repo, Keys: repo.OpenKeys(c.keys), Now: c.Now, DryRun: c.dry}
	if !c.quiet {
		d.Progress = (&bar{w: c.Err, start: time.Now()}).show
	}
	return d
}

// Run does one command. Without any it prints the list of commands, as an error.
func Run(ctx context.Context, s Streams, args []string) error {
	p := program(s)
	if len(args) > 0 {
		return p.Run(ctx, s.Out, args)
	}
	return errors.Join(command.Wrong("no command"), p.Run(ctx, s.Err, nil))
}

// setup is that of a command that has the common flags and prints a result.
func (s Streams) setup(set func(*common, *flag.FlagSet) action) func(*flag.FlagSet) func(context.Context, []string) error {
	return func(flags *flag.FlagSet) func(context.Context, []string) error {
		c := &common{Streams: s}
		do := set(c, flags)
		flags.BoolVar(&c.asJSON, "json", false, "print the result as JSON")
		flags.BoolVar(&c.quiet, "quiet", false, "show no progress")
		return func(ctx context.Context, args []string) error {
			if err := c.complete(flags.Name()); err != nil {
				return err
			}
			r, err := do(ctx, args)
			c.warn()
			if r != nil {
				err = errors.Join(err, c.print(r))
			}
			return err
		}
	}
}

// complete says what is missing of a command line.
func (c *common) complete(name string) error {
	missing := ""
	switch {
	case c.needsRepo && c.repo == "":
		missing = "--repo"
	case c.needKeys && c.keys == "":
		missing = "--keys"
	default:
		return nil
	}
	name = strings.TrimPrefix(name, "release ")
	return command.Wrong("%s: %s is missing (release help %s)", name, missing, name)
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

func isURL(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") || artifact.Is(s)
}
