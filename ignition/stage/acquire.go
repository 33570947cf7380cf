package stage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/platform"
	"github.com/proa-os/proa/ignition/source"
)

// operator is the account of the image that a platform's ssh keys are for.
const operator = "core"

// systemDir is where an image keeps configs of its own; IGNITION_SYSTEM_CONFIG_DIR names another place.
const systemDir = "/usr/lib/ignition"

// acquired is the bytes of a machine's config, and what else is known about the machine.
type acquired struct {
	*platform.Answer
	base *config.Merged // beneath the config; nil: nothing
}

// acquire looks for the machine's config as upstream does: the URL on the kernel command line, user.ign of the image, then the
// platform. Beneath it come what the platform knows about the machine, and before that the image's base configs.
func acquire(ctx context.Context, m *platform.Machine, p platform.Platform, o Options, f source.Fetcher) (*acquired, error) {
	a, err := first(ctx, m, p, o, f)
	if err != nil {
		return nil, err
	}
	for _, w := range a.Warnings {
		o.Log.Warn("metadata warning", "platform", p.ID, "warning", w)
	}
	if a.base, err = baseConfigs(ctx, m, p.ID, f); err != nil {
		return nil, err
	}
	if a.Hostname == "" && len(a.Keys) == 0 {
		return a, nil
	}
	o.Log.Info("metadata", "platform", p.ID, "hostname", a.Hostname, "ssh keys", len(a.Keys))
	known, err := config.Metadata("metadata of platform "+p.ID, operator, a.Hostname, a.Keys)
	if err != nil {
		return nil, err
	}
	a.base, err = over(a.base, known)
	return a, err
}

func over(base, m *config.Merged) (*config.Merged, error) {
	if base == nil {
		return m, nil
	}
	return config.Beneath(base, m)
}

func first(ctx context.Context, m *platform.Machine, p platform.Platform, o Options, f source.Fetcher) (*acquired, error) {
	u, err := platform.ConfigURL(m.CommandLine)
	if err != nil {
		return nil, err
	}
	if u != "" {
		name := config.Redact(u)
		var limits types.Config
		if seconds := int(m.Total.Seconds()); seconds > 0 {
			limits.Ignition.Timeouts.HTTPTotal = &seconds
		}
		raw, err := f.Config(ctx, types.Resource{Source: &u}, limits)
		return &acquired{Answer: &platform.Answer{Name: name, Config: raw}}, explained(err, "ignition.config.url= "+name, "check the address, the server and the network")
	}
	name := filepath.Join(systemConfigs(m), "user.ign")
	raw, err := os.ReadFile(name)
	switch {
	case err == nil:
		return &acquired{Answer: &platform.Answer{Name: name, Config: raw}}, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read config: %w", err)
	}
	a, err := p.Read(ctx, m, f.Offline)
	return &acquired{Answer: a}, explained(err, "platform "+p.ID, "check the platform's user data, the network and the kernel argument ignition.platform.id=")
}

// explained makes an issue of err, for the screen; what only the network can tell is left as it is.
func explained(err error, name, next string) error {
	if err == nil || errors.Is(err, source.ErrNeedNetwork) {
		return err
	}
	return config.Issues{config.Of(config.Place{Config: name}, "fetch config", err, next)}
}

func systemConfigs(m *platform.Machine) string {
	if dir := m.Getenv("IGNITION_SYSTEM_CONFIG_DIR"); dir != "" {
		return dir
	}
	return systemDir
}

// baseConfigs merges base.d/* and base.platform.d/ID/* of the image's configs, in the order of their names; nil if there are none.
func baseConfigs(ctx context.Context, m *platform.Machine, id string, f source.Fetcher) (base *config.Merged, err error) {
	for _, pattern := range []string{"base.d/*", "base.platform.d/" + id + "/*"} {
		names, err := filepath.Glob(filepath.Join(systemConfigs(m), pattern))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			raw, err := os.ReadFile(name)
			if err != nil {
				return nil, fmt.Errorf("read base config: %w", err)
			}
			next, err := config.Load(ctx, name, raw, f.Config)
			if err != nil {
				return nil, err
			}
			if base, err = over(base, next); err != nil {
				return nil, err
			}
		}
	}
	return base, nil
}
