package repo

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/plan"
)

// warnBefore is how early a desk speaks of offline metadata that expires: there must be time to bring the keys together.
const warnBefore = 30 * day

// Status is a repository at a glance.
type Status struct {
	Roles    []RoleStatus    `json:"roles"`
	Channels []plan.Plan     `json:"channels"`
	Releases []ReleaseStatus `json:"releases"` // oldest first
	Staged   []Needed        `json:"staged,omitempty"`
	Warnings []string        `json:"warnings,omitempty"`
}

// RoleStatus is a role at a glance.
type RoleStatus struct {
	Role      string    `json:"role"`
	Version   int64     `json:"version"`
	Expires   time.Time `json:"expires"`
	Keys      []string  `json:"key_ids"`
	Threshold int       `json:"threshold"`
	Offline   bool      `json:"offline"`
}

// ReleaseStatus is a release at a glance.
type ReleaseStatus struct {
	Version  string           `json:"version"`
	Arch     string           `json:"arch"`
	RootHash digest.SHA256    `json:"root_hash"`
	Raw      int64            `json:"raw_size"`
	Payloads map[string]int64 `json:"payload_sizes"` // "full", "from VERSION"
	Staged   bool             `json:"staged,omitempty"`
}

// Status reads the repository without looking at signatures; Check does that.
func (d *Desk) Status() (*Status, error) {
	pub, err := d.published()
	if err != nil {
		return nil, err
	}
	s := &Status{Channels: []plan.Plan{}, Releases: []ReleaseStatus{}}
	r, err := d.request(pub)
	if err != nil {
		return nil, err
	}
	if !r.empty() {
		if s.Staged, err = r.Needed(); err != nil {
			return nil, err
		}
	}
	if s.Warnings, err = d.Warnings(); err != nil || pub.timestamp == nil || pub.root() == nil {
		return s, err
	}
	if s.Roles, err = roleStatus(pub); err != nil {
		return nil, err
	}
	if s.Channels, err = d.channels(pub); err != nil {
		return nil, err
	}
	known, err := d.releases(pub, r)
	if err != nil {
		return nil, err
	}
	for _, k := range known {
		s.Releases = append(s.Releases, ReleaseStatus{Version: k.Version, Arch: k.Arch, RootHash: k.Root.RootHash, Raw: rawSize(k.Release), Payloads: sizes(known, k), Staged: k.Staged})
	}
	return s, nil
}

// sizes are a release's payloads by what they are: "full", "from VERSION".
func sizes(known []Known, k Known) map[string]int64 {
	m := map[string]int64{}
	if k.Payloads == nil {
		return m
	}
	m["full"] = k.Payloads.Full.Size
	for source, p := range k.Payloads.Deltas {
		m["from "+sourceName(known, source)] = p.Size
	}
	return m
}

// sourceName is the version of the release with a root hash.
func sourceName(known []Known, hash digest.SHA256) string {
	for _, k := range known {
		if k.Root.RootHash == hash {
			return k.Version
		}
	}
	return hash.String()
}

func roleStatus(pub *published) ([]RoleStatus, error) {
	root := pub.root().Signed
	plans, err := planRole(pub.targets)
	if err != nil {
		return nil, err
	}
	list := []RoleStatus{
		{Role: metadata.ROOT, Version: root.Version, Expires: root.Expires, Offline: true},
		{Role: metadata.TARGETS, Version: version(pub.targets), Expires: pub.targets.Signed.Expires, Offline: true},
		{Role: rolePlan, Version: version(pub.plan), Expires: pub.plan.Signed.Expires, Keys: plans.KeyIDs, Threshold: plans.Threshold},
		{Role: metadata.SNAPSHOT, Version: version(pub.snapshot), Expires: pub.snapshot.Signed.Expires},
		{Role: metadata.TIMESTAMP, Version: version(pub.timestamp), Expires: pub.timestamp.Signed.Expires},
	}
	for i := range list {
		if role := root.Roles[list[i].Role]; role != nil {
			list[i].Keys, list[i].Threshold = role.KeyIDs, role.Threshold
		}
	}
	return list, nil
}

// channels are the published plans, by name of channel.
func (d *Desk) channels(pub *published) ([]plan.Plan, error) {
	list := []plan.Plan{}
	for name := range pub.plan.Signed.Targets {
		p, err := d.planOf(pub, strings.TrimSuffix(path.Base(name), ".json"))
		if err != nil {
			return nil, err
		}
		if p != nil {
			list = append(list, *p)
		}
	}
	slices.SortFunc(list, func(a, b plan.Plan) int { return strings.Compare(a.Channel, b.Channel) })
	return list, nil
}

// Warnings names offline metadata that expires soon and is not staged to be renewed. A folder that is no repository has none.
func (d *Desk) Warnings() ([]string, error) {
	pub, err := d.published()
	if err != nil || pub.root() == nil || pub.targets == nil {
		return nil, err
	}
	r, err := d.request(pub)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, m := range []struct {
		role    string
		version int64
		expires time.Time
		staged  bool
	}{
		{metadata.ROOT, version(pub.root()), pub.root().Signed.Expires, r.Root != nil},
		{metadata.TARGETS, version(pub.targets), pub.targets.Signed.Expires, r.Targets != nil},
	} {
		left := m.expires.Sub(d.Now())
		if left > warnBefore {
			continue
		}
		what, next := fmt.Sprintf("expires in %d days", int(left/day)), "run release renew --role "+m.role+", then release sign and release publish"
		if left < 0 {
			what = "has expired, machines refuse the repository"
		}
		if m.staged {
			next = "its next version is staged: run release sign and release publish"
		}
		list = append(list, fmt.Sprintf("%d.%s.json %s (%s): %s", m.version, m.role, what, m.expires.Format("2006-01-02"), next))
	}
	return list, nil
}
