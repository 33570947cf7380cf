package quadlet

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/proa-os/proa/internal/nearest"
)

// containerctl carries out what units say.
const containerctl = "/usr/bin/containerctl"

// Generator is the program that makes the units, where systemd looks for it.
const Generator = "/usr/lib/systemd/system-generators/quadlet-generator"

// A Host answers what only the machine knows.
type Host struct {
	Taken  func(unit string) string // the path of a unit of the OS with this name, which must not be replaced, or ""
	Exists func(path string) bool   // for AddDevice=-/dev/...
}

// A Link makes a unit part of another, as systemctl enable does: Path is relative to the units.
type Link struct {
	Path, Target string
}

// A Unit is what a declaration becomes. With problems it is one that says them and fails, so that whoever needs it fails with it and
// everybody else works.
type Unit struct {
	Name     string // "" if there is none: see Problems
	Source   string // path of the declaration
	Text     string
	Links    []Link
	Problems []Problem
}

// A declaration is a file on its way to a unit.
type declaration struct {
	*File
	all      map[string]*declaration // by name of file
	host     Host
	ext      string
	kind     kind
	own      *settings // [Container] or the like
	quadlet  *settings
	unit     *settings
	service  *settings
	install  *settings
	name     string // of the service, with .service
	resource string // of the container, volume ...; may hold specifiers
	needs    []string
	mounts   []string // RequiresMountsFor=
	started  []string // a pod's containers
	inUnit   []string // further lines
	inServ   []string
	replaced []string // keys of [Service] that are not the user's to say
}

// Convert makes a unit of every file, in their order.
func Convert(files []*File, host Host) []Unit {
	all := make(map[string]*declaration)
	var list []*declaration
	for _, f := range files {
		d := newDeclaration(f, all, host)
		if all[f.Name] == nil {
			all[f.Name] = d
		}
		list = append(list, d)
	}
	byService := make(map[string]*declaration)
	for _, d := range list {
		if first := byService[d.name]; first != nil && d.name != "" {
			d.problem(0, "makes the unit %s, which %s makes already: say ServiceName=", d.name, first.Path)
			d.name = ""
			continue
		}
		byService[d.name] = d
	}
	for _, pods := range []bool{false, true} { // a pod's unit names its containers
		for _, d := range list {
			if (d.ext == ".pod") == pods {
				d.convert()
			}
		}
	}
	var units []Unit
	for _, d := range list {
		units = append(units, d.finish())
	}
	return units
}

func newDeclaration(f *File, all map[string]*declaration, host Host) *declaration {
	d := &declaration{File: f, all: all, host: host, ext: path.Ext(f.Name)}
	d.kind = kinds()[d.ext]
	d.own = &settings{entries: f.entries(d.kind.section)}
	d.quadlet, d.unit = &settings{entries: f.entries("Quadlet")}, &settings{entries: f.entries("Unit")}
	d.service, d.install = &settings{entries: f.entries("Service")}, &settings{entries: f.entries("Install")}
	base := strings.TrimSuffix(f.Name, d.ext)
	stem, instance, template := strings.Cut(base, "@")
	d.name = stem + d.kind.suffix
	if template {
		d.name += "@" + instance
	}
	if e, ok := d.own.last("ServiceName"); ok {
		d.name = e.value
		if strings.Contains(e.value, "@") != template {
			d.own.add(e.problem("%q: expected an @ exactly if the file's name has one", e.value))
		}
	}
	d.name += ".service"
	if !regexp.MustCompile(`^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?\.service$`).MatchString(d.name) || len(d.name) > 255 {
		f.problem(0, "makes no unit: %.80q is no name of one (letters, digits, : _ . \\ and -, one @)", d.name)
		d.name = ""
	} else if host.Taken != nil && host.Taken(d.name) != "" {
		f.problem(0, "makes no unit: %s is the system's own (%s): choose another name or ServiceName=", d.name, host.Taken(d.name))
		d.name = ""
	}
	d.resource = d.resourceName(stem, template)
	return d
}

