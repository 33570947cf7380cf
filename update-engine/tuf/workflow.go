package tuf

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"time"

	"github.com/proa-os/proa/internal/digest"
)

const (
	rootFile      = "root.json"
	timestampFile = "timestamp.json"
	snapshotFile  = "snapshot.json"
)

// Refresh brings the metadata up to date, or says why it is refused. What was accepted before a refusal is kept. The time is that of Config,
// so that it is one and the same in all checks (5.1).
func (c *Client) Refresh() error {
	if c.fresh {
		return nil
	}
	for _, step := range []func() error{c.updateRoot, c.updateTimestamp, c.updateSnapshot, c.updateTargets} {
		if err := step(); err != nil {
			return err
		}
	}
	c.fresh = true
	return nil
}

// startingRoot is the root that the machine trusts before it asks (5.2): the newest one reached from this anchor, or one that the keys of the
// anchor have signed, or the anchor itself. Other metadata stays when the anchor changes: if the new root does not vouch for it, it is
// ignored, and if it does, it still bounds rollback.
func startingRoot(cfg Config) (*signedFile[rootContent], []byte, error) {
	anchor, err := parse[rootContent](rootFile, roleRoot, cfg.Anchor)
	if err == nil {
		err = verifySelf(anchor)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("trust anchor root.json (%d bytes, sha256 %s) is not TUF metadata that its own keys have signed: put the repository's own root.json there: %w",
			len(cfg.Anchor), digest.Of(cfg.Anchor), err)
	}
	s := store{dir: cfg.State}
	b := s.load(rootFile)
	stored, err := parse[rootContent](rootFile, roleRoot, b)
	if err != nil || verifySelf(stored) != nil {
		return anchor, cfg.Anchor, nil
	}
	reached := s.note(anchorNote) == digest.Of(cfg.Anchor).String()
	signed := stored.Signed.Version >= anchor.Signed.Version && byRoot(anchor).check(rootFile, roleRoot, stored.signed()) == nil
	if !reached && !signed {
		return anchor, cfg.Anchor, nil
	}
	return stored, b, nil
}

func verifySelf(root *signedFile[rootContent]) error {
	return byRoot(root).check(rootFile, roleRoot, root.signed())
}

// updateRoot follows the chain of roots, one version at a time (5.3).
func (c *Client) updateRoot() error {
	if err := c.store.saveRoot(c.rootBytes, c.cfg.Anchor); err != nil {
		return err
	}
	for range maxRootRotations {
		var content []byte
		var next *signedFile[rootContent]
		file := fmt.Sprintf("%d.root.json", c.root.Signed.Version+1)
		err := c.get(file, maxRoot, "", func(b []byte, _ string) (err error) {
			content = b
			next, err = c.nextRoot(file, b)
			return err
		})
		if errors.Is(err, fs.ErrNotExist) {
			break // 5.3.3: there is no newer one
		}
		if err != nil {
			return err
		}
		if err := c.store.saveRoot(content, c.cfg.Anchor); err != nil { // 5.3.8
			return err
		}
		c.root, c.rootBytes = next, content
	}
	if r := c.root.Signed; c.cfg.Now.After(r.Expires) { // 5.3.10
		return c.expired(rootFile, r.Version, r.Expires)
	}
	return c.forget()
}

func (c *Client) nextRoot(file string, b []byte) (*signedFile[rootContent], error) {
	next, err := parse[rootContent](file, roleRoot, b)
	if err != nil {
		return nil, err
	}
	if err := byRoot(c.root).check(file, roleRoot, next.signed()); err != nil { // 5.3.4, old keys
		return nil, err
	}
	if want := c.root.Signed.Version + 1; next.Signed.Version != want { // 5.3.5
		reason := Tampered
		if next.Signed.Version < want {
			reason = Rollback
		}
		return nil, &Refusal{Reason: reason, File: file, Detail: fmt.Sprintf("it is version %d, expected %d: roots are followed one by one%s", next.Signed.Version, want, elsewhere)}
	}
	return next, byRoot(next).check(file, roleRoot, next.signed()) // 5.3.4, its own keys
}

// forget drops the stored timestamp and snapshot if the keys of either have changed since they were accepted (5.3.11): so does a repository
// recover whose thieves have raised the version numbers to where nobody gets past them.
func (c *Client) forget() error {
	keys := onlineKeys{c.root.Signed.Roles[roleTimestamp].KeyIDs, c.root.Signed.Roles[roleSnapshot].KeyIDs}
	return c.store.forgetOthers(keys)
}

