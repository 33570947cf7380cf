package desk

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/update-engine/repo"
	"github.com/proa-os/proa/update-engine/squeeze"
)

func (s Streams) stageCommand() command.Command {
	return command.Command{
		Name: "stage", Args: "BUILD", Min: 1, Max: 1, Short: "take a build into the repository", Setup: s.setup(setupStage),
		Long: `Takes the output folder of image-builder: root.img, boot.efi and release.json. A build whose parts contradict each other is refused, and so
is a version that exists already. It makes the full payload and, with --deltas, those from the releases before it, proves each by applying it, and
adds them with release.json to what waits for signatures (staged/request.json). Machines see nothing of it before it is signed and published.
A delta whose source is broken is named and left out; it is an error only if no delta could be made.`,
		Examples: []string{"release stage --repo repo out/1.0.1", "release stage --repo repo --deltas 3 out/1.0.1"},
	}
}

func (s Streams) deltaCommand() command.Command {
	return command.Command{
		Name: "delta", Short: "make deltas to a release from those before it", Setup: s.setup(setupDelta),
		Long: `Makes deltas to the newest staged release, or the newest one if none is staged, from the releases before it, so that machines that run one of
those fetch a small part. Each is proven by applying it before it is noted in release.json, and dropped if it is above 60 % of the full
payload. A delta that is there already is not made again, and one that cannot be made is named and left out, unless it is the only one. As release.json changes, signatures that it had are gone: make deltas before you sign.

Old builds need not be kept: what a delta starts from is made again from the full payload of that release, which must give the signed hashes.`,
		Examples: []string{"release delta --repo repo", "release delta --repo repo --version 1.0.4 --from 1.0.0,1.0.3"},
	}
}

type staged struct {
	Version  string           `json:"version"`
	Arch     string           `json:"arch"`
	RootHash string           `json:"root_hash"`
	Raw      int64            `json:"raw_size"`
	Payloads map[string]int64 `json:"payload_sizes"`
	Made     []repo.Made      `json:"made"`
	Failed   []repo.Failed    `json:"failed,omitempty"`
	Files    []repo.Written   `json:"files"`
}

// payloadFlags are those of commands that make payloads.
func (c *common) payloadFlags(flags *flag.FlagSet) {
	flags.BoolVar(&c.fast, "fast", false, "pack payloads in seconds instead of minutes, and larger; to try things out")
	c.repoFlag(flags)
	c.dryFlag(flags)
}

// packing is the desk with what it packs payloads with.
func (c *common) packing() (*repo.Desk, error) {
	d := c.desk()
	if c.fast {
		return d, nil
	}
	press, err := squeeze.Open()
	if err != nil {
		return nil, err
	}
	if !c.quiet {
		fmt.Fprintf(c.Err, "packing with %s\n", press)
	}
	d.Packer = press
	return d, nil
}

func setupStage(c *common, flags *flag.FlagSet) action {
	var o repo.Options
	flags.StringVar(&o.MinSource, "min-source", "", "oldest `version` that may update straight to this one (default: what the build says, usually any)")
	flags.IntVar(&o.Deltas, "deltas", 0, "make deltas from this `many` releases before it, too")
	c.payloadFlags(flags)
	return func(ctx context.Context, args []string) (*result, error) {
		d, err := c.packing()
		if err != nil {
			return nil, err
		}
		s, err := d.Stage(ctx, args[0], o)
		if err != nil {
			return nil, err
		}
		r := c.stagedResult(s)
		if c.dry && o.Deltas > 0 {
			r.text += "\nand deltas, which need the staged release: see release delta --dry-run"
		}
		return r, nil
	}
}

func setupDelta(c *common, flags *flag.FlagSet) action {
	var o repo.DeltaOptions
	var from string
	flags.StringVar(&o.Version, "version", "", "`release` that the deltas lead to (default: the newest staged, else the newest)")
	flags.StringVar(&o.Arch, "arch", "", "`architecture`, if the release is there for several")
	flags.StringVar(&from, "from", "", "`versions` to start from, separated by commas")
	flags.IntVar(&o.Last, "last", repo.DefaultDeltas, "how `many` releases before it to start from, without --from")
	c.payloadFlags(flags)
	return func(ctx context.Context, _ []string) (*result, error) {
		if from != "" {
			o.From = strings.Split(from, ",")
		}
		if slices.Contains(o.From, "") {
			return nil, command.Wrong("delta: --from %q: expected versions, separated by commas", from)
		}
		if o.Last < 1 {
			return nil, command.Wrong("delta: --last %d: expected at least 1", o.Last)
		}
		d, err := c.packing()
		if err != nil {
			return nil, err
		}
		s, err := d.Delta(ctx, o)
		if err != nil {
			return nil, err
		}
		r := c.stagedResult(s)
		if len(s.Made) == 0 {
			r.text = fmt.Sprintf("release %s: no delta to make: there is no release before it that may update to it, or it has them all", s.Release.Version)
		}
		return r, nil
	}
}

func (c *common) stagedResult(s *repo.Staged) *result {
	head, next := fmt.Sprintf("staged release %s for %s, root hash %s", s.Release.Version, s.Release.Arch, s.Release.Root.RootHash), "next: release sign, where the offline keys are, then release publish"
	switch {
	case len(s.Files) == 0:
		head, next = fmt.Sprintf("release %s for %s: no delta is worth its keeping, nothing was staged", s.Release.Version, s.Release.Arch), ""
	case c.dry:
		next = c.written(s.Files)
	}
	text := head + "\n" + payloads(s.Made, "made in") + "\n"
	for _, f := range s.Failed {
		text += fmt.Sprintf("NOT made: the delta from %s, machines that run it take the full payload: %s\n", f.From, f.Error)
	}
	return &result{text: text + next, json: staged{
		Version: s.Release.Version, Arch: s.Release.Arch, RootHash: s.Release.Root.RootHash.String(), Raw: s.Raw, Payloads: s.Payloads,
		Made: append([]repo.Made{}, s.Made...), Failed: s.Failed, Files: append([]repo.Written{}, s.Files...), // empty lists, never null
	}}
}
