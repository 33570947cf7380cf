package quadlet

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// finish writes the unit, or the one that fails instead.
func (d *declaration) finish() Unit {
	u := Unit{Name: d.name, Source: d.Path, Problems: d.problems}
	for _, s := range []*settings{d.own, d.quadlet, d.unit, d.service, d.install} {
		u.Problems = append(u.Problems, s.problems...)
	}
	if printable(d.Path) != d.Path {
		u.Problems = append(u.Problems, Problem{Path: printable(d.Path), Text: "makes no unit: the path has control characters"})
		u.Name = ""
	}
	if u.Name == "" {
		return u
	}
	u.Links = d.install.links(d.name)
	if len(u.Problems) > 0 {
		slices.SortStableFunc(u.Problems, func(a, b Problem) int {
			if c := strings.Compare(a.Path, b.Path); c != 0 {
				return c
			}
			return a.Line - b.Line
		})
		u.Problems = slices.Compact(u.Problems)
		u.Text = d.failing()
	} else {
		u.Text = d.text()
	}
	return u
}

// failing is a unit that says what is wrong and fails.
func (d *declaration) failing() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s has errors; this unit tells them and fails.\n[Unit]\nDescription=%s (has errors)\nSourcePath=%s\n", d.Path, escape(d.Name), escape(d.Path))
	fmt.Fprintf(&b, "\n[Service]\nType=oneshot\nSyslogIdentifier=%%N\nExecStart=%s\n", commandLine([]string{Generator, "--fail", escape(d.Path)}))
	return b.String()
}

// text is the unit: the user's sections with what this package adds.
func (d *declaration) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Made from %s at boot and at every daemon-reload: change that file.\n[Unit]\n", d.Path)
	if yes, set := d.quadlet.boolean("DefaultDependencies"); yes || !set {
		b.WriteString("Wants=network-online.target\nAfter=network-online.target\n")
	}
	if _, ok := d.unit.last("Description"); !ok {
		fmt.Fprintf(&b, "Description=%s\n", escape(d.Name))
	}
	write(&b, d.unit.entries, nil)
	for _, n := range d.needs {
		fmt.Fprintf(&b, "Requires=%s\nAfter=%s\n", n, n)
	}
	for _, l := range d.inUnit {
		b.WriteString(l + "\n")
	}
	fmt.Fprintf(&b, "SourcePath=%s\nRequiresMountsFor=/var/lib/proa/containers\n", escape(d.Path))
	for _, m := range d.mounts {
		fmt.Fprintf(&b, "RequiresMountsFor=%s\n", m)
	}
	b.WriteString("\n[Service]\n")
	write(&b, d.service.entries, d.replaced)
	for _, l := range d.inServ {
		b.WriteString(l + "\n")
	}
	if len(d.install.entries) > 0 {
		b.WriteString("\n[Install]\n")
		write(&b, d.install.entries, nil)
	}
	return b.String()
}

// write repeats the user's assignments, without those that are not his.
func write(b *strings.Builder, entries []entry, without []string) {
	for _, e := range entries {
		if !slices.Contains(without, e.key) {
			fmt.Fprintf(b, "%s=%s\n", e.key, e.value)
		}
	}
}

var unitName = regexp.MustCompile(`^[A-Za-z0-9:_\\@-][A-Za-z0-9:_.\\@-]*\.[a-z]+$`)

// links are what [Install] asks for. A template without DefaultInstance= is part of nothing.
func (s *settings) links(unit string) []Link {
	if unit == "" {
		return nil
	}
	var out []Link
	add := func(e entry, link string) {
		clean := path.Clean(link)
		if path.IsAbs(clean) || clean == "." || clean == ".." || strings.HasPrefix(clean, "../") || strings.IndexByte(clean, 0) >= 0 || len(clean) > 255 {
			s.problems = appendOnce(s.problems, e.problem("%.80q: expected the name of a unit", link))
			return
		}
		out = append(out, Link{clean, strings.Repeat("../", strings.Count(clean, "/")) + unit})
	}
	for _, e := range s.words("Alias", false) {
		if !strings.HasSuffix(e.value, ".service") {
			s.problems = appendOnce(s.problems, e.problem("%.80q: expected the name of a service", e.value))
			continue
		}
		add(e, e.value)
	}
	instance := unit
	if base, ok := strings.CutSuffix(unit, "@.service"); ok {
		name := s.text("DefaultInstance")
		if name == "" || strings.Contains(name, "/") {
			return out
		}
		instance = base + "@" + name + ".service"
	}
	for key, dir := range map[string]string{"WantedBy": "wants", "RequiredBy": "requires", "UpheldBy": "upholds"} {
		for _, e := range s.words(key, false) {
			if !unitName.MatchString(e.value) {
				s.problems = appendOnce(s.problems, e.problem("%.80q: expected the name of a unit, such as multi-user.target", e.value))
				continue
			}
			add(e, e.value+"."+dir+"/"+instance)
		}
	}
	for i, l := range out { // all names of one unit lead to the file
		out[i].Target = strings.Repeat("../", strings.Count(l.Path, "/")) + unit
	}
	slices.SortFunc(out, func(a, b Link) int { return strings.Compare(a.Path, b.Path) })
	return slices.Compact(out)
}

func appendOnce(list []Problem, p Problem) []Problem {
	if slices.Contains(list, p) {
		return list
	}
	return append(list, p)
}

// escape keeps systemd from reading specifiers.
func escape(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// printable replaces control characters.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfffd {
			return '?'
		}
		return r
	}, s)
}
