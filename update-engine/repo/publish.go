package repo

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/plan"
)

// A Publication says what became visible.
type Publication struct {
	Files   []Written `json:"files"` // in the order in which they were written
	Root    int64     `json:"root_version,omitempty"`
	Targets int64     `json:"targets_version,omitempty"`
	Plan    int64     `json:"plan_version,omitempty"`
	// Until is when the timestamp expires: machines refuse the repository from then on.
	Until time.Time `json:"timestamp_expires"`
	// Channel is the plan that was changed, if one was.
	Channel *plan.Plan `json:"channel,omitempty"`
	// Gap is set if a reader between two writes is refused once: the old keys did not sign the new metadata.
	Gap bool `json:"gap,omitempty"`
}

// Publish makes what is staged current, if anything is, and this plan for the channel with it, whatever it names, unless channel is empty.
func (d *Desk) Publish(channel string, p plan.Plan) error {
	_, err := d.publishStaged(func(*published, *Request) (*plan.Plan, error) {
		p.Channel = channel
		if channel == "" {
			return nil, nil
		}
		return &p, nil
	})
	return err
}

// PublishStaged signs what is staged with the offline keys at hand and makes it current, if it has the signatures then, with a change of
// a plan unless x is nil.
func (d *Desk) PublishStaged(x *PlanEdit) (*Publication, error) {
	return d.publishStaged(func(pub *published, r *Request) (*plan.Plan, error) {
		if x == nil {
			return nil, nil
		}
		return d.planned(pub, r, *x, true)
	})
}

func (d *Desk) publishStaged(choose func(*published, *Request) (*plan.Plan, error)) (*Publication, error) {
	return d.publishing(func(pub *published) (*Publication, error) {
		r, err := d.request(pub)
		if err != nil {
			return nil, err
		}
		p, err := choose(pub, r)
		if err != nil {
			return nil, fmt.Errorf("publish: %w", err)
		}
		if r.empty() {
			return d.publish(pub, r, p)
		}
		if _, err := r.Sign(d.Keys); err != nil {
			return nil, err
		}
		if err := r.enough(); err != nil {
			return nil, fmt.Errorf("publish: %w", errors.Join(err, d.keepSignatures(r)))
		}
		return d.publish(pub, r, p)
	})
}

// publishing is what all that publish begin with.
func (d *Desk) publishing(do func(*published) (*Publication, error)) (*Publication, error) {
	pub, unlock, err := d.open()
	if err != nil {
		return nil, err
	}
	defer unlock()
	return do(pub)
}

// open takes the lock, reads what is published and removes what an interrupted change has left. Call the returned function to give the lock back.
func (d *Desk) open() (*published, func(), error) {
	unlock, err := d.lock()
	if err != nil {
		return nil, nil, err
	}
	pub, err := d.published()
	if err == nil {
		err = d.clean(pub)
	}
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return pub, unlock, nil
}

// keepSignatures stores the signatures so far, so that the keys at hand need not come back.
func (d *Desk) keepSignatures(r *Request) error {
	c := d.change()
	if err := c.stage(r); err != nil {
		return err
	}
	return c.commit()
}

// enough says which signatures are missing.
func (r *Request) enough() error {
	all, err := r.Needed()
	if err != nil {
		return err
	}
	var open []string
	for _, n := range all {
		if n.Missing() > 0 {
			open = append(open, fmt.Sprintf("%s has %d of %d needed signatures of the %s", n.File, n.Have, n.Need, n.Keys))
		}
	}
	if len(open) == 0 {
		return nil
	}
	return &MissingError{Open: open}
}

// A MissingError says which signatures of offline keys are missing.
type MissingError struct{ Open []string }

// Error implements error.
func (e *MissingError) Error() string {
	return strings.Join(e.Open, "; ") + ": run release sign where the other keys are"
}

// Refresh renews what expires soon with the online keys alone: the timestamp always, snapshot and plan when they are near their end.
func (d *Desk) Refresh() (*Publication, error) {
	return d.publishing(func(pub *published) (*Publication, error) { return d.publish(pub, nothingStaged(pub), nil) })
}

// nothingStaged is the request of those who leave alone what is staged.
func nothingStaged(pub *published) *Request {
	return &Request{roots: pub.roots, published: pub.targets}
}

// A next is the state that is about to be published. What stays as it was is the same pointer as in published.
type next struct {
	published
	c *change
}

