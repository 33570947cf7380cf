package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/keyring"
	"github.com/proa-os/proa/ignition/source"
	"github.com/proa-os/proa/ignition/stage"
	"github.com/proa-os/proa/internal/command"
)

// program is what the commands work with.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	stage.Options
	json bool
}

// Exit codes. Upstream's ignition has the same.
const (
	exitError = 1
	exitUsage = 2
	exitSetup = 3 // what an earlier stage has left cannot be read
)

func exitStatus(err error) int {
	var wrong *command.WrongUsage
	switch {
	case errors.As(err, &wrong):
		return exitUsage
	case errors.Is(err, stage.ErrState):
		return exitSetup
	}
	return exitError
}

// run runs a command line: a command, or flags as upstream's program has them.
func (p *program) run(ctx context.Context, args []string) error {
	p.logTo(p.stderr)
	if len(args) > 0 && strings.HasPrefix(args[0], "-") && strings.Trim(args[0], "-") != "help" && args[0] != "-h" {
		return p.upstream(ctx, args)
	}
	return command.Program{
		Name: "ignition", Commands: p.commands(), Exits: "0 success, 1 error, 2 wrong usage.",
		Footer: "ignition -stage STAGE runs a stage as upstream's ignition does: ignition help stage.",
	}.Run(ctx, p.stdout, args)
}

func (p *program) logTo(w io.Writer) {
	p.Log = slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey { // the journal knows
			return slog.Attr{}
		}
		return a
	}}))
}

type setup = func(flags *flag.FlagSet) func(ctx context.Context, args []string) error

func (p *program) commands() []command.Command {
	return []command.Command{
		{Name: "check", Args: "CONFIG...", Min: 1, Max: -1, Short: "report everything wrong with configs", Setup: p.check,
			Long:     "Loads every config as a machine would, the configs it refers to included, and reports everything that is wrong: file, path in the config, line, column, what was expected, what was found and what to do. Unknown keys are errors. \"-\" is standard input. Ignition JSON (spec 3.0.0 to 3.6.0) and Butane YAML (variants proa and fcos) are accepted.",
			Examples: []string{"ignition check web.bu", "ignition check --json *.ign"}},
		{Name: "plan", Args: "CONFIG", Min: 1, Max: 1, Short: "show what a config would do, in order", Setup: p.plan,
			Long:  "Shows the operations in their order and where the config asks for them. With a disk image in the place of a device: which partitions would be kept, made, resized or deleted there, and why. With a tree: what each operation would find. The tree of the system itself is in root.img, which image-builder writes beside disk.img: fsck.erofs --extract=DIR root.img unpacks it. --image holds disks against images, never files. Nothing is changed, and nobody has to be root.",
			Exits: "1 if something would be refused.", Examples: []string{"ignition plan web.bu", "ignition plan --image /dev/vdb=data.img --root /tmp/tree web.bu"}},
		{Name: "apply", Args: "CONFIG", Min: 1, Max: 1, Short: "apply a config to a file tree", Setup: p.apply,
			Long:     "Applies a config to a file tree, as root. It can be run again and ends the same. What a tree does not have, disks and a boot program, is left out with a warning.",
			Examples: []string{"ignition apply --root /tmp/tree web.bu", "ignition apply --offline --root /tmp/tree - < web.ign"}},
		{Name: "drift", Short: "show what differs now from what was provisioned", Setup: p.drift,
			Long: "Shows what is no longer as provisioning has made it, and where the config asked for it: users, files and units; on the machine itself partitions, arrays, encrypted volumes with the ways to open them, file systems and kernel arguments too. What people keep in file systems is not looked at.", Exits: "1 if something differs."},
		{Name: "reset", Args: "[PATH...]", Max: -1, Short: "let the next boot provision this machine again", Setup: p.reset,
			Long:     "Asks for a new first boot: the next start of the machine (systemctl reboot; a soft reboot is not enough) forgets everything in /var and /etc but the paths to keep, and provisions the machine from what its platform gives it then. Owners of kept files are numbers: describe the users with the same ids. Until then, removing the file /var/lib/ignition/reset takes the request back.",
			Examples: []string{"ignition reset", "ignition reset --keep /etc/ssh /var/lib/data"}},
		p.secretCommand(),
		p.clevisCommand(),
		{Name: "stage", Args: "STAGE", Min: 1, Max: 1, Short: "run a stage of a first boot", Setup: p.stageCommand, Words: stage.Stages(), Long: stageManual, Exits: "3 if what an earlier stage has left cannot be read.",
			Examples: []string{"ignition -stage fetch-offline", "ignition -stage files -platform file -root /sysroot -log-to-stdout"}},
		{Name: "rmcfg", Short: "have the platform delete the config of this machine", Setup: p.rmcfg,
			Long: "Has the platform delete the config of this machine, as upstream's ignition-rmcfg does. Of the platforms, virtualbox and vmware can. A first boot ends with it, unless the config masks ignition-delete-config.service."},
		{Name: "version", Short: "print the version", Setup: p.version},
		{Name: "first-boot", Hidden: true, Short: "run all stages, mark the machine as provisioned, and have systemd go on", Setup: p.firstBoot},
		{Name: "show-failure", Hidden: true, Short: "put the error of the last stage on every console", Setup: p.showFailure},
	}
}

