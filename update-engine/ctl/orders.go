package ctl

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/update-engine/state"
)

// orderCommands are what people decide for this machine. All of it lasts until it is taken back, and is shown by status and why.
func (t Terminal) orderCommands() []command.Command {
	return []command.Command{
		t.rollbackCommand(),
		t.orderCommand("resume", "Resume", "follow the channel again after a rollback (root)",
			"Lets the release that was left by updatectl rollback be taken again."),
		t.holdCommand(),
		t.orderCommand("unhold", "Unhold", "end a hold (root)", "Lets the machine follow its channel again."),
		t.pinCommand(),
		t.orderCommand("unpin", "Unpin", "end a pin (root)", "Lets the machine follow its channel again."),
		t.quarantineCommand(),
	}
}

// orderCommand is one that only has a reason.
func (t Terminal) orderCommand(name, method, short, long string) command.Command {
	return command.Command{
		Name: name, Short: short, Long: long, Examples: []string{"updatectl " + name},
		Setup: func(flags *flag.FlagSet) runner {
			asJSON, reason := jsonFlag(flags), reasonFlag(flags)
			return func(ctx context.Context, _ []string) error {
				return t.result(*asJSON, func(a Agent) (*state.Result, error) { return a.Order(ctx, method, *reason) }, said)
			}
		},
	}
}

func (t Terminal) rollbackCommand() command.Command {
	return command.Command{
		Name: "rollback", Args: "[VERSION]", Max: 1, Short: "go back to the release in the other slot and stay there (root)",
		Long: `Reads the other slot from its first byte to the last, compares it with its root hash, makes it what boots next, and reboots. Nothing is
fetched. With VERSION it must be that release.

The machine stays there: the release it left, and what is older, is not taken again until the channel offers a newer one or until
updatectl resume. A machine keeps two releases, so it can go back once; when the other slot is empty, or holds a release that has failed, there
is nothing to go back to and nothing is changed.`,
		Examples: []string{"updatectl rollback", "updatectl rollback 1.2.3 --reason \"slow disks\"", "updatectl rollback --no-reboot"},
		Setup: func(flags *flag.FlagSet) runner {
			asJSON, reason := jsonFlag(flags), reasonFlag(flags)
			noReboot := flags.Bool("no-reboot", false, "the next reboot goes back, whenever it comes")
			return func(ctx context.Context, args []string) error {
				version := strings.Join(args, "")
				return t.result(*asJSON, func(a Agent) (*state.Result, error) {
					if r, err := a.Status(ctx); err == nil && !*asJSON {
						fmt.Fprintf(t.Progress, "runs %s (%s), the other slot holds %s; verifying it\n", r.Running.Version, r.Boot.File, orNothing(r.Boot.WayBack))
					}
					return a.Rollback(ctx, version, *reason, !*noReboot)
				}, said)
			}
		},
	}
}

func orNothing(file string) string {
	if file == "" {
		return "nothing good"
	}
	return file
}

func (t Terminal) holdCommand() command.Command {
	return command.Command{
		Name: "hold", Args: "[REASON]", Max: -1, Short: "take no release, for good or until a time (root)",
		Long: `Keeps the machine on what it runs, whatever its channel offers and whoever asks for an update. A release that is installed and armed already
is not tried. Trials that have begun are judged as ever.`,
		Examples: []string{"updatectl hold year-end closing", "updatectl hold --until \"2026-01-31 06:00\"", "updatectl hold --until 8h"},
		Setup: func(flags *flag.FlagSet) runner {
			asJSON := jsonFlag(flags)
			until := flags.String("until", "", "`time` at which the hold ends: 2026-01-31, \"2026-01-31 06:00\" (local), 2026-01-31T06:00:00Z, 8h, 3d")
			return func(ctx context.Context, words []string) error {
				var end time.Time
				if *until != "" {
					var err error
					if end, err = parseTime(*until, t.Now()); err != nil {
						return err
					}
				}
				return t.result(*asJSON, func(a Agent) (*state.Result, error) { return a.Hold(ctx, end, strings.Join(words, " ")) }, said)
			}
		},
	}
}

func (t Terminal) pinCommand() command.Command {
	return command.Command{
		Name: "pin", Args: "[VERSION]", Max: 1, Short: "take no release but this one (root)",
		Long: `Without VERSION the machine stays on what it runs. With a newer one it goes there and no further, whatever its channel offers; the
repository must have that release, signed as any. To go back to an older one, see updatectl help rollback.`,
		Examples: []string{"updatectl pin", "updatectl pin 1.2.3 --reason certified"},
		Setup: func(flags *flag.FlagSet) runner {
			asJSON, reason := jsonFlag(flags), reasonFlag(flags)
			return func(ctx context.Context, args []string) error {
				return t.result(*asJSON, func(a Agent) (*state.Result, error) {
					return a.OrderVersion(ctx, "Pin", strings.Join(args, ""), *reason)
				}, said)
			}
		},
	}
}

func (t Terminal) quarantineCommand() command.Command {
	return command.Command{
		Name: "quarantine", Args: "list | clear VERSION", Min: 1, Max: 2, Short: "releases that failed here, and forgiving one (clear: root)", Words: []string{"list", "clear"},
		Long: `list prints the releases that this machine does not take again, when and why. clear lets one be taken again: it is installed anew, and
tried as any.`,
		Examples: []string{"updatectl quarantine list", "updatectl quarantine clear 1.2.4 --reason \"it was the power supply\""},
		Setup: func(flags *flag.FlagSet) runner {
			asJSON, reason := jsonFlag(flags), reasonFlag(flags)
			return func(ctx context.Context, args []string) error {
				switch {
				case args[0] == "list" && len(args) == 1:
					return t.quarantineList(ctx, *asJSON)
				case args[0] == "clear" && len(args) == 2:
					return t.result(*asJSON, func(a Agent) (*state.Result, error) {
						return a.OrderVersion(ctx, "ClearQuarantine", args[1], *reason)
					}, said)
				}
				return fmt.Errorf("quarantine %s: want list, or clear and a version", strings.Join(args, " "))
			}
		},
	}
}

func (t Terminal) quarantineList(ctx context.Context, asJSON bool) error {
	a, err := t.Connect()
	if err != nil {
		return err
	}
	r, err := a.Status(ctx)
	if err != nil {
		return err
	}
	text := "no release is quarantined"
	if len(r.Quarantine) > 0 {
		var b strings.Builder
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		for _, q := range r.Quarantine {
			fmt.Fprintf(w, "%s\t%s\t%.12s...\t%s\n", q.Version, q.Time.Format("2006-01-02 15:04"), q.Root, q.Reason)
		}
		w.Flush()
		text = strings.TrimRight(b.String(), " \n")
	}
	list := r.Quarantine
	if list == nil {
		list = state.Quarantine{}
	}
	return t.show(asJSON, list, text)
}
