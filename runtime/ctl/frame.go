package ctl

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/internal/nearest"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/ref"
	"github.com/proa-os/proa/runtime/store"
)

// A verb is one word of the command line: a row of the table that parsing, help and completion share.
type verb struct {
	name, args string
	what       string   // one line
	more       string   // the manual page's description
	examples   []string // command lines
	min, max   int      // how many arguments; max -1: any number
	last       bool     // the first argument ends the flags, as another command follows
	hidden     bool     // for our own use
	closed     bool     // works without the store
	json       bool     // has --json
	lister     string   // what completes the arguments: "containers", "images" ... (see words)
	// setup registers flags and returns what is to be done once they are parsed. It may be called for reading only.
	setup func(*flagset.Set) action
	exits string // further exit codes
	// elsewhere are flags of docker's that are not there, with what is instead.
	elsewhere map[string]string
	verbs     []verb // those of a group such as network, instead of setup
}

// An action carries out one command line.
type action func(context.Context, *call) error

// plain is the setup of a verb without flags of its own.
func plain(do action) func(*flagset.Set) action {
	return func(*flagset.Set) action { return do }
}

// A call is one command line under way: the machine, the arguments and the store, which is open unless the verb is closed.
type call struct {
	*Env
	args   []string
	store  *store.Store
	asJSON bool
}

// An exit is the error of a command that has said all there is to say, and now ends with a code.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Main runs one command line and returns the exit code.
func (e *Env) Main(ctx context.Context, args []string) int {
	if len(args) == 1 && (args[0] == "-v" || args[0] == "--version") {
		args = []string{"version"}
	}
	err := e.program().Run(ctx, e.Out, args)
	if err == nil {
		return 0
	}
	if errors.Is(err, errNotRoot) {
		err = fmt.Errorf("%s: %w: run0 containerctl %s", args[0], err, strings.Join(args, " "))
	}
	var code exit
	silent := errors.As(err, &code)
	if !silent {
		fmt.Fprintf(e.Err, "containerctl: %s\n", printable(err.Error()))
	}
	var usage *command.WrongUsage
	var start startError
	switch {
	case errors.As(err, &start):
		return start.code
	case silent:
		return int(code)
	case args[0] == "run" || len(args) > 1 && args[0] == "container" && args[1] == "run":
		return ourFailure // not to be mistaken for the workload's
	case errors.As(err, &usage):
		return 2
	}
	return 1
}

// program is the table as package command takes it.
func (e *Env) program() command.Program {
	return command.Program{
		Name:     "containerctl",
		Commands: e.commands("containerctl", e.verbs()),
		Footer:   "A container is the unit proa-NAME.service.",
		Exits:    "0 success, 1 error, 2 wrong usage.",
		Sections: [][2]string{{"FILES", "/var/lib/proa/containers      images and containers\n/etc/systemd/system/proa-*    units of containers"}},
	}
}