func (d *Desk) publish(pub *published, r *Request, p *plan.Plan) (*Publication, error) {
	n := &next{published: published{roots: pub.roots, targets: pub.targets, plan: pub.plan, snapshot: pub.snapshot}, c: d.change()}
	if r.Root != nil {
		n.roots = append(slices.Clone(pub.roots), r.Root)
	}
	if r.Targets != nil {
		n.targets = r.Targets
	}
	if n.root() == nil || n.targets == nil {
		return nil, fmt.Errorf("publish: %s has no root or no releases metadata: finish release init first", d.Dir)
	}
	if err := d.keepValid(n); err != nil {
		return nil, err
	}
	for _, step := range []func() error{
		func() error { return d.putTargets(pub, n) },
		func() error { return d.nextPlan(pub, n, p) },
		func() error { return d.nextSnapshot(pub, n) },
		func() error { return d.nextTimestamp(pub, n) },
	} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("publish: %w", err)
		}
	}
	gap, err := d.putVisible(pub, n)
	if err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	if _, err := os.Stat(d.path(requestFile)); err == nil && (!r.empty() || d.requestIsPublished(pub)) {
		n.c.remove(requestFile)
	}
	result := &Publication{Files: n.c.written(), Until: n.timestamp.Signed.Expires, Channel: p, Gap: gap}
	if n.root() != pub.root() {
		result.Root = version(n.root())
	}
	if n.targets != pub.targets {
		result.Targets = version(n.targets)
	}
	if n.plan != pub.plan {
		result.Plan = version(n.plan)
	}
	if err := n.c.commit(); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	return result, nil
}

// requestIsPublished reports whether all of what is staged has been published before a power cut.
func (d *Desk) requestIsPublished(pub *published) bool {
	r, err := d.request(pub)
	return err == nil && r.empty()
}

// keepValid refuses a new root under which the releases metadata is not valid any more: machines would refuse it.
func (d *Desk) keepValid(n *next) error {
	if d.Careless {
		return nil
	}
	if err := n.root().VerifyDelegate(metadata.TARGETS, n.targets); err != nil {
		return fmt.Errorf("publish: under root %d, targets metadata %d has not the signatures it needs: %w: release renew --role targets, then sign", version(n.root()), version(n.targets), err)
	}
	return nil
}

func (d *Desk) putTargets(pub *published, n *next) error {
	if n.targets == pub.targets {
		return nil
	}
	for name, info := range n.targets.Signed.Targets {
		fi, err := os.Stat(d.path(targetFile(name, digest.SHA256(info.Hashes["sha256"]))))
		if err == nil && fi.Size() != info.Length {
			err = fmt.Errorf("expected %d bytes, found %d", info.Length, fi.Size())
		}
		if err != nil && !d.Careless {
			return fmt.Errorf("%s is signed but not there: %w: stage it again", name, err)
		}
	}
	return putMeta(n.c, n.targets, metaFile(version(n.targets), metadata.TARGETS))
}

func putMeta[T metadata.Roles](c *change, m *metadata.Metadata[T], name string) error {
	b, err := m.ToBytes(true)
	if err != nil {
		return err
	}
	c.put(name, b)
	return nil
}

// nextPlan makes the next version of the plan role if the plan changes, the keys do, or the old one expires soon.
func (d *Desk) nextPlan(pub *published, n *next, p *plan.Plan) error {
	role, err := planRole(n.targets)
	if err != nil {
		return err
	}
	keep := p == nil && pub.plan != nil && !d.soon(pub.plan.Signed.Expires, planExpires) && !d.Careless &&
		n.targets.VerifyDelegate(rolePlan, pub.plan) == nil && signersAmong(pub.plan.Signatures, role.KeyIDs)
	if keep {
		return nil
	}
	m := metadata.Targets()
	if pub.plan != nil {
		if m, err = clone(pub.plan); err != nil {
			return err
		}
	}
	m.Signed.Version, m.Signed.Expires = version(pub.plan)+1, d.expires(planExpires)
	if p != nil {
		b, err := p.Marshal()
		if err != nil {
			return err
		}
		n.c.addTarget(m, plan.Target(p.Channel), b)
	}
	n.plan = m
	if err := signOnline(d, m, rolePlan, role.KeyIDs, role.Threshold, nil); err != nil {
		return err
	}
	return putMeta(n.c, m, metaFile(m.Signed.Version, rolePlan))
}

// planRole is the delegation of plan/*.
func planRole(targets *targetsMeta) (*metadata.DelegatedRole, error) {
	if targets.Signed.Delegations == nil || len(targets.Signed.Delegations.Roles) != 1 || targets.Signed.Delegations.Roles[0].Name != rolePlan {
		return nil, fmt.Errorf("targets metadata %d does not delegate to %s alone", version(targets), rolePlan)
	}
	return &targets.Signed.Delegations.Roles[0], nil
}

// signersAmong reports whether no other key than these has signed: a key that was taken away must not go on being seen.
func signersAmong(signatures []metadata.Signature, keyIDs []string) bool {
	return !slices.ContainsFunc(signatures, func(s metadata.Signature) bool { return !slices.Contains(keyIDs, s.KeyID) })
}

// soon reports whether less than half of the time is left, which leaves days to notice that nothing renews it.
func (d *Desk) soon(expires time.Time, after time.Duration) bool {
	return expires.Sub(d.Now()) < after/2
}

