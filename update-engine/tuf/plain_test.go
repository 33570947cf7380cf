package tuf_test

import (
	"cmp"
	"crypto/sha512"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/proa-os/proa/update-engine/tuf"
)

// An edge is a delegation; roles are called by one letter, the offline role by "targets".
type edge struct {
	from, to    string
	paths       string // "*" if empty
	terminating bool
}

// graph replaces the delegations and publishes. Each role is signed by a key of its own, and targets are put where the map says.
func (f *forge) graph(edges []edge, targets map[string]string) {
	f.t.Helper()
	roles := map[string]*metadata.Metadata[metadata.TargetsType]{"targets": f.targets}
	f.targets.Signed.Delegations = nil
	for _, e := range edges {
		for _, name := range []string{e.from, e.to} {
			if roles[name] == nil {
				roles[name] = metadata.Targets(start.AddDate(0, 0, 7))
			}
		}
		m := roles[e.from]
		if m.Signed.Delegations == nil {
			m.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
		}
		s := signer(f.t, e.to)
		id := keyID(f.t, s)
		m.Signed.Delegations.Keys[id] = public(f.t, s)
		m.Signed.Delegations.Roles = append(m.Signed.Delegations.Roles, metadata.DelegatedRole{
			Name: e.to, KeyIDs: []string{id}, Threshold: 1, Terminating: e.terminating, Paths: []string{cmp.Or(e.paths, "*")},
		})
	}
	for name, role := range targets {
		f.add(roles[role], name, []byte("by "+role))
	}
	f.next("timestamp", "snapshot", "targets")
	f.publish()
	for role, m := range roles {
		if role == "targets" {
			continue
		}
		b := sign(f.t, m, signer(f.t, role))
		f.put("1."+url.PathEscape(role)+".json", b)
		f.snapshot.Signed.Meta[role+".json"] = describe(1, b)
	}
	f.putSnapshot(sign(f.t, f.snapshot, f.keys["snapshot"]...))
}

// plain opens a client that is nothing but a TUF client.
func (v *visitor) plain(f tuf.Fetcher) *tuf.Client {
	v.t.Helper()
	c, err := tuf.Open(v.t.Context(), tuf.Config{
		Fetcher: f, Server: memory, Metadata: memory + "/metadata/", Targets: memory + "/targets/", Anchor: v.anchor, State: v.state, Now: v.now, Plain: true,
	})
	if err != nil {
		v.t.Fatal(err)
	}
	return c
}

// Delegations are asked in the order of the specification (5.6.7), as the conformance tests of the TUF project draw them.
func TestDelegationGraphs(t *testing.T) {
	for name, c := range map[string]struct {
		edges []edge
		want  string
	}{
		"one":                            {[]edge{{from: "targets", to: "A"}}, "A"},
		"two":                            {[]edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}}, "A B"},
		"two levels":                     {[]edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "B", to: "C"}}, "A B C"},
		"depth first":                    {[]edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "A", to: "C"}, {from: "A", to: "D"}}, "A C D B"},
		"three levels":                   {[]edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "A", to: "C"}, {from: "C", to: "D"}}, "A C D B"},
		"terminating":                    {[]edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "A", to: "C", terminating: true}, {from: "A", to: "D"}}, "A C"},
		"terminating, with a child":      {[]edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "A", to: "C", terminating: true}, {from: "C", to: "D"}}, "A C D"},
		"other paths":                    {[]edge{{from: "targets", to: "A", paths: "?.py"}, {from: "targets", to: "B"}, {from: "A", to: "C"}}, "B"},
		"other paths below":              {[]edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "A", to: "C", paths: "?.py"}, {from: "C", to: "D"}}, "A B"},
		"a circle":                       {[]edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "B", to: "C"}, {from: "C", to: "D"}, {from: "D", to: "B"}}, "A B C D"},
		"two ways":                       {[]edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "B", to: "C"}, {from: "A", to: "C"}}, "A C B"},
		"two ways, one of them too late": {[]edge{{from: "targets", to: "A"}, {from: "targets", to: "B"}, {from: "B", to: "C"}, {from: "A", to: "C", terminating: true}}, "A C"},
	} {
		f := newForge(t)
		v := f.visitor()
		f.graph(c.edges, nil)
		_, err := v.plain(f).Target("missing")
		var r *tuf.Refusal
		if !errors.As(err, &r) || r.Reason != tuf.Unsigned {
			t.Errorf("%s: %v", name, err)
		}
		var visited []string
		for _, file := range f.asked[4:] {
			visited = append(visited, strings.TrimSuffix(strings.TrimPrefix(file, "metadata/1."), ".json"))
		}
		if got := strings.Join(visited, " "); got != c.want {
			t.Errorf("%s: visited %s, want %s", name, got, c.want)
		}
	}
}

func TestDelegatedPaths(t *testing.T) {
	edges := []edge{{from: "targets", to: "A", paths: "*.md"}, {from: "targets", to: "B", paths: "releases/*/*"},
		{from: "B", to: "C", paths: "releases/x/*"}, {from: "B", to: "D", paths: "releases/y/*.zip"}}
	names := map[string]string{"README.md": "A", "releases/README.md": "A", "releases/x/x_v1": "C", "releases/y/y_v1.zip": "D", "releases/z/z_v1.zip": "D", "top": "targets"}
	f := newForge(t)
	v := f.visitor()
	f.graph(edges, names)
	c := v.plain(f)
	for name, role := range map[string]string{"README.md": "A", "releases/x/x_v1": "C", "releases/y/y_v1.zip": "D", "top": "targets",
		"releases/README.md": "", "releases/z/z_v1.zip": "", "README.MD": ""} {
		b, err := c.Read(name, 100)
		if role == "" && err == nil || role != "" && (err != nil || string(b) != "by "+role) {
			t.Errorf("%s: %q, %v, want it from %q", name, b, err, role)
		}
	}
}

