package tuf_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/update-engine/tuf"
)

// Each of these tests is what a thief of some keys can do, and what not. The server is the thief's as well.

// The timestamp key alone: hold back what is new until the snapshot's week is over. No more.
func TestStolenTimestampKeyCanOnlyDelay(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	v.ok("before", f)
	f.next("timestamp")
	f.timestamp.Signed.Expires = start.AddDate(1, 0, 0)
	f.put("timestamp.json", sign(t, f.timestamp, f.keys["timestamp"]...))
	v.ok("the old snapshot, kept alive", f)
	v.now = start.AddDate(0, 0, 8)
	v.refused("for longer than a week", f, tuf.Expired, "1.snapshot.json", "version 1")

	f = newForge(t)
	v = f.visitor()
	f.next("timestamp", "snapshot")
	f.putSnapshot(sign(t, f.snapshot, f.keys["timestamp"]...)) // the thief has no other
	v.refused("a snapshot of their own", f, tuf.WrongKey, "2.snapshot.json")
}

// Timestamp and snapshot keys: choose among genuine releases and plans that are not older than what a machine knows.
func TestStolenSnapshotKeyChoosesAmongTheGenuine(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	v.ok("before", f)
	f.next("timestamp", "snapshot", "targets")
	f.putTargets(sign(t, f.targets, f.keys["snapshot"]...), sign(t, f.plan, f.keys["plan"]...))
	v.refused("releases of their own", f, tuf.WrongKey, "2.targets.json")
	f.next("timestamp", "snapshot", "plan")
	f.putTargets(sign(t, f.targets, f.keys["targets"]...), sign(t, f.plan, f.keys["snapshot"]...))
	v.refused("a plan of their own", f, tuf.WrongKey, "2.plan.json")
	f.next("timestamp", "snapshot", "plan")
	f.publish()
	v.ok("genuine ones", f)
	f.next("timestamp", "snapshot")
	f.plan.Signed.Version = 1
	f.publish()
	v.refused("an older plan", f, tuf.Rollback, "5.snapshot.json")
}

// All online keys, the plan's too: a genuine release early, or none. Not a byte that the offline keys have not signed.
func TestAllOnlineKeysStolenHandOutGenuineReleasesOnly(t *testing.T) {
	f := newForge(t)
	f.add(f.targets, "releases/2.0.0/amd64/release.json", []byte("not planned for anybody yet"))
	f.publish()
	v := f.visitor()
	v.ok("before", f)
	f.next("timestamp", "snapshot", "plan")
	f.add(f.plan, planName, []byte("the thief's plan: 2.0.0"))
	f.add(f.plan, "releases/6.6.6/amd64/release.json", []byte("evil"))
	f.add(f.plan, "releases/2.0.0/amd64/release.json", []byte("evil in place of the genuine"))
	f.publish()
	c := v.open(f)
	if b, err := c.Read(planName, 100); err != nil || string(b) != "the thief's plan: 2.0.0" {
		t.Errorf("the plan is the thief's: %q, %v", b, err)
	}
	if b, err := c.Read("releases/2.0.0/amd64/release.json", 100); err != nil || string(b) != "not planned for anybody yet" {
		t.Errorf("a genuine release early: %q, %v", b, err)
	}
	var r *tuf.Refusal
	if _, err := c.Read("releases/6.6.6/amd64/release.json", 100); !errors.As(err, &r) || r.Reason != tuf.Unsigned {
		t.Errorf("a release that is not genuine: %v", err)
	}
	f.next("timestamp", "snapshot", "targets")
	f.putTargets(sign(t, f.targets, append(f.keys["plan"], f.keys["snapshot"]...)...), sign(t, f.plan, f.keys["plan"]...))
	v.refused("releases signed with all they have", f, tuf.WrongKey, "2.targets.json")
}

