package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/plan"
)

type (
	rootMeta      = metadata.Metadata[metadata.RootType]
	targetsMeta   = metadata.Metadata[metadata.TargetsType]
	snapshotMeta  = metadata.Metadata[metadata.SnapshotType]
	timestampMeta = metadata.Metadata[metadata.TimestampType]
)

const stagedTargets = "staged/targets.json"

// staged returns the metadata that waits for signatures: what was staged before, or the next version of the published one.
func (d *Desk) staged() (*targetsMeta, error) {
	t, err := load[metadata.TargetsType](d, stagedTargets)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return t, err
	}
	if t, err = current[metadata.TargetsType](d, metadata.TARGETS); err != nil {
		return nil, err
	}
	t.Signed.Version++
	t.Signed.Expires = d.expires(targetsExpires)
	return t, nil
}

func (d *Desk) writeStaged(t *targetsMeta) error {
	b, err := t.ToBytes(true)
	if err != nil {
		return fmt.Errorf("stage: %w", err)
	}
	return d.write(stagedTargets, b)
}

// Sign adds the signatures of the offline keys at hand to what is staged, and returns how many of how many it has.
func (d *Desk) Sign() (have, needed int, err error) {
	t, err := load[metadata.TargetsType](d, stagedTargets)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, fmt.Errorf("sign: nothing is staged: run release stage first")
	}
	if err != nil {
		return 0, 0, err
	}
	root, err := current[metadata.RootType](d, metadata.ROOT)
	if err != nil {
		return 0, 0, err
	}
	signers, err := d.Keys.Signers(metadata.TARGETS)
	if err != nil {
		return 0, 0, err
	}
	role := root.Signed.Roles[metadata.TARGETS]
	if _, err := signWith(t, signers, role.KeyIDs); err != nil {
		return 0, 0, fmt.Errorf("sign releases: %w", err)
	}
	return len(t.Signatures), role.Threshold, d.writeStaged(t)
}

// Publish makes what is staged current, if anything is, and the plan of the channel with it, unless channel is empty. Without
// either it only renews what expires soon: the snapshot and the timestamp.
func (d *Desk) Publish(channel string, p plan.Plan) error {
	root, err := current[metadata.RootType](d, metadata.ROOT)
	if err != nil {
		return err
	}
	if err := d.publishTargets(root); err != nil {
		return err
	}
	if err := d.publishPlan(channel, p); err != nil {
		return err
	}
	return d.publishSnapshot(root)
}

// Versions lists the releases that are published or staged.
func (d *Desk) Versions() ([]string, error) {
	t, err := d.staged()
	if err != nil {
		return nil, err
	}
	var versions []string
	for name := range t.Signed.Targets {
		if parts := strings.Split(name, "/"); len(parts) == 4 && parts[0] == "releases" && parts[3] == "release.json" && !slices.Contains(versions, parts[1]) {
			versions = append(versions, parts[1])
		}
	}
	slices.Sort(versions)
	return versions, nil
}