// resourceName is what the thing itself is called.
func (d *declaration) resourceName(stem string, template bool) string {
	key := map[string]string{".container": "ContainerName", ".volume": "VolumeName", ".network": "NetworkName", ".pod": "PodName"}[d.ext]
	if name := d.own.text(key); name != "" && key != "" {
		return name
	}
	switch {
	case d.ext == ".image":
		if tag := d.own.text("ImageTag"); tag != "" {
			return tag
		}
		return imageName(d.own.text("Image"))
	case d.ext == ".container" && template:
		return "systemd-%p_%i"
	case d.ext == ".container":
		return "systemd-%N"
	case template:
		return "systemd-" + stem + "-%i"
	}
	return "systemd-" + stem
}

// imageName takes off the transport that podman may name: registries are the only one here.
func imageName(value string) string { return strings.TrimPrefix(value, "docker://") }

// convert checks what every kind has, and has the kind make its lines.
func (d *declaration) convert() {
	if d.kind.why != "" {
		d.problem(0, "is not carried out: %s", d.kind.why)
		return
	}
	d.checkSections()
	d.checkKeys()
	d.checkService()
	d.translate()
	switch d.ext {
	case ".container":
		d.container()
	case ".volume":
		d.volume()
	case ".network":
		d.network()
	case ".image":
		d.image()
	case ".pod":
		d.pod()
	}
	d.install.links(d.name)
}

func (d *declaration) checkSections() {
	known := []string{d.kind.section, "Unit", "Service", "Install", "Quadlet"}
	found := false
	for _, s := range d.sections {
		found = found || s.name == d.kind.section
		if slices.Contains(known, s.name) || strings.HasPrefix(s.name, "X-") {
			continue
		}
		p := Problem{s.path, s.line, fmt.Sprintf("unknown section [%s]", s.name)}
		if n := nearest.Word(s.name, known); n != "" {
			p.Text += fmt.Sprintf(": did you mean [%s]?", n)
		} else {
			p.Text += ": expected " + "[" + strings.Join(known, "], [") + "] or [X-...]"
		}
		d.problems = append(d.problems, p)
	}
	if !found && d.ext != ".volume" && d.ext != ".network" && d.ext != ".pod" {
		d.problem(0, "has no section [%s]", d.kind.section)
	}
}

func (d *declaration) checkKeys() {
	check := func(s *settings, section string, rules []rule) {
		var names []string
		for _, r := range rules {
			names = append(names, r.key)
		}
		for _, e := range s.entries {
			i := slices.Index(names, e.key)
			switch {
			case i >= 0 && rules[i].form == refused && e.value != "":
				s.add(e.problem("is not carried out: %s", rules[i].flag))
			case i >= 0:
			default:
				p := Problem{e.path, e.line, fmt.Sprintf("unknown key %.60q in [%s]", e.key, section)}
				if n := nearest.Word(e.key, names); n != "" {
					p.Text += ": did you mean " + n + "=?"
				}
				s.add(p)
			}
		}
	}
	check(d.own, d.kind.section, d.kind.rules)
	check(d.quadlet, "Quadlet", []rule{{key: "DefaultDependencies"}})
	check(d.install, "Install", []rule{{key: "Alias"}, {key: "WantedBy"}, {key: "RequiredBy"}, {key: "UpheldBy"}, {key: "DefaultInstance"},
		{"Also", refused, "units that are made at boot cannot be enabled: say WantedBy= in each file"}})
}

// checkService refuses what would take the unit's core away.
func (d *declaration) checkService() {
	for _, e := range d.service.entries {
		if e.value == "" {
			continue
		}
		switch e.key {
		case "User", "Group", "DynamicUser":
			d.service.add(e.problem("is not carried out in [Service]: containers are started by root; in [Container] it is the workload's"))
		case "ExecStart":
			d.service.add(e.problem("is made from [%s], in which Exec= is the container's command", d.kind.section))
		case "PIDFile", "RootDirectory", "RootImage", "RootImagePolicy", "MountAPIVFS", "PrivateMounts", "PrivateUsers", "PrivatePIDs":
			d.service.add(e.problem("would keep the workload from its unit or its files"))
		case "KillMode":
			if e.value != "mixed" && e.value != "control-group" {
				d.service.add(e.problem("%q: expected mixed or control-group", e.value))
			}
		case "Type":
			known := []string{"oneshot", "notify", "forking"} // of these two the unit makes what it needs
			if d.ext != ".container" {
				known = []string{"oneshot", "exec", "simple"}
			}
			if !slices.Contains(known, e.value) {
				d.service.add(e.problem("%q: expected oneshot, or nothing", e.value))
			}
		}
	}
}

