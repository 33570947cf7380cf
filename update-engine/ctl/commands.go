package ctl

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/update-engine/state"
)

type (
	runner = func(context.Context, []string) error
	setup  = func(*flag.FlagSet) runner
)

// Program is updatectl's table of commands.
func Program(t Terminal) command.Program {
	return command.Program{
		Name: "updatectl",
		Commands: append([]command.Command{
			t.statusCommand(), t.whyCommand(), t.checkCommand(), t.applyCommand(), t.historyCommand(), t.metricsCommand(),
		}, t.orderCommands()...),
		Footer: "The repository is set in\n/etc/proa/update/config.json. See also: journalctl -u update-engine -u proa-health",
		Exits:  "0 if what was asked has been done or there is nothing to do, 1 after an error, 2 for a command line that is wrong.",
		Sections: [][2]string{
			{"FILES", "/etc/proa/update/config.json\n    server, channel and how this machine updates itself\n" +
				"/etc/proa/update/root.json\n    the trust anchor of the repository\n/etc/proa/health.d/\n    programs that say whether this machine is well\n" +
				"/run/proa/metrics/update.prom\n    numbers for a Prometheus node exporter\n/var/lib/proa/update/\n    what the agent remembers"},
			{"SEE ALSO", "journalctl -u update-engine -u proa-health, busctl introspect io.proa.Update1 /io/proa/Update1"},
		},
	}
}

func jsonFlag(flags *flag.FlagSet) *bool {
	return flags.Bool("json", false, "print the agent's answer as JSON")
}

func reasonFlag(flags *flag.FlagSet) *string {
	return flags.String("reason", "", "`text` for the history and for whoever asks why")
}

// asks is the setup of a command that prints an answer.
func asks(do func(ctx context.Context, asJSON bool) error) setup {
	return func(flags *flag.FlagSet) runner {
		asJSON := jsonFlag(flags)
		return func(ctx context.Context, _ []string) error { return do(ctx, *asJSON) }
	}
}

func (t Terminal) report(ctx context.Context, asJSON bool, text func(*state.Report) string) error {
	a, err := t.Connect()
	if err != nil {
		return err
	}
	r, err := a.Status(ctx)
	if err != nil {
		return err
	}
	return t.show(asJSON, r, text(r))
}

func (t Terminal) statusCommand() command.Command {
	return command.Command{
		Name: "status", Short: "what runs, what happens, what is held back",
		Long: `Prints the running release, the phase of an update, what boots next and what could be gone back to, orders of people (hold, pin,
rollback), quarantined releases, and why. While a job works: how far it is, how fast, and how long it may take.

Everyone may ask. Asking changes nothing.`,
		Examples: []string{"updatectl status", "updatectl status --json | jq -r .why"},
		Setup: asks(func(ctx context.Context, asJSON bool) error {
			return t.report(ctx, asJSON, func(r *state.Report) string { return StatusText(r, t.Now()) })
		}),
	}
}

func (t Terminal) whyCommand() command.Command {
	return command.Command{
		Name: "why", Short: "in one line: why this machine is or is not updated",
		Long: `Prints one line that is always true: what runs, and what keeps it (a hold, a pin, a quarantine, a plan, an error), or what will
come next.`,
		Examples: []string{"updatectl why"},
		Setup: asks(func(ctx context.Context, asJSON bool) error {
			return t.report(ctx, asJSON, func(r *state.Report) string { return r.Why })
		}),
	}
}

func (t Terminal) checkCommand() command.Command {
	return command.Command{
		Name: "check", Short: "look for a newer release (root)",
		Long: `Asks the repository what this machine's channel should run, verifies the answer, and prints what an update would install and how much
it would fetch. Nothing is installed.`,
		Examples: []string{"updatectl check", "updatectl check --json | jq -r .offered.version"},
		Setup: asks(func(ctx context.Context, asJSON bool) error {
			return t.result(asJSON, func(a Agent) (*state.Result, error) { return a.Check(ctx) }, checkText)
		}),
	}
}

func (t Terminal) applyCommand() command.Command {
	return command.Command{
		Name: "apply", Short: "install the channel's release and reboot into it (root)",
		Long: `Fetches the release that the channel offers into the slot that does not run, verifies it, arms it and reboots. The machine then tries it: if it
is healthy within the deadline it stays, otherwise the machine comes back by itself and does not take that release again.

If a job is under way already, it is followed to its end first.`,
		Examples: []string{"updatectl apply", "updatectl apply --no-reboot"},
		Setup: func(flags *flag.FlagSet) runner {
			asJSON := jsonFlag(flags)
			noReboot := flags.Bool("no-reboot", false, "only install and arm it; the next reboot tries it")
			quiet := flags.Bool("quiet", false, "print no progress")
			return func(ctx context.Context, _ []string) error {
				return t.result(*asJSON, func(a Agent) (*state.Result, error) { return t.apply(ctx, a, !*noReboot, *quiet) }, said)
			}
		},
	}
}

func (t Terminal) historyCommand() command.Command {
	return command.Command{
		Name: "history", Short: "what became of releases on this machine, and who ordered what",
		Long: `Prints a line for everything that happened to a release: armed, good, bad, refused, rolled back, held, pinned, cleared; oldest first, with
the release that ran then, who ordered it and why.`,
		Examples: []string{"updatectl history", "updatectl history --json | jq 'map(select(.event==\"bad\"))'"},
		Setup: asks(func(ctx context.Context, asJSON bool) error {
			a, err := t.Connect()
			if err != nil {
				return err
			}
			h, err := a.History(ctx)
			if err != nil {
				return err
			}
			return t.show(asJSON, h, historyText(h))
		}),
	}
}

func (t Terminal) metricsCommand() command.Command {
	return command.Command{
		Name: "metrics", Short: "the same in numbers, for Prometheus",
		Long: `Prints Prometheus' text exposition format. /run/proa/metrics/update.prom holds the same, for the textfile collector of a node exporter, and
is replaced at each change.`,
		Examples: []string{"updatectl metrics | grep failures_total"},
		Setup: func(*flag.FlagSet) runner {
			return func(ctx context.Context, _ []string) error {
				a, err := t.Connect()
				if err != nil {
					return err
				}
				text, err := a.Metrics(ctx)
				if err != nil {
					return err
				}
				_, err = io.WriteString(t.Out, text)
				return err
			}
		},
	}
}

// checkText is what a check found, for people.
func checkText(r *state.Result) string {
	if r.Offered == nil || r.Armed {
		return r.Text
	}
	text := fmt.Sprintf("%s\n  to fetch: %s", r.Text, bytesText(r.Size))
	if r.Payload != "" {
		text += " (" + r.Payload
		if r.Full > r.Size {
			text += ", in place of " + bytesText(r.Full)
		}
		text += ")"
	}
	return text
}

// parseTime reads a time in one of the ways that people write it, in the local time zone, or a duration from now.
func parseTime(s string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n int
		if _, err := fmt.Sscanf(days, "%d", &n); err == nil && fmt.Sprint(n) == days && n > 0 {
			return now.AddDate(0, 0, n), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return now.Add(d), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("time %q: want 2026-01-31, \"2026-01-31 06:00\", 2026-01-31T06:00:00Z, or a time from now such as 8h or 3d", s)
}
