package repo

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-semver/semver"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/update-engine/plan"
)

// A PlanEdit changes what a channel gets. What is nil stays as it is, but for a new version, which begins without not-before, waves and halt.
type PlanEdit struct {
	Channel   string
	Version   string // empty: as it is
	NotBefore *time.Time
	Waves     *[]plan.Wave // empty: all at once
	Halt      *bool
	Urgent    *bool
}

// planned returns the channel's plan after an edit. It refuses a release that the offline keys have not signed; staged allows one that is
// published together with the plan.
func (d *Desk) planned(pub *published, r *Request, x PlanEdit, staged bool) (*plan.Plan, error) {
	if err := plan.CheckChannel(x.Channel); err != nil {
		return nil, err
	}
	targets := pub.targets
	if staged && r.Targets != nil {
		targets = r.Targets
	}
	p, err := d.planOf(pub, x.Channel)
	if err != nil {
		return nil, err
	}
	switch {
	case p == nil && x.Version == "":
		return nil, fmt.Errorf("channel %s has no plan yet: give it a --version", x.Channel)
	case p == nil || x.Version != "" && x.Version != p.Release:
		p = &plan.Plan{Channel: x.Channel, Release: x.Version}
	}
	if known := versionsIn(targets); !slices.Contains(known, p.Release) {
		hint := "stage, sign and publish it first"
		if r.Targets != nil && slices.Contains(versionsIn(r.Targets), p.Release) {
			hint = "it is staged: sign and publish it first"
		}
		return nil, fmt.Errorf("there is no signed release %s: %s, or choose one of: %s", p.Release, hint, strings.Join(known, " "))
	}
	if x.NotBefore != nil {
		at := x.NotBefore.UTC().Truncate(time.Second)
		if p.NotBefore = &at; x.NotBefore.IsZero() {
			p.NotBefore = nil
		}
	}
	if x.Waves != nil {
		if err := plan.CheckWaves(*x.Waves); err != nil {
			return nil, err
		}
		p.Waves = *x.Waves
	}
	if x.Halt != nil {
		p.Halted = *x.Halt
	}
	if x.Urgent != nil {
		p.Urgent = *x.Urgent
	}
	return p, nil
}

// PublishPlan changes a plan and makes it current with the online keys alone. What is staged stays staged.
func (d *Desk) PublishPlan(x PlanEdit) (*Publication, error) {
	return d.publishing(func(pub *published) (*Publication, error) {
		r, err := d.request(pub)
		if err != nil {
			return nil, err
		}
		p, err := d.planned(pub, r, x, false)
		if err != nil {
			return nil, fmt.Errorf("plan: %w", err)
		}
		return d.publish(pub, nothingStaged(pub), p)
	})
}

// planOf reads the published plan of a channel; nil if it has none.
func (d *Desk) planOf(pub *published, channel string) (*plan.Plan, error) {
	if pub.plan == nil || pub.plan.Signed.Targets[plan.Target(channel)] == nil {
		return nil, nil
	}
	name := plan.Target(channel)
	b, err := d.readTarget(name, sumIn(pub.plan.Signed.Targets[name]))
	if err != nil {
		return nil, err
	}
	return plan.Parse(b, channel)
}

// readTarget reads a small target and compares it with its hash.
func (d *Desk) readTarget(name string, sum digest.SHA256) ([]byte, error) {
	file := d.path(targetFile(name, sum))
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if got := digest.Of(b); got != sum {
		return nil, fmt.Errorf("read %s: expected sha256 %s, found %s: the file was changed", file, sum, got)
	}
	return b, nil
}

// A Known is a release in the repository.
type Known struct {
	*release.Release
	Text   string // of release.json
	Staged bool   // not published yet
}

// Releases lists the releases that are published or staged, oldest first.
func (d *Desk) Releases() ([]Known, error) {
	pub, err := d.published()
	if err != nil {
		return nil, err
	}
	r, err := d.request(pub)
	if err != nil {
		return nil, err
	}
	return d.releases(pub, r)
}

func (d *Desk) releases(pub *published, r *Request) ([]Known, error) {
	newest := r.Targets
	if newest == nil {
		newest = pub.targets
	}
	if newest == nil {
		return nil, nil
	}
	var list []Known
	for name, info := range newest.Signed.Targets {
		if path.Base(name) != "release.json" {
			continue
		}
		b, err := d.readTarget(name, sumIn(info))
		if err != nil {
			return nil, err
		}
		rel, err := release.Parse(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		old := pub.targets != nil && pub.targets.Signed.Targets[name] != nil && pub.targets.Signed.Targets[name].Hashes.Equal(info.Hashes)
		list = append(list, Known{Release: rel, Text: string(b), Staged: !old})
	}
	slices.SortFunc(list, func(a, b Known) int {
		if n := compareVersions(a.Version, b.Version); n != 0 {
			return n
		}
		return strings.Compare(a.Arch, b.Arch)
	})
	return list, nil
}

func compareVersions(a, b string) int {
	x, errX := semver.NewVersion(a)
	y, errY := semver.NewVersion(b)
	if errX != nil || errY != nil {
		return strings.Compare(a, b)
	}
	return x.Compare(*y)
}

// Versions lists the versions of the releases that are published or staged, oldest first.
func (d *Desk) Versions() ([]string, error) {
	pub, err := d.published()
	if err != nil {
		return nil, err
	}
	r, err := d.request(pub)
	if err != nil {
		return nil, err
	}
	if r.Targets != nil {
		return versionsIn(r.Targets), nil
	}
	return versionsIn(pub.targets), nil
}

func versionsIn(t *targetsMeta) []string {
	if t == nil {
		return nil
	}
	var versions []string
	for name := range t.Signed.Targets {
		if parts := strings.Split(name, "/"); len(parts) == 4 && parts[0] == "releases" && parts[3] == "release.json" && !slices.Contains(versions, parts[1]) {
			versions = append(versions, parts[1])
		}
	}
	slices.SortFunc(versions, compareVersions)
	return versions
}

// releaseTarget is the name of a release's target.
func releaseTarget(r *release.Release) string { return releaseDir(r) + "release.json" }

func releaseDir(r *release.Release) string { return "releases/" + r.Version + "/" + r.Arch + "/" }
