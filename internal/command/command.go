// Package command is the command line of a program with subcommands: one table parses, helps and completes, so that the three cannot
// differ.
//
// Flags stand before, between and after other arguments; "--" ends them. `PROGRAM help COMMAND` and `PROGRAM COMMAND --help` print a manual
// page, `PROGRAM completion bash|zsh|fish` a script for a shell.
package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// A Command is one row of a program's table.
type Command struct {
	Name  string
	Args  string // what stands behind the flags
	Short string // one line
	Long  string // the manual page's description
	// Setup registers flags and returns what runs the command with the arguments that are no flags. It may be called for reading only.
	Setup    func(flags *flag.FlagSet) func(ctx context.Context, args []string) error
	Min, Max int // arguments; -1: any number
	Examples []string
	Exits    string   // further exit codes
	Words    []string // fixed arguments, for completion
}

// A Program has a table of commands.
type Program struct {
	Name     string
	Commands []Command
	Footer   string // behind the list of commands
	Exits    string // the exit codes of all commands
	Sections [][2]string
}

// WrongUsage is the error of a command line that cannot be understood.
type WrongUsage struct{ err error }

func (e *WrongUsage) Error() string { return e.err.Error() }

// Unwrap returns what is wrong.
func (e *WrongUsage) Unwrap() error { return e.err }

// Wrong returns a WrongUsage, for what a command finds wrong itself.
func Wrong(format string, args ...any) error { return &WrongUsage{fmt.Errorf(format, args...)} }

// Run runs one command line, without the program's name. What it prints itself (help, completion) goes to out.
func (p Program) Run(ctx context.Context, out io.Writer, args []string) error {
	if len(args) == 0 {
		return p.usage(out)
	}
	name, args := args[0], args[1:]
	switch {
	case name == "help" || isHelp(name):
		if len(args) == 1 && isHelp(args[0]) {
			args = []string{"help"}
		}
		return p.help(out, args)
	case name == "completion":
		return p.completion(ctx, out, args)
	}
	c, err := p.find(name)
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet(p.Name+" "+name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	do := c.Setup(flags)
	rest, err := parse(flags, args)
	if errors.Is(err, flag.ErrHelp) {
		return p.help(out, []string{name})
	}
	if err == nil && (len(rest) < c.Min || c.Max >= 0 && len(rest) > c.Max) {
		err = fmt.Errorf("got %d arguments", len(rest))
	}
	if err != nil {
		return Wrong("%s: %w; usage: %s (%s help %s)", name, err, p.synopsis(c), p.Name, name)
	}
	return do(ctx, rest)
}

func isHelp(arg string) bool { return arg == "--help" || arg == "-help" || arg == "-h" }

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

// All are the program's commands with those that every program has.
func (p Program) All() []Command {
	var names []string
	for _, c := range p.Commands {
		names = append(names, c.Name)
	}
	return append(append([]Command{}, p.Commands...), p.completionCommand(), Command{
		Name: "help", Args: "[COMMAND]", Max: 1, Short: "print a command's manual page", Words: append(names, "completion"), Setup: nothing,
		Long: "Prints the manual page of a command, or the list of commands.",
	})
}

func nothing(*flag.FlagSet) func(context.Context, []string) error {
	return func(context.Context, []string) error { return nil }
}

func (p Program) find(name string) (Command, error) {
	for _, c := range p.All() {
		if c.Name == name {
			return c, nil
		}
	}
	return Command{}, Wrong("unknown command %q; %s help lists them", name, p.Name)
}

func (p Program) synopsis(c Command) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s [FLAGS] %s", p.Name, c.Name, c.Args))
}

// Flags returns the command's flags, for reading only.
func (c Command) Flags() *flag.FlagSet {
	flags := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	c.Setup(flags)
	return flags
}