// translate replaces names of declarations in dependencies by their units'.
func (d *declaration) translate() {
	deps := []string{"Wants", "Requires", "Requisite", "BindsTo", "PartOf", "Upholds", "Conflicts", "Before", "After", "OnFailure", "OnSuccess",
		"PropagatesReloadTo", "ReloadPropagatedFrom", "PropagatesStopTo", "StopPropagatedFrom", "JoinsNamespaceOf"}
	for i, e := range d.unit.entries {
		if !slices.Contains(deps, e.key) {
			continue
		}
		names := strings.Fields(e.value)
		for j, n := range names {
			if !Known(n) {
				continue
			}
			other := d.all[n]
			if other == nil || other.name == "" {
				d.unit.add(e.problem("there is no %.80q", n))
				continue
			}
			names[j] = other.name
		}
		d.unit.entries[i].value = strings.Join(names, " ")
	}
}

// need makes the unit of another declaration a requirement, and returns the other's resource.
func (d *declaration) need(e entry, name string) string {
	other := d.all[name]
	if other == nil || other.name == "" {
		d.own.add(e.problem("there is no %.80q", name))
		return name
	}
	if !slices.Contains(d.needs, other.name) {
		d.needs = append(d.needs, other.name)
	}
	return other.resource
}

// mountsFor makes the file systems that a path lies on a requirement.
func (d *declaration) mountsFor(e entry, name string) {
	if strings.ContainsAny(name, "\"'\n\t\r") || strings.IndexFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0 {
		d.own.add(e.problem("%.80q: no quotes and control characters in paths, please", name))
		return
	}
	if strings.Contains(name, " ") {
		name = `"` + name + `"`
	}
	if !slices.Contains(d.mounts, name) {
		d.mounts = append(d.mounts, name)
	}
}

// absolute is a path as seen from the file's directory.
func (d *declaration) absolute(name string) string {
	if path.IsAbs(name) || isSpecifier(name) {
		return name
	}
	return path.Join(path.Dir(d.Path), name)
}

// flags are those of the keys that need no code of their own.
func (d *declaration) flags() []string {
	var out []string
	for _, r := range d.kind.rules {
		switch r.form {
		case once:
			if v := d.own.text(r.key); v != "" {
				out = append(out, r.flag, v)
			}
		case each:
			for _, e := range d.own.each(r.key) {
				out = append(out, r.flag, e.value)
			}
		case words, arguments:
			for _, e := range d.own.words(r.key, r.form == arguments) {
				out = append(out, r.flag, e.value)
			}
		case pairs:
			for _, e := range d.own.pairs(r.key) {
				out = append(out, r.flag, e.value)
			}
		case boolean:
			if v, ok := d.own.boolean(r.key); ok {
				out = append(out, fmt.Sprintf("%s=%t", r.flag, v))
			}
		}
	}
	return out
}

// podmanArgs are flags that the user says as they are.
func (d *declaration) podmanArgs() []string {
	var out []string
	for _, e := range d.own.words("PodmanArgs", true) {
		out = append(out, e.value)
	}
	return out
}

// run adds a line that executes something.
func (d *declaration) run(key string, words ...string) {
	d.inServ = append(d.inServ, key+"="+commandLine(words))
}

// set adds a setting of [Service] that the user cannot change.
func (d *declaration) set(key, value string) {
	d.replaced = append(d.replaced, key)
	d.inServ = append(d.inServ, key+"="+value)
}

// suggest adds a setting of [Service] unless the user says something else.
func (d *declaration) suggest(key, value string) {
	if !slices.ContainsFunc(d.service.entries, func(e entry) bool { return e.key == key }) {
		d.inServ = append(d.inServ, key+"="+value)
	}
}

// oneshot is a unit that does one thing and stays active.
func (d *declaration) oneshot() {
	d.suggest("Type", "oneshot")
	d.suggest("RemainAfterExit", "yes")
	d.suggest("SyslogIdentifier", "%N")
}
