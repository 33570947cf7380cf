package tuf_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/proa-os/proa/update-engine/tuf"
)

// rootKeys replaces the root's keys and threshold.
func (f *forge) rootKeys(threshold int, names ...string) (old []signature.Signer) {
	f.t.Helper()
	old = f.keys["root"]
	f.replaceKeys("root", names[0])
	for _, n := range names[1:] {
		f.addKey("root", n)
	}
	f.root.Signed.Roles["root"].Threshold = threshold
	return old
}

// A chain of roots is followed to its end, however its keys and thresholds change, if each is signed by the one before and by itself.
func TestRootChain(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	for i, threshold := range []int{2, 1, 3, 1, 2} {
		f.next("root")
		f.putRoot(f.rootKeys(threshold, fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i), fmt.Sprintf("c%d", i))...)
	}
	for role := range f.keys {
		if role != "root" && role != "plan" {
			f.replaceKeys(role, role+"-new")
		}
	}
	f.root.Signed.Roles["targets"].Threshold = 1
	f.next("root")
	f.putRoot()
	f.release()
	v.ok("over six roots", f)
	f.asked = nil
	v.ok("again", f)
	if f.asked[0] != "metadata/8.root.json" {
		t.Errorf("asked first for %s, want 8.root.json", f.asked[0])
	}
}

func TestRootThatIsNotSignedByBoth(t *testing.T) {
	for what, c := range map[string]struct {
		reason tuf.Reason
		sign   func(f *forge, old []signature.Signer) []signature.Signer
	}{
		"only the old keys": {tuf.WrongKey, func(f *forge, old []signature.Signer) []signature.Signer { return old }},
		"only the new keys": {tuf.WrongKey, func(f *forge, old []signature.Signer) []signature.Signer { return f.keys["root"] }},
		"one of the old ones": {tuf.TooFewSignatures, func(f *forge, old []signature.Signer) []signature.Signer {
			return append(slices.Clone(f.keys["root"]), old[0])
		}},
		"one of the new ones": {tuf.TooFewSignatures, func(f *forge, old []signature.Signer) []signature.Signer {
			return append(slices.Clone(old), f.keys["root"][0])
		}},
	} {
		f := newForge(t)
		v := f.visitor()
		f.next("root")
		old := f.rootKeys(2, "new-1", "new-2")
		f.put("2.root.json", sign(t, f.root, c.sign(f, old)...))
		v.refused(what, f, c.reason, "2.root.json")
		f.put("2.root.json", sign(t, f.root, append(slices.Clone(old), f.keys["root"]...)...))
		v.ok(what+": both", f)
	}
}

// A root that is left out cannot be jumped over: what the later one's keys have signed is a stranger's.
func TestRootGap(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	f.next("root")
	f.putRoot(f.rootKeys(1, "second")...)
	second := f.files["metadata/2.root.json"]
	f.next("root")
	f.putRoot(f.rootKeys(1, "third")...)
	f.replaceKeys("timestamp", "timestamp-new")
	f.putRoot(signer(t, "second"))
	f.release()
	delete(f.files, "metadata/2.root.json")
	v.refused("2.root.json is missing", f, tuf.WrongKey, "timestamp.json")
	f.files["metadata/2.root.json"] = f.files["metadata/3.root.json"]
	v.refused("3.root.json in its place", f, tuf.WrongKey, "2.root.json")
	f.files["metadata/2.root.json"] = second
	v.ok("all of them", f)
}

// A version is skipped by signers who still have the old keys: it is refused all the same.
func TestRootSkipsVersion(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	f.next("root", "root")
	f.put("2.root.json", sign(t, f.root, f.keys["root"]...))
	v.refused("version 3 as 2.root.json", f, tuf.Tampered, "2.root.json", "version 3, expected 2")
}

// A server cannot keep a machine busy with roots for ever: what one check does not follow, the next does.
func TestManyRoots(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	const rotations = 260
	for range rotations {
		f.next("root")
		f.putRoot()
	}
	f.replaceKeys("timestamp", "timestamp-new")
	f.next("root")
	f.putRoot()
	f.release()
	v.refused("the first 256", f, tuf.WrongKey, "timestamp.json")
	v.ok("the rest", f)
}
