package apply

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/unit"

	"github.com/proa-os/proa/ignition/plan"
)

// unitDirs is where systemd looks for units, strongest first (systemd.unit(5), without what generators make).
func unitDirs() []string {
	return []string{"etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system"}
}

// dependencyDirs is which directory an [Install] setting makes links in.
func dependencyDirs() []struct{ setting, suffix string } {
	return []struct{ setting, suffix string }{{"WantedBy", ".wants"}, {"RequiredBy", ".requires"}, {"UpheldBy", ".upholds"}}
}

func (r *run) unmask(op plan.Unmask) error {
	name, err := r.resolve(plan.UnitDir+"/"+op.Unit, false)
	if err != nil {
		return err
	}
	if id, err := r.identity(name); err != nil || id != "link:/dev/null" {
		return err
	}
	return r.remove(name)
}

// find returns the file of a unit: of itself or, for an instance, of its template. A unit that is an alias is found
// under its own name.
func (r *run) find(name string) (file string, err error) {
	candidates := []string{name}
	if template, ok := templateOf(name); ok {
		candidates = append(candidates, template)
	}
	for _, c := range candidates {
		for _, dir := range unitDirs() {
			file, err := r.resolve(dir+"/"+c, true)
			if err != nil {
				return "", err
			}
			info, err := r.root.Lstat(file)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return "", err
			}
			if info.Mode().IsRegular() {
				return file, nil
			}
		}
	}
	return "", NewProblem("no such unit", "a unit file in /"+strings.Join(unitDirs(), ", /"), "none", "correct the name or give the unit contents")
}

// templateOf returns name@.service of name@instance.service.
func templateOf(name string) (string, bool) {
	prefix, rest, ok := strings.Cut(name, "@")
	ext := path.Ext(rest)
	return prefix + "@" + ext, ok && rest != ext
}

// install reads the [Install] settings of a unit file and its drop-ins; an empty assignment clears what came before.
func (r *run) install(name, file string) (map[string][]string, error) {
	files := []string{file}
	for i := len(unitDirs()) - 1; i >= 0; i-- {
		dir, err := r.resolve(unitDirs()[i]+"/"+name+".d", true)
		if err != nil {
			return nil, err
		}
		dropins, err := fs.Glob(r.root.FS(), globQuote(dir)+"/*.conf")
		if err != nil {
			return nil, err
		}
		files = append(files, dropins...)
	}
	settings := map[string][]string{}
	for _, f := range files {
		b, err := r.root.ReadFile(f)
		if err != nil {
			return nil, err
		}
		options, err := unit.DeserializeOptions(strings.NewReader(string(b)))
		if err != nil {
			// The parser's own words quote what it did not understand, which may be a secret.
			return nil, NewProblem("parse /"+f, "sections and settings as systemd.syntax(7) has them", "something else", "correct that file")
		}
		for _, o := range options {
			switch {
			case o.Section != "Install":
			case o.Value == "":
				settings[o.Name] = nil
			default:
				settings[o.Name] = append(settings[o.Name], strings.Fields(o.Value)...)
			}
		}
	}
	return settings, nil
}

