package kernel

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"strings"
)

// Index is what depmod(8) knows of a modules directory: modules.dep, modules.softdep, modules.alias and modules.builtin.
type Index struct {
	deps     map[string][]string // path -> paths it needs, as modules.dep lists them
	byName   map[string]string   // normalised name -> path
	soft     map[string][]string // normalised name -> names to load before
	softPost map[string][]string // normalised name -> names to load after
	alias    map[string][]string // normalised alias without wildcards -> normalised names
	devices  map[string][]string // normalised name -> its aliases as they are, each a pattern for a device's modalias
	builtin  map[string]bool     // normalised names
}

// normalise makes the two spellings of a module's name one, as modprobe does.
func normalise(name string) string { return strings.ReplaceAll(name, "-", "_") }

func nameOf(p string) string {
	return normalise(strings.TrimSuffix(strings.TrimSuffix(path.Base(p), ".xz"), ".ko"))
}

// ReadIndex reads the four files through open, which is given their names.
func ReadIndex(open func(name string) (io.ReadCloser, error)) (*Index, error) {
	x := &Index{
		deps: map[string][]string{}, byName: map[string]string{}, soft: map[string][]string{}, softPost: map[string][]string{},
		alias: map[string][]string{}, devices: map[string][]string{}, builtin: map[string]bool{},
	}
	for _, f := range []struct {
		name string
		line func(string) error
	}{
		{"modules.dep", x.addDep}, {"modules.softdep", x.addSoft}, {"modules.alias", x.addAlias}, {"modules.builtin", x.addBuiltin},
	} {
		if err := eachLine(open, f.name, f.line); err != nil {
			return nil, fmt.Errorf("read %s: %w", f.name, err)
		}
	}
	return x, nil
}

func eachLine(open func(string) (io.ReadCloser, error), name string, do func(string) error) error {
	r, err := open(name)
	if err != nil {
		return err
	}
	defer r.Close()
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if l := strings.TrimSpace(s.Text()); l != "" && !strings.HasPrefix(l, "#") {
			if err := do(l); err != nil {
				return err
			}
		}
	}
	return s.Err()
}

func (x *Index) addDep(l string) error {
	p, deps, ok := strings.Cut(l, ":")
	if !ok {
		return fmt.Errorf("line %q: no colon", l)
	}
	x.deps[p] = strings.Fields(deps)
	x.byName[nameOf(p)] = p
	return nil
}

func (x *Index) addSoft(l string) error {
	f := strings.Fields(l)
	if len(f) < 2 || f[0] != "softdep" {
		return fmt.Errorf("line %q: want softdep NAME ...", l)
	}
	n := normalise(f[1])
	var to map[string][]string // words before "pre:" and "post:" mean nothing to modprobe either
	for _, w := range f[2:] {
		switch w {
		case "pre:":
			to = x.soft
		case "post:":
			to = x.softPost
		default:
			if to != nil {
				to[n] = append(to[n], normalise(w))
			}
		}
	}
	return nil
}

func (x *Index) addAlias(l string) error {
	f := strings.Fields(l)
	if len(f) != 3 || f[0] != "alias" {
		return nil // an alias with a space in it cannot be a device's
	}
	n := normalise(f[2])
	x.devices[n] = append(x.devices[n], f[1])
	if !strings.ContainsAny(f[1], "*?[") {
		a := normalise(f[1])
		x.alias[a] = append(x.alias[a], n)
	}
	return nil
}

func (x *Index) addBuiltin(l string) error { x.builtin[nameOf(l)] = true; return nil }

// Aliases returns the patterns of the devices (their modalias) that the module of that name drives.
func (x *Index) Aliases(name string) []string { return x.devices[normalise(name)] }

// Order returns the modules' paths so that each comes after all it needs: hard dependencies and soft ones ("pre").
// A name that is built into the kernel is left out; one that does not exist is an error.
func (x *Index) Order(names []string) ([]string, error) {
	var out []string
	done := map[string]bool{}
	var add func(name string, chain []string) error
	add = func(name string, chain []string) error {
		for _, c := range chain {
			if c == name { // crc32c_generic and crc32c-intel name each other softly; the first one wins
				return nil
			}
		}
		p, ok := x.byName[name]
		if !ok || done[p] {
			return nil
		}
		chain = append(chain, name)
		for _, s := range x.soft[name] {
			for _, t := range x.providers(s) {
				if err := add(t, chain); err != nil {
					return err
				}
			}
		}
		// modules.dep lists the closure with the deepest dependency last.
		for i := len(x.deps[p]) - 1; i >= 0; i-- {
			if err := add(nameOf(x.deps[p][i]), chain); err != nil {
				return err
			}
		}
		if !done[p] {
			done[p] = true
			out = append(out, p)
		}
		return nil
	}
	for _, n := range names {
		n = normalise(n)
		if _, ok := x.byName[n]; !ok {
			if x.builtin[n] {
				continue
			}
			return nil, fmt.Errorf("kernel module %q: neither a module of this kernel nor built in", n)
		}
		if err := add(n, nil); err != nil {
			return nil, err
		}
	}
	return out, nil
}
