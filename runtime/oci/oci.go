// Package oci is the command line of oci-runtime: the commands and flags that container engines and systemd units call,
// as runc and the OCI's command line interface document (runtime-tools, command-line-interface.md) define them.
//
// It parses, calls package run, prints. Exit codes: of the workload for run and exec in the foreground; 0 for success; 127 if
// the workload's program is not there, 126 if it cannot be executed; 1 for any other error (exec: 255 for all). An error is one line on
// standard error and, with --log, a record in a file for the engine to show.
package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/run"
)

// DefaultRoot is where state is without --root.
const DefaultRoot = "/run/proa/oci"

// Streams are what a command writes to.
type Streams struct {
	Out, Err io.Writer
}

// global is what stands before the command.
type global struct {
	root           run.Root
	log, logFormat string
	version        bool
	systemd        bool
	out, err       io.Writer
}

// command is one word of the command line.
type command struct {
	name, args, what string
	flags            func(*flagset.Set) // nil for none
	all              bool               // flags also behind arguments
	run              func(context.Context, []string) (int, error)
}

const intro = `oci-runtime runs one container from an OCI bundle, and does not stay.

Usage: oci-runtime [global flags] COMMAND [flags] [arguments]

`

// Main runs one command line and returns the exit code.
func Main(ctx context.Context, args []string, s Streams) int {
	g := &global{out: s.Out, err: s.Err}
	code, err := g.main(ctx, args)
	if errors.Is(err, flagset.ErrHelp) {
		return 0
	}
	if err != nil {
		g.tell("error", err.Error())
		var command *run.CommandError
		if code <= 1 && errors.As(err, &command) {
			return command.Code()
		}
		return max(code, 1)
	}
	return code
}

func (g *global) main(ctx context.Context, args []string) (int, error) {
	root := DefaultRoot
	set := new(flagset.Set)
	set.String(&root, "root", "DIR", "directory of the containers' state (default "+DefaultRoot+")")
	set.String(&g.log, "log", "FILE", "append errors to this file as well")
	set.Func("log-format", "FORMAT", "text or json, for --log", func(v string) error {
		if v != "text" && v != "json" {
			return errors.New("want text or json")
		}
		g.logFormat = v
		return nil
	})
	var debug bool
	set.Bool(&debug, "debug", "accepted: there is nothing more to tell")
	set.Func("log-level", "LEVEL", "accepted: only errors are logged", func(string) error { return nil })
	set.Func("rootless", "WHETHER", "accepted: false and auto are what it is", func(v string) error {
		if v == "true" {
			return errors.New("containers without root are not supported")
		}
		return nil
	})
	set.Bool(&g.systemd, "systemd-cgroup", "the cgroup is a scope that systemd makes; linux.cgroupsPath is slice:prefix:name")
	set.Bool(&g.version, "v,version", "print versions")
	rest, err := set.Parse(args, false)
	if errors.Is(err, flagset.ErrHelp) || (err == nil && len(rest) == 0 && !g.version) {
		fmt.Fprint(g.out, g.help(set))
		return 0, err
	}
	if err != nil {
		return 1, err
	}
	g.root = run.Root(root)
	if g.version {
		fmt.Fprintf(g.out, "oci-runtime of Proa\nspec: %s\n", specs.Version)
		return 0, nil
	}
	for _, c := range g.commands() {
		if c.name != rest[0] {
			continue
		}
		set := new(flagset.Set)
		if c.flags != nil {
			c.flags(set)
		}
		words, err := set.Parse(rest[1:], c.all)
		if errors.Is(err, flagset.ErrHelp) {
			fmt.Fprintf(g.out, "Usage: oci-runtime %s %s\n\n%s.\n\n%s", c.name, c.args, c.what, set.Help())
			return 0, err
		}
		if err != nil {
			return 1, fmt.Errorf("%s: %w", c.name, err)
		}
		return c.run(ctx, words)
	}
	return 1, fmt.Errorf("unknown command %q: see oci-runtime --help", rest[0])
}

func (g *global) help(set *flagset.Set) string {
	var b strings.Builder
	b.WriteString(intro + "Commands:\n")
	for _, c := range g.commands() {
		fmt.Fprintf(&b, "  %-9s %s\n", c.name, c.what)
	}
	b.WriteString("\nGlobal flags:\n" + set.Help())
	return b.String()
}

// tell prints an error or a warning and logs it for the engine that called.
func (g *global) tell(level, text string) {
	prefix := ""
	if level != "error" {
		prefix = level + ": "
	}
	fmt.Fprintf(g.err, "oci-runtime: %s%s\n", prefix, text)
	if g.log == "" {
		return
	}
	f, err := os.OpenFile(g.log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		fmt.Fprintf(g.err, "oci-runtime: open log: %v\n", err)
		return
	}
	defer f.Close()
	now := time.Now().Format(time.RFC3339)
	if g.logFormat == "json" {
		json.NewEncoder(f).Encode(map[string]string{"level": level, "msg": text, "time": now})
		return
	}
	fmt.Fprintf(f, "time=%q level=%s msg=%q\n", now, level, text)
}

func (g *global) warn(text string) { g.tell("warning", text) }

// one returns the only argument.
func one(words []string, what string) (string, error) {
	if len(words) != 1 {
		return "", fmt.Errorf("want one argument, the %s, found %d", what, len(words))
	}
	return words[0], nil
}
