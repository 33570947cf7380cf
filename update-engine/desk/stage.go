package desk

import (
	"context"
	"flag"
	"fmt"

	"github.com/proa-os/proa/update-engine/repo"
)

func stageCommand() command {
	return command{
		name: "stage", args: "BUILD", min: 1, max: 1, short: "take a build into the repository", setup: setupStage,
		long: `Takes the output folder of image-builder: root.img, boot.efi and release.json. A build whose parts contradict each other is refused, and so
is a version that exists already. It makes the full payload, proves it by applying it, and adds it with release.json to what waits for signatures
(staged/request.json). Machines see nothing of it before it is signed and published.`,
		examples: []string{"release stage --repo repo out/1.0.1"},
	}
}

type staged struct {
	Version  string           `json:"version"`
	Arch     string           `json:"arch"`
	RootHash string           `json:"root_hash"`
	Raw      int64            `json:"raw_size"`
	Payloads map[string]int64 `json:"payload_sizes"`
	Made     []repo.Made      `json:"made"`
	Files    []repo.Written   `json:"files"`
}

func setupStage(c *common, flags *flag.FlagSet) action {
	var o repo.Options
	flags.StringVar(&o.MinSource, "min-source", "", "oldest `version` that may update straight to this one (default: what the build says, usually any)")
	c.repoFlag(flags)
	c.dryFlag(flags)
	return func(ctx context.Context, args []string) (*result, error) {
		s, err := c.desk().Stage(ctx, args[0], o)
		if err != nil {
			return nil, err
		}
		return c.stagedResult(s, "staged"), nil
	}
}

func (c *common) stagedResult(s *repo.Staged, verb string) *result {
	text := fmt.Sprintf("%s release %s for %s, root hash %s\n%s\n", verb, s.Release.Version, s.Release.Arch, s.Release.Root.RootHash, payloads(s.Made, "made in"))
	if c.dry {
		text += c.written(s.Files)
	} else {
		text += "next: release sign, where the offline keys are, then release publish"
	}
	return &result{text: text, json: staged{
		Version: s.Release.Version, Arch: s.Release.Arch, RootHash: s.Release.Root.RootHash.String(), Raw: s.Raw, Payloads: s.Payloads, Made: s.Made, Files: s.Files,
	}}
}
