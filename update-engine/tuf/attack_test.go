package tuf_test

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/proa-os/proa/update-engine/tuf"
)

func TestHonestForge(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	v.ok("the first time", f)
	f.release()
	v.ok("the next release", f)
}

// Whatever role a stranger signs for, his key is not trusted.
func TestWrongKey(t *testing.T) {
	stranger := []signature.Signer{signer(t, "stranger-1"), signer(t, "stranger-2")}
	for file, forge := range map[string]func(f *forge){
		"timestamp.json":  func(f *forge) { f.put("timestamp.json", sign(t, f.timestamp, stranger...)) },
		"2.snapshot.json": func(f *forge) { f.putSnapshot(sign(t, f.snapshot, stranger...)) },
		"2.targets.json": func(f *forge) {
			f.putTargets(sign(t, f.targets, stranger...), sign(t, f.plan, f.keys["plan"]...))
		},
		"2.plan.json": func(f *forge) {
			f.putTargets(sign(t, f.targets, f.keys["targets"]...), sign(t, f.plan, stranger...))
		},
		"2.root.json": func(f *forge) { f.next("root"); f.put("2.root.json", sign(t, f.root, stranger...)) },
	} {
		f := newForge(t)
		v := f.visitor()
		f.release()
		forge(f)
		v.refused(file, f, tuf.WrongKey, file, keyID(t, stranger[0])[:8], "root.json")
	}
}

func TestTooFewSignatures(t *testing.T) {
	publish := func(f *forge, signers ...signature.Signer) {
		f.next("timestamp", "snapshot", "targets")
		f.putTargets(sign(t, f.targets, signers...), sign(t, f.plan, f.keys["plan"]...))
	}

	f := newForge(t)
	v := f.visitor()
	publish(f, f.keys["targets"][0])
	v.refused("one of two", f, tuf.TooFewSignatures, "2.targets.json", "1 of the 2")

	publish(f, f.keys["targets"][0], f.keys["targets"][0])
	v.refused("one key twice", f, tuf.Garbage, "3.targets.json", "multiple signatures", keyID(t, f.keys["targets"][0]))

	f = newForge(t)
	v = f.visitor()
	f.next("root")
	revoked := f.keys["targets"][0]
	if err := f.root.Signed.RevokeKey(keyID(t, revoked), "targets"); err != nil {
		t.Fatal(err)
	}
	f.putRoot()
	publish(f, revoked, f.keys["targets"][1])
	v.refused("one of two is revoked", f, tuf.TooFewSignatures, "2.targets.json", "1 of the 2")
	publish(f, f.keys["targets"][1:]...)
	v.ok("the two others", f)
}

// A file that thousands have signed does not fill the journal.
func TestManySignatures(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	var b strings.Builder
	b.WriteString(`{"signatures":[`)
	for i := range 5000 {
		fmt.Fprintf(&b, `{"keyid":"%064x","sig":"00"},`, i)
	}
	f.next("root")
	whole := string(sign(t, f.root, signer(t, "stranger")))
	f.put("2.root.json", []byte(b.String()+strings.TrimPrefix(strings.Join(strings.Fields(whole), ""), `{"signatures":[`)))
	v.refused("5001 signatures", f, tuf.WrongKey, "2.root.json", "00000000 00000000", "and 4993 more")
	if err := v.read(f); len(err.Error()) > 1000 {
		t.Errorf("the refusal has %d bytes", len(err.Error()))
	}
}

// The root's signers can list one key under two names: it still counts once.
func TestOneKeyUnderTwoNames(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	f.next("root", "timestamp", "snapshot", "targets", "plan")
	for _, s := range f.keys["targets"] {
		if err := f.root.Signed.RevokeKey(keyID(t, s), "targets"); err != nil {
			t.Fatal(err)
		}
	}
	s := f.keys["targets"][0]
	one, two := public(t, s), public(t, s)
	two.UnrecognizedFields = map[string]any{"comment": "another name"}
	for _, k := range []*metadata.Key{one, two} {
		if err := f.root.Signed.AddKey(k, "targets"); err != nil {
			t.Fatal(err)
		}
	}
	f.putRoot()
	sign(t, f.targets, s)
	again := f.targets.Signatures[0]
	again.KeyID, _ = two.ID()
	f.targets.Signatures = append(f.targets.Signatures, again)
	b, err := f.targets.ToBytes(true)
	if err != nil {
		t.Fatal(err)
	}
	f.putTargets(b, sign(t, f.plan, f.keys["plan"]...))
	v.refused("one key under two names", f, tuf.TooFewSignatures, "2.targets.json", "1 of the 2", "under two names counts once")
}

