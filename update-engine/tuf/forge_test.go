package tuf_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/tuf"
)

// A forge is a repository whose keys are all at hand, so that each file can be what an attacker with some of them could make of it. Roles
// need two signatures offline (root, targets) and one online. It is a tuf.Fetcher, and notes what is asked.
type forge struct {
	t         testing.TB
	keys      map[string][]signature.Signer
	root      *metadata.Metadata[metadata.RootType]
	timestamp *metadata.Metadata[metadata.TimestampType]
	snapshot  *metadata.Metadata[metadata.SnapshotType]
	targets   *metadata.Metadata[metadata.TargetsType]
	plan      *metadata.Metadata[metadata.TargetsType]
	files     map[string][]byte // by path below the server
	tags      bool              // answers have entity tags, their hashes
	asked     []string
}

var (
	start       = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	releaseName = "releases/1.0.0/amd64/release.json"
	planName    = "plan/stable.json"
)

const memory = "mem://repo"

func signer(t testing.TB, name string) signature.Signer {
	t.Helper()
	seed := digest.Of([]byte(name))
	s, err := signature.LoadED25519Signer(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func public(t testing.TB, s signature.Signer) *metadata.Key {
	t.Helper()
	pub, err := s.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	k, err := metadata.KeyFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func keyID(t testing.TB, s signature.Signer) string {
	t.Helper()
	id, err := public(t, s).ID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// newForge is a repository with release 1.0.0 on channel stable; everything is version 1.
func newForge(t testing.TB) *forge {
	t.Helper()
	f := &forge{t: t, keys: map[string][]signature.Signer{}, files: map[string][]byte{}}
	year, week, day := start.AddDate(1, 0, 0), start.AddDate(0, 0, 7), start.AddDate(0, 0, 1)
	f.root, f.targets, f.plan = metadata.Root(year), metadata.Targets(year), metadata.Targets(week)
	f.snapshot, f.timestamp = metadata.Snapshot(week), metadata.Timestamp(day)
	f.targets.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{},
		Roles: []metadata.DelegatedRole{{Name: "plan", KeyIDs: []string{}, Threshold: 1, Terminating: true, Paths: []string{"plan/*"}}}}
	for role, n := range map[string]int{"root": 3, "targets": 3, "snapshot": 1, "timestamp": 1, "plan": 1} {
		for i := range n {
			f.addKey(role, fmt.Sprintf("%s-%d", role, i+1))
		}
	}
	f.root.Signed.Roles["root"].Threshold, f.root.Signed.Roles["targets"].Threshold = 2, 2
	f.add(f.targets, releaseName, []byte("the release"))
	f.add(f.plan, planName, []byte("the plan"))
	f.putRoot()
	f.publish()
	return f
}

// addKey makes a key and trusts it for a role.
func (f *forge) addKey(role, name string) signature.Signer {
	f.t.Helper()
	s := signer(f.t, name)
	f.keys[role] = append(f.keys[role], s)
	var err error
	if role == "plan" {
		err = f.targets.Signed.AddKey(public(f.t, s), role)
	} else {
		err = f.root.Signed.AddKey(public(f.t, s), role)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// replaceKeys gives a role of the root one new key.
func (f *forge) replaceKeys(role, name string) {
	f.t.Helper()
	for _, id := range slices.Clone(f.root.Signed.Roles[role].KeyIDs) {
		if err := f.root.Signed.RevokeKey(id, role); err != nil {
			f.t.Fatal(err)
		}
	}
	f.keys[role] = nil
	f.addKey(role, name)
}

// add puts a target into the repository and its role.
func (f *forge) add(m *metadata.Metadata[metadata.TargetsType], name string, b []byte) {
	f.t.Helper()
	info, err := metadata.TargetFile().FromBytes(name, b, "sha256")
	if err != nil {
		f.t.Fatal(err)
	}
	m.Signed.Targets[name] = info
	dir, base := path.Split(name)
	f.files["targets/"+dir+digest.Of(b).String()+"."+base] = b
}

// sign returns the bytes of m with the signatures of exactly these keys.
func sign[T metadata.Roles](t testing.TB, m *metadata.Metadata[T], signers ...signature.Signer) []byte {
	t.Helper()
	m.ClearSignatures()
	for _, s := range signers {
		if _, err := m.Sign(s); err != nil {
			t.Fatal(err)
		}
	}
	b, err := m.ToBytes(true)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (f *forge) put(name string, b []byte) { f.files["metadata/"+name] = b }

// putRoot signs the root with its own keys and those of with.
func (f *forge) putRoot(with ...signature.Signer) {
	f.put(fmt.Sprintf("%d.root.json", f.root.Signed.Version), sign(f.t, f.root, append(slices.Clone(f.keys["root"]), with...)...))
}

// publish signs everything as it is and lets timestamp and snapshot name it.
func (f *forge) publish() {
	f.t.Helper()
	f.putTargets(sign(f.t, f.targets, f.keys["targets"]...), sign(f.t, f.plan, f.keys["plan"]...))
}

// putTargets publishes bytes for the two roles as if they were whole, by the online keys.
func (f *forge) putTargets(targets, plan []byte) {
	f.t.Helper()
	f.put(fmt.Sprintf("%d.targets.json", f.targets.Signed.Version), targets)
	f.put(fmt.Sprintf("%d.plan.json", f.plan.Signed.Version), plan)
	f.snapshot.Signed.Meta = map[string]*metadata.MetaFiles{
		"targets.json": describe(f.targets.Signed.Version, targets), "plan.json": describe(f.plan.Signed.Version, plan),
	}
	f.putSnapshot(sign(f.t, f.snapshot, f.keys["snapshot"]...))
}

// putSnapshot publishes bytes as snapshot, by the timestamp's keys.
func (f *forge) putSnapshot(b []byte) {
	f.t.Helper()
	f.put(fmt.Sprintf("%d.snapshot.json", f.snapshot.Signed.Version), b)
	f.timestamp.Signed.Meta["snapshot.json"] = describe(f.snapshot.Signed.Version, b)
	f.put("timestamp.json", sign(f.t, f.timestamp, f.keys["timestamp"]...))
}

func describe(version int64, b []byte) *metadata.MetaFiles {
	sum := digest.Of(b)
	return &metadata.MetaFiles{Version: version, Length: int64(len(b)), Hashes: metadata.Hashes{"sha256": sum[:]}}
}

// next raises the versions of the named roles.
func (f *forge) next(roles ...string) {
	for _, r := range roles {
		switch r {
		case "root":
			f.root.Signed.Version++
		case "timestamp":
			f.timestamp.Signed.Version++
		case "snapshot":
			f.snapshot.Signed.Version++
		case "targets":
			f.targets.Signed.Version++
		case "plan":
			f.plan.Signed.Version++
		}
	}
}

// release publishes the next version of everything but the root.
func (f *forge) release() {
	f.next("timestamp", "snapshot", "targets", "plan")
	f.publish()
}

// Get implements tuf.Fetcher.
func (f *forge) Get(_ context.Context, url string, limit int64, tag string, accept func([]byte, string) error) error {
	name := strings.TrimPrefix(url, memory+"/")
	f.asked = append(f.asked, name)
	b, ok := f.files[name]
	if !ok {
		return fmt.Errorf("%s: %w", url, fs.ErrNotExist)
	}
	if int64(len(b)) > limit {
		return fmt.Errorf("%s: at most %d bytes are taken", url, limit)
	}
	newTag := ""
	if f.tags {
		newTag = digest.Of(b).String()
	}
	if tag != "" && tag == newTag {
		return accept(nil, tag)
	}
	return accept(bytes.Clone(b), newTag)
}

// A visitor is a machine that asks a forge.
type visitor struct {
	t      testing.TB
	anchor []byte
	state  string
	now    time.Time
}

func (f *forge) visitor() *visitor {
	return &visitor{t: f.t, anchor: f.files["metadata/1.root.json"], state: stateDir(f.t), now: start}
}

// stateDir is a folder in memory, where fsync is cheap, if there is one.
func stateDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "proa-tuf-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (v *visitor) open(f tuf.Fetcher) *tuf.Client {
	v.t.Helper()
	c, err := tuf.Open(v.t.Context(), tuf.Config{Fetcher: f, Server: memory, Anchor: v.anchor, State: v.state, Now: v.now})
	if err != nil {
		v.t.Fatal(err)
	}
	return c
}

// read refreshes and reads the plan and the release.
func (v *visitor) read(f tuf.Fetcher) error {
	v.t.Helper()
	c := v.open(f)
	defer c.Close()
	for _, name := range []string{planName, releaseName} {
		if _, err := c.Read(name, 1<<20); err != nil {
			return err
		}
	}
	return nil
}

func (v *visitor) ok(what string, f tuf.Fetcher) {
	v.t.Helper()
	if err := v.read(f); err != nil {
		v.t.Errorf("%s: %v", what, err)
	}
}

// next is what a refusal ends with: something to do for whoever runs the machine, or the repository.
var next = regexp.MustCompile(`ask another server|see server and proxy in the configuration|correct the (server|channel) in the configuration|timedatectl|` +
	`release (sign|refresh|renew|publish|plan)\b|stage, sign and publish|update in smaller steps`)

// refused reads and compares the refusal's reason, file and words.
func (v *visitor) refused(what string, f tuf.Fetcher, reason tuf.Reason, file string, words ...string) {
	v.t.Helper()
	err := v.read(f)
	var r *tuf.Refusal
	if !errors.As(err, &r) || r.Reason != reason || r.File != file {
		v.t.Errorf("%s: got %v, want: refuse %s: %s", what, err, file, reason)
		return
	}
	if !next.MatchString(r.Detail) {
		v.t.Errorf("%s: %v: it does not say what to do", what, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			v.t.Errorf("%s: the message %q does not say %q", what, err, w)
		}
	}
}

// copy is the repository with files of its own. The roles are shared: what is changed of them is signed again.
func (f *forge) copy() *forge {
	c := *f
	c.files = maps.Clone(f.files)
	return &c
}
