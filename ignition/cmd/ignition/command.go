package main

import (
	"context"
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
	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/platform"
	"github.com/proa-os/proa/ignition/source"
	"github.com/proa-os/proa/ignition/stage"
)

// options is the command line.
type options struct {
	stage.Options
	command        string // "" with -stage
	args           []string
	keep           []string
	images         []string // of `plan`
	rootGiven      bool     // -root is on the command line
	version        bool
	help           bool
	logToStdout    bool
	stdout, stderr io.Writer
}

// usageError makes the exit status 2.
type usageError struct{ error }

func exitStatus(err error) int {
	var u usageError
	if errors.As(err, &u) {
		return 2
	}
	return 1
}

func parse(args []string) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("ignition", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.Platform, "platform", "", "")
	flags.StringVar(&o.Stage, "stage", "", "")
	flags.StringVar(&o.Root, "root", "/", "")
	flags.StringVar(&o.ConfigCache, "config-cache", "/run/ignition.json", "")
	flags.StringVar(&o.StateFile, "state-file", "/run/ignition/state", "")
	flags.StringVar(&o.NeedNet, "neednet", "/run/ignition/neednet", "")
	flags.Func("keep", "", func(path string) error {
		o.keep = append(o.keep, path)
		return nil
	})
	flags.Func("image", "", func(image string) error {
		o.images = append(o.images, image)
		return nil
	})
	flags.BoolVar(&o.logToStdout, "log-to-stdout", false, "")
	flags.BoolVar(&o.version, "version", false, "")
	o.Failure, o.Restart = "/run/ignition/failure", "/run/ignition/restart"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		o.command, args = args[0], args[1:]
	}
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		o.help = true
		return o, nil
	case err != nil:
		return nil, usageError{fmt.Errorf("%w; see ignition -help", err)}
	}
	o.args = flags.Args()
	flags.Visit(func(f *flag.Flag) { o.rootGiven = o.rootGiven || f.Name == "root" })
	if len(o.keep) > 0 { // -keep PATH...
		o.keep, o.args = append(o.keep, o.args...), nil
	}
	return o, nil
}

func run(ctx context.Context, o *options) error {
	logTo := o.stderr
	if o.logToStdout {
		logTo = o.stdout
	}
	o.Log = slog.New(slog.NewTextHandler(logTo, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey { // the journal knows
			return slog.Attr{}
		}
		return a
	}}))
	switch {
	case o.help || o.command == "help":
		_, err := io.WriteString(o.stdout, manual)
		return err
	case o.version || o.command == "version":
		return printVersion(o.stdout)
	case o.command == "check" && len(o.args) > 0:
		return check(ctx, o)
	case o.command == "plan" && len(o.args) == 1:
		return showPlan(ctx, o)
	case o.command == "apply" && len(o.args) == 1:
		return applyConfig(ctx, o)
	case o.command == "drift" && len(o.args) == 0:
		return drift(o)
	case o.command == "reset" && len(o.args) == 0:
		return reset(o)
	case o.command == "finish" && len(o.args) == 0:
		bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return err
		}
		return stage.Finish(ctx, o.Options, string(bootID), time.Now())
	case o.command == "show-failure" && len(o.args) == 0:
		return errors.Join(stage.ShowFailure(o.Failure, "/sys", "/dev", o.stdout), exportJournal(ctx))
	case o.command == "" && o.Stage != "" && len(o.args) == 0:
		m, err := platform.ThisMachine()
		if err != nil {
			return err
		}
		return stage.Run(ctx, m, o.Options)
	case o.command == "" && o.Stage == "":
		return usageError{errors.New("expected a command or -stage; see ignition -help")}
	}
	return usageError{fmt.Errorf("unknown command, or wrong arguments for it: %q; see ignition -help", strings.TrimSpace(o.command+" "+strings.Join(o.args, " ")))}
}

// exportJournal gives the journal to the host, where it has asked for it.
func exportJournal(ctx context.Context) error {
	m, err := platform.ThisMachine()
	if err != nil {
		return err
	}
	return stage.Exporter{Sys: "/sys", Dev: "/dev", Load: m.Load, Journal: func(ctx context.Context, w io.Writer) error {
		cmd := exec.CommandContext(ctx, "journalctl", "-b", "-o", "json", "--no-pager")
		cmd.Stdout, cmd.Stderr = w, os.Stderr
		return cmd.Run()
	}}.Export(ctx)
}

// check loads every config as a machine would, network sources included as far as configs are concerned.
func check(ctx context.Context, o *options) error {
	var bad int
	for _, name := range o.args {
		merged, err := loadFile(ctx, name)
		if err == nil {
			_, err = plan.Build(merged)
		}
		var issues config.Issues
		switch {
		case errors.As(err, &issues):
			bad++
			for _, i := range issues {
				fmt.Fprintf(o.stdout, "error: %s\n%s\n", i.Place, i.Screen())
			}
			continue
		case err != nil:
			return err
		}
		for _, w := range merged.Warnings {
			fmt.Fprintf(o.stdout, "warning: %s\n%s\n", w.Place, w.Screen())
		}
		fmt.Fprintf(o.stdout, "%s: ok\n", name)
	}
	if bad > 0 {
		return fmt.Errorf("check: %d of %d configs cannot be applied", bad, len(o.args))
	}
	return nil
}

func applyConfig(ctx context.Context, o *options) error {
	merged, err := loadFile(ctx, o.args[0])
	if err != nil {
		return err
	}
	ops, err := plan.Build(merged)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(o.Root)
	if err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	defer root.Close()
	return stage.Apply(ctx, root, merged.Config, ops, o.Options)
}

// loadFile loads a config; "-" is standard input. Files that Butane calls local are below its directory.
func loadFile(ctx context.Context, name string) (*config.Merged, error) {
	raw, err, files := []byte(nil), error(nil), fs.FS(nil)
	if name == "-" {
		name = "standard input"
		raw, err = io.ReadAll(io.LimitReader(os.Stdin, config.MaxSize+1))
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
	return config.LoadWithFiles(ctx, name, raw, source.Fetcher{}.Config, files)
}

func printVersion(w io.Writer) error {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	_, err := fmt.Fprintf(w, "ignition %s (spec 3.0.0 to 3.6.0)\n", version)
	return err
}
