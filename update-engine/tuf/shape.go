package tuf

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// parse reads a metadata file. What go-tuf's types let through and its code then trips over is refused here: other major versions of the
// specification (section 4.3), null where an object must be, keys of a wrong length, roles that are not there.
func parse[T metadata.Roles](file string, b []byte) (*metadata.Metadata[T], error) {
	m := &metadata.Metadata[T]{}
	err := guard(func() error {
		if err := nullFree(b); err != nil {
			return err
		}
		if _, err := m.FromBytes(b); err != nil {
			return err
		}
		return shape(any(m))
	})
	if err != nil {
		return nil, &Refusal{Reason: Garbage, File: file, Err: err, Detail: fmt.Sprintf("%s; it starts with %.20q: a captive portal, or a server that is no update repository?", strip(err), b)}
	}
	return m, nil
}

// guard turns a panic into an error: go-tuf reads what strangers write, and one of them must not end the update agent for ever.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it cannot be read: %v", p)
		}
	}()
	return f()
}

// nullFree refuses entries of null in the objects and lists that have a meaning.
func nullFree(b []byte) error {
	var file struct {
		Signed struct {
			Keys        map[string]any `json:"keys"`
			Roles       map[string]any `json:"roles"`
			Meta        map[string]any `json:"meta"`
			Targets     map[string]any `json:"targets"`
			Delegations struct {
				Keys  map[string]any `json:"keys"`
				Roles []any          `json:"roles"`
			} `json:"delegations"`
		} `json:"signed"`
		Signatures []any `json:"signatures"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return err
	}
	s := file.Signed
	for what, entries := range map[string]map[string]any{"keys": s.Keys, "roles": s.Roles, "meta": s.Meta, "targets": s.Targets, "delegated keys": s.Delegations.Keys} {
		for name, v := range entries {
			if v == nil {
				return fmt.Errorf("%s: %q is null", what, name)
			}
		}
	}
	for _, list := range [][]any{s.Delegations.Roles, file.Signatures} {
		for _, v := range list {
			if v == nil {
				return errors.New("an entry of a list is null")
			}
		}
	}
	return nil
}

// shape checks what the types cannot say.
func shape(m any) error {
	switch m := m.(type) {
	case *metadata.Metadata[metadata.RootType]:
		s := m.Signed
		for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
			if s.Roles[role] == nil || len(s.Roles[role].KeyIDs) == 0 || s.Roles[role].Threshold < 1 {
				return fmt.Errorf("role %s has no keys or no threshold", role)
			}
		}
		return errors.Join(common(s.SpecVersion, s.Version), usableKeys(s.Keys))
	case *metadata.Metadata[metadata.TimestampType]:
		return errors.Join(common(m.Signed.SpecVersion, m.Signed.Version), names(m.Signed.Meta, snapshotFile))
	case *metadata.Metadata[metadata.SnapshotType]:
		return errors.Join(common(m.Signed.SpecVersion, m.Signed.Version), names(m.Signed.Meta, metadata.TARGETS+".json"))
	case *metadata.Metadata[metadata.TargetsType]:
		for name, t := range m.Signed.Targets {
			if t.Length < 0 {
				return fmt.Errorf("target %q has %d bytes", name, t.Length)
			}
		}
		if d := m.Signed.Delegations; d != nil {
			if err := usableKeys(d.Keys); err != nil {
				return err
			}
		}
		return common(m.Signed.SpecVersion, m.Signed.Version)
	}
	return fmt.Errorf("unknown type %T", m)
}

func common(spec string, version int64) error {
	if major, _, ok := strings.Cut(spec, "."); !ok || major != "1" {
		return fmt.Errorf("spec_version %.20q, this program reads 1.x: update in smaller steps", spec)
	}
	if version < 1 {
		return fmt.Errorf("version %d: want 1 or more", version)
	}
	return nil
}

// names checks the files that a role lists; the one below it must be among them.
func names(meta map[string]*metadata.MetaFiles, below string) error {
	if meta[below] == nil {
		return fmt.Errorf("it does not name %s", below)
	}
	for name, f := range meta {
		if f.Version < 1 || f.Length < 0 {
			return fmt.Errorf("%q: version %d, %d bytes", name, f.Version, f.Length)
		}
	}
	return nil
}

// usableKeys refuses ed25519 keys that are no such keys. Keys of kinds that we do not know are none of our business until somebody signs with them.
func usableKeys(keys map[string]*metadata.Key) error {
	const hexDigits = 64
	for id, k := range keys {
		if k.Type == metadata.KeyTypeEd25519 && len(k.Value.PublicKey) != hexDigits {
			return fmt.Errorf("key %s has %d hex digits, an ed25519 key has %d", short(id), len(k.Value.PublicKey), hexDigits)
		}
	}
	return nil
}