// No role goes back, whoever signs it.
func TestRollbackOfEachRole(t *testing.T) {
	for _, c := range []struct {
		name, file string
		forge      func(f *forge)
		words      []string
	}{
		{"root", "3.root.json", func(f *forge) { f.root.Signed.Version = 1; f.put("3.root.json", sign(t, f.root, f.keys["root"]...)) }, []string{"version 1, expected 3"}},
		{"timestamp", "timestamp.json", func(f *forge) { f.timestamp.Signed.Version = 1; f.publish() }, []string{"version 1", "seen 2"}},
		{"snapshot", "timestamp.json", func(f *forge) { f.next("timestamp"); f.snapshot.Signed.Version = 1; f.publish() }, []string{"version 1 of snapshot.json", "seen 2"}},
		{"targets", "3.snapshot.json", func(f *forge) { f.next("timestamp", "snapshot"); f.targets.Signed.Version = 1; f.publish() }, []string{"version 1 of targets.json", "seen 2"}},
		{"plan", "3.snapshot.json", func(f *forge) { f.next("timestamp", "snapshot"); f.plan.Signed.Version = 1; f.publish() }, []string{"version 1 of plan.json", "seen 2"}},
		{"plan left out", "3.snapshot.json", func(f *forge) {
			f.release()
			delete(f.snapshot.Signed.Meta, "plan.json")
			f.putSnapshot(sign(t, f.snapshot, f.keys["snapshot"]...))
		}, []string{"no longer names plan.json", "version 2"}},
	} {
		f := newForge(t)
		v := f.visitor()
		f.next("root")
		f.putRoot()
		f.release()
		v.ok(c.name, f)
		c.forge(f)
		v.refused(c.name, f, tuf.Rollback, c.file, c.words...)
		f.timestamp.Signed.Version, f.snapshot.Signed.Version, f.targets.Signed.Version, f.plan.Signed.Version = 5, 5, 5, 5
		delete(f.files, "metadata/3.root.json")
		f.publish()
		v.ok(c.name+": an honest server after it", f)
	}
}

// What is held back long enough is noticed, role by role.
func TestFreeze(t *testing.T) {
	past := start.Add(-time.Minute)
	const online, offline = "release refresh", "release renew, sign and publish"
	renews := map[string]string{"timestamp.json": online, "2.snapshot.json": online, "2.plan.json": online, "2.targets.json": offline, "root.json": offline}
	for file, forge := range map[string]func(f *forge){
		"timestamp.json":  func(f *forge) { f.timestamp.Signed.Expires = past },
		"2.snapshot.json": func(f *forge) { f.snapshot.Signed.Expires = past },
		"2.targets.json":  func(f *forge) { f.targets.Signed.Expires = past },
		"2.plan.json":     func(f *forge) { f.plan.Signed.Expires = past },
		"root.json":       func(f *forge) { f.next("root"); f.root.Signed.Expires = past; f.putRoot() },
	} {
		f := newForge(t)
		v := f.visitor()
		v.ok("before", f)
		forge(f)
		f.release()
		v.refused(file, f, tuf.Expired, file, "version 2 was valid until 2026-01-01T11:59:00Z", "clock says 2026-01-01T12:00:00Z", renews[file]+" renews it")
	}
	f := newForge(t)
	v := f.visitor()
	v.ok("before", f)
	v.now = start.Add(25 * time.Hour)
	v.refused("the same timestamp a day later", f, tuf.Expired, "timestamp.json", "until 2026-01-02T12:00:00Z")
	f.tags = true
	v.now = start
	v.ok("with a tag", f)
	v.now = start.Add(25 * time.Hour)
	v.refused("a server that says that nothing has changed", f, tuf.Expired, "timestamp.json")
}

// Files of different times do not go together, even if each is genuine.
func TestMixAndMatch(t *testing.T) {
	for _, name := range []string{"snapshot", "targets", "plan"} {
		f := newForge(t)
		v := f.visitor()
		f.release()
		f.put("2."+name+".json", f.files["metadata/1."+name+".json"])
		v.refused(name, f, tuf.Tampered, "2."+name+".json", "different times")

		// A repository that names no hashes still names versions.
		f = newForge(t)
		v = f.visitor()
		f.release()
		f.put("2."+name+".json", f.files["metadata/1."+name+".json"])
		for _, m := range f.snapshot.Signed.Meta {
			m.Hashes, m.Length = nil, 0
		}
		b := sign(t, f.snapshot, f.keys["snapshot"]...)
		if name != "snapshot" {
			f.put("2.snapshot.json", b)
		}
		f.timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(2)
		f.put("timestamp.json", sign(t, f.timestamp, f.keys["timestamp"]...))
		v.refused(name+" without hashes", f, tuf.Tampered, "2."+name+".json", "it is version 1", "names version 2")
	}
}