// publishTargets moves the staged metadata to its place if it has the signatures.
func (d *Desk) publishTargets(root *rootMeta) error {
	if _, err := os.Stat(d.path(stagedTargets)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	have, needed, err := d.Sign()
	if err != nil {
		return err
	}
	t, err := load[metadata.TargetsType](d, stagedTargets)
	if err != nil {
		return err
	}
	if err := root.VerifyDelegate(metadata.TARGETS, t); err != nil {
		return fmt.Errorf("publish: the staged releases have %d of %d needed signatures: run release sign where the other keys are", have, needed)
	}
	b, err := t.ToBytes(true)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if err := d.write(fmt.Sprintf("metadata/%d.targets.json", t.Signed.Version), b); err != nil {
		return err
	}
	if err := os.Remove(d.path(stagedTargets)); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// publishPlan signs the next version of the plan role, with the channel's plan exchanged.
func (d *Desk) publishPlan(channel string, p plan.Plan) error {
	targets, err := current[metadata.TargetsType](d, metadata.TARGETS)
	if err != nil {
		return err
	}
	version, err := d.currentVersion(rolePlan)
	if err != nil {
		return err
	}
	next := metadata.Targets(d.expires(planExpires))
	if version > 0 {
		if next, err = current[metadata.TargetsType](d, rolePlan); err != nil {
			return err
		}
	}
	next.Signed.Version, next.Signed.Expires = version+1, d.expires(planExpires)
	if channel != "" {
		p.Channel = channel
		if err := d.addPlan(next, p); err != nil {
			return err
		}
	}
	if targets.Signed.Delegations == nil || len(targets.Signed.Delegations.Roles) != 1 {
		return fmt.Errorf("publish plan: the releases metadata does not delegate to %s alone", rolePlan)
	}
	role := targets.Signed.Delegations.Roles[0]
	if err := signAll(d, next, rolePlan, role.KeyIDs, role.Threshold); err != nil {
		return err
	}
	b, err := next.ToBytes(true)
	if err != nil {
		return fmt.Errorf("publish plan: %w", err)
	}
	return d.write(fmt.Sprintf("metadata/%d.plan.json", next.Signed.Version), b)
}

func (d *Desk) addPlan(role *targetsMeta, p plan.Plan) error {
	b, err := p.Marshal()
	if err != nil {
		return fmt.Errorf("publish plan: %w", err)
	}
	name := plan.Target(p.Channel)
	return d.addTarget(role, name, b)
}

// addTarget writes a small target and notes it in role.
func (d *Desk) addTarget(role *targetsMeta, name string, b []byte) error {
	info, err := metadata.TargetFile().FromBytes(name, b, "sha256")
	if err != nil {
		return fmt.Errorf("add target %s: %w", name, err)
	}
	role.Signed.Targets[name] = info
	return d.write(targetFile(name, digest.Of(b)), b)
}

// targetFile is the place of a target's bytes, which the hash in its name makes unchangeable.
func targetFile(name string, sum digest.SHA256) string {
	dir, base := path.Split(name)
	return "targets/" + dir + sum.String() + "." + base
}

// publishSnapshot writes the next snapshot, and at the very end the timestamp that makes all of it visible.
func (d *Desk) publishSnapshot(root *rootMeta) error {
	version, err := d.currentVersion(metadata.SNAPSHOT)
	if err != nil {
		return err
	}
	snapshot := metadata.Snapshot(d.expires(snapshotExpires))
	snapshot.Signed.Version = version + 1
	for _, role := range []string{metadata.TARGETS, rolePlan} {
		n, err := d.currentVersion(role)
		if err != nil {
			return err
		}
		if snapshot.Signed.Meta[role+".json"], err = d.describe(fmt.Sprintf("metadata/%d.%s.json", n, role), n); err != nil {
			return err
		}
	}
	if err := signAll(d, snapshot, metadata.SNAPSHOT, root.Signed.Roles[metadata.SNAPSHOT].KeyIDs, 1); err != nil {
		return err
	}
	b, err := snapshot.ToBytes(true)
	if err != nil {
		return fmt.Errorf("publish snapshot: %w", err)
	}
	name := fmt.Sprintf("metadata/%d.snapshot.json", snapshot.Signed.Version)
	if err := d.write(name, b); err != nil {
		return err
	}
	return d.publishTimestamp(root, name, snapshot.Signed.Version)
}

func (d *Desk) publishTimestamp(root *rootMeta, snapshot string, version int64) error {
	timestamp := metadata.Timestamp(d.expires(timestampExpires))
	timestamp.Signed.Version = version // one timestamp a snapshot
	info, err := d.describe(snapshot, version)
	if err != nil {
		return err
	}
	timestamp.Signed.Meta["snapshot.json"] = info
	if err := signAll(d, timestamp, metadata.TIMESTAMP, root.Signed.Roles[metadata.TIMESTAMP].KeyIDs, 1); err != nil {
		return err
	}
	b, err := timestamp.ToBytes(true)
	if err != nil {
		return fmt.Errorf("publish timestamp: %w", err)
	}
	return d.write("metadata/timestamp.json", b)
}

// describe is a metadata file as the role above it names it: version, length and hash.
func (d *Desk) describe(name string, version int64) (*metadata.MetaFiles, error) {
	b, err := os.ReadFile(d.path(name))
	if err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	sum := digest.Of(b)
	info := metadata.MetaFile(version)
	info.Length = int64(len(b))
	info.Hashes = metadata.Hashes{"sha256": sum[:]}
	return info, nil
}
