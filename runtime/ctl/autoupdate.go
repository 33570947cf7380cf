package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/ref"
	"github.com/proa-os/proa/runtime/store"
)

// autoUpdateLabel is podman's: AutoUpdate= in a .container file sets it to registry or local.
const autoUpdateLabel = "io.containers.autoupdate"

func autoUpdateVerb() verb {
	return verb{name: "auto-update", what: "restart declared containers whose image has changed", json: true,
		more: `Of containers declared with AutoUpdate=registry the image is fetched again, of those with AutoUpdate=local the one that is here
counts. If it is another than the container runs, its unit is restarted; if that fails, the image that it ran before is taken again.

proa-auto-update.timer does this every day: systemctl enable --now proa-auto-update.timer.`,
		setup: func(s *flagset.Set) action {
			rollback := true
			s.Bool(&rollback, "rollback", "=false: leave a unit that does not start with the new image as it is")
			return func(ctx context.Context, c *call) error { return c.autoUpdate(ctx, rollback) }
		}}
}

// An updated is what came of one container.
type updated struct {
	Container string `json:"container"`
	Unit      string `json:"unit"`
	Image     string `json:"image"`
	Policy    string `json:"policy"`
	Updated   string `json:"updated"` // true, false, rolled back, failed
	Error     string `json:"error,omitempty"`
}

func (c *call) autoUpdate(ctx context.Context, rollback bool) error {
	ks, err := c.store.Containers()
	if err != nil {
		return err
	}
	list := []updated{}
	var errs []error
	for _, k := range ks {
		policy := k.Labels[autoUpdateLabel]
		st, err := c.OCIRoot.Load(k.Name)
		if k.Unit == "" || policy != "registry" && policy != "local" || err != nil || st.Status != specs.StateRunning {
			continue
		}
		u := updated{Container: k.Name, Unit: k.Unit, Image: k.Image, Policy: policy}
		if u.Updated, err = c.updateOne(ctx, k, policy, rollback); err != nil {
			u.Error = err.Error()
			errs = append(errs, fmt.Errorf("%s: %w", k.Name, err))
		}
		list = append(list, u)
	}
	if c.asJSON {
		return errors.Join(append(errs, c.json(list))...)
	}
	return errors.Join(append(errs, c.table("UNIT\tCONTAINER\tIMAGE\tPOLICY\tUPDATED", func(w io.Writer) {
		for _, u := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", u.Unit, u.Container, u.Image, u.Policy, u.Updated)
		}
	}))...)
}

// updateOne brings one container to the image that its name stands for now.
func (c *call) updateOne(ctx context.Context, k *store.Container, policy string, rollback bool) (string, error) {
	name, err := ref.Parse(k.Image)
	if err != nil {
		return "failed", err
	}
	old, err := c.store.Image(name)
	if err != nil && !errors.Is(err, store.ErrNoImage) {
		return "failed", err
	}
	rec := old
	if policy == "registry" {
		rec, err = c.pullImage(ctx, c.store, name, false, "auto", false)
	}
	if err != nil {
		return "failed", err
	}
	if rec.Digest == k.Manifest {
		return "false", nil
	}
	err = c.Units.Restart(ctx, k.Unit)
	if err == nil {
		return "true", nil
	}
	if !rollback || old == nil || old.Digest != k.Manifest {
		return "failed", err
	}
	unlock, lerr := c.store.Lock()
	if lerr != nil {
		return "failed", errors.Join(err, lerr)
	}
	rerr := c.store.Restore(old)
	unlock()
	if rerr == nil {
		c.Units.ResetFailed(ctx, k.Unit) // begins to count starts anew
		rerr = c.Units.Restart(ctx, k.Unit)
	}
	if rerr != nil {
		return "failed", errors.Join(err, rerr)
	}
	return "rolled back", fmt.Errorf("the new image does not start: went back to the one before: %w", err)
}
