package world

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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

// Publish stages, signs and publishes image, and names it as what channel gets.
func (d *Desk) Publish(ctx context.Context, image Image, channel string) error {
	for _, args := range [][]string{
		{"stage", "--repo", d.Repository, "--keys", d.keys, image.Dir},
		{"sign", "--repo", d.Repository, "--keys", d.keys},
		{"publish", "--repo", d.Repository, "--keys", d.keys, "--channel", channel, "--version", image.Version()},
	} {
		if err := d.run(ctx, args...); err != nil {
			return fmt.Errorf("publish %s: %w", image.Version(), err)
		}
	}
	return nil
}

func (d *Desk) run(ctx context.Context, args ...string) error {
	_, err := d.programs.Run(ctx, nil, releaseProgram, args...)
	return err
}
