package tuf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/durable"
)

// store is the folder of what was accepted:
//
//	root.json timestamp.json snapshot.json targets.json plan.json   as the server gave them
//	anchor        the hex SHA-256 of the anchor from which root.json was reached
//	online-keys   whose keys timestamp and snapshot were accepted by; see Client.forget
//	timestamp.tag the entity tag of timestamp.json
//	cache/        small targets, by hash
//
// Everything in it is verified again when it is read. What is damaged is as if it were not there.
type store struct {
	dir  string
	used map[string]bool // names in cache/
}

const (
	anchorNote = "anchor"
	keysNote   = "online-keys"
	tagNote    = "timestamp.tag"
	cacheDir   = "cache"
)

// onlineKeys are the ids of the keys of two roles.
type onlineKeys struct {
	Timestamp []string `json:"timestamp"`
	Snapshot  []string `json:"snapshot"`
}

func openStore(dir string) (store, error) {
	if err := os.MkdirAll(filepath.Join(dir, cacheDir), 0o755); err != nil {
		return store{}, fmt.Errorf("open trusted metadata: %w", err)
	}
	return store{dir: dir, used: map[string]bool{}}, nil
}

// storedName is the file of a role that is delegated to, whose name may be anything.
func storedName(role string) string { return url.PathEscape(role) + ".json" }

// load returns a file, nil if it cannot be read.
func (s store) load(name string) []byte {
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		return nil
	}
	return b
}

func (s store) note(name string) string { return strings.TrimSpace(string(s.load(name))) }

// save writes a file durably, unless it is there already.
func (s store) save(name string, b []byte) error {
	if old := s.load(name); old != nil && bytes.Equal(old, b) {
		return nil
	}
	if err := durable.WritePath(filepath.Join(s.dir, name), b, 0o644); err != nil {
		return fmt.Errorf("keep trusted metadata: %w", err)
	}
	return nil
}

// saveRoot keeps a root and the anchor that it was reached from, in this order: cut between the two, the next run starts from the anchor
// again, which is always safe.
func (s store) saveRoot(b, anchor []byte) error {
	if err := s.save(rootFile, b); err != nil {
		return err
	}
	return s.save(anchorNote, []byte(digest.Of(anchor).String()+"\n"))
}

// forgetOthers removes timestamp and snapshot if a key that they were accepted by is no longer a key of its role, then notes the keys that
// are. Cut in between, it is done again.
func (s store) forgetOthers(now onlineKeys) error {
	var then onlineKeys
	if err := json.Unmarshal(s.load(keysNote), &then); err == nil && (lost(then.Timestamp, now.Timestamp) || lost(then.Snapshot, now.Snapshot)) {
		if err := s.remove(tagNote, timestampFile, snapshotFile); err != nil {
			return fmt.Errorf("forget metadata of replaced keys: %w", err)
		}
	}
	b, err := json.Marshal(now)
	if err != nil {
		return fmt.Errorf("keep trusted metadata: %w", err)
	}
	return s.save(keysNote, append(b, '\n'))
}

func (s store) remove(names ...string) error {
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, name := range names {
		if err := durable.Remove(root, name); err != nil {
			return err
		}
	}
	return nil
}

// lost reports whether one of the keys is not among those of now.
func lost(then, now []string) bool {
	return slices.ContainsFunc(then, func(id string) bool { return !slices.Contains(now, id) })
}

// entityTag says which stored timestamp a server has called by which tag.
type entityTag struct {
	Server string        `json:"server"`
	Tag    string        `json:"tag"`
	SHA256 digest.SHA256 `json:"sha256"`
}

func (s store) tagOf(server string, timestamp []byte) string {
	var t entityTag
	if json.Unmarshal(s.load(tagNote), &t) != nil || t.Server != server || t.SHA256 != digest.Of(timestamp) {
		return ""
	}
	return t.Tag
}

func (s store) saveTag(server string, timestamp []byte, tag string) error {
	b, err := json.Marshal(entityTag{server, tag, digest.Of(timestamp)})
	if err != nil {
		return fmt.Errorf("keep trusted metadata: %w", err)
	}
	return s.save(tagNote, append(b, '\n'))
}

// cached returns the kept bytes of a target, if they are whole.
func (s store) cached(t Target) ([]byte, bool) {
	name := t.SHA256.String()
	b, err := os.ReadFile(filepath.Join(s.dir, cacheDir, name))
	if err != nil || t.SHA256.IsZero() || t.Verify(b) != nil {
		return nil, false
	}
	s.used[name] = true
	return b, true
}

// cache keeps the verified bytes of a target. They need not survive a power cut: what is damaged is fetched again.
func (s store) cache(t Target, b []byte) error {
	if t.SHA256.IsZero() {
		return nil
	}
	name := t.SHA256.String()
	s.used[name] = true
	if err := os.WriteFile(filepath.Join(s.dir, cacheDir, name), b, 0o644); err != nil {
		return fmt.Errorf("keep target %s: %w", t.Name, err)
	}
	return nil
}

// prune removes what this client has not read.
func (s store) prune() error {
	entries, err := os.ReadDir(filepath.Join(s.dir, cacheDir))
	if err != nil {
		return fmt.Errorf("clear kept targets: %w", err)
	}
	for _, e := range entries {
		if !s.used[e.Name()] {
			if err := os.Remove(filepath.Join(s.dir, cacheDir, e.Name())); err != nil {
				return fmt.Errorf("clear kept targets: %w", err)
			}
		}
	}
	return nil
}