func (d *Desk) nextSnapshot(pub *published, n *next) error {
	role := n.root().Signed.Roles[metadata.SNAPSHOT]
	if pub.snapshot != nil && n.targets == pub.targets && n.plan == pub.plan && !d.soon(pub.snapshot.Signed.Expires, snapshotExpires) && !d.Careless &&
		n.root().VerifyDelegate(metadata.SNAPSHOT, pub.snapshot) == nil && signersAmong(pub.snapshot.Signatures, role.KeyIDs) {
		return nil
	}
	m := metadata.Snapshot(d.expires(snapshotExpires))
	m.Signed.Version = version(pub.snapshot) + 1
	for role, v := range map[string]int64{metadata.TARGETS: version(n.targets), rolePlan: version(n.plan)} {
		info, err := n.c.describe(metaFile(v, role), v)
		if err != nil {
			return err
		}
		m.Signed.Meta[role+".json"] = info
	}
	if err := signOnline(d, m, metadata.SNAPSHOT, role.KeyIDs, role.Threshold, oldKeys(pub, n, metadata.SNAPSHOT)); err != nil {
		return err
	}
	n.snapshot = m
	return putMeta(n.c, m, metaFile(m.Signed.Version, metadata.SNAPSHOT))
}

// oldKeys are the keys that a role had before, if the root changes: machines that have not seen the new root yet know those.
func oldKeys(pub *published, n *next, role string) []string {
	if pub.root() == nil || pub.root() == n.root() {
		return nil
	}
	return pub.root().Signed.Roles[role].KeyIDs
}

func (d *Desk) nextTimestamp(pub *published, n *next) error {
	m := metadata.Timestamp(d.expires(timestampExpires))
	m.Signed.Version = version(pub.timestamp) + 1
	v := version(n.snapshot)
	info, err := n.c.describe(metaFile(v, metadata.SNAPSHOT), v)
	if err != nil {
		return err
	}
	m.Signed.Meta["snapshot.json"] = info
	role := n.root().Signed.Roles[metadata.TIMESTAMP]
	n.timestamp = m
	return signOnline(d, m, metadata.TIMESTAMP, role.KeyIDs, role.Threshold, oldKeys(pub, n, metadata.TIMESTAMP))
}

// putVisible adds the files that make the rest visible. When the keys of before have signed everything too, the new metadata is valid under
// both roots and comes first, so that no reader finds anything that it must refuse; else a new root comes first, and a reader between
// the two writes is refused once.
func (d *Desk) putVisible(pub *published, n *next) (gap bool, err error) {
	if n.root() == pub.root() {
		return false, putMeta(n.c, n.timestamp, timestampFile)
	}
	old := pub.root()
	both := old == nil || old.VerifyDelegate(metadata.TARGETS, n.targets) == nil &&
		old.VerifyDelegate(metadata.SNAPSHOT, n.snapshot) == nil && old.VerifyDelegate(metadata.TIMESTAMP, n.timestamp) == nil
	root := func() error { return putMeta(n.c, n.root(), metaFile(version(n.root()), metadata.ROOT)) }
	timestamp := func() error { return putMeta(n.c, n.timestamp, timestampFile) }
	if both && old != nil {
		return false, errors.Join(timestamp(), root())
	}
	return !both, errors.Join(root(), timestamp())
}

// signOnline signs with the keys at hand; it is an error when those are fewer than needed. Keys of before sign too, if they are at hand.
func signOnline[T metadata.Roles](d *Desk, m *metadata.Metadata[T], role string, keyIDs []string, needed int, before []string) error {
	signers, err := d.Keys.Signers(role)
	if err != nil {
		return err
	}
	m.ClearSignatures()
	by, err := signWith(m, signers, slices.Concat(keyIDs, before))
	if err != nil {
		return fmt.Errorf("sign %s: %w", role, err)
	}
	n := 0
	for _, id := range by {
		if slices.Contains(keyIDs, id) {
			n++
		}
	}
	if n < needed {
		return fmt.Errorf("sign %s: %d of %d needed keys at hand: put %s-<key id>.pem into the key folder (release status lists the ids)", role, n, needed, role)
	}
	return nil
}

// describe is a metadata file as the role above it names it: version, length and hash.
func (c *change) describe(name string, version int64) (*metadata.MetaFiles, error) {
	b, err := c.read(name)
	if err != nil {
		return nil, err
	}
	sum := digest.Of(b)
	info := metadata.MetaFile(version)
	info.Length = int64(len(b))
	info.Hashes = metadata.Hashes{"sha256": sum[:]}
	return info, nil
}

// read returns a file as it will be after the change.
func (c *change) read(name string) ([]byte, error) {
	for _, w := range c.writes {
		if w.name == name && w.b != nil {
			return bytes.Clone(w.b), nil
		}
	}
	return os.ReadFile(c.desk.path(name))
}
