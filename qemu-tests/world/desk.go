package world

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/proa-os/proa/update-engine/repo"
)

// releaseProgram is the release desk's program.
const releaseProgram = "update-engine/cmd/release"

// A Desk is a release desk with its keys and its repository, worked by the program that people use.
type Desk struct {
	programs   *Programs
	Repository string // folder to serve
	keys       string
}

// NewDesk makes keys and an empty repository in dir.
func NewDesk(ctx context.Context, p *Programs, dir string) (*Desk, error) {
	d := &Desk{programs: p, Repository: filepath.Join(dir, "repository"), keys: filepath.Join(dir, "keys")}
	if err := d.run(ctx, "init", "--repo", d.Repository, "--keys", d.keys); err != nil {
		return nil, err
	}
	return d, nil
}

// Root is the trust root that machines get, the first version of the root metadata.
func (d *Desk) Root() ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(d.Repository, "metadata", "1.root.json"))
	if err != nil {
		return nil, fmt.Errorf("read trust root: %w", err)
	}
	return b, nil
}

// Publish stages, signs and publishes image, with a delta from the release before it, and names it as what channel gets. Its payloads are packed
// in seconds, and larger than those of a real release.
func (d *Desk) Publish(ctx context.Context, image Image, channel string) error {
	if err := d.run(ctx, "stage", "--fast", "--deltas", "1", "--repo", d.Repository, image.Dir); err != nil {
		return fmt.Errorf("publish %s: %w", image.Version(), err)
	}
	return d.release(ctx, image, channel)
}

// PublishPacked is Publish with a delta that is packed as a real release's is. A full payload would take minutes.
func (d *Desk) PublishPacked(ctx context.Context, image Image, channel string) error {
	if err := d.run(ctx, "stage", "--fast", "--repo", d.Repository, image.Dir); err != nil {
		return fmt.Errorf("publish %s: %w", image.Version(), err)
	}
	if err := d.run(ctx, "delta", "--last", "1", "--repo", d.Repository); err != nil {
		return fmt.Errorf("publish %s: %w", image.Version(), err)
	}
	return d.release(ctx, image, channel)
}

// PublishUnproven is Publish for an image whose parts contradict each other, which the desk's program refuses: it plays
// the desk that is broken or coerced.
func (d *Desk) PublishUnproven(ctx context.Context, image Image, channel string) error {
	desk := &repo.Desk{Dir: d.Repository, Keys: repo.KeyDir(d.keys), Now: time.Now}
	if _, err := desk.Stage(ctx, image.Dir, repo.Options{AllowInconsistent: true}); err != nil {
		return fmt.Errorf("publish %s: %w", image.Version(), err)
	}
	return d.release(ctx, image, channel)
}

func (d *Desk) release(ctx context.Context, image Image, channel string) error {
	if err := d.run(ctx, "publish", "--repo", d.Repository, "--keys", d.keys, "--channel", channel, "--version", image.Version()); err != nil {
		return fmt.Errorf("publish %s: %w", image.Version(), err)
	}
	return nil
}

// Push copies what is published to a registry.
func (d *Desk) Push(ctx context.Context, address string) error {
	if err := d.run(ctx, "push", "--repo", d.Repository, address); err != nil {
		return fmt.Errorf("push to %s: %w", address, err)
	}
	return nil
}

// Rotate gives every role a new key in place of the one it has, root among them, and throws the old ones away.
func (d *Desk) Rotate(ctx context.Context) error {
	for _, role := range repo.Roles {
		old, err := filepath.Glob(filepath.Join(d.keys, role+"-*.pem"))
		if err != nil || len(old) != 1 {
			return fmt.Errorf("rotate keys: expected one %s-*.pem in %s, found %q", role, d.keys, old)
		}
		made, err := d.programs.Run(ctx, nil, releaseProgram, "keys", "new", "--role", role, "--out", d.keys, "--json")
		if err != nil {
			return fmt.Errorf("rotate keys: %w", err)
		}
		var keys []repo.NewKey
		if err := json.Unmarshal([]byte(made), &keys); err != nil || len(keys) != 1 {
			return fmt.Errorf("rotate keys: made %q: expected one key, %w", made, err)
		}
		id := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(old[0]), role+"-"), ".pem")
		if err := d.run(ctx, "rotate", "--repo", d.Repository, "--role", role, "--add", keys[0].Public, "--remove", id); err != nil {
			return fmt.Errorf("rotate keys: %w", err)
		}
		defer os.Remove(old[0])
	}
	// The old keys sign once more: the new root, and that they leave.
	if err := d.run(ctx, "publish", "--repo", d.Repository, "--keys", d.keys); err != nil {
		return fmt.Errorf("rotate keys: %w", err)
	}
	return nil
}

func (d *Desk) run(ctx context.Context, args ...string) error {
	_, err := d.programs.Run(ctx, nil, releaseProgram, args...)
	return err
}