// One offline key of the two that are needed, with all online ones: nothing more than the online ones.
func TestOneStolenOfflineKeyIsNotEnough(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	v.ok("before", f)
	f.next("timestamp", "snapshot", "targets")
	f.add(f.targets, "releases/6.6.6/amd64/release.json", []byte("evil"))
	f.putTargets(sign(t, f.targets, f.keys["targets"][0], f.keys["plan"][0]), sign(t, f.plan, f.keys["plan"]...))
	v.refused("releases", f, tuf.TooFewSignatures, "2.targets.json", "1 of the 2")
	f.next("root")
	f.rootKeys(1, "thief")
	f.put("2.root.json", sign(t, f.root, signer(t, "root-1"), signer(t, "thief")))
	v.refused("a root", f, tuf.TooFewSignatures, "2.root.json", "1 of the 2")
}

// The releases' keys: releases, while nobody has replaced the keys; with them a root's signers take them away.
func TestStolenReleaseKeysEndWithTheNextRoot(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	v.ok("before", f)
	thief := f.keys["targets"]
	f.next("root")
	f.replaceKeys("targets", "targets-new")
	f.root.Signed.Roles["targets"].Threshold = 1
	f.putRoot()
	f.next("timestamp", "snapshot", "targets")
	f.putTargets(sign(t, f.targets, thief...), sign(t, f.plan, f.keys["plan"]...))
	v.refused("the old keys", f, tuf.WrongKey, "2.targets.json")
	f.release()
	v.ok("the new key", f)
}

// What was signed for one role is nothing in the place of another.
func TestFilesInOthersPlaces(t *testing.T) {
	names := []string{"timestamp.json", "2.snapshot.json", "2.targets.json", "2.plan.json", "2.root.json"}
	f := newForge(t)
	f.next("root")
	f.putRoot()
	f.release()
	for _, place := range names {
		for _, other := range names {
			if place == other {
				continue
			}
			g := *f
			g.files = map[string][]byte{}
			for name, b := range f.files {
				g.files[name] = b
			}
			g.files["metadata/"+place] = f.files["metadata/"+other]
			err := f.visitor().read(&g)
			if err == nil || !strings.Contains(err.Error(), place) {
				t.Errorf("%s in place of %s: got %v", other, place, err)
			}
		}
	}
}

// A timestamp and a snapshot that live for a century would make a thief's freeze endless; the releases' own year ends it.
func TestFreezeEndsWithTheOfflineRole(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	for _, expires := range []*time.Time{&f.timestamp.Signed.Expires, &f.snapshot.Signed.Expires, &f.plan.Signed.Expires} {
		*expires = start.AddDate(4, 0, 0)
	}
	f.root.Signed.Expires = start.AddDate(4, 0, 0)
	f.next("root")
	f.putRoot()
	f.release()
	v.ok("before", f)
	v.now = start.AddDate(1, 0, 1)
	v.refused("after a year", f, tuf.Expired, "2.targets.json")
}

// The plan's key alone, or the snapshot's: what they sign is not what the role above names, and a version that nobody names is not looked at.
func TestStolenPlanOrSnapshotKeyAloneIsNothing(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	v.ok("before", f)
	f.next("plan")
	f.add(f.plan, planName, []byte("the thief's plan"))
	evil := sign(t, f.plan, f.keys["plan"]...)
	f.put("2.plan.json", evil)
	v.ok("a plan that no snapshot names", f)
	genuine := f.files["metadata/1.plan.json"]
	f.put("1.plan.json", evil)
	if err := f.visitor().read(f); err == nil || !strings.Contains(err.Error(), "1.plan.json") {
		t.Errorf("a plan in another's place: got %v", err)
	}
	f.put("1.plan.json", genuine)
	f.next("snapshot")
	f.snapshot.Signed.Meta["plan.json"] = describe(2, evil)
	evil = sign(t, f.snapshot, f.keys["snapshot"]...)
	f.put("2.snapshot.json", evil)
	v.ok("a snapshot that no timestamp names", f)
	f.put("1.snapshot.json", evil)
	if err := f.visitor().read(f); err == nil || !strings.Contains(err.Error(), "1.snapshot.json") {
		t.Errorf("a snapshot in another's place: got %v", err)
	}
}
