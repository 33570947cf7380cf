package desk

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/update-engine/plan"
	"github.com/proa-os/proa/update-engine/repo"
)

func (s Streams) publishCommand() command.Command {
	return command.Command{
		Name: "publish", Short: "make what is staged current", Setup: s.setup(setupPublish),
		Long: `Signs what is staged with the offline keys at hand, if any, and makes it current once it has the signatures it needs. With --channel and
--version it lets a channel have a release in the same step. The online keys sign the plan, the snapshot and the timestamp.

Machines that read while it writes see the old repository or the new one, and so they do after a power cut or on a full disk: the
timestamp is written last. When root and online keys change, the keys of before sign once more if they are at hand, so that nobody is refused in
between. Without anything staged, publish renews the timestamp, as release refresh does.`,
		Examples: []string{"release publish --repo repo --keys keys --channel stable --version 1.0.1", "release publish --repo repo --keys keys"},
	}
}

func setupPublish(c *common, flags *flag.FlagSet) action {
	f := &planFlags{}
	f.register(flags)
	c.repoFlag(flags)
	c.keysFlag(flags, "the online keys, and of the offline ones that are at hand")
	c.dryFlag(flags)
	return func(context.Context, []string) (*result, error) {
		if f.channel == "" && f.changes() {
			return nil, command.Wrong("publish: --channel is missing")
		}
		var edit *repo.PlanEdit
		if f.channel != "" {
			x, err := f.edit(c.Now())
			if err != nil {
				return nil, fmt.Errorf("publish: %w", err)
			}
			edit = &x
		}
		done, err := c.desk().PublishStaged(edit)
		if err != nil {
			return nil, err
		}
		return c.publishedResult(done), nil
	}
}

func (c *common) publishedResult(done *repo.Publication) *result {
	lines := []string{"published"}
	if c.dry {
		lines[0] = "would publish"
	}
	for _, v := range []struct {
		role    string
		version int64
	}{{"root", done.Root}, {"targets", done.Targets}, {"plan", done.Plan}} {
		if v.version > 0 {
			lines[0] += fmt.Sprintf(" %s %d,", v.role, v.version)
		}
	}
	lines[0] += fmt.Sprintf(" the timestamp, good until %s", done.Until.Format(time.RFC3339))
	if p := done.Channel; p != nil {
		lines = append(lines, describePlan(*p))
	}
	if done.Gap {
		lines = append(lines, "the keys of before have not signed the new metadata: a machine that asked just between two writes was refused once, and asks again")
	}
	return &result{json: done, text: strings.Join(lines, "\n") + c.written(done.Files)}
}

func describePlan(p plan.Plan) string {
	text := fmt.Sprintf("channel %s has release %s", p.Channel, p.Release)
	if p.NotBefore != nil {
		text += ", not before " + p.NotBefore.Format(time.RFC3339)
	}
	for _, w := range p.Waves {
		text += fmt.Sprintf(", %d %% from %s", w.Percent, w.From.Format(time.RFC3339))
	}
	if p.Urgent {
		text += ", urgent"
	}
	if p.Halted {
		text += ", halted"
	}
	return text
}

func (s Streams) planCommand() command.Command {
	return command.Command{
		Name: "plan", Short: "say which release a channel gets, and when", Setup: s.setup(setupPlan),
		Long: `Changes the plan of a channel with the online keys alone (plan, snapshot, timestamp). It can name only releases that are published: the
offline keys have signed those. What is not given stays as it is; a new --version begins without halt, urgency, time and waves.

With --waves the release goes to a part of the machines first: 5@+0h,50@+12h,100@+36h gives it to five in a hundred now, to half of them in twelve
hours, and to all in a day and a half. Which machines come first is drawn anew for each release. Halt the channel when the first ones come back, and nobody
else begins.

A halted channel hands out nothing: machines that have not begun do not begin. Machines never go back: a plan for an older release than theirs
leaves them where they are, and the way back for all is a new release.`,
		Examples: []string{"release plan --repo repo --keys online --channel stable --version 1.0.1 --not-before 2026-02-01T06:00:00Z",
			"release plan --repo repo --keys online --channel stable --version 1.0.1 --waves 5@+0h,50@+12h,100@+36h",
			"release plan --repo repo --keys online --channel stable --halt", "release plan --repo repo --keys online --channel stable --resume --urgent"},
	}
}

type planFlags struct {
	channel, version, notBefore, waves string
	halt, resume, urgent, calmAgain    bool
}

func (f *planFlags) register(flags *flag.FlagSet) {
	flags.StringVar(&f.channel, "channel", "", "`name` of the channel")
	flags.StringVar(&f.version, "version", "", "`release` that it gets")
	flags.StringVar(&f.notBefore, "not-before", "", "`time` from which machines may take it: RFC 3339, or from now as in +36h, or none")
	flags.StringVar(&f.waves, "waves", "", "`percent@time,...`: which part of the machines may take it from when on, or none for all at once")
	flags.BoolVar(&f.halt, "halt", false, "hand out nothing for now")
	flags.BoolVar(&f.resume, "resume", false, "end a halt")
	flags.BoolVar(&f.urgent, "urgent", false, "machines need not wait for their reboot window")
	flags.BoolVar(&f.calmAgain, "no-urgent", false, "end the urgency")
}

func (f *planFlags) changes() bool {
	return f.version != "" || f.notBefore != "" || f.waves != "" || f.halt || f.resume || f.urgent || f.calmAgain
}

