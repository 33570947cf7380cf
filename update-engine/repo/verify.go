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

// Verify reads the repository as a machine with this anchor would, payload included. server is a URL, file:// too.
func Verify(ctx context.Context, server string, source client.Source, anchor []byte, channel string, now time.Time) (*Verified, error) {
	state, err := os.MkdirTemp("", "proa-verify-")
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	defer os.RemoveAll(state)
	c := &client.Client{Source: source, Retry: client.Retry{Attempts: 1}}
	t, err := tuf.Open(ctx, tuf.Config{Fetcher: c, Server: server, Anchor: anchor, State: state, Now: now})
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	defer t.Close()
	if err := t.Refresh(); err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	r, err := planned(t, channel)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	target, err := t.Target(r.Payloads.Full.Name)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	body := c.Stream(ctx, target.URL, target.Size, nil)
	defer body.Close()
	in := digest.NewReader(target.Name, body, target.Size, target.SHA256)
	m, err := payload.Prove(in, payload.Sources{}, state)
	if err == nil && m.Digest() != r.Payloads.Full.Manifest {
		err = fmt.Errorf("its manifest has sha256 %s, release.json says %s", m.Digest(), r.Payloads.Full.Manifest)
	}
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", target.Name, err)
	}
	return &Verified{
		Channel: channel, Version: r.Version, Arch: r.Arch, RootHash: r.Root.RootHash,
		Raw: r.Root.HashOffset + r.Boot.Size, Payloads: map[string]int64{"full": target.Size},
	}, nil
}

func planned(t *tuf.Client, channel string) (*release.Release, error) {
	const limit = 4 << 20
	b, err := t.Read(plan.Target(channel), limit)
	if err != nil {
		return nil, err
	}
	p, err := plan.Parse(b, channel)
	if err != nil {
		return nil, err
	}
	if b, err = t.Read("releases/"+p.Release+"/"+runtime.GOARCH+"/release.json", limit); err != nil {
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
