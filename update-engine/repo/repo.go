// Package repo is the release desk: it makes and maintains the signed repository from which machines update.
//
// A repository is a folder of static files, an update as seen from the other side: Stage puts a build's payloads and
// release.json into targets/ and notes them in the next version of the offline role's metadata; Sign adds
// signatures to it, on as many desks as the threshold asks for; PublishStaged makes it current together with the plan of a channel, a
// snapshot and a timestamp; Refresh renews what expires. package tuf is the other end and says who may sign what.
//
//	metadata/N.root.json N.targets.json N.plan.json N.snapshot.json timestamp.json
//	targets/releases/1.0.1/amd64/<sha256>.release.json
//	targets/releases/1.0.1/amd64/<sha256>.full.payload
//	targets/releases/1.0.1/amd64/<sha256>.from-1.0.0.payload
//	targets/plan/<sha256>.stable.json
//	staged/request.json                              not served: what waits for signatures (see Request)
//	.lock                                            not served: held while a command writes
//	.push.lock                                       not served: held while one is pushed to a registry
//
// # Invariants
//
// A file that was ever published is never changed or removed, but for timestamp.json, which is replaced in one step; so a client that
// reads while we write sees the old state or the new one. What is published is what timestamp.json leads to, and every N.root.json. A
// power cut or a full disk at any write leaves one of the two states (see change). Two desks never write at the same time.
//
// Old builds are not kept: what a delta needs of a release is made again by applying its full payload, whose outputs the signed release.json
// names by hash, so it is the exact bytes or an error.
//
// Metadata follows the TUF specification 1.0.31 with consistent snapshots and ed25519 keys, written by go-tuf, readable by any TUF client.
package repo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/proa-os/proa/update-engine/payload"
)

// rolePlan is the delegated online role.
const rolePlan = "plan"

// Roles are those that have keys, the offline ones first.
var Roles = []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP, rolePlan}

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
	// Packer packs payloads; nil for the fast one.
	Packer payload.Packer
	// DryRun lets every command do all but write.
	DryRun bool
	// Careless lets the desk sign and publish what it finds without looking. Tests use it to be the coerced desk or the thief of its
	// keys, whom machines must survive.
	Careless bool

	on disk // nil: the folder Dir
}

func (d *Desk) disk() disk {
	if d.on != nil {
		return d.on
	}
	return folder(d.Dir)
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
	d := &Desk{Dir: dir, Keys: keys, Now: func() time.Time { return now }}
	if err := d.mustBeEmpty(); err != nil {
		return nil, err
	}
	for _, role := range Roles {
		n := 1
		if role == metadata.ROOT || role == metadata.TARGETS {
			n = offline.Keys
		}
		if have, err := keys.PublicKeys(role); err != nil {
			return nil, err
		} else if len(have) > 0 {
			return nil, fmt.Errorf("make repository: %s has keys of role %s already: keys are never overwritten, choose an empty folder", keys, role)
		}
		if _, err := keys.NewKeys(role, n); err != nil {
			return nil, err
		}
	}
	public, err := publicByRole(keys)
	if err != nil {
		return nil, err
	}
	if err := d.Found(public, offline.Needed); err != nil {
		return nil, err
	}
	if _, err := d.PublishStaged(nil); err != nil {
		return nil, err
	}
	return os.ReadFile(d.path(metaFile(1, metadata.ROOT)))
}

// publicByRole is every role's public keys.
func publicByRole(keys Keyring) (map[string][]*metadata.Key, error) {
	all := map[string][]*metadata.Key{}
	for _, role := range Roles {
		public, err := keys.PublicKeys(role)
		if err != nil {
			return nil, err
		}
		if len(public) == 0 {
			return nil, fmt.Errorf("make repository: %s has no key of role %s: make one with release keys new --role %[2]s --out %[1]s, or copy a %[2]s-*.pub there", keys, role)
		}
		all[role] = public
	}
	return all, nil
}

// FoundWith founds a repository with the public keys of a keyring, see Found.
func (d *Desk) FoundWith(keys Keyring, needed int) error {
	public, err := publicByRole(keys)
	if err != nil {
		return err
	}
	return d.Found(public, needed)
}

// Found stages the first root and an empty releases metadata. Only public keys are needed; the offline ones sign afterwards. Of root and
// targets, needed keys must sign; of the online roles, one.
func (d *Desk) Found(public map[string][]*metadata.Key, needed int) error {
	if err := d.mustBeEmpty(); err != nil {
		return err
	}
	root := metadata.Root(d.expires(rootExpires))
	root.Signed.ConsistentSnapshot = true
	for _, role := range Roles[:4] {
		for _, k := range public[role] {
			if err := root.Signed.AddKey(k, role); err != nil {
				return fmt.Errorf("make repository: role %s: %w", role, err)
			}
		}
	}
	root.Signed.Roles[metadata.ROOT].Threshold, root.Signed.Roles[metadata.TARGETS].Threshold = needed, needed
	targets := metadata.Targets(d.expires(targetsExpires))
	targets.Signed.Delegations = &metadata.Delegations{
		Keys:  map[string]*metadata.Key{},
		Roles: []metadata.DelegatedRole{{Name: rolePlan, KeyIDs: []string{}, Threshold: 1, Terminating: true, Paths: []string{"plan/*"}}},
	}
	for _, k := range public[rolePlan] {
		if err := targets.Signed.AddKey(k, rolePlan); err != nil {
			return fmt.Errorf("make repository: role %s: %w", rolePlan, err)
		}
	}
	r := &Request{Root: root, Targets: targets}
	if err := r.sound(); err != nil {
		return fmt.Errorf("make repository: %w", err)
	}
	if d.DryRun {
		return nil
	}
	for _, sub := range []string{"metadata", "targets", "staged"} {
		if err := d.makeDirs(sub); err != nil {
			return err
		}
	}
	c := d.change()
	if err := c.stage(r); err != nil {
		return err
	}
	return c.commit()
}

func (d *Desk) mustBeEmpty() error {
	files, err := os.ReadDir(d.Dir)
	if err == nil && len(files) > 0 {
		return fmt.Errorf("make repository: %s is not empty: choose an empty folder", d.Dir)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
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