func (f *planFlags) edit(now time.Time) (repo.PlanEdit, error) {
	x := repo.PlanEdit{Channel: f.channel, Version: f.version}
	if f.halt && f.resume || f.urgent && f.calmAgain {
		return x, command.Wrong("--halt and --resume, or --urgent and --no-urgent, contradict each other")
	}
	if f.halt || f.resume {
		x.Halt = &f.halt
	}
	if f.urgent || f.calmAgain {
		x.Urgent = &f.urgent
	}
	if f.notBefore != "" {
		x.NotBefore = new(time.Time)
		if f.notBefore != "none" {
			at, err := parseTime("--not-before", f.notBefore, now)
			if err != nil {
				return x, err
			}
			x.NotBefore = &at
		}
	}
	if f.waves != "" {
		waves, err := parseWaves(f.waves, now)
		if err != nil {
			return x, err
		}
		x.Waves = &waves
	}
	return x, nil
}

// parseWaves reads 5@+0h,100@2026-02-01T06:00:00Z; "none" is no wave.
func parseWaves(s string, now time.Time) ([]plan.Wave, error) {
	var waves []plan.Wave
	if s == "none" {
		return nil, nil
	}
	for word := range strings.SplitSeq(s, ",") {
		percent, from, _ := strings.Cut(word, "@")
		n, err := strconv.Atoi(strings.TrimSuffix(percent, "%"))
		if err != nil {
			return nil, command.Wrong("--waves %q: expected waves such as 5@+0h,100@+24h, found %q", s, word)
		}
		at, err := parseTime("--waves", from, now)
		if err != nil {
			return nil, err
		}
		waves = append(waves, plan.Wave{From: at.UTC().Truncate(time.Second), Percent: n})
	}
	if err := plan.CheckWaves(waves); err != nil {
		return nil, command.Wrong("--waves: %w", err)
	}
	return waves, nil
}

// parseTime reads a time, or a duration from now.
func parseTime(option, s string, now time.Time) (time.Time, error) {
	if after, ok := strings.CutPrefix(s, "+"); ok {
		if d, err := time.ParseDuration(after); err == nil {
			return now.Add(d), nil
		}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, command.Wrong("%s %q: expected a time such as 2026-02-01T06:00:00Z, a while such as +36h, or none", option, s)
	}
	return t, nil
}

func setupPlan(c *common, flags *flag.FlagSet) action {
	f := &planFlags{}
	f.register(flags)
	c.repoFlag(flags)
	c.keysFlag(flags, "the online keys")
	c.dryFlag(flags)
	return func(context.Context, []string) (*result, error) {
		if f.channel == "" || !f.changes() {
			return nil, command.Wrong("plan: expected --channel and what changes")
		}
		edit, err := f.edit(c.Now())
		if err != nil {
			return nil, fmt.Errorf("plan: %w", err)
		}
		done, err := c.desk().PublishPlan(edit)
		if err != nil {
			return nil, err
		}
		return c.publishedResult(done), nil
	}
}

func (s Streams) refreshCommand() command.Command {
	return command.Command{
		Name: "refresh", Short: "renew what expires soon, with the online keys", Setup: s.setup(setupRefresh),
		Long: `Renews the timestamp, which lives for a day, and the snapshot and the plan, which live for a week, when less than half of that is left. The
online keys do. Run it every few hours, from a timer or as a service with --every: that goes on until it is told to end, says what it did, and after an
error tries again within five minutes. Machines refuse a repository whose timestamp has expired. --push copies the repository to a registry each
time, as release push does.`,
		Examples: []string{"release refresh --repo repo --keys online", "release refresh --repo repo --keys online --every 6h",
			"release refresh --repo repo --keys online --every 6h --push oci://registry.example.org/os/updates:latest"},
	}
}

func setupRefresh(c *common, flags *flag.FlagSet) action {
	var every time.Duration
	var push string
	flags.DurationVar(&every, "every", 0, "stay, and do it once in this `time`, such as 6h")
	flags.StringVar(&push, "push", "", "copy the repository to this `address` then, see release push")
	c.repoFlag(flags)
	c.keysFlag(flags, "the online keys")
	c.dryFlag(flags)
	return func(ctx context.Context, _ []string) (*result, error) {
		if push != "" {
			if _, err := pushAddress(push); err != nil {
				return nil, err
			}
		}
		if every > 0 {
			return nil, c.refreshEvery(ctx, every, push)
		}
		return c.refresh(ctx, push)
	}
}

// refreshed is what refresh prints as JSON.
type refreshed struct {
	*repo.Publication
	Pushed *repo.Pushed `json:"pushed,omitempty"`
}

// refresh refreshes once. What was renewed is said even if it could not be pushed.
func (c *common) refresh(ctx context.Context, push string) (*result, error) {
	done, err := c.desk().Refresh()
	if err != nil {
		return nil, err
	}
	r := c.publishedResult(done)
	if push == "" {
		return r, nil
	}
	pushed, err := c.push(ctx, push)
	if err != nil {
		return r, err
	}
	return &result{json: refreshed{done, pushed}, text: r.text + "\n" + c.pushedText(pushed)}, nil
}

// refreshEvery refreshes until the context ends.
func (c *common) refreshEvery(ctx context.Context, every time.Duration, push string) error {
	const again = 5 * time.Minute
	for {
		wait := every
		once, cancel := context.WithTimeoutCause(ctx, every, fmt.Errorf("not done within %s", every)) // a registry must not hold up what web servers need
		r, err := c.refresh(once, push)
		cancel()
		if r != nil {
			err = errors.Join(err, c.print(r))
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			wait = min(every, again)
			fmt.Fprintf(c.Err, "refresh: %v; trying again in %s\n", err, wait)
		}
		c.warn()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}
