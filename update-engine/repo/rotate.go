package repo

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// A Rotation changes who may sign for a role.
type Rotation struct {
	Role      string
	Add       []*metadata.Key
	Remove    []string // key ids, or what they begin with
	Threshold int      // 0: as it is
}

// Rotate stages the next root metadata with the change, or, for plan, the next releases metadata, which delegates to it. What changes nothing is
// refused. When the releases metadata would not be valid under the new keys it is staged to be signed anew.
func (d *Desk) Rotate(x Rotation) (*Request, error) {
	return d.restage(func(r *Request) error {
		if x.Role == rolePlan {
			t, err := r.nextTargets(d)
			if err != nil {
				return err
			}
			t.ClearSignatures()
			return x.plan(t)
		}
		root, err := r.nextRoot(d)
		if err != nil {
			return err
		}
		root.ClearSignatures()
		return x.root(root)
	})
}

// Renew stages the offline metadata of the roles with a new time of expiry, and nothing else changed.
func (d *Desk) Renew(roles ...string) (*Request, error) {
	return d.restage(func(r *Request) error {
		for _, role := range roles {
			switch role {
			case metadata.ROOT:
				root, err := r.nextRoot(d)
				if err != nil {
					return err
				}
				root.Signed.Expires = d.expires(rootExpires)
				root.ClearSignatures()
			case metadata.TARGETS:
				t, err := r.nextTargets(d)
				if err != nil {
					return err
				}
				t.Signed.Expires = d.expires(targetsExpires)
				t.ClearSignatures()
			default:
				return fmt.Errorf("role %q is renewed by release refresh: expected root or targets", role)
			}
		}
		return nil
	})
}

// Discard throws away what is staged, with the payloads that nothing else names. It reports whether there was anything.
func (d *Desk) Discard() (bool, error) {
	unlock, err := d.lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	pub, err := d.published()
	if err != nil {
		return false, err
	}
	r, err := d.request(pub)
	if err != nil || r.empty() {
		return false, err
	}
	if len(pub.roots) == 0 {
		return false, errors.New("discard: the first root is not published yet: remove the folder and begin again")
	}
	c := d.change()
	if r.Targets != nil {
		for name, info := range r.Targets.Signed.Targets {
			if old := pub.targets.Signed.Targets[name]; old == nil || !old.Hashes.Equal(info.Hashes) {
				c.remove(targetFile(name, sumIn(info)))
			}
		}
	}
	c.remove(requestFile) // last: cut before, it still says what is to be removed
	return true, c.commit()
}

// restage changes what is staged.
func (d *Desk) restage(change func(*Request) error) (*Request, error) {
	pub, unlock, err := d.open()
	if err != nil {
		return nil, err
	}
	defer unlock()
	r, err := d.request(pub)
	if err != nil {
		return nil, err
	}
	if err := change(r); err != nil {
		return nil, err
	}
	if err := r.resign(d); err != nil {
		return nil, err
	}
	if err := r.sound(); err != nil {
		return nil, err
	}
	c := d.change()
	if err := c.stage(r); err != nil {
		return nil, err
	}
	return r, c.commit()
}

// resign stages the releases metadata, too, if a new root would leave it without the signatures it needs.
func (r *Request) resign(d *Desk) error {
	if r.Root == nil || r.Targets != nil || r.published == nil || r.Root.VerifyDelegate(metadata.TARGETS, r.published) == nil {
		return nil
	}
	_, err := r.nextTargets(d)
	return err
}

func (x Rotation) root(root *rootMeta) error {
	role := root.Signed.Roles[x.Role]
	if role == nil {
		return fmt.Errorf("rotate: unknown role %q: expected one of %s", x.Role, strings.Join(Roles, ", "))
	}
	keys, threshold := slices.Clone(role.KeyIDs), role.Threshold
	for _, id := range x.Remove {
		whole, err := complete(id, role.KeyIDs)
		if err == nil {
			err = root.Signed.RevokeKey(whole, x.Role)
		}
		if err != nil {
			return fmt.Errorf("rotate %s: %w", x.Role, err)
		}
	}
	for _, k := range x.Add {
		if err := root.Signed.AddKey(k, x.Role); err != nil {
			return fmt.Errorf("rotate %s: %w", x.Role, err)
		}
	}
	if x.Threshold != 0 {
		role.Threshold = x.Threshold
	}
	return x.changes(keys, role.KeyIDs, threshold, role.Threshold)
}

// changes refuses a rotation after which everything is as it was: somebody would sign it for nothing.
func (x Rotation) changes(before, after []string, from, to int) error {
	if added, removed := keysGained(before, after); len(added)+len(removed) > 0 || from != to {
		return nil
	}
	return fmt.Errorf("rotate %s: nothing changes: it has these keys, and needs %d signatures, already", x.Role, to)
}

func (x Rotation) plan(t *targetsMeta) error {
	role, err := planRole(t)
	if err != nil {
		return err
	}
	keys, threshold := slices.Clone(role.KeyIDs), role.Threshold
	for _, id := range x.Remove {
		whole, err := complete(id, role.KeyIDs)
		if err == nil {
			err = t.Signed.RevokeKey(whole, rolePlan)
		}
		if err != nil {
			return fmt.Errorf("rotate %s: %w", rolePlan, err)
		}
	}
	for _, k := range x.Add {
		if err := t.Signed.AddKey(k, rolePlan); err != nil {
			return fmt.Errorf("rotate %s: %w", rolePlan, err)
		}
	}
	if x.Threshold != 0 {
		role.Threshold = x.Threshold
	}
	return x.changes(keys, role.KeyIDs, threshold, role.Threshold)
}

// complete finds the key id that begins so.
func complete(start string, ids []string) (string, error) {
	const least = 6
	var found []string
	for _, id := range ids {
		if strings.HasPrefix(id, start) {
			found = append(found, id)
		}
	}
	switch {
	case len(start) < least:
		return "", fmt.Errorf("key id %q: want at least its first %d digits", start, least)
	case len(found) == 1:
		return found[0], nil
	}
	var short []string
	for _, id := range ids {
		short = append(short, Short(id))
	}
	return "", fmt.Errorf("key id %q fits %d of the role's keys: choose one of %s", start, len(found), strings.Join(short, ", "))
}

// sound refuses keys and thresholds that would lock everybody out, or give two roles to whoever has one key.
func (r *Request) sound() error {
	owner := map[string]string{}
	check := func(role string, ids []string, threshold int) error {
		if threshold < 1 || threshold > len(ids) {
			return fmt.Errorf("role %s: %d of %d signatures cannot be: change --threshold, or add keys first", role, threshold, len(ids))
		}
		for _, id := range ids {
			if other, ok := owner[id]; ok {
				return fmt.Errorf("key %s is of role %s already: role %s needs a key of its own", Short(id), other, role)
			}
			owner[id] = role
		}
		return nil
	}
	root := r.Root
	if root == nil {
		root = r.roots[len(r.roots)-1]
	}
	for _, name := range Roles[:4] {
		if err := check(name, root.Signed.Roles[name].KeyIDs, root.Signed.Roles[name].Threshold); err != nil {
			return err
		}
	}
	targets := r.Targets
	if targets == nil {
		targets = r.published
	}
	role, err := planRole(targets)
	if err != nil {
		return err
	}
	return check(rolePlan, role.KeyIDs, role.Threshold)
}

func keysGained(before, after []string) (added, removed []string) {
	for _, id := range after {
		if !slices.Contains(before, id) {
			added = append(added, id)
		}
	}
	for _, id := range before {
		if !slices.Contains(after, id) {
			removed = append(removed, id)
		}
	}
	return added, removed
}