// updateTimestamp is 5.4.
func (c *Client) updateTimestamp() error {
	local := c.store.load(timestampFile)
	if t, err := c.parseTimestamp(local); err == nil {
		c.timestamp = t
	}
	var content []byte
	var newTag string
	sent := c.tag(local)
	err := c.get(timestampFile, maxTimestamp, sent, func(b []byte, tag string) error {
		content, newTag = nil, ""
		if b == nil && sent != "" {
			return c.freshTimestamp(c.timestamp)
		}
		t, err := c.parseTimestamp(b) // 5.4.2
		if err != nil {
			return err
		}
		if c.timestamp != nil {
			if t.Signed.Version == c.timestamp.Signed.Version { // 5.4.3.1: the same, or one that says so
				if string(b) == string(local) {
					newTag = tag
				}
				return c.freshTimestamp(c.timestamp)
			}
			if err := notOlder(t, c.timestamp); err != nil {
				return err
			}
		}
		if err := c.freshTimestamp(t); err != nil { // 5.4.4
			return err
		}
		c.timestamp, content, newTag = t, b, tag
		return nil
	})
	if err != nil {
		return c.missing(timestampFile, err)
	}
	if content == nil {
		content = local
	} else if err := c.store.save(timestampFile, content); err != nil { // 5.4.5
		return err
	}
	return c.keepTag(content, newTag)
}

func (c *Client) parseTimestamp(b []byte) (*signedFile[timestampContent], error) {
	t, err := parse[timestampContent](timestampFile, roleTimestamp, b)
	if err != nil {
		return nil, err
	}
	return t, byRoot(c.root).check(timestampFile, roleTimestamp, t.signed())
}

// notOlder is 5.4.3.
func notOlder(t, trusted *signedFile[timestampContent]) error {
	if t.Signed.Version < trusted.Signed.Version {
		return rollback(timestampFile, timestampFile, t.Signed.Version, trusted.Signed.Version)
	}
	if got, want := t.Signed.Meta[snapshotFile].Version, trusted.Signed.Meta[snapshotFile].Version; got < want {
		return rollback(timestampFile, snapshotFile, got, want)
	}
	return nil
}

// freshTimestamp is 5.4.4, and asks whether the clock can be right: one that has fallen back takes everything for valid.
func (c *Client) freshTimestamp(t *signedFile[timestampContent]) error {
	if c.cfg.Now.After(t.Signed.Expires) {
		return c.expired(timestampFile, t.Signed.Version, t.Signed.Expires)
	}
	if t.Signed.Expires.Sub(c.cfg.Now) > absurd && !c.cfg.Plain {
		return &Refusal{Reason: Clock, File: timestampFile, Detail: fmt.Sprintf("the clock says %s, version %d is valid until %s, and a timestamp lives for days: see timedatectl",
			c.cfg.Now.UTC().Format(time.RFC3339), t.Signed.Version, t.Signed.Expires.UTC().Format(time.RFC3339))}
	}
	return nil
}

// tag is the entity tag under which the server gave the stored timestamp, if that is the trusted one.
func (c *Client) tag(local []byte) string {
	if c.timestamp == nil {
		return ""
	}
	return c.store.tagOf(c.cfg.Metadata, local)
}

func (c *Client) keepTag(content []byte, tag string) error {
	if tag == "" {
		return nil
	}
	return c.store.saveTag(c.cfg.Metadata, content, tag)
}

// updateSnapshot is 5.5.
func (c *Client) updateSnapshot() error {
	info := c.timestamp.Signed.Meta[snapshotFile]
	var trusted *signedFile[snapshotContent] // bounds rollback, also when it is not the one to use
	if b := c.store.load(snapshotFile); b != nil {
		if m, err := c.parseSnapshot(snapshotFile, b); err == nil {
			trusted = m
			if m.Signed.Version == info.Version && info.verify(b) == nil && !c.cfg.Now.After(m.Signed.Expires) {
				c.snapshot = m
				return nil
			}
		}
	}
	file := c.versioned(info.Version, snapshotFile)
	var content []byte
	err := c.get(file, length(info, maxSnapshot), "", func(b []byte, _ string) error {
		m, err := c.newSnapshot(file, b, info, trusted)
		c.snapshot, content = m, b
		return err
	})
	if err != nil {
		c.snapshot = nil
		return c.missing(file, err)
	}
	return c.store.save(snapshotFile, content) // 5.5.7
}

func (c *Client) parseSnapshot(file string, b []byte) (*signedFile[snapshotContent], error) {
	m, err := parse[snapshotContent](file, roleSnapshot, b)
	if err != nil {
		return nil, err
	}
	return m, byRoot(c.root).check(file, roleSnapshot, m.signed())
}

