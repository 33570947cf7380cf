package ctl

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/network"
	"github.com/proa-os/proa/runtime/ref"
	"github.com/proa-os/proa/runtime/store"
)

// listVerbs show what there is.
func listVerbs() []verb {
	return []verb{
		{name: "ps", what: "list containers", json: true, setup: func(s *flagset.Set) action {
			f := new(psFlags)
			s.Bool(&f.all, "a,all", "those that do not run as well")
			s.Bool(&f.quiet, "q,quiet", "names only")
			s.List(&f.filters, "f,filter", "KEY=VALUE", "name=PART, id=NAME, status=STATUS, label=KEY[=VALUE], health=HEALTH, ancestor=IMAGE, exited=CODE, network=NAME, volume=NAME or target, publish=PORT[/PROTOCOL], before=NAME, since=NAME")
			s.String(&f.format, "format", "TEMPLATE", formatUsage)
			s.Int(&f.last, 1, "n,last", "NUMBER", "the newest ones only, whether they run or not")
			s.Bool(&f.latest, "l,latest", "the newest one only")
			noTruncFlag(s)
			return f.run
		}},
		{name: "inspect", args: "NAME...", what: "print all about containers or images as JSON", min: 1, max: -1, lister: "both", json: true, setup: func(s *flagset.Set) action {
			var format string
			s.String(&format, "f,format", "TEMPLATE", formatUsage)
			return func(ctx context.Context, c *call) error { return c.inspect(ctx, format) }
		}},
		{name: "images", args: "[NAME[:TAG]]", what: "list images", max: 1, json: true, setup: func(s *flagset.Set) action {
			f := new(imagesFlags)
			s.Bool(&f.quiet, "q,quiet", "names only")
			s.List(&f.filters, "f,filter", "KEY=VALUE", "reference=PATTERN; before=IMAGE, since=IMAGE by the time of pulling; dangling=false")
			s.String(&f.format, "format", "TEMPLATE", formatUsage)
			s.Func("a,all", "", "accepted: there are no hidden ones", accept)
			s.Func("digests", "", "accepted: digests are always there", accept)
			noTruncFlag(s)
			return f.run
		}},
	}
}

func accept(string) error { return nil }

func noTruncFlag(s *flagset.Set) { s.Func("no-trunc", "", "accepted: nothing is cut", accept) }

type psFlags struct {
	all, quiet bool
	filters    []string
	format     string
	last       int
	latest     bool
}

func (f *psFlags) run(ctx context.Context, c *call) error {
	want, err := parseFilters(f.filters, "name", "id", "status", "label", "health", "ancestor", "exited", "network", "volume", "publish", "before", "since")
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
	if f.latest {
		f.last = 1
	}
	times := map[string]time.Time{}
	for _, name := range slices.Concat(want["before"], want["since"]) {
		k, err := c.container(name)
		if err != nil {
			return err
		}
		times[name] = k.Created
	}
	all := f.all || f.last > 0 || want["status"] != nil || want["exited"] != nil
	shown := []view{}
	for _, v := range vs {
		if (all || !v.over()) && v.match(want) && want.between(v.Created, times) {
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
		return formatEach(c.Out, f.format, shown, dockerRow)
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
		any("id", func(s string) bool { return strings.HasPrefix(v.Name, s) }) &&
		any("network", func(s string) bool {
			return v.Network == s || slices.ContainsFunc(v.Networks, func(a network.Attachment) bool { return a.Network == s })
		}) &&
		any("volume", func(s string) bool {
			return slices.ContainsFunc(v.Volumes, func(m store.Volume) bool { return m.Name == s || m.Target == s || m.Source == s })
		}) &&
		any("publish", func(s string) bool {
			port, protocol, given := strings.Cut(s, "/")
			return slices.ContainsFunc(v.Publish, func(p network.Port) bool {
				return port == strconv.Itoa(int(p.HostPort)) && (p.Protocol == protocol || !given)
			})
		}) &&
		any("health", func(s string) bool { return v.State != nil && v.State.Status == s || v.State == nil && s == "none" }) &&
		any("label", func(s string) bool {
			key, value, given := strings.Cut(s, "=")
			have, ok := v.Labels[key]
			return ok && (!given || have == value)
		})
}

// between applies before= and since=.
func (f filters) between(t time.Time, times map[string]time.Time) bool {
	for _, name := range f["before"] {
		if !t.Before(times[name]) {
			return false
		}
	}
	for _, name := range f["since"] {
		if !t.After(times[name]) {
			return false
		}
	}
	return true
}

// inspection is a container as inspect prints it.
type inspection struct {
	view
	RestartCount int `json:"restart_count"`
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
			out = append(out, inspection{vs[0], n})
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
		return formatEach(c.Out, format, out, dockerInspect)
	}
	return c.json(out)
}

type imagesFlags struct {
	quiet   bool
	filters []string
	format  string
}

func (f *imagesFlags) run(_ context.Context, c *call) error {
	list, err := f.list(c)
	if err != nil {
		return err
	}
	switch {
	case c.asJSON || f.format == "json":
		return c.json(list)
	case f.format != "":
		return formatEach(c.Out, f.format, list, dockerImage)
	case f.quiet:
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

// list are the images that flags and argument leave.
func (f *imagesFlags) list(c *call) ([]*store.Record, error) {
	want, err := parseFilters(f.filters, "reference", "before", "since", "dangling")
	if err != nil {
		return nil, err
	}
	list, err := c.store.Images()
	if err != nil {
		return nil, err
	}
	times := map[string]time.Time{}
	for _, name := range slices.Concat(want["before"], want["since"]) {
		_, rec, err := c.image(name)
		if err != nil {
			return nil, err
		}
		times[name] = rec.Pulled
	}
	patterns := slices.Concat(c.args, want["reference"])
	out := []*store.Record{}
	for _, r := range list {
		matches := len(patterns) == 0
		for _, p := range patterns {
			ok, err := matchImage(p, r.Name)
			if err != nil {
				return nil, err
			}
			matches = matches || ok
		}
		if matches && want.between(r.Pulled, times) && !slices.Contains(want["dangling"], "true") {
			out = append(out, r)
		}
	}
	return out, nil
}

// matchImage reports whether a pattern of path.Match fits an image's name, with or without its registry and tag, as docker's reference=.
func matchImage(pattern, image string) (bool, error) {
	name, err := ref.Parse(image)
	if err != nil {
		return false, err
	}
	whole := name.Repository()
	if _, err := path.Match(pattern, ""); err != nil {
		return false, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	behind := ":" + name.Identifier()
	if _, ok := name.Digest(); ok {
		behind = "@" + name.Identifier()
	}
	_, short, _ := strings.Cut(whole, "/")
	for _, n := range []string{whole, short, strings.TrimPrefix(short, "library/")} {
		for _, text := range []string{n, n + behind} {
			if ok, _ := path.Match(pattern, text); ok {
				return true, nil
			}
		}
	}
	return false, nil
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