// commands are the verbs of a table whose name, "containerctl" or "containerctl network", stands before them.
func (e *Env) commands(name string, verbs []verb) (out []command.Command) {
	for _, v := range verbs {
		c := command.Command{Name: v.name, Args: v.args, Short: v.what, Long: strings.TrimSpace(upper(v.what) + ".\n\n" + v.more),
			Examples: v.examples, Min: v.min, Max: v.max, Hidden: v.hidden, Exits: v.exits}
		if v.lister != "" {
			c.Lister = "containerctl words " + v.lister
		}
		if v.verbs != nil {
			e.group(&c, name, v)
		} else {
			c.Own = func() (command.Flags, func(context.Context, []string) error) { return e.own(v) }
		}
		out = append(out, c)
	}
	return out
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// group makes a command that is a program with commands.
func (e *Env) group(c *command.Command, name string, v verb) {
	inner := command.Program{Name: name + " " + v.name, Commands: e.commands(name+" "+v.name, v.verbs), Exits: "0 success, 1 error, 2 wrong usage."}
	c.Args, c.Min, c.Max = "COMMAND", 0, -1
	for _, s := range v.verbs {
		c.Words = append(c.Words, s.name)
	}
	c.Own = func() (command.Flags, func(context.Context, []string) error) {
		return raw{}, func(ctx context.Context, args []string) error { return inner.Run(ctx, e.Out, args) }
	}
}

// raw leaves all flags to the command behind.
type raw struct{}

func (raw) Parse(args []string) ([]string, error) { return args, nil }
func (raw) All() []command.Flag                   { return nil }

// own is a verb's flags and what it does.
func (e *Env) own(v verb) (command.Flags, func(context.Context, []string) error) {
	set, c := new(flagset.Set), &call{Env: e}
	do := v.setup(set)
	if v.json {
		set.Bool(&c.asJSON, "json", "print JSON")
	}
	return flags{set, !v.last, v.elsewhere}, func(ctx context.Context, args []string) error {
		c.args = args
		if !v.closed {
			var err error
			if c.store, err = e.open(); err != nil {
				return err
			}
		}
		return do(ctx, c)
	}
}

// flags are docker-like flags as package command takes them.
type flags struct {
	set *flagset.Set
	all bool // flags also behind arguments
	// elsewhere are flags of docker's that are not there, with what is instead.
	elsewhere map[string]string
}

func (f flags) All() (all []command.Flag) {
	f.set.Visit(func(names []string, meta, usage string) {
		all = append(all, command.Flag{Names: names, Meta: meta, Usage: usage})
	})
	return all
}

func (f flags) Parse(args []string) ([]string, error) {
	rest, err := f.set.Parse(args, f.all)
	var unknown *flagset.UnknownError
	switch {
	case errors.Is(err, flagset.ErrHelp):
		return nil, flag.ErrHelp
	case errors.As(err, &unknown) && f.elsewhere[unknown.Flag] != "":
		return nil, fmt.Errorf("%w: %s", err, f.elsewhere[unknown.Flag])
	case errors.As(err, &unknown):
		var names []string
		for _, known := range f.All() {
			names = append(names, known.Names...)
		}
		if near := nearest.Word(unknown.Flag, names); near != "" {
			return nil, fmt.Errorf("%w: did you mean %s?", err, near)
		}
	}
	return rest, err
}

// each does something to every named container, prints its name and goes on after an error.
func (c *call) each(do func(*store.Container) error) error {
	var errs []error
	for _, name := range c.args {
		k, err := c.container(name)
		if err == nil {
			err = do(k)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintln(c.Out, k.Name)
	}
	return errors.Join(errs...)
}

// container finds a container by its name.
func (c *call) container(name string) (*store.Container, error) {
	k, err := c.store.Container(name)
	if errors.Is(err, store.ErrNoContainer) {
		return nil, c.suggest(err, name, "containers")
	}
	return k, err
}

// image finds an image by its name.
func (c *call) image(name string) (ref.Ref, *store.Record, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return r, nil, err
	}
	rec, err := c.store.Image(r)
	if errors.Is(err, store.ErrNoImage) {
		err = c.suggest(err, name, "images")
	}
	return r, rec, err
}

// suggest adds to err the name that was probably meant.
func (c *call) suggest(err error, name, kind string) error {
	words, werr := c.words(kind)
	if near := nearest.Word(name, words); werr == nil && near != "" {
		return fmt.Errorf("%w: did you mean %s?", err, near)
	}
	return err
}

// words are the names of one kind that are in the store, for completion and suggestions.
func (c *call) words(kind string) ([]string, error) {
	var out []string
	if kind == "containers" || kind == "both" {
		ks, err := c.store.Containers()
		if err != nil {
			return nil, err
		}
		for _, k := range ks {
			out = append(out, k.Name)
		}
	}
	if kind == "images" || kind == "both" {
		list, err := c.store.Images()
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			out = append(out, r.Name)
		}
	}
	switch kind {
	case "volumes":
		return c.volumeNames()
	case "secrets":
		return c.secretNames()
	}
	if kind == "networks" {
		return c.networkNames()
	}
	return slices.Compact(out), nil
}

// table prints rows of columns below a heading.
func (c *call) table(heading string, rows func(w io.Writer)) error {
	w := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, heading)
	rows(w)
	return w.Flush()
}
