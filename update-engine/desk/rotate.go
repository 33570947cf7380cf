package desk

import (
	"context"
	"flag"
	"slices"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/update-engine/repo"
)

func (s Streams) rotateCommand() command.Command {
	return command.Command{
		Name: "rotate", Short: "change the keys or the threshold of a role", Setup: s.setup(setupRotate),
		Long: `Stages the next root metadata with other keys for a role; for plan, the next releases metadata, which delegates to it. Several changes can be
staged one after the other and are signed together. A new root needs the signatures of the root keys of before and of those from now on, each
at their threshold. If the releases metadata would not be valid under the new keys it is staged as well, to be signed anew.

Machines walk from the root they know to the newest, so every root stays in the repository. After keys were stolen: remove them here, sign and
publish. The new snapshot and timestamp count on from the repository's own versions; machines that the thief had led to higher ones forget those with
the keys (rotate snapshot and timestamp together for that).`,
		Examples: []string{"release rotate --repo repo --role targets --add new/targets-1c0ffee1.pub --remove 5eed5eed", "release rotate --repo repo --role root --threshold 3 --add root-0a0b0c0d.pub"},
	}
}

type rotated struct {
	Summary []string      `json:"summary"`
	Needed  []repo.Needed `json:"signatures"`
}

func setupRotate(c *common, flags *flag.FlagSet) action {
	var x repo.Rotation
	var add []string
	flags.StringVar(&x.Role, "role", "", "`role`: root, targets, snapshot, timestamp or plan")
	flags.Func("add", "`file` of a key to add, .pub or .pem; may be repeated", func(s string) error { add = append(add, s); return nil })
	flags.Func("remove", "`key id` to remove, or how it begins; may be repeated", func(s string) error { x.Remove = append(x.Remove, s); return nil })
	flags.IntVar(&x.Threshold, "threshold", 0, "how `many` signatures the role needs from now on (default: as it is)")
	c.repoFlag(flags)
	c.dryFlag(flags)
	return func(context.Context, []string) (*result, error) {
		if !slices.Contains(repo.Roles, x.Role) || len(add) == 0 && len(x.Remove) == 0 && x.Threshold == 0 {
			return nil, command.Wrong("rotate: expected --role %s and what changes", strings.Join(repo.Roles, "|"))
		}
		for _, name := range add {
			key, err := repo.PublicKey(name)
			if err != nil {
				return nil, err
			}
			x.Add = append(x.Add, key)
		}
		r, err := c.desk().Rotate(x)
		return c.rotatedResult(r, err)
	}
}

func (c *common) rotatedResult(r *repo.Request, err error) (*result, error) {
	if err != nil {
		return nil, err
	}
	done := &rotated{Summary: r.Summary()}
	if done.Needed, err = r.Needed(); err != nil {
		return nil, err
	}
	next := "next: release sign where the offline keys are, then release publish"
	if c.dry {
		next = "dry run: nothing was written"
	}
	return &result{json: done, text: strings.Join(done.Summary, "\n") + "\n\n" + signatures(done.Needed) + "\n" + next}, nil
}

func (s Streams) renewCommand() command.Command {
	return command.Command{
		Name: "renew", Short: "stage offline metadata anew before it expires", Setup: s.setup(setupRenew),
		Long: `Stages the next root or releases metadata with a new time of expiry, a year from now, and nothing else changed. They are then signed and
published as always. Every command warns from a month before the day on. Staging a release renews the releases metadata as well.`,
		Examples: []string{"release renew --repo repo --role root --role targets"},
	}
}

func setupRenew(c *common, flags *flag.FlagSet) action {
	var roles []string
	flags.Func("role", "`role`: root or targets; may be repeated (default: both)", func(s string) error { roles = append(roles, s); return nil })
	c.repoFlag(flags)
	c.dryFlag(flags)
	return func(context.Context, []string) (*result, error) {
		if len(roles) == 0 {
			roles = []string{metadata.ROOT, metadata.TARGETS}
		}
		r, err := c.desk().Renew(roles...)
		return c.rotatedResult(r, err)
	}
}

func (s Streams) discardCommand() command.Command {
	return command.Command{
		Name: "discard", Short: "throw away what is staged", Setup: s.setup(setupDiscard),
		Long: `Throws away what waits for signatures, with the payloads that only it names. What is published stays. A version that was discarded may be staged
again; copies of the request that are still on their way are worth nothing then.`,
		Examples: []string{"release discard --repo repo"},
	}
}

func setupDiscard(c *common, flags *flag.FlagSet) action {
	c.repoFlag(flags)
	c.dryFlag(flags)
	return func(context.Context, []string) (*result, error) {
		did, err := c.desk().Discard()
		if err != nil {
			return nil, err
		}
		text := "discarded what was staged"
		switch {
		case !did:
			text = "nothing is staged"
		case c.dry:
			text = "dry run: nothing was written; what is staged would be removed"
		}
		return &result{json: map[string]bool{"discarded": did && !c.dry}, text: text}, nil
	}
}
