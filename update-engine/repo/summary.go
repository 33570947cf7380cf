package repo

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
)

// Summary says in lines what the signatures of a request would bring about: compare the hashes with those of your own build, the key ids
// with those that you were told by their owners.
func (r *Request) Summary() []string {
	var lines []string
	if len(r.roots) > 0 {
		first, _ := r.roots[0].ToBytes(true)
		lines = append(lines, fmt.Sprintf("repository: root %d to %d; sha256 of root %d is %s",
			version(r.roots[0]), version(r.roots[len(r.roots)-1]), version(r.roots[0]), digest.Of(first)))
	}
	if r.Root != nil {
		lines = append(lines, r.rootChanges()...)
	}
	if r.Targets != nil {
		lines = append(lines, r.targetsChanges()...)
	}
	return lines
}

func (r *Request) rootChanges() []string {
	before := metadata.Root()
	if len(r.roots) > 0 {
		before = r.roots[len(r.roots)-1]
	}
	lines := []string{fmt.Sprintf("%d.root.json, valid until %s", version(r.Root), r.Root.Signed.Expires.Format("2006-01-02"))}
	changed := false
	for _, name := range Roles[:4] {
		a, b := before.Signed.Roles[name], r.Root.Signed.Roles[name]
		if len(r.roots) == 0 {
			a = &metadata.Role{Threshold: b.Threshold}
		}
		part := roleChanges(name, a.KeyIDs, b.KeyIDs, a.Threshold, b.Threshold)
		lines, changed = append(lines, part...), changed || len(part) > 0
	}
	if !changed {
		lines = append(lines, "  no key or threshold changes, only the time of expiry")
	}
	return lines
}

func roleChanges(name string, before, after []string, from, to int) (lines []string) {
	added, removed := keysGained(before, after)
	for _, id := range added {
		lines = append(lines, fmt.Sprintf("  + role %s: key %s", name, id))
	}
	for _, id := range removed {
		lines = append(lines, fmt.Sprintf("  - role %s: key %s", name, id))
	}
	if from != to {
		lines = append(lines, fmt.Sprintf("  ! role %s: threshold %d instead of %d", name, to, from))
	}
	if len(lines) > 0 {
		lines = append(lines, fmt.Sprintf("    role %s from now on: %d of %d keys", name, to, len(after)))
	}
	return lines
}

func (r *Request) targetsChanges() []string {
	lines := []string{fmt.Sprintf("%d.targets.json, valid until %s", version(r.Targets), r.Targets.Signed.Expires.Format("2006-01-02"))}
	before := r.published
	if before == nil {
		before = metadata.Targets()
	}
	var names []string
	for name := range r.Targets.Signed.Targets {
		names = append(names, name)
	}
	slices.Sort(names)
	changed := len(lines)
	for _, name := range names {
		info, old := r.Targets.Signed.Targets[name], before.Signed.Targets[name]
		if old != nil && old.Hashes.Equal(info.Hashes) && old.Length == info.Length {
			continue
		}
		sign := "+"
		if old != nil {
			sign = "!"
		}
		lines = append(lines, fmt.Sprintf("  %s %s: %d bytes, sha256 %s", sign, name, info.Length, info.Hashes["sha256"]))
		lines = append(lines, r.releaseLines(name)...)
	}
	for name := range before.Signed.Targets {
		if r.Targets.Signed.Targets[name] == nil {
			lines = append(lines, fmt.Sprintf("  - %s", name))
		}
	}
	lines = append(lines, planChanges(before, r.Targets)...)
	if len(lines) == changed {
		lines = append(lines, "  no release changes, only the time of expiry")
	}
	return lines
}

func planChanges(before, after *targetsMeta) []string {
	b, err := planRole(after)
	if err != nil {
		return []string{"  ! " + err.Error()}
	}
	a, err := planRole(before)
	if err != nil {
		a = &metadata.DelegatedRole{Threshold: b.Threshold}
	}
	lines := roleChanges(rolePlan, a.KeyIDs, b.KeyIDs, a.Threshold, b.Threshold)
	if err == nil && !slices.Equal(a.Paths, b.Paths) || len(b.Paths) != 1 || b.Paths[0] != "plan/*" {
		lines = append(lines, fmt.Sprintf("  ! role %s: may sign %s", rolePlan, strings.Join(b.Paths, " ")))
	}
	return lines
}

// releaseLines describes a release.json.
func (r *Request) releaseLines(name string) []string {
	rel, err := release.Parse([]byte(r.releases[name]))
	if err != nil {
		return nil
	}
	lines := []string{
		fmt.Sprintf("      release %s for %s, root hash %s", rel.Version, rel.Arch, rel.Root.RootHash),
		fmt.Sprintf("      root image sha256 %s, boot program sha256 %s", rel.Root.SHA256, rel.Boot.SHA256),
		fmt.Sprintf("      built with %s from manifest %s, lock %s", rel.Build.GoVersion, rel.Build.Manifest, rel.Build.Lock),
	}
	if !rel.Build.SBOM.IsZero() {
		lines = append(lines, fmt.Sprintf("      tools' lock %s, bill of materials %s", rel.Build.Tools, rel.Build.SBOM))
	}
	if rel.MinSource != "" {
		lines = append(lines, "      can be reached from "+rel.MinSource+" on")
	}
	before := r.releaseBefore(rel)
	if before == nil {
		return append(lines, fmt.Sprintf("      %d packages; it is the first release", len(rel.Packages)))
	}
	lines = append(lines, fmt.Sprintf("      %d packages, compared with release %s:", len(rel.Packages), before.Version))
	changes := packageChanges(before.Packages, rel.Packages)
	for _, c := range changes {
		lines = append(lines, "        "+c)
	}
	if len(changes) == 0 {
		lines = append(lines, "        the same packages")
	}
	return lines
}

func (r *Request) releaseBefore(rel *release.Release) *release.Release {
	var best *release.Release
	for _, text := range r.releases {
		other, err := release.Parse([]byte(text))
		if err != nil || other.Arch != rel.Arch || compareVersions(other.Version, rel.Version) >= 0 {
			continue
		}
		if best == nil || compareVersions(other.Version, best.Version) > 0 {
			best = other
		}
	}
	return best
}

func packageChanges(before, after []release.Package) (lines []string) {
	old := map[string]string{}
	for _, p := range before {
		old[p.Name] = p.Version
	}
	for _, p := range after {
		switch was, ok := old[p.Name]; {
		case !ok:
			lines = append(lines, "+ "+p.Name+" "+p.Version)
		case was != p.Version:
			lines = append(lines, "! "+p.Name+" "+was+" to "+p.Version)
		}
		delete(old, p.Name)
	}
	for name, was := range old {
		lines = append(lines, "- "+name+" "+was)
	}
	slices.Sort(lines)
	return lines
}

// SameAnchor reports whether root.json bytes are one of the roots of the request, by content; else what it says proves nothing.
func (r *Request) SameAnchor(b []byte) error {
	anchor, err := parse[metadata.RootType](b)
	if err != nil {
		return fmt.Errorf("read trust anchor: %w", err)
	}
	for _, root := range r.roots {
		if root.Signed.Version != anchor.Signed.Version {
			continue
		}
		x, errX := root.ToBytes(false)
		y, errY := anchor.ToBytes(false)
		if errX == nil && errY == nil && bytes.Equal(x, y) {
			return nil
		}
		return fmt.Errorf("root %d of the request is not the trust anchor: sign nothing of it", root.Signed.Version)
	}
	return fmt.Errorf("the request has no root %d, which the trust anchor is: sign nothing of it", anchor.Signed.Version)
}
