// Package repo is the release desk: it makes and maintains the signed repository from which machines update.
//
// A repository is a folder of static files, an update as seen from the other side: Stage puts a build's payload and
// release.json into targets/ and notes them in the next version of the offline role's metadata; Sign adds
// signatures to it, on as many desks as the threshold asks for; Publish makes it current together with the plan of a channel, a
// snapshot and a timestamp. package tuf is the other end and says who may sign what.
//
//	metadata/N.root.json N.targets.json N.plan.json N.snapshot.json timestamp.json
//	targets/releases/1.0.1/amd64/<sha256>.release.json
//	targets/releases/1.0.1/amd64/<sha256>.full.payload
//	targets/plan/<sha256>.stable.json
//	staged/targets.json                              not served: what waits for signatures
//
// Invariants: a file that was ever published is never changed or removed, but for timestamp.json, which is replaced
// last and in one step; so a client that reads while we write sees the old state or the new one. Metadata
// follows the TUF specification 1.0.31 with consistent snapshots and ed25519 keys, written by go-tuf, readable by any TUF client.
package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/update-engine/plan"
)

// rolePlan is the delegated online role.
const rolePlan = "plan"

// How long metadata is valid.
const (
	day              = 24 * time.Hour
	timestampExpires = day
	snapshotExpires  = 7 * day
	planExpires      = 7 * day
	targetsExpires   = 365 * day
	rootExpires      = 365 * day
)

// A Desk works on one repository with the keys at hand.
type Desk struct {
	Dir  string
	Keys Keyring
	Now  func() time.Time
	// Progress is told about long steps; total is 0 when unknown. It may be nil.
	Progress func(stage string, done, total int64)
}

// Thresholds says how many signatures the offline roles need, and how many keys are made for each.
type Thresholds struct {
	Keys, Needed int
}

// Init makes keys and an empty repository, and returns the bytes of root.json, which machines are given as trust anchor.
func Init(dir string, keys KeyDir, offline Thresholds, now time.Time) ([]byte, error) {
	if offline.Needed < 1 || offline.Keys < offline.Needed {
		return nil, fmt.Errorf("make repository: %d of %d signatures cannot be", offline.Needed, offline.Keys)
	}
	if files, err := os.ReadDir(dir); err == nil && len(files) > 0 {
		return nil, fmt.Errorf("make repository: %s is not empty: choose an empty folder", dir)
	}
	for role, n := range map[string]int{
		metadata.ROOT: offline.Keys, metadata.TARGETS: offline.Keys, metadata.SNAPSHOT: 1, metadata.TIMESTAMP: 1, rolePlan: 1,
	} {
		if err := keys.NewKeys(role, n); err != nil {
			return nil, err
		}
	}
	return InitWith(&Desk{Dir: dir, Keys: keys, Now: func() time.Time { return now }}, offline.Needed)
}

// InitWith makes an empty repository with keys that exist.
func InitWith(d *Desk, needed int) ([]byte, error) {
	for _, sub := range []string{"metadata", "targets", "staged"} {
		if err := os.MkdirAll(filepath.Join(d.Dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("make repository: %w", err)
		}
	}
	root := metadata.Root(d.expires(rootExpires))
	root.Signed.ConsistentSnapshot = true
	for role, threshold := range map[string]int{metadata.ROOT: needed, metadata.TARGETS: needed, metadata.SNAPSHOT: 1, metadata.TIMESTAMP: 1} {
		keys, err := d.publicKeys(role)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			if err := root.Signed.AddKey(k, role); err != nil {
				return nil, fmt.Errorf("make repository: role %s: %w", role, err)
			}
		}
		root.Signed.Roles[role].Threshold = threshold
	}
	if err := signAll(d, root, metadata.ROOT, root.Signed.Roles[metadata.ROOT].KeyIDs, needed); err != nil {
		return nil, err
	}
	b, err := root.ToBytes(true)
	if err != nil {
		return nil, fmt.Errorf("make repository: %w", err)
	}
	if err := d.write("metadata/1.root.json", b); err != nil {
		return nil, err
	}
	targets, err := d.emptyTargets()
	if err != nil {
		return nil, err
	}
	if err := d.writeStaged(targets); err != nil {
		return nil, err
	}
	return b, d.Publish("", plan.Plan{})
}