// Thieves raise a version to where nobody gets past it; new keys for timestamp or snapshot bring the machines back (5.3.11).
func TestFastForwardAndRecovery(t *testing.T) {
	const far = math.MaxInt64
	for _, c := range []struct {
		name     string
		forward  func(f *forge)
		back     func(f *forge)
		replaced []string
	}{
		{"timestamp", func(f *forge) { f.timestamp.Signed.Version = far }, func(f *forge) { f.timestamp.Signed.Version = 2 }, []string{"timestamp"}},
		{"snapshot", func(f *forge) { f.snapshot.Signed.Version = far }, func(f *forge) { f.snapshot.Signed.Version = 2 }, []string{"snapshot"}},
		{"targets", func(f *forge) { f.targets.Signed.Version = far }, func(f *forge) { f.targets.Signed.Version = 2 }, []string{"snapshot"}},
		{"plan", func(f *forge) { f.plan.Signed.Version = far }, func(f *forge) { f.plan.Signed.Version = 2 }, []string{"timestamp"}},
		{"all", func(f *forge) {
			f.timestamp.Signed.Version, f.snapshot.Signed.Version, f.plan.Signed.Version = far, far, far
		}, func(f *forge) { f.timestamp.Signed.Version, f.snapshot.Signed.Version, f.plan.Signed.Version = 1, 1, 1 }, []string{"timestamp", "snapshot"}},
	} {
		f := newForge(t)
		v := f.visitor()
		v.ok(c.name+": before", f)
		f.release()
		c.forward(f)
		f.publish()
		v.ok(c.name+": forward", f)
		c.back(f)
		f.next("timestamp", "snapshot")
		if c.name == "timestamp" || c.name == "all" {
			f.timestamp.Signed.Version = 3
		}
		f.publish()
		if err := v.read(f); err == nil || !strings.Contains(err.Error(), string(tuf.Rollback)) {
			t.Errorf("%s: back without new keys: %v", c.name, err)
		}
		f.next("root")
		for _, role := range c.replaced {
			f.replaceKeys(role, role+"-new")
		}
		f.putRoot()
		f.publish()
		v.ok(c.name+": back with new keys", f)
		v.ok(c.name+": and again", f)
	}
}

// A power cut between the new root and the forgetting does not keep what must be forgotten.
func TestRecoveryIsCut(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	f.snapshot.Signed.Version = math.MaxInt64
	f.next("timestamp")
	f.publish()
	v.ok("forward", f)
	before := snapshot(t, v.state)
	f.next("root", "timestamp")
	f.snapshot.Signed.Version = 2
	f.replaceKeys("snapshot", "snapshot-new")
	f.putRoot()
	f.publish()
	v.state = before
	if err := os.WriteFile(filepath.Join(before, "root.json"), f.files["metadata/2.root.json"], 0o644); err != nil {
		t.Fatal(err)
	}
	v.ok("after the cut", f)
}

// Adding a key is no recovery: what was seen still counts.
func TestAddedKeyForgetsNothing(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	f.release()
	v.ok("before", f)
	f.next("root")
	f.addKey("timestamp", "timestamp-2")
	f.putRoot()
	f.timestamp.Signed.Version = 1
	f.publish()
	v.refused("an old timestamp", f, tuf.Rollback, "timestamp.json")
}

// A machine whose anchor is replaced by one of the same repository does not go back to an older root than it has seen.
func TestNewAnchorKeepsNewerRoot(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	for range 3 {
		f.next("root")
		f.putRoot()
	}
	v.ok("root 4", f)
	v.anchor = f.files["metadata/2.root.json"]
	f.asked = nil
	v.ok("another anchor", f)
	if f.asked[0] != "metadata/5.root.json" {
		t.Errorf("asked first for %s, want 5.root.json", f.asked[0])
	}
}

// Every file has a longest length, and what the role above says is one.
func TestEndlessFiles(t *testing.T) {
	for _, file := range []string{"2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json", "1.plan.json"} {
		f := newForge(t)
		f.put(file, append(f.files["metadata/"+file], bytes.Repeat([]byte(" "), 6<<20)...))
		if err := f.visitor().read(f); err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "at most") {
			t.Errorf("%s: got %v", file, err)
		}
	}
}

