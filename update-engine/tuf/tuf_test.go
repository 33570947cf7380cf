package tuf_test

import (
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/plan"
	"github.com/proa-os/proa/update-engine/repo"
	"github.com/proa-os/proa/update-engine/repotest"
	"github.com/proa-os/proa/update-engine/tuf"
)

// A machine has an anchor and a state folder, and asks a repository in a folder.
type machine struct {
	t      *testing.T
	anchor []byte
	state  string
	now    time.Time
}

func newMachine(t *testing.T, r *repotest.Repo) *machine {
	return &machine{t: t, anchor: r.Root, state: stateDir(t), now: r.Time}
}

func (m *machine) open(dir string) *tuf.Client {
	m.t.Helper()
	server, err := client.FolderURL(dir)
	if err != nil {
		m.t.Fatal(err)
	}
	c, err := tuf.Open(m.t.Context(), tuf.Config{
		Fetcher: &client.Client{Source: client.Folder{}, Retry: client.Retry{Attempts: 1}},
		Server:  server, Anchor: m.anchor, State: m.state, Now: m.now,
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { c.Close() })
	return c
}

// read refreshes and returns the plan of channel stable.
func (m *machine) read(dir string) ([]byte, error) {
	m.t.Helper()
	c := m.open(dir)
	if err := c.Refresh(); err != nil {
		return nil, err
	}
	return c.Read(plan.Target("stable"), 1<<16)
}

func (m *machine) want(what, dir string, reason tuf.Reason, words ...string) {
	m.t.Helper()
	_, err := m.read(dir)
	var refusal *tuf.Refusal
	if !errors.As(err, &refusal) || refusal.Reason != reason {
		m.t.Errorf("%s: got %v, want a refusal: %s", what, err, reason)
		return
	}
	if !next.MatchString(refusal.Detail) {
		m.t.Errorf("%s: %v: it does not say what to do", what, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			m.t.Errorf("%s: the message %q does not say %q", what, err, w)
		}
	}
}

// snapshot copies a repository as it is now.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(stateDir(t), "old")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func edit(t *testing.T, name string, change func(string) string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	after := change(string(b))
	if after == string(b) {
		t.Fatalf("%s: nothing to change", name)
	}
	if err := os.WriteFile(name, []byte(after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestTargets(t *testing.T) {
	r := repotest.New(t)
	b := repotest.NewBuild(t, "1.0.1")
	r.Release(t, b)
	m := newMachine(t, r)
	c := m.open(r.Dir)
	if err := c.Refresh(); err != nil {
		t.Fatal(err)
	}
	text, err := c.Read("releases/1.0.1/amd64/release.json", 1<<20)
	if err != nil || !bytes.Contains(text, []byte(b.Release.Root.RootHash.String())) {
		t.Errorf("release.json: %v", err)
	}
	p, err := c.Target("releases/1.0.1/amd64/full.payload")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(r.Dir, "targets/releases/1.0.1/amd64", p.SHA256.String()+".full.payload"))
	if err != nil || digest.Of(content) != p.SHA256 || int64(len(content)) != p.Size || !strings.HasSuffix(p.URL, p.SHA256.String()+".full.payload") {
		t.Errorf("payload: %+v, %v", p, err)
	}
	if _, err := c.Read("releases/1.0.1/amd64/full.payload", 100); err == nil || !strings.Contains(err.Error(), "at most 100") {
		t.Errorf("a target above the limit: %v", err)
	}
	var refusal *tuf.Refusal
	if _, err := c.Target("releases/9.9.9/amd64/release.json"); !errors.As(err, &refusal) || refusal.Reason != tuf.Unsigned {
		t.Errorf("an unsigned release: %v", err)
	}
}

func TestOtherRepository(t *testing.T) {
	ours, theirs := repotest.New(t), repotest.New(t)
	theirs.Release(t, repotest.NewBuild(t, "1.0.1"))
	newMachine(t, ours).want("somebody else's keys", theirs.Dir, tuf.WrongKey, "refuse timestamp.json", "root.json")
}

func TestTampered(t *testing.T) {
	r := repotest.New(t)
	r.Release(t, repotest.NewBuild(t, "1.0.1"))
	for file, want := range map[string]tuf.Reason{
		"timestamp.json": tuf.Tampered, "2.snapshot.json": tuf.Tampered, "2.targets.json": tuf.Tampered, "2.plan.json": tuf.Tampered,
	} {
		dir := snapshot(t, r.Dir)
		edit(t, filepath.Join(dir, "metadata", file), func(s string) string { return strings.Replace(s, `"version": 2`, `"version": 3`, 1) })
		newMachine(t, r).want("changed "+file, dir, want, "refuse "+file)
		if err := os.WriteFile(filepath.Join(dir, "metadata", file), []byte("<html>captive portal</html>"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := newMachine(t, r).read(dir); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("garbage in %s: got %v", file, err)
		}
		if err := os.Remove(filepath.Join(dir, "metadata", file)); err != nil {
			t.Fatal(err)
		}
		newMachine(t, r).want("missing "+file, dir, tuf.Missing, file)
	}
	dir := snapshot(t, r.Dir)
	files, err := filepath.Glob(filepath.Join(dir, "targets/plan/*.stable.json"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	edit(t, files[0], func(s string) string { return strings.Replace(s, "1.0.1", "1.0.0", 1) })
	newMachine(t, r).want("changed plan", dir, tuf.Tampered, "refuse plan/stable.json", "sha256")
}

func TestExpired(t *testing.T) {
	r := repotest.New(t)
	r.Release(t, repotest.NewBuild(t, "1.0.1"))
	m := newMachine(t, r)
	if _, err := m.read(r.Dir); err != nil {
		t.Fatal(err)
	}
	m.now = r.Time.Add(25 * time.Hour)
	m.want("a day later", r.Dir, tuf.Expired, "timestamp.json", "2026-01-02T12:00:00Z", "2026-01-02T13:00:00Z", "clock")
	r.Time = m.now
	if err := r.Publish("", plan.Plan{}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.read(r.Dir); err != nil {
		t.Errorf("after the desk renewed it: %v", err)
	}
	m.now = r.Time.Add(400 * 24 * time.Hour)
	m.want("root after a year", r.Dir, tuf.Expired, "root.json")
}

func TestRollback(t *testing.T) {
	r := repotest.New(t)
	r.Release(t, repotest.NewBuild(t, "1.0.0"))
	old := snapshot(t, r.Dir)
	r.Release(t, repotest.NewBuild(t, "1.0.1"))
	m := newMachine(t, r)
	if _, err := m.read(r.Dir); err != nil {
		t.Fatal(err)
	}
	m.want("an old copy of the repository", old, tuf.Rollback, "timestamp.json")
	if _, err := m.read(r.Dir); err != nil {
		t.Errorf("the current one after it: %v", err)
	}
	// What was accepted survives damage of the stored files, as far as they are whole.
	if err := os.WriteFile(filepath.Join(m.state, "snapshot.json"), []byte(`{"sig`), 0o644); err != nil {
		t.Fatal(err)
	}
	m.want("an old copy, and damaged state", old, tuf.Rollback)
	if _, err := m.read(r.Dir); err != nil {
		t.Errorf("damaged state: %v", err)
	}
	// A new anchor with the same timestamp key does not forget.
	m.anchor = append(bytes.Clone(m.anchor), '\n')
	m.want("an old copy, and an anchor written anew", old, tuf.Rollback)
}

// Whoever holds the online keys can publish what the offline role has signed, and nothing else.
func TestStolenOnlineKeys(t *testing.T) {
	r := repotest.New(t)
	r.Release(t, repotest.NewBuild(t, "1.0.1"))
	targets := filepath.Join(r.Dir, "metadata/2.targets.json")

	// One of two needed offline signatures.
	original, _ := os.ReadFile(targets)
	strip := func(n int) {
		var m metadata.Metadata[metadata.TargetsType]
		if _, err := m.FromBytes(original); err != nil {
			t.Fatal(err)
		}
		m.Signatures = m.Signatures[:n]
		b, _ := m.ToBytes(true)
		if err := os.WriteFile(targets, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := r.Publish("", plan.Plan{}); err != nil { // new snapshot and timestamp
			t.Fatal(err)
		}
	}
	strip(1)
	newMachine(t, r).want("one signature of two", r.Dir, tuf.TooFewSignatures, "2.targets.json", "1 of the 2")
	strip(0)
	newMachine(t, r).want("no signature", r.Dir, tuf.WrongKey, "2.targets.json")

	// The content changed, the signatures kept.
	if err := os.WriteFile(targets, bytes.Replace(original, []byte(`"length": `), []byte(`"length": 1`), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.Publish("", plan.Plan{}); err != nil {
		t.Fatal(err)
	}
	newMachine(t, r).want("another length", r.Dir, tuf.Tampered, "2.targets.json", "changed after it was signed")

	// Signed with other offline keys.
	other := repotest.New(t)
	d := *r.Desk
	d.Keys = mixed{online: r.Keys, offline: other.Keys}
	if err := os.WriteFile(targets, original, 0o644); err != nil {
		t.Fatal(err)
	}
	resign(t, targets, other.Keys)
	if err := d.Publish("", plan.Plan{}); err != nil {
		t.Fatal(err)
	}
	newMachine(t, r).want("a stranger's offline keys", r.Dir, tuf.WrongKey, "2.targets.json")
}

// A plan can name what it wants: the release is not there. Nor does a release count that the plan role itself has signed.
func TestPlanNamesUnsignedRelease(t *testing.T) {
	r := repotest.New(t)
	r.Release(t, repotest.NewBuild(t, "1.0.1"))
	if err := r.Publish("stable", plan.Plan{Release: "6.6.6"}); err != nil {
		t.Fatal(err)
	}
	name := "releases/6.6.6/amd64/release.json"
	evil, err := metadata.TargetFile().FromBytes(name, []byte("evil"), "sha256")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(r.Dir, "metadata/3.plan.json")
	var m metadata.Metadata[metadata.TargetsType]
	b, _ := os.ReadFile(file)
	if _, err := m.FromBytes(b); err != nil {
		t.Fatal(err)
	}
	m.Signed.Targets[name] = evil
	m.ClearSignatures()
	signers, err := r.Keys.Signers("plan")
	if err != nil {
		t.Fatal(err)
	}
	signTargets(t, &m, signers[:1])
	b, _ = m.ToBytes(true)
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.Publish("", plan.Plan{}); err != nil {
		t.Fatal(err)
	}
	c := newMachine(t, r).open(r.Dir)
	if err := c.Refresh(); err != nil {
		t.Fatal(err)
	}
	if p, err := c.Read(plan.Target("stable"), 1<<16); err != nil || !bytes.Contains(p, []byte("6.6.6")) {
		t.Fatalf("plan: %s, %v", p, err)
	}
	var refusal *tuf.Refusal
	if _, err := c.Read(name, 1<<16); !errors.As(err, &refusal) || refusal.Reason != tuf.Unsigned || refusal.File != name {
		t.Errorf("got %v, want: not signed", err)
	}
}

func TestEndlessMetadata(t *testing.T) {
	r := repotest.New(t)
	if err := os.WriteFile(filepath.Join(r.Dir, "metadata/timestamp.json"), bytes.Repeat([]byte(" "), 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := newMachine(t, r).read(r.Dir); err == nil || !strings.Contains(err.Error(), "at most 16384 bytes") || !next.MatchString(err.Error()) {
		t.Errorf("got %v", err)
	}
}

func TestAnchorIsNoMetadata(t *testing.T) {
	for _, anchor := range []string{"", "{}", "garbage", `{"signed":{"_type":"root"},"signatures":[]}`} {
		_, err := tuf.Open(t.Context(), tuf.Config{Anchor: []byte(anchor), State: t.TempDir(), Server: "file:///nowhere", Now: time.Now()})
		if err == nil || !strings.Contains(err.Error(), "root.json") {
			t.Errorf("anchor %q: got %v", anchor, err)
		}
	}
}

func signTargets(t *testing.T, m *metadata.Metadata[metadata.TargetsType], keys []crypto.Signer) {
	t.Helper()
	for _, k := range keys {
		s, err := repo.Signer(k)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Sign(s); err != nil {
			t.Fatal(err)
		}
	}
}

type mixed struct{ online, offline repo.Keyring }

func (m mixed) PublicKeys(role string) ([]*metadata.Key, error) { return m.online.PublicKeys(role) }

func (m mixed) Signers(role string) ([]crypto.Signer, error) {
	if role == metadata.TARGETS {
		return m.offline.Signers(role)
	}
	return m.online.Signers(role)
}

func resign(t *testing.T, file string, keys repo.Keyring) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var m metadata.Metadata[metadata.TargetsType]
	if _, err := m.FromBytes(b); err != nil {
		t.Fatal(err)
	}
	m.ClearSignatures()
	signers, err := keys.Signers(metadata.TARGETS)
	if err != nil {
		t.Fatal(err)
	}
	signTargets(t, &m, signers)
	b, _ = m.ToBytes(true)
	if !json.Valid(b) {
		t.Fatal("not JSON")
	}
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Whatever rots in the stored metadata, an honest repository brings the machine on again.
func TestDamagedState(t *testing.T) {
	r := repotest.New(t)
	r.Release(t, repotest.NewBuild(t, "1.0.1"))
	m := newMachine(t, r)
	if _, err := m.read(r.Dir); err != nil {
		t.Fatal(err)
	}
	whole := snapshot(t, m.state)
	for _, name := range []string{"root.json", "timestamp.json", "snapshot.json", "targets.json", "plan.json", "anchor"} {
		b, err := os.ReadFile(filepath.Join(whole, name))
		if err != nil {
			t.Fatal(err)
		}
		step := max(1, len(b)/20)
		for at := 0; at < len(b); at += step {
			m.state = snapshot(t, whole)
			bad := bytes.Clone(b)
			bad[at] ^= 1 << (at % 8)
			if err := os.WriteFile(filepath.Join(m.state, name), bad, 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := m.read(r.Dir); err != nil {
				t.Fatalf("%s, byte %d (%.20q became %.20q): %v", name, at, b[at:], bad[at:], err)
			}
		}
	}
}
