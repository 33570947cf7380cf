package ctl

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/store"
)

// listVerbs show what there is.
func listVerbs() []verb {
	return []verb{
		{name: "ps", what: "list containers", json: true, setup: func(s *flagset.Set) action {
			f := new(psFlags)
			s.Bool(&f.all, "a,all", "those that do not run as well")
			s.Bool(&f.quiet, "q,quiet", "names only")
			s.List(&f.filters, "f,filter", "KEY=VALUE", "name=PART, status=STATUS, label=KEY[=VALUE], health=HEALTH, ancestor=IMAGE, exited=CODE")
			s.String(&f.format, "format", "TEMPLATE", formatUsage)
			s.Int(&f.last, 1, "n,last", "NUMBER", "the newest ones only, whether they run or not")
			return f.run
		}},
		{name: "inspect", args: "NAME...", what: "print all about containers or images as JSON", min: 1, max: -1, lister: "both", json: true, setup: func(s *flagset.Set) action {
			var format string
			s.String(&format, "f,format", "TEMPLATE", formatUsage)
			return func(ctx context.Context, c *call) error { return c.inspect(ctx, format) }
		}},
		{name: "images", what: "list images", json: true, setup: func(s *flagset.Set) action {
			var quiet bool
			var format string
			s.Bool(&quiet, "q,quiet", "names only")
			s.String(&format, "format", "TEMPLATE", formatUsage)
			return func(_ context.Context, c *call) error { return c.images(quiet, format) }
		}},
	}
}

type psFlags struct {
	all, quiet bool
	filters    []string
	format     string
	last       int
}

func (f *psFlags) run(ctx context.Context, c *call) error {
	want, err := parseFilters(f.filters, "name", "status", "label", "health", "ancestor", "exited")
	if err != nil {
		return err
	}
	ks, err := c.store.Containers()
	if err != nil {
		return err
	}
	vs, err := c.views(ctx, ks)
	if err != nil {
		return err
	}
	all := f.all || f.last > 0 || want["status"] != nil || want["exited"] != nil
	shown := []view{}
	for _, v := range vs {
		if (all || !v.over()) && v.match(want) {
			shown = append(shown, v)
		}
	}
	if f.last > 0 {
		slices.SortStableFunc(shown, func(a, b view) int { return b.Created.Compare(a.Created) })
		shown = shown[:min(f.last, len(shown))]
	}
	switch {
	case c.asJSON || f.format == "json":
		return c.json(shown)
	case f.format != "":
		return formatEach(c.Out, f.format, shown)
	case f.quiet:
		for _, v := range shown {
			fmt.Fprintln(c.Out, v.Name)
		}
		return nil
	}
	now := time.Now()
	return c.table("NAME\tIMAGE\tSTATUS\tPID\tCREATED\tPORTS", func(w io.Writer) {
		for _, v := range shown {
			pid := "-"
			if v.Pid > 0 {
				pid = strconv.Itoa(v.Pid)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", v.Name, v.Image, v.text(now), pid, v.Created.Local().Format(time.DateTime), portList(v.Publish))
		}
	})
}

// match applies the filters of ps: those of different keys all, of one key any.
func (v *view) match(want filters) bool {
	any := func(key string, is func(string) bool) bool {
		return len(want[key]) == 0 || slices.ContainsFunc(want[key], is)
	}
	return any("name", func(s string) bool { return strings.Contains(v.Name, s) }) &&
		any("status", func(s string) bool { return v.Status == s }) &&
		any("ancestor", func(s string) bool { return v.Image == s || strings.HasSuffix(v.Image, "/"+s) }) &&
		any("exited", func(s string) bool { return v.Status == "exited" && strconv.Itoa(v.Exit.Code) == s }) &&
		any("health", func(s string) bool { return v.State != nil && v.State.Status == s || v.State == nil && s == "none" }) &&
		any("label", func(s string) bool {
			key, value, given := strings.Cut(s, "=")
			have, ok := v.Labels[key]
			return ok && (!given || have == value)
		})
}

func (c *call) inspect(ctx context.Context, format string) error {
	out := []any{}
	for _, name := range c.args {
		if k, err := c.store.Container(name); err == nil {
			vs, err := c.views(ctx, []*store.Container{k})
			if err != nil {
				return err
			}
			n, err := c.Units.Restarts(ctx, vs[0].Unit)
			if err != nil {
				return err
			}
			out = append(out, struct {
				view
				RestartCount int `json:"restart_count"`
			}{vs[0], n})
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
	if format != "" && format != "json" {
		return formatEach(c.Out, format, out)
	}
	return c.json(out)
}

func (c *call) images(quiet bool, format string) error {
	list, err := c.store.Images()
	if err != nil {
		return err
	}
	switch {
	case c.asJSON || format == "json":
		if list == nil {
			list = []*store.Record{}
		}
		return c.json(list)
	case format != "":
		return formatEach(c.Out, format, list)
	case quiet:
		for _, r := range list {
			fmt.Fprintln(c.Out, r.Name)
		}
		return nil
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