// A role that one delegator's keys have signed is not signed for another delegator with other keys, at hand or not.
func TestRoleIsVerifiedForEachDelegator(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	f.graph([]edge{{from: "targets", to: "A", paths: "a/*"}, {from: "targets", to: "B", paths: "b/*"}, {from: "A", to: "R", paths: "a/*"}, {from: "B", to: "R", paths: "b/*"}},
		map[string]string{"a/x": "R", "b/x": "R"})
	// B names another key for R.
	m := metadata.Targets(start.AddDate(0, 0, 7))
	s := signer(t, "another R")
	m.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{keyID(t, s): public(t, s)},
		Roles: []metadata.DelegatedRole{{Name: "R", KeyIDs: []string{keyID(t, s)}, Threshold: 1, Paths: []string{"b/*"}}}}
	b := sign(t, m, signer(t, "B"))
	f.put("1.B.json", b)
	f.snapshot.Signed.Meta["B.json"] = describe(1, b)
	f.putSnapshot(sign(t, f.snapshot, f.keys["snapshot"]...))
	c := v.plain(f)
	if got, err := c.Read("a/x", 100); err != nil || string(got) != "by R" {
		t.Errorf("by way of A: %q, %v", got, err)
	}
	for range 2 {
		var r *tuf.Refusal
		if _, err := c.Read("b/x", 100); !errors.As(err, &r) || r.Reason != tuf.WrongKey {
			t.Errorf("by way of B: %v", err)
		}
		c = v.plain(f) // with the stored files
	}
}

// The number of roles that a name can lead through is bounded.
func TestManyDelegations(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	var edges []edge
	last := "targets"
	for i := range 60 {
		next := fmt.Sprintf("r%d", i)
		edges = append(edges, edge{from: last, to: next})
		last = next
	}
	f.graph(edges, map[string]string{"deep": last})
	if _, err := v.plain(f).Target("deep"); err == nil || len(f.asked) > 40 {
		t.Errorf("got %v after %d files", err, len(f.asked))
	}
}

// Whatever a role is called, its file is asked for and stored under a name that leads nowhere else.
func TestUnusualRoleNames(t *testing.T) {
	for _, role := range []string{"?", "#", "/role", "../role", "..", "a b", "ü", "%2e%2e"} {
		f := newForge(t)
		v := f.visitor()
		parent := v.state
		v.state = filepath.Join(parent, "state")
		f.graph([]edge{{from: "targets", to: role}}, nil)
		if _, err := v.plain(f).Target("missing"); err == nil {
			t.Error("found what is not there")
		}
		if !slices.Contains(f.asked, "metadata/1."+url.PathEscape(role)+".json") {
			t.Errorf("%s: asked for %v", role, f.asked)
		}
		if files, err := filepath.Glob(filepath.Join(v.state, "*.json")); err != nil || len(files) != 5 {
			t.Errorf("%s: stored %v, %v", role, files, err)
		}
		if entries, err := os.ReadDir(parent); err != nil || len(entries) != 1 {
			t.Errorf("%s: beside the state: %v, %v", role, entries, err)
		}
	}
}

// A delegated role that is called as a top-level one does not take its place.
func TestTopLevelNames(t *testing.T) {
	for _, role := range []string{"root", "timestamp", "snapshot", "targets"} {
		f := newForge(t)
		v := f.visitor()
		f.graph([]edge{{from: "targets", to: "A"}}, nil)
		f.targets.Signed.Delegations.Roles[0].Name = role
		f.next("timestamp", "snapshot", "targets")
		f.publish()
		c := v.plain(f)
		if _, err := c.Target("missing"); err == nil {
			t.Errorf("%s: found what is not there", role)
		}
		if _, err := v.plain(f).Target(releaseName); err != nil {
			t.Errorf("%s: afterwards: %v", role, err)
		}
	}
}

func TestHashKinds(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	content := []byte("content")
	sum := sha512.Sum512(content)
	for name, hashes := range map[string]metadata.Hashes{"sha512": {"sha512": sum[:]}, "unknown": {"md5": sum[:16]}, "short": {"sha256": sum[:4]}} {
		f.targets.Signed.Targets[name] = &metadata.TargetFiles{Length: int64(len(content)), Hashes: hashes}
	}
	f.files[fmt.Sprintf("targets/%x.sha512", sum)] = content
	f.release()
	if b, err := v.plain(f).Read("sha512", 100); err != nil || string(b) != "content" {
		t.Errorf("sha512: %q, %v", b, err)
	}
	for _, name := range []string{"unknown", "short"} {
		if _, err := v.plain(f).Read(name, 100); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := v.open(f).Target("sha512"); err == nil || !strings.Contains(err.Error(), "no sha256") {
		t.Errorf("a release without sha256: %v", err)
	}
}

// Without consistent snapshots files have plain names.
func TestNotConsistent(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	f.root.Signed.ConsistentSnapshot = false
	f.next("root")
	f.putRoot()
	for _, role := range []string{"snapshot", "targets", "plan"} {
		f.files["metadata/"+role+".json"] = f.files["metadata/1."+role+".json"]
		delete(f.files, "metadata/1."+role+".json")
	}
	f.files["targets/"+planName], f.files["targets/"+releaseName] = []byte("the plan"), []byte("the release")
	v.ok("plain names", f)
}