// loadFile loads a config; "-" is standard input. Files that Butane calls local are below its directory.
func (p *program) loadFile(ctx context.Context, name string) (*config.Merged, error) {
	raw, err, files := []byte(nil), error(nil), fs.FS(nil)
	if name == "-" {
		name = "standard input"
		raw, err = io.ReadAll(io.LimitReader(p.stdin, config.MaxSize+1))
	} else {
		raw, err = os.ReadFile(name)
		if root, rerr := os.OpenRoot(filepath.Dir(name)); rerr == nil {
			defer root.Close()
			files = root.FS()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	return config.LoadWithFiles(ctx, name, raw, source.Fetcher{Offline: p.Fetcher.Offline, Secrets: p.Fetcher.Secrets}.Config, files)
}

// answer prints v as JSON.
func (p *program) answer(v any) error {
	e := json.NewEncoder(p.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func (p *program) version(*flag.FlagSet) func(context.Context, []string) error {
	return func(context.Context, []string) error {
		version := "unknown"
		if info, ok := debug.ReadBuildInfo(); ok {
			version = info.Main.Version
		}
		_, err := fmt.Fprintf(p.stdout, "ignition %s (spec 3.0.0 to 3.6.0)\n", version)
		return err
	}
}

// firstBoot is what ignition.service runs.
func (p *program) firstBoot(*flag.FlagSet) func(context.Context, []string) error {
	return func(ctx context.Context, _ []string) error {
		p.defaults()
		bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return err
		}
		m, err := p.machine()
		if err != nil {
			return err
		}
		p.Fetcher.Secrets = keyring.ThisMachine().Open
		return stage.FirstBoot(ctx, m, p.Options, stage.Boot{ID: string(bootID), Now: time.Now(), Systemctl: stage.Systemctl})
	}
}

func (p *program) showFailure(*flag.FlagSet) func(context.Context, []string) error {
	return func(ctx context.Context, _ []string) error {
		p.defaults()
		return errors.Join(stage.ShowFailure(p.Failure, "/sys", "/dev", p.stdout), p.exportJournal(ctx))
	}
}

// exportJournal gives the journal to the host, where it has asked for it.
func (p *program) exportJournal(ctx context.Context) error {
	m, err := p.machine()
	if err != nil {
		return err
	}
	return stage.Exporter{Sys: "/sys", Dev: "/dev", Load: m.Load, Journal: func(ctx context.Context, w io.Writer) error {
		cmd := exec.CommandContext(ctx, "journalctl", "-b", "-o", "json", "--no-pager")
		cmd.Stdout, cmd.Stderr = w, p.stderr
		return cmd.Run()
	}}.Export(ctx)
}