// emptyTargets is the first version of the offline role: no releases, and the delegation of plan/*.
func (d *Desk) emptyTargets() (*metadata.Metadata[metadata.TargetsType], error) {
	targets := metadata.Targets(d.expires(targetsExpires))
	targets.Signed.Delegations = &metadata.Delegations{
		Keys:  map[string]*metadata.Key{},
		Roles: []metadata.DelegatedRole{{Name: rolePlan, KeyIDs: []string{}, Threshold: 1, Terminating: true, Paths: []string{"plan/*"}}},
	}
	keys, err := d.publicKeys(rolePlan)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if err := targets.Signed.AddKey(k, rolePlan); err != nil {
			return nil, fmt.Errorf("make repository: role %s: %w", rolePlan, err)
		}
	}
	return targets, nil
}

func (d *Desk) publicKeys(role string) ([]*metadata.Key, error) {
	signers, err := d.Keys.Signers(role)
	if err != nil {
		return nil, err
	}
	if len(signers) == 0 {
		return nil, fmt.Errorf("no key of role %s at hand: expected a file %s-1.pem in the key folder", role, role)
	}
	return publicKeys(signers)
}

func (d *Desk) expires(after time.Duration) time.Time {
	return d.Now().UTC().Add(after).Truncate(time.Second)
}

func (d *Desk) progress(stage string, done, total int64) {
	if d.Progress != nil {
		d.Progress(stage, done, total)
	}
}

// path is the place of a name with slashes in the repository.
func (d *Desk) path(name string) string { return filepath.Join(d.Dir, filepath.FromSlash(name)) }

func (d *Desk) write(name string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(d.path(name)), 0o755); err != nil {
		return fmt.Errorf("write repository: %w", err)
	}
	return durable.WritePath(d.path(name), b, 0o644)
}

// signAll signs as one of the desks; it is an error when the keys at hand are fewer than needed.
func signAll[T metadata.Roles](d *Desk, m *metadata.Metadata[T], role string, keyIDs []string, needed int) error {
	signers, err := d.Keys.Signers(role)
	if err != nil {
		return err
	}
	m.ClearSignatures()
	n, err := signWith(m, signers, keyIDs)
	if err != nil {
		return fmt.Errorf("sign %s: %w", role, err)
	}
	if n < needed {
		return fmt.Errorf("sign %s: %d of %d needed keys at hand: put %s-<n>.pem into the key folder", role, n, needed, role)
	}
	return nil
}

// current loads the newest published version of a role; name is "root", "targets", "plan" or "snapshot".
func current[T metadata.Roles](d *Desk, role string) (*metadata.Metadata[T], error) {
	version, err := d.currentVersion(role)
	if err != nil {
		return nil, err
	}
	return load[T](d, fmt.Sprintf("metadata/%d.%s.json", version, role))
}

func load[T metadata.Roles](d *Desk, name string) (*metadata.Metadata[T], error) {
	b, err := os.ReadFile(d.path(name))
	if err != nil {
		return nil, fmt.Errorf("read repository: %w", err)
	}
	m, err := (&metadata.Metadata[T]{}).FromBytes(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.path(name), err)
	}
	return m, nil
}

// currentVersion is the highest N of N.<role>.json; 0 when there is none.
func (d *Desk) currentVersion(role string) (int64, error) {
	entries, err := os.ReadDir(d.path("metadata"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%s is no repository: make one with release init", d.Dir)
	}
	if err != nil {
		return 0, fmt.Errorf("read repository: %w", err)
	}
	var newest int64
	for _, e := range entries {
		number, ok := strings.CutSuffix(e.Name(), "."+role+".json")
		if n, err := strconv.ParseInt(number, 10, 64); ok && err == nil {
			newest = max(newest, n)
		}
	}
	return newest, nil
}