// enable makes what `systemctl enable` would: links for WantedBy=, RequiredBy=, UpheldBy= and Alias=, and those of the
// units in Also=. A unit without an [Install] section gets none.
func (r *run) enable(name string, depth int) error {
	if depth > 16 {
		return NewProblem("units enable each other without end", "Also= that ends", name, "remove Also= from one of them")
	}
	file, err := r.find(name)
	if err != nil {
		return err
	}
	if base := path.Base(file); !strings.Contains(base, "@") {
		name = base // an alias: its unit
	}
	settings, err := r.install(name, file)
	if err != nil {
		return err
	}
	if strings.Contains(name, "@.") && len(settings["DefaultInstance"]) == 1 {
		name = strings.Replace(name, "@.", "@"+settings["DefaultInstance"][0]+".", 1)
	}
	for _, d := range dependencyDirs() {
		for _, target := range settings[d.setting] {
			if strings.Contains(name, "@.") {
				return NewProblem("cannot enable a template", "an instance, such as "+strings.Replace(name, "@.", "@NAME.", 1), name, "name an instance, or give the unit DefaultInstance=")
			}
			target, err := expand(target, name)
			if err != nil {
				return err
			}
			if err := r.unitLink(target+d.suffix+"/"+name, "/"+file); err != nil {
				return err
			}
		}
	}
	for _, alias := range settings["Alias"] {
		alias, err := expand(alias, name)
		if err != nil {
			return err
		}
		if err := r.unitLink(alias, "/"+file); err != nil {
			return err
		}
	}
	for _, also := range settings["Also"] {
		also, err := expand(also, name)
		if err != nil {
			return err
		}
		if also == name {
			continue
		}
		if err := r.enable(also, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// expand replaces the specifiers that [Install] may hold (systemd.unit(5), "Specifiers") as far as they
// follow from the name.
func expand(s, name string) (string, error) {
	stem := strings.TrimSuffix(name, path.Ext(name))
	prefix, instance, _ := strings.Cut(stem, "@")
	out := strings.NewReplacer("%%", "\x00", "%i", instance, "%n", name, "%N", stem, "%p", prefix).Replace(s)
	if strings.Contains(out, "%") || strings.ContainsAny(out, "/\n") || out == "" || out == "." || out == ".." {
		return "", NewProblem("invalid value in [Install]", "a unit name, with %i, %n, %N or %p at most", s, "correct the unit "+name)
	}
	return strings.ReplaceAll(out, "\x00", "%"), nil
}

// unitLink makes a link in /etc/systemd/system; a unit or link that provisioning finds there is replaced only
// if it is a link.
func (r *run) unitLink(rel, target string) error {
	name, err := r.resolve(plan.UnitDir+"/"+rel, false)
	if err != nil {
		return err
	}
	id, err := r.identity(name)
	switch {
	case err != nil:
		return err
	case id == "link:"+target:
		return nil
	case id != absent && !strings.HasPrefix(id, "link:"):
		return NewProblem("something exists at /"+name, "nothing, or a link", show(id), "remove what is there, or do not enable the unit")
	}
	if err := r.parents(name); err != nil {
		return err
	}
	return r.makeSymlink(name, target, attributes{})
}

// disable removes what enable makes. Links that the root image ships cannot go; a link of the same name to /dev/null
// in /etc masks each (systemd.unit(5)): the unit can still be started, but nothing pulls it in.
func (r *run) disable(name string) error {
	for n, dir := range unitDirs() {
		dir, err := r.resolve(dir, true)
		if err != nil {
			return err
		}
		links, err := r.links(dir, name)
		if err != nil {
			return err
		}
		for _, link := range links {
			rel := strings.TrimPrefix(link, dir+"/")
			switch {
			case n == 0:
				err = r.remove(link)
			case strings.Contains(rel, "/"): // an alias only gives a name
				err = r.unitLink(rel, "/dev/null")
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// links finds the links in dir, a resolved name, that enable name: dependencies under its name, and aliases.
func (r *run) links(dir, name string) ([]string, error) {
	if _, err := r.root.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var found []string
	for _, d := range dependencyDirs() {
		matches, err := fs.Glob(r.root.FS(), dir+"/*"+d.suffix+"/"+globQuote(name))
		if err != nil {
			return nil, err
		}
		found = append(found, matches...)
	}
	entries, err := fs.ReadDir(r.root.FS(), dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink == 0 || e.Name() == name {
			continue
		}
		target, err := r.root.Readlink(dir + "/" + e.Name())
		if err != nil {
			return nil, err
		}
		if path.Base(target) == name {
			found = append(found, dir+"/"+e.Name())
		}
	}
	slices.Sort(found)
	return found, nil
}

// globQuote makes a pattern that matches name only: escaped unit names hold backslashes.
func globQuote(name string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(name)
}
