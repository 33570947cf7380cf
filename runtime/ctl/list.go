package ctl

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/store"
)

// listVerbs show what there is.
func listVerbs() []verb {
	return []verb{
		{name: "ps", what: "list containers", json: true, setup: func(s *flagset.Set) action {
			var all bool
			s.Bool(&all, "a,all", "those that do not run as well")
			return func(ctx context.Context, c *call) error { return c.ps(ctx, all) }
		}},
		{name: "inspect", args: "NAME...", what: "print all about containers or images as JSON", min: 1, max: -1, lister: "both", json: true, setup: plain(inspect)},
		{name: "images", what: "list images", json: true, setup: plain(images)},
	}
}

func (c *call) ps(ctx context.Context, all bool) error {
	ks, err := c.store.Containers()
	if err != nil {
		return err
	}
	vs, err := c.views(ctx, ks)
	if err != nil {
		return err
	}
	shown := []view{}
	for _, v := range vs {
		if all || (v.Status != "stopped" && v.Status != "failed") {
			shown = append(shown, v)
		}
	}
	if c.asJSON {
		return c.json(shown)
	}
	return c.table("NAME\tIMAGE\tSTATUS\tPID\tCREATED\tPORTS", func(w io.Writer) {
		for _, v := range shown {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", v.Name, v.Image, v.Status, v.Pid, v.Created.Local().Format(time.DateTime), portList(v.Publish))
		}
	})
}

func inspect(ctx context.Context, c *call) error {
	out := []any{}
	for _, name := range c.args {
		if k, err := c.store.Container(name); err == nil {
			vs, err := c.views(ctx, []*store.Container{k})
			if err != nil {
				return err
			}
			out = append(out, vs[0])
			continue
		}
		_, rec, err := c.image(name)
		if err != nil {
			return fmt.Errorf("%s is neither a container nor an image: %w", name, err)
		}
		img, err := c.store.Load(rec.Digest)
		if err != nil {
			return err
		}
		out = append(out, struct {
			*store.Record
			Config any `json:"config"`
			Layers any `json:"layers"`
		}{rec, img.Config.Config, img.Layers})
	}
	return c.json(out)
}

func images(_ context.Context, c *call) error {
	list, err := c.store.Images()
	if err != nil {
		return err
	}
	if c.asJSON {
		if list == nil {
			list = []*store.Record{}
		}
		return c.json(list)
	}
	return c.table("IMAGE\tDIGEST\tSIZE\tPULLED", func(w io.Writer) {
		for _, r := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Name, r.Top.Hex()[:12], size(r.Size), r.Pulled.Local().Format(time.DateTime))
		}
	})
}

func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}