func (c *Client) newSnapshot(file string, b []byte, info *metaFile, trusted *signedFile[snapshotContent]) (*signedFile[snapshotContent], error) {
	if err := named(file, timestampFile, info, b); err != nil { // 5.5.2
		return nil, err
	}
	m, err := c.parseSnapshot(file, b) // 5.5.3
	if err != nil {
		return nil, err
	}
	if m.Signed.Version != info.Version { // 5.5.4
		return nil, mixed(file, m.Signed.Version, timestampFile, info.Version)
	}
	if trusted != nil { // 5.5.5
		for name, old := range trusted.Signed.Meta {
			now, ok := m.Signed.Meta[name]
			if !ok {
				return nil, &Refusal{Reason: Rollback, File: file, Detail: fmt.Sprintf("it no longer names %s, of which this machine has seen version %d%s", name, old.Version, elsewhere)}
			}
			if now.Version < old.Version {
				return nil, rollback(file, name, now.Version, old.Version)
			}
		}
	}
	if c.cfg.Now.After(m.Signed.Expires) { // 5.5.6
		return nil, c.expired(file, m.Signed.Version, m.Signed.Expires)
	}
	return m, nil
}

// updateTargets is 5.6 for the offline role.
func (c *Client) updateTargets() error {
	_, err := c.load(roleTargets, byRoot(c.root))
	return err
}

// load returns the metadata of the offline role or of one that is delegated to (5.6): the one at hand, the stored one, or the server's. Its signatures
// are compared with what this delegator says about it, whoever else has delegated to it before.
func (c *Client) load(role string, by delegator) (*signedFile[targetsContent], error) {
	name := role + ".json"
	info, ok := c.snapshot.Signed.Meta[name]
	if !ok {
		return nil, &Refusal{Reason: Missing, File: name, Detail: fmt.Sprintf("snapshot.json, version %d, does not name it%s", c.snapshot.Signed.Version, elsewhere)}
	}
	file := c.versioned(info.Version, url.PathEscape(role)+".json")
	if m := c.targets[role]; m != nil {
		return m, by.check(file, role, m.signed())
	}
	if b := c.store.load(storedName(role)); b != nil {
		if m, err := c.newTargets(file, role, b, info, by); err == nil {
			c.targets[role] = m
			return m, nil
		}
	}
	var content []byte
	var found *signedFile[targetsContent]
	err := c.get(file, length(info, maxTargets), "", func(b []byte, _ string) (err error) {
		content = b
		found, err = c.newTargets(file, role, b, info, by)
		return err
	})
	if err != nil {
		return nil, c.missing(file, err)
	}
	if err := c.store.save(storedName(role), content); err != nil { // 5.6.6
		return nil, err
	}
	c.targets[role] = found
	return found, nil
}

func (c *Client) newTargets(file, role string, b []byte, info *metaFile, by delegator) (*signedFile[targetsContent], error) {
	if err := named(file, snapshotFile, info, b); err != nil { // 5.6.2
		return nil, err
	}
	m, err := parse[targetsContent](file, roleTargets, b)
	if err != nil {
		return nil, err
	}
	if err := by.check(file, role, m.signed()); err != nil { // 5.6.3
		return nil, err
	}
	if m.Signed.Version != info.Version { // 5.6.4
		return nil, mixed(file, m.Signed.Version, snapshotFile, info.Version)
	}
	if c.cfg.Now.After(m.Signed.Expires) { // 5.6.5
		return nil, c.expired(file, m.Signed.Version, m.Signed.Expires)
	}
	return m, nil
}

// get fetches a file of metadata/.
func (c *Client) get(file string, limit int64, tag string, accept func([]byte, string) error) error {
	err := c.cfg.Fetcher.Get(c.ctx, c.cfg.Metadata+"/"+file, limit, tag, accept)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.As(err, new(*Refusal)) {
		return fmt.Errorf("fetch metadata from %s: %w", c.cfg.Server, err)
	}
	return err
}

// versioned is the name under which a repository with consistent snapshots has a file.
func (c *Client) versioned(version int64, name string) string {
	if !c.root.Signed.ConsistentSnapshot {
		return name
	}
	return fmt.Sprintf("%d.%s", version, name)
}

// length is what is read of a file at most: what the role above says, within reason.
func length(info *metaFile, limit int64) int64 {
	if info.Length <= 0 {
		return limit
	}
	return min(info.Length, limit)
}

// named compares a file with what the role above it says.
func named(file, above string, info *metaFile, b []byte) error {
	err := info.verify(b)
	if err == nil {
		return nil
	}
	want := "another"
	if sum, ok := info.Hashes["sha256"]; ok {
		want = fmt.Sprintf("%.64s", sum)
	}
	return &Refusal{Reason: Tampered, File: file, Err: err, Detail: fmt.Sprintf(
		"it has %d bytes with sha256 %x, %s names %d bytes with %s: the server gives files of different times, or somebody changes them on the way%s",
		len(b), sha256.Sum256(b), above, info.Length, want, elsewhere)}
}
