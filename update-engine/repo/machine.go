package repo

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/payload"
	"github.com/proa-os/proa/update-engine/plan"
	"github.com/proa-os/proa/update-engine/tuf"
)

// Verified is what a machine on a channel would get.
type Verified struct {
	Channel  string           `json:"channel"`
	Version  string           `json:"version"`
	Arch     string           `json:"arch"`
	RootHash digest.SHA256    `json:"root_hash"`
	Raw      int64            `json:"raw_size"` // bytes of root image (without tree) and boot program
	Payloads map[string]int64 `json:"payload_sizes"`
}

// A View is a repository as a machine sees it.
type View struct {
	Server string        // URL, file:// too
	Source client.Source // how to get there
	Anchor []byte
	Now    time.Time
	Quick  bool // metadata only
	// Arch is the machine's; empty: this program's.
	Arch string
}

// Verify reads the repository as a machine with this anchor would, full payload included.
func (v View) Verify(ctx context.Context, channel string) (*Verified, error) {
	state, err := os.MkdirTemp("", "proa-verify-")
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	defer os.RemoveAll(state)
	c := &client.Client{Source: v.Source, Retry: client.Retry{Attempts: 1}}
	t, err := tuf.Open(ctx, tuf.Config{Fetcher: c, Server: v.Server, Anchor: v.Anchor, State: state, Now: v.Now})
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	defer t.Close()
	if err := t.Refresh(); err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	r, err := v.planned(t, channel)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	if !v.Quick {
		if err := fetchAndProve(ctx, c, t, r, state); err != nil {
			return nil, fmt.Errorf("verify %s: %w", r.Payloads.Full.Name, err)
		}
	}
	result := &Verified{
		Channel: channel, Version: r.Version, Arch: r.Arch, RootHash: r.Root.RootHash, Raw: rawSize(r), Payloads: map[string]int64{"full": r.Payloads.Full.Size},
	}
	for source, p := range r.Payloads.Deltas {
		result.Payloads["from root hash "+Short(source.String())] = p.Size
	}
	return result, nil
}

func fetchAndProve(ctx context.Context, c *client.Client, t *tuf.Client, r *release.Release, dir string) error {
	target, err := t.Target(r.Payloads.Full.Name)
	if err != nil {
		return err
	}
	body := c.Stream(ctx, target.URL, target.Size, nil)
	defer body.Close()
	m, err := payload.Prove(digest.NewReader(target.Name, body, target.Size, target.SHA256), payload.Sources{}, dir)
	if err == nil && m.Digest() != r.Payloads.Full.Manifest {
		err = fmt.Errorf("its manifest has sha256 %s, release.json says %s", m.Digest(), r.Payloads.Full.Manifest)
	}
	return err
}

func (v View) planned(t *tuf.Client, channel string) (*release.Release, error) {
	const limit = 4 << 20
	b, err := t.Read(plan.Target(channel), limit)
	if err != nil {
		return nil, err
	}
	p, err := plan.Parse(b, channel)
	if err != nil {
		return nil, err
	}
	arch := v.Arch
	if arch == "" {
		arch = runtime.GOARCH
	}
	if b, err = t.Read("releases/"+p.Release+"/"+arch+"/release.json", limit); err != nil {
		return nil, err
	}
	r, err := release.Parse(b)
	if err != nil {
		return nil, err
	}
	if r.Payloads == nil {
		return nil, fmt.Errorf("release %s names no payloads", r.Version)
	}
	return r, nil
}
