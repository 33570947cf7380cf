package kernel

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Rules say which modules stay. A rule is a path below usr/lib/modules/<version>/ without ".ko", each part a pattern of
// path.Match; one that names a directory covers all that is in it.
type Rules struct {
	Keep []string // what stays
	Drop []string // what of that does not, unless something that stays needs it
}

// String names the rules in the key of the cache.
func (r Rules) String() string {
	return "keep\n" + strings.Join(r.Keep, "\n") + "\ndrop\n" + strings.Join(r.Drop, "\n")
}

// covers reports whether a rule covers the module at p, which may end in ".ko" or ".ko.xz".
func covers(rule, p string) (bool, error) {
	p = strings.TrimSuffix(strings.TrimSuffix(p, ".xz"), ".ko")
	want, have := strings.Split(rule, "/"), strings.Split(p, "/")
	if len(want) > len(have) {
		return false, nil
	}
	for i, w := range want {
		if ok, err := path.Match(w, have[i]); !ok {
			return false, err
		}
	}
	return true, nil
}

// Select returns the paths of the modules that stay, sorted: those of the rules, and whatever they need, softly too (before or
// after them). A rule that says nothing about this kernel is an error: after a kernel update it would silently mean nothing.
func (x *Index) Select(r Rules) ([]string, error) {
	kept := map[string]bool{}
	for p := range x.deps {
		kept[p] = false
	}
	if err := apply(r.Keep, kept, true); err != nil {
		return nil, fmt.Errorf("kernel.keep: %w", err)
	}
	if err := apply(r.Drop, kept, false); err != nil {
		return nil, fmt.Errorf("kernel.drop: %w", err)
	}
	var queue, all []string
	for p, keep := range kept {
		if keep {
			queue = append(queue, p)
		}
	}
	for len(queue) > 0 {
		p := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		all = append(all, p)
		for _, need := range x.needs(p) {
			if !kept[need] {
				kept[need] = true
				queue = append(queue, need)
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

// apply sets what the rules cover to keep. Every rule must change something.
func apply(rules []string, kept map[string]bool, keep bool) error {
	var dead []string
	for _, rule := range rules {
		hit := false
		for p, was := range kept {
			ok, err := covers(rule, p)
			if err != nil {
				return fmt.Errorf("%q: %w", rule, err)
			}
			if ok && was != keep {
				kept[p], hit = keep, true
			}
		}
		if !hit {
			dead = append(dead, rule)
		}
	}
	if len(dead) > 0 {
		slices.Sort(dead)
		return fmt.Errorf("%q change nothing for this kernel package: no such modules, or other rules cover them; mend the manifest", dead)
	}
	return nil
}

// needs returns the modules that p asks for by itself, hard and soft.
func (x *Index) needs(p string) []string {
	out := slices.Clone(x.deps[p])
	n := nameOf(p)
	for _, s := range slices.Concat(x.soft[n], x.softPost[n]) {
		for _, t := range x.providers(s) {
			out = append(out, x.byName[t])
		}
	}
	return out
}

// providers returns the modules a soft dependency means: that of the name, or all that have it as an alias. There may be none:
// it is soft, and the function may be built in.
func (x *Index) providers(name string) []string {
	if _, ok := x.byName[name]; ok {
		return []string{name}
	}
	return slices.DeleteFunc(slices.Clone(x.alias[name]), func(n string) bool { _, ok := x.byName[n]; return !ok })
}
