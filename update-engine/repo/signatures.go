package repo

import (
	"crypto"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// A Needed is one set of keys whose signatures a request needs.
type Needed struct {
	File string   `json:"file"` // 3.root.json
	Keys string   `json:"keys"` // which keys, in words
	Have int      `json:"signatures"`
	Need int      `json:"needed"`
	By   []string `json:"signed_by"` // key ids
	Open []string `json:"not_signed_by"`
}

// Missing says how many signatures are still wanted.
func (n Needed) Missing() int { return max(0, n.Need-n.Have) }

// Needed lists the signatures that the request has and needs.
func (r *Request) Needed() ([]Needed, error) {
	var list []Needed
	add := func(by *rootMeta, role, keys string, m any, v int64) error {
		n, err := count(by, role, m)
		n.File, n.Keys = fmt.Sprintf("%d.%s.json", v, role), keys
		list = append(list, n)
		return err
	}
	var err error
	newest := r.Root
	if r.Root != nil {
		if len(r.roots) > 0 {
			err = add(r.roots[len(r.roots)-1], metadata.ROOT, "root keys before", r.Root, version(r.Root))
		}
		err = errors.Join(err, add(r.Root, metadata.ROOT, "root keys from now on", r.Root, version(r.Root)))
	} else {
		newest = r.roots[len(r.roots)-1]
	}
	if r.Targets != nil {
		err = errors.Join(err, add(newest, metadata.TARGETS, "targets keys", r.Targets, version(r.Targets)))
	}
	return list, err
}

// count sees which keys of a role have signed.
func count(by *rootMeta, role string, m any) (Needed, error) {
	keys := by.Signed.Roles[role]
	if keys == nil {
		return Needed{}, fmt.Errorf("root %d has no role %s", version(by), role)
	}
	n := Needed{Need: keys.Threshold, By: []string{}, Open: []string{}}
	for _, id := range keys.KeyIDs {
		if signedBy(by.Signed.Keys[id], role, m) {
			n.By = append(n.By, id)
		} else {
			n.Open = append(n.Open, id)
		}
	}
	n.Have = len(n.By)
	return n, nil
}

// signedBy reports whether a key has signed, in the words of a root in which it is the only key.
func signedBy(key *metadata.Key, role string, m any) bool {
	one := metadata.Root()
	if key == nil || one.Signed.AddKey(key, role) != nil {
		return false
	}
	return one.VerifyDelegate(role, m) == nil
}

// Sign adds the signatures of the keys at hand, and returns the ids of those that have signed.
func (r *Request) Sign(keys Keyring) ([]string, error) {
	rootKeys, targetsKeys := r.signers(metadata.ROOT), r.signers(metadata.TARGETS)
	var by []string
	for role, sign := range map[string]func([]crypto.Signer) ([]string, error){
		metadata.ROOT: func(s []crypto.Signer) ([]string, error) {
			if r.Root == nil {
				return nil, nil
			}
			return signWith(r.Root, s, rootKeys)
		},
		metadata.TARGETS: func(s []crypto.Signer) ([]string, error) {
			if r.Targets == nil {
				return nil, nil
			}
			return signWith(r.Targets, s, targetsKeys)
		},
	} {
		signers, err := keys.Signers(role)
		if err != nil {
			return nil, err
		}
		ids, err := sign(signers)
		if err != nil {
			return nil, fmt.Errorf("sign %s: %w", role, err)
		}
		by = append(by, ids...)
	}
	slices.Sort(by)
	return slices.Compact(by), nil
}

// signers are the keys of a role before and after.
func (r *Request) signers(role string) []string {
	var ids []string
	if len(r.roots) > 0 {
		ids = append(ids, r.roots[len(r.roots)-1].Signed.Roles[role].KeyIDs...)
	}
	if r.Root != nil {
		ids = append(ids, r.Root.Signed.Roles[role].KeyIDs...)
	}
	return ids
}

// Merge takes over the valid signatures of another copy of the same request, and returns how many are new.
func (r *Request) Merge(other *Request) (int, error) {
	n := 0
	if (r.Root == nil) != (other.Root == nil) || r.Root != nil && !sameSigned(r.Root, other.Root) ||
		(r.Targets == nil) != (other.Targets == nil) || r.Targets != nil && !sameSigned(r.Targets, other.Targets) {
		return 0, errors.New("it is not a copy of what is staged here: something was staged in between; sign the new request")
	}
	if r.Root != nil {
		n += merge(r.Root, other.Root.Signatures, metadata.ROOT, r.keys())
	}
	if r.Targets != nil {
		n += merge(r.Targets, other.Targets.Signatures, metadata.TARGETS, r.keys())
	}
	return n, nil
}

// merge takes over what verifies, in the place of what has the same key's name and does not: a damaged signature must not keep the genuine
// one away.
func merge[T metadata.Roles](to *metadata.Metadata[T], from []metadata.Signature, role string, keys map[string]*metadata.Key) (n int) {
	genuine := func(s metadata.Signature) bool {
		alone := *to
		alone.Signatures = []metadata.Signature{s}
		return signedBy(keys[s.KeyID], role, &alone)
	}
	for _, s := range from {
		i := slices.IndexFunc(to.Signatures, func(have metadata.Signature) bool { return have.KeyID == s.KeyID })
		switch {
		case !genuine(s):
		case i < 0:
			to.Signatures = append(to.Signatures, s)
			n++
		case !genuine(to.Signatures[i]):
			to.Signatures[i] = s
			n++
		}
	}
	return n
}

// keys are those that may sign, before and after.
func (r *Request) keys() map[string]*metadata.Key {
	keys := map[string]*metadata.Key{}
	if len(r.roots) > 0 {
		maps.Copy(keys, r.roots[len(r.roots)-1].Signed.Keys)
	}
	if r.Root != nil {
		maps.Copy(keys, r.Root.Signed.Keys)
	}
	return keys
}

// Sign adds the signatures of the offline keys at hand to what is staged, and returns the request with the ids of the keys that signed.
func (d *Desk) Sign() (*Request, []string, error) {
	var by []string
	r, err := d.signed(func(r *Request) (err error) {
		by, err = r.Sign(d.Keys)
		return err
	})
	return r, by, err
}

// MergeSignatures takes over the signatures of a copy of what is staged, and returns how many were new.
func (d *Desk) MergeSignatures(other *Request) (*Request, int, error) {
	n := 0
	r, err := d.signed(func(r *Request) (err error) {
		n, err = r.Merge(other)
		return err
	})
	return r, n, err
}

func (d *Desk) signed(sign func(*Request) error) (*Request, error) {
	unlock, err := d.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	r, err := d.Staged()
	if err != nil {
		return nil, err
	}
	if err := sign(r); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return r, d.keepSignatures(r)
}

// ErrNothingStaged says that there is nothing to sign.
var ErrNothingStaged = errors.New("nothing is staged: run release stage or release rotate first")

// Staged returns what waits for signatures.
func (d *Desk) Staged() (*Request, error) {
	pub, err := d.published()
	if err != nil {
		return nil, err
	}
	r, err := d.request(pub)
	if err != nil {
		return nil, err
	}
	if r.empty() {
		return nil, ErrNothingStaged
	}
	return r, nil
}
