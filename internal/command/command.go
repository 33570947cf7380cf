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
	"slices"
	"strings"

	"github.com/proa-os/proa/internal/nearest"
)

// A Command is one row of a program's table.
type Command struct {
	Name  string
	Args  string // what stands behind the flags
	Short string // one line
	Long  string // the manual page's description
	// Setup registers flags and returns what runs the command with the arguments that are no flags. It may be called for reading only.
	Setup func(flags *flag.FlagSet) func(ctx context.Context, args []string) error
	// Own takes Setup's place where the flags have a syntax of their own.
	Own      func() (Flags, func(ctx context.Context, args []string) error)
	Min, Max int // arguments; -1: any number
	Examples []string
	Exits    string   // further exit codes
	Words    []string // fixed arguments, for completion
	Files    bool     // files stand beside fixed arguments
	Lister   string   // a command line that prints further ones
	Hidden   bool     // for programs: neither in help nor in completion
}

// A Flag is what help and completion show of a flag.
type Flag struct {
	Names       []string // as they are typed: "-d", "--detach"
	Meta, Usage string   // Meta is what its value is called, "" for a switch
	Default     string   // "" where there is nothing to tell
}

// Flags are those of one command. The flag package's are the usual ones; a program whose users know another's brings its own.
type Flags interface {
	Parse(args []string) (rest []string, err error) // flag.ErrHelp asks for the manual page
	All() []Flag
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
	flags, do := c.setup()
	rest, err := flags.Parse(args)
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

// All are the program's commands with those that every program has. One that is itself a command of another program, as its name of
// two words says, has no completion of its own.
func (p Program) All() []Command {
	all := append([]Command{}, p.Commands...)
	if !strings.Contains(p.Name, " ") {
		all = append(all, p.completionCommand())
	}
	return append(all, Command{
		Name: "help", Args: "[COMMAND]", Max: 1, Short: "print a command's manual page", Words: names(all), Setup: nothing,
		Long: "Prints the manual page of a command, or the list of commands.",
	})
}

// shown are the commands for people.
func (p Program) shown() []Command {
	return slices.DeleteFunc(p.All(), func(c Command) bool { return c.Hidden })
}

func names(commands []Command) (names []string) {
	for _, c := range commands {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return names
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
	if near := nearest.Word(name, names(p.All())); near != "" {
		return Command{}, Wrong("unknown command %q: did you mean %s? %s help lists them", name, near, p.Name)
	}
	return Command{}, Wrong("unknown command %q; %s help lists them", name, p.Name)
}

func (p Program) synopsis(c Command) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s [FLAGS] %s", p.Name, c.Name, c.Args))
}

// Flags returns the flags that Setup registers, for reading only.
func (c Command) Flags() *flag.FlagSet {
	flags := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	c.Setup(flags)
	return flags
}

// Options returns the command's flags, whoever parses them.
func (c Command) Options() []Flag {
	flags, _ := c.setup()
	return flags.All()
}

func (c Command) setup() (Flags, func(context.Context, []string) error) {
	if c.Own != nil {
		return c.Own()
	}
	flags := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	do := c.Setup(flags)
	return usual{flags}, do
}

// usual are the flag package's.
type usual struct{ set *flag.FlagSet }

func (u usual) Parse(args []string) ([]string, error) { return parse(u.set, args) }

func (u usual) All() (all []Flag) {
	u.set.VisitAll(func(f *flag.Flag) {
		meta, usage := flag.UnquoteUsage(f)
		def := f.DefValue
		if isZero(def) {
			def = ""
		}
		all = append(all, Flag{Names: []string{"--" + f.Name}, Meta: meta, Usage: usage, Default: def})
	})
	return all
}