// What the server gives for a name must be what was signed for it.
func TestSwappedTarget(t *testing.T) {
	f := newForge(t)
	f.add(f.targets, "releases/1.0.0/amd64/from-a.delta", []byte("delta for a"))
	f.add(f.targets, "releases/1.0.0/amd64/from-b.delta", []byte("delta for b"))
	f.release()
	c := f.visitor().open(f)
	a, err := c.Target("releases/1.0.0/amd64/from-a.delta")
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Target("releases/1.0.0/amd64/from-b.delta")
	if err != nil {
		t.Fatal(err)
	}
	pathOf := func(t tuf.Target) string { return strings.TrimPrefix(t.URL, memory+"/") }
	for what, content := range map[string][]byte{
		"the delta for another source": f.files[pathOf(b)], "one byte less": []byte("delta for "), "nothing": {}, "another byte": []byte("delta for A"),
	} {
		f.files[pathOf(a)] = content
		_, err := c.Read(a.Name, 100)
		if err == nil || !strings.Contains(err.Error(), "refuse "+a.Name) || !strings.Contains(err.Error(), a.SHA256.String()) || !next.MatchString(err.Error()) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	f.files[pathOf(a)] = []byte("delta for a and more")
	if _, err := c.Read(a.Name, 100); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("at most %d bytes", a.Size)) {
		t.Errorf("more bytes: got %v", err)
	}
	f.files[pathOf(a)] = []byte("delta for a")
	if _, err := c.Read(a.Name, 100); err != nil {
		t.Error(err)
	}
}

// Neither the plan's role nor a delegation that the offline signers should not have made can bring releases in.
func TestDelegationTricks(t *testing.T) {
	evil := "releases/6.6.6/amd64/release.json"
	for what, forge := range map[string]func(f *forge){
		"the plan signs a release": func(f *forge) { f.add(f.plan, evil, []byte("evil")) },
		"releases are delegated to the plan": func(f *forge) {
			f.targets.Signed.Delegations.Roles[0].Paths = []string{"plan/*", "releases/*/*/*"}
			f.add(f.plan, evil, []byte("evil"))
		},
		"the plan delegates releases": func(f *forge) {
			f.targets.Signed.Delegations.Roles[0].Paths = []string{"plan/*", "releases/*/*/*"}
			f.delegate(f.plan, "helper", "releases/*/*/*", evil)
		},
		"a second role gets releases": func(f *forge) { f.delegate(f.targets, "helper", "releases/*/*/*", evil) },
		"a role called timestamp":     func(f *forge) { f.delegate(f.targets, "timestamp", "releases/*/*/*", evil) },
	} {
		f := newForge(t)
		v := f.visitor()
		f.next("timestamp", "snapshot", "targets", "plan")
		forge(f)
		helpers := map[string][]byte{}
		for name, b := range f.files {
			if strings.HasPrefix(name, "metadata/1.helper") || name == "metadata/1.timestamp.json" {
				helpers[name] = b
			}
		}
		targets, plan := sign(t, f.targets, f.keys["targets"]...), sign(t, f.plan, f.keys["plan"]...)
		f.putTargets(targets, plan)
		for name, b := range helpers {
			f.snapshot.Signed.Meta[strings.TrimPrefix(name, "metadata/1.")] = describe(1, b)
		}
		f.putSnapshot(sign(t, f.snapshot, f.keys["snapshot"]...))
		v.ok(what+": the rest", f)
		_, err := v.open(f).Read(evil, 100)
		if err == nil || !strings.Contains(err.Error(), "refuse "+evil+": "+string(tuf.Unsigned)) || !strings.Contains(err.Error(), "stage, sign and publish it, or name another in the plan") {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// delegate lets a role hand out names to another, which signs one.
func (f *forge) delegate(from *metadata.Metadata[metadata.TargetsType], role, paths, name string) {
	f.t.Helper()
	if from.Signed.Delegations == nil {
		from.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	}
	s := signer(f.t, role)
	id := keyID(f.t, s)
	from.Signed.Delegations.Keys[id] = public(f.t, s)
	from.Signed.Delegations.Roles = append(from.Signed.Delegations.Roles, metadata.DelegatedRole{Name: role, KeyIDs: []string{id}, Threshold: 1, Paths: []string{paths}})
	m := metadata.Targets(start.AddDate(0, 0, 7))
	f.add(m, name, []byte("evil"))
	f.put("1."+role+".json", sign(f.t, m, s))
}

// A wrong clock is called one; a machine in 1970 takes nothing for valid for ever.
func TestWrongClock(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	for _, year := range []int{1970, 2015, 2100} {
		v.now = time.Date(year, 1, 1, 0, 0, 30, 0, time.UTC)
		file := "timestamp.json"
		if year == 2100 {
			file = "root.json"
		}
		v.refused(fmt.Sprint(year), f, tuf.Clock, file, fmt.Sprintf("the clock says %d-01-01T00:00:30Z", year), "timedatectl")
	}
	v.now = start
	v.ok("when the clock is right again", f)
}
