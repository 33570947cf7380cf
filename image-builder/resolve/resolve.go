// Package resolve decides which packages an image is made of: the closure of what the manifest includes over Pre-Depends and Depends.
//
// It stands between archive, which lists what there is, and lock, which pins the outcome. It is a pure function of its
// arguments, and their order does not matter.
//
// The rules, all simpler than apt's, and each failure names the package and the chain that led to it:
//
//   - Of each name the highest version over all suites is the only candidate; there is no search for older ones. One version
//     with two contents is an error.
//   - A group of alternatives is satisfied by a package already chosen, else by the first that exists and fits.
//   - A virtual package is satisfied by a chosen provider, else by its only provider; if there are several, one has to be included.
//     A versioned relation is satisfied by a versioned Provides only (Debian Policy 7.5).
//   - There is one architecture: name:any and name:native mean name, and name:OTHER is never there.
//   - A package of the exclude list counts as present but is not chosen: what needs it is satisfied, what it needs is not looked at.
//     Package data is a guide; what a tree really needs shows in its ELF files. An exclude that changes nothing is an error, so
//     that the list stays true.
//   - Chosen packages that conflict with or break each other are an error.
//
// Recommends and Suggests are not looked at.
package resolve

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/image-builder/deb"
)

// Closure returns the chosen packages sorted by name. available is the union of all suites' indexes.
func Closure(available []archive.Package, arch string, include, exclude []string) ([]archive.Package, error) {
	if len(include) == 0 {
		return nil, errors.New("resolve packages: the include list is empty")
	}
	s := &solver{
		arch:      arch,
		byName:    candidates(available),
		providers: make(map[string][]provider),
		excluded:  make(map[string]bool),
		chosen:    make(map[string]*choice),
	}
	if err := s.indexProviders(); err != nil {
		return nil, fmt.Errorf("resolve packages: %w", err)
	}
	for _, name := range exclude {
		s.excluded[name] = false
		if _, ok := s.byName[name]; !ok {
			return nil, fmt.Errorf("resolve packages: exclude %s: no suite has such a package", name)
		}
	}
	for _, name := range slices.Sorted(slices.Values(include)) {
		if _, ok := s.excluded[name]; ok {
			return nil, fmt.Errorf("resolve packages: %s is both included and excluded", name)
		}
		p, ok := s.byName[name]
		if !ok {
			return nil, fmt.Errorf("resolve packages: include %s: no suite has such a package%s", name, s.providerHint(name))
		}
		s.choose(p, nil)
	}
	if err := s.run(); err != nil {
		return nil, fmt.Errorf("resolve packages: %w", err)
	}
	if err := s.checkTwins(available); err != nil {
		return nil, fmt.Errorf("resolve packages: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(s.excluded)) {
		if !s.excluded[name] {
			return nil, fmt.Errorf("resolve packages: exclude %s: nothing would bring it in; remove the entry", name)
		}
	}
	return s.result(), nil
}

// candidates keeps the highest version of each name; of equal versions the first in suite order, which is the same file: see twins.
func candidates(available []archive.Package) map[string]*archive.Package {
	m := make(map[string]*archive.Package, len(available))
	for i := range available {
		p := &available[i]
		old, ok := m[p.Name]
		if ok {
			c := p.Version.Compare(old.Version)
			if c < 0 || c == 0 && p.Suite >= old.Suite {
				continue
			}
		}
		m[p.Name] = p
	}
	return m
}

// checkTwins fails if another suite, or the same one, has a chosen version with another content.
func (s *solver) checkTwins(available []archive.Package) error {
	for i := range available {
		p := &available[i]
		c := s.chosen[p.Name]
		if c == nil || c.pkg.SHA256 == p.SHA256 || c.pkg.Version.Compare(p.Version) != 0 {
			continue
		}
		return fmt.Errorf("%s %s is in %s and in %s with different contents: the archive is broken, nothing is chosen",
			p.Name, p.Version, min(c.pkg.Suite, p.Suite), max(c.pkg.Suite, p.Suite))
	}
	return nil
}

// provider is a package that provides a virtual one, at a version if versioned is set.
type provider struct {
	pkg       *archive.Package
	version   deb.Version
	versioned bool
}

// choice is a chosen package and the one that it was chosen for, nil for an included one.
type choice struct {
	pkg *archive.Package
	by  *choice
}

// chain is "for a, for b, included".
func (c *choice) chain() string {
	var b strings.Builder
	b.WriteString(c.pkg.Name + " " + c.pkg.Version.String())
	for up := c.by; up != nil; up = up.by {
		b.WriteString(" <- " + up.pkg.Name)
	}
	b.WriteString(" <- include list")
	return b.String()
}

type solver struct {
	arch      string
	byName    map[string]*archive.Package
	providers map[string][]provider
	excluded  map[string]bool // value: whether it satisfied something
	chosen    map[string]*choice
	queue     []*choice
}

func (s *solver) indexProviders() error {
	for _, name := range slices.Sorted(maps.Keys(s.byName)) {
		p := s.byName[name]
		groups, err := deb.ParseRelations(p.Provides)
		if err != nil {
			return fmt.Errorf("package %s: Provides: %w", name, err)
		}
		for _, g := range groups {
			if len(g) != 1 || g[0].Op != "" && g[0].Op != "=" {
				return fmt.Errorf("package %s: Provides: expected names or \"name (= version)\", found %s", name, formatGroup(g))
			}
			s.providers[g[0].Name] = append(s.providers[g[0].Name],
				provider{pkg: p, version: g[0].Version, versioned: g[0].Op != ""})
		}
	}
	return nil
}

func (s *solver) choose(p *archive.Package, by *choice) {
	if s.chosen[p.Name] != nil {
		return
	}
	c := &choice{pkg: p, by: by}
	s.chosen[p.Name] = c
	s.queue = append(s.queue, c)
}

// run works breadth first, so that chains are as short as they can be.
func (s *solver) run() error {
	for len(s.queue) > 0 {
		c := s.queue[0]
		s.queue = s.queue[1:]
		for _, f := range []struct{ name, value string }{{"Pre-Depends", c.pkg.PreDepends}, {"Depends", c.pkg.Depends}} {
			groups, err := deb.ParseRelations(f.value)
			if err != nil {
				return fmt.Errorf("package %s: %s: %w", c.pkg.Name, f.name, err)
			}
			for _, g := range groups {
				if err := s.satisfy(g, c); err != nil {
					return err
				}
			}
		}
	}
	return s.checkConflicts()
}

// satisfy chooses a package for a group of alternatives, if none is chosen yet.
func (s *solver) satisfy(group []deb.Relation, c *choice) error {
	group = slices.DeleteFunc(slices.Clone(group), func(r deb.Relation) bool { return !r.AppliesTo(s.arch) })
	if len(group) == 0 {
		return nil
	}
	for _, r := range group {
		if s.chosenFor(r) {
			return nil
		}
	}
	if s.leftOut(group) {
		return nil
	}
	var ambiguous []string
	for _, r := range group {
		found := s.fitting(r)
		if len(found) == 1 || len(found) > 1 && found[0].Name == r.Name {
			s.choose(found[0], c)
			return nil
		}
		for _, p := range found {
			ambiguous = append(ambiguous, p.Name)
		}
	}
	if ambiguous != nil {
		return fmt.Errorf("%s needs %s, which %s provide: include one of them",
			c.chain(), formatGroup(group), strings.Join(ambiguous, ", "))
	}
	return fmt.Errorf("%s needs %s, %s", c.chain(), formatGroup(group), s.whyNot(group))
}

// leftOut reports whether an excluded package satisfies the group, and notes which.
func (s *solver) leftOut(group []deb.Relation) bool {
	found := false
	for _, r := range group {
		for _, p := range s.fitting(r) {
			if _, ok := s.excluded[p.Name]; ok {
				s.excluded[p.Name], found = true, true
			}
		}
	}
	return found
}

// chosenFor reports whether a chosen package satisfies r.
func (s *solver) chosenFor(r deb.Relation) bool {
	return slices.ContainsFunc(s.fitting(r), func(p *archive.Package) bool { return s.chosen[p.Name] != nil })
}

// fitting returns what satisfies r: the package of that name first, then providers by name.
func (s *solver) fitting(r deb.Relation) []*archive.Package {
	var found []*archive.Package
	if !slices.Contains([]string{"", "any", "native", s.arch}, r.Qualifier) {
		return nil
	}
	if p, ok := s.byName[r.Name]; ok && r.Allows(p.Version) {
		found = append(found, p)
	}
	for _, p := range s.providers[r.Name] {
		if p.pkg.Name == r.Name {
			continue
		}
		if r.Op == "" || p.versioned && r.Allows(p.version) {
			found = append(found, p.pkg)
		}
	}
	return found
}

// whyNot says what there is in place of what would fit.
func (s *solver) whyNot(group []deb.Relation) string {
	var found []string
	for _, r := range group {
		if p, ok := s.byName[r.Name]; ok {
			what := p.Name + " " + p.Version.String() + " of " + p.Suite
			if r.Qualifier != "" {
				what += " for " + s.arch
			}
			found = append(found, what)
		}
		for _, p := range s.providers[r.Name] {
			what := p.pkg.Name + " " + p.pkg.Version.String() + " of " + p.pkg.Suite + ", which provides " + r.Name
			if p.versioned {
				what += " (= " + p.version.String() + ")"
			}
			found = append(found, what)
		}
	}
	if found == nil {
		return "which no suite has"
	}
	return "found only " + strings.Join(found, "; ")
}

func (s *solver) providerHint(name string) string {
	var names []string
	for _, p := range s.providers[name] {
		names = append(names, p.pkg.Name)
	}
	if names == nil {
		return ""
	}
	return "; it is provided by " + strings.Join(names, ", ") + ": include one of these"
}

func (s *solver) checkConflicts() error {
	for _, p := range s.result() {
		for _, f := range []struct{ verb, value string }{{"conflicts with", p.Conflicts}, {"breaks", p.Breaks}} {
			groups, err := deb.ParseRelations(f.value)
			if err != nil {
				return fmt.Errorf("package %s: %s: %w", p.Name, f.verb, err)
			}
			for _, g := range groups {
				for _, r := range g {
					if !r.AppliesTo(s.arch) {
						continue
					}
					for _, q := range s.fitting(r) {
						if other := s.chosen[q.Name]; other != nil && q.Name != p.Name {
							return fmt.Errorf("%s %s %s, which is chosen as well: %s",
								s.chosen[p.Name].chain(), f.verb, r, other.chain())
						}
					}
				}
			}
		}
	}
	return nil
}

func (s *solver) result() []archive.Package {
	list := make([]archive.Package, 0, len(s.chosen))
	for _, c := range s.chosen {
		list = append(list, *c.pkg)
	}
	slices.SortFunc(list, func(a, b archive.Package) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func formatGroup(group []deb.Relation) string {
	var alts []string
	for _, r := range group {
		alts = append(alts, r.String())
	}
	return strings.Join(alts, " | ")
}
