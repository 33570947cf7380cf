package tuf

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
)

// The top-level roles.
const (
	roleRoot      = "root"
	roleTimestamp = "timestamp"
	roleSnapshot  = "snapshot"
	roleTargets   = "targets"
)

// A signedFile is a metadata file (section 4.2).
type signedFile[T any] struct {
	Signed     T
	Signatures []signature

	payload []byte // what the signatures are of
}

type signature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"` // hexadecimal, if the server is honest
}

// head is what all roles have in common.
type head struct {
	Type        string    `json:"_type"`
	SpecVersion string    `json:"spec_version"`
	Version     int64     `json:"version"`
	Expires     time.Time `json:"expires"`
}

type (
	rootContent struct {
		head
		ConsistentSnapshot bool             `json:"consistent_snapshot"`
		Keys               map[string]*key  `json:"keys"`
		Roles              map[string]*role `json:"roles"`
	}
	timestampContent struct {
		head
		Meta map[string]*metaFile `json:"meta"`
	}
	snapshotContent struct {
		head
		Meta map[string]*metaFile `json:"meta"`
	}
	targetsContent struct {
		head
		Targets     map[string]*targetFile `json:"targets"`
		Delegations *delegations           `json:"delegations"`
	}
)

type role struct {
	KeyIDs    []string `json:"keyids"`
	Threshold int      `json:"threshold"`
}

type metaFile struct {
	Version int64  `json:"version"`
	Length  int64  `json:"length"` // 0 if it is not said
	Hashes  hashes `json:"hashes"`
}

type targetFile struct {
	Length int64  `json:"length"`
	Hashes hashes `json:"hashes"`
}

type delegations struct {
	Keys  map[string]*key  `json:"keys"`
	Roles []*delegatedRole `json:"roles"`
}

type delegatedRole struct {
	role
	Name             string   `json:"name"`
	Terminating      bool     `json:"terminating"`
	Paths            []string `json:"paths"`
	PathHashPrefixes []string `json:"path_hash_prefixes"`
}

// content is what a role's file says.
type content interface {
	common() head
	check() error
}

func (h head) common() head { return h }

// parse reads a metadata file. Its meaning and the canonical form that is signed are both taken from one decoded value, so the two cannot
// differ: of a key that stands there twice, for one, only the last counts in both.
func parse[T content](file, role string, b []byte) (*signedFile[T], error) {
	m, err := unmarshal[T](role, b)
	if err != nil {
		return nil, &Refusal{Reason: Garbage, File: file, Err: err, Detail: fmt.Sprintf("%v; it starts with %.20q: a captive portal, or a server that is no update repository? see server and proxy in the configuration", err, b)}
	}
	return m, nil
}

func unmarshal[T content](role string, b []byte) (*signedFile[T], error) {
	v, err := decode(b)
	if err != nil {
		return nil, err
	}
	envelope, _ := v.(map[string]any)
	if envelope["signed"] == nil || envelope["signatures"] == nil {
		return nil, errors.New("no signed object with signatures")
	}
	m := &signedFile[T]{}
	if m.payload, err = canonical(envelope["signed"]); err != nil {
		return nil, err
	}
	if err := errors.Join(fill(&m.Signed, envelope["signed"]), fill(&m.Signatures, envelope["signatures"])); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, s := range m.Signatures {
		if seen[s.KeyID] {
			return nil, fmt.Errorf("multiple signatures of key %s, which counts once", s.KeyID)
		}
		seen[s.KeyID] = true
	}
	h := m.Signed.common()
	switch major, _, ok := strings.Cut(h.SpecVersion, "."); {
	case h.Type != role:
		return nil, fmt.Errorf("expected metadata of type %s, found %.20q", role, h.Type)
	case !ok || major != "1":
		return nil, fmt.Errorf("spec_version %.20q, this program reads 1.x: update in smaller steps", h.SpecVersion)
	case h.Version < 1:
		return nil, fmt.Errorf("version %d: want 1 or more", h.Version)
	case h.Expires.IsZero():
		return nil, errors.New("it does not say when it expires")
	}
	return m, m.Signed.check()
}

// fill gives a decoded value its type.
func fill(to, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, to)
}

func (r rootContent) check() error {
	for _, name := range []string{roleRoot, roleTimestamp, roleSnapshot, roleTargets} {
		if r.Roles[name] == nil || len(r.Roles[name].KeyIDs) == 0 || r.Roles[name].Threshold < 1 {
			return fmt.Errorf("role %s has no keys or no threshold", name)
		}
	}
	return checkKeys(r.Keys)
}

func (t timestampContent) check() error { return checkMeta(t.Meta, snapshotFile) }
func (s snapshotContent) check() error  { return checkMeta(s.Meta, roleTargets+".json") }

func (t targetsContent) check() error {
	for name, f := range t.Targets {
		if f == nil || f.Length < 0 || len(f.Hashes) == 0 {
			return fmt.Errorf("target %q has no length or hashes", name)
		}
	}
	if t.Delegations == nil {
		return nil
	}
	names := map[string]bool{}
	for _, r := range t.Delegations.Roles {
		if r == nil || r.Name == "" || names[r.Name] || r.Threshold < 1 {
			return errors.New("a delegated role has no name, another's name, or no threshold")
		}
		names[r.Name] = true
	}
	return checkKeys(t.Delegations.Keys)
}

// checkMeta checks the files that a role lists; the one below it must be among them.
func checkMeta(meta map[string]*metaFile, below string) error {
	if meta[below] == nil {
		return fmt.Errorf("it does not name %s", below)
	}
	for name, f := range meta {
		if f == nil || f.Version < 1 || f.Length < 0 {
			return fmt.Errorf("%q has no version, or no possible length", name)
		}
	}
	return nil
}

func checkKeys(keys map[string]*key) error {
	for id, k := range keys {
		if k == nil {
			return fmt.Errorf("key %.20q is null", id)
		}
	}
	return nil
}

// matches reports whether the role is trusted with a name: by patterns, whose wildcards end at a slash, or by the first digits of the name's SHA-256.
func (r *delegatedRole) matches(name string) bool {
	for _, pattern := range r.Paths {
		if strings.Count(pattern, "/") != strings.Count(name, "/") {
			continue
		}
		if ok, err := path.Match(pattern, name); ok && err == nil {
			return true
		}
	}
	sum := sha256.Sum256([]byte(name))
	for _, prefix := range r.PathHashPrefixes {
		if prefix != "" && len(r.Paths) == 0 && strings.HasPrefix(hex.EncodeToString(sum[:]), prefix) {
			return true
		}
	}
	return false
}

// hashes are hexadecimal digests by algorithm.
type hashes map[string]string

// verify compares bytes with all digests that we know; one of them there must be, if there are any.
func (h hashes) verify(b []byte) error {
	known := 0
	for algorithm, want := range h {
		var sum []byte
		switch algorithm {
		case "sha256":
			s := sha256.Sum256(b)
			sum = s[:]
		case "sha512":
			s := sha512.Sum512(b)
			sum = s[:]
		default:
			continue
		}
		known++
		if decoded, err := hex.DecodeString(want); err != nil || !bytes.Equal(decoded, sum) {
			return fmt.Errorf("expected %s %.128s, found %x", algorithm, want, sum)
		}
	}
	if known == 0 && len(h) > 0 {
		return errors.New("no digest of a kind that this program knows")
	}
	return nil
}

func (f *metaFile) verify(b []byte) error {
	if f.Length != 0 && f.Length != int64(len(b)) {
		return fmt.Errorf("expected %d bytes, found %d", f.Length, len(b))
	}
	return f.Hashes.verify(b)
}
