// Package ctl is containerctl: what a person types to pull images and run containers.
//
// It is the driver of the runtime: it puts the store (package store), the fetcher (package registry), the bundle and the
// unit in order, and stays for none of it. Every container that runs in the background is a systemd unit, proa-<name>.service;
// this program writes the unit and asks systemd.
//
// Commands are a table (commands.go); each parses its flags, does one thing and returns an exit code. Flags mean what docker's
// mean; what is not there is an unknown flag. Data goes to standard output, as JSON with --json, everything else to standard error.
package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/proa-os/proa/runtime/endpoint"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/oci"
	"github.com/proa-os/proa/runtime/run"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/trust"
	"github.com/proa-os/proa/runtime/unit"
)

// Units is the service manager: systemd, or in tests something that runs what units say.
type Units interface {
	Reload(context.Context) error
	Start(ctx context.Context, unit string) error
	Stop(ctx context.Context, unit string) error
	Restart(ctx context.Context, unit string) error
	ResetFailed(ctx context.Context, unit string) error
	Status(ctx context.Context, units []string) (map[string]unit.Status, error)
}

// Env is the machine as this program sees it.
type Env struct {
	Store      string   // directory of the store
	Run        string   // bundles and PID files of this boot
	OCIRoot    run.Root // state of oci-runtime
	UnitDir    string
	OCIRuntime []string // program and global flags
	Journal    string   // journalctl
	Release    string   // os-release, for --version
	FetchUser  string   // who talks to registries
	Endpoints  endpoint.Config
	Trust      []string // directories of the trust policy
	Units      Units
	In         *os.File
	Out, Err   io.Writer
}

// Machine is the environment on a Proa machine.
func Machine() *Env {
	return &Env{
		Store:      store.DefaultDir,
		Run:        "/run/proa/containers",
		OCIRoot:    oci.DefaultRoot,
		UnitDir:    unit.DefaultDir,
		OCIRuntime: []string{"/usr/bin/oci-runtime"},
		Journal:    "/usr/bin/journalctl",
		Release:    "/usr/lib/os-release",
		FetchUser:  "proa-fetch",
		Endpoints:  endpoint.Machine(home()),
		Trust:      []string{trust.VendorDir, trust.AdminDir},
		Units:      new(unit.Systemd),
		In:         os.Stdin, Out: os.Stdout, Err: os.Stderr,
	}
}

// home is where the user's configuration lies. A unit has no HOME.
func home() string {
	if h := os.Getenv("HOME"); h != "" || os.Geteuid() != 0 {
		return h
	}
	return "/root"
}

// command is one word of the command line.
type command struct {
	name, args string
	what       string // one line
	more       string // further paragraphs of --help
	flags      func(*flagset.Set)
	all        bool // flags may also stand behind arguments
	hidden     bool // for our own use
	run        func(context.Context, []string) (int, error)
}

// Main runs one command line and returns the exit code.
func (e *Env) Main(ctx context.Context, args []string) int {
	code, err := e.main(ctx, args)
	if errors.Is(err, flagset.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(e.Err, "containerctl: %s\n", printable(err.Error()))
		return max(code, 1)
	}
	return code
}

func (e *Env) main(ctx context.Context, args []string) (int, error) {
	var version bool
	set := new(flagset.Set)
	set.Bool(&version, "v,version", "print the release of the OS")
	rest, err := set.Parse(args, false)
	if errors.Is(err, flagset.ErrHelp) || (err == nil && !version && (len(rest) == 0 || rest[0] == "help")) {
		e.help()
		return 0, err
	}
	if err != nil {
		return 2, fmt.Errorf("%w: see containerctl --help", err)
	}
	if version {
		fmt.Fprintf(e.Out, "containerctl (%s)\n", e.release())
		return 0, nil
	}
	for _, c := range e.commands() {
		if c.name != rest[0] {
			continue
		}
		set := new(flagset.Set)
		if c.flags != nil {
			c.flags(set)
		}
		words, err := set.Parse(rest[1:], c.all)
		if errors.Is(err, flagset.ErrHelp) {
			e.commandHelp(c, set)
			return 0, err
		}
		if err != nil {
			return 2, fmt.Errorf("%s: %w: see containerctl %s --help", c.name, err, c.name)
		}
		code, err := c.run(ctx, words)
		if errors.Is(err, errNotRoot) {
			return 1, fmt.Errorf("%s: %w: run0 containerctl %s", c.name, err, strings.Join(args, " "))
		}
		if err != nil {
			return code, fmt.Errorf("%s: %w", c.name, err)
		}
		return code, nil
	}
	return 2, fmt.Errorf("unknown command %q: see containerctl --help", rest[0])
}

func (e *Env) help() {
	fmt.Fprint(e.Out, `containerctl runs containers as systemd units.

Usage: containerctl COMMAND [flags] [arguments]

A container that runs in the background is the unit proa-<name>.service: systemctl, journalctl -u and
drop-ins work on it. It starts again after a reboot. Nothing of containerctl stays in memory.

Commands:
`)
	for _, c := range e.commands() {
		if !c.hidden {
			fmt.Fprintf(e.Out, "  %-8s %s\n", c.name, c.what)
		}
	}
	fmt.Fprintf(e.Out, `
containerctl COMMAND --help tells more.

Files:
  /var/lib/proa/containers        images and containers
  /etc/systemd/system/proa-*      units of containers

Exit status: 0 success, 1 error, 2 wrong usage; of run in the foreground and exec: the command's.
`)
}

func (e *Env) commandHelp(c command, set *flagset.Set) {
	fmt.Fprintf(e.Out, "Usage: containerctl %s\n\n%s.\n", strings.TrimSpace(c.name+" "+c.args), strings.ToUpper(c.what[:1])+c.what[1:])
	if c.more != "" {
		fmt.Fprintf(e.Out, "\n%s\n", strings.TrimSpace(c.more))
	}
	if h := set.Help(); h != "" {
		fmt.Fprintf(e.Out, "\nFlags:\n%s", h)
	}
}

// release is the PRETTY_NAME of os-release.
func (e *Env) release() string {
	b, err := os.ReadFile(e.Release)
	if err == nil {
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
				return strings.Trim(strings.TrimSpace(v), `"`)
			}
		}
	}
	return "not on Proa"
}

// errNotRoot says that the store is closed to this user.
var errNotRoot = errors.New("needs root")

func (e *Env) open() (*store.Store, error) {
	s, err := store.Open(e.Store)
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return nil, errNotRoot
	}
	return s, err
}

// printable takes out what would steer a terminal: registries and containers have a say in errors.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

func (e *Env) bundle(name string) string { return filepath.Join(e.Run, name) }

func (e *Env) json(v any) error {
	enc := json.NewEncoder(e.Out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// exactly checks the number of arguments.
func exactly(words []string, names ...string) error {
	if len(words) != len(names) {
		return fmt.Errorf("want %s, found %d arguments", strings.Join(names, " and "), len(words))
	}
	return nil
}
